//! The staging database: created from `template0`, named after its request, dropped by force.

use super::held_objects::remove_blockers;
use super::names::{label, staging_name};
use super::recorded_restore::RecordedRestore;
use super::target_lock::TargetLock;
use pgdump_restore::{DatabaseOptions, Loaded};

use crate::backup::ProvenBytes;
use crate::error::{DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind};
use crate::postgres::{
    AttemptMark, HASH_OF_COMMENT, Server, Session, ident, literal, map_pg_error,
};
use crate::steps::reached;
use pgdump_archive::{TextEncoding, TocEntry};

/// Prefix of the notes about a database whose locale differs from the dump's.
pub const OTHER_LOCALE: &str = "the dump's locale is not on this server";

/// Encoding and locale of a database, as `CREATE DATABASE` takes them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateOptions {
    /// The database to copy, instead of creating an empty one.
    template: Option<String>,
    encoding: Option<String>,
    /// Keyword and value, such as `LOCALE` and `C.UTF-8`.
    locale: Vec<(&'static str, String)>,
    /// Copy the template's files instead of writing them to the WAL (`STRATEGY file_copy`).
    by_files: bool,
}

/// A database that only its restore uses until it is swapped in.
#[derive(Debug)]
pub struct Staging {
    pub name: String,
    pub oid: u32,
    /// How it differs from what the dump says.
    pub notes: Vec<String>,
    /// Whether it takes over the properties of the database that it replaces. A retained database keeps its own.
    pub(super) is_new: bool,
    /// It already has the target's name.
    pub(super) is_in_place: bool,
    /// Statements to run in the swap's transaction.
    pub(super) at_end: Vec<String>,
    /// The database's comment, which names the attempt that may work in it; `None` if no work is recorded there.
    pub(super) mark: Option<AttemptMark>,
}

impl Staging {
    pub(super) fn named(name: &str) -> Self {
        Staging {
            name: name.to_owned(),
            oid: 0,
            notes: vec![],
            is_new: true,
            is_in_place: false,
            at_end: vec![],
            mark: None,
        }
    }

    /// `server`, with the database's name pinned to this database's OID, and to the attempt that may work in it.
    pub fn on(&self, server: &Server) -> Server {
        server.pinned_to(&self.name, self.oid, self.mark)
    }
}

/// A database that may be swapped in: it contains a backup whose every byte matched the store, or it has been the
/// target before. Only what a person vouches for can be swapped in without that.
#[derive(Debug)]
pub struct ProvenStaging(Staging);

/// A database that nothing proves, and that a person wants to be swapped in all the same.
#[derive(Debug)]
pub(super) struct VouchedStaging(Staging);

impl Staging {
    /// Its owner. Without a database that it replaces, whose owner it gets, the swap says so.
    pub(super) fn belongs_to(&mut self, owner: &str, is_first: bool) {
        if is_first {
            self.at_end.push(format!(
                "ALTER DATABASE {} OWNER TO {}",
                ident(&self.name),
                ident(owner)
            ));
        }
    }

    /// Marks it as proven. The arguments prove that the whole backup was loaded and that its bytes match the store.
    pub fn proven(self, _everything: Loaded, _every_byte: ProvenBytes) -> ProvenStaging {
        ProvenStaging(self)
    }

    /// Marks a retained database as proven; the restore that created it proved it.
    pub(super) fn proven_before(self) -> ProvenStaging {
        ProvenStaging(self)
    }

    /// Marks the result of an earlier restore as proven. The argument shows that the restore proved it.
    pub(super) fn proven_by(self, _restore: &RecordedRestore) -> ProvenStaging {
        ProvenStaging(self)
    }

    /// Marks a database as one that a person vouches for.
    pub(super) fn vouched_for(self) -> VouchedStaging {
        VouchedStaging(self)
    }
}

impl std::ops::Deref for VouchedStaging {
    type Target = Staging;

    fn deref(&self) -> &Staging {
        &self.0
    }
}

impl std::ops::Deref for ProvenStaging {
    type Target = Staging;

    fn deref(&self) -> &Staging {
        &self.0
    }
}

impl CreateOptions {
    /// Takes the options from the dump's own `CREATE DATABASE`. If it has none, uses the server's default
    /// encoding if that equals the dump's encoding `text`, and UTF-8, which holds everything, otherwise. `text` is
    /// the client encoding in which the dump was written, which may differ from the source's encoding.
    ///
    /// # Errors
    /// Errors of the connection.
    pub async fn of_dump(
        session: &Session,
        entries: &[TocEntry],
        text: &TextEncoding,
    ) -> Result<Self, DatabaseError> {
        let given = DatabaseOptions::of(entries).unwrap_or_default();
        let mut options = Self::with(given);
        if options.encoding.is_none() {
            options.encoding = Some(encoding_for(
                text,
                &encoding_of(session, "template0").await?,
            ));
        }
        Ok(options)
    }

