//! One connection, and statements on it.

use std::pin::Pin;

use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt, MaybeDone, maybe_done};
use tokio::sync::OnceCell;
use tokio_postgres::error::{DbError, ErrorPosition, Severity};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, RowStream, SimpleQueryMessage, Statement};
use tokio_util::task::AbortOnDropHandle;

use super::errors::{map_error_of_rows, map_pg_error, reads_rows};
use crate::error::{DatabaseError, DatabaseKind};
use crate::steps::reached;
use crate::work_record::held::{COMMIT_WITH_NUMBER, HeldCommit};
use crate::work_record::note::{NOTE, NOTE_TYPES, Note};

/// Statements from this size on are not kept in memory while the server runs them.
const LARGE: usize = 1 << 20;

/// What the error says of a syntax error at the first word of a statement. No version knows a word there that a newer one does
/// not know.
pub const AT_FIRST_WORD: &str = ", the first word of a statement";

/// Settings of every session: the first version of PostgreSQL that has it, name and value.
const OWN: [(u32, &str, &str); 11] = [
    (0, "statement_timeout", "0"),
    (0, "lock_timeout", "0"),
    (0, "idle_in_transaction_session_timeout", "0"),
    (0, "search_path", "pg_catalog"),
    (0, "client_min_messages", "warning"),
    // The server notices a vanished worker and ends its sessions, which releases their locks.
    (0, "tcp_keepalives_idle", "30"),
    (0, "tcp_keepalives_interval", "10"),
    (0, "tcp_keepalives_count", "3"),
    (140000, "idle_session_timeout", "0"),
    (140000, "client_connection_check_interval", "'1s'"),
    (170000, "transaction_timeout", "0"),
];

/// The value that a setting has in every session, whatever the defaults of a role or database.
pub(crate) fn own_setting(name: &str) -> Option<&'static str> {
    let found = OWN.iter().find(|(_, own, _)| *own == name);
    found.map(|(_, _, value)| *value)
}

/// One connection. Dropping it closes the connection, and the server rolls back an open transaction.
pub struct Session {
    client: Client,
    version: u32,
    /// The statement that adds rows to the work record, once it is prepared.
    noting: OnceCell<Statement>,
    _driver: AbortOnDropHandle<()>,
}

/// A request that may have been sent.
type Request<'a, T> = MaybeDone<BoxFuture<'a, Result<T, tokio_postgres::Error>>>;

impl Session {
    pub(super) fn new(client: Client, version: u32, driver: AbortOnDropHandle<()>) -> Self {
        Session {
            client,
            version,
            noting: OnceCell::new(),
            _driver: driver,
        }
    }

    /// `server_version_num`, such as 150018.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The client, for queries with parameters; map its errors with [`map_pg_error`](super::map_pg_error).
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a query and returns its rows one by one. On a session of
    /// [`Server::streaming_rows`](super::Server::streaming_rows), there may be any number of them.
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
    pub(super) fn own_settings(&self) -> String {
        let known = OWN.iter().filter(|(since, ..)| self.version >= *since);
        known
            .map(|(_, name, value)| format!("SET {name} = {value};"))
            .collect()
    }

    /// Runs one or more statements without parameters.
    ///
    /// # Errors
    /// The server's error, without row data.
    pub async fn run(&self, sql: &str) -> Result<(), DatabaseError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(|e| mapped(&e, reads_rows(sql)))
    }

    /// Runs statements pipelined: each is sent without waiting for the previous one.
    ///
    /// # Errors
    /// The index of the first statement that failed, and its error.
    pub(crate) async fn pipeline_of(
        &self,
        statements: Vec<String>,
    ) -> Result<(), (usize, DatabaseError)> {
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
        let answers = self.client.simple_query_raw(&sql).await;
        // What is this large has rows.
        drop(sql);
        let answers = answers.map_err(|e| mapped(&e, true))?;
        let done = std::pin::pin!(answers)
            .try_for_each(|_| std::future::ready(Ok(())))
            .await;
        done.map_err(|e| mapped(&e, true))
    }

    /// The same for statements whose text is kept.
    ///
    /// # Errors
    /// As [`Session::pipeline_of`].
    pub(crate) async fn pipeline(
        &self,
        statements: &[String],
    ) -> Result<(), (usize, DatabaseError)> {
        let sent = self.sent(statements).await;
        answers(sent, statements).await
    }

    /// Sends statements without waiting for their answers.
    async fn sent<'a>(&'a self, statements: &'a [String]) -> Vec<Request<'a, ()>> {
        let mut sent: Vec<_> = statements
            .iter()
            .map(|s| maybe_done(self.client.batch_execute(s).boxed()))
            .collect();
        for request in &mut sent {
            // The first poll sends the request, which keeps the order.
            let _ = futures::poll!(request);
        }
        sent
    }
}

