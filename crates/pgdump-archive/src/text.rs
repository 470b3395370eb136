//! The lexical level of SQL text: a buffer that moves forward over statements, comments, rows and `psql`
//! commands. Unneeded text is skipped without being kept.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;

use super::chunks::Statement;
use super::end_marks::{self, CLUSTER_END, CLUSTER_HEAD, DumpMarks};
use super::input_files::InputFiles;
use super::lexer::{Dialect, StatementEnd, Token, first_tokens, is_whitespace, tokens};
use super::peek_reader::PeekReader;
use super::psql::{self, PsqlCommand};
use super::recognize::{entry_of_comment, program_of_message};
use super::standard_strings::StandardStrings;
use super::text_files::TextFiles;
use super::text_item::TextItem;
use super::toc::{corrupt, limit_error, unsupported};
use super::{Limits, TextEncoding, TocEntry};
use crate::error::ArchiveError;

const READ: usize = 256 << 10;
/// Memory up to this many bytes is not checked against the budget.
const FREE_STATEMENT: u64 = 4 * READ as u64;
/// Bytes examined of a comment line.
const MAX_COMMENT: usize = 4 << 10;
/// Bytes within which the name of a program that wrote a message must end.
const MAX_PROGRAM_NAME: usize = 100;

/// The text as a buffer that moves forward.
pub(super) struct SqlReader {
    input: PeekReader<'static>,
    limits: Limits,
    buf: Vec<u8>,
    start: usize,
    pub(super) at_end: bool,
    /// Line at `start`, from 1.
    pub line: u64,
    pub consumed: u64,
    dialect: Dialect,
    strings: StandardStrings,
    pub encoding: TextEncoding,
    /// The encoding can no longer change: something was read, or will be, in it.
    pub is_encoding_fixed: bool,
    /// The encoding that `\encoding` names, in force from the next statement on, and its line.
    pending_encoding: Option<(String, u64)>,
    pub server_version: String,
    pub pg_dump_version: String,
    /// The database that the text creates or connects to.
    pub database: Option<String>,
    created: HashSet<String>,
    connected: Option<String>,
    /// Token of `\restrict`.
    restricted: Option<String>,
    pub marks: DumpMarks,
    /// The database of a cluster that is to be restored, and whether it has been found.
    pub selected_database: Option<String>,
    pub was_selected: bool,
    /// The databases of a cluster found so far.
    pub databases: BTreeSet<String>,
    /// Variables that `psql` would have set.
    variables: HashSet<String>,
    /// Where the text is in several files.
    files: Option<TextFiles>,
}

impl SqlReader {
    pub(crate) fn new(input: PeekReader<'static>, limits: Limits, files: InputFiles) -> Self {
        SqlReader {
            files: TextFiles::new(files),
            input,
            limits,
            buf: Vec::with_capacity(READ),
            start: 0,
            at_end: false,
            line: 1,
            consumed: 0,
            dialect: Dialect::default(),
            strings: StandardStrings::default(),
            encoding: TextEncoding::new("UTF8"),
            is_encoding_fixed: false,
            pending_encoding: None,
            server_version: String::new(),
            pg_dump_version: String::new(),
            database: None,
            created: HashSet::new(),
            connected: None,
            restricted: None,
            marks: DumpMarks::default(),
            selected_database: None,
            was_selected: false,
            databases: BTreeSet::new(),
            variables: psql::PREDEFINED.map(str::to_owned).into(),
        }
    }

    /// Whether the text at this position is to be restored: for a cluster, one database.
    pub(crate) fn is_selected(&self) -> bool {
        !self.marks.is_cluster()
            || (self.selected_database.is_some() && self.database == self.selected_database)
    }

    fn enter(&mut self, database: String) {
        if self.marks.is_cluster() {
            self.databases.insert(database.clone());
            self.was_selected |= self.selected_database.as_ref() == Some(&database);
        }
        self.database = Some(database);
    }

