//! Sessions on the target server: connecting (TLS by the documented modes, bounded retries), pipelined
//! statements, and the only mapping of SQLSTATE to a [`FailureReason`].

mod bounded;
mod context;
mod options;
mod socket;
mod tls;

pub use options::{DbConfig, SslMode, TlsFiles};

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{FutureExt, maybe_done};
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, RowStream};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{DatabaseError, FailureReason as R, one_line};
use crate::retry::Backoff;
use bounded::{Bounded, BoundedTls, MessageBounds, TOO_LARGE};
use socket::Socket;

/// Statements from this size on are not kept in memory while the server runs them.
const LARGE: usize = 1 << 20;
const NO_DATABASE: &str = "3D000";
/// Default limit in bytes of a row that is read.
const MAX_ROW: usize = 64 << 20;
/// Default limit in bytes of all rows of one result.
const MAX_ROWS: usize = 64 << 20;

/// A PostgreSQL server and how to log in to it. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    /// A host name, an IP address, or the directory of a Unix socket.
    host: Arc<str>,
    port: u16,
    config: Arc<tokio_postgres::Config>,
    tls: Option<MakeRustlsConnect>,
    maintenance: Arc<str>,
    connect_budget: Duration,
    /// A database identified by its OID.
    bound: Option<(Arc<str>, u32)>,
    bounds: MessageBounds,
}

/// One connection. Dropping it closes the connection, and the server rolls back an open transaction.
pub struct Session {
    client: Client,
    version: u32,
    _driver: tokio_util::task::AbortOnDropHandle<()>,
}

