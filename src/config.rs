//! Configuration: every variable of the contract, each also a flag. The one place that reads the
//! environment. A wrong configuration is reported whole, naming variables and never values.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// The variables as they were given, on the command line or in the environment.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration (each flag also as the environment variable named)")]
pub struct RawConfig {
    /// Bucket name, gs://bucket/prefix or file:///folder
    #[arg(long, env = "BACKUP_BUCKET", global = true, value_name = "BUCKET")]
    backup_bucket: Option<String>,
    /// Days to keep backups
    #[arg(long, env = "BACKUP_RETENTION_DAYS", global = true, value_name = "DAYS")]
    backup_retention_days: Option<String>,
    /// full: restore the dump's owners, privileges and code as the connecting role may
    #[arg(long, env = "BACKUP_TRUST", global = true, value_name = "TRUST")]
    backup_trust: Option<String>,
    /// Further sources that requests may name, separated by commas (gs://bucket/prefix, file:///folder)
    #[arg(long, env = "TRUSTED_SOURCES", global = true, value_name = "LIST")]
    trusted_sources: Option<String>,
    /// Target server, or the folder of its socket
    #[arg(long, env = "DB_HOST", global = true, value_name = "HOST")]
    db_host: Option<String>,
    #[arg(long, env = "DB_PORT", global = true, value_name = "PORT")]
    db_port: Option<String>,
    #[arg(long, env = "DB_USER", global = true, value_name = "ROLE")]
    db_user: Option<String>,
    #[arg(long, env = "DB_PASSWORD", global = true, value_name = "SECRET", hide_env_values = true)]
    db_password: Option<String>,
    /// File that holds the password
    #[arg(long, env = "DB_PASSWORD_FILE", global = true, value_name = "FILE")]
    db_password_file: Option<String>,
    /// disable, prefer, require or verify-full; by default prefer on loopback and sockets, else verify-full
    #[arg(long, env = "DB_SSLMODE", global = true, value_name = "MODE")]
    db_sslmode: Option<String>,
    /// Target database when a request names none
    #[arg(long, env = "DB_NAME", global = true, value_name = "DB")]
    db_name: Option<String>,
    /// Database to connect to for create, lock and rename
    #[arg(long, env = "DB_MAINTENANCE_NAME", global = true, value_name = "DB")]
    db_maintenance_name: Option<String>,
    /// Project of topics and subscriptions
    #[arg(long, env = "GOOGLE_CLOUD_PROJECT", global = true, value_name = "PROJECT")]
    google_cloud_project: Option<String>,
    #[arg(long, env = "RESTORE_REQUEST_SUBSCRIPTION", global = true, value_name = "SUB")]
    restore_request_subscription: Option<String>,
    /// Topic that `request` publishes to
    #[arg(long, env = "RESTORE_REQUEST_TOPIC", global = true, value_name = "TOPIC")]
    restore_request_topic: Option<String>,
    /// Subscription with Cloud Storage notifications; empty = off
    #[arg(long, env = "BACKUP_NOTIFICATION_SUBSCRIPTION", global = true, value_name = "SUB")]
    backup_notification_subscription: Option<String>,
    #[arg(long, env = "RESTORE_COMPLETION_TOPIC", global = true, value_name = "TOPIC")]
    restore_completion_topic: Option<String>,
    /// Subscription of the completion topic that `request --wait` reads
    #[arg(long, env = "RESTORE_COMPLETION_SUBSCRIPTION", global = true, value_name = "SUB")]
    restore_completion_subscription: Option<String>,
    #[arg(long, env = "PUBSUB_EMULATOR_HOST", global = true, value_name = "HOST:PORT")]
    pubsub_emulator_host: Option<String>,
    #[arg(long, env = "STORAGE_EMULATOR_HOST", global = true, value_name = "HOST:PORT")]
    storage_emulator_host: Option<String>,
    /// Where the storage emulator's gRPC port differs
    #[arg(long, env = "STORAGE_EMULATOR_GRPC_HOST", global = true, value_name = "HOST:PORT")]
    storage_emulator_grpc_host: Option<String>,
    /// Connections that load one restore [default: cores]
    #[arg(long, env = "RESTORE_JOBS", global = true, value_name = "N")]
    restore_jobs: Option<String>,
    /// Restores at once in this worker
    #[arg(long, env = "RESTORE_MAX_CONCURRENT", global = true, value_name = "N")]
    restore_max_concurrent: Option<String>,
    /// Limit of one restore, such as 12h
    #[arg(long, env = "RESTORE_TIMEOUT", global = true, value_name = "TIME")]
    restore_timeout: Option<String>,
    /// Deliveries of one request before a passing failure is final
    #[arg(long, env = "RESTORE_MAX_ATTEMPTS", global = true, value_name = "N")]
    restore_max_attempts: Option<String>,
    /// How long a message is leased at a time (10s to 600s): a dead worker's message comes back after this
    #[arg(long, env = "RESTORE_LEASE_EXTENSION", global = true, value_name = "TIME")]
    restore_lease_extension: Option<String>,
    /// Memory for data between download and server, in MiB
    #[arg(long, env = "RESTORE_QUEUE_MIB", global = true, value_name = "MIB")]
    restore_queue_mib: Option<String>,
    /// How long a connection to server or store is tried again
    #[arg(long, env = "RETRY_BUDGET", global = true, value_name = "TIME")]
    retry_budget: Option<String>,
    /// Time without a byte after which a download is reopened
    #[arg(long, env = "DOWNLOAD_STALL_TIMEOUT", global = true, value_name = "TIME")]
    download_stall_timeout: Option<String>,
    /// How long a stopping worker lets its restores finish
    #[arg(long, env = "DRAIN_TIMEOUT", global = true, value_name = "TIME")]
    drain_timeout: Option<String>,
    /// /metrics, health and status
    #[arg(long, env = "ADMIN_ADDR", global = true, value_name = "ADDR")]
    admin_addr: Option<String>,
    /// PostgreSQL binaries, else PATH and the usual folders
    #[arg(long, env = "PG_BINDIR", global = true, value_name = "FOLDER")]
    pg_bindir: Option<String>,
    /// Send traces by OTLP
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", global = true, value_name = "URL")]
    otel_exporter_otlp_endpoint: Option<String>,
}

