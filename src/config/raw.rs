//! Every variable as it was given, each also a flag.

use super::set;

/// The variables as they were given, on the command line or in the environment.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration (each flag also as the environment variable named)")]
pub struct RawConfig {
    /// Bucket name, gs://bucket/prefix or file:///folder [default: secureai-backups]
    #[arg(long, env = "BACKUP_BUCKET", global = true, value_name = "BUCKET")]
    pub(super) backup_bucket: Option<String>,
    /// Days to keep backups [default: 7]
    #[arg(
        long,
        env = "BACKUP_RETENTION_DAYS",
        global = true,
        value_name = "DAYS"
    )]
    pub(super) backup_retention_days: Option<String>,
    /// full: restore the dump's owners, privileges and code as the connecting role may; restricted: load by a role that owns nothing [default: full]
    #[arg(long, env = "BACKUP_TRUST", global = true, value_name = "TRUST")]
    pub(super) backup_trust: Option<String>,
    /// Further sources that are trusted like BACKUP_BUCKET, separated by commas (gs://bucket/prefix, file:///folder)
    #[arg(long, env = "TRUSTED_SOURCES", global = true, value_name = "LIST")]
    pub(super) trusted_sources: Option<String>,
    /// Further sources that requests may name; what is in them is restored restricted
    #[arg(long, env = "ALLOWED_SOURCES", global = true, value_name = "LIST")]
    pub(super) allowed_sources: Option<String>,
    /// Roles that load restricted restores and do nothing else, one a restore, separated by commas; without it DB_USER makes one for each
    #[arg(long, env = "DB_RESTRICTED_USER", global = true, value_name = "LIST")]
    pub(super) db_restricted_user: Option<String>,
    /// Their password, which each restore sets again
    #[arg(
        long,
        env = "DB_RESTRICTED_PASSWORD",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) db_restricted_password: Option<String>,
    /// File that holds it
    #[arg(
        long,
        env = "DB_RESTRICTED_PASSWORD_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) db_restricted_password_file: Option<String>,
    /// Role that owns what a restricted restore puts in place, where the replaced database's owner is too powerful [default: pgrestored_owner]
    #[arg(long, env = "RESTRICTED_OWNER", global = true, value_name = "ROLE")]
    pub(super) restricted_owner: Option<String>,
    /// Target server, or the folder of its socket [default: localhost]
    #[arg(long, env = "DB_HOST", global = true, value_name = "HOST")]
    pub(super) db_host: Option<String>,
    /// Port of the target server [default: 5432]
    #[arg(long, env = "DB_PORT", global = true, value_name = "PORT")]
    pub(super) db_port: Option<String>,
    /// Role that restores [default: postgres]
    #[arg(long, env = "DB_USER", global = true, value_name = "ROLE")]
    pub(super) db_user: Option<String>,
    /// Its password
    #[arg(
        long,
        env = "DB_PASSWORD",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) db_password: Option<String>,
    /// File that holds the password
    #[arg(long, env = "DB_PASSWORD_FILE", global = true, value_name = "FILE")]
    pub(super) db_password_file: Option<String>,
    /// disable, prefer, require, verify-ca or verify-full; by default prefer on loopback and sockets, else verify-full
    #[arg(long, env = "DB_SSLMODE", global = true, value_name = "MODE")]
    pub(super) db_sslmode: Option<String>,
    /// File with the certificates that the server's must come from (PEM) [default: those of the system]
    #[arg(long, env = "DB_SSLROOTCERT", global = true, value_name = "FILE")]
    pub(super) db_sslrootcert: Option<String>,
    /// File with the client's certificate (PEM)
    #[arg(long, env = "DB_SSLCERT", global = true, value_name = "FILE")]
    pub(super) db_sslcert: Option<String>,
    /// File with its key (PEM)
    #[arg(long, env = "DB_SSLKEY", global = true, value_name = "FILE")]
    pub(super) db_sslkey: Option<String>,
    /// Send passwords to another machine without TLS, where DB_SSLMODE lets it come to that [default: false]
    #[arg(long, env = "DB_ALLOW_PLAINTEXT", global = true, value_name = "BOOL")]
    pub(super) db_allow_plaintext: Option<String>,
    /// Databases that may be restored into: patterns with * and ?, separated by commas [default: any]
    #[arg(long, env = "ALLOWED_TARGETS", global = true, value_name = "LIST")]
    pub(super) allowed_targets: Option<String>,
    /// Databases that no restore may touch, beside the server's own, separated by commas
    #[arg(long, env = "PROTECTED_DATABASES", global = true, value_name = "LIST")]
    pub(super) protected_databases: Option<String>,
    /// File that says what requests of which subscription may ask for (YAML; `schema request-policy` is its schema)
    #[arg(long, env = "REQUEST_POLICY", global = true, value_name = "FILE")]
    pub(super) request_policy: Option<String>,
    /// Requests that were published longer ago are refused [default: 7d]
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
    /// Its id in the worker's policy file [default: default]
    #[arg(long, env = "REQUEST_SIGNING_KEY_ID", global = true, value_name = "ID")]
    pub(super) request_signing_key_id: Option<String>,
    /// Where the outcome of each request is recorded, once for ever: gs://bucket/prefix or file:///folder [default: in the target server alone]
    #[arg(long, env = "RESTORE_RECORDS", global = true, value_name = "PLACE")]
    pub(super) restore_records: Option<String>,
    /// GiB of uncompressed data that one backup may bring [default: no limit]
    #[arg(long, env = "RESTORE_MAX_GIB", global = true, value_name = "GIB")]
    pub(super) restore_max_gib: Option<String>,
    /// Limits of single stages: STAGE=TIME, separated by commas, such as prepare=10m,data=6h
    #[arg(long, env = "RESTORE_STAGE_LIMITS", global = true, value_name = "LIST")]
    pub(super) restore_stage_limits: Option<String>,
    /// How long a restore may make no progress at all, an index that is being built aside [default: 2h]
    #[arg(
        long,
        env = "RESTORE_STALL_TIMEOUT",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_stall_timeout: Option<String>,
    /// Target database when a request names none
    #[arg(long, env = "DB_NAME", global = true, value_name = "DB")]
    pub(super) db_name: Option<String>,
    /// Database to connect to for create, lock and rename [default: postgres]
    #[arg(long, env = "DB_MAINTENANCE_NAME", global = true, value_name = "DB")]
    pub(super) db_maintenance_name: Option<String>,
    /// Project of topics and subscriptions
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
    /// Where the storage emulator's gRPC port differs
    #[arg(
        long,
        env = "STORAGE_EMULATOR_GRPC_HOST",
        global = true,
        value_name = "HOST:PORT"
    )]
    pub(super) storage_emulator_grpc_host: Option<String>,
    /// Connections that load one restore [default: the server's cores]
    #[arg(long, env = "RESTORE_JOBS", global = true, value_name = "N")]
    pub(super) restore_jobs: Option<String>,
    /// Restores at once in this worker [default: 1]
    #[arg(long, env = "RESTORE_MAX_CONCURRENT", global = true, value_name = "N")]
    pub(super) restore_max_concurrent: Option<String>,
    /// Limit of one restore, such as 12h [default: 12h]
    #[arg(long, env = "RESTORE_TIMEOUT", global = true, value_name = "TIME")]
    pub(super) restore_timeout: Option<String>,
    /// Deliveries of one request before a passing failure is final [default: 4]
    #[arg(long, env = "RESTORE_MAX_ATTEMPTS", global = true, value_name = "N")]
    pub(super) restore_max_attempts: Option<String>,
    /// Deliveries after which a message is taken for one that kills workers: answered and not tried again [default: 10]
    #[arg(
        long,
        env = "RESTORE_QUARANTINE_AFTER",
        global = true,
        value_name = "N"
    )]
    pub(super) restore_quarantine_after: Option<String>,
    /// How long a replaced database is kept for `rollback`; 0 = it is dropped at once [default: 24h]
    #[arg(
        long,
        env = "RESTORE_KEEP_PREVIOUS",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_keep_previous: Option<String>,
    /// How often a worker drops what killed workers left; 0 = never [default: 10m]
    #[arg(long, env = "REAP_EVERY", global = true, value_name = "TIME")]
    pub(super) reap_every: Option<String>,
    /// How long a message is leased at a time (10s to 600s): a dead worker's message comes back after this [default: 60s]
    #[arg(
        long,
        env = "RESTORE_LEASE_EXTENSION",
        global = true,
        value_name = "TIME"
    )]
    pub(super) restore_lease_extension: Option<String>,
    /// Memory for data between download and server, in MiB [default: 32]
    #[arg(long, env = "RESTORE_QUEUE_MIB", global = true, value_name = "MIB")]
    pub(super) restore_queue_mib: Option<String>,
    /// Memory that this worker may use, in MiB: a backup that needs more is refused; where the cgroup has no limit, half of the machine's, at most 2048 [default: the cgroup's limit]
    #[arg(long, env = "RESTORE_MEMORY_MIB", global = true, value_name = "MIB")]
    pub(super) restore_memory_mib: Option<String>,
    /// How rows are sent: text, as the backup has them; binary, which costs the server less, where they can be
    /// converted exactly; auto: binary but for small tables [default: auto]
    #[arg(
        long,
        env = "RESTORE_COPY_FORMAT",
        global = true,
        value_name = "FORMAT"
    )]
    pub(super) restore_copy_format: Option<String>,
    /// How long a connection to server or store is tried again [default: 15m]
    #[arg(long, env = "RETRY_BUDGET", global = true, value_name = "TIME")]
    pub(super) retry_budget: Option<String>,
    /// Time without a byte after which a download is reopened [default: 30s]
    #[arg(
        long,
        env = "DOWNLOAD_STALL_TIMEOUT",
        global = true,
        value_name = "TIME"
    )]
    pub(super) download_stall_timeout: Option<String>,
    /// How long a stopping worker lets its restores finish [default: 25s]
    #[arg(long, env = "DRAIN_TIMEOUT", global = true, value_name = "TIME")]
    pub(super) drain_timeout: Option<String>,
    /// keep: objects belong to the roles that the dump names; map: to others, by RESTORE_ROLE_MAP; none: to DB_USER [default: keep]
    #[arg(
        long,
        visible_alias = "owners",
        env = "RESTORE_OWNERS",
        global = true,
        value_name = "POLICY"
    )]
    pub(super) restore_owners: Option<String>,
    /// Roles that take the place of others: OLD=NEW, separated by commas, or @FILE with one a line
    #[arg(
        long,
        visible_alias = "role-map",
        env = "RESTORE_ROLE_MAP",
        global = true,
        value_name = "LIST"
    )]
    pub(super) restore_role_map: Option<String>,
    /// Make roles that the server does not have, without login [default: false]
    #[arg(long, visible_alias = "create-roles", env = "RESTORE_CREATE_ROLES", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_create_roles: Option<String>,
    /// Leave GRANT and REVOKE out [default: false]
    #[arg(long, visible_alias = "no-privileges", env = "RESTORE_NO_PRIVILEGES", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_no_privileges: Option<String>,
    /// Extensions that the server does not have: require or skip-missing [default: require]
    #[arg(
        long,
        visible_alias = "extensions",
        env = "RESTORE_EXTENSIONS",
        global = true,
        value_name = "POLICY"
    )]
    pub(super) restore_extensions: Option<String>,
    /// Make a new database under its own name, closed to others until it is proven: always, never, or (auto) where
    /// the dump names current_database() or an extension that is bound to one database [default: auto]
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
    /// Do not analyse the tables after the load [default: false]
    #[arg(long, visible_alias = "no-analyze", env = "RESTORE_NO_ANALYZE", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_no_analyze: Option<String>,
    /// Object with the roles (pg_dumpall --globals-only): its name beside the backup, such as globals.sql
    #[arg(
        long,
        visible_alias = "globals",
        env = "RESTORE_GLOBALS",
        global = true,
        value_name = "NAME"
    )]
    pub(super) restore_globals: Option<String>,
    /// Take passwords from the globals, too [default: false]
    #[arg(long, visible_alias = "role-passwords", env = "RESTORE_ROLE_PASSWORDS", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_role_passwords: Option<String>,
    /// Demand that SQL text shows its completeness by pg_dump's end mark: true, of restores and verifications; false, of none; without it, verifications alone
    #[arg(long, visible_alias = "require-complete", env = "RESTORE_REQUIRE_COMPLETE", global = true, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) restore_require_complete: Option<String>,
    /// age identity that opens encrypted backups
    #[arg(
        long,
        env = "BACKUP_AGE_IDENTITY",
        global = true,
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(super) backup_age_identity: Option<String>,
    /// File with age identities, one a line
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
    /// File with the checks of the data (YAML; `schema checks` is its schema)
    #[arg(
        long,
        visible_alias = "checks",
        env = "VERIFY_CHECKS",
        global = true,
        value_name = "FILE"
    )]
    pub(super) verify_checks: Option<String>,
    /// Only new objects whose name begins with this are verified
    #[arg(long, env = "VERIFY_PREFIX", global = true, value_name = "PREFIX")]
    pub(super) verify_prefix: Option<String>,
    /// Only new objects whose name ends with one of these, separated by commas
    #[arg(long, env = "VERIFY_SUFFIX", global = true, value_name = "LIST")]
    pub(super) verify_suffix: Option<String>,
    /// Object that comes last in a folder of several objects and stands for it [default: toc.dat]
    #[arg(long, env = "VERIFY_MANIFEST", global = true, value_name = "NAME")]
    pub(super) verify_manifest: Option<String>,
    /// How long the other objects of a folder are waited for [default: 10m]
    #[arg(long, env = "VERIFY_SETTLE", global = true, value_name = "TIME")]
    pub(super) verify_settle: Option<String>,
    /// New backups older than the newest proven one of their set: skip or verify [default: skip]
    #[arg(long, env = "VERIFY_OLDER", global = true, value_name = "POLICY")]
    pub(super) verify_older: Option<String>,
    /// The newest backup of each set is verified when its newest proof is older than this; empty = off
    #[arg(long, env = "VERIFY_SCHEDULE", global = true, value_name = "TIME")]
    pub(super) verify_schedule: Option<String>,
    /// Older backups of each set that are verified with each scheduled one [default: 0]
    #[arg(long, env = "VERIFY_SAMPLE", global = true, value_name = "N")]
    pub(super) verify_sample: Option<String>,
    /// How often the worker tests its own verification on broken backups; empty = off
    #[arg(long, env = "VERIFY_SELFTEST", global = true, value_name = "TIME")]
    pub(super) verify_selftest: Option<String>,
    /// Older backups that are looked at to find the first bad one; 0 = off [default: 6]
    #[arg(long, env = "VERIFY_BISECT", global = true, value_name = "N")]
    pub(super) verify_bisect: Option<String>,
    /// Where evidence is written: empty = beside the backup, none, gs://bucket/prefix or file:///folder
    #[arg(long, env = "EVIDENCE_LOCATION", global = true, value_name = "PLACE")]
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
    /// Ed25519 public keys in PEM, one after the other: evidence that one of them signed counts, beside this worker's own
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
    /// Sets of backups that belong together: NAME=PREFIX, separated by commas [default: one for all]
    #[arg(long, env = "BACKUP_SETS", global = true, value_name = "LIST")]
    pub(super) backup_sets: Option<String>,
    /// Backups of each set that `prune` always keeps [default: 3]
    #[arg(long, env = "BACKUP_RETENTION_MIN", global = true, value_name = "N")]
    pub(super) backup_retention_min: Option<String>,
    /// Folder of sandboxes and their templates
    #[arg(long, env = "SANDBOX_DIR", global = true, value_name = "FOLDER")]
    pub(super) sandbox_dir: Option<String>,
    /// require: verify only where a sandbox is kept apart by namespaces; prefer: say so where it is not [default: prefer]
    #[arg(long, env = "SANDBOX_ISOLATION", global = true, value_name = "POLICY")]
    pub(super) sandbox_isolation: Option<String>,
    /// Server for verifications in place of sandboxes; never the target server
    #[arg(long, env = "SCRATCH_DB_HOST", global = true, value_name = "HOST")]
    pub(super) scratch_db_host: Option<String>,
    /// Its port [default: 5432]
    #[arg(long, env = "SCRATCH_DB_PORT", global = true, value_name = "PORT")]
    pub(super) scratch_db_port: Option<String>,
    /// Its role, which makes and drops databases [default: postgres]
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
    /// File that holds the password
    #[arg(
        long,
        env = "SCRATCH_DB_PASSWORD_FILE",
        global = true,
        value_name = "FILE"
    )]
    pub(super) scratch_db_password_file: Option<String>,
    /// As DB_SSLMODE
    #[arg(long, env = "SCRATCH_DB_SSLMODE", global = true, value_name = "MODE")]
    pub(super) scratch_db_sslmode: Option<String>,
    /// restricted: backups are loaded there by a role made for it, as far as DB roles can be made; full: by SCRATCH_DB_USER [default: restricted]
    #[arg(long, env = "SCRATCH_DB_TRUST", global = true, value_name = "TRUST")]
    pub(super) scratch_db_trust: Option<String>,
    /// /metrics, health and status [default: 127.0.0.1:9464]
    #[arg(long, env = "ADMIN_ADDR", global = true, value_name = "ADDR")]
    pub(super) admin_addr: Option<String>,
    /// Names by which the admin port may be asked, separated by commas, with * and ?; addresses, localhost and the machine's own name always may
    #[arg(long, env = "ADMIN_HOSTS", global = true, value_name = "NAMES")]
    pub(super) admin_hosts: Option<String>,
    /// Folders with PostgreSQL's binaries, separated by colons; else PATH and the usual folders
    #[arg(long, env = "PG_BINDIR", global = true, value_name = "FOLDERS")]
    pub(super) pg_bindir: Option<String>,
    /// Send traces by OTLP
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_ENDPOINT",
        global = true,
        value_name = "URL"
    )]
    pub(super) otel_exporter_otlp_endpoint: Option<String>,
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
        let args = flags
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}"));
        let parsed = <Flags as clap::Parser>::try_parse_from(
            std::iter::once("pgrestored".to_owned()).chain(args),
        );
        parsed.map(|f| f.raw).map_err(|e| e.to_string())
    }

    pub fn pg_bindir(&self) -> Vec<std::path::PathBuf> {
        set(&self.pg_bindir)
            .map(|dirs| std::env::split_paths(dirs).collect())
            .unwrap_or_default()
    }
}