impl Server {
    pub fn new(db: &DbConfig) -> Result<Self, DatabaseError> {
        let mut config = tokio_postgres::Config::new();
        config.user(&db.user);
        if let Some(password) = &db.password {
            config.password(password.expose_secret());
        }
        let tls = match db.ssl_mode {
            SslMode::Disable => None,
            mode => Some(tls::connector(mode, &db.tls)?),
        };
        config.ssl_mode(match db.ssl_mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                tokio_postgres::config::SslMode::Require
            }
        });
        Ok(Server {
            host: db.host.as_str().into(),
            port: db.port,
            config: Arc::new(config),
            tls,
            maintenance: db.maintenance.as_str().into(),
            connect_budget: db.connect_budget,
            bound: None,
            bounds: MessageBounds {
                max_row: MAX_ROW,
                max_rows: MAX_ROWS,
                discards_rows: false,
            },
        })
    }

    /// The role that every session logs in as.
    pub fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The same server with another role.
    pub fn as_role(&self, user: &str, password: Option<SecretString>) -> Self {
        let mut config = tokio_postgres::Config::new();
        config.clone_from(&self.config);
        config.user(user);
        // The role's own password or none, never another role's.
        config.password(password.as_ref().map_or("", |p| p.expose_secret()));
        Server {
            config: Arc::new(config),
            ..self.clone()
        }
    }

    /// The same server with another limit in bytes of one row that is read, and of all rows of one result;
    /// larger ones are errors.
    pub fn with_max_row(&self, bytes: usize) -> Self {
        Server {
            bounds: MessageBounds {
                max_row: bytes,
                max_rows: bytes,
                ..self.bounds
            },
            ..self.clone()
        }
    }

    /// The same server for sessions that read rows one by one ([`Session::rows`]) instead of collecting them. Only
    /// the size of each row is limited.
    pub fn streaming_rows(&self) -> Self {
        Server {
            bounds: MessageBounds {
                max_rows: usize::MAX,
                ..self.bounds
            },
            ..self.clone()
        }
    }

    /// Limit in bytes of what is collected from a database, such as all rows of one result.
    pub fn max_rows(&self) -> usize {
        self.bounds.max_rows
    }

    /// The same server for sessions that run statements of a dump, whose result rows nobody reads.
    pub(crate) fn discarding_rows(&self) -> Self {
        Server {
            bounds: MessageBounds {
                discards_rows: true,
                ..self.bounds
            },
            ..self.clone()
        }
    }

    /// The same server without connection retries.
    pub fn without_retry(&self) -> Self {
        Server {
            connect_budget: Duration::ZERO,
            ..self.clone()
        }
    }

    /// The same server, with `database` pinned to the database that has `oid`: after another worker has replaced
    /// that database, nothing touches the new one of the same name.
    pub fn pinned_to_oid(&self, database: &str, oid: u32) -> Self {
        Server {
            bound: Some((database.into(), oid)),
            ..self.clone()
        }
    }

    /// A session on the maintenance database.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn maintenance(&self, purpose: &str) -> Result<Session, DatabaseError> {
        self.connect(&self.maintenance, purpose).await
    }

    /// A session on `database`; `purpose` is shown in `pg_stat_activity`. If the server is starting, full or
    /// unreachable, the connection is retried with backoff for the configured time.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn connect(&self, database: &str, purpose: &str) -> Result<Session, DatabaseError> {
        let deadline = tokio::time::Instant::now() + self.connect_budget;
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(15));
        loop {
            match self.connect_once(database, purpose).await {
                Err(e)
                    if e.reason() == R::TargetUnavailable
                        && tokio::time::Instant::now() < deadline =>
                {
                    tracing::warn!(error = %e, "connection to the target server failed, retrying");
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                // The pinned database is gone: a retry would reach another one of that name.
                Err(e) if self.bound.is_some() && e.sqlstate() == Some(NO_DATABASE) => {
                    return Err(DatabaseError::new(
                        R::TargetUnavailable,
                        format!("{e}: another worker has replaced or dropped it"),
                    ));
                }
                other => return other,
            }
        }
    }

    fn handshake(
        &self,
        tls: &MakeRustlsConnect,
        what: &str,
    ) -> Result<<MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect, DatabaseError> {
        let handshake = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls.clone(), &self.host);
        handshake.map_err(|e| DatabaseError::new(R::AccessDenied, format!("{what}: {e}")))
    }

    async fn connect_once(&self, database: &str, purpose: &str) -> Result<Session, DatabaseError> {
        let mut config = (*self.config).clone();
        config
            .dbname(database)
            .application_name(format!("pgrestored {purpose}"));
        let what = format!("connecting to database {database}");
        let socket = socket::connect(&self.host, self.port).await.map_err(|e| {
            DatabaseError::new(
                R::TargetUnavailable,
                format!("{what}: error connecting to server: {e}"),
            )
        })?;
        let socket = Bounded::new(socket, self.bounds, self.tls.is_some());
        // This task owns the socket; aborting it closes the connection.
        macro_rules! open {
            ($tls:expr) => {{
                let (client, connection) = config
                    .connect_raw(socket, $tls)
                    .await
                    .map_err(|e| map_pg_error(&e, &what))?;
                (client, tokio::spawn(connection.map(drop)))
            }};
        }
        let (client, driver) = match &self.tls {
            Some(tls) => open!(BoundedTls {
                tls: self.handshake(tls, &what)?,
                bounds: self.bounds
            }),
            None => open!(NoTls),
        };
        let driver = tokio_util::task::AbortOnDropHandle::new(driver);
        let row = client
            .query_one(
                "SELECT current_setting('server_version_num')::int4, oid FROM pg_database WHERE datname = current_database()",
                &[],
            )
            .await
            .map_err(|e| map_pg_error(&e, &what))?;
        if self
            .bound
            .as_ref()
            .is_some_and(|(name, oid)| **name == *database && *oid != row.get::<_, u32>(1))
        {
            return Err(DatabaseError::new(
                R::RestoreError,
                format!("{what}: the database of this name is a different one"),
            )
            .with_sqlstate(NO_DATABASE));
        }
        let version = row.get::<_, i32>(0).unsigned_abs();
        let session = Session {
            client,
            version,
            _driver: driver,
        };
        session.run(&session.own_settings()).await?;
        Ok(session)
    }
}

/// What a server provides that a dump may need.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// `server_version_num`, such as 150018.
    pub version: u32,
    /// CPU cores that the server may use; `None` if unknown.
    pub cores: Option<usize>,
    /// The role of the session.
    pub user: String,
    pub is_superuser: bool,
    pub may_create_roles: bool,
    pub roles: BTreeSet<String>,
    /// Roles that this role can make owners of objects.
    pub may_become: BTreeSet<String>,
    pub tablespaces: BTreeSet<String>,
    /// Extensions that can be created.
    pub extensions: BTreeSet<String>,
    /// Those of them that need no superuser.
    pub trusted_extensions: BTreeSet<String>,
    /// Available extensions that this role may not create.
    pub untrusted_extensions: BTreeSet<String>,
    /// Available extensions that cannot be created in the database to be restored, and why.
    pub unusable_extensions: BTreeMap<String, String>,
    /// The database that pg_cron runs in; empty if the server does not load it, `None` if this role may not
    /// see the setting.
    pub cron_database: Option<String>,
    pub access_methods: BTreeSet<String>,
    /// Index access methods.
    pub index_methods: BTreeSet<String>,
    /// Whether the server is built with ICU.
    pub has_icu: bool,
    /// Whether the server is built with lz4 for column compression.
    pub has_lz4: bool,
    /// The operating system's locales, in lower case and without hyphens.
    pub locales: BTreeSet<String>,
}