    /// The encoding that the database will have.
    ///
    /// # Errors
    /// Errors of the connection.
    pub async fn encoding(&self, session: &Session) -> Result<String, DatabaseError> {
        match &self.encoding {
            Some(e) => Ok(e.clone()),
            None => encoding_of(session, self.template.as_deref().unwrap_or("template0")).await,
        }
    }

    /// The same options, with the template's files copied: faster on a server that need not be durable.
    pub fn by_files(self) -> Self {
        CreateOptions {
            by_files: true,
            ..self
        }
    }

    /// Options for a copy of another database.
    pub fn copy_of(database: &str) -> Self {
        CreateOptions {
            template: Some(database.to_owned()),
            ..CreateOptions::default()
        }
    }

    fn with(given: DatabaseOptions) -> Self {
        CreateOptions {
            template: None,
            by_files: false,
            encoding: given.encoding,
            locale: given.locale,
        }
    }

    fn sql(&self, name: &str, server_version: u32) -> String {
        let template = self.template.as_deref().unwrap_or("template0");
        // No connections until CONNECT has been revoked from PUBLIC.
        let mut sql = format!(
            "CREATE DATABASE {} ALLOW_CONNECTIONS false TEMPLATE {}",
            ident(name),
            ident(template)
        );
        if let Some(e) = &self.encoding {
            sql.push_str(&format!(" ENCODING {}", literal(e)));
        }
        if self.by_files && server_version >= 150000 {
            sql.push_str(" STRATEGY file_copy");
        }
        for (key, value) in &self.locale {
            // Before version 15, libc was the only provider and there was no such option.
            if *key == "LOCALE_PROVIDER" && value == "libc" && server_version < 150000 {
                continue;
            }
            let value = if *key == "LOCALE_PROVIDER" {
                ident(value)
            } else {
                literal(value)
            };
            sql.push_str(&format!(" {key} {value}"));
        }
        sql
    }

