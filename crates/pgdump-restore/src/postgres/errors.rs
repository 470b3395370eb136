//! The mapping of SQLSTATE to a [`DatabaseKind`], and so to a failure reason. A caller that knows what a code means for its
//! statement may choose another kind (`swap`, `in_place`, `staging`, `data_checks`).

use super::message_bounds::TOO_LARGE;
use crate::error::{DatabaseError, DatabaseKind as D, one_line};
use pgdump_archive::{Dialect, Token, first_tokens, statements};
use tokio_postgres::error::{DbError, Severity};

/// The error for what takes more memory than this worker may use for it.
pub fn too_large(what: &str, max: usize) -> DatabaseError {
    let most = max >> 20;
    DatabaseError::new(
        D::AnswerTooLarge,
        format!(
            "{what} take more than {most} MiB: give this worker more memory (its container's limit, or RESTORE_MEMORY_MIB)"
        ),
    )
    .with_sqlstate(TOO_LARGE)
}

/// Maps PostgreSQL's error. DETAIL and HINT are dropped, and so is the message of class 22 (unless it is about a
/// locale), because they quote row values. Of CONTEXT only the functions are kept.
pub fn map_pg_error(e: &tokio_postgres::Error, what: &str) -> DatabaseError {
    mapped(e, what, false)
}

/// The same for a statement that reads rows: a message that a function of the database may have made of them is dropped, too.
pub(crate) fn map_error_of_rows(e: &tokio_postgres::Error, what: &str) -> DatabaseError {
    mapped(e, what, true)
}

fn mapped(e: &tokio_postgres::Error, what: &str, reads_rows: bool) -> DatabaseError {
    let Some(db) = e.as_db_error() else {
        let text = crate::error::report(e);
        return DatabaseError::new(kind_of_client_error(&text), format!("{what}: {text}"));
    };
    let code = db.code().code();
    let quotes_rows = reads_rows && super::error_context::may_quote_rows(db);
    let said = if quotes_rows { RAISED } else { db.message() };
    let is_rejected_value = reads_rows && !quotes_rows && code.starts_with("42") && is_of_value(db);
    let message = match &code[..2] {
        _ if quotes_rows => RAISED.to_owned(),
        "22" if is_money(said) => OTHER_MONEY.to_owned(),
        // Messages about locales, label providers and storage parameters quote no rows.
        "22" if !is_of_the_build(said) => rejected(said),
        // A value of a type that refers to objects, such as regclass.
        _ if is_rejected_value => rejected(said),
        _ => one_line(said),
    };
    let table = match (db.schema(), db.table()) {
        (Some(s), Some(t)) if !quotes_rows => format!(" (table {s}.{t})"),
        _ => String::new(),
    };
    let context = super::error_context::of(db, quotes_rows);
    let text = format!("{what}: {message}{table} [{code}]{context}");
    if is_about_locks(code, db.hint()) {
        return DatabaseError::new(D::LocksExhausted, text)
            .followed_by(TOO_FEW_LOCKS)
            .with_sqlstate(code);
    }
    let kind = match kind_of_sqlstate(code, said) {
        _ if is_rejected_value => D::DataRejected,
        // The server rejects a login by ending the session. Within one, a function of the dump chose this code.
        D::AccessDenied if db.parsed_severity() == Some(Severity::Error) => D::StatementRejected,
        kind => kind,
    };
    DatabaseError::new(kind, text)
        .with_sqlstate(code)
        .of_done(is_of_done(db))
}

/// What says that something is there without a SQLSTATE of its own: SQLSTATE, and the server's function that raises it for a
/// second primary key, a second parent of a partition, an identity column. The message may be translated.
const DONE_WITHOUT_CODE: [(&str, &str); 3] = [
    ("42P16", "index_check_primary_key"),
    ("42809", "ATExecAttachPartition"),
    ("55000", "ATExecAddIdentity"),
];

/// Whether the server says, with a SQLSTATE of another meaning, that what a statement would make is there already.
fn is_of_done(db: &DbError) -> bool {
    let (code, routine) = (db.code().code(), db.routine().unwrap_or_default());
    // A large object has no error of its own, only the index of their numbers.
    let is_large_object =
        code == "23505" && db.constraint() == Some("pg_largeobject_metadata_oid_index");
    DONE_WITHOUT_CODE.contains(&(code, routine)) || is_large_object
}

/// In place of a message that may quote a row.
const RAISED: &str = "a function of the dump raised an error";

/// Whether COPY rejected the value of a column: `COPY t, line 1, column a: "…"`.
fn is_of_value(db: &DbError) -> bool {
    let context = db.where_().unwrap_or_default();
    let copy = context.lines().next().and_then(|l| l.strip_prefix("COPY "));
    copy.is_some_and(|place| place.contains(": \""))
}