impl RawConfig {
    /// From flags alone, as a command line gives them; variables fill in what they leave out.
    ///
    /// # Errors
    /// A flag that there is not.
    pub fn from_flags(flags: &[(&str, &str)]) -> Result<Self, String> {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            raw: RawConfig,
        }
        let args = flags.iter().flat_map(|(flag, value)| [format!("--{flag}"), (*value).to_owned()]);
        let parsed =
            <Flags as clap::Parser>::try_parse_from(std::iter::once("pgrestored".to_owned()).chain(args));
        parsed.map(|f| f.raw).map_err(|e| e.to_string())
    }

    pub fn pg_bindir(&self) -> Option<&std::path::Path> {
        set(&self.pg_bindir).map(std::path::Path::new)
    }
}

/// Where backups are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Location {
    /// A bucket; `prefix` is empty or ends with `/`.
    Bucket {
        bucket: String,
        prefix: String,
    },
    Folder(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyFull,
}

#[derive(Debug, Clone)]
pub struct DbConfig {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<SecretString>,
    pub ssl_mode: SslMode,
    pub maintenance: String,
    pub connect_budget: Duration,
}

/// Endpoints of a storage emulator, with scheme.
#[derive(Debug, Clone)]
pub struct StorageEmulator {
    pub json: String,
    pub grpc: String,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub bucket: Location,
    pub retention_days: u32,
    pub trusted_sources: Vec<Location>,
    pub db: DbConfig,
    pub db_name: Option<String>,
    pub project: Option<String>,
    pub request_subscription: String,
    pub request_topic: String,
    pub notification_subscription: Option<String>,
    pub completion_topic: String,
    pub completion_subscription: String,
    pub pubsub_emulator: Option<String>,
    pub storage_emulator: Option<StorageEmulator>,
    pub jobs: usize,
    pub max_concurrent: usize,
    pub timeout: Duration,
    pub max_attempts: u32,
    pub lease_extension: Duration,
    pub queue_bytes: usize,
    pub retry_budget: Duration,
    pub stall_timeout: Duration,
    pub drain_timeout: Duration,
    pub admin_addr: SocketAddr,
    pub pg_bindir: Option<PathBuf>,
    pub otlp_endpoint: Option<String>,
}