/// Build options of a server. `initdb` adds ICU's own collations if the server has ICU.
const BUILT: &str = "SELECT 'index ' || amname FROM pg_am WHERE amtype = 'i'
    UNION ALL SELECT 'icu' WHERE EXISTS (SELECT FROM pg_collation WHERE collname LIKE '%-x-icu')
    UNION ALL SELECT 'lz4' FROM pg_settings WHERE name = 'default_toast_compression' AND 'lz4' = ANY(enumvals)";

/// The view lacks settings that a role may not see.
const CRON_DATABASE: &str = "SELECT setting FROM pg_settings WHERE name = 'cron.database_name'
    UNION ALL SELECT '' WHERE pg_has_role('pg_read_all_settings', 'USAGE')
      AND NOT EXISTS (SELECT FROM pg_settings WHERE name = 'cron.database_name')";

/// Normalizes a locale name: `en_US.UTF-8` and `en_US.utf8` are the same.
pub fn plain_locale(name: &str) -> String {
    name.to_lowercase().replace('-', "")
}

impl Session {
    /// Queries the facts of the whole server; any database will do.
    ///
    /// # Errors
    /// `target_unavailable`, or the server's error.
    pub async fn facts(&self) -> Result<ServerFacts, DatabaseError> {
        // Since 16, membership alone no longer allows assigning ownership.
        let how = if self.version >= 160000 {
            "SET"
        } else {
            "MEMBER"
        };
        let member = format!("SELECT rolname::text FROM pg_roles WHERE pg_has_role(oid, '{how}')");
        let me = async {
            let sql = "SELECT current_user::text, rolsuper, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user";
            self.client
                .query_one(sql, &[])
                .await
                .map_err(|e| map_pg_error(&e, "querying the server"))
        };
        // Pipelined: none of these queries depends on another.
        let (me, cores, roles, may_become, tablespaces, extensions, trusted_extensions, access_methods, locales, cron, built) = tokio::try_join!(
            me,
            self.cores().map(Ok),
            self.names("SELECT rolname::text FROM pg_roles"),
            self.names(&member),
            self.names("SELECT spcname::text FROM pg_tablespace"),
            self.names("SELECT name::text FROM pg_available_extensions"),
            self.names("SELECT DISTINCT name::text FROM pg_available_extension_versions WHERE trusted OR NOT superuser"),
            self.names("SELECT amname::text FROM pg_am WHERE amtype = 't'"),
            self.names("SELECT collcollate::text FROM pg_collation WHERE collprovider IN ('c', 'd') AND collcollate <> ''"),
            self.names(CRON_DATABASE),
            self.names(BUILT),
        )?;
        Ok(ServerFacts {
            version: self.version,
            cores,
            user: me.get(0),
            is_superuser: me.get(1),
            may_create_roles: me.get(2),
            roles,
            may_become,
            tablespaces,
            extensions,
            trusted_extensions,
            untrusted_extensions: BTreeSet::new(),
            unusable_extensions: BTreeMap::new(),
            cron_database: cron.into_iter().next(),
            access_methods,
            index_methods: built
                .iter()
                .filter_map(|b| b.strip_prefix("index ").map(str::to_owned))
                .collect(),
            has_icu: built.contains("icu"),
            has_lz4: built.contains("lz4"),
            locales: locales.iter().map(|l| plain_locale(l)).collect(),
        })
    }

