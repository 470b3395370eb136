//! The configuration: every variable, each also a flag. Only this module reads the environment. All
//! errors of a configuration are reported at once; they name variables and the paths of documents, never
//! other values.

mod argv;
mod document;
mod libpq;
mod location;
mod login;
mod masking;
mod memory;
mod pgpass;
mod raw;
mod restore;
mod resume;
mod server;
mod service_file;
mod trust;
mod values;
mod verification;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::policy::{InPlace, Policy, Rehearse};
use restore::{binary_from, in_place, policy, rehearse, stage_limits, swap_when_idle};
use values::{list, non_empty, or_default, secret, secret_line};

pub use argv::{arguments, hide_secrets};
pub use document::Document;
pub use libpq::SettingOrigins;
pub use location::Location;
pub use login::DbAuth;
pub use masking::{MaskingRules, rules_of};
pub(crate) use memory::{NAME_BUDGET, SANDBOX_MAINTENANCE_MIB, SANDBOX_SHARED_BUFFERS_MIB};
pub use pgdump_restore::postgres::{DbConfig, FirstContact, SslMode, TlsFiles};
pub use raw::RawConfig;
pub use resume::{Resume, ResumeConfig};
pub use trust::{RestrictedRoles, Trust};
pub use values::ConfigErrors;
pub(crate) use values::format_duration;
pub use verification::{BackupSet, EvidencePlace, VerifyConfig};

/// [`Config::offsets_from`]: one stream reads a smaller archive in about a second, while each range costs a request, and what
/// the first stream has read ahead is lost.
pub const OFFSETS_FROM: u64 = 64 << 20;

/// Endpoints of a storage emulator, with scheme.
#[derive(Debug, Clone)]
pub struct StorageEmulator {
    pub json: String,
    pub grpc: String,
}