/// Every mistake of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong")?;
        self.0.iter().try_for_each(|m| write!(f, "\n  {m}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects mistakes instead of stopping at the first.
#[derive(Default)]
struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, variable: &str, what: impl fmt::Display) {
        self.0.push(format!("{variable}: {what}"));
    }

    fn parse<T: std::str::FromStr>(
        &mut self,
        variable: &str,
        given: &Option<String>,
        default: T,
        what: &str,
    ) -> T {
        match set(given).map(str::parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(_)) => {
                self.add(variable, what);
                default
            }
        }
    }

    fn at_least_one(&mut self, variable: &str, given: &Option<String>, default: usize) -> usize {
        let n = self.parse(variable, given, default, "must be a whole number from 1");
        if n == 0 {
            self.add(variable, "must be a whole number from 1");
        }
        n.max(1)
    }

    fn duration(&mut self, variable: &str, given: &Option<String>, default: Duration) -> Duration {
        let Some(text) = set(given) else { return default };
        let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        match parsed.filter(|d| !d.is_zero()) {
            Some(d) => d,
            None => {
                self.add(variable, "must be a time such as 30s, 15m or 12h");
                default
            }
        }
    }

    fn location(&mut self, variable: &str, text: &str) -> Location {
        Location::parse(text).unwrap_or_else(|what| {
            self.add(variable, what);
            Location::Folder(PathBuf::new())
        })
    }
}

/// An empty variable is as good as none.
fn set(given: &Option<String>) -> Option<&str> {
    given.as_deref().map(str::trim).filter(|t| !t.is_empty())
}

fn or(given: &Option<String>, default: &str) -> String {
    set(given).unwrap_or(default).to_owned()
}

const SECOND: Duration = Duration::from_secs(1);

impl Config {
    /// # Errors
    /// All mistakes at once.
    pub fn new(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let mut m = Mistakes::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let retry_budget = m.duration("RETRY_BUDGET", &raw.retry_budget, 15 * 60 * SECOND);
        match set(&raw.backup_trust) {
            None | Some("full") => {}
            Some("restricted") => {
                m.add("BACKUP_TRUST", "restricted is not available in this version; use full")
            }
            Some(_) => m.add("BACKUP_TRUST", "must be full or restricted"),
        }
        let sources = set(&raw.trusted_sources).unwrap_or_default().split(',').map(str::trim);
        let config = Config {
            bucket: m.location("BACKUP_BUCKET", set(&raw.backup_bucket).unwrap_or("secureai-backups")),
            retention_days: m.parse(
                "BACKUP_RETENTION_DAYS",
                &raw.backup_retention_days,
                7,
                "must be a number of days",
            ),
            trusted_sources: sources
                .filter(|s| !s.is_empty())
                .map(|s| m.location("TRUSTED_SOURCES", s))
                .collect(),
            db: db_config(raw, retry_budget, &mut m),
            db_name: set(&raw.db_name).map(str::to_owned),
            project: set(&raw.google_cloud_project).map(str::to_owned),
            request_subscription: or(&raw.restore_request_subscription, "restore-requests"),
            request_topic: or(&raw.restore_request_topic, "restore-requests"),
            notification_subscription: set(&raw.backup_notification_subscription).map(str::to_owned),
            completion_topic: or(&raw.restore_completion_topic, "restore-completions"),
            completion_subscription: or(&raw.restore_completion_subscription, "restore-completions"),
            pubsub_emulator: set(&raw.pubsub_emulator_host).map(with_scheme),
            storage_emulator: set(&raw.storage_emulator_host).map(|json| StorageEmulator {
                json: with_scheme(json),
                grpc: with_scheme(set(&raw.storage_emulator_grpc_host).unwrap_or(json)),
            }),
            jobs: m.at_least_one("RESTORE_JOBS", &raw.restore_jobs, cores),
            max_concurrent: m.at_least_one("RESTORE_MAX_CONCURRENT", &raw.restore_max_concurrent, 1),
            timeout: m.duration("RESTORE_TIMEOUT", &raw.restore_timeout, 12 * 3600 * SECOND),
            max_attempts: m.parse(
                "RESTORE_MAX_ATTEMPTS",
                &raw.restore_max_attempts,
                4,
                "must be a whole number",
            ),
            lease_extension: m.duration("RESTORE_LEASE_EXTENSION", &raw.restore_lease_extension, 60 * SECOND),
            queue_bytes: m.at_least_one("RESTORE_QUEUE_MIB", &raw.restore_queue_mib, 32) << 20,
            retry_budget,
            stall_timeout: m.duration("DOWNLOAD_STALL_TIMEOUT", &raw.download_stall_timeout, 30 * SECOND),
            drain_timeout: m.duration("DRAIN_TIMEOUT", &raw.drain_timeout, 25 * SECOND),
            admin_addr: m.parse(
                "ADMIN_ADDR",
                &raw.admin_addr,
                SocketAddr::from(([127, 0, 0, 1], 9464)),
                "must be an address with a port, such as 127.0.0.1:9464",
            ),
            pg_bindir: set(&raw.pg_bindir).map(PathBuf::from),
            otlp_endpoint: set(&raw.otel_exporter_otlp_endpoint).map(str::to_owned),
        };
        if m.0.is_empty() { Ok(config) } else { Err(ConfigErrors(m.0)) }
    }

