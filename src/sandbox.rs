//! A throwaway PostgreSQL server on this machine: own folder, unix socket only, durability off, copied from a
//! template, removed when dropped. A keeper process watches over it: when this process ends, for whatever
//! reason, the keeper stops the server and removes the folder. PostgreSQL refuses to run as root, so the
//! sandbox of a root user runs as another user.
//!
//! [`Sandbox::isolated`] is for untrusted dumps: the server has no network and cannot see other processes or
//! foreign files, as far as the platform allows. [`Isolation`] describes how far.

mod binaries;
mod commands;
mod isolation;
mod libraries;
mod seccomp;
mod template;

use std::io::{BufRead, BufReader, Error, ErrorKind, Result};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use parking_lot::Mutex;
use std::time::{Duration, SystemTime};

use crate::config::{SANDBOX_MAINTENANCE_MIB, SANDBOX_SHARED_BUFFERS_MIB};
use crate::proof::Isolation;
use commands::{plain_command, restrict_to_owner, run};

pub use binaries::{Binaries, find_bindir, fitting, found};
pub use libraries::has_library;
pub use seccomp::{launch, set_launcher};

/// Settings that trade durability for speed: the data is discarded with the sandbox anyway.
const THROWAWAY: [&str; 10] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "wal_level=minimal",
    "max_wal_senders=0",
    "max_wal_size=4GB",
    "wal_init_zero=off",
    "checkpoint_timeout=1h",
    // The data is discarded before vacuum or JIT compilation would pay off.
    "autovacuum=off",
    "jit=off",
];

/// The same with the server's memory, which a worker leaves to it.
fn throwaway_settings() -> Vec<String> {
    let memory = [
        format!("shared_buffers={SANDBOX_SHARED_BUFFERS_MIB}MB"),
        format!("maintenance_work_mem={SANDBOX_MAINTENANCE_MIB}MB"),
    ];
    let fixed = THROWAWAY.iter().map(|s| (*s).to_owned());
    fixed.chain(memory).collect()
}

/// As options of the server's command line.
fn as_options(settings: impl IntoIterator<Item = String>) -> Vec<String> {
    let settings = settings.into_iter();
    settings.flat_map(|s| ["-c".to_owned(), s]).collect()
}

/// How long a server may take to start, and how often its state is checked.
const START_TIMEOUT: Duration = Duration::from_secs(60);
const READY_POLL: Duration = Duration::from_millis(2);

/// Prefix of sandbox folders.
const PREFIX: &str = "pgrestored-pg-";

/// Age after which a sandbox folder without a keeper is removed.
const STALE: Duration = Duration::from_secs(60);

/// Stops the server and removes its folder once standard input closes, that is, when the owning process ends.
/// Meanwhile it holds a lock on the folder, so that folders without a keeper can be recognised. It ignores
/// `SIGPIPE`, because an owner that has already ended does not read its output.
const KEEPER: &str = r#"
folder=$1; signal=$2; shift 2
export keeper=$$
trap '' PIPE
exec 9>"$folder/lock"
flock -n 9 || exit 1
"$@" </dev/null >>"$folder/log" 2>&1 9>&- &
server=$!
echo "$server"
exec >&-
read -r _
kill "-$signal" "$server" 2>/dev/null
wait "$server" 2>/dev/null
chmod -R u+rwx "$folder/work" 2>/dev/null
rm -rf "$folder"
"#;

/// A running throwaway server. Its superuser is `postgres`, without a password.
pub struct Sandbox {
    folder: PathBuf,
    bindir: PathBuf,
    user: Option<(u32, u32)>,
    isolation: Isolation,
    keeper: Mutex<Option<Child>>,
}

impl Sandbox {
    /// Starts a cluster in a new folder below `parent` with the binaries in `bindir`. `options` are command
    /// line options of the server; the throwaway settings precede them unless `durable`.
    ///
    /// # Errors
    /// The output of `initdb` or of the server.
    pub fn start(bindir: &Path, parent: &Path, durable: bool, options: &str) -> Result<Self> {
        let user = server_user(&["postgres", "nobody"])?;
        let mut settings = if durable {
            vec![]
        } else {
            as_options(throwaway_settings())
        };
        settings.extend(options.split_whitespace().map(str::to_owned));
        Self::launch(
            bindir,
            parent,
            user,
            isolation::none("not requested"),
            &settings,
        )
    }

