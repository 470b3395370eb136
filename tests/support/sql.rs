//! SQL of tests without psql: to start one takes more of the processor than most statements do, and to start a session takes
//! more than one that is kept.

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage};

/// A session of a test. Nothing drives its connection while it is not used.
pub struct TestSession(Option<OpenSession>);

struct OpenSession {
    runtime: Runtime,
    client: Client,
    driver: JoinHandle<Result<(), Error>>,
}

impl Drop for TestSession {
    fn drop(&mut self) {
        // Where it is dropped may be in another runtime, in which nothing may block.
        if let Some(open) = self.0.take() {
            open.runtime.shutdown_background();
        }
    }
}

impl TestSession {
    /// Not in a runtime, as all of these ([`outside`]).
    pub fn open(config: &Config) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (client, connection) = runtime.block_on(config.connect(NoTls)).unwrap();
        let driver = runtime.spawn(connection);
        TestSession(Some(OpenSession {
            runtime,
            client,
            driver,
        }))
    }

    /// What psql prints of these statements, unaligned.
    ///
    /// # Errors
    /// The statement and its error.
    pub fn run<'a>(&self, statements: &[&'a str]) -> Result<String, (&'a str, Error)> {
        let open = self.0.as_ref().unwrap();
        let mut lines = vec![];
        for statement in statements {
            let asked = open.runtime.block_on(open.client.simple_query(statement));
            for answer in asked.map_err(|e| (*statement, e))? {
                if let SimpleQueryMessage::Row(row) = answer {
                    let values = (0..row.len()).map(|i| row.get(i).unwrap_or_default());
                    lines.push(values.collect::<Vec<_>>().join("|"));
                }
            }
        }
        Ok(lines.join("\n").trim_end().to_owned())
    }

    /// Says goodbye to the server.
    pub fn close(mut self) {
        let open = self.0.take().unwrap();
        drop(open.client);
        // Or the server has gone before.
        let _ = open.runtime.block_on(open.driver);
    }
}

/// Runs what blocks, on a thread of its own if the caller is in a runtime.
pub fn outside<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    if Handle::try_current().is_err() {
        return run();
    }
    let ran = std::thread::scope(|threads| threads.spawn(run).join());
    ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Whether the error is that the session is gone, such as because the server was restarted.
pub fn is_lost(error: &Error) -> bool {
    error
        .as_db_error()
        .is_none_or(|e| e.code().code().starts_with("57P"))
}

/// Whether a statement leaves nothing in its session, so that the next one may follow there. One that changes settings of
/// new sessions is none of these.
pub fn leaves_nothing(statement: &str) -> bool {
    const WORDS: [&str; 13] = [
        "ALTER", "COMMENT", "CREATE", "DELETE", "DROP", "GRANT", "INSERT", "REVOKE", "SELECT",
        "SHOW", "TABLE", "TRUNCATE", "UPDATE",
    ];
    // Temporary tables, locks, settings of sessions, and those of new ones.
    const LEFT: [&str; 7] = [
        " TEMP ",
        " TEMPORARY ",
        "ADVISORY",
        "SET_CONFIG",
        "RELOAD_CONF",
        " SET ",
        " RESET ",
    ];
    let statement = statement.to_ascii_uppercase();
    let first = statement.split_whitespace().next().unwrap_or_default();
    // SET is also a part of an UPDATE.
    let left = if first == "UPDATE" {
        &LEFT[..5]
    } else {
        &LEFT[..]
    };
    WORDS.contains(&first) && !left.iter().any(|part| statement.contains(part))
}

/// The statements of a text; `None` if it is one for psql: with commands or variables of psql, with rows, or with what is not
/// told apart here.
pub fn statements(sql: &str) -> Option<Vec<&str>> {
    let (mut found, mut begin, mut depth, mut at) = (vec![], 0, 0, 0);
    let bytes = sql.as_bytes();
    while at < bytes.len() {
        let rest = &sql.as_bytes()[at..];
        match bytes[at] {
            b'\\' => return None,
            b'\'' | b'"' => at += quoted(sql, at)?,
            b'$' => at += dollar_quoted(sql, at)?,
            b'-' if rest.starts_with(b"--") => {
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
            }
            b'/' if rest.starts_with(b"/*") => at += sql[at..].find("*/")? + 2,
            b';' if depth == 0 => {
                found.push(&sql[begin..at]);
                at += 1;
                begin = at;
            }
            other => {
                depth += i32::from(other == b'(') - i32::from(other == b')');
                at += 1;
            }
        }
    }
    found.push(&sql[begin..]);
    found.retain(|s| !s.trim().is_empty());
    found.iter().all(|s| is_of_the_server(s)).then_some(found)
}