#[derive(Debug, Clone)]
pub struct Config {
    pub bucket: Location,
    /// Whether BACKUP_BUCKET is set, and `bucket` not only its default.
    pub is_bucket_set: bool,
    /// The project that requests to the bucket of `bucket` are billed to; `None`: the bucket's own.
    pub user_project: Option<String>,
    pub retention_days: u32,
    pub trust: Trust,
    pub trusted_sources: Vec<Location>,
    /// Additional sources, whose backups are restored restricted.
    pub allowed_sources: Vec<Location>,
    pub restricted: RestrictedRoles,
    /// Patterns of databases that may be targets; if empty, any database may.
    pub allowed_targets: Vec<String>,
    /// Databases that no restore may touch, in addition to the server's own.
    pub protected_databases: Vec<String>,
    /// The policy file for requests.
    pub request_policy: Option<Document>,
    /// The orders of standing restores.
    pub standing_restores: Option<Document>,
    /// Requests that were published longer ago than this are refused.
    pub request_max_age: Duration,
    /// Key that signs requests: its id and its text.
    pub signing_key: Option<(String, SecretString)>,
    /// Where idempotency records are kept.
    pub records: Option<Location>,
    /// Where the files of SQL are that requests may name to finish a restore.
    pub finish_from: Option<Location>,
    /// Time limit of each of them.
    pub finish_timeout: Duration,
    /// Limit of the uncompressed table data of one backup, in bytes.
    pub max_bytes: Option<u64>,
    /// Time limits of individual stages, by stage name.
    pub stage_limits: BTreeMap<String, Duration>,
    /// How long a restore may make no progress, except during index builds.
    pub stall_limit: Duration,
    pub db: DbConfig,
    /// How `db` is logged in to.
    pub db_auth: DbAuth,
    /// Whether the target server is set, and not only its default.
    pub is_target_set: bool,
    /// Where settings of `db` come from that `DB_*` does not set.
    pub db_origins: SettingOrigins,
    /// Notifications are verified and no target server is set: there is none, and requested restores are refused.
    pub only_verifies: bool,
    pub db_name: Option<String>,
    pub project: Option<String>,
    pub request_subscription: String,
    pub request_topic: String,
    pub notification_subscription: Option<String>,
    pub completion_topic: String,
    pub completion_subscription: String,
    pub pubsub_emulator: Option<String>,
    pub storage_emulator: Option<StorageEmulator>,
    /// Connections per restore; `None`: as many as the server has cores.
    pub jobs: Option<usize>,
    pub max_concurrent: usize,
    pub timeout: Duration,
    pub max_attempts: u32,
    /// Deliveries after which a message is assumed to crash workers.
    pub quarantine_after: u32,
    /// How long a replaced database is kept.
    pub keep_previous: Duration,
    /// How long a swap waits for sessions that may not be terminated; `None`: it does not wait, and tries for a while.
    pub swap_when_idle: Option<Duration>,
    /// Pause between passes of the reaper.
    pub reap_every: Option<Duration>,
    pub lease_extension: Duration,
    pub queue_bytes: usize,
    /// Whether SQL text without `pg_dump`'s end mark is refused; `None`: only by verifications.
    pub require_complete: Option<bool>,
    /// Bytes that a restore leaves free on the target server's disk, where that is known.
    pub min_free: u64,
    /// Memory in bytes for what the readers of one archive keep: table of contents, lists, a statement.
    pub archive_memory: u64,
    /// Tables from about this size, in bytes, are sent in COPY's binary format if their rows can be
    /// converted exactly; `None`: never.
    pub binary_from: Option<usize>,
    /// Custom archives from about this many stored bytes on, whose table of contents says where their data is, are restored
    /// by several readers ([`OFFSETS_FROM`]).
    pub offsets_from: u64,
    pub retry_budget: Duration,
    /// How long a server or service may take to answer for the first time; `None`: `retry_budget`.
    pub first_contact: Option<Duration>,
    pub stall_timeout: Duration,
    pub policy: Policy,
    pub in_place: InPlace,
    /// Whether definitions are tried before the first row moves.
    pub rehearse: Rehearse,
    /// How restores that stopped are continued.
    pub resume: ResumeConfig,
    /// Rules by which every restore masks rows.
    pub masking: Option<MaskingRules>,
    /// The key of masking rules.
    pub mask_key: Option<SecretString>,
    /// Text of age identities.
    pub age_identity: Option<SecretString>,
    pub drain_timeout: Duration,
    pub admin_addr: SocketAddr,
    /// Host names that the admin port answers to, in addition to addresses, localhost and the machine's
    /// own name.
    pub admin_hosts: Vec<String>,
    /// URL templates of a job's log and trace, with `{request_id}` and `{trace_id}`.
    pub log_url: Option<String>,
    pub trace_url: Option<String>,
    /// Folders with PostgreSQL's binaries; if empty, PATH and the usual folders.
    pub pg_bindir: Vec<PathBuf>,
    pub verify: VerifyConfig,
    pub otlp_endpoint: Option<String>,
}

const SECOND: Duration = Duration::from_secs(1);

/// Most connections that one restore or verification may be given.
pub const MAX_JOBS: usize = 256;

/// Most connections that one restore uses by default: servers allow few, and other clients need some.
const MAX_DEFAULT_JOBS: usize = 32;

impl Config {
    /// Number of connections that load one restore: the requested or configured number, otherwise the
    /// server's cores, or this machine's cores if the server's are unknown.
    pub fn jobs_for(&self, requested: Option<usize>, server_cores: Option<usize>) -> usize {
        let local_cores = || std::thread::available_parallelism().map_or(1, usize::from);
        requested.or(self.jobs).unwrap_or_else(|| {
            server_cores
                .unwrap_or_else(local_cores)
                .min(MAX_DEFAULT_JOBS)
        })
    }

    /// Parses and checks the raw values.
    ///
    /// # Errors
    /// All errors of the configuration at once.
    pub fn new(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let verifies = [&raw.backup_notification_subscription, &raw.verify_schedule];
        Self::read(raw, verifies.into_iter().any(|v| non_empty(v).is_some()))
    }

