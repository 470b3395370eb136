//! Sessions on the target server: connecting (TLS by the documented modes, bounded retries), pipelined
//! statements, and the only mapping of SQLSTATE to a failure reason.

mod connections;
mod error_context;
mod errors;
mod facts;
mod first_contact;
mod membership;
mod message_bounds;
mod options;
mod quote;
mod session;
mod socket;
mod tls;

pub use connections::ServerConnections;
pub(crate) use error_context::names_running_function;
pub(crate) use errors::{kind_of_sqlstate, map_error_of_rows};
pub use errors::{map_pg_error, too_large};
pub use facts::ServerFacts;
pub(crate) use facts::plain_locale;
pub use first_contact::FirstContact;
pub use membership::{MEMBERSHIP_OPTIONS, membership_options};
pub use options::{DbConfig, PasswordSource, RoleRepair, SslMode, TlsFiles};
pub use quote::{ident, literal};
pub(crate) use session::own_setting;
pub use session::{AT_FIRST_WORD, Session};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::future::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::error::{DatabaseError, DatabaseKind as D};
use crate::retry::Backoff;
use message_bounds::{Bounded, BoundedTls, MessageBounds};
use socket::Socket;

/// What the comment of a database begins with in which an attempt at a restore works.
pub const MARKED: &str = "pgrestored staging database";
/// The server's version, the database's OID, whether the role has settings of its own here, and the hash of the database's
/// comment if that begins with [`MARKED`]. The comment itself is not read: it has the encoding of whichever database it was
/// written from, and may be anybody's. Under the collation C, it is compared byte by byte, also if it is no text here. The server runs this after [`AT_FIRST`], so that it finds nothing of a backup.
const IDENTITY: &str = "SELECT current_setting('server_version_num')::int4, d.oid,
        EXISTS (SELECT FROM pg_catalog.pg_db_role_setting JOIN pg_catalog.pg_roles r ON r.oid = setrole
            WHERE rolname = session_user AND setdatabase IN (0, d.oid)),
        CASE WHEN said.comment >= 'pgrestored staging database' AND said.comment < 'pgrestored staging databasf'
            THEN hashtextextended(said.comment, 0) END
    FROM pg_catalog.pg_database d, LATERAL (SELECT shobj_description(d.oid, 'pg_database') COLLATE \"C\" AS comment) AS said
    WHERE datname = current_database()";
/// The same hash of the comment of the database `$1`.
pub const HASH_OF_COMMENT: &str =
    "SELECT hashtextextended(shobj_description($1, 'pg_database') COLLATE \"C\", 0)";
/// Settings of the role or database under which no query of ours may run.
const AT_FIRST: &str = "SET statement_timeout = 0; SET search_path = pg_catalog";
/// The SQLSTATE of a connection to a database that does not exist.
pub const NO_DATABASE: &str = "3D000";
/// Longest pause between attempts to connect.
const MAX_PAUSE: Duration = Duration::from_secs(15);
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
    /// Issues the password of each login, if passwords expire.
    passwords: Option<Arc<dyn PasswordSource>>,
    /// Undoes what the role has done to itself.
    repair: Option<Arc<dyn RoleRepair>>,
    tls: Option<MakeRustlsConnect>,
    maintenance: Arc<str>,
    connect_budget: Duration,
    first_contact: Arc<FirstContact>,
    /// Whether a connection has succeeded; shared by all copies.
    is_reached: Arc<AtomicBool>,
    bound: Option<Bound>,
    bounds: MessageBounds,
}

/// A database identified by its OID, and by what its comment says as long as it is this attempt's.
#[derive(Clone)]
struct Bound {
    database: Arc<str>,
    oid: u32,
    mark: Option<AttemptMark>,
}

/// How the comment of a database shows which attempt may work in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttemptMark {
    /// Of the whole comment, as [`HASH_OF_COMMENT`] has it.
    pub hash: i64,
    /// Without the comment of an attempt, the database is nobody's to load into: it is the target by now. Elsewhere, whoever
    /// has changed the comment has taken nothing over.
    pub is_needed: bool,
}

/// What the error says of a database that has been taken over by another attempt.
const TAKEN_OVER: &str = "another attempt has taken it over";

