//! The raw values of all variables. Each variable is also a flag.

use super::libpq::{self, Environment, SettingOrigins};
use super::login::DbAuth;
use super::pgpass::PasswordQuery;
use super::values::non_empty;

/// How long a person waits until a server or service that never answered is reported. A little is left to print it
/// within five seconds.
const FIRST_CONTACT: std::time::Duration = std::time::Duration::from_millis(4500);

/// The raw values from the command line or the environment, before they are parsed.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration (flags override the environment variables shown)")]
pub struct RawConfig {
    /// Bucket name, gs://bucket/prefix or file:///folder [default: secureai-backups]
    #[arg(long, env = "BACKUP_BUCKET", global = true, value_name = "BUCKET")]
    pub(super) backup_bucket: Option<String>,
    /// Project that requests to the bucket of BACKUP_BUCKET are billed to, for a bucket with Requester Pays; the account needs roles/serviceusage.serviceUsageConsumer there [default: the bucket's own project]
    #[arg(
        long,
        env = "BACKUP_USER_PROJECT",
        global = true,
        value_name = "PROJECT"
    )]
    pub(super) backup_user_project: Option<String>,
    /// Days to keep backups [default: 7]
    #[arg(
        long,
        env = "BACKUP_RETENTION_DAYS",
        global = true,
        value_name = "DAYS"
    )]
    pub(super) backup_retention_days: Option<String>,
    /// full: restore the dump's owners, privileges and code, as far as the connecting role may; restricted: load as a role that owns nothing [default: full]
    #[arg(long, env = "BACKUP_TRUST", global = true, value_name = "TRUST")]
    pub(super) backup_trust: Option<String>,
    /// Additional sources that are trusted like BACKUP_BUCKET, separated by commas (gs://bucket/prefix, file:///folder)
    #[arg(long, env = "TRUSTED_SOURCES", global = true, value_name = "LIST")]
    pub(super) trusted_sources: Option<String>,
    /// Additional sources that requests may name; their backups are restored restricted
    #[arg(long, env = "ALLOWED_SOURCES", global = true, value_name = "LIST")]
    pub(super) allowed_sources: Option<String>,
    /// Roles used only to load restricted restores, one per restore, separated by commas; if empty, DB_USER creates a role for each restore
    #[arg(long, env = "DB_RESTRICTED_USER", global = true, value_name = "LIST")]
    pub(super) db_restricted_user: Option<String>,
    /// Password of those roles; each restore sets it again
    #[arg(
        long,
        env = "DB_RESTRICTED_PASSWORD",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) db_restricted_password: Option<String>,
    /// File that contains that password
    #[arg(
        long,
        env = "DB_RESTRICTED_PASSWORD_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) db_restricted_password_file: Option<String>,
    /// Role that owns the database after a restricted restore if the replaced database's owner is too powerful [default: pgrestored_owner]
    #[arg(long, env = "RESTRICTED_OWNER", global = true, value_name = "ROLE")]
    pub(super) restricted_owner: Option<String>,
    /// Target server, or the folder that contains its socket [default: localhost]
    #[arg(long, env = "DB_HOST", global = true, value_name = "HOST")]
    pub(super) db_host: Option<String>,
    /// Port of the target server [default: 5432]
    #[arg(long, env = "DB_PORT", global = true, value_name = "PORT")]
    pub(super) db_port: Option<String>,
    /// Role to connect to the target server as [default: postgres]
    #[arg(long, env = "DB_USER", global = true, value_name = "ROLE")]
    pub(super) db_user: Option<String>,
    /// How DB_USER logs in: password: with DB_PASSWORD, if it is set; gcp-iam: with an access token of this workload's Google account (Cloud SQL, AlloyDB), which requires TLS [default: password]
    #[arg(long, env = "DB_AUTH", global = true, value_name = "AUTH")]
    pub(super) db_auth: Option<String>,
    /// Password of DB_USER
    #[arg(
        long,
        env = "DB_PASSWORD",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) db_password: Option<String>,
    /// File that contains that password
    #[arg(long, env = "DB_PASSWORD_FILE", global = true, value_name = "FILE")]
    pub(super) db_password_file: Option<String>,
    /// disable, prefer, require, verify-ca or verify-full; by default prefer for loopback addresses and sockets, otherwise, and with DB_AUTH=gcp-iam, verify-full
    #[arg(long, env = "DB_SSLMODE", global = true, value_name = "MODE")]
    pub(super) db_sslmode: Option<String>,
    /// File with the CA certificates to verify the server's certificate against (PEM) [default: those of the system]
    #[arg(long, env = "DB_SSLROOTCERT", global = true, value_name = "FILE")]
    pub(super) db_sslrootcert: Option<String>,
    /// File with the client's certificate (PEM)
    #[arg(long, env = "DB_SSLCERT", global = true, value_name = "FILE")]
    pub(super) db_sslcert: Option<String>,
    /// File with the key of the client's certificate (PEM)
    #[arg(long, env = "DB_SSLKEY", global = true, value_name = "FILE")]
    pub(super) db_sslkey: Option<String>,
    /// Allow a DB_SSLMODE that may send the password to another machine without TLS [default: false]
    #[arg(long, env = "DB_ALLOW_PLAINTEXT", global = true, value_name = "BOOL")]
    pub(super) db_allow_plaintext: Option<String>,
    /// Databases that may be targets: patterns with * and ?, separated by commas [default: any]
    #[arg(long, env = "ALLOWED_TARGETS", global = true, value_name = "LIST")]
    pub(super) allowed_targets: Option<String>,
    /// Databases that no restore may touch, in addition to the server's own, separated by commas
    #[arg(long, env = "PROTECTED_DATABASES", global = true, value_name = "LIST")]
    pub(super) protected_databases: Option<String>,
    /// File that defines what the requests of each subscription may ask for (YAML; `schema request-policy` prints its schema)
    #[arg(long, env = "REQUEST_POLICY", global = true, value_name = "FILE")]
    pub(super) request_policy: Option<String>,
    /// File with the orders of standing restores, which keep databases as fresh as the backups (YAML; `schema standing-restores` prints its schema)
    #[arg(long, env = "STANDING_RESTORES", global = true, value_name = "FILE")]
    pub(super) standing_restores: Option<String>,
    /// Refuse requests that were published longer ago than this [default: 7d]
    #[arg(long, env = "REQUEST_MAX_AGE", global = true, value_name = "TIME")]
    pub(super) request_max_age: Option<String>,
    /// Key that signs requests: Ed25519 (PKCS #8 in PEM), or a shared secret
    #[arg(
        long,
        env = "REQUEST_SIGNING_KEY",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) request_signing_key: Option<String>,
    /// File with that key
    #[arg(
        long,
        env = "REQUEST_SIGNING_KEY_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) request_signing_key_file: Option<String>,
    /// Id of that key in the worker's policy file [default: default]
    #[arg(long, env = "REQUEST_SIGNING_KEY_ID", global = true, value_name = "ID")]
    pub(super) request_signing_key_id: Option<String>,
    /// Where to record the outcome of each request permanently: gs://bucket/prefix or file:///folder [default: only on the target server]
    #[arg(long, env = "RESTORE_RECORDS", global = true, value_name = "LOCATION")]
    pub(super) restore_records: Option<String>,
    /// Limit of one backup's uncompressed data, in GiB [default: no limit]
    #[arg(long, env = "RESTORE_MAX_GIB", global = true, value_name = "GIB")]
    pub(super) restore_max_gib: Option<String>,
    /// A restore ends before less than this is free on the target server's disk, in MiB; 0 = do not check. Known only if the server is on this machine and DB_USER is a superuser (or may run pg_stat_file and read all settings) [default: 256]
    #[arg(long, env = "RESTORE_MIN_FREE_MIB", global = true, value_name = "MIB")]
    pub(super) restore_min_free_mib: Option<String>,
    /// Time limits of individual stages: STAGE=TIME, separated by commas, such as prepare=10m,data=6h
    #[arg(long, env = "RESTORE_STAGE_LIMITS", global = true, value_name = "LIST")]
    pub(super) restore_stage_limits: Option<String>,
    /// How long a restore may make no progress, except during index builds [default: 2h]
    #[arg(
        long,
        env = "RESTORE_STALL_TIMEOUT",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_stall_timeout: Option<String>,
    /// Target database of requests that name none
    #[arg(long, env = "DB_NAME", global = true, value_name = "DB")]
    pub(super) db_name: Option<String>,
    /// Database to connect to for creating, locking and renaming databases [default: postgres]
    #[arg(long, env = "DB_MAINTENANCE_NAME", global = true, value_name = "DB")]
    pub(super) db_maintenance_name: Option<String>,
    /// Google Cloud project of the topics and subscriptions
    #[arg(
        long,
        env = "GOOGLE_CLOUD_PROJECT",
        global = true,
        value_name = "PROJECT"
    )]
    pub(super) google_cloud_project: Option<String>,
    /// Subscription with restore requests [default: restore-requests]
    #[arg(
        long,
        env = "RESTORE_REQUEST_SUBSCRIPTION",
        global = true,
        value_name = "SUB"
    )]
    pub(super) restore_request_subscription: Option<String>,
    /// Topic that `request` publishes to [default: restore-requests]
    #[arg(
        long,
        env = "RESTORE_REQUEST_TOPIC",
        global = true,
        value_name = "TOPIC"
    )]
    pub(super) restore_request_topic: Option<String>,
    /// Subscription with Cloud Storage notifications; empty = off
    #[arg(
        long,
        env = "BACKUP_NOTIFICATION_SUBSCRIPTION",
        global = true,
        value_name = "SUB"
    )]
    pub(super) backup_notification_subscription: Option<String>,
    /// Topic for result events [default: restore-completions]
    #[arg(
        long,
        env = "RESTORE_COMPLETION_TOPIC",
        global = true,
        value_name = "TOPIC"
    )]
    pub(super) restore_completion_topic: Option<String>,
    /// Subscription of the completion topic that `request --wait` reads [default: restore-completions]
    #[arg(
        long,
        env = "RESTORE_COMPLETION_SUBSCRIPTION",
        global = true,
        value_name = "SUB"
    )]
    pub(super) restore_completion_subscription: Option<String>,
    /// Pub/Sub emulator: plain HTTP, no credentials
    #[arg(
        long,
        env = "PUBSUB_EMULATOR_HOST",
        global = true,
        value_name = "HOST:PORT"
    )]
    pub(super) pubsub_emulator_host: Option<String>,
    /// Cloud Storage emulator: plain HTTP, no credentials
    #[arg(
        long,
        env = "STORAGE_EMULATOR_HOST",
        global = true,
        value_name = "HOST:PORT"
    )]
    pub(super) storage_emulator_host: Option<String>,
    /// gRPC address of the Cloud Storage emulator, if it differs
    #[arg(
        long,
        env = "STORAGE_EMULATOR_GRPC_HOST",
        global = true,
        value_name = "HOST:PORT"
    )]
    pub(super) storage_emulator_grpc_host: Option<String>,
    /// Connections that load one restore, 1 to 256 [default: the server's cores]
    #[arg(long, env = "RESTORE_JOBS", global = true, value_name = "N")]
    pub(super) restore_jobs: Option<String>,
    /// Restores that this worker runs concurrently [default: 1]
    #[arg(long, env = "RESTORE_MAX_CONCURRENT", global = true, value_name = "N")]
    pub(super) restore_max_concurrent: Option<String>,
    /// Time limit of one restore, such as 12h [default: 12h]
    #[arg(long, env = "RESTORE_TIMEOUT", global = true, value_name = "TIME")]
    pub(super) restore_timeout: Option<String>,
    /// Attempts at one request before a transient failure is final; interrupted ones do not count [default: 4]
    #[arg(long, env = "RESTORE_MAX_ATTEMPTS", global = true, value_name = "N")]
    pub(super) restore_max_attempts: Option<String>,
    /// Deliveries after which a message is assumed to crash workers: it is answered and not retried [default: 10]
    #[arg(
        long,
        env = "RESTORE_QUARANTINE_AFTER",
        global = true,
        value_name = "N"
    )]
    pub(super) restore_quarantine_after: Option<String>,
    /// How long to keep a replaced database for `rollback`; 0 = drop it at once [default: 24h]
    #[arg(
        long,
        env = "RESTORE_KEEP_PREVIOUS",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_keep_previous: Option<String>,
    /// Whether an interrupted restore continues where it stopped: auto: if nothing that it depends on has changed; never: every
    /// attempt begins from the start [default: auto]
    #[arg(long, env = "RESTORE_RESUME", global = true, value_name = "WHEN")]
    pub(super) restore_resume: Option<String>,
    /// How long to keep the work of an interrupted restore for its next attempt [default: 24h]
    #[arg(long, env = "RESTORE_RESUME_FOR", global = true, value_name = "TIME")]
    pub(super) restore_resume_for: Option<String>,
    /// Keep the work of an interrupted restore only if it had been loading for this long; 0s = always [default: 1m]
    #[arg(long, env = "RESTORE_RESUME_FROM", global = true, value_name = "TIME")]
    pub(super) restore_resume_from: Option<String>,
    /// How often a worker drops what killed workers left behind; 0 = never [default: 10m]
    #[arg(long, env = "REAP_EVERY", global = true, value_name = "TIME")]
    pub(super) reap_every: Option<String>,
    /// Lease of a message, extended while its job runs (10s to 600s); a dead worker's message is redelivered after this time [default: 60s]
    #[arg(
        long,
        env = "RESTORE_LEASE_EXTENSION",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_lease_extension: Option<String>,
    /// Memory for data queued between download and server, in MiB [default: 32]
    #[arg(long, env = "RESTORE_QUEUE_MIB", global = true, value_name = "MIB")]
    pub(super) restore_queue_mib: Option<String>,
    /// Memory that this worker may use, in MiB; a backup that needs more is refused. Each sandbox is left 384 of the cgroup's limit. If the cgroup has no limit: half of the machine's memory, at most 2048 [default: the cgroup's limit]
    #[arg(long, env = "RESTORE_MEMORY_MIB", global = true, value_name = "MIB")]
    pub(super) restore_memory_mib: Option<String>,
    /// How rows are sent: text, as stored in the backup; binary, which costs the server less, if they can be
    /// converted exactly; auto: binary except for small tables [default: auto]
    #[arg(
        long,
        env = "RESTORE_COPY_FORMAT",
        global = true,
        value_name = "FORMAT"
    )]
    pub(super) restore_copy_format: Option<String>,
    /// How long to retry connecting to the server or the store; commands other than `worker` give up after 5 seconds until it has responded once [default: 15m]
    #[arg(long, env = "RETRY_BUDGET", global = true, value_name = "TIME")]
    pub(super) retry_budget: Option<String>,
    /// Reopen a download that has received no byte for this long [default: 30s]
    #[arg(
        long,
        env = "DOWNLOAD_STALL_TIMEOUT",
        global = true,
        value_name = "TIME"
    )]
    pub(super) download_stall_timeout: Option<String>,
    /// How long a worker that is shutting down lets its jobs finish [default: 25s]
    #[arg(long, env = "DRAIN_TIMEOUT", global = true, value_name = "TIME")]
    pub(super) drain_timeout: Option<String>,
    /// Owners of restored objects: keep: the roles named in the dump; map: the roles given by RESTORE_ROLE_MAP; none: DB_USER [default: keep]
    #[arg(
        long,
        visible_alias = "owners",
        env = "RESTORE_OWNERS",
        global = true,
        value_name = "POLICY"
    )]
    pub(super) restore_owners: Option<String>,
    /// Roles to substitute for others: OLD=NEW, separated by commas, or @FILE with one per line
    #[arg(
        long,
        visible_alias = "role-map",
        env = "RESTORE_ROLE_MAP",
        global = true,
        value_name = "LIST"
    )]
    pub(super) restore_role_map: Option<String>,
    /// Create roles that are missing on the server, without login [default: false]
    #[arg(long, visible_alias = "create-roles", env = "RESTORE_CREATE_ROLES", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_create_roles: Option<String>,
    /// Do not restore privileges (GRANT and REVOKE) [default: false]
    #[arg(long, visible_alias = "no-privileges", env = "RESTORE_NO_PRIVILEGES", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_no_privileges: Option<String>,
    /// What to do about extensions that are missing on the server: require or skip-missing [default: require]
    #[arg(
        long,
        visible_alias = "extensions",
        env = "RESTORE_EXTENSIONS",
        global = true,
        value_name = "POLICY"
    )]
    pub(super) restore_extensions: Option<String>,
    /// What to do about definitions that the server refuses: stop: fail, and name all of them; skip: leave them out with what
    /// depends on them (exit code 3) [default: stop]
    #[arg(
        long,
        visible_alias = "on-error",
        env = "RESTORE_ON_ERROR",
        global = true,
        value_name = "POLICY"
    )]
    pub(super) restore_on_error: Option<String>,
    /// The managed service that backups come from: what belongs to its platform alone (roles, extensions, schemas, event
    /// triggers, publications) is left out, or belongs to DB_USER, where the server lacks it. auto: recognized from the backup;
    /// none: everything is restored; cloudsql, alloydb, rds, aurora, azure, heroku, supabase or neon [default: auto]
    #[arg(
        long,
        visible_alias = "profile",
        env = "RESTORE_PROFILE",
        global = true,
        value_name = "SERVICE"
    )]
    pub(super) restore_profile: Option<String>,
    /// File with rules (YAML) that mask and filter rows before they reach the server
    #[arg(
        long,
        visible_alias = "mask",
        env = "RESTORE_MASK",
        global = true,
        value_name = "FILE"
    )]
    pub(super) restore_mask: Option<String>,
    /// Key of the masking rules, at least 16 bytes: the same key gives the same copy
    #[arg(
        long,
        env = "MASK_KEY",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) mask_key: Option<String>,
    /// File with that key
    #[arg(long, env = "MASK_KEY_FILE", global = true, value_name = "FILE")]
    pub(super) mask_key_file: Option<String>,
    /// How long a swap waits for sessions on the target that DB_USER may not terminate, such as those of a managed service's own
    /// administrator; without it, a swap tries for 30 seconds. The swap terminates all others
    #[arg(
        long,
        visible_alias = "swap-when-idle",
        env = "RESTORE_SWAP_WHEN_IDLE",
        global = true,
        value_name = "TIME",
        num_args = 0..=1,
        default_missing_value = "1h",
        require_equals = true
    )]
    pub(super) restore_swap_when_idle: Option<String>,
    /// Try all definitions without rows, in a database of its own, before the first row moves: always, never, or (auto) for
    /// objects of 1 GiB or more [default: auto]
    #[arg(
        long,
        env = "RESTORE_REHEARSE",
        global = true,
        value_name = "WHEN",
        num_args = 0..=1,
        default_missing_value = "always",
        require_equals = true
    )]
    pub(super) restore_rehearse: Option<String>,
    /// Create a new target database under its final name, closed to others until it is proven: always, never, or (auto) if
    /// the dump uses current_database() or an extension that is bound to one database [default: auto]
    #[arg(
        long,
        visible_alias = "in-place",
        env = "RESTORE_IN_PLACE",
        global = true,
        value_name = "POLICY",
        num_args = 0..=1,
        default_missing_value = "always",
        require_equals = true
    )]
    pub(super) restore_in_place: Option<String>,
    /// Location of the SQL and checks files that requests and orders may name to finish a restore: gs://bucket/prefix or
    /// file:///folder. Anyone who may write there can run SQL as DB_USER
    #[arg(
        long,
        env = "RESTORE_FINISH_FROM",
        global = true,
        value_name = "LOCATION"
    )]
    pub(super) restore_finish_from: Option<String>,
    /// Time limit of each SQL file that finishes a restore [default: 30m]
    #[arg(
        long,
        env = "RESTORE_FINISH_TIMEOUT",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_finish_timeout: Option<String>,
    /// Do not run ANALYZE after the load [default: false]
    #[arg(long, visible_alias = "no-analyze", env = "RESTORE_NO_ANALYZE", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_no_analyze: Option<String>,
    /// Object with the roles (pg_dumpall --globals-only), named relative to the backup's folder, such as globals.sql
    #[arg(
        long,
        visible_alias = "globals",
        env = "RESTORE_GLOBALS",
        global = true,
        value_name = "NAME"
    )]
    pub(super) restore_globals: Option<String>,
    /// Also set the passwords of roles from the globals [default: false]
    #[arg(long, visible_alias = "role-passwords", env = "RESTORE_ROLE_PASSWORDS", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_role_passwords: Option<String>,
    /// Require pg_dump's end mark in SQL text as a sign that it is complete: true: for restores and verifications; false: for neither; if not set, only for verifications
    #[arg(long, visible_alias = "require-complete", env = "RESTORE_REQUIRE_COMPLETE", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_require_complete: Option<String>,
    /// age identity that decrypts encrypted backups
    #[arg(
        long,
        env = "BACKUP_AGE_IDENTITY",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) backup_age_identity: Option<String>,
    /// File with age identities, one per line
    #[arg(
        long,
        env = "BACKUP_AGE_IDENTITY_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) backup_age_identity_file: Option<String>,
    /// How far a verification goes: object, archive, restore or data [default: data]
    #[arg(long, env = "VERIFY_DEPTH", global = true, value_name = "DEPTH")]
    pub(super) verify_depth: Option<String>,
    /// File with data checks (YAML; `schema checks` prints its schema)
    #[arg(
        long,
        visible_alias = "checks",
        env = "VERIFY_CHECKS",
        global = true,
        value_name = "FILE"
    )]
    pub(super) verify_checks: Option<String>,
    /// Verify only new objects whose names begin with this
    #[arg(long, env = "VERIFY_PREFIX", global = true, value_name = "PREFIX")]
    pub(super) verify_prefix: Option<String>,
    /// Verify only new objects whose names end with one of these, separated by commas
    #[arg(long, env = "VERIFY_SUFFIX", global = true, value_name = "LIST")]
    pub(super) verify_suffix: Option<String>,
    /// Object whose arrival announces a backup that consists of several objects in a folder [default: toc.dat]
    #[arg(long, env = "VERIFY_MANIFEST", global = true, value_name = "NAME")]
    pub(super) verify_manifest: Option<String>,
    /// How long to wait for the other objects of such a folder [default: 10m]
    #[arg(long, env = "VERIFY_SETTLE", global = true, value_name = "TIME")]
    pub(super) verify_settle: Option<String>,
    /// What to do about new backups that are older than the newest proven one of their database: skip or verify [default: skip]
    #[arg(long, env = "VERIFY_OLDER", global = true, value_name = "POLICY")]
    pub(super) verify_older: Option<String>,
    /// Verify the newest backup of each database when its newest proof is older than this; empty = off
    #[arg(long, env = "VERIFY_SCHEDULE", global = true, value_name = "TIME")]
    pub(super) verify_schedule: Option<String>,
    /// Number of older backups of the database to verify with each scheduled verification [default: 0]
    #[arg(long, env = "VERIFY_SAMPLE", global = true, value_name = "N")]
    pub(super) verify_sample: Option<String>,
    /// How often the worker tests its own verification on broken backups; empty = off
    #[arg(long, env = "VERIFY_SELFTEST", global = true, value_name = "TIME")]
    pub(super) verify_selftest: Option<String>,
    /// Number of older backups to verify, after a failure, to find the first bad one; 0 = off [default: 6]
    #[arg(long, env = "VERIFY_BISECT", global = true, value_name = "N")]
    pub(super) verify_bisect: Option<String>,
    /// Where to write evidence: empty = beside the backup, none, gs://bucket/prefix or file:///folder
    #[arg(
        long,
        env = "EVIDENCE_LOCATION",
        global = true,
        value_name = "LOCATION"
    )]
    pub(super) evidence_location: Option<String>,
    /// Ed25519 key (PKCS #8 in PEM) that signs evidence
    #[arg(
        long,
        env = "EVIDENCE_SIGNING_KEY",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) evidence_signing_key: Option<String>,
    /// File with that key
    #[arg(
        long,
        env = "EVIDENCE_SIGNING_KEY_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) evidence_signing_key_file: Option<String>,
    /// Ed25519 public keys in PEM, concatenated: evidence signed with one of them counts, in addition to this worker's own
    #[arg(long, env = "EVIDENCE_TRUSTED_KEYS", global = true, value_name = "PEM")]
    pub(super) evidence_trusted_keys: Option<String>,
    /// File with those keys
    #[arg(
        long,
        env = "EVIDENCE_TRUSTED_KEYS_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) evidence_trusted_keys_file: Option<String>,
    /// Sets of backups that belong together: NAME=PREFIX, separated by commas [default: one set for all; databases in a set are distinguished in any case]
    #[arg(long, env = "BACKUP_SETS", global = true, value_name = "LIST")]
    pub(super) backup_sets: Option<String>,
    /// Number of backups of each database that `prune` always keeps [default: 3]
    #[arg(long, env = "BACKUP_RETENTION_MIN", global = true, value_name = "N")]
    pub(super) backup_retention_min: Option<String>,
    /// Folder for sandboxes and their templates; if not set, one per user in the folder for temporary files
    #[arg(long, env = "SANDBOX_DIR", global = true, value_name = "FOLDER")]
    pub(super) sandbox_dir: Option<String>,
    /// require: verify only in sandboxes isolated by namespaces; prefer: also verify without isolation, and report it [default: prefer]
    #[arg(long, env = "SANDBOX_ISOLATION", global = true, value_name = "POLICY")]
    pub(super) sandbox_isolation: Option<String>,
    /// Libraries that a sandbox may load when it starts, if the backup has their extension: names, separated by commas, or none [default: citus,timescaledb,pg_cron,pgaudit,pglogical,pg_stat_statements]
    #[arg(
        long,
        env = "SANDBOX_PRELOAD_LIBRARIES",
        global = true,
        value_name = "LIST"
    )]
    pub(super) sandbox_preload_libraries: Option<String>,
    /// Server to run verifications on instead of sandboxes; must not be the target server
    #[arg(long, env = "SCRATCH_DB_HOST", global = true, value_name = "HOST")]
    pub(super) scratch_db_host: Option<String>,
    /// Port of the scratch server [default: 5432]
    #[arg(long, env = "SCRATCH_DB_PORT", global = true, value_name = "PORT")]
    pub(super) scratch_db_port: Option<String>,
    /// Role that creates and drops databases on the scratch server [default: postgres]
    #[arg(long, env = "SCRATCH_DB_USER", global = true, value_name = "ROLE")]
    pub(super) scratch_db_user: Option<String>,
    /// Password of that role
    #[arg(
        long,
        env = "SCRATCH_DB_PASSWORD",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) scratch_db_password: Option<String>,
    /// File that contains that password
    #[arg(
        long,
        env = "SCRATCH_DB_PASSWORD_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) scratch_db_password_file: Option<String>,
    /// Like DB_SSLMODE, for the scratch server
    #[arg(long, env = "SCRATCH_DB_SSLMODE", global = true, value_name = "MODE")]
    pub(super) scratch_db_sslmode: Option<String>,
    /// Who loads backups on the scratch server: restricted: a role created for the verification; full: SCRATCH_DB_USER [default: restricted]
    #[arg(long, env = "SCRATCH_DB_TRUST", global = true, value_name = "TRUST")]
    pub(super) scratch_db_trust: Option<String>,
    /// Address of /metrics, the health checks and the status page [default: 127.0.0.1:9464]
    #[arg(long, env = "ADMIN_ADDR", global = true, value_name = "ADDR")]
    pub(super) admin_addr: Option<String>,
    /// Host names that the admin port answers to: patterns with * and ?, separated by commas; IP addresses, localhost and the machine's own name are always accepted
    #[arg(long, env = "ADMIN_HOSTS", global = true, value_name = "NAMES")]
    pub(super) admin_hosts: Option<String>,
    /// Link to a job's log on the status page: a URL with {request_id} or {trace_id}
    #[arg(long, env = "LOG_URL_TEMPLATE", global = true, value_name = "URL")]
    pub(super) log_url_template: Option<String>,
    /// Link to a job's trace on the status page: a URL with {trace_id} or {request_id}
    #[arg(long, env = "TRACE_URL_TEMPLATE", global = true, value_name = "URL")]
    pub(super) trace_url_template: Option<String>,
    /// Folders with PostgreSQL's binaries, separated by colons; by default PATH and the usual folders
    #[arg(long, env = "PG_BINDIR", global = true, value_name = "FOLDERS")]
    pub(super) pg_bindir: Option<String>,
    /// Endpoint to send traces to by OTLP; empty = off
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        global = true,
        value_name = "URL"
    )]
    pub(super) otel_exporter_otlp_endpoint: Option<String>,
    /// Whether a person waits for the first answer of servers and services.
    #[arg(skip)]
    pub(super) is_for_person: bool,
    #[arg(skip)]
    pub(super) origins: SettingOrigins,
}