    pub(super) fn rest(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Reads more; returns whether there was more.
    pub(super) fn fill(&mut self) -> Result<bool, ArchiveError> {
        if self.at_end {
            return Ok(false);
        }
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        let kept = self.buf.len();
        let what = || {
            format!(
                "line {}: a statement of more than {} MiB",
                self.line,
                kept >> 20
            )
        };
        if kept > self.limits.max_statement {
            return Err(limit_error(format!(
                "{}, more than PostgreSQL accepts",
                what()
            )));
        }
        // Once in the text and once on its way to the server.
        if let needed @ FREE_STATEMENT.. = 2 * kept as u64 {
            self.limits.check_memory(&what(), needed)?;
        }
        if let Some(files) = &mut self.files {
            let (read, is_last) = files.read(&mut self.input, &mut self.buf, self.consumed)?;
            self.at_end = is_last;
            return Ok(read > 0);
        }
        let read = (&mut self.input)
            .take(READ as u64)
            .read_to_end(&mut self.buf);
        let read = read.map_err(|e| ArchiveError::from_io(e, "SQL text"))?;
        self.at_end = read < READ;
        Ok(read > 0)
    }

    /// Something begins at `at` that is of the dump, unless the dump was complete in the files before: an error then.
    fn begin_in_file(&mut self, at: u64) -> Result<(), ArchiveError> {
        let (files, is_complete) = (self.files.as_mut(), self.marks.is_complete());
        files.map_or(Ok(()), |files| files.begin(at, is_complete))
    }

    /// Takes note of a comment that begins in `line`, at the byte `begin`.
    fn mark(&mut self, comment: &str, line: u64, begin: u64) -> Result<(), ArchiveError> {
        if [end_marks::HEAD, CLUSTER_HEAD].contains(&comment) {
            self.begin_in_file(begin)?;
        }
        self.marks.comment(comment, line)?;
        if [end_marks::END, CLUSTER_END].contains(&comment) {
            self.end_in_file();
        }
        Ok(())
    }

    /// What ended here is of the dump.
    fn end_in_file(&mut self) {
        if let Some(files) = &mut self.files {
            files.end_before(self.consumed, self.marks.is_complete());
        }
    }

    /// Takes the first bytes out of the buffer; many of them are not copied.
    fn take(&mut self, n: usize) -> Vec<u8> {
        self.count(n);
        if self.start == 0 && n >= READ {
            let rest = self.buf.split_off(n);
            return std::mem::replace(&mut self.buf, rest);
        }
        let bytes = self.rest()[..n].to_vec();
        self.start += n;
        bytes
    }

    pub(super) fn skip(&mut self, n: usize) {
        self.count(n);
        self.start += n;
    }

    fn count(&mut self, n: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.rest()[..n]).count() as u64;
        self.consumed += n as u64;
    }

    /// Skips a line; returns its beginning, at most `most` bytes, and whether that is all of it.
    fn skip_line(&mut self, most: usize) -> Result<(String, bool), ArchiveError> {
        let (mut line, mut is_whole) = (Vec::new(), true);
        loop {
            let rest = self.rest();
            let end = memchr::memchr(b'\n', rest);
            let part = &rest[..end.unwrap_or(rest.len())];
            let kept = part.len().min(most - line.len());
            is_whole &= kept == part.len();
            line.extend_from_slice(&part[..kept]);
            self.skip(end.map_or(part.len(), |n| n + 1));
            if end.is_some() || !self.fill()? {
                return Ok((self.encoding.view(&line).trim_end().to_owned(), is_whole));
            }
        }
    }

