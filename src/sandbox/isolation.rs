//! What keeps the code of a dump inside its sandbox: Linux namespaces, by the tools of `util-linux`.
//! Whether the platform allows them is found out by trying.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::proof::Isolation;

/// Runs as the first process of its own namespaces: lays the data over the template (a copy where
/// that cannot be done), hides what others have, keeps what the server needs, and runs the server
/// without any privilege. Arguments: template, sandbox's folder, what else is kept, `--`, the server.
const INSIDE: &str = r#"
set -e
mount --make-rprivate /
template=$1; shift
layers="lowerdir=$template,upperdir=$1/upper,workdir=$1/work"
mount -t overlay -o "$layers" overlay "$1/data" 2>/dev/null ||
  mount -t overlay -o "$layers,userxattr" overlay "$1/data" 2>/dev/null ||
  cp -a "$template/." "$1/data"
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
for part in /* /.[!.]*; do
  [ -L "$part" ] && continue
  case $part in
    /bin | /dev | /etc | /gnu | /lib | /lib32 | /lib64 | /libx32 | /nix | /proc | /run | /sbin | /usr) ;;
    *)
      if [ -d "$part" ]; then mount -t tmpfs -o mode=755 tmpfs "$part"
      elif [ -f "$part" ]; then mount --bind /dev/null "$part"
      fi ;;
  esac
done
for part in /usr/local /usr/src; do
  [ -d "$part" ] && [ ! -L "$part" ] && mount -t tmpfs -o mode=755 tmpfs "$part"
done
mount --bind /run/etc /etc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -m 1777 /var/tmp 2>/dev/null || true
for n in $kept; do
  eval "place=\$place$n"
  mkdir -p "$place"; mount --rbind "/run/$n" "$place"; umount -l "/run/$n"; rmdir "/run/$n"
done
mount -t proc proc /proc 2>/dev/null || true
"$@" &
wait $!
"#;

/// Runs a command without any right, in a last namespace of users that has room for no other: within one,
/// an unprivileged process could mount, and reach parts of the kernel that are closed to it otherwise. Where
/// the platform lets nobody make one, there is nothing to close.
const CLOSED: &str = r#"
if unshare --user --map-current-user true 2>/dev/null; then
  exec unshare --user --map-current-user --keep-caps sh -c '
    echo 0 >/proc/sys/user/max_user_namespaces || true
    exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all --no-new-privs --pdeathsig KILL "$@"
  ' closed "$@"
fi
exec setpriv --no-new-privs --pdeathsig KILL "$@"
"#;

/// Runs a command unless the keeper is gone: it may have died before its death's signal was asked for.
const BOUND: [&str; 4] = ["sh", "-c", r#"[ "$PPID" = "$keeper" ] && exec "$@""#, "bound"];

/// Not kept apart at all.
pub(super) fn none(why: &str) -> Isolation {
    Isolation { network: false, pids: false, files: false, why_not: Some(why.into()) }
}

/// What this platform allows.
pub(super) fn probe(is_root: bool) -> Isolation {
    let mut probe = namespaces(is_root);
    // The mounts are what container platforms forbid.
    probe.extend(["sh", "-c", "mount --make-rprivate / && mount -t tmpfs tmpfs /run"].map(str::to_owned));
    let mut command = Command::new(&probe[0]);
    command.args(&probe[1..]).stdin(Stdio::null());
    match super::run(&mut command) {
        Ok(_) => Isolation { network: true, pids: true, files: true, why_not: None },
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
    command.extend(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL", "--"]);
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
        command.extend(["setpriv", "--pdeathsig", "KILL"].into_iter().chain(BOUND).map(str::to_owned));
        command.extend(namespaces(user.is_some()));
        command.extend(["sh", "-c", INSIDE, "inside"].map(str::to_owned));
        command.push(template.display().to_string());
        command.push(folder.display().to_string());
        // The programs' libraries and files stand beside them.
        let prefix = bindir.parent().unwrap_or(bindir);
        if !prefix.starts_with("/usr") || prefix.starts_with("/usr/local") {
            command.push(prefix.display().to_string());
        }
        command.push("--".into());
    }
    command.push("setpriv".into());
    if let Some((uid, gid)) = user {
        command.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
    }
    if isolation.files {
        command.extend(["--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"].map(str::to_owned));
        command.extend(["sh", "-c", CLOSED, "closed"].map(str::to_owned));
    } else {
        command.extend(["--no-new-privs", "--pdeathsig", "KILL"].map(str::to_owned));
        command.extend(BOUND.map(str::to_owned));
    }
    command.extend(server.iter().cloned());
    command
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
            let output =
                Command::new(&command[0]).args(&command[1..]).env("keeper", keeper.to_string()).output();
            assert_eq!(String::from_utf8(output.unwrap().stdout).unwrap(), said);
        }
    }
}