/// Waits for the answers to statements that were sent.
async fn answers(
    sent: Vec<Request<'_, ()>>,
    statements: &[String],
) -> Result<(), (usize, DatabaseError)> {
    for (i, (request, sql)) in sent.into_iter().zip(statements).enumerate() {
        if let Err(e) = answer(request).await {
            return Err((i, of_statement(&e, sql)));
        }
    }
    Ok(())
}

/// Waits for the answer to a request.
async fn answer<T>(mut request: Request<'_, T>) -> Result<Option<T>, tokio_postgres::Error> {
    (&mut request).await;
    Pin::new(&mut request).take_output().transpose()
}

/// Rows of the work record, in the transactions whose work they say.
impl Session {
    /// Prepares the statement that adds rows, which cannot be done in a transaction that has failed.
    ///
    /// # Errors
    /// The server's error.
    pub(crate) async fn prepare_note(&self) -> Result<&Statement, DatabaseError> {
        let prepare = || self.client.prepare_typed(NOTE, &NOTE_TYPES);
        let prepared = self.noting.get_or_try_init(prepare).await;
        prepared.map_err(|e| not_noted(&e))
    }

    /// Adds a row in a transaction of its own.
    ///
    /// # Errors
    /// The server's error.
    pub(crate) async fn noted(&self, note: &Note) -> Result<(), DatabaseError> {
        let noting = self.prepare_note().await?;
        let noted = self.client.execute(noting, &note.params.values()).await;
        noted.map(drop).map_err(|e| not_noted(&e))
    }

    /// Runs statements pipelined, the last of which is COMMIT, with a row of the record before that. If the row is kept in
    /// memory, COMMIT returns the transaction's number instead.
    ///
    /// # Errors
    /// As [`Session::pipeline_of`]; the index of COMMIT if the row is refused.
    pub(crate) async fn pipeline_noted(
        &self,
        mut statements: Vec<String>,
        note: Option<&Note>,
    ) -> Result<(), (usize, DatabaseError)> {
        let Some(note) = note else {
            return self.pipeline_of(statements).await;
        };
        let end = statements.len().saturating_sub(1);
        if note.turn.is_none() {
            self.prepare_note().await.map_err(|e| (end, e))?;
        }
        statements.truncate(end);
        // The answer to a large statement is waited for.
        let large = statements.iter().rposition(|s| s.len() >= LARGE);
        let small = statements.split_off(large.map_or(0, |at| at + 1));
        let begun = statements.len();
        self.pipeline_of(statements).await?;
        let mut sent = self.sent(&small).await;
        if let Some(turn) = &note.turn {
            let answered = answers(sent, &small);
            let (answered, committed) = futures::join!(answered, self.commit_held(turn));
            answered.map_err(|(at, e)| (begun + at, e))?;
            return committed.map_err(|e| (end, of_statement(&e, "COMMIT")));
        }
        if fail::has_failpoints() {
            // The row is waited for below, and answers before its own that nobody takes would keep it from coming.
            for request in &mut sent {
                request.await;
            }
        }
        let (noted, committed) = self.sent_noted(note).await.map_err(|e| (end, e))?;
        answers(sent, &small)
            .await
            .map_err(|(at, e)| (begun + at, e))?;
        answer(noted).await.map_err(|e| (end, not_noted(&e)))?;
        answer(committed)
            .await
            .map_err(|e| (end, of_statement(&e, "COMMIT")))?;
        Ok(())
    }

    /// Commits a transaction with a row of the record. `what`: its work, in errors.
    ///
    /// # Errors
    /// The server's error, without row data.
    pub(crate) async fn commit_noted_of(
        &self,
        what: &str,
        note: Option<&Note>,
    ) -> Result<(), DatabaseError> {
        let Some(note) = note else {
            return self.run("COMMIT").await;
        };
        // Constraints that were deferred are checked now.
        self.commit_noted(note, |e| map_error_of_rows(e, what))
            .await
    }