    /// Skips a block comment of any length.
    fn skip_block_comment(&mut self) -> Result<(), ArchiveError> {
        let (begun, mut depth) = (self.line, 0_usize);
        loop {
            let rest = self.rest();
            let (mut at, mut is_done) = (0, false);
            while let Some(n) = memchr::memchr2(b'*', b'/', &rest[at..])
                && at + n + 1 < rest.len()
                && !is_done
            {
                at += n;
                at += match &rest[at..at + 2] {
                    b"/*" => {
                        depth += 1;
                        2
                    }
                    b"*/" => {
                        depth -= 1;
                        is_done = depth == 0;
                        2
                    }
                    _ => 1,
                };
            }
            if is_done {
                self.skip(at);
                return Ok(());
            }
            // A last byte that may be half of a comment delimiter stays.
            let is_half = at < rest.len() && rest.last().is_some_and(|b| matches!(b, b'*' | b'/'));
            self.skip(self.rest().len() - usize::from(is_half));
            if !self.fill()? {
                let what = format!(
                    "the dump ends early: a comment that begins in line {begun} does not end"
                );
                return Err(corrupt(what));
            }
        }
    }

    fn skip_whitespace(&mut self) -> Result<(), ArchiveError> {
        loop {
            let rest = self.rest();
            let n = rest
                .iter()
                .position(|b| !is_whitespace(*b))
                .unwrap_or(rest.len());
            self.skip(n);
            // Two bytes determine what begins here.
            if self.rest().len() >= 2 || !self.fill()? {
                return Ok(());
            }
        }
    }

    pub(crate) fn next(&mut self) -> Result<TextItem, ArchiveError> {
        loop {
            self.skip_byte_order_mark()?;
            self.skip_whitespace()?;
            let item = match self.rest() {
                [] => Some(self.finish()?),
                [b'\\', ..] => {
                    self.command_in_file()?;
                    None
                }
                [b'-', b'-', ..] => self.comment_line()?,
                [b'/', b'*', ..] => {
                    self.skip_block_comment()?;
                    None
                }
                [b';', ..] => {
                    self.skip(1);
                    None
                }
                _ => self.statement_in_file()?,
            };
            if let Some(item) = item {
                return Ok(item);
            }
        }
    }

    fn command_in_file(&mut self) -> Result<(), ArchiveError> {
        // `\unrestrict` is the last line of some dumps.
        if self.restricted.is_none() {
            self.begin_in_file(self.consumed)?;
        }
        self.command()?;
        self.end_in_file();
        Ok(())
    }

    fn statement_in_file(&mut self) -> Result<Option<TextItem>, ArchiveError> {
        self.begin_in_file(self.consumed)?;
        let item = self.statement()?;
        self.end_in_file();
        Ok(item)
    }

    fn skip_byte_order_mark(&mut self) -> Result<(), ArchiveError> {
        if self.consumed == 0 && self.rest().is_empty() {
            self.fill()?;
            if self.rest().starts_with(b"\xef\xbb\xbf") {
                self.skip(3);
            }
        }
        Ok(())
    }

    fn comment_line(&mut self) -> Result<Option<TextItem>, ArchiveError> {
        let (at, begin) = (self.line, self.consumed);
        let (comment, _) = self.skip_line(MAX_COMMENT)?;
        self.mark(&comment, at, begin)?;
        if comment == end_marks::END && self.marks.is_cluster() {
            self.database = None;
        }
        let entry = self.comment(&comment);
        Ok(entry.map(|entry| TextItem::Entry(Box::new(entry))))
    }

    fn unfinished(&self, what: &str) -> ArchiveError {
        match what {
            "a psql command in a statement" => unsupported(format!("line {}: {what}", self.line)),
            _ => corrupt(format!(
                "the dump ends early: {what} that begins in line {} does not end",
                self.line
            )),
        }
    }

    fn finish(&self) -> Result<TextItem, ArchiveError> {
        let is_complete = self.marks.finish(self.line)?;
        if self.restricted.is_some() {
            return Err(corrupt("the dump ends early: \\unrestrict is missing"));
        }
        Ok(TextItem::End(is_complete))
    }

    /// Parses versions, and the entries that `pg_dump` names before their statements.
    fn comment(&mut self, line: &str) -> Option<TocEntry> {
        if let Some(v) = line.strip_prefix("-- Dumped from database version ") {
            v.clone_into(&mut self.server_version);
        } else if let Some(v) = line.strip_prefix("-- Dumped by pg_dump version ") {
            v.clone_into(&mut self.pg_dump_version);
        }
        entry_of_comment(line)
    }