impl Bound {
    /// Why a database with this OID, and this hash of the comment of an attempt, is not the one that is meant.
    fn refusal(&self, oid: u32, hash: Option<i64>) -> Option<&'static str> {
        if self.oid != oid {
            return Some("the database of this name is a different one");
        }
        let is_of_another = self.mark.is_some_and(|mark| match hash {
            Some(hash) => hash != mark.hash,
            None => mark.is_needed,
        });
        is_of_another.then_some(TAKEN_OVER)
    }
}

fn unanswered(database: &str, limit: Duration) -> DatabaseError {
    let what = format!("connecting to database {database}: no answer within {limit:?}");
    DatabaseError::new(D::Unavailable, what)
}

/// Whether the server rejects the role, or its password.
fn is_rejected_login(e: &DatabaseError) -> bool {
    e.sqlstate().is_some_and(|code| code.starts_with("28"))
}

/// Why there is no session.
struct NotOpened {
    error: DatabaseError,
    is_logged_in: bool,
}

impl From<DatabaseError> for NotOpened {
    /// The error of a login.
    fn from(error: DatabaseError) -> Self {
        NotOpened {
            error,
            is_logged_in: false,
        }
    }
}

impl NotOpened {
    fn after_login(error: DatabaseError) -> Self {
        NotOpened {
            error,
            is_logged_in: true,
        }
    }

    /// Whether changes of the role may be the reason. A server that is starting or full refuses logins of any role; a session
    /// may end by its own timeouts.
    fn may_be_the_roles(&self) -> bool {
        let e = &self.error;
        let is_the_servers = matches!(e.kind(), D::Unavailable | D::LocksExhausted);
        let is_said = e.sqlstate().is_some_and(|code| code != NO_DATABASE);
        is_said && (self.is_logged_in || !is_the_servers)
    }
}

/// Whether the server's name does not exist.
fn has_no_address(e: &DatabaseError) -> bool {
    e.to_string().contains(socket::NO_ADDRESS)
}

/// What the client itself does; the rest of a mode is up to the connector.
fn tokio_mode(mode: SslMode) -> tokio_postgres::config::SslMode {
    use tokio_postgres::config::SslMode as Tokio;
    match mode {
        SslMode::Disable => Tokio::Disable,
        SslMode::Prefer => Tokio::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Tokio::Require,
    }
}