    /// The options to try in turn: with the dump's locale, the server's default, and C, which works with every
    /// encoding.
    fn fallbacks(&self) -> [(CreateOptions, Option<&'static str>); 3] {
        let with = |locale| CreateOptions {
            locale,
            template: None,
            ..self.clone()
        };
        [
            (self.clone(), None),
            (
                with(vec![]),
                Some("the dump's locale is not on this server: the server's default was used"),
            ),
            (
                with(vec![("LOCALE", "C".into())]),
                Some("the dump's locale is not on this server: C was used"),
            ),
        ]
    }
}

/// The encoding of a database for a dump that does not name its source's encoding.
fn encoding_for(text: &TextEncoding, default: &str) -> String {
    // Only SQL_ASCII accepts text of unknown encoding.
    if text.is_sql_ascii() {
        return "SQL_ASCII".to_owned();
    }
    if text.is_same(default) {
        default.to_owned()
    } else {
        "UTF8".to_owned()
    }
}

async fn encoding_of(session: &Session, database: &str) -> Result<String, DatabaseError> {
    let sql =
        "SELECT pg_catalog.pg_encoding_to_char(encoding)::text FROM pg_database WHERE datname = $1";
    let row = session.client().query_opt(sql, &[&database]).await;
    let row = row.map_err(|e| map_pg_error(&e, "reading the encoding of a database"))?;
    Ok(row.map_or_else(|| "UTF8".to_owned(), |row| row.get(0)))
}

pub(super) async fn create(
    claimed: &TargetLock,
    options: &CreateOptions,
) -> Result<Staging, RestoreError> {
    let name = staging_name(&claimed.request_id);
    let lock = &claimed.lock;
    let note = create_with_fallbacks(lock, &name, options).await?;
    reached("created");
    let marked = comment(&name, (&claimed.target, &claimed.request_id));
    Ok(opened(lock, &name, (note, Some(marked))).await?)
}

/// Comments on a database, so that a reaper without a journal recognizes it.
pub(super) async fn mark(
    lock: &Session,
    name: &str,
    made_for: (&str, &str),
) -> Result<(), DatabaseError> {
    lock.run(&comment(name, made_for)).await
}

/// A statement that comments on a database that was made for this target and request.
fn comment(name: &str, (target, request_id): (&str, &str)) -> String {
    let label = label(target, request_id);
    format!("COMMENT ON DATABASE {} IS {}", ident(name), literal(&label))
}

/// SQLSTATE of a division by zero.
const DIVISION_BY_ZERO: &str = "22012";

/// Names in the database's comment the attempt that may work in it. Sessions of another one can no longer be opened.
///
/// # Errors
/// `target_unavailable` if the name has come to mean another database, which is left as it is.
pub(super) async fn mark_attempt(
    lock: &Session,
    staging: &Staging,
    made_for: (&str, &str),
    attempt: uuid::Uuid,
) -> Result<AttemptMark, DatabaseError> {
    let Staging { name, oid, .. } = staging;
    let label = format!("{}, attempt {attempt}", label(made_for.0, made_for.1));
    // All of it is one implicit transaction, which the division undoes if there is no such database. An explicit one would
    // stay open if this attempt were cancelled meanwhile.
    let comment = format!(
        "COMMENT ON DATABASE {} IS {}; SELECT 1 / count(*) FROM pg_database WHERE datname = {} AND oid = {oid}",
        ident(name),
        literal(&label),
        literal(name)
    );
    // Sent together: the second one sees what the first one has committed.
    let hash = async { lock.client().query_one(HASH_OF_COMMENT, &[oid]).await };
    let (commented, hash) = futures::join!(lock.run(&comment), hash);
    commented.map_err(|e| match e.sqlstate() {
        Some(DIVISION_BY_ZERO) => {
            let what = format!("database {name} was replaced by somebody else");
            DatabaseError::new(DatabaseKind::Unavailable, what)
        }
        _ => e,
    })?;
    let row = hash.map_err(|e| map_pg_error(&e, "marking the staging database"))?;
    let hash: Option<i64> = row.get(0);
    Ok(AttemptMark {
        hash: hash.unwrap_or_default(),
        is_needed: staging.is_in_place,
    })
}

/// Creates a database that never becomes a target.
pub(super) async fn make(
    lock: &Session,
    name: &str,
    options: &CreateOptions,
) -> Result<Staging, RestoreError> {
    let note = create_with_fallbacks(lock, name, options).await?;
    Ok(opened(lock, name, (note, None)).await?)
}

/// Opens the database to its owner only: anyone else who could connect while it is loaded could plant code there
/// (before 15, anybody in `public`) that the loading role would run. The swap opens it to others. `first`: a statement that
/// precedes that.
async fn opened(
    lock: &Session,
    name: &str,
    (note, first): (Option<&str>, Option<String>),
) -> Result<Staging, DatabaseError> {
    let quoted = ident(name);
    let open = [
        format!("REVOKE CONNECT ON DATABASE {quoted} FROM PUBLIC"),
        format!("ALTER DATABASE {quoted} ALLOW_CONNECTIONS true"),
    ];
    // All of it is one implicit transaction: each one waits for the disk.
    let all: Vec<String> = first.into_iter().chain(open).collect();
    lock.run(&all.join("; ")).await?;
    let row = lock
        .client()
        .query_one("SELECT oid FROM pg_database WHERE datname = $1", &[&name])
        .await
        .map_err(|e| map_pg_error(&e, "looking for the staging database"))?;
    let notes = note.map(str::to_owned).into_iter().collect();
    Ok(Staging {
        oid: row.get(0),
        notes,
        ..Staging::named(name)
    })
}

const CREATING: &str = "creating the staging database";

async fn create_with_fallbacks(
    lock: &Session,
    name: &str,
    options: &CreateOptions,
) -> Result<Option<&'static str>, RestoreError> {
    let mut refused = None;
    for (options, note) in options.fallbacks() {
        match lock.run(&options.sql(name, lock.version())).await {
            Ok(()) => return Ok(note),
            Err(e) if is_about_locale(&e) && options.template.is_none() => refused = Some(e),
            Err(e) if e.sqlstate() == Some("55006") => {
                let why = "a data-only restore begins with a copy of the database, which must not be in use: end its sessions";
                return Err(ValidationError::new(
                    ValidationKind::TargetNotAllowed,
                    format!("{e}: {why}"),
                )
                .into());
            }
            Err(e) if is_about_createdb(&e) => {
                return Err(e.followed_by(NEEDS_CREATEDB).context(CREATING).into());
            }
            Err(e) => return Err(e.context(CREATING).into()),
        }
    }
    Err(match refused {
        Some(e) => e.context(CREATING).into(),
        None => RestoreError::internal(format!("{CREATING}: no options were tried")),
    })
}