    /// Parses a line that begins with a backslash.
    fn command(&mut self) -> Result<(), ArchiveError> {
        let at = self.line;
        let (line, is_whole) = self.skip_line(psql::MAX_COMMAND)?;
        if !is_whole {
            return Err(command_too_long(&line, at));
        }
        let command = psql::command(&line, at)?;
        let name = line.split_whitespace().next().unwrap_or_default();
        match command {
            PsqlCommand::Restrict(token) if self.restricted.is_none() => {
                self.restricted = Some(token);
            }
            PsqlCommand::Unrestrict(token) if self.restricted.as_ref() == Some(&token) => {
                self.restricted = None;
            }
            PsqlCommand::Restrict(_) | PsqlCommand::Unrestrict(_) => {
                return Err(corrupt(format!(
                    "line {at}: {name} does not match the one before it"
                )));
            }
            _ if self.restricted.is_some() => {
                return Err(unsupported(format!(
                    "line {at}: the psql command {name} is between \\restrict and \\unrestrict, where psql runs no commands"
                )));
            }
            command => self.run(command, at)?,
        }
        Ok(())
    }

    fn run(&mut self, command: PsqlCommand, at: u64) -> Result<(), ArchiveError> {
        match command {
            PsqlCommand::Connect(argument) => self.connect(&argument, at)?,
            PsqlCommand::Encoding(name) if !name.is_empty() => {
                self.pending_encoding = Some((name, at));
            }
            PsqlCommand::Variable(name) => drop(self.variables.insert(name)),
            PsqlCommand::Quit => self.quit()?,
            _ => {}
        }
        Ok(())
    }