    /// The cores of a server on this machine are known; those of another are visible to privileged roles only.
    async fn cores(&self) -> Option<usize> {
        const LOCAL: &str = "SELECT coalesce(inet_server_addr() = inet_client_addr(), true)";
        const CPUS: &str = "SELECT count(*) FROM regexp_split_to_table(pg_read_file('/proc/cpuinfo'), E'\\n') l WHERE l LIKE 'processor%'";
        const QUOTA: &str = "SELECT ceil(q::numeric / p::numeric)::int8 FROM (SELECT split_part(c, ' ', 1) q, split_part(c, ' ', 2) p FROM pg_read_file('/sys/fs/cgroup/cpu.max', true) c) x WHERE q ~ '^[0-9]+$'";
        if self.client.query_one(LOCAL, &[]).await.ok()?.get(0) {
            return std::thread::available_parallelism().ok().map(usize::from);
        }
        let cpus: i64 = self.client.query_one(CPUS, &[]).await.ok()?.get(0);
        let quota = self
            .client
            .query_opt(QUOTA, &[])
            .await
            .ok()
            .flatten()
            .map(|row| row.get::<_, i64>(0));
        usize::try_from(quota.map_or(cpus, |q| q.min(cpus)))
            .ok()
            .filter(|n| *n > 0)
    }

    async fn names(&self, sql: &str) -> Result<BTreeSet<String>, DatabaseError> {
        let rows = self
            .client
            .query(sql, &[])
            .await
            .map_err(|e| map_pg_error(&e, "querying the server"))?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// `server_version_num`, such as 150018.
    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a query and returns its rows one by one. On a session of [`Server::streaming_rows`], there may be any
    /// number of them.
    ///
    /// # Errors
    /// The server's error.
    pub async fn rows(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Pin<Box<RowStream>>, tokio_postgres::Error> {
        let values = values.iter().copied();
        self.client.query_raw(sql, values).await.map(Box::pin)
    }

    /// Session settings that defaults of a role or database must not change.
    fn own_settings(&self) -> String {
        let mut s = String::from(
            "SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
             SET search_path = pg_catalog; SET client_min_messages = warning;",
        );
        // The server notices a vanished worker and ends its sessions, which releases their locks.
        s.push_str(
            "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;",
        );
        if self.version >= 140000 {
            s.push_str("SET client_connection_check_interval = '1s';");
        }
        if self.version >= 170000 {
            s.push_str("SET transaction_timeout = 0;");
        }
        s
    }

    /// Runs one or more statements without parameters.
    ///
    /// # Errors
    /// The server's error, without row data.
    pub async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|e| map_pg_error(&e, "statement"))
    }

    /// Runs statements pipelined: each is sent without waiting for the previous one.
    ///
    /// # Errors
    /// The index of the first statement that failed, and its error.
    pub async fn pipeline_of(&self, statements: Vec<String>) -> Result<(), (usize, DatabaseError)> {
        let mut begun = 0;
        let mut small: Vec<String> = vec![];
        for sql in statements {
            if sql.len() < LARGE {
                small.push(sql);
                continue;
            }
            self.pipeline(&small)
                .await
                .map_err(|(at, e)| (begun + at, e))?;
            begun += small.len();
            small.clear();
            self.send(sql).await.map_err(|e| (begun, e))?;
            begun += 1;
        }
        self.pipeline(&small)
            .await
            .map_err(|(at, e)| (begun + at, e))
    }

    /// Runs one large statement, whose text is dropped as soon as it is sent.
    async fn send(&self, sql: String) -> Result<(), DatabaseError> {
        use futures::TryStreamExt;
        let answers = self.client.simple_query_raw(&sql).await;
        drop(sql);
        let answers = answers.map_err(|e| map_pg_error(&e, "statement"))?;
        let done = std::pin::pin!(answers)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await;
        done.map_err(|e| map_pg_error(&e, "statement"))
    }

    /// Runs statements whose text is kept.
    pub async fn pipeline(&self, statements: &[String]) -> Result<(), (usize, DatabaseError)> {
        let mut sent: Vec<_> = statements
            .iter()
            .map(|s| Box::pin(maybe_done(self.client.batch_execute(s))))
            .collect();
        for request in &mut sent {
            // The first poll sends the request, which keeps the order; its result is awaited below.
            let _ = futures::poll!(request.as_mut());
        }
        for (i, request) in sent.iter_mut().enumerate() {
            request.as_mut().await;
            if let Some(Err(e)) = request.as_mut().take_output() {
                return Err((i, map_pg_error(&e, "statement")));
            }
        }
        Ok(())
    }
}