const NEEDS_CREATEDB: &str = ": ALTER ROLE … CREATEDB for DB_USER";

/// Whether the role may not create databases at all.
fn is_about_createdb(e: &DatabaseError) -> bool {
    e.sqlstate() == Some("42501")
        && e.to_string()
            .contains("permission denied to create database")
}

/// Whether the server rejected the locale: `invalid_parameter_value`, `wrong_object_type`, `undefined_object`, or a
/// keyword that this version does not know.
fn is_about_locale(e: &DatabaseError) -> bool {
    matches!(e.sqlstate(), Some("22023" | "42809" | "42601" | "42704"))
}

/// Drops a database, first removing whatever makes `DROP DATABASE … WITH (FORCE)` fail: template status,
/// connection limits, subscriptions, prepared transactions.
pub(super) async fn force_drop(
    server: &Server,
    lock: &Session,
    name: &str,
) -> Result<(), DatabaseError> {
    let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(name));
    let Err(refused) = lock.run(&drop).await else {
        return Ok(());
    };
    let with_context = |e: DatabaseError| e.context(&format!("dropping database {name}"));
    if !matches!(refused.sqlstate(), Some("55006" | "42809")) {
        return Err(with_context(refused));
    }
    let quoted = ident(name);
    for sql in [
        format!("ALTER DATABASE {quoted} IS_TEMPLATE false"),
        format!("ALTER DATABASE {quoted} RESET ALL"),
        format!("ALTER DATABASE {quoted} ALLOW_CONNECTIONS true"),
        format!("ALTER DATABASE {quoted} CONNECTION LIMIT -1"),
    ] {
        lock.run(&sql).await.map_err(with_context)?;
    }
    if lock.run(&drop).await.is_ok() {
        return Ok(());
    }
    remove_drop_blockers(server, name)
        .await
        .map_err(with_context)?;
    lock.run(&drop).await.map_err(with_context)
}

/// Connects to a database and removes prepared transactions and subscriptions, which prevent dropping it.
async fn remove_drop_blockers(server: &Server, name: &str) -> Result<(), DatabaseError> {
    let session = server.connect(name, "cleanup").await?;
    match remove_blockers(&session).await? {
        Some(refused) => Err(refused),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_dumps_create_database() {
        let parse = |create| CreateOptions::with(DatabaseOptions::parse(create));
        let o = parse(
            "CREATE DATABASE \"a ENCODING = 'X'\" WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'C.UTF-8';\n",
        );
        assert_eq!(
            o.sql("s", 150000),
            "CREATE DATABASE \"s\" ALLOW_CONNECTIONS false TEMPLATE \"template0\" ENCODING 'UTF8' LOCALE_PROVIDER \"libc\" LOCALE 'C.UTF-8'"
        );
        assert!(!o.sql("s", 140000).contains("PROVIDER"));
        let old = parse(
            "CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'LATIN1' LC_COLLATE = 'C' LC_CTYPE = 'C';",
        );
        assert!(
            old.sql("s", 150000)
                .ends_with("ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        );
        let by_hand = parse(
            "create database \"ENCODING\" encoding 'EUC_JP' lc_collate='C' ;\n\nALTER DATABASE x SET locale = 'y';",
        );
        assert!(
            by_hand
                .sql("s", 150000)
                .ends_with("template0\" ENCODING 'EUC_JP' LC_COLLATE 'C'")
        );
        let icu = parse(
            "CREATE DATABASE a WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = icu LOCALE = 'C.UTF-8' ICU_LOCALE = 'de-DE';\n",
        );
        assert!(
            icu.sql("s", 150000)
                .ends_with("LOCALE_PROVIDER \"icu\" LOCALE 'C.UTF-8' ICU_LOCALE 'de-DE'")
        );
    }

    #[test]
    fn the_databases_encoding_may_differ_from_the_dumps() {
        let of = |text: &str, default: &str| encoding_for(&TextEncoding::new(text), default);
        assert_eq!(of("LATIN1", "UTF8"), "UTF8");
        assert_eq!(of("UTF8", "UTF8"), "UTF8");
        assert_eq!(of("latin-1", "LATIN1"), "LATIN1");
        assert_eq!(of("UTF8", "LATIN1"), "UTF8", "which may hold more");
        assert_eq!(of("SJIS", "EUC_JP"), "UTF8");
        assert_eq!(of("UTF8", "SQL_ASCII"), "UTF8");
        assert_eq!(of("SQL_ASCII", "UTF8"), "SQL_ASCII");
    }
}