    /// The same with what topics and subscriptions need.
    ///
    /// # Errors
    /// All mistakes at once, the missing project among them.
    pub fn with_queue(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let config = Self::new(raw);
        if set(&raw.google_cloud_project).is_some() {
            return config;
        }
        let mut mistakes = config.err().map(|e| e.0).unwrap_or_default();
        mistakes.push("GOOGLE_CLOUD_PROJECT: required for topics and subscriptions".to_owned());
        Err(ConfigErrors(mistakes))
    }
}

fn db_config(raw: &RawConfig, connect_budget: Duration, m: &mut Mistakes) -> DbConfig {
    let host = or(&raw.db_host, "localhost");
    let local = host.starts_with('/')
        || host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let ssl_mode = match set(&raw.db_sslmode) {
        None if local => SslMode::Prefer,
        None | Some("verify-full" | "verify-ca") => SslMode::VerifyFull,
        Some("disable") => SslMode::Disable,
        Some("prefer" | "allow") => SslMode::Prefer,
        Some("require") => SslMode::Require,
        Some(_) => {
            m.add("DB_SSLMODE", "must be disable, prefer, require or verify-full");
            SslMode::VerifyFull
        }
    };
    let from_file = set(&raw.db_password_file).and_then(|file| {
        std::fs::read_to_string(file)
            .map_err(|e| m.add("DB_PASSWORD_FILE", format!("cannot be read: {}", e.kind())))
            .ok()
    });
    let password = from_file.as_deref().map(|t| t.trim_end_matches(['\r', '\n'])).or(set(&raw.db_password));
    DbConfig {
        port: m.parse("DB_PORT", &raw.db_port, 5432, "must be a port number"),
        user: or(&raw.db_user, "postgres"),
        password: password.map(|p| SecretString::from(p.to_owned())),
        ssl_mode: if host.starts_with('/') { SslMode::Disable } else { ssl_mode },
        maintenance: or(&raw.db_maintenance_name, "postgres"),
        connect_budget,
        host,
    }
}

fn with_scheme(host: &str) -> String {
    let host = host.trim_end_matches('/');
    if host.contains("://") { host.to_owned() } else { format!("http://{host}") }
}