/// Whether psql sends a statement as it is, and prints nothing but rows.
fn is_of_the_server(statement: &str) -> bool {
    let statement = statement.trim_start().to_ascii_uppercase();
    let has_rows = statement.starts_with("COPY") && statement.contains("STD");
    !has_rows && !statement.contains("BEGIN ATOMIC")
}

/// The length of a string or name in quotes that begins at `at`.
fn quoted(sql: &str, at: usize) -> Option<usize> {
    let bytes = sql.as_bytes();
    let quote = bytes[at];
    let before = |n: usize| at.checked_sub(n).map(|i| bytes[i]);
    let is_of_word = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let escapes =
        quote == b'\'' && matches!(before(1), Some(b'e' | b'E')) && !is_of_word(before(2));
    let mut end = at + 1;
    while end < bytes.len() {
        match bytes[end] {
            b'\\' if escapes => end += 2,
            // Two of them are one, which begins another string here.
            b if b == quote => return Some(end + 1 - at),
            _ => end += 1,
        }
    }
    None
}

/// The length of a string in dollar quotes that begins at `at`; 1 if none does.
fn dollar_quoted(sql: &str, at: usize) -> Option<usize> {
    let is_of_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
    let bytes = sql.as_bytes();
    let is_in_word = at > 0 && is_of_word(bytes[at - 1]);
    let tag = bytes[at + 1..]
        .iter()
        .take_while(|b| is_of_word(**b))
        .count();
    let is_tag = bytes.get(at + 1 + tag) == Some(&b'$') && !bytes[at + 1].is_ascii_digit();
    if is_in_word || !is_tag {
        return Some(1);
    }
    let (begin, tag) = (at + tag + 2, &sql[at..at + tag + 2]);
    Some(begin + sql[begin..].find(tag)? + tag.len() - at)
}

#[test]
fn texts_are_split_where_psql_splits_them() {
    let split = |sql| -> Option<Vec<String>> {
        let all = statements(sql)?.into_iter();
        Some(all.map(|s| s.trim().to_owned()).collect())
    };
    let parts = |all: &[&str]| Some(all.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    for (sql, wanted) in [
        ("SELECT 1", parts(&["SELECT 1"])),
        (
            "SELECT ';'; SELECT 'a'';'",
            parts(&["SELECT ';'", "SELECT 'a'';'"]),
        ),
        (
            "SELECT E'\\';'; TABLE \"a;b\";",
            parts(&["SELECT E'\\';'", "TABLE \"a;b\""]),
        ),
        (
            "DO $$ BEGIN; $x$ $$; SELECT $1$2, a$b$c; SELECT $é$;$$;$é$",
            parts(&[
                "DO $$ BEGIN; $x$ $$",
                "SELECT $1$2, a$b$c",
                "SELECT $é$;$$;$é$",
            ]),
        ),
        (
            "SELECT 1 -- ;'\n; /* ;' */ CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            parts(&[
                "SELECT 1 -- ;'",
                "/* ;' */ CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)",
            ]),
        ),
        ("SELECT '\\x00'", parts(&["SELECT '\\x00'"])),
        ("\\connect x\nSELECT 1", None),
        ("SELECT 1 \\gexec", None),
        ("COPY t FROM stdin;\n1\n\\.\n", None),
        (
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; END",
            None,
        ),
        ("SELECT 'open", None),
    ] {
        assert_eq!(split(sql), wanted, "{sql}");
    }
    for (statement, is_so) in [
        ("SELECT count(*) FROM pg_database", true),
        ("CREATE DATABASE a TEMPLATE b", true),
        ("UPDATE t SET a = 1", true),
        ("CREATE TEMP TABLE t ()", false),
        ("SELECT pg_advisory_lock(1)", false),
        ("ALTER ROLE postgres SET work_mem = '1MB'", false),
        ("SET ROLE a", false),
        ("DO 'BEGIN END'", false),
    ] {
        assert_eq!(leaves_nothing(statement), is_so, "{statement}");
    }
}