impl Server {
    /// The server of this configuration; nothing connects yet.
    ///
    /// # Errors
    /// `access_denied` if certificates or a key cannot be used, or if passwords that expire would be sent without TLS.
    pub fn new(db: &DbConfig) -> Result<Self, DatabaseError> {
        if db.passwords.is_some() && !db.ssl_mode.requires_tls() {
            let mode = db.ssl_mode.as_str();
            let what = format!(
                "a password that expires is sent as it is, which sslmode {mode} does not encrypt"
            );
            return Err(DatabaseError::new(D::AccessDenied, what));
        }
        let mut config = tokio_postgres::Config::new();
        config.user(&db.user);
        if let Some(password) = &db.password {
            config.password(password.expose_secret());
        }
        config.ssl_mode(tokio_mode(db.ssl_mode));
        let tls = match db.ssl_mode {
            SslMode::Disable => None,
            mode => Some(tls::connector(mode, &db.tls)?),
        };
        Ok(Server {
            host: db.host.as_str().into(),
            port: db.port,
            config: Arc::new(config),
            passwords: db.passwords.clone(),
            repair: None,
            tls,
            maintenance: db.maintenance.as_str().into(),
            connect_budget: db.connect_budget,
            first_contact: Arc::new(db.first_contact.clone()),
            is_reached: Arc::default(),
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
            passwords: None,
            repair: None,
            ..self.clone()
        }
    }

    /// The same server, for a role that SQL of a backup runs as, and may therefore change: a login that the server refuses,
    /// or whose session has settings of the role, is tried again once after `repair`.
    pub fn repaired_by(&self, repair: Arc<dyn RoleRepair>) -> Self {
        Server {
            repair: Some(repair),
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
        self.pinned_to(database, oid, None)
    }

    /// The same, as long as the comment of that database is this attempt's: after another attempt has taken the database over,
    /// nothing of this one connects.
    pub fn pinned_to(&self, database: &str, oid: u32, mark: Option<AttemptMark>) -> Self {
        let database = database.into();
        Server {
            bound: Some(Bound {
                database,
                oid,
                mark,
            }),
            ..self.clone()
        }
    }

    /// A session on the maintenance database.
    ///
    /// # Errors
    /// As [`Server::connect`]; `access_denied` with the SQLSTATE 3D000 if there is no such database.
    pub async fn maintenance(&self, purpose: &str) -> Result<Session, DatabaseError> {
        let session = self.connect(&self.maintenance, purpose).await;
        session.map_err(|e| match e.sqlstate() {
            Some(NO_DATABASE) => {
                let what = format!("{e}: name a database of this server in DB_MAINTENANCE_NAME");
                DatabaseError::new(D::MaintenanceMissing, what).with_sqlstate(NO_DATABASE)
            }
            _ => e,
        })
    }

    /// A session on `database`; `purpose` is shown in `pg_stat_activity`. If the server is starting, full or
    /// unreachable, the connection is retried with backoff for the configured time, which may be shorter until
    /// one has succeeded ([`FirstContact`]).
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn connect(&self, database: &str, purpose: &str) -> Result<Session, DatabaseError> {
        match self.connect_in_time(database, purpose).await {
            Ok(session) => {
                self.is_reached.store(true, Relaxed);
                Ok(session)
            }
            Err(e) if self.is_reached.load(Relaxed) => Err(e),
            Err(e) => Err(self.first_contact.explain(e, &self.place())),
        }
    }

    /// Whether a connection has succeeded.
    pub fn is_reached(&self) -> bool {
        self.is_reached.load(Relaxed)
    }

    /// The address, for messages.
    fn place(&self) -> String {
        if self.host.starts_with('/') {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    async fn connect_in_time(
        &self,
        database: &str,
        purpose: &str,
    ) -> Result<Session, DatabaseError> {
        let is_reached = self.is_reached.load(Relaxed);
        let limit = self.first_contact.within.filter(|_| !is_reached);
        let started = tokio::time::Instant::now();
        let budget = limit.map_or(self.connect_budget, |l| l.min(self.connect_budget));
        let deadline = started + budget;
        let mut backoff = Backoff::new(
            Duration::from_millis(250),
            limit.map_or(MAX_PAUSE, |l| l / 5),
        );
        loop {
            let attempt = self.connect_once(database, purpose);
            let connected = match limit {
                // A host that drops packets must not exceed it.
                Some(limit) => tokio::time::timeout_at(started + limit, attempt)
                    .await
                    .unwrap_or_else(|_| Err(unanswered(database, limit))),
                None => attempt.await,
            };
            let (now, pause) = (tokio::time::Instant::now(), backoff.next_delay());
            let next = if limit.is_some() { now + pause } else { now };
            match connected {
                // Somebody waits, and most likely mistyped it.
                Err(e) if limit.is_some() && has_no_address(&e) => return Err(e),
                // Connecting takes few locks: if there is no room for them, others hold too many.
                Err(e)
                    if matches!(
                        e.kind(),
                        D::Unavailable | D::IssuerUnavailable | D::LocksExhausted
                    ) && next < deadline =>
                {
                    // Within a limit, somebody waits for the error itself.
                    if limit.is_none() {
                        tracing::warn!(error = %e, "connection to the target server failed, retrying");
                    }
                    tokio::time::sleep(pause).await;
                }
                // The pinned database is gone: a retry would reach another one of that name.
                Err(e) if self.bound.is_some() && e.sqlstate() == Some(NO_DATABASE) => {
                    let said = e.to_string();
                    let why = if said.ends_with(TAKEN_OVER) {
                        ""
                    } else {
                        ": another worker has replaced or dropped it"
                    };
                    return Err(DatabaseError::new(D::Unavailable, said + why));
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
        handshake.map_err(|e| DatabaseError::new(D::AccessDenied, format!("{what}: {e}")))
    }

    /// One attempt to connect; two if the role's own changes of itself are in the way.
    async fn connect_once(&self, database: &str, purpose: &str) -> Result<Session, DatabaseError> {
        let opened = self.open_session(database, purpose).await;
        let Some(repair) = &self.repair else {
            return opened.map(|(session, _)| session).map_err(|e| e.error);
        };
        match opened {
            Ok((session, has_settings)) if !has_settings => Ok(session),
            Err(e) if !e.may_be_the_roles() => Err(e.error),
            _ => {
                repair.repair().await;
                let opened = self.open_session(database, purpose).await;
                opened.map(|(session, _)| session).map_err(|e| e.error)
            }
        }
    }

    /// A new session, and whether it has settings of its role.
    async fn open_session(
        &self,
        database: &str,
        purpose: &str,
    ) -> Result<(Session, bool), NotOpened> {
        let what = format!("connecting to database {database}");
        let (client, driver) = self.log_in(database, purpose, &what).await?;
        // Both are sent at once, and run in this order.
        let asked = futures::future::try_join(
            client.batch_execute(AT_FIRST),
            client.query_one(IDENTITY, &[]),
        );
        let ((), row) = asked
            .await
            .map_err(|e| NotOpened::after_login(map_pg_error(&e, &what)))?;
        if let Some(why) = self.refusal(database, row.get(1), row.get(3)) {
            let what = format!("{what}: {why}");
            let e = DatabaseError::new(D::StatementRejected, what).with_sqlstate(NO_DATABASE);
            return Err(NotOpened::after_login(e));
        }
        let version = row.get::<_, i32>(0).unsigned_abs();
        let session = Session::new(client, version, driver);
        let own = session.run(&session.own_settings()).await;
        own.map_err(NotOpened::after_login)?;
        Ok((session, row.get(2)))
    }

    /// Why a database with this OID, and this hash of its comment, is not the one that `database` is pinned to.
    fn refusal(&self, database: &str, oid: u32, hash: Option<i64>) -> Option<&'static str> {
        let bound = self.bound.as_ref();
        let bound = bound.filter(|bound| *bound.database == *database);
        bound.and_then(|bound| bound.refusal(oid, hash))
    }

    /// Opens a connection, with the current password if passwords expire. One that the server rejects is replaced once: it
    /// may have expired earlier than this machine's clock says.
    async fn log_in(
        &self,
        database: &str,
        purpose: &str,
        what: &str,
    ) -> Result<(Client, AbortOnDropHandle<()>), DatabaseError> {
        let Some(source) = &self.passwords else {
            return self.open(database, purpose, what, None).await;
        };
        let current = source.password(None).await?;
        let refusal = match self.open(database, purpose, what, Some(&current)).await {
            Err(e) if is_rejected_login(&e) => e,
            other => return other,
        };
        let newer = source.password(Some(&current)).await?;
        if newer.expose_secret() == current.expose_secret() {
            return Err(refusal);
        }
        self.open(database, purpose, what, Some(&newer)).await
    }

    async fn open(
        &self,
        database: &str,
        purpose: &str,
        what: &str,
        password: Option<&SecretString>,
    ) -> Result<(Client, AbortOnDropHandle<()>), DatabaseError> {
        let mut config = (*self.config).clone();
        if let Some(password) = password {
            config.password(password.expose_secret());
        }
        config.dbname(database);
        config.application_name(format!("pgrestored {purpose}"));
        let socket = socket::connect(&self.host, self.port).await.map_err(|e| {
            let what = format!("{what}: error connecting to server: {e}");
            DatabaseError::new(D::Unavailable, what)
        })?;
        let socket = Bounded::new(socket, self.bounds, self.tls.is_some());
        // This task owns the socket; aborting it closes the connection.
        macro_rules! open {
            ($tls:expr) => {{
                let opened = config.connect_raw(socket, $tls).await;
                let (client, connection) = opened.map_err(|e| map_pg_error(&e, what))?;
                let driver = AbortOnDropHandle::new(tokio::spawn(connection.map(drop)));
                Ok((client, driver))
            }};
        }
        match &self.tls {
            Some(tls) => open!(BoundedTls {
                tls: self.handshake(tls, what)?,
                bounds: self.bounds
            }),
            None => open!(NoTls),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;

    use super::*;

    /// The settings of a server that does not exist: no resolver is asked for a name with an empty label.
    fn nowhere() -> DbConfig {
        DbConfig {
            host: "no..host".into(),
            port: 5432,
            user: "postgres".into(),
            password: None,
            passwords: None,
            ssl_mode: SslMode::Disable,
            tls: TlsFiles::default(),
            maintenance: "postgres".into(),
            connect_budget: Duration::from_secs(60),
            first_contact: FirstContact::default(),
        }
    }

    #[derive(Debug)]
    struct Tokens;

    impl PasswordSource for Tokens {
        fn password<'a>(
            &'a self,
            _rejected: Option<&'a SecretString>,
        ) -> BoxFuture<'a, Result<SecretString, DatabaseError>> {
            async { Ok(SecretString::from("token".to_owned())) }.boxed()
        }
    }

    #[test]
    fn passwords_that_expire_are_sent_only_with_tls() {
        for (ssl_mode, is_accepted) in [
            (SslMode::Disable, false),
            (SslMode::Prefer, false),
            (SslMode::Require, true),
        ] {
            let server = Server::new(&DbConfig {
                passwords: Some(Arc::new(Tokens)),
                ssl_mode,
                ..nowhere()
            });
            let kind = server.err().map(|e| e.kind());
            let refused = (!is_accepted).then_some(D::AccessDenied);
            assert_eq!(kind, refused, "{ssl_mode:?}");
        }
    }

    /// A database keeps its OID while attempt after attempt continues in it.
    #[test]
    fn a_pinned_database_is_that_of_this_attempt() {
        let server = Server::new(&nowhere()).unwrap();
        let by_oid = server.pinned_to_oid("d", 5);
        let marked = |is_needed| {
            let mark = AttemptMark {
                hash: 17,
                is_needed,
            };
            server.pinned_to("d", 5, Some(mark))
        };
        let (beside, in_place) = (marked(false), marked(true));
        let different = Some("the database of this name is a different one");
        for (server, database, oid, hash, refusal) in [
            (&server, "d", 6, None, None),
            (&by_oid, "d", 5, None, None),
            (&by_oid, "d", 5, Some(2), None),
            (&by_oid, "d", 6, None, different),
            (&by_oid, "e", 6, None, None),
            (&beside, "d", 5, Some(17), None),
            (&beside, "d", 5, Some(-17), Some(TAKEN_OVER)),
            // Somebody else's comment says nothing of attempts.
            (&beside, "d", 5, None, None),
            (&beside, "d", 6, Some(17), different),
            (&beside, "e", 6, None, None),
            (&in_place, "d", 5, Some(17), None),
            (&in_place, "d", 5, Some(-17), Some(TAKEN_OVER)),
            // It is the target by now.
            (&in_place, "d", 5, None, Some(TAKEN_OVER)),
        ] {
            assert_eq!(server.refusal(database, oid, hash), refusal, "{hash:?}");
        }
        assert!(IDENTITY.contains(&format!("'{MARKED}'")));
    }

    /// Whoever waits learns at once that the name is wrong; a worker tries again, because the name may be new.
    #[tokio::test(start_paused = true)]
    async fn a_host_that_does_not_exist_is_tried_again_only_by_a_worker() {
        let tried_for = async |within: Option<Duration>| {
            let server = Server::new(&DbConfig {
                first_contact: FirstContact {
                    within,
                    address: "DB_HOST".into(),
                    ..FirstContact::default()
                },
                ..nowhere()
            });
            let begun = tokio::time::Instant::now();
            let e = server.unwrap().maintenance("test").await.err().unwrap();
            assert_eq!(e.kind(), D::Unavailable);
            let said = e.to_string();
            assert!(said.contains(socket::NO_ADDRESS), "{said}");
            assert!(said.ends_with("; check DB_HOST"), "{said}");
            begun.elapsed()
        };
        assert_eq!(
            tried_for(Some(Duration::from_millis(4500))).await,
            Duration::ZERO
        );
        assert!(tried_for(None).await > Duration::from_secs(30));
    }
}