impl Location {
    /// A bucket name, `gs://bucket/prefix` or `file:///folder`.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Location::Folder(PathBuf::from(path))),
                false => Err("file:// must be followed by an absolute path".into()),
            };
        }
        let path = text.strip_prefix("gs://").unwrap_or(text);
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        if !(3..=222).contains(&bucket.len()) || !bucket.bytes().all(valid) {
            return Err("must be a bucket name, gs://bucket/prefix or file:///folder".into());
        }
        let mut prefix = prefix.trim_start_matches('/').to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        Ok(Location::Bucket { bucket: bucket.to_owned(), prefix })
    }

    /// Splits a URI of one backup into its place and its name there.
    ///
    /// # Errors
    /// What is wrong, without the value.
    pub fn of_backup(uri: &str) -> Result<(Self, String), String> {
        if let Some(path) = uri.strip_prefix("file://") {
            return match path.rsplit_once('/').filter(|(_, name)| !name.is_empty()) {
                Some(("", name)) => Ok((Location::Folder("/".into()), name.to_owned())),
                Some((folder, name)) if folder.starts_with('/') => {
                    Ok((Location::Folder(folder.into()), name.to_owned()))
                }
                _ => Err("file:// must be followed by an absolute path of a file".into()),
            };
        }
        let path = uri.strip_prefix("gs://").ok_or("must be a gs:// or file:// URI")?;
        match path.split_once('/').filter(|(_, name)| !name.is_empty()) {
            Some((bucket, name)) => {
                let Location::Bucket { bucket, .. } = Location::parse(bucket)? else {
                    return Err("must be a gs:// URI".into());
                };
                Ok((Location::Bucket { bucket, prefix: String::new() }, name.to_owned()))
            }
            None => Err("must be gs://bucket/object".into()),
        }
    }

    /// Whether the backup `name` at `place` lies inside this location.
    pub fn contains(&self, place: &Location, name: &str) -> bool {
        match (self, place) {
            (Location::Bucket { bucket, prefix }, Location::Bucket { bucket: b, prefix: p }) => {
                bucket == b && format!("{p}{name}").starts_with(prefix)
            }
            (Location::Folder(folder), Location::Folder(f)) => {
                let path = f.join(name);
                path.starts_with(folder) && !path.components().any(|c| c == std::path::Component::ParentDir)
            }
            _ => false,
        }
    }

    /// `gs://…` or `file://…` of the backup `name` here.
    pub fn uri(&self, name: &str) -> String {
        match self {
            Location::Bucket { bucket, prefix } => format!("gs://{bucket}/{prefix}{name}"),
            Location::Folder(folder) => format!("file://{}", folder.join(name).display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_and_no_value() {
        let raw = RawConfig {
            backup_bucket: Some("NOT-A-BUCKET".into()),
            db_port: Some("secret-port".into()),
            restore_timeout: Some("soon".into()),
            restore_jobs: Some("0".into()),
            admin_addr: Some("nowhere".into()),
            ..RawConfig::default()
        };
        let text = Config::new(&raw).unwrap_err().to_string();
        for variable in ["BACKUP_BUCKET", "DB_PORT", "RESTORE_TIMEOUT", "RESTORE_JOBS", "ADMIN_ADDR"] {
            assert!(text.contains(variable), "{text}");
        }
        for value in ["NOT-A-BUCKET", "secret-port", "soon", "nowhere"] {
            assert!(!text.contains(value), "{text}");
        }
    }

    #[test]
    fn defaults_are_the_contracts() {
        let c = Config::new(&RawConfig::default()).unwrap();
        assert_eq!(c.bucket, Location::Bucket { bucket: "secureai-backups".into(), prefix: String::new() });
        assert_eq!((c.retention_days, c.max_concurrent), (7, 1));
        assert_eq!((c.db.host.as_str(), c.db.port, c.db.user.as_str()), ("localhost", 5432, "postgres"));
        assert_eq!(c.db.ssl_mode, SslMode::Prefer);
        assert_eq!(c.timeout, Duration::from_secs(12 * 3600));
        assert_eq!(c.admin_addr.to_string(), "127.0.0.1:9464");
        let remote = RawConfig { db_host: Some("db.example.com".into()), ..RawConfig::default() };
        assert_eq!(Config::new(&remote).unwrap().db.ssl_mode, SslMode::VerifyFull);
    }

    #[test]
    fn locations_contain_what_lies_below_them() {
        let b = Location::parse("gs://bucket/orders").unwrap();
        let (place, name) = Location::of_backup("gs://bucket/orders/a.dump").unwrap();
        assert!(b.contains(&place, &name));
        let (place, name) = Location::of_backup("gs://bucket/orders-other/a.dump").unwrap();
        assert!(!b.contains(&place, &name));
        let f = Location::parse("file:///backups").unwrap();
        let (place, name) = Location::of_backup("file:///backups/../etc/passwd").unwrap();
        assert!(!f.contains(&place, &name));
        assert_eq!(b.uri("x.dump"), "gs://bucket/orders/x.dump");
    }
}
