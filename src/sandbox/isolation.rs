//! What keeps the code of a dump inside its sandbox: Linux namespaces, by the tools of `util-linux`.
//! Whether the platform allows them is found out by trying.

use std::path::Path;
use std::process::{Command, Stdio};

use super::seccomp;
use crate::proof::Isolation;

/// Folders of programs and libraries, which a sandbox sees as they are. Everything else of the machine is
/// hidden.
const PROGRAMS: &str = "/bin /gnu /lib /lib32 /lib64 /libx32 /nix /sbin /usr";

/// Runs as the first process of its own namespaces: lays the data over the template (a copy where
/// that cannot be done), hides what others have, keeps what the server needs, and runs the server
/// without any privilege. Arguments: folders of programs, the launcher or nothing, template, sandbox's folder,
/// what else is kept, `--`, the server.
const INSIDE: &str = r#"
set -e
mount --make-rprivate /
programs=$1; launcher=$2; template=$3; shift 3
layers="lowerdir=$template,upperdir=$1/upper,workdir=$1/work"
mount -t overlay -o "$layers" overlay "$1/data" 2>/dev/null ||
  mount -t overlay -o "$layers,userxattr" overlay "$1/data" 2>/dev/null ||
  cp -a "$template/." "$1/data"
if [ -n "$launcher" ]; then
  : >"$1/launcher"
  if mount --bind "$launcher" "$1/launcher"; then
    mount -o remount,bind,ro "$1/launcher" || umount "$1/launcher"
  fi
fi
mount -t tmpfs -o mode=755 tmpfs /run
n=0; kept=
while [ "$1" != -- ]; do
  n=$((n+1)); mkdir "/run/$n"; mount --rbind "$1" "/run/$n"; kept="$kept $n"
  eval "place$n=\$1"; shift
done
shift
mkdir /run/etc
for part in ld.so.cache ld.so.conf ld.so.conf.d ld-musl-x86_64.path nsswitch.conf localtime; do
  [ -e "/etc/$part" ] && cp -rL "/etc/$part" /run/etc/
done
grep -E "^(root|nobody|postgres):|^[^:]*:[^:]*:$(id -u):" /etc/passwd >/run/etc/passwd || true
grep -E "^(root|nogroup|postgres):|^[^:]*:[^:]*:$(id -g):" /etc/group >/run/etc/group || true
mkdir -p /run/dev/shm
for part in null zero full random urandom; do
  : >"/run/dev/$part"; mount --bind "/dev/$part" "/run/dev/$part"