    /// Like [`Config::new`], for commands that verify.
    ///
    /// # Errors
    /// As [`Config::new`].
    pub fn for_verification(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        Self::read(raw, true)
    }

    /// `verifies`: whether backups are verified, in a sandbox unless there is a scratch server.
    fn read(raw: &RawConfig, verifies: bool) -> Result<Self, ConfigErrors> {
        let mut errors = ConfigErrors(raw.origins.errors.clone());
        let retry_budget = errors.duration("RETRY_BUDGET", &raw.retry_budget, 15 * 60 * SECOND);
        let max_concurrent =
            errors.at_least_one("RESTORE_MAX_CONCURRENT", &raw.restore_max_concurrent, 1);
        let queue_bytes =
            errors.at_least_one("RESTORE_QUEUE_MIB", &raw.restore_queue_mib, 32) << 20;
        let trust = match non_empty(&raw.backup_trust) {
            None | Some("full") => Trust::Full,
            Some("restricted") => Trust::Restricted,
            Some(_) => {
                errors.add("BACKUP_TRUST", "must be full or restricted");
                Trust::Restricted
            }
        };
        let db_auth = DbAuth::read("DB_AUTH", &raw.db_auth, &mut errors);
        let is_target_set = names_a_server(raw);
        let has_sandboxes = verifies && non_empty(&raw.scratch_db_host).is_none();
        let bucket = errors.location(
            "BACKUP_BUCKET",
            non_empty(&raw.backup_bucket).unwrap_or("secureai-backups"),
        );
        let mask_key = masking::mask_key(raw, &mut errors);
        let config = Config {
            masking: masking::masking(raw, mask_key.as_ref(), &mut errors),
            mask_key,
            user_project: user_project(raw, &bucket, &mut errors),
            bucket,
            is_bucket_set: non_empty(&raw.backup_bucket).is_some(),
            retention_days: errors.parse(
                "BACKUP_RETENTION_DAYS",
                &raw.backup_retention_days,
                7,
                "must be a number of days",
            ),
            trust,
            trusted_sources: errors.locations("TRUSTED_SOURCES", &raw.trusted_sources),
            allowed_sources: errors.locations("ALLOWED_SOURCES", &raw.allowed_sources),
            restricted: RestrictedRoles {
                users: list(&raw.db_restricted_user),
                password: secret(
                    "DB_RESTRICTED_PASSWORD",
                    &raw.db_restricted_password_file,
                    &raw.db_restricted_password,
                    &mut errors,
                )
                .map(secret_line),
                owner: or_default(&raw.restricted_owner, "pgrestored_owner"),
            },
            allowed_targets: list(&raw.allowed_targets),
            protected_databases: list(&raw.protected_databases),
            request_policy: Document::read("REQUEST_POLICY", &raw.request_policy, &mut errors),
            standing_restores: Document::read(
                "STANDING_RESTORES",
                &raw.standing_restores,
                &mut errors,
            ),
            request_max_age: errors.duration(
                "REQUEST_MAX_AGE",
                &raw.request_max_age,
                7 * 24 * 3600 * SECOND,
            ),
            signing_key: secret(
                "REQUEST_SIGNING_KEY",
                &raw.request_signing_key_file,
                &raw.request_signing_key,
                &mut errors,
            )
            .map(|key| {
                (
                    or_default(&raw.request_signing_key_id, "default"),
                    SecretString::from(key),
                )
            }),
            records: non_empty(&raw.restore_records)
                .map(|place| errors.location("RESTORE_RECORDS", place)),
            finish_from: non_empty(&raw.restore_finish_from)
                .map(|place| errors.location("RESTORE_FINISH_FROM", place)),
            finish_timeout: errors.duration(
                "RESTORE_FINISH_TIMEOUT",
                &raw.restore_finish_timeout,
                30 * 60 * SECOND,
            ),
            max_bytes: non_empty(&raw.restore_max_gib)
                .map(|_| errors.at_least_one("RESTORE_MAX_GIB", &raw.restore_max_gib, 1) as u64)
                .map(|gib| gib << 30),
            min_free: errors
                .parse::<u64>(
                    "RESTORE_MIN_FREE_MIB",
                    &raw.restore_min_free_mib,
                    256,
                    "must be a non-negative integer",
                )
                .saturating_mul(1 << 20),
            stage_limits: stage_limits(raw, &mut errors),
            stall_limit: errors.duration(
                "RESTORE_STALL_TIMEOUT",
                &raw.restore_stall_timeout,
                2 * 3600 * SECOND,
            ),
            db: server::db_config(raw, db_auth, retry_budget, &mut errors),
            db_auth,
            is_target_set,
            db_origins: raw.origins.clone(),
            only_verifies: !is_target_set
                && non_empty(&raw.backup_notification_subscription).is_some(),
            db_name: non_empty(&raw.db_name).map(str::to_owned),
            project: non_empty(&raw.google_cloud_project).map(str::to_owned),
            request_subscription: or_default(&raw.restore_request_subscription, "restore-requests"),
            request_topic: or_default(&raw.restore_request_topic, "restore-requests"),
            notification_subscription: non_empty(&raw.backup_notification_subscription)
                .map(str::to_owned),
            completion_topic: or_default(&raw.restore_completion_topic, "restore-completions"),
            completion_subscription: or_default(
                &raw.restore_completion_subscription,
                "restore-completions",
            ),
            pubsub_emulator: non_empty(&raw.pubsub_emulator_host).map(with_scheme),
            storage_emulator: non_empty(&raw.storage_emulator_host).map(|json| StorageEmulator {
                json: with_scheme(json),
                grpc: with_scheme(non_empty(&raw.storage_emulator_grpc_host).unwrap_or(json)),
            }),
            jobs: jobs(raw, &mut errors),
            max_concurrent,
            timeout: errors.duration("RESTORE_TIMEOUT", &raw.restore_timeout, 12 * 3600 * SECOND),
            max_attempts: errors.parse(
                "RESTORE_MAX_ATTEMPTS",
                &raw.restore_max_attempts,
                4,
                "must be a non-negative integer",
            ),
            quarantine_after: errors.parse(
                "RESTORE_QUARANTINE_AFTER",
                &raw.restore_quarantine_after,
                10,
                "must be a non-negative integer",
            ),
            keep_previous: errors.duration_or_none(
                "RESTORE_KEEP_PREVIOUS",
                &raw.restore_keep_previous,
                24 * 3600 * SECOND,
            ),
            swap_when_idle: swap_when_idle(raw, &mut errors),
            reap_every: Some(errors.duration_or_none("REAP_EVERY", &raw.reap_every, 600 * SECOND))
                .filter(|every| !every.is_zero()),
            lease_extension: lease_extension(raw, &mut errors),
            binary_from: binary_from(raw, &mut errors),
            offsets_from: OFFSETS_FROM,
            queue_bytes,
            require_complete: non_empty(&raw.restore_require_complete).map(|_| {
                errors.parse(
                    "RESTORE_REQUIRE_COMPLETE",
                    &raw.restore_require_complete,
                    true,
                    "must be true or false",
                )
            }),
            archive_memory: memory::archive_budget(
                raw,
                max_concurrent,
                queue_bytes,
                if has_sandboxes { max_concurrent } else { 0 },
                &mut errors,
            ),
            retry_budget,
            first_contact: raw.first_contact(),
            policy: policy(raw, &mut errors),
            in_place: in_place(raw, &mut errors),
            rehearse: rehearse(raw, &mut errors),
            resume: ResumeConfig::read(raw, &mut errors),
            age_identity: age_identity(raw, &mut errors),
            stall_timeout: errors.duration(
                "DOWNLOAD_STALL_TIMEOUT",
                &raw.download_stall_timeout,
                30 * SECOND,
            ),
            drain_timeout: errors.duration("DRAIN_TIMEOUT", &raw.drain_timeout, 25 * SECOND),
            admin_addr: errors.parse(
                "ADMIN_ADDR",
                &raw.admin_addr,
                SocketAddr::from(([127, 0, 0, 1], 9464)),
                "must be an address with a port, such as 127.0.0.1:9464",
            ),
            admin_hosts: list(&raw.admin_hosts),
            log_url: url_template("LOG_URL_TEMPLATE", &raw.log_url_template, &mut errors),
            trace_url: url_template("TRACE_URL_TEMPLATE", &raw.trace_url_template, &mut errors),
            pg_bindir: raw.pg_bindir(),
            verify: verification::read(raw, retry_budget, &mut errors),
            otlp_endpoint: non_empty(&raw.otel_exporter_otlp_endpoint).map(str::to_owned),
        };
        if config.quarantine_after <= config.max_attempts {
            errors.add(
                "RESTORE_QUARANTINE_AFTER",
                "must be greater than RESTORE_MAX_ATTEMPTS",
            );
        }
        if errors.0.is_empty() {
            Ok(config)
        } else {
            Err(ConfigErrors(errors.0))
        }
    }