/// Maps PostgreSQL's error. DETAIL, HINT and CONTEXT are dropped, and so is the message of class 22,
/// because they quote row values.
pub fn map_pg_error(e: &tokio_postgres::Error, what: &str) -> DatabaseError {
    let Some(db) = e.as_db_error() else {
        let text = crate::error::report(e);
        // Errors that need a change of the worker's configuration; everything else may be temporary.
        let ours = [
            "password missing",
            "invalid configuration",
            "invalid peer certificate",
            "server does not support TLS",
        ];
        let reason = match &text {
            t if ours.iter().any(|o| t.contains(o)) => R::AccessDenied,
            // The statement has a NUL byte: sending it would fail every time.
            t if t.contains("error encoding message to server") => R::RestoreError,
            _ => R::TargetUnavailable,
        };
        return DatabaseError::new(reason, format!("{what}: {text}"));
    };
    let code = db.code().code();
    let message = match &code[..2] {
        // Messages about locales quote no rows.
        "22" if !is_of_the_build(db.message()) => "a value was rejected".to_owned(),
        _ => one_line(db.message()),
    };
    let table = match (db.schema(), db.table()) {
        (Some(s), Some(t)) => format!(" (table {s}.{t})"),
        _ => String::new(),
    };
    let context = context::of(db);
    DatabaseError::new(
        reason_of(code, db.message()),
        format!("{what}: {message}{table} [{code}]{context}"),
    )
    .with_sqlstate(code)
}

/// The error for what takes more memory than this worker may use for it.
pub fn too_large(what: &str, max: usize) -> DatabaseError {
    let most = max >> 20;
    DatabaseError::new(
        R::ArchiveUnsupported,
        format!(
            "{what} take more than {most} MiB: give this worker more memory (its container's limit, or RESTORE_MEMORY_MIB)"
        ),
    )
    .with_sqlstate(TOO_LARGE)
}

/// Maps every SQLSTATE to exactly one reason; those not listed are the target's rejection of the restore.
fn reason_of(code: &str, message: &str) -> R {
    match code {
        TOO_LARGE => R::ArchiveUnsupported,
        "42501" => R::InsufficientPrivilege,
        "53100" => R::InsufficientSpace,
        "42704" if message.starts_with("role ") => R::RoleMissing,
        "42704" if message.starts_with("unrecognized configuration parameter") => {
            R::VersionIncompatible
        }
        "0A000" | "58P01" if message.contains("extension") => R::ExtensionMissing,
        // `$libdir/…`: the library of an extension that is not installed.
        "58P01" if message.starts_with("could not access file") => R::ExtensionMissing,
        _ if is_of_the_build(message) => R::VersionIncompatible,
        "55P03" | "40P01" | "40001" | "25006" | "53200" | "53300" | "53400" | "57014" => {
            R::TargetUnavailable
        }
        _ => match &code[..2] {
            "28" => R::AccessDenied,
            "08" | "57" => R::TargetUnavailable,
            "22" | "23" => R::DataRejected,
            _ => R::RestoreError,
        },
    }
}

/// Whether an error says that the server was built without something, or that its host lacks a locale.
fn is_of_the_build(message: &str) -> bool {
    let begins = [
        "could not create locale",
        "could not open collator",
        "collation \"pg_catalog.",
        "invalid locale name",
    ];
    let has = [
        "not supported in this build",
        "not supported by this build",
        "ICU locale \"",
        "unsupported XML feature",
    ];
    begins.iter().any(|b| message.starts_with(b))
        || has.iter().any(|h| message.contains(h))
        || message.starts_with("compression method ") && message.ends_with(" not supported")
}