    /// Skips everything that `psql` would no longer read.
    fn quit(&mut self) -> Result<(), ArchiveError> {
        loop {
            self.skip(self.rest().len());
            if !self.fill()? {
                return Ok(());
            }
        }
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
                self.enter(name);
                Ok(())
            }
            _ => Err(unsupported(format!(
                "line {at}: \\connect: only one database is restored, the one that the dump creates"
            ))),
        }
    }

    /// A line that a program wrote to its standard error, in the place of a statement.
    fn reject_program_message(&mut self) -> Result<(), ArchiveError> {
        while self.rest().len() < MAX_PROGRAM_NAME
            && !self.rest().contains(&b'\n')
            && self.fill()?
        {}
        let rest = self.rest();
        let Some(program) = program_of_message(&rest[..rest.len().min(MAX_PROGRAM_NAME)]) else {
            return Ok(());
        };
        Err(corrupt(format!(
            "line {}: a message of {program}, not SQL: its standard error was written to the file (2>&1); dump again \
             with --file, or remove the line if it is only a warning",
            self.line
        )))
    }

    /// Length of the statement at the start of the buffer.
    fn find_end(&mut self, scan: &mut StatementEnd) -> Result<Option<usize>, ArchiveError> {
        loop {
            let found = scan
                .find(self.rest(), self.dialect, self.at_end)
                .map_err(|e| self.unfinished(e.0))?;
            if found.is_some() || !self.fill()? {
                return Ok(found);
            }
        }
    }

    /// The statement at the start of the buffer; `None` for one that only concerns this reader.
    fn statement(&mut self) -> Result<Option<TextItem>, ArchiveError> {
        self.reject_program_message()?;
        if let Some((name, at)) = self.pending_encoding.take() {
            self.set_encoding(&name, at)?;
        }
        let mut scan = StatementEnd::default();
        let line = self.line;
        let bytes = self.take_statement(&mut scan)?;
        self.check_statement(&bytes, &scan, line)?;
        self.track_transaction(&scan, line)?;
        if scan.is(&["insert", "into"]) && scan.inserts_constants() {
            return Ok(Some(TextItem::Insert { bytes, line }));
        }
        let text = self.decode(bytes, line)?;
        if scan.is(&["copy"]) {
            return self.copy(Statement { text, line }).map(Some);
        }
        let is_for_us = self.setting(&scan, &text, line)?;
        if scan.is(&["create", "database"]) {
            self.create_database(&text);
        }
        Ok((!is_for_us).then_some(TextItem::Statement(Statement { text, line })))
    }

    /// The bytes of the statement at the start of the buffer, with its semicolon.
    fn take_statement(&mut self, scan: &mut StatementEnd) -> Result<Vec<u8>, ArchiveError> {
        if let Some(n) = self.find_end(scan)? {
            return Ok(self.take(n));
        }
        if self.marks.is_open() || scan.is_open() {
            return Err(self.unfinished("a statement"));
        }
        // psql also sends the last statement of a file without a semicolon.
        let mut bytes = self.take(self.rest().len());
        bytes.push(b';');
        Ok(bytes)
    }

    fn check_statement(
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
            Some(name) => Err(unsupported(format!(
                "line {line}: psql would replace the variable {name} in the statement: variables are not supported"
            ))),
            None => Ok(()),
        }
    }

    /// The text of a statement; the encoding is known for what is restored.
    fn decode(&mut self, bytes: Vec<u8>, line: u64) -> Result<String, ArchiveError> {
        if !self.is_selected() {
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        self.is_encoding_fixed |= !bytes.is_ascii();
        let text = self.encoding.decode(bytes);
        text.map_err(|e| e.map_message(|m| format!("line {line}: {m}")))
    }

    fn create_database(&mut self, sql: &str) {
        let words = first_tokens(sql, self.dialect, 3);
        if let Some(name) = words.get(2).and_then(Token::name) {
            self.created.insert(name.clone());
            self.enter(name);
        }
    }

    /// Records what a statement says about transactions and the text's completeness.
    fn track_transaction(&mut self, scan: &StatementEnd, line: u64) -> Result<(), ArchiveError> {
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
        let ends = is(&["commit"]) || is(&["end"]);
        if begins {
            self.marks.transaction(Some(line));
        } else if ends && !is(&["commit", "and", "chain"]) {
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
        self.marks.statement(begins || ends || sets);
        Ok(())
    }

    /// The `standard_conforming_strings` of the statement that was read last.
    pub(super) fn standard_strings(&self) -> bool {
        self.dialect.standard_strings
    }

    /// Interprets settings that determine how to read the text; returns whether the statement only concerns
    /// this reader.
    fn setting(
        &mut self,
        scan: &StatementEnd,
        text: &str,
        line: u64,
    ) -> Result<bool, ArchiveError> {
        self.strings.statement(text, self.dialect).map_err(|_| {
            ArchiveError::limit(format!(
                "line {line}: the statement may change standard_conforming_strings, and its text does not tell to what"
            ))
        })?;
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

    fn copy(&mut self, statement: Statement) -> Result<TextItem, ArchiveError> {
        let words = tokens(&statement.text, self.dialect);
        let from = words
            .windows(2)
            .position(|w| w[0].is("from") && w[1].is("stdin"));
        let Some(from) = from else {
            return Err(unsupported(format!(
                "line {}: COPY is not FROM stdin, which pg_dump always writes",
                statement.line
            )));
        };
        if words.len() > from + 3 {
            let what = format!(
                "line {}: COPY has options, which pg_dump never writes",
                statement.line
            );
            return Err(unsupported(what));
        }
        // The rows begin on the next line.
        let (behind, _) = self.skip_line(MAX_COMMENT)?;
        if !behind.is_empty() && !behind.trim_start().starts_with("--") {
            let what = format!(
                "line {}: COPY is followed by other text on its line",
                statement.line
            );
            return Err(unsupported(what));
        }
        Ok(TextItem::Copy(statement))
    }
}

fn command_too_long(line: &str, at: u64) -> ArchiveError {
    let name = line.chars().take_while(|c| !c.is_whitespace()).take(40);
    let (name, most) = (name.collect::<String>(), psql::MAX_COMMAND >> 10);
    unsupported(format!(
        "line {at}: the psql command {name} has more than {most} KiB"
    ))
}