/// Whether a message about these statements may quote a row: they read the rows of a table, or anything.
pub(super) fn reads_rows(sql: &str) -> bool {
    statements(sql, Dialect::default())
        .into_iter()
        .any(|one| reads_rows_itself(&first_tokens(one, Dialect::default(), 40)))
}

fn reads_rows_itself(t: &[Token<'_>]) -> bool {
    let is = |place: usize, words: &[&str]| {
        let token = t.get(place);
        token.is_some_and(|t| words.iter().any(|w| t.is(w)))
    };
    let defines_only = [
        "set", "reset", "begin", "commit", "rollback", "comment", "grant", "revoke", "security",
        "drop",
    ];
    match () {
        () if t.is_empty() || is(0, &defines_only) => false,
        () if is(0, &["create"]) && is(1, &["index", "unique", "materialized"]) => true,
        // CREATE TABLE … AS
        () if is(0, &["create"]) && is(1, &["table", "unlogged", "temporary", "temp"]) => {
            t.iter().any(|t| t.is("as"))
        }
        () if is(0, &["create"]) => false,
        // Statements in another encoding are run by a block of ours.
        () if is(0, &["do"]) => is(1, &["language"]),
        () if is(0, &["alter"]) => is(1, &["table", "domain", "materialized"]),
        () => true,
    }
}

/// That a value was rejected, with its type where the message names one: that is no value of a row.
fn rejected(message: &str) -> String {
    let of_syntax = message.strip_prefix("invalid input syntax for type ");
    let of_syntax = of_syntax.and_then(|rest| rest.split_once(": ").map(|(name, _)| name));
    let of_range = message.rsplit_once("\" is out of range for type ");
    let name = of_syntax.or(of_range.map(|(_, name)| name));
    let is_name = |n: &&str| n.len() <= 63 && n.chars().all(|c| c.is_ascii_lowercase() || c == ' ');
    match name.filter(is_name) {
        Some(name) => format!("a value was rejected for type {name}"),
        None => "a value was rejected".to_owned(),
    }
}

/// What to do if the server's table of locks is full.
const TOO_FEW_LOCKS: &str = ": the server's table of locks is full: set max_locks_per_transaction to four times its value \
    (the default is 64) and restart the server";

/// Whether the server's table of locks is full. All sessions share it, and every attempt needs as many locks. Only the
/// hint distinguishes this from a lack of memory, and the name of the setting in it is not translated.
fn is_about_locks(code: &str, hint: Option<&str>) -> bool {
    code == "53200" && hint.is_some_and(|h| h.contains("max_locks_per_transaction"))
}

/// The kind of an error that the server did not send.
fn kind_of_client_error(text: &str) -> D {
    // Errors that need a change of the worker's configuration; everything else may be temporary.
    let ours = [
        "password missing",
        "invalid configuration",
        "invalid peer certificate",
        "server does not support TLS",
    ];
    match text {
        t if ours.iter().any(|o| t.contains(o)) => D::AccessDenied,
        // The statement has a NUL byte: sending it would fail every time.
        t if t.contains("error encoding message to server") => D::StatementRejected,
        _ => D::Unavailable,
    }
}

/// Maps every SQLSTATE to exactly one kind; those not listed are the target's rejection of the restore. 53200 is mapped
/// here if memory is short, not locks.
pub(crate) fn kind_of_sqlstate(code: &str, message: &str) -> D {
    match code {
        TOO_LARGE => D::AnswerTooLarge,
        "42501" => D::InsufficientPrivilege,
        "53100" => D::InsufficientSpace,
        "42704" if message.starts_with("role ") => D::RoleMissing,
        "42704" if message.starts_with("unrecognized configuration parameter") => {
            D::VersionIncompatible
        }
        "0A000" | "58P01" if message.contains("extension") => D::ExtensionMissing,
        // `$libdir/…`: the library of an extension that is not installed.
        "58P01" if message.starts_with("could not access file") => D::ExtensionMissing,
        _ if is_of_the_build(message) || is_money(message) => D::VersionIncompatible,
        "55P03" | "40P01" | "40001" | "25006" | "53200" | "53300" | "53400" | "57014" => {
            D::Unavailable
        }
        _ => match &code[..2] {
            "28" => D::AccessDenied,
            "08" | "57" => D::Unavailable,
            "22" | "23" => D::DataRejected,
            _ => D::StatementRejected,
        },
    }
}

/// Amounts are read and written by `lc_monetary`, which a dump does not contain.
const OTHER_MONEY: &str =
    "a value of type money was rejected: it was written with another lc_monetary";

fn is_money(message: &str) -> bool {
    message.starts_with("invalid input syntax for type money")
}

/// Whether an error says that the server was built without something or has not loaded it, or that its host lacks a locale.
fn is_of_the_build(message: &str) -> bool {
    let begins = [
        "security label provider \"",
        "unrecognized parameter \"",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_map_to_one_kind() {
        for (code, message, kind) in [
            ("42501", "permission denied", D::InsufficientPrivilege),
            ("53100", "could not extend file", D::InsufficientSpace),
            ("42704", "role \"x\" does not exist", D::RoleMissing),
            (
                "42704",
                "unrecognized configuration parameter \"x\"",
                D::VersionIncompatible,
            ),
            ("42704", "type \"x\" does not exist", D::StatementRejected),
            (
                "0A000",
                "extension \"x\" is not available",
                D::ExtensionMissing,
            ),
            (
                "58P01",
                "could not open extension control file",
                D::ExtensionMissing,
            ),
            ("0A000", "cannot do that", D::StatementRejected),
            (
                "58P01",
                "could not access file \"$libdir/postgis-3\": No such file or directory",
                D::ExtensionMissing,
            ),
            (
                "0A000",
                "ICU is not supported in this build",
                D::VersionIncompatible,
            ),
            (
                "0A000",
                "compression method lz4 not supported",
                D::VersionIncompatible,
            ),
            (
                "22023",
                "could not create locale \"de_DE.utf8\": No such file",
                D::VersionIncompatible,
            ),
            (
                "42704",
                "collation \"pg_catalog.de_DE\" for encoding \"UTF8\" does not exist",
                D::VersionIncompatible,
            ),
            (
                "42704",
                "collation \"s.mine\" for encoding \"UTF8\" does not exist",
                D::StatementRejected,
            ),
            (
                "22023",
                "security label provider \"selinux\" is not loaded",
                D::VersionIncompatible,
            ),
            (
                "22023",
                "unrecognized parameter \"newer_option\"",
                D::VersionIncompatible,
            ),
            ("22023", "invalid value for parameter", D::DataRejected),
            (
                "22P02",
                "invalid input syntax for type money: \"1.234,50 €\"",
                D::VersionIncompatible,
            ),
            (
                "55P03",
                "canceling statement due to lock timeout",
                D::Unavailable,
            ),
            ("53300", "too many connections", D::Unavailable),
            ("57P01", "terminating connection", D::Unavailable),
            ("08006", "connection failure", D::Unavailable),
            ("28P01", "password authentication failed", D::AccessDenied),
            ("22P02", "invalid input syntax", D::DataRejected),
            ("23505", "duplicate key", D::DataRejected),
            ("XX001", "invalid page", D::StatementRejected),
        ] {
            assert_eq!(kind_of_sqlstate(code, message), kind, "{code} {message}");
        }
    }

    /// The error that a client reports if the server greets with `hello` and answers `sql` with `words`.
    async fn answered(hello: &[u8], sql: &str, words: &[u8]) -> DatabaseError {
        map_pg_error(&error_of(hello, sql, words).await, "what")
    }

    async fn error_of(hello: &[u8], sql: &str, words: &[u8]) -> tokio_postgres::Error {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (ours, mut theirs) = tokio::io::duplex(4096);
        theirs.write_all(hello).await.unwrap();
        let config = "user=u dbname=d".parse::<tokio_postgres::Config>().unwrap();
        match config.connect_raw(ours, tokio_postgres::NoTls).await {
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
        }
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
        let amount = refusal(&[
            "SERROR",
            "C22P02",
            "Minvalid input syntax for type money: \"secret\"",
        ]);
        let e = answered(HELLO, "SELECT 1", &amount).await;
        assert_eq!(e.to_string(), format!("what: {OTHER_MONEY} [22P02]"));
        let right = refusal(&["SERROR", "C42501", "Mmay not", "Dsecret", "ts"]);
        let e = answered(HELLO, "SELECT 1", &right).await;
        assert_eq!(e.to_string(), "what: may not [42501]");
        for (severity, kind) in [
            ("VFATAL", D::AccessDenied),
            ("VERROR", D::StatementRejected),
        ] {
            let login = refusal(&["SFEHLER", severity, "C28000", "Mno"]);
            assert_eq!(answered(HELLO, "SELECT 1", &login).await.kind(), kind);
        }
        // Only the hint tells which memory is short.
        let hint = "HVielleicht müssen Sie »max_locks_per_transaction« erhöhen.";
        let locks = refusal(&["SERROR", "C53200", "MShared Memory aufgebraucht", hint]);
        let e = answered(HELLO, "SELECT 1", &locks).await;
        assert_eq!((e.kind(), e.sqlstate()), (D::LocksExhausted, Some("53200")));
        assert_eq!(
            e.to_string(),
            "what: Shared Memory aufgebraucht [53200]: the server's table of locks is full: set max_locks_per_transaction \
             to four times its value (the default is 64) and restart the server"
        );
        let other = "HYou might need to increase max_pred_locks_per_transaction.";
        let other = refusal(&["SERROR", "C53200", "Mout of shared memory", other]);
        let e = answered(HELLO, "SELECT 1", &other).await;
        assert_eq!(e.kind(), D::Unavailable);
        // Errors of the client itself: a text that cannot be sent, a missing password, a broken message.
        assert_eq!(
            answered(HELLO, "SELECT '\0'", b"").await.kind(),
            D::StatementRejected
        );
        assert_eq!(
            answered(b"R\0\0\0\x08\0\0\0\x03", "", b"").await.kind(),
            D::AccessDenied
        );
        assert_eq!(
            answered(b"?\0\0\0\x04", "", b"").await.kind(),
            D::Unavailable
        );
    }

    #[tokio::test]
    async fn what_is_there_already_is_known_in_every_language() {
        const HELLO: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        for (fields, wanted) in [
            (
                &[
                    "C42P16",
                    "Mmehrere Prim\u{e4}rschl\u{fc}ssel",
                    "Rindex_check_primary_key",
                ],
                true,
            ),
            (
                &[
                    "C42809",
                    "M\u{bb}p\u{ab} ist bereits eine Partition",
                    "RATExecAttachPartition",
                ],
                true,
            ),
            (
                &[
                    "C55000",
                    "Mist bereits eine Identit\u{e4}tsspalte",
                    "RATExecAddIdentity",
                ],
                true,
            ),
            (
                &[
                    "C23505",
                    "Mdoppelter Schl\u{fc}sselwert",
                    "npg_largeobject_metadata_oid_index",
                ],
                true,
            ),
            (
                &["C23505", "Mdoppelter Schl\u{fc}sselwert", "nt_pkey"],
                false,
            ),
            (
                &[
                    "C42809",
                    "M\"v\" is already a partition",
                    "Rexec_stmt_raise",
                ],
                false,
            ),
        ] {
            let e = answered(
                HELLO,
                "SELECT 1",
                &refusal(&[&["SERROR"][..], fields].concat()),
            )
            .await;
            assert_eq!(e.is_done_already(), wanted, "{e}");
            assert_eq!(e.context("what").is_done_already(), wanted);
        }
    }

    /// CHECK constraints, expressions of indexes and views call functions, whose messages are about the row.
    #[tokio::test]
    async fn what_a_function_says_of_a_row_is_dropped() {
        const HELLO: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        let raised = refusal(&[
            "SERROR",
            "C42704",
            "Mrole \"secret\" does not exist",
            "WPL/pgSQL function f(text) line 1 at RAISE",
            "ssecret",
            "tsecret",
        ]);
        let e = error_of(HELLO, "SELECT 1", &raised).await;
        let said = map_error_of_rows(&e, "COPY");
        assert_eq!(
            said.to_string(),
            "COPY: a function of the dump raised an error [42704] (in PL/pgSQL function f(text) line 1 at RAISE)"
        );
        assert_eq!(said.kind(), D::StatementRejected);
        assert!(map_pg_error(&e, "x").to_string().contains("secret"));
        let value = refusal(&[
            "SERROR",
            "C42P01",
            "Mrelation \"secret\" does not exist",
            "WCOPY t, line 1, column a: \"secret\"",
        ]);
        let said = map_error_of_rows(&error_of(HELLO, "SELECT 1", &value).await, "COPY");
        assert_eq!(said.to_string(), "COPY: a value was rejected [42P01]");
        assert_eq!(said.kind(), D::DataRejected);
    }

    #[test]
    fn statements_that_read_rows_are_known() {
        for (sql, wanted) in [
            (
                "CREATE INDEX i ON public.t USING btree (public.f(a));",
                true,
            ),
            (
                "SET default_tablespace = '';\n\nCREATE UNIQUE INDEX i ON t (a);",
                true,
            ),
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT c CHECK (public.f(a));",
                true,
            ),
            ("REFRESH MATERIALIZED VIEW public.v;", true),
            ("CREATE TABLE t AS SELECT 1;", true),
            ("INSERT INTO t VALUES (1);", true),
            ("CREATE TABLE t (a int);", false),
            ("CREATE EXTENSION postgis;", false),
            (
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1; SELECT 2';",
                false,
            ),
            ("GRANT SELECT ON TABLE t TO app;", false),
            ("DO $$BEGIN RAISE 'stop'; END$$;", false),
            ("BEGIN", false),
            ("", false),
        ] {
            assert_eq!(reads_rows(sql), wanted, "{sql}");
        }
    }
}