    /// Like [`Config::new`], for commands that use topics or subscriptions.
    ///
    /// # Errors
    /// All errors at once, including a missing project.
    pub fn with_queue(raw: &RawConfig) -> Result<Self, ConfigErrors> {
        let config = Self::new(raw);
        if non_empty(&raw.google_cloud_project).is_some() {
            return config;
        }
        let mut errors = config.err().map(|e| e.0).unwrap_or_default();
        errors.push("GOOGLE_CLOUD_PROJECT: required for topics and subscriptions".to_owned());
        Err(ConfigErrors(errors))
    }
}

/// Whether output may be coloured: `NO_COLOR` is unset or empty (<https://no-color.org>).
pub fn colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Service name in traces: `OTEL_SERVICE_NAME`, otherwise `pgrestored`.
pub fn service_name() -> String {
    std::env::var("OTEL_SERVICE_NAME")
        .ok()
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| "pgrestored".into())
}

/// The folders of PATH.
pub fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).collect()
}

fn jobs(raw: &RawConfig, errors: &mut ConfigErrors) -> Option<usize> {
    non_empty(&raw.restore_jobs)?;
    let what = format!("must be from 1 to {MAX_JOBS}");
    let jobs = errors.parse("RESTORE_JOBS", &raw.restore_jobs, 1, &what);
    if !(1..=MAX_JOBS).contains(&jobs) {
        errors.add("RESTORE_JOBS", what);
    }
    Some(jobs)
}

