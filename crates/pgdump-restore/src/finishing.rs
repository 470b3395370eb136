//! Finishing SQL: files of the requester's own SQL, which run in a restored database before anybody else sees it. Each
//! file is one transaction. What cannot run so is refused before anything is loaded.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use pgdump_archive::{Dialect, Token, statements, tokens, unterminated};

use crate::error::{DatabaseError, DatabaseKind, ValidationError, ValidationKind};
use crate::postgres::Server;
use crate::work_record::{Body, Mark, WorkRecord, reads_the_catalog};

/// Most bytes of a file of finishing SQL.
pub const MAX_FINISHING_BYTES: u64 = 1 << 20;

/// Statements that begin, end or divide a transaction, by their first word.
const CONTROL: [&str; 7] = [
    "begin",
    "commit",
    "rollback",
    "abort",
    "end",
    "savepoint",
    "release",
];

/// Those whose second word decides.
const CONTROL_OF_TRANSACTION: [&str; 2] = ["start", "prepare"];

/// Begins the transaction of a file. That the savepoint is still there at the end shows that it is the same transaction: a
/// statement can hide what ends it from a reader of its text, such as behind what looks like a function's body.
const BEGIN: &str = "RESET search_path; BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SAVEPOINT pgrestored_finish";
/// Fails outside the transaction of [`BEGIN`].
const RELEASE: &str = "RELEASE SAVEPOINT pgrestored_finish";
/// Gives the row of the record a transaction number behind all of the file's.
const LAST: &str = "SAVEPOINT pgrestored_finished";
/// Why that fails: no such savepoint, no transaction.
const LEFT: [&str; 2] = ["3B001", "25P01"];

/// A file of finishing SQL that can be run as one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishingSql {
    name: String,
    statements: Vec<FinishingStatement>,
}

/// A statement, with its number in the file and its line, both from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FinishingStatement {
    number: usize,
    line: usize,
    sql: String,
}

impl FinishingStatement {
    /// Where it is, for messages.
    fn place(&self) -> String {
        format!("statement {} at line {}", self.number, self.line)
    }
}

fn invalid(name: &str, what: &str) -> ValidationError {
    let what = format!("finishing SQL {name}{what}");
    ValidationError::new(ValidationKind::InvalidRequest, what)
}

/// The line of this byte, from 1.
fn line_at(text: &[u8], at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    memchr::memchr_iter(b'\n', before).count() + 1
}