    /// Starts a cluster for untrusted dumps, isolated from this machine to the extent that
    /// [`Sandbox::isolation`] reports. `more`: settings, as NAME=VALUE.
    ///
    /// # Errors
    /// The output of `initdb` or of the server.
    pub fn isolated(bindir: &Path, parent: &Path, more: &[String]) -> Result<Self> {
        // Prefer `nobody`: `postgres` may own other clusters on this machine.
        let user = server_user(&["nobody", "postgres"])?;
        let locks = "max_locks_per_transaction=256".to_owned();
        let all = throwaway_settings().into_iter().chain([locks]);
        let settings = as_options(all.chain(more.iter().cloned()));
        Self::launch(
            bindir,
            parent,
            user,
            isolation::probe(user.is_some()),
            &settings,
        )
    }

    fn launch(
        bindir: &Path,
        parent: &Path,
        user: Option<(u32, u32)>,
        isolation: Isolation,
        settings: &[String],
    ) -> Result<Self> {
        prepare(parent, isolation.files)?;
        sweep(parent);
        let (bindir, parent) = (bindir.canonicalize()?, parent.canonicalize()?);
        let template = template::get(&bindir, &parent, user)?;
        let name = format!(
            "{PREFIX}{}",
            &uuid::Uuid::new_v4().simple().to_string()[..12]
        );
        let folder = parent.join(name);
        std::fs::create_dir(&folder)?;
        // From here on, dropping the sandbox removes the folder.
        let mut sandbox = Sandbox {
            folder,
            bindir,
            user,
            isolation,
            keeper: Mutex::new(None),
        };
        restrict_to_owner(&sandbox.folder, user)?;
        if sandbox.isolation.files {
            for part in ["data", "upper", "work"] {
                std::fs::create_dir(sandbox.folder.join(part))?;
                restrict_to_owner(&sandbox.folder.join(part), user)?;
            }
        } else {
            template.copy_to(&sandbox.data())?;
            restrict_to_owner(&sandbox.data(), user)?;
            restrict_to_owner(&sandbox.data().join("base"), user)?;
        }
        let mut server = vec![sandbox.bindir.join("postgres").display().to_string()];
        server.extend(["-D".into(), sandbox.data().display().to_string()]);
        server.extend(["-k".into(), sandbox.folder.display().to_string()]);
        server.extend([
            "-c".into(),
            "listen_addresses=".into(),
            "-c".into(),
            "max_connections=100".into(),
        ]);
        server.extend(settings.iter().cloned());
        let command = isolation::command(
            &sandbox.isolation,
            template.path(),
            &sandbox.folder,
            &sandbox.bindir,
            user,
            &server,
        );
        sandbox.keep(&command)?;
        sandbox.isolation =
            isolation::read_report(&sandbox.isolation, &sandbox.folder, &sandbox.bindir);
        Ok(sandbox)
    }