/// Pub/Sub accepts no other leases.
fn lease_extension(raw: &RawConfig, errors: &mut ConfigErrors) -> Duration {
    let (variable, given) = ("RESTORE_LEASE_EXTENSION", &raw.restore_lease_extension);
    let lease = errors.duration(variable, given, 60 * SECOND);
    if !(10 * SECOND..=600 * SECOND).contains(&lease) {
        errors.add(variable, "must be from 10s to 600s");
    }
    lease
}

/// The project of BACKUP_USER_PROJECT. It becomes a header of every request, so only what an id or a number of a project may
/// have is taken.
fn user_project(raw: &RawConfig, bucket: &Location, errors: &mut ConfigErrors) -> Option<String> {
    let (variable, given) = ("BACKUP_USER_PROJECT", non_empty(&raw.backup_user_project)?);
    // A colon ends the domain in the ids of some old projects.
    let is_of_id = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':');
    if !given.bytes().all(is_of_id) {
        errors.add(variable, "must be the id of a project, such as my-project");
    }
    if let (Location::Folder(_), Some(_)) = (bucket, non_empty(&raw.backup_bucket)) {
        errors.add(
            variable,
            "has no effect unless BACKUP_BUCKET is a bucket: unset it",
        );
    }
    Some(given.to_owned())
}