impl FinishingSql {
    /// Reads a file; `name` is what messages call it.
    ///
    /// # Errors
    /// `invalid_request`, with the line: more than [`MAX_FINISHING_BYTES`], not UTF-8, a quote or comment without an end,
    /// a command of `psql`, a statement that controls the transaction, COPY from or to the client.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ValidationError> {
        if bytes.len() as u64 > MAX_FINISHING_BYTES {
            return Err(Self::too_large(name));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let line = line_at(bytes, e.valid_up_to());
            invalid(name, &format!(", line {line}: is not UTF-8"))
        })?;
        // Some editors begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let at = |place: usize| format!(", line {}: ", line_at(text.as_bytes(), place));
        if let Some(place) = text.find('\0') {
            return Err(invalid(name, &format!("{}has a NUL byte", at(place))));
        }
        if let Some((place, what)) = unterminated(text, Dialect::default()) {
            return Err(invalid(
                name,
                &format!("{}{what} begins and does not end", at(place)),
            ));
        }
        let all = tokens(text, Dialect::default());
        if let Some(n) = all.iter().position(|t| t.is_symbol(b'\\')) {
            let word = all.get(n + 1).map_or("", |next| next.text);
            return Err(invalid(
                name,
                &format!(
                    "{}\\{word} is a command of psql: only SQL is run",
                    at(all[n].at)
                ),
            ));
        }
        let mut found = Vec::new();
        let mut begins = 0;
        for sql in statements(text, Dialect::default()) {
            // The slices are parts of the text in its order.
            let from = text[begins..].find(sql).map_or(begins, |n| begins + n);
            begins = from + sql.len();
            let tokens = tokens(sql, Dialect::default());
            let Some(first) = tokens.first().filter(|t| !t.is_symbol(b';')) else {
                continue;
            };
            let statement = FinishingStatement {
                number: found.len() + 1,
                line: line_at(text.as_bytes(), from + first.at),
                sql: sql.to_owned(),
            };
            if let Some(why) = refused(&tokens) {
                let place = statement.place();
                return Err(invalid(name, &format!(", {place}: {why}")));
            }
            found.push(statement);
        }
        Ok(FinishingSql {
            name: name.to_owned(),
            statements: found,
        })
    }

    /// The error for a file with more than [`MAX_FINISHING_BYTES`].
    pub fn too_large(name: &str) -> ValidationError {
        let most = MAX_FINISHING_BYTES >> 20;
        invalid(name, &format!(": has more than {most} MiB"))
    }

    /// Whether the file may list objects of the database, or change all that a role owns, as far as its text shows it.
    pub fn reads_catalog(&self) -> bool {
        let names_owned = |sql: &str| sql.to_ascii_lowercase().contains("owned");
        let statements = self.statements.iter();
        statements
            .map(|s| s.sql.as_str())
            .any(|sql| reads_the_catalog(sql) || names_owned(sql))
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The error of the statement with this index; behind the last one, of the end of the transaction.
    fn rejected(&self, index: usize, is_alive: bool, e: DatabaseError) -> DatabaseError {
        let place = match self.statements.get(index) {
            Some(statement) => statement.place(),
            None => "COMMIT at its end".to_owned(),
        };
        let e = e.context(&format!("finishing SQL {}, {place}", self.name));
        let may_pass = match e.kind() {
            DatabaseKind::InsufficientSpace | DatabaseKind::LocksExhausted => true,
            DatabaseKind::Unavailable => {
                let code = e.sqlstate();
                !is_alive
                    || code.is_none_or(|code| ["57P", "53"].iter().any(|c| code.starts_with(c)))
            }
            _ => false,
        };
        if may_pass {
            return e;
        }
        let rejected = DatabaseError::new(DatabaseKind::FinishingRejected, e.to_string());
        match e.sqlstate() {
            Some(code) => rejected.with_sqlstate(code),
            None => rejected,
        }
    }

    /// The error of [`RELEASE`].
    fn not_released(&self, is_alive: bool, e: DatabaseError) -> DatabaseError {
        let Some(code) = e
            .sqlstate()
            .filter(|code| LEFT.iter().any(|left| left == code))
        else {
            return self.rejected(self.statements.len(), is_alive, e);
        };
        let what = format!(
            "finishing SQL {}: one of its statements ended the transaction of the file, such as a COMMIT that is not recognized as one: remove it; what the file did before that to roles and other server-wide objects remains",
            self.name
        );
        DatabaseError::new(DatabaseKind::FinishingRejected, what).with_sqlstate(code)
    }

    fn late(&self, index: usize, limit: Duration) -> DatabaseError {
        let place = match self.statements.get(index) {
            Some(statement) => format!("{} was running", statement.place()),
            None => "its COMMIT was running".to_owned(),
        };
        let what = format!(
            "finishing SQL {}: not finished within {limit:?} (RESTORE_FINISH_TIMEOUT): {place}",
            self.name
        );
        DatabaseError::new(DatabaseKind::NoAnswer, what)
    }
}

