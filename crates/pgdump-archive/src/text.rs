//! The lexical level of SQL text: a buffer that moves forward over statements, comments, rows and `psql`
//! commands. Unneeded text is skipped without being kept.

use std::io::Read;

use super::chunks::Statement;
use super::end_marks::{self, CLUSTER_END, CLUSTER_HEAD};
use super::input_files::InputFiles;
use super::lexer::{COMMAND_IN_STATEMENT, StatementEnd, Token, TokenKind, is_whitespace, tokens};
use super::peek_reader::PeekReader;
use super::psql::{self, PsqlCommand};
use super::psql_session::PsqlSession;
use super::recognize::{entry_of_comment, program_of_message};
use super::text_files::TextFiles;
use super::text_item::TextItem;
use super::toc::{corrupt, limit_error, unsupported};
use super::{Limits, TocEntry};
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
    pub server_version: String,
    pub pg_dump_version: String,
    /// Token of `\restrict`.
    restricted: Option<String>,
    /// What the text has set so far.
    pub session: PsqlSession,
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
            server_version: String::new(),
            pg_dump_version: String::new(),
            restricted: None,
            session: PsqlSession::new(limits),
        }
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
        let (files, is_complete) = (self.files.as_mut(), self.session.marks.is_complete());
        files.map_or(Ok(()), |files| files.begin(at, is_complete))
    }

    /// Takes note of a comment that begins in `line`, at the byte `begin`.
    fn mark(&mut self, comment: &str, line: u64, begin: u64) -> Result<(), ArchiveError> {
        if [end_marks::HEAD, CLUSTER_HEAD].contains(&comment) {
            self.begin_in_file(begin)?;
        }
        self.session.marks.comment(comment, line)?;
        if [end_marks::END, CLUSTER_END].contains(&comment) {
            self.end_in_file();
        }
        Ok(())
    }

    /// What ended here is of the dump.
    fn end_in_file(&mut self) {
        if let Some(files) = &mut self.files {
            files.end_before(self.consumed, self.session.marks.is_complete());
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
                return Ok((
                    self.session.encoding.view(&line).trim_end().to_owned(),
                    is_whole,
                ));
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
        if comment == end_marks::END && self.session.marks.is_cluster() {
            self.session.database = None;
        }
        let entry = self.comment(&comment);
        Ok(entry.map(|entry| TextItem::Entry(Box::new(entry))))
    }

    fn unfinished(&self, what: &str) -> ArchiveError {
        corrupt(format!(
            "the dump ends early: {what} that begins in line {} does not end",
            self.line
        ))
    }

    /// A backslash in a statement; `scan` has just passed it.
    fn command_in_statement(&self, scan: &StatementEnd) -> ArchiveError {
        let what = format!("line {}: {COMMAND_IN_STATEMENT}", self.line);
        let behind = self.rest().get(scan.position..).unwrap_or_default();
        psql::not_taken(psql::has_command(behind), what)
    }

    fn finish(&self) -> Result<TextItem, ArchiveError> {
        let is_complete = self.session.marks.finish(self.line)?;
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
            PsqlCommand::Quit => self.quit()?,
            command => self.session.run(command, at)?,
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
                .find(self.rest(), self.session.dialect, self.at_end)
                .map_err(|e| match e.0 {
                    COMMAND_IN_STATEMENT => self.command_in_statement(scan),
                    what => self.unfinished(what),
                })?;
            if found.is_some() || !self.fill()? {
                return Ok(found);
            }
        }
    }

    /// The statement at the start of the buffer; `None` for one that only concerns this reader.
    fn statement(&mut self) -> Result<Option<TextItem>, ArchiveError> {
        self.reject_program_message()?;
        self.session.begin_statement()?;
        let mut scan = StatementEnd::default();
        let line = self.line;
        let bytes = self.take_statement(&mut scan)?;
        self.session.check_statement(&bytes, &scan, line)?;
        self.session.track_transaction(&scan, line)?;
        if scan.is(&["insert", "into"]) && scan.inserts_constants() {
            return Ok(Some(TextItem::Insert { bytes, line }));
        }
        let statement = Statement {
            text: self.session.decode(bytes, line)?,
            line,
            standard_strings: self.session.standard_strings(),
        };
        if scan.is(&["copy"]) {
            return self.copy(statement).map(Some);
        }
        let is_for_us = self.session.setting(&scan, &statement.text, line)?;
        if scan.is(&["create", "database"]) {
            self.session.create_database(&statement.text)?;
        }
        Ok((!is_for_us).then_some(TextItem::Statement(statement)))
    }

    /// The bytes of the statement at the start of the buffer, with its semicolon.
    fn take_statement(&mut self, scan: &mut StatementEnd) -> Result<Vec<u8>, ArchiveError> {
        if let Some(n) = self.find_end(scan)? {
            return Ok(self.take(n));
        }
        if self.session.marks.is_open() || scan.is_open() {
            return Err(self.unfinished("a statement"));
        }
        // psql also sends the last statement of a file without a semicolon.
        let mut bytes = self.take(self.rest().len());
        bytes.push(b';');
        Ok(bytes)
    }

    fn copy(&mut self, statement: Statement) -> Result<TextItem, ArchiveError> {
        let words = tokens(&statement.text, self.session.dialect);
        let from = words
            .windows(2)
            .position(|w| w[0].is("from") && w[1].is("stdin"));
        let Some(from) = from else {
            let what = format!(
                "line {}: COPY is not FROM stdin, which pg_dump always writes",
                statement.line
            );
            return Err(psql::not_taken(copies_elsewhere(&words), what));
        };
        if words.len() > from + 3 {
            let is_known = words.get(from + 2).is_some_and(begins_copy_options);
            let what = format!(
                "line {}: COPY has options, which pg_dump never writes",
                statement.line
            );
            return Err(psql::not_taken(is_known, what));
        }
        // The rows begin on the next line.
        let (behind, _) = self.skip_line(MAX_COMMENT)?;
        if !behind.is_empty() && !behind.trim_start().starts_with("--") {
            let what = format!(
                "line {}: COPY is followed by other text on its line",
                statement.line
            );
            return Err(limit_error(what));
        }
        Ok(TextItem::Copy(statement))
    }
}

/// Whether a COPY without `FROM stdin` is one that PostgreSQL knows: to or from a file, a program or `stdout`.
fn copies_elsewhere(words: &[Token<'_>]) -> bool {
    words.windows(2).any(|w| {
        let is_place = w[1].kind == TokenKind::StringConstant
            || ["program", "stdout", "stdin"].iter().any(|p| w[1].is(p));
        (w[0].is("from") || w[0].is("to")) && is_place
    })
}

/// Whether the word behind `FROM stdin` begins options, in the form of any version of PostgreSQL.
fn begins_copy_options(word: &Token<'_>) -> bool {
    const OPTIONS: [&str; 15] = [
        "with",
        "where",
        "using",
        "binary",
        "oids",
        "freeze",
        "delimiter",
        "delimiters",
        "null",
        "csv",
        "header",
        "quote",
        "escape",
        "encoding",
        "force",
    ];
    word.is_symbol(b'(') || OPTIONS.iter().any(|o| word.is(o))
}

fn command_too_long(line: &str, at: u64) -> ArchiveError {
    let name = line.split_whitespace().next().unwrap_or_default();
    let (command, most) = (psql::in_words(name), psql::MAX_COMMAND >> 10);
    limit_error(format!("line {at}: {command} has more than {most} KiB"))
}
