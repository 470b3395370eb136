//! Isolates the code of a dump in its sandbox with Linux namespaces, through the tools of `util-linux`. Whether
//! the platform allows them is determined by trying.

use std::path::Path;
use std::process::{Command, Stdio};

use super::seccomp;
use crate::proof::Isolation;

/// Folders of programs and libraries, which a sandbox sees read-only. Everything else of the machine is hidden.
const PROGRAMS: &str = "/bin /gnu /lib /lib32 /lib64 /libx32 /nix /sbin /usr";

/// Runs as the first process of the new namespaces. It mounts an overlay over the template (or copies it, if that
/// fails), hides everything that the server does not need, and runs the server without privileges. Arguments:
/// folders of programs, the launcher or an empty string, the template, the sandbox's folder, further folders to
/// keep visible, `--`, the server's command.
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
# Debian finds some libraries, and control files of extensions, through these links.
[ -d /etc/alternatives ] && cp -rP /etc/alternatives /run/etc/ || true
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

/// Runs a command without privileges, in a user namespace whose limit for further ones is 0: inside a new user
/// namespace, an unprivileged process could mount, and reach parts of the kernel that are otherwise closed to it.
/// If the platform does not allow user namespaces at all, nothing needs to be closed.
const CLOSED: &str = r#"
if unshare --user --map-current-user true 2>/dev/null; then
  exec unshare --user --map-current-user --keep-caps sh -c '
    { echo 0 >/proc/sys/user/max_user_namespaces; } 2>/dev/null
    exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs --pdeathsig KILL "$@"
  ' closed "$@"
fi
exec setpriv --no-new-privs --pdeathsig KILL "$@"
"#;

/// Runs a command under the seccomp filter, if there is a launcher and the kernel supports filters. Arguments: the
/// launcher, [`REPORT`], its file, the command.
const FILTERED: &str = r#"
launcher=$1; report=$2; file=$3; shift 3
if "$launcher" sandbox-exec -- true 2>/dev/null; then
  exec "$launcher" sandbox-exec -- sh -c "$report" report "$file" filtered "$@"
fi
exec sh -c "$report" report "$file" unfiltered "$@"
"#;

/// Tests the isolation from inside, right before the server starts, and writes the result to a file. At this
/// point no code of a dump has run that could forge it. Arguments: the file, `filtered` or `unfiltered`, the
/// server's command.
const REPORT: &str = r#"
file=$1; filter=$2; shift 2
{
  echo "$filter"
  grep Seccomp: /proc/self/status
  unshare --user true || echo no user namespaces
} >"$file" 2>/dev/null
exec "$@"
"#;

/// The file in the sandbox's folder that [`REPORT`] writes.
const REPORTED: &str = "isolation";

/// Runs a command unless the keeper is gone: it may have died before the parent-death signal was requested.
const BOUND: [&str; 4] = [
    "sh",
    "-c",
    r#"[ "$PPID" = "$keeper" ] && exec "$@""#,
    "bound",
];

/// No isolation.
pub(super) fn none(why: &str) -> Isolation {
    Isolation {
        why_not: Some(why.into()),
        ..Isolation::default()
    }
}

/// Determines what isolation this platform allows.
pub(super) fn probe(is_root: bool) -> Isolation {
    let mut probe = namespaces(is_root);
    // Also try the mounts, which container platforms often forbid.
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
    match super::commands::run(&mut command) {
        Ok(_) => Isolation {
            network: true,
            pids: true,
            files: true,
            ..Isolation::default()
        },
        Err(e) => none(&format!("namespaces are not available: {e}")),
    }
}

/// The command that creates the namespaces. Without root, a user namespace gives the right to create the others.
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

/// The command that runs `server` as `user`, isolated as `isolation` says.
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

/// The isolation of a server that has just started, according to its report. A missing report proves nothing.
pub(super) fn read_report(isolation: &Isolation, folder: &Path, bindir: &Path) -> Isolation {
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

/// The installation prefix of the PostgreSQL programs, unless it is visible anyway.
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
    fn only_what_the_report_proves_counts() {
        let folder = tempfile::tempdir().unwrap();
        let all = Isolation {
            network: true,
            pids: true,
            files: true,
            ..Isolation::default()
        };
        let seccomp_and_namespaces = |report: Option<&str>| {
            report
                .iter()
                .for_each(|r| std::fs::write(folder.path().join(REPORTED), r).unwrap());
            let held = read_report(&all, folder.path(), Path::new("/opt/pg/bin"));
            assert_eq!(held.visible.last().map(String::as_str), Some("/opt/pg"));
            (held.seccomp, held.user_namespaces_closed)
        };
        assert_eq!(seccomp_and_namespaces(None), (false, false));
        assert_eq!(
            seccomp_and_namespaces(Some("filtered\nSeccomp:\t0\n")),
            (false, false)
        );
        // A foreign filter does not count.
        assert_eq!(
            seccomp_and_namespaces(Some("unfiltered\nSeccomp:\t2\nno user namespaces\n")),
            (false, true)
        );
        assert_eq!(
            seccomp_and_namespaces(Some("filtered\nSeccomp:\t2\nno user namespaces\n")),
            (true, true)
        );
        // If `/proc` is hidden, the launcher's success counts.
        assert_eq!(seccomp_and_namespaces(Some("filtered\n")), (true, false));
        assert_eq!(
            super::read_report(&none("no"), folder.path(), Path::new("/opt/pg/bin")),
            none("no")
        );
    }
}