    /// The same for a transaction of definitions.
    ///
    /// # Errors
    /// The server's error, without row data.
    pub(crate) async fn commit_tasks(&self, note: Option<&Note>) -> Result<(), DatabaseError> {
        let Some(note) = note else {
            return self.run("COMMIT").await;
        };
        self.commit_noted(note, |e| of_statement(e, "COMMIT")).await
    }

    /// `of_commit`: the error of COMMIT.
    async fn commit_noted(
        &self,
        note: &Note,
        of_commit: impl Fn(&tokio_postgres::Error) -> DatabaseError,
    ) -> Result<(), DatabaseError> {
        if let Some(turn) = &note.turn {
            return self.commit_held(turn).await.map_err(|e| of_commit(&e));
        }
        let (noted, committed) = self.sent_noted(note).await?;
        answer(noted).await.map_err(|e| not_noted(&e))?;
        answer(committed).await.map(drop).map_err(|e| of_commit(&e))
    }

    /// Commits a transaction in a turn: its row is kept in memory. `what`: its work, in errors.
    ///
    /// # Errors
    /// The server's error, without row data.
    pub(crate) async fn commit_in_turn(
        &self,
        what: &str,
        turn: &HeldCommit,
    ) -> Result<(), DatabaseError> {
        let committed = self.commit_held(turn).await;
        committed.map_err(|e| map_error_of_rows(&e, what))
    }

    /// Commits a transaction whose row is kept in memory, which gets the transaction's number from the server.
    async fn commit_held(&self, turn: &HeldCommit) -> Result<(), tokio_postgres::Error> {
        reached("work.held");
        turn.asked();
        match self.client.simple_query(COMMIT_WITH_NUMBER).await {
            Ok(answers) => turn.committed(number_in(&answers)),
            Err(e) => {
                if is_undone(&e) {
                    turn.undone();
                }
                return Err(e);
            }
        }
        Ok(())
    }

    /// Sends a row of the record and COMMIT.
    async fn sent_noted<'a>(
        &'a self,
        note: &'a Note,
    ) -> Result<(Request<'a, u64>, Request<'a, ()>), DatabaseError> {
        let noting = self.prepare_note().await?;
        let add = async move { self.client.execute(noting, &note.params.values()).await };
        let mut noted = maybe_done(add.boxed());
        let _ = futures::poll!(&mut noted);
        if fail::has_failpoints() {
            // Whoever stops here wants the row to be there.
            (&mut noted).await;
        }
        reached("work.noted");
        let mut committed = maybe_done(self.client.batch_execute("COMMIT").boxed());
        let _ = futures::poll!(&mut committed);
        Ok((noted, committed))
    }
}

/// The number of a transaction in the answers to [`COMMIT_WITH_NUMBER`].
fn number_in(answers: &[SimpleQueryMessage]) -> Option<i64> {
    answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten()?.parse().ok(),
        _ => None,
    })
}

/// Whether an error says that a transaction is not committed, and will not be. One that ends the session may hide the answer
/// to COMMIT.
fn is_undone(e: &tokio_postgres::Error) -> bool {
    let severity = e.as_db_error().and_then(DbError::parsed_severity);
    severity == Some(Severity::Error)
}

fn not_noted(e: &tokio_postgres::Error) -> DatabaseError {
    of_note(map_pg_error(e, "recording what was done"))
}

/// A row of the record has nothing of the backup, and its constraints keep out attempts that were replaced: what the server
/// says against it is not said of the work, and the next attempt reads what there is.
fn of_note(e: DatabaseError) -> DatabaseError {
    match e.kind() {
        DatabaseKind::DataRejected
        | DatabaseKind::StatementRejected
        | DatabaseKind::InsufficientPrivilege
        | DatabaseKind::VersionIncompatible => {
            // Without the code, which callers would take for that of their own statement.
            let what = format!("{e}: another attempt may have taken over");
            DatabaseError::new(DatabaseKind::Unavailable, what)
        }
        _ => e,
    }
}