/// `name` as an identifier, always quoted.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a string constant that does not depend on `standard_conforming_strings`.
pub fn literal(text: &str) -> String {
    if text.contains('\\') {
        format!(" E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
    } else {
        format!("'{}'", text.replace('\'', "''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_map_to_one_reason() {
        for (code, message, reason) in [
            ("42501", "permission denied", R::InsufficientPrivilege),
            ("53100", "could not extend file", R::InsufficientSpace),
            ("42704", "role \"x\" does not exist", R::RoleMissing),
            (
                "42704",
                "unrecognized configuration parameter \"x\"",
                R::VersionIncompatible,
            ),
            ("42704", "type \"x\" does not exist", R::RestoreError),
            (
                "0A000",
                "extension \"x\" is not available",
                R::ExtensionMissing,
            ),
            (
                "58P01",
                "could not open extension control file",
                R::ExtensionMissing,
            ),
            ("0A000", "cannot do that", R::RestoreError),
            (
                "58P01",
                "could not access file \"$libdir/postgis-3\": No such file or directory",
                R::ExtensionMissing,
            ),
            (
                "0A000",
                "ICU is not supported in this build",
                R::VersionIncompatible,
            ),
            (
                "0A000",
                "compression method lz4 not supported",
                R::VersionIncompatible,
            ),
            (
                "22023",
                "could not create locale \"de_DE.utf8\": No such file",
                R::VersionIncompatible,
            ),
            (
                "42704",
                "collation \"pg_catalog.de_DE\" for encoding \"UTF8\" does not exist",
                R::VersionIncompatible,
            ),
            (
                "42704",
                "collation \"s.mine\" for encoding \"UTF8\" does not exist",
                R::RestoreError,
            ),
            ("22023", "invalid value for parameter", R::DataRejected),
            (
                "55P03",
                "canceling statement due to lock timeout",
                R::TargetUnavailable,
            ),
            ("53300", "too many connections", R::TargetUnavailable),
            ("57P01", "terminating connection", R::TargetUnavailable),
            ("08006", "connection failure", R::TargetUnavailable),
            ("28P01", "password authentication failed", R::AccessDenied),
            ("22P02", "invalid input syntax", R::DataRejected),
            ("23505", "duplicate key", R::DataRejected),
            ("XX001", "invalid page", R::RestoreError),
        ] {
            assert_eq!(reason_of(code, message), reason, "{code} {message}");
        }
    }

    /// The error that a client reports if the server greets with `hello` and answers `sql` with `words`.
    async fn answered(hello: &[u8], sql: &str, words: &[u8]) -> DatabaseError {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(hello).await.unwrap();
        let config = "user=u dbname=d".parse::<tokio_postgres::Config>().unwrap();
        let error = match config.connect_raw(ours, tokio_postgres::NoTls).await {
            Err(e) => e,
            Ok((client, connection)) => {
                tokio::spawn(connection);
                let mut heard = [0; 1024];
                assert!(theirs.read(&mut heard).await.unwrap() > 0);
                let server = async {
                    assert!(theirs.read(&mut heard).await.unwrap() > 0);
                    theirs.write_all(words).await.unwrap();
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    answer = client.batch_execute(sql) => answer.unwrap_err(),
                    () = server => unreachable!(),
                }
            }
        };
        map_pg_error(&error, "what")
    }

    fn refusal(fields: &[&str]) -> Vec<u8> {
        let fields: Vec<u8> = fields
            .iter()
            .flat_map(|f| f.bytes().chain([0]))
            .chain([0])
            .collect();
        [
            b"E",
            &u32::try_from(fields.len() + 4).unwrap().to_be_bytes()[..],
            &fields,
        ]
        .concat()
    }

    #[tokio::test]
    async fn server_errors_are_mapped_without_row_values() {
        const HELLO: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        let value = refusal(&[
            "SERROR",
            "C22P02",
            "Mnot a number: \"secret\"",
            "Dsecret",
            "ss",
            "tt",
        ]);
        let e = answered(HELLO, "SELECT 1", &value).await;
        assert_eq!(
            e.to_string(),
            "what: a value was rejected (table s.t) [22P02]"
        );
        let right = refusal(&["SERROR", "C42501", "Mmay not", "Dsecret", "ts"]);
        let e = answered(HELLO, "SELECT 1", &right).await;
        assert_eq!(e.to_string(), "what: may not [42501]");
        // Errors of the client itself: a text that cannot be sent, a missing password, a broken message.
        assert_eq!(
            answered(HELLO, "SELECT '\0'", b"").await.reason(),
            R::RestoreError
        );
        assert_eq!(
            answered(b"R\0\0\0\x08\0\0\0\x03", "", b"").await.reason(),
            R::AccessDenied
        );
        assert_eq!(
            answered(b"?\0\0\0\x04", "", b"").await.reason(),
            R::TargetUnavailable
        );
    }

    #[test]
    fn identifiers_and_literals_are_quoted() {
        assert_eq!(ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(literal("a'b"), "'a''b'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