impl RawConfig {
    /// Parses flags given without their leading `--`; the environment provides the values of all others.
    ///
    /// # Errors
    /// An unknown flag, or a value that clap rejects.
    pub fn from_flags(flags: &[(&str, &str)]) -> Result<Self, String> {
        #[derive(clap::Parser)]
        struct Flags {
            #[command(flatten)]
            raw: RawConfig,
        }
        let args = flags
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}"));
        let parsed = <Flags as clap::Parser>::try_parse_from(
            std::iter::once("pgrestored".to_owned()).chain(args),
        );
        parsed.map(|f| f.raw).map_err(|e| e.to_string())
    }

    /// The values for a command that a person runs: settings of the target server that are not given are taken
    /// from where `psql` would take them, and what cannot be reached is reported within seconds.
    pub fn for_person(self) -> Self {
        let raw = RawConfig {
            is_for_person: true,
            ..self
        };
        raw.with_libpq_settings(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    /// The values for a command that changes no rows: whether masking rules fit a backup does not depend on their key.
    pub fn with_any_mask_key(self) -> Self {
        if non_empty(&self.mask_key)
            .or(non_empty(&self.mask_key_file))
            .is_some()
        {
            return self;
        }
        RawConfig {
            mask_key: Some("no row is masked with this key".to_owned()),
            ..self
        }
    }

    /// How long a server or service may take to answer for the first time; `None`: as long as later.
    pub(super) fn first_contact(&self) -> Option<std::time::Duration> {
        self.is_for_person.then_some(FIRST_CONTACT)
    }

    fn with_libpq_settings(mut self, env: Environment<'_>) -> Self {
        let settings = match libpq::read(env) {
            Ok(settings) => settings,
            Err(errors) => {
                self.origins.errors = errors;
                return self;
            }
        };
        if non_empty(&self.db_host).is_none() {
            self.origins.errors.extend(libpq::unsupported(&settings));
        }
        // With DB_AUTH, an access token takes the place of a password.
        let has_login = non_empty(&self.db_password).is_some()
            || non_empty(&self.db_password_file).is_some()
            || DbAuth::of(&self.db_auth) == Some(DbAuth::GcpIam);
        let password = settings.get("password").filter(|_| !has_login);
        let mut origins = Vec::new();
        for (variable, field, setting) in [
            ("DB_HOST", &mut self.db_host, settings.get("host")),
            ("DB_PORT", &mut self.db_port, settings.get("port")),
            ("DB_USER", &mut self.db_user, settings.get("user")),
            ("DB_PASSWORD", &mut self.db_password, password),
            ("DB_SSLMODE", &mut self.db_sslmode, settings.get("sslmode")),
            (
                "DB_SSLROOTCERT",
                &mut self.db_sslrootcert,
                settings.get("sslrootcert"),
            ),
            ("DB_SSLCERT", &mut self.db_sslcert, settings.get("sslcert")),
            ("DB_SSLKEY", &mut self.db_sslkey, settings.get("sslkey")),
        ] {
            if let (None, Some(setting)) = (non_empty(field), setting) {
                *field = Some(setting.value.clone());
                origins.push((variable, setting.origin.clone()));
            }
        }
        self.origins.by_variable.extend(origins);
        if has_login || password.is_some() {
            return self;
        }
        let wanted = PasswordQuery {
            host: non_empty(&self.db_host).unwrap_or("localhost"),
            port: non_empty(&self.db_port).unwrap_or("5432"),
            database: non_empty(&self.db_maintenance_name).unwrap_or("postgres"),
            user: non_empty(&self.db_user).unwrap_or("postgres"),
        };
        match libpq::password(env, &settings, &wanted) {
            Ok(Some(found)) => {
                self.origins.by_variable.insert("DB_PASSWORD", found.origin);
                self.db_password = Some(found.value);
            }
            Ok(None) => {}
            Err(warning) => self.origins.warnings.push(warning),
        }
        self
    }

    pub fn pg_bindir(&self) -> Vec<std::path::PathBuf> {
        non_empty(&self.pg_bindir)
            .map(|dirs| std::env::split_paths(dirs).collect())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values with these variables and this environment of libpq.
    fn taken(given: &[(&str, &str)], env: &[(&str, &str)]) -> RawConfig {
        let value_of = |all: &[(&str, &str)], name: &str| {
            let found = all.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let raw = RawConfig {
            db_host: value_of(given, "DB_HOST"),
            db_user: value_of(given, "DB_USER"),
            db_auth: value_of(given, "DB_AUTH"),
            db_password_file: value_of(given, "DB_PASSWORD_FILE"),
            ..RawConfig::default()
        };
        raw.with_libpq_settings(&|name| value_of(env, name))
    }

    #[test]
    fn what_is_given_comes_before_libpqs_settings() {
        let env = [
            ("PGHOST", "there"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "secret"),
        ];
        let raw = taken(&[("DB_HOST", "here"), ("DB_USER", "")], &env);
        assert_eq!(raw.db_host.as_deref(), Some("here"));
        assert_eq!(raw.db_port.as_deref(), Some("5433"));
        assert_eq!(raw.db_user.as_deref(), Some("me"));
        assert_eq!(raw.db_password.as_deref(), Some("secret"));
        let origins = ["DB_HOST", "DB_PORT", "DB_PASSWORD"].map(|v| raw.origins.of(v));
        assert_eq!(origins, [None, Some("PGPORT"), Some("PGPASSWORD")]);
        let raw = taken(&[("DB_PASSWORD_FILE", "/file")], &env);
        assert_eq!(
            (raw.db_password, raw.origins.of("DB_PASSWORD")),
            (None, None)
        );
        // A token takes the place of a password.
        assert_eq!(taken(&[("DB_AUTH", "gcp-iam")], &env).db_password, None);
    }

    #[test]
    fn the_password_file_is_searched_for_the_connection_that_is_made() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(".pgpass");
        let lines = "db:5433:postgres:me:found\\:it\nlocalhost:5432:postgres:postgres:default\n";
        std::fs::write(&file, lines).unwrap();
        let allow = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
        allow(0o600).unwrap();
        let env = [
            ("HOME", home.path().to_str().unwrap()),
            ("PGHOST", "db"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
        ];
        let raw = taken(&[], &env);
        assert_eq!(raw.db_password.as_deref(), Some("found:it"));
        assert_eq!(raw.origins.of("DB_PASSWORD"), file.to_str());
        assert_eq!(
            taken(&[], &env[..1]).db_password.as_deref(),
            Some("default")
        );
        assert_eq!(taken(&[("DB_USER", "other")], &env).db_password, None);
        let with_token = taken(&[("DB_AUTH", "gcp-iam")], &env);
        assert_eq!(with_token.db_password, None);
        assert_eq!(with_token.origins.of("DB_USER"), Some("PGUSER"));
        allow(0o644).unwrap();
        let raw = taken(&[], &env);
        assert_eq!(raw.db_password, None);
        assert!(raw.origins.warnings()[0].contains("chmod 600"));
    }

    /// Ignoring these would reach another server.
    #[test]
    fn what_is_not_supported_is_an_error_unless_a_host_is_given() {
        for env in [("PGHOST", "a,b"), ("PGHOSTADDR", "10.0.0.1")] {
            let raw = taken(&[], &[env]);
            assert!(raw.origins.errors[0].starts_with(env.0), "{env:?}");
            assert!(taken(&[("DB_HOST", "a")], &[env]).origins.errors.is_empty());
        }
    }
}