/// Why a statement may not be in the file.
fn refused(tokens: &[Token<'_>]) -> Option<String> {
    if let Some(words) = control(tokens) {
        return Some(format!(
            "{words} controls the transaction, and the whole file is one transaction: remove it"
        ));
    }
    if !tokens.first()?.is("copy") {
        return None;
    }
    let mut depth = 0usize;
    tokens.windows(2).find_map(|pair| {
        let [word, place] = pair else { return None };
        if word.is_symbol(b'(') {
            depth += 1;
        } else if word.is_symbol(b')') {
            depth = depth.saturating_sub(1);
        }
        let is_from = word.is("from") && place.is("stdin");
        let is_to = word.is("to") && place.is("stdout");
        let why = match (depth, is_from, is_to) {
            (0, true, _) => {
                "COPY FROM STDIN: the file has SQL alone and no rows for it: use INSERT"
            }
            (0, _, true) => "COPY TO STDOUT: nobody reads its rows: leave it out",
            _ => return None,
        };
        Some(why.to_owned())
    })
}

/// The words of a statement that controls a transaction, also behind a semicolon within what looks like one statement.
fn control(tokens: &[Token<'_>]) -> Option<String> {
    let begins = |n: usize| n == 0 || tokens[n - 1].is_symbol(b';');
    (0..tokens.len()).filter(|n| begins(*n)).find_map(|n| {
        let first = &tokens[n];
        // A function's body may begin with BEGIN ATOMIC, and ends with END.
        let is_body = n > 0 && (first.is("end") || first.is("begin"));
        if CONTROL.iter().any(|word| first.is(word)) && !is_body {
            return Some(first.text.to_uppercase());
        }
        let second = tokens.get(n + 1)?;
        let is_begun = CONTROL_OF_TRANSACTION.iter().any(|word| first.is(word));
        (is_begun && second.is("transaction"))
            .then(|| format!("{} TRANSACTION", first.text.to_uppercase()))
    })
}

/// Runs a file in `database`, as the role of `server`, as one transaction that takes at most `limit`. Names without a
/// schema are found as for any client of the role. The transaction is recorded under `number`; a file that an earlier attempt
/// has run is not run again.
///
/// # Errors
/// `restore_error` with the statement's number and line and the SQLSTATE, blamed on the request; `timeout`;
/// `target_unavailable`, `insufficient_space`. Nothing of the file has happened then, unless a statement of it left the
/// transaction, which is such an error, too.
pub async fn finish(
    server: &Server,
    database: &str,
    sql: &FinishingSql,
    limit: Duration,
    record: Option<&WorkRecord>,
    number: u32,
) -> Result<(), DatabaseError> {
    let record = record.filter(|record| record.is_on());
    let mark = Mark::Finished(number);
    if record.is_some_and(|record| record.resumed().has(mark)) {
        return Ok(());
    }
    // A session of its own: no setting of one file reaches the next one.
    let session = server.discarding_rows().connect(database, "finish").await?;
    let current = AtomicUsize::new(0);
    let work = async {
        session.run(BEGIN).await?;
        let is_alive = || !session.client().is_closed();
        for (index, statement) in sql.statements.iter().enumerate() {
            current.store(index, Relaxed);
            let ran = session.run(&statement.sql).await;
            ran.map_err(|e| sql.rejected(index, is_alive(), e))?;
        }
        let end = sql.statements.len();
        current.store(end, Relaxed);
        let released = session.run(RELEASE).await;
        released.map_err(|e| sql.not_released(is_alive(), e))?;
        // Prepared only now, because the file may have deallocated what was prepared before.
        let note = match record {
            Some(record) => record.own_note(Body::of_mark(mark)).await,
            None => None,
        };
        if note.is_some() {
            session.run(LAST).await?;
        }
        let committed = session.commit_noted_of("statement", note.as_ref()).await;
        if let Some(record) = record {
            record.ended(note, committed.is_ok());
        }
        committed.map_err(|e| sql.rejected(end, is_alive(), e))?;
        Ok::<(), DatabaseError>(())
    };
    // The session ends here, and the server undoes the transaction.
    let ended = tokio::time::timeout(limit, work).await;
    ended.unwrap_or_else(|_| Err(sql.late(current.load(Relaxed), limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(usize, usize)>, String> {
        let sql = FinishingSql::parse("f.sql", text.as_bytes()).map_err(|e| e.to_string())?;
        let places = sql.statements.iter().map(|s| (s.number, s.line));
        Ok(places.collect())
    }

    #[test]
    fn statements_have_numbers_and_lines() {
        let text = "-- first\nUPDATE t SET a = 'b;\n';\n\n;\n/* second */ SELECT 1;SELECT 1;\n\
            DO $$ BEGIN COMMIT; END $$;\nSELECT 2\n";
        let places = [(1, 2), (2, 6), (3, 6), (4, 7), (5, 8)];
        assert_eq!(parsed(text).unwrap(), places);
        assert_eq!(parsed("\u{feff}SELECT 1").unwrap(), [(1, 1)]);
        assert_eq!(parsed("-- nothing\n"), Ok(vec![]));
    }

    #[test]
    fn what_cannot_run_in_one_transaction_is_refused_with_its_line() {
        for (text, place, what) in [
            ("SELECT 1;\n\\connect other\n", "line 2", "\\connect is"),
            ("COPY t FROM stdin;\n1\n\\.\n", "line 3", "\\. is"),
            ("SELECT 1 \\gset", "line 1", "\\gset is"),
            ("SELECT 1;\ncommit;", "statement 2 at line 2", "COMMIT "),
            ("/* x */ Begin;", "statement 1 at line 1", "BEGIN "),
            ("END", "line 1", "END "),
            ("ABORT", "line 1", "ABORT "),
            ("ROLLBACK TO s", "line 1", "ROLLBACK "),
            ("SAVEPOINT s", "line 1", "SAVEPOINT "),
            ("RELEASE s", "line 1", "RELEASE "),
            ("START TRANSACTION", "line 1", "START TRANSACTION "),
            ("PREPARE TRANSACTION 'x'", "line 1", "PREPARE TRANSACTION "),
            ("SELECT (1; COMMIT; SELECT 2", "line 1", "COMMIT "),
            ("COPY t (a, b) FROM STDIN", "line 1", "COPY FROM STDIN"),
            (
                "COPY (SELECT 1) TO STDOUT WITH (FORMAT csv)",
                "line 1",
                "COPY TO STDOUT",
            ),
            ("SELECT 1;\nSELECT 'a", "line 2", "a quote begins"),
            ("\n/* a", "line 2", "a comment begins"),
            ("SELECT\n'\0'", "line 2", "NUL"),
        ] {
            let said = parsed(text).unwrap_err();
            let begins = said.starts_with("finishing SQL f.sql, ");
            assert!(
                begins && said.contains(place) && said.contains(what),
                "{text}: {said}"
            );
        }
        let latin = FinishingSql::parse("f.sql", b"SELECT 1;\nSELECT '\xe9'").unwrap_err();
        assert!(
            latin.to_string().contains("line 2: is not UTF-8"),
            "{latin}"
        );
        let most = usize::try_from(MAX_FINISHING_BYTES).unwrap();
        assert!(parsed(&" ".repeat(most)).is_ok());
        assert!(parsed(&" ".repeat(most + 1)).unwrap_err().contains("1 MiB"));
    }

    #[test]
    fn files_that_list_objects_are_known() {
        for (text, is) in [
            (
                "DO $$ DECLARE t record; BEGIN FOR t IN SELECT * FROM pg_tables LOOP END LOOP; END $$",
                true,
            ),
            (
                "SELECT 1; SELECT count(*) FROM information_schema.tables",
                true,
            ),
            ("REASSIGN OWNED BY CURRENT_USER TO app", true),
            ("UPDATE app.users SET email = NULL", false),
        ] {
            let sql = FinishingSql::parse("f.sql", text.as_bytes()).unwrap();
            assert_eq!(sql.reads_catalog(), is, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_that_is_not_refused() {
        for text in [
            "SELECT '\\', 'COMMIT;', $$ROLLBACK;$$ -- \\x",
            "PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p",
            "COPY t FROM '/data/stdin'",
            "SELECT a FROM stdin",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END;",
            "CREATE RULE r AS ON INSERT TO t DO ALSO (DELETE FROM a; DELETE FROM b)",
            "SET CONSTRAINTS ALL IMMEDIATE; SET LOCAL statement_timeout = '5s'",
            "CREATE TABLE commit (rollback int)",
        ] {
            assert!(parsed(text).is_ok(), "{text}: {:?}", parsed(text));
        }
    }

    #[test]
    fn a_file_that_left_its_transaction_is_told_from_other_errors() {
        let sql = FinishingSql::parse("f.sql", b"SELECT 1").unwrap();
        let of = |code: &str| {
            let e = DatabaseError::new(DatabaseKind::StatementRejected, "no").with_sqlstate(code);
            sql.not_released(true, e)
        };
        for (code, is_left) in [("3B001", true), ("25P01", true), ("25P02", false)] {
            let e = of(code);
            assert_eq!(e.to_string().contains("ended the transaction"), is_left);
            assert_eq!(e.kind(), DatabaseKind::FinishingRejected, "{code}");
            assert_eq!(e.sqlstate(), Some(code));
        }
    }

    /// What another attempt may change stays what it is; everything else is the request's.
    #[test]
    fn the_servers_rejections_are_the_requests() {
        use DatabaseKind as D;
        let sql = FinishingSql::parse("f.sql", b"SELECT 1;\nSELECT 2").unwrap();
        let of = |index, is_alive, kind, code: &str| {
            let e = DatabaseError::new(kind, format!("statement: no [{code}]")).with_sqlstate(code);
            sql.rejected(index, is_alive, e)
        };
        let said = of(1, true, D::DataRejected, "23505").to_string();
        assert_eq!(
            said,
            "finishing SQL f.sql, statement 2 at line 2: statement: no [23505]"
        );
        assert!(
            of(2, true, D::DataRejected, "23503")
                .to_string()
                .contains("COMMIT at its end")
        );
        for (is_alive, kind, code, wanted) in [
            (
                true,
                D::InsufficientPrivilege,
                "42501",
                D::FinishingRejected,
            ),
            (true, D::Unavailable, "57014", D::FinishingRejected),
            (true, D::Unavailable, "57P01", D::Unavailable),
            (false, D::Unavailable, "57014", D::Unavailable),
            (true, D::InsufficientSpace, "53100", D::InsufficientSpace),
        ] {
            let e = of(0, is_alive, kind, code);
            assert_eq!((e.kind(), e.sqlstate()), (wanted, Some(code)));
        }
    }
}
