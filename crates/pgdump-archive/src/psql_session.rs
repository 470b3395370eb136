//! Follows what SQL text does to the session in which `psql` would run it: database, encoding, standard strings,
//! transactions, variables.

use std::collections::{BTreeSet, HashSet};

use super::end_marks::DumpMarks;
use super::kept_memory::KeptMemory;
use super::lexer::{Dialect, StatementEnd, Token, first_tokens};
use super::psql::{self, PsqlCommand};
use super::standard_strings::StandardStrings;
use super::toc::{corrupt, limit_error, unsupported};
use super::{Limits, TextEncoding};
use crate::error::ArchiveError;

/// Bytes of memory for a name in addition to its length.
const NAME: usize = 64;

/// The session after the text so far.
pub(super) struct PsqlSession {
    pub dialect: Dialect,
    strings: StandardStrings,
    pub encoding: TextEncoding,
    /// The encoding can no longer change: something was read, or will be, in it.
    pub is_encoding_fixed: bool,
    /// The encoding that `\encoding` names, in force from the next statement on, and its line.
    pending_encoding: Option<(String, u64)>,
    /// The database that the text creates or connects to.
    pub database: Option<String>,
    created: HashSet<String>,
    connected: Option<String>,
    pub marks: DumpMarks,
    /// The database of a cluster that is to be restored, and whether it has been found.
    pub selected_database: Option<String>,
    pub was_selected: bool,
    /// The databases of a cluster found so far.
    pub databases: BTreeSet<String>,
    /// Variables that `psql` would have set.
    variables: HashSet<String>,
    kept: KeptMemory,
}

impl PsqlSession {
    /// The session at the beginning of the text.
    pub(super) fn new(limits: Limits) -> Self {
        let what = "keeping the databases, variables and savepoints of the SQL text";
        PsqlSession {
            kept: KeptMemory::new(what, limits),
            dialect: Dialect::default(),
            strings: StandardStrings::default(),
            encoding: TextEncoding::new("UTF8"),
            is_encoding_fixed: false,
            pending_encoding: None,
            database: None,
            created: HashSet::new(),
            connected: None,
            marks: DumpMarks::default(),
            selected_database: None,
            was_selected: false,
            databases: BTreeSet::new(),
            variables: psql::PREDEFINED.map(str::to_owned).into(),
        }
    }

    /// Whether the text at this position is to be restored: for a cluster, one database.
    pub(super) fn is_selected(&self) -> bool {
        !self.marks.is_cluster()
            || (self.selected_database.is_some() && self.database == self.selected_database)
    }

    fn enter(&mut self, database: String) -> Result<(), ArchiveError> {
        if self.marks.is_cluster() {
            if !self.databases.contains(&database) {
                self.kept.charge(NAME + database.len())?;
                self.databases.insert(database.clone());
            }
            self.was_selected |= self.selected_database.as_ref() == Some(&database);
        }
        self.database = Some(database);
        Ok(())
    }

    /// Follows a `psql` command.
    pub(super) fn run(&mut self, command: PsqlCommand, at: u64) -> Result<(), ArchiveError> {
        match command {
            PsqlCommand::Connect(argument) => self.connect(&argument, at)?,
            PsqlCommand::Encoding(name) if !name.is_empty() => {
                self.pending_encoding = Some((name, at));
            }
            PsqlCommand::Variable(name) if !self.variables.contains(&name) => {
                self.kept.charge(NAME + name.len())?;
                self.variables.insert(name);
            }
            _ => {}
        }
        Ok(())
    }

    /// `\connect` to the database that the text itself has created refers to the target.
    fn connect(&mut self, argument: &str, at: u64) -> Result<(), ArchiveError> {
        let named = psql::database_of(argument);
        let fits = |name: &String| match &self.connected {
            Some(before) => name == before,
            None => self.created.contains(name),
        };
        match named {
            Some(name) if self.marks.is_cluster() || fits(&name) => {
                // A new connection has its own encoding: pg_dump writes \encoding only for the command itself.
                self.pending_encoding = None;
                self.strings = StandardStrings::default();
                self.dialect.standard_strings = true;
                self.connected = Some(name.clone());
                self.enter(name)
            }
            _ => Err(limit_error(format!(
                "line {at}: \\connect: only one database is restored, the one that the dump creates"
            ))),
        }
    }

    /// A statement begins.
    pub(super) fn begin_statement(&mut self) -> Result<(), ArchiveError> {
        match self.pending_encoding.take() {
            Some((name, at)) => self.set_encoding(&name, at),
            None => Ok(()),
        }
    }

    pub(super) fn check_statement(
        &self,
        bytes: &[u8],
        scan: &StatementEnd,
        line: u64,
    ) -> Result<(), ArchiveError> {
        // NUL bytes are invalid in every encoding of PostgreSQL.
        if memchr::memchr(0, bytes).is_some() {
            return Err(corrupt(format!(
                "line {line}: the statement contains a NUL byte"
            )));
        }
        let mut variables = scan.variables().iter();
        match variables.find(|v| *v == "{" || self.variables.contains(*v)) {
            Some(name) => Err(limit_error(format!(
                "line {line}: psql would replace the variable {name} in the statement: variables are not supported"
            ))),
            None => Ok(()),
        }
    }

    /// The text of a statement; the encoding is known for what is restored.
    pub(super) fn decode(&mut self, bytes: Vec<u8>, line: u64) -> Result<String, ArchiveError> {
        if !self.is_selected() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        self.is_encoding_fixed |= !bytes.is_ascii();
        let text = self.encoding.decode(bytes);
        text.map_err(|e| e.map_message(|m| format!("line {line}: {m}")))
    }