fn mapped(e: &tokio_postgres::Error, reads_rows: bool) -> DatabaseError {
    if reads_rows {
        map_error_of_rows(e, "statement")
    } else {
        map_pg_error(e, "statement")
    }
}

/// The error of these statements.
fn of_statement(e: &tokio_postgres::Error, sql: &str) -> DatabaseError {
    let error = mapped(e, reads_rows(sql));
    let syntax = e.as_db_error().filter(|db| db.code().code() == "42601");
    match syntax.and_then(DbError::position) {
        Some(ErrorPosition::Original(place)) if begins_statement(sql, *place) => {
            error.followed_by(AT_FIRST_WORD)
        }
        _ => error,
    }
}

/// Whether the character in this place, the first of which is 1, begins a statement.
fn begins_statement(sql: &str, place: u32) -> bool {
    let before = usize::try_from(place).unwrap_or_default().saturating_sub(1);
    let before: String = sql.chars().take(before).collect();
    let is_code = |line: &&str| !line.is_empty() && !line.starts_with("--");
    let last = before.lines().map(str::trim).rfind(is_code);
    last.is_none_or(|line| line.ends_with(';'))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::work_record::held::HeldRows;

    /// Where COPY has failed in front of it, COMMIT is refused, and the record can still begin.
    #[tokio::test]
    async fn a_refused_commit_is_not_a_lost_one() {
        for (severity, is_lost) in [("ERROR", false), ("FATAL", true)] {
            let fields = format!("S{severity}\0V{severity}\0C25P02\0Mno\0\0");
            let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
            let refusal = [b"E", &length[..], fields.as_bytes(), b"Z\0\0\0\x05E"].concat();
            let (ours, mut theirs) = tokio::io::duplex(4096);
            let hello = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
            theirs.write_all(hello).await.unwrap();
            let config = "user=u dbname=d".parse::<tokio_postgres::Config>().unwrap();
            let connected = config.connect_raw(ours, tokio_postgres::NoTls).await;
            let (client, connection) = connected.unwrap();
            let driver = tokio::spawn(async move { drop(connection.await) });
            let session = Session::new(client, 170000, AbortOnDropHandle::new(driver));
            let mut heard = [0; 1024];
            assert!(theirs.read(&mut heard).await.unwrap() > 0);
            let held = HeldRows::active();
            let turn = held.turn().await.unwrap();
            let server = async {
                assert!(theirs.read(&mut heard).await.unwrap() > 0);
                theirs.write_all(&refusal).await.unwrap();
            };
            let (committed, ()) = futures::join!(session.commit_in_turn("COPY", &turn), server);
            assert_eq!(committed.unwrap_err().sqlstate(), Some("25P02"));
            drop(turn);
            assert_eq!(held.is_lost(), is_lost, "{severity}");
        }
    }

    #[test]
    fn a_refused_row_of_the_record_is_no_refusal_of_what_is_restored() {
        let of = |kind, code: &str| of_note(DatabaseError::new(kind, "no").with_sqlstate(code));
        for (kind, code) in [
            (DatabaseKind::DataRejected, "23514"),
            (DatabaseKind::StatementRejected, "3F000"),
            (DatabaseKind::InsufficientPrivilege, "42501"),
        ] {
            let e = of(kind, code);
            assert_eq!((e.kind(), e.sqlstate()), (DatabaseKind::Unavailable, None));
            assert!(e.to_string().contains("taken over"), "{e}");
        }
        let full = of(DatabaseKind::InsufficientSpace, "53100");
        assert_eq!(full.kind(), DatabaseKind::InsufficientSpace);
    }

    #[test]
    fn the_first_word_of_a_statement_is_recognized() {
        for (sql, begins) in [
            ("^CREXTE TABLE t ();", true),
            ("\n-- Name: é\n\n  ^CREXTE TABLE t ();", true),
            ("SET a = 1; ^CREXTE TABLE t ();", true),
            ("CREATE TABLE t (^end int);", false),
            ("CREATE TABLE t (\n    ^end int);", false),
            ("CREATE TABLE t (\n-- a;\n    ^end int);", false),
        ] {
            let place = sql.chars().position(|c| c == '^').unwrap() + 1;
            let sql = sql.replace('^', "");
            let place = u32::try_from(place).unwrap();
            assert_eq!(begins_statement(&sql, place), begins, "{sql}");
        }
    }
}