done
ln -s /proc/self/fd /run/dev/fd
ln -s fd/0 /run/dev/stdin; ln -s fd/1 /run/dev/stdout; ln -s fd/2 /run/dev/stderr
for part in /* /.[!.]*; do
  [ -L "$part" ] && continue
  case " $programs /dev /etc /proc /run " in
    *" $part "*) ;;
    *)
      if [ -d "$part" ]; then mount -t tmpfs -o mode=755 tmpfs "$part"
      elif [ -f "$part" ]; then mount --bind /dev/null "$part"
      fi ;;
  esac
done
for part in $programs; do
  [ -d "$part" ] && [ ! -L "$part" ] || continue
  mount --rbind "$part" "$part"; mount -o remount,bind,ro "$part"
done
for part in /usr/local /usr/src; do
  [ -d "$part" ] && [ ! -L "$part" ] && mount -t tmpfs -o mode=755 tmpfs "$part"
done
mount --rbind /run/dev /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -m 1777 /var/tmp 2>/dev/null || true
for n in $kept; do
  eval "place=\$place$n"
  mkdir -p "$place"; mount --rbind "/run/$n" "$place"; umount -l "/run/$n"; rmdir "/run/$n"
  [ "$n" = 1 ] || mount -o remount,bind,ro "$place"
done
# The last of them: for who is not root, umount wants /etc/fstab.
mount --bind /run/etc /etc
mount -t proc proc /proc 2>/dev/null || mount -t tmpfs -o mode=755 tmpfs /proc
"$@" &
wait $!
"#;

/// Runs a command without any right, in a last namespace of users that has room for no other: within one,
/// an unprivileged process could mount, and reach parts of the kernel that are closed to it otherwise. Where
/// the platform lets nobody make one, there is nothing to close.
const CLOSED: &str = r#"
if unshare --user --map-current-user true 2>/dev/null; then
  exec unshare --user --map-current-user --keep-caps sh -c '
    { echo 0 >/proc/sys/user/max_user_namespaces; } 2>/dev/null
    exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs --pdeathsig KILL "$@"
  ' closed "$@"
fi
exec setpriv --no-new-privs --pdeathsig KILL "$@"
"#;

/// Runs a command under the seccomp filter, where there is a launcher and the kernel has filters. Arguments:
/// the launcher, [`REPORT`], its file, the command.
const FILTERED: &str = r#"
launcher=$1; report=$2; file=$3; shift 3
if "$launcher" sandbox-exec -- true 2>/dev/null; then
  exec "$launcher" sandbox-exec -- sh -c "$report" report "$file" filtered "$@"
fi
exec sh -c "$report" report "$file" unfiltered "$@"
"#;

/// Writes down what holds for the server, found out by trying right before it starts: at this point nothing
/// of a dump has run that could write something else. Arguments: a file, whether there is a filter, the server.
const REPORT: &str = r#"
file=$1; filter=$2; shift 2
{
  echo "$filter"
  grep Seccomp: /proc/self/status
  unshare --user true || echo no user namespaces
} >"$file" 2>/dev/null
exec "$@"
"#;

/// Where [`REPORT`] writes, in the sandbox's folder.
const REPORTED: &str = "isolation";

/// Runs a command unless the keeper is gone: it may have died before its death's signal was asked for.
const BOUND: [&str; 4] = [
    "sh",
    "-c",
    r#"[ "$PPID" = "$keeper" ] && exec "$@""#,
    "bound",
];

/// Not kept apart at all.
pub(super) fn none(why: &str) -> Isolation {
    Isolation {
        why_not: Some(why.into()),
        ..Isolation::default()
    }
}

/// What this platform allows.
pub(super) fn probe(is_root: bool) -> Isolation {
    let mut probe = namespaces(is_root);
    // The mounts are what container platforms forbid.
    probe.extend(
        [
            "sh",
            "-c",
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run",
        ]
        .map(str::to_owned),
    );
    let mut command = Command::new(&probe[0]);
    command.args(&probe[1..]).stdin(Stdio::null());
    match super::run(&mut command) {
        Ok(_) => Isolation {
            network: true,
            pids: true,
            files: true,
            ..Isolation::default()
        },
        Err(e) => none(&format!("namespaces are not available: {e}")),
    }
}

/// The command that makes the namespaces. Who is not root gets the right to the others by a
/// namespace of users.
fn namespaces(is_root: bool) -> Vec<String> {
    let mut command = vec!["unshare"];
    if !is_root {
        command.extend(["--user", "--map-current-user", "--keep-caps"]);
    }
    command.extend([
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "--kill-child=KILL",
        "--",
    ]);
    command.into_iter().map(str::to_owned).collect()
}

/// The command that runs `server` as `user`, as far apart as `isolation` says.
pub(super) fn command(
    isolation: &Isolation,
    template: &Path,
    folder: &Path,
    bindir: &Path,
    user: Option<(u32, u32)>,
    server: &[String],
) -> Vec<String> {
    let mut command: Vec<String> = vec![];
    if isolation.files {
        command.extend(
            ["setpriv", "--pdeathsig", "KILL"]
                .into_iter()
                .chain(BOUND)
                .map(str::to_owned),
        );
        command.extend(namespaces(user.is_some()));
        command.extend(["sh", "-c", INSIDE, "inside", PROGRAMS].map(str::to_owned));
        command.push(seccomp::launcher().map_or_else(String::new, |l| l.display().to_string()));
        command.push(template.display().to_string());
        command.push(folder.display().to_string());
        command.extend(prefix(bindir).map(|p| p.display().to_string()));
        command.push("--".into());
    }
    command.push("setpriv".into());
    if let Some((uid, gid)) = user {
        command.extend([
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".into(),
        ]);
    }
    if isolation.files {
        command.extend(
            [
                "--bounding-set=-all",
                "--inh-caps=-all",
                "--ambient-caps=-all",
            ]
            .map(str::to_owned),
        );
        command.extend(["sh", "-c", CLOSED, "closed"].map(str::to_owned));
        command.extend(["sh", "-c", FILTERED, "filtered"].map(str::to_owned));
        command.push(folder.join("launcher").display().to_string());
        command.extend([
            REPORT.to_owned(),
            folder.join(REPORTED).display().to_string(),
        ]);
    } else {
        command.extend(["--no-new-privs", "--pdeathsig", "KILL"].map(str::to_owned));
        command.extend(BOUND.map(str::to_owned));
    }
    command.extend(server.iter().cloned());
    command
}

/// What holds for a server that has just started, by its own report. A report that is not there shows nothing.
pub(super) fn held(isolation: &Isolation, folder: &Path, bindir: &Path) -> Isolation {
    if !isolation.files {
        return isolation.clone();
    }
    let report = std::fs::read_to_string(folder.join(REPORTED)).unwrap_or_default();
    let says = |line: &str| report.lines().any(|l| l == line);
    let is_filtered = says("filtered") && (says("Seccomp:\t2") || !report.contains("Seccomp:"));
    let programs = PROGRAMS
        .split(' ')
        .map(Path::new)
        .filter(|p| p.is_dir() && !p.is_symlink());
    Isolation {
        seccomp: is_filtered,
        user_namespaces_closed: says("no user namespaces"),
        visible: programs
            .chain(prefix(bindir))
            .map(|p| p.display().to_string())
            .collect(),
        ..isolation.clone()
    }
}

/// The folder with the programs' libraries and files, unless it is seen anyway.
fn prefix(bindir: &Path) -> Option<&Path> {
    let prefix = bindir.parent().unwrap_or(bindir);
    let mut programs = PROGRAMS
        .split(' ')
        .filter(|_| !prefix.starts_with("/usr/local"));
    (!programs.any(|p| prefix.starts_with(p))).then_some(prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_whose_keeper_is_gone_does_not_start() {
        let me = std::process::id();
        for (keeper, said) in [(me, "started\n"), (me + 1, "")] {
            let nothing = none("");
            let (folder, server) = (Path::new("/"), ["echo".to_owned(), "started".to_owned()]);
            let command = super::command(&nothing, folder, folder, folder, None, &server);
            let output = Command::new(&command[0])
                .args(&command[1..])
                .env("keeper", keeper.to_string())
                .output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), said);
        }
    }

    #[test]
    fn only_what_the_report_says_holds() {
        let folder = tempfile::tempdir().unwrap();
        let all = Isolation {
            network: true,
            pids: true,
            files: true,
            ..Isolation::default()
        };
        let both = |report: Option<&str>| {
            report
                .iter()
                .for_each(|r| std::fs::write(folder.path().join(REPORTED), r).unwrap());
            let held = held(&all, folder.path(), Path::new("/opt/pg/bin"));
            assert_eq!(held.visible.last().map(String::as_str), Some("/opt/pg"));
            (held.seccomp, held.user_namespaces_closed)
        };
        assert_eq!(both(None), (false, false));
        assert_eq!(both(Some("filtered\nSeccomp:\t0\n")), (false, false));
        // A filter that is not ours.
        assert_eq!(
            both(Some("unfiltered\nSeccomp:\t2\nno user namespaces\n")),
            (false, true)
        );
        assert_eq!(
            both(Some("filtered\nSeccomp:\t2\nno user namespaces\n")),
            (true, true)
        );
        // Where `/proc` is hidden, the launcher's own success.
        assert_eq!(both(Some("filtered\n")), (true, false));
        assert_eq!(
            super::held(&none("no"), folder.path(), Path::new("/opt/pg/bin")),
            none("no")
        );
    }
}