    /// Follows CREATE DATABASE.
    pub(super) fn create_database(&mut self, sql: &str) -> Result<(), ArchiveError> {
        let words = first_tokens(sql, self.dialect, 3);
        let Some(name) = words.get(2).and_then(Token::name) else {
            return Ok(());
        };
        if !self.created.contains(&name) {
            self.kept.charge(NAME + name.len())?;
            self.created.insert(name.clone());
        }
        self.enter(name)
    }

    /// Records what a statement says about transactions and the text's completeness.
    pub(super) fn track_transaction(
        &mut self,
        scan: &StatementEnd,
        line: u64,
    ) -> Result<(), ArchiveError> {
        let is = |words: &[&str]| scan.is(words);
        // PREPARE transaction AS … prepares a statement with that name.
        let prepares = is(&["prepare", "transaction"]) && !is(&["prepare", "transaction", "as"]);
        if prepares || is(&["commit", "prepared"]) || is(&["rollback", "prepared"]) {
            let what = format!(
                "line {line}: a prepared transaction (PREPARE TRANSACTION, COMMIT PREPARED), which pg_dump never writes"
            );
            return Err(unsupported(what));
        }
        let begins = is(&["begin"]) || is(&["start", "transaction"]);
        let ends = ends_transaction(scan);
        if begins {
            self.marks.transaction(Some(line));
        } else if ends && !is_followed_by(scan, &["and", "chain"]) {
            self.marks.transaction(None);
        }
        let harmless = [
            "set",
            "reset",
            "analyze",
            "vacuum",
            "checkpoint",
            "show",
            "discard",
        ];
        let sets = is(&["select", "pg_catalog"]) || harmless.iter().any(|w| is(&[w]));
        let is_outside = self.marks.statement(begins || ends || sets);
        if (is_outside || may_change_rows(scan)) && self.is_selected() {
            // The first one is named.
            let _ = self.marks.foreign.set(line);
        }
        Ok(())
    }

    /// The `standard_conforming_strings` of the statement that was read last.
    pub(super) fn standard_strings(&self) -> bool {
        self.dialect.standard_strings
    }

    /// Interprets settings that determine how to read the text; returns whether the statement only concerns
    /// this reader.
    pub(super) fn setting(
        &mut self,
        scan: &StatementEnd,
        text: &str,
        line: u64,
    ) -> Result<bool, ArchiveError> {
        self.strings.statement(text, self.dialect).map_err(|_| {
            ArchiveError::limit(format!(
                "line {line}: the statement may change standard_conforming_strings to a value that its text does not show"
            ))
        })?;
        self.kept.check(self.strings.memory())?;
        if self.strings.is_local() {
            // The restore is one transaction of its own, in which SET LOCAL would end too late.
            return Err(ArchiveError::limit(format!(
                "line {line}: standard_conforming_strings is set for one transaction: write SET instead of SET LOCAL"
            )));
        }
        self.dialect.standard_strings = self.strings.is_on();
        if !scan.is(&["set"]) {
            return Ok(false);
        }
        let words = first_tokens(text, self.dialect, 8);
        let first = if words
            .get(1)
            .is_some_and(|w| w.is("session") || w.is("local"))
        {
            2
        } else {
            1
        };
        let named = words.get(first).and_then(Token::name);
        let at = if named.as_deref() == Some("names") {
            first + 1
        } else {
            first + 2
        };
        let value = words.get(at).and_then(|t| t.string().or_else(|| t.name()));
        if let (Some("client_encoding" | "names"), Some(name)) = (named.as_deref(), value) {
            self.set_encoding(&name, line)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// `SET client_encoding`, which holds for the whole dump: all of its rows have the same encoding.
    fn set_encoding(&mut self, name: &str, line: u64) -> Result<(), ArchiveError> {
        if self.encoding.is_same(name) {
            return Ok(());
        }
        if self.is_encoding_fixed && self.is_selected() {
            let (now, was) = (name.to_uppercase(), self.encoding.name());
            return Err(limit_error(format!(
                "line {line}: client_encoding changes from {was} to {now} after text was read: restore the parts one by one"
            )));
        }
        self.encoding = TextEncoding::new(&name.to_uppercase());
        self.dialect.multibyte = self.encoding.multibyte();
        Ok(())
    }
}

/// Whether a statement may change rows, and is none of those with which `pg_dump` writes them.
fn may_change_rows(scan: &StatementEnd) -> bool {
    let is = |words: &[&str]| scan.is(words);
    let writes = [
        "update", "delete", "merge", "truncate", "with", "call", "do", "execute",
    ];
    (is(&["insert"]) && !scan.inserts_constants())
        || (is(&["select"]) && !is(&["select", "pg_catalog"]))
        || writes.iter().any(|w| is(&[w]))
}

/// COMMIT or ROLLBACK, also under their other names, but not ROLLBACK TO a savepoint.
fn ends_transaction(scan: &StatementEnd) -> bool {
    let is = |word: &str| scan.is(&[word]);
    let commits = is("commit") || is("end");
    commits || is("abort") || (is("rollback") && !is_followed_by(scan, &["to"]))
}

/// Whether the statement goes on with these words after its first one, and after WORK or TRANSACTION.
fn is_followed_by(scan: &StatementEnd, words: &[&str]) -> bool {
    ["commit", "end", "rollback", "abort"].iter().any(|first| {
        ["", "work", "transaction"].iter().any(|noise| {
            let first = [*first, *noise];
            let all = first.iter().filter(|w| !w.is_empty()).chain(words);
            scan.is(&all.copied().collect::<Vec<_>>())
        })
    })
}