fn age_identity(raw: &RawConfig, errors: &mut ConfigErrors) -> Option<SecretString> {
    let text = secret(
        "BACKUP_AGE_IDENTITY",
        &raw.backup_age_identity_file,
        &raw.backup_age_identity,
        errors,
    );
    text.map(SecretString::from)
}

/// A URL template for links in a browser.
fn url_template(
    variable: &str,
    given: &Option<String>,
    errors: &mut ConfigErrors,
) -> Option<String> {
    let template = non_empty(given)?;
    let is_url = ["https://", "http://"]
        .iter()
        .any(|s| template.starts_with(s));
    let has_id = ["{request_id}", "{trace_id}"]
        .iter()
        .any(|id| template.contains(id));
    if !is_url || !has_id {
        errors.add(
            variable,
            "must be an http(s) URL with {request_id} or {trace_id} in it",
        );
    }
    Some(template.to_owned())
}

fn with_scheme(host: &str) -> String {
    let host = host.trim_end_matches('/');
    if host.contains("://") {
        host.to_owned()
    } else {
        format!("http://{host}")
    }
}

/// Whether any setting names the target server or a database there. Of what a command takes from libpq's settings, only the
/// host does: `PGUSER` or a password file may be there for any server.
fn names_a_server(raw: &RawConfig) -> bool {
    let settings = [
        ("DB_PORT", &raw.db_port),
        ("DB_USER", &raw.db_user),
        ("DB_PASSWORD", &raw.db_password),
        ("DB_PASSWORD_FILE", &raw.db_password_file),
        ("DB_NAME", &raw.db_name),
    ];
    let is_given = |(variable, value): (&str, &Option<String>)| {
        non_empty(value).is_some() && raw.origins.of(variable).is_none()
    };
    non_empty(&raw.db_host).is_some() || settings.into_iter().any(is_given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Extensions, Owners};

    #[test]
    fn all_errors_are_reported_without_values() {
        let raw = RawConfig {
            backup_bucket: Some("NOT-A-BUCKET".into()),
            db_port: Some("secret-port".into()),
            restore_timeout: Some("soon".into()),
            restore_jobs: Some("0".into()),
            admin_addr: Some("nowhere".into()),
            ..RawConfig::default()
        };
        let text = Config::new(&raw).unwrap_err().to_string();
        for variable in [
            "BACKUP_BUCKET",
            "DB_PORT",
            "RESTORE_TIMEOUT",
            "RESTORE_JOBS",
            "ADMIN_ADDR",
        ] {
            assert!(text.contains(variable), "{text}");
        }
        for value in ["NOT-A-BUCKET", "secret-port", "soon", "nowhere"] {
            assert!(!text.contains(value), "{text}");
        }
    }

    #[test]
    fn links_are_urls_with_an_id() {
        let of = |template: &str| {
            let flags = [("log-url-template", template)];
            Config::new(&RawConfig::from_flags(&flags).unwrap())
        };
        let log = "https://logs.example/?q={request_id}";
        assert_eq!(of(log).unwrap().log_url.as_deref(), Some(log));
        assert_eq!(of("").unwrap().log_url, None);
        for wrong in ["javascript:alert({trace_id})", "https://logs.example/"] {
            assert!(
                of(wrong)
                    .unwrap_err()
                    .to_string()
                    .contains("LOG_URL_TEMPLATE")
            );
        }
    }

    #[test]
    fn defaults_match_the_documentation() {
        let c = Config::new(&RawConfig::default()).unwrap();
        assert_eq!(
            c.bucket,
            Location::Bucket {
                bucket: "secureai-backups".into(),
                prefix: String::new()
            }
        );
        assert_eq!((c.retention_days, c.max_concurrent), (7, 1));
        assert_eq!(
            (c.db.host.as_str(), c.db.port, c.db.user.as_str()),
            ("localhost", 5432, "postgres")
        );
        assert_eq!(c.db.ssl_mode, SslMode::Prefer);
        assert_eq!(c.timeout, Duration::from_secs(12 * 3600));
        assert_eq!(c.admin_addr.to_string(), "127.0.0.1:9464");
        let remote = RawConfig {
            db_host: Some("db.example.com".into()),
            ..RawConfig::default()
        };
        assert_eq!(
            Config::new(&remote).unwrap().db.ssl_mode,
            SslMode::VerifyFull
        );
    }

    #[test]
    fn a_worker_with_notifications_and_no_target_only_verifies() {
        let only_verifies = |flags: &[(&str, &str)]| {
            let raw = RawConfig::from_flags(flags).unwrap();
            Config::new(&raw).unwrap().only_verifies
        };
        let notified = ("backup-notification-subscription", "backup-notifications");
        let unset = ("db-host", "");
        assert!(only_verifies(&[notified, unset]));
        for named in [
            ("db-host", "localhost"),
            ("db-port", "5433"),
            ("db-user", "restorer"),
            ("db-password", "x"),
            ("db-name", "app"),
        ] {
            let host = if named.0 == "db-host" { named } else { unset };
            let mut flags = vec![notified, host];
            flags.extend((host != named).then_some(named));
            assert!(!only_verifies(&flags), "{named:?}");
        }
        assert!(!only_verifies(&[unset]));
        // A command takes libpq's settings: the password of any server names none, `PGHOST` does.
        let flags = [notified, unset, ("db-password", "x")];
        let mut raw = RawConfig::from_flags(&flags).unwrap();
        let mut take = |variable, origin: &str| {
            raw.origins.by_variable.insert(variable, origin.to_owned());
        };
        take("DB_PASSWORD", "/home/me/.pgpass");
        take("DB_HOST", "PGHOST");
        assert!(Config::new(&raw).unwrap().only_verifies);
        raw.db_host = Some("db.internal".to_owned());
        assert!(!Config::new(&raw).unwrap().only_verifies);
    }

    #[test]
    fn connections_default_to_the_servers_cores() {
        let mut c = Config::new(&RawConfig::default()).unwrap();
        assert_eq!(c.jobs_for(None, Some(5)), 5);
        assert_eq!(c.jobs_for(None, Some(500)), MAX_DEFAULT_JOBS);
        assert_eq!(c.jobs_for(Some(100), Some(5)), 100);
        assert!((1..=MAX_DEFAULT_JOBS).contains(&c.jobs_for(None, None)));
        c.jobs = Some(3);
        assert_eq!(
            (c.jobs_for(None, Some(5)), c.jobs_for(Some(2), Some(5))),
            (3, 2)
        );
    }

    #[test]
    fn a_location_contains_what_is_below_it() {
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

    #[test]
    fn the_policy_is_read_from_flags_and_files() {
        let file = std::env::temp_dir().join(format!("pgrestored-roles-{}", std::process::id()));
        std::fs::write(&file, "# heirs\nold = new\n\nOdd one = x\n").unwrap();
        let flags = [
            ("restore-owners", "map"),
            ("restore-role-map", &format!("@{}", file.display())),
            ("restore-extensions", "skip-missing"),
            ("restore-no-privileges", "true"),
        ];
        let policy = Config::new(&RawConfig::from_flags(&flags).unwrap())
            .unwrap()
            .policy;
        std::fs::remove_file(&file).unwrap();
        assert_eq!(
            (policy.owners, policy.extensions),
            (Owners::Map, Extensions::SkipMissing)
        );
        assert!(!policy.privileges && policy.analyze && !policy.create_roles);
        assert_eq!(policy.role_map["old"], "new");
        let wrong = [
            ("restore-owners", "some"),
            ("restore-role-map", "a"),
            ("restore-extensions", "x"),
        ];
        let text = Config::new(&RawConfig::from_flags(&wrong).unwrap())
            .unwrap_err()
            .to_string();
        for variable in ["RESTORE_OWNERS", "RESTORE_ROLE_MAP", "RESTORE_EXTENSIONS"] {
            assert!(text.contains(variable), "{text}");
        }
    }

    /// What would be ignored is a mistake, and the message names the other half.
    #[test]
    fn settings_that_need_another_one_are_refused_alone() {
        let errors = |flags: &[(&str, &str)]| {
            let config = Config::new(&RawConfig::from_flags(flags).unwrap());
            config.err().map(|e| e.0).unwrap_or_default()
        };
        let map = ("restore-owners", "map");
        let roles = ("restore-role-map", "a=b");
        for (flags, said) in [
            (&[map][..], "RESTORE_OWNERS: map needs the roles"),
            (
                &[map, ("restore-role-map", ",")],
                "RESTORE_ROLE_MAP: has no pair",
            ),
            (
                &[roles],
                "RESTORE_ROLE_MAP: has no effect unless RESTORE_OWNERS is map",
            ),
            (
                &[roles, ("restore-owners", "none")],
                "RESTORE_ROLE_MAP: has no effect unless RESTORE_OWNERS is map",
            ),
            (
                &[("restore-role-passwords", "true")],
                "RESTORE_ROLE_PASSWORDS: has no effect without RESTORE_GLOBALS",
            ),
        ] {
            let found = errors(flags);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(said), "{found:?}");
        }
        let globals = ("restore-globals", "globals.sql");
        let passwords = ("restore-role-passwords", "true");
        assert_eq!(
            errors(&[map, roles, globals, passwords]),
            Vec::<String>::new()
        );
        // A map that cannot be read is one mistake, not two.
        let lost = ("restore-role-map", "@/no/such/file");
        assert_eq!(errors(&[lost]).len(), 1);
    }

    #[test]
    fn the_user_project_is_an_id_and_belongs_to_a_bucket() {
        let of = |bucket: &str, project: &str| {
            let flags = [("backup-bucket", bucket), ("backup-user-project", project)];
            Config::new(&RawConfig::from_flags(&flags).unwrap())
        };
        for project in ["payer-123", "example.com:payer", "123456789"] {
            let config = of("gs://backups/nightly", project).unwrap();
            assert_eq!(config.user_project.as_deref(), Some(project));
        }
        assert_eq!(of("gs://backups", "").unwrap().user_project, None);
        // The default bucket is one, too.
        assert!(of("", "payer-123").is_ok());
        for (bucket, project, said) in [
            ("gs://backups", "a\r\nb: c", "must be the id of a project"),
            ("gs://backups", "my project", "must be the id of a project"),
            (
                "file:///backups",
                "payer-123",
                "has no effect unless BACKUP_BUCKET",
            ),
        ] {
            let text = of(bucket, project).unwrap_err().to_string();
            assert!(text.contains("BACKUP_USER_PROJECT: "), "{text}");
            assert!(text.contains(said), "{text}");
            assert!(!text.contains(project), "{text}");
        }
    }

    #[test]
    fn numbers_outside_their_range_are_refused() {
        for (flag, wrong, right) in [
            ("restore-jobs", "0", "1"),
            ("restore-jobs", "257", "256"),
            ("restore-lease-extension", "9s", "10s"),
            ("restore-lease-extension", "601s", "600s"),
            ("db-port", "0", "65535"),
        ] {
            let config = |value| Config::new(&RawConfig::from_flags(&[(flag, value)]).unwrap());
            let variable = flag.to_uppercase().replace('-', "_");
            let text = config(wrong).unwrap_err().to_string();
            assert!(text.contains(&variable), "{flag}={wrong}: {text}");
            assert!(config(right).is_ok(), "{flag}={right}");
        }
    }
}
