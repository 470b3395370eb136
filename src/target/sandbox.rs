//! A throwaway PostgreSQL of this machine: its own folder, unix socket only, durability off, gone
//! when dropped. Servers do not run as root, so a root user's sandbox runs as another user.

use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Settings that trade durability for speed: the data dies with the sandbox anyway.
const THROWAWAY: &str = "-c fsync=off -c full_page_writes=off -c synchronous_commit=off -c wal_level=minimal \
     -c max_wal_senders=0 -c shared_buffers=256MB -c max_wal_size=4GB";

/// A running throwaway server. Its superuser is `postgres`, without a password.
pub struct Sandbox {
    folder: PathBuf,
    bindir: PathBuf,
    user: Option<(u32, u32)>,
}

impl Sandbox {
    /// Makes and starts a cluster below `parent` with the binaries in `bindir`; `options` go to the
    /// server, after the throwaway settings unless `durable`.
    ///
    /// # Errors
    /// What `initdb` or the server said.
    pub fn start(bindir: &Path, parent: &Path, durable: bool, options: &str) -> Result<Self> {
        let folder =
            parent.join(format!("pgrestored-pg-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]));
        std::fs::create_dir_all(&folder)?;
        let user = server_user()?;
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid))?;
        }
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        let sandbox = Sandbox { folder, bindir: bindir.to_owned(), user };
        let data = sandbox.data();
        sandbox.run(
            sandbox
                .command("initdb")
                .args([
                    "--no-sync",
                    "--auth=trust",
                    "--username=postgres",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                ])
                .arg("--pgdata")
                .arg(&data),
        )?;
        let base = if durable { "" } else { THROWAWAY };
        let socket = sandbox.folder.display().to_string();
        let server = format!("-c listen_addresses='' -k '{socket}' -c max_connections=100 {base} {options}");
        sandbox.run(
            sandbox
                .command("pg_ctl")
                .args(["start", "--wait", "--silent", "--timeout=60", "--options", &server])
                .arg("--log")
                .arg(sandbox.folder.join("log"))
                .arg("--pgdata")
                .arg(&data),
        )?;
        Ok(sandbox)
    }

    /// Folder of the socket: `DB_HOST`.
    pub fn host(&self) -> &str {
        self.folder.to_str().unwrap_or_default()
    }

    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// A folder that the server may write to, for a tablespace.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        if let Some((uid, gid)) = self.user {
            chown(&folder, Some(uid), Some(gid))?;
        }
        Ok(folder)
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// One of the programs in the sandbox's folder of binaries, as the server's user, connected to
    /// this server by its environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bindir.join(program));
        command.current_dir(&self.folder).env_clear();
        command.env("PATH", &self.bindir).env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
        command.env("PGHOST", &self.folder).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        if let Some((uid, gid)) = self.user {
            command.gid(gid).uid(uid);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; what it printed on standard output.
    ///
    /// # Errors
    /// Its standard error, if it failed.
    pub fn run(&self, command: &mut Command) -> Result<Vec<u8>> {
        // The server would keep a pipe open, so it must not get one.
        let starts_server = command.get_args().any(|a| a == "start");
        let output: Output = match starts_server {
            true => Output {
                status: command.stdout(Stdio::null()).stderr(Stdio::null()).status()?,
                stdout: vec![],
                stderr: self.log().into_bytes(),
            },
            false => command.output()?,
        };
        match output.status.success() {
            true => Ok(output.stdout),
            false => {
                let program = command.get_program().to_string_lossy().into_owned();
                Err(Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
            }
        }
    }

    /// Stops or restarts the server: `pg_ctl`'s `mode` is smart, fast or immediate.
    ///
    /// # Errors
    /// What `pg_ctl` said.
    pub fn stop(&self, mode: &str) -> Result<()> {
        let data = self.data();
        self.run(self.command("pg_ctl").args(["stop", "--silent", "--mode", mode, "--pgdata"]).arg(data))
            .map(drop)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A server that has ended already is as well; the folder goes either way.
        let _ = self.stop("immediate");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The user that a root user's servers run as: `postgres`, else `nobody`.
fn server_user() -> Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = find("postgres").or_else(|| find("nobody"));
    found
        .map(Some)
        .ok_or_else(|| Error::new(ErrorKind::NotFound, "no user to run PostgreSQL as (postgres or nobody)"))
}

/// The folder with PostgreSQL's server binaries: `configured`, the newest of the distribution's, or
/// one on PATH.
///
/// # Errors
/// None was found.
pub fn find_bindir(configured: Option<&Path>) -> Result<PathBuf> {
    let has_server = |p: &Path| p.join("initdb").is_file() && p.join("pg_ctl").is_file();
    if let Some(dir) = configured {
        return match has_server(dir) {
            true => Ok(dir.to_owned()),
            false => Err(Error::new(ErrorKind::NotFound, "PG_BINDIR holds no PostgreSQL server")),
        };
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        let version = entry.file_name().to_str().and_then(|n| n.parse().ok());
        let bin = entry.path().join("bin");
        if let Some(v) = version.filter(|_| has_server(&bin) && bin.join("pg_dump").is_file()) {
            found.push((v, bin));
        }
    }
    found.sort();
    let newest = found.pop().map(|(_, p)| p);
    newest.ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            "no PostgreSQL server found: install it (make setup) or set PG_BINDIR",
        )
    })
}