    /// Starts the keeper with `server` and waits until the server accepts connections.
    fn keep(&self, server: &[String]) -> Result<()> {
        let signal = if self.isolation.pids { "KILL" } else { "QUIT" };
        let mut command = Command::new("sh");
        command
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.folder)
            .arg(signal)
            .args(server);
        command.env_clear().env(
            "PATH",
            format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.bindir.display()),
        );
        command
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .current_dir("/");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // A process group of its own: signals to this group, such as Ctrl-C, must not reach the keeper.
        let mut keeper = command.process_group(0).spawn()?;
        let mut pid = String::new();
        if let Some(out) = keeper.stdout.take() {
            BufReader::new(out).read_line(&mut pid)?;
        }
        *self.keeper.lock() = Some(keeper);
        let deadline = SystemTime::now() + START_TIMEOUT;
        while !self.is_ready() {
            let alive = !pid.trim().is_empty() && is_alive(pid.trim());
            if !alive || SystemTime::now() > deadline {
                let log = self.log();
                let last: Vec<&str> = log.lines().rev().take(5).collect();
                let said = last.into_iter().rev().collect::<Vec<_>>().join("; ");
                return Err(Error::other(format!(
                    "the sandbox's server did not start: {said}"
                )));
            }
            #[allow(
                clippy::disallowed_methods,
                reason = "sandboxes are started on threads that may block"
            )]
            std::thread::sleep(READY_POLL);
        }
        Ok(())
    }

    /// Whether the last line of `postmaster.pid`, which is the server's state, is `ready`. If the data folder
    /// is an overlay, files that the server wrote are visible from here only in its upper folder.
    fn is_ready(&self) -> bool {
        [self.data(), self.folder.join("upper")].iter().any(|data| {
            let state = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
            state.lines().last().is_some_and(|l| l.trim() == "ready")
        })
    }

    /// The folder of the socket, for `DB_HOST`.
    pub fn host(&self) -> &str {
        self.folder.to_str().unwrap_or_default()
    }

    pub fn bindir(&self) -> &Path {
        &self.bindir
    }

    /// How the server is isolated.
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Creates a folder that the server may write to, for a tablespace.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        std::fs::create_dir(&folder)?;
        restrict_to_owner(&folder, self.user)?;
        Ok(folder)
    }

    /// The server's log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A command that runs one of PostgreSQL's programs as the server's user, with an environment that connects
    /// it to this server.
    pub fn command(&self, program: &str) -> Command {
        let mut command = plain_command(&self.bindir, program, self.user);
        command.current_dir(&self.folder);
        command
            .env("PGHOST", &self.folder)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    /// Runs a command and returns its standard output.
    ///
    /// # Errors
    /// Its standard error, if it failed.
    pub fn run(&self, command: &mut Command) -> Result<Vec<u8>> {
        run(command)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let keeper = self.keeper.lock().take();
        if let Some(mut keeper) = keeper {
            // Closing its input ends the keeper.
            drop(keeper.stdin.take());
            let _ = keeper.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Whether a process exists and is not a zombie.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Creates the folder of sandboxes and templates. An existing one that another user owns is rejected, because its
/// owner could replace files in it. With `private`, only this user may enter a new one; an isolated server sees
/// its own folder through a mount.
fn prepare(parent: &Path, private: bool) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    if !parent.exists() {
        std::fs::create_dir_all(parent)?;
        let mode = if private { 0o700 } else { 0o755 };
        return std::fs::set_permissions(parent, std::fs::Permissions::from_mode(mode));
    }
    let (there, me) = (
        std::fs::metadata(parent)?,
        std::fs::metadata("/proc/self")?.uid(),
    );
    // In a sticky folder, such as /tmp, other users cannot replace our files.
    if there.uid() == me || there.mode() & 0o1000 != 0 {
        Ok(())
    } else {
        Err(Error::other(format!(
            "{}: the folder belongs to another user: choose one of your own (SANDBOX_DIR)",
            parent.display()
        )))
    }
}

/// Removes folders of sandboxes whose keeper was killed.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|t| {
            SystemTime::now()
                .duration_since(t)
                .is_ok_and(|age| age > STALE)
        });
        if !is_old || !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let lock = std::fs::File::open(entry.path().join("lock"));
        let is_kept = lock.as_ref().is_ok_and(|l| l.try_lock().is_err());
        if !is_kept && std::fs::remove_dir_all(entry.path()).is_ok() {
            tracing::info!(folder = %entry.path().display(), "removed the folder of a killed sandbox");
        }
    }
}

/// If this process runs as root, the user to run servers as: the first of `names` that exists.
fn server_user(names: &[&str]) -> Result<Option<(u32, u32)>> {
    use std::os::unix::fs::MetadataExt;
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd")?;
    let find = |name: &&str| {
        let line = passwd.lines().find(|l| l.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = names.iter().find_map(find);
    let missing = || {
        Error::new(
            ErrorKind::NotFound,
            format!(
                "PostgreSQL cannot run as root, and none of these users exists to run it as: {}",
                names.join(", ")
            ),
        )
    };
    found.map(Some).ok_or_else(missing)
}
