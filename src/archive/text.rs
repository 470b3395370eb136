//! The lexical side of SQL text: a buffer that moves forward over statements, comments, rows and
//! the few commands of `psql` that `pg_dump` writes.

use std::io::Read;

use super::layers::Head;
use super::lexer::{Dialect, Lexeme, StatementEnd, Token, lexeme, tokens};
use super::pieces::{DataSink, PIECE, Piece, Statement};
use super::toc::{beyond_us, corrupt, unsupported};
use super::{Limits, Section, TextEncoding, TocEntry};
use crate::error::RestoreError;

const READ: usize = 256 << 10;
const END_OF_DUMP: &str = "-- PostgreSQL database dump complete";

/// What stands in the text.
pub(super) enum Item {
    Statement(Statement),
    /// `COPY … FROM stdin`: its rows come next in the text.
    Copy(Statement),
    Insert {
        bytes: Vec<u8>,
        line: u64,
    },
    /// A comment line that says which entry comes: kind, name, schema, owner.
    Entry(Box<TocEntry>),
    End,
}

/// The text as a buffer that moves forward.
pub(super) struct Text {
    input: Head<'static>,
    limits: Limits,
    buf: Vec<u8>,
    start: usize,
    at_end: bool,
    /// Line at `start`, from 1.
    pub line: u64,
    pub consumed: u64,
    dialect: Dialect,
    pub encoding: TextEncoding,
    /// Something was read, or will be, in this encoding and no other.
    pub encoding_matters: bool,
    pub server_version: String,
    pub pg_dump_version: String,
    /// Name in `CREATE DATABASE`, which `\connect` may name.
    pub database: Option<String>,
    connected: bool,
    /// Token of `\restrict`.
    restricted: Option<String>,
    complete: bool,
}

impl Text {
    pub fn new(input: Head<'static>, limits: Limits) -> Self {
        Text {
            input,
            limits,
            buf: Vec::with_capacity(READ),
            start: 0,
            at_end: false,
            line: 1,
            consumed: 0,
            dialect: Dialect::default(),
            encoding: TextEncoding::new("UTF8"),
            encoding_matters: false,
            server_version: String::new(),
            pg_dump_version: String::new(),
            database: None,
            connected: false,
            restricted: None,
            complete: false,
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buf[self.start..]
    }

    /// Reads on, as much again as there is already; says whether there was more.
    fn more(&mut self) -> Result<bool, RestoreError> {
        if self.at_end {
            return Ok(false);
        }
        if self.start > 0 {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        let want = READ.max(self.buf.len());
        if self.buf.len() > self.limits.max_statement {
            return Err(corrupt(format!(
                "line {}: a statement of more than {} bytes",
                self.line,
                self.buf.len()
            )));
        }
        let read = (&mut self.input).take(want as u64).read_to_end(&mut self.buf);
        let read = read.map_err(|e| RestoreError::from_archive_io(e, "SQL text"))?;
        self.at_end = read < want;
        Ok(read > 0)
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let bytes = self.buf[self.start..self.start + n].to_vec();
        self.pass(n);
        bytes
    }

    fn pass(&mut self, n: usize) {
        self.line += memchr::memchr_iter(b'\n', &self.buf[self.start..self.start + n]).count() as u64;
        self.start += n;
        self.consumed += n as u64;
    }

    /// A line without its end.
    fn take_line(&mut self) -> Result<String, RestoreError> {
        loop {
            if let Some(n) = memchr::memchr(b'\n', self.rest()) {
                let line = self.take(n + 1);
                return Ok(self.encoding.view(&line).trim_end().to_owned());
            }
            if !self.more()? {
                let line = self.take(self.rest().len());
                return Ok(self.encoding.view(&line).trim_end().to_owned());
            }
        }
    }

    pub fn next(&mut self) -> Result<Item, RestoreError> {
        loop {
            if self.consumed == 0 && self.rest().is_empty() {
                self.more()?;
                if self.rest().starts_with(b"\xef\xbb\xbf") {
                    self.start += 3;
                }
            }
            if self.rest().is_empty() && !self.more()? {
                return self.finish();
            }
            if self.rest()[0] == b'\\' {
                self.command()?;
                continue;
            }
            let found = lexeme(self.rest(), self.dialect, self.at_end).map_err(|e| self.unfinished(e.0))?;
            match found {
                None if self.more()? => {}
                None => return Err(self.unfinished("a statement")),
                Some((Lexeme::Blank, n)) => self.pass(n),
                Some((Lexeme::Comment, _)) if self.rest().starts_with(b"--") => {
                    let comment = self.take_line()?;
                    if let Some(entry) = self.comment(&comment) {
                        return Ok(Item::Entry(Box::new(entry)));
                    }
                }
                Some((Lexeme::Comment, n)) => self.pass(n),
                Some((Lexeme::Symbol(b';'), n)) => self.pass(n),
                Some(_) => {
                    if let Some(item) = self.statement()? {
                        return Ok(item);
                    }
                }
            }
        }
    }

    fn unfinished(&self, what: &str) -> RestoreError {
        match what {
            "a command of psql in a statement" => unsupported(format!("line {}: {what}", self.line)),
            _ => {
                corrupt(format!("the dump ends early: {what} that begins in line {} does not end", self.line))
            }
        }
    }

    fn finish(&self) -> Result<Item, RestoreError> {
        if !self.complete {
            let what = format!(
                "the dump ends early, in line {}: its last line, {END_OF_DUMP:?}, is missing",
                self.line
            );
            return Err(corrupt(what));
        }
        if self.restricted.is_some() {
            return Err(corrupt("the dump ends early: \\unrestrict is missing"));
        }
        Ok(Item::End)
    }

    /// Versions, the end, and the entries that `pg_dump` names before their statements.
    fn comment(&mut self, line: &str) -> Option<TocEntry> {
        if let Some(v) = line.strip_prefix("-- Dumped from database version ") {
            v.clone_into(&mut self.server_version);
        } else if let Some(v) = line.strip_prefix("-- Dumped by pg_dump version ") {
            v.clone_into(&mut self.pg_dump_version);
        } else if line == END_OF_DUMP {
            self.complete = true;
        }
        let (is_data, rest) = match (line.strip_prefix("-- Name: "), line.strip_prefix("-- Data for Name: "))
        {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return None,
        };
        // A name may hold anything: the fields are looked for from the end.
        let (rest, _) = rest.split_once("; Tablespace: ").unwrap_or((rest, ""));
        let (rest, owner) = rest.rsplit_once("; Owner: ")?;
        let (rest, schema) = rest.rsplit_once("; Schema: ")?;
        let (tag, desc) = rest.rsplit_once("; Type: ")?;
        let mut entry = TocEntry::bare(0, desc, tag);
        entry.namespace = (schema != "-").then(|| schema.to_owned());
        if owner != "-" {
            owner.clone_into(&mut entry.owner);
        }
        if is_data {
            (entry.section, entry.has_data) = (Section::Data, true);
        }
        Some(entry)
    }

    /// A line that begins with a backslash.
    fn command(&mut self) -> Result<(), RestoreError> {
        let at = self.line;
        let line = self.take_line()?;
        let (name, argument) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
        let argument = argument.trim();
        match name {
            "\\restrict" if self.restricted.is_none() && !argument.is_empty() => {
                self.restricted = Some(argument.to_owned());
                Ok(())
            }
            "\\unrestrict" if self.restricted.as_deref() == Some(argument) => {
                self.restricted = None;
                Ok(())
            }
            "\\restrict" | "\\unrestrict" => {
                Err(corrupt(format!("line {at}: {name} does not match the one before it")))
            }
            // Stands before \connect to a database with an odd name; the dump sets its own encoding.
            "\\encoding" if self.restricted.is_none() && !self.connected => Ok(()),
            "\\connect" | "\\c" if self.restricted.is_none() => self.connect(argument, at),
            _ => Err(unsupported(format!(
                "line {at}: the command {name} of psql: commands of psql are not run (pg_dump writes none of them)"
            ))),
        }
    }

    /// `\connect` to the database that the dump itself has just created means the target.
    fn connect(&mut self, argument: &str, at: u64) -> Result<(), RestoreError> {
        let words = tokens(argument, Dialect::default());
        let named = match words.as_slice() {
            [one] => one.name(),
            // -reuse-previous=on "dbname='odd name'"
            _ => argument.split_once("\"dbname='").and_then(|(_, rest)| {
                Some(
                    rest.strip_suffix("'\"")?.replace("\\'", "'").replace("\\\\", "\\").replace("\"\"", "\""),
                )
            }),
        };
        if self.connected || named.is_none() || named != self.database {
            return Err(unsupported(format!(
                "line {at}: \\connect: only one database is restored, the one that the dump creates"
            )));
        }
        self.connected = true;
        Ok(())
    }

    /// The statement at the start of the buffer; `None` for one that is for this reader alone.
    fn statement(&mut self) -> Result<Option<Item>, RestoreError> {
        let mut scan = StatementEnd::default();
        let n = loop {
            let found =
                scan.find(self.rest(), self.dialect, self.at_end).map_err(|e| self.unfinished(e.0))?;
            match found {
                Some(n) => break n,
                None if self.more()? => {}
                None => return Err(self.unfinished("a statement")),
            }
        };
        let line = self.line;
        if self.complete {
            return Err(corrupt(format!("line {line}: a statement after the end of the dump")));
        }
        let bytes = self.take(n);
        // No encoding of PostgreSQL has one.
        if bytes.contains(&0) {
            return Err(corrupt(format!("line {line}: a statement with a NUL byte")));
        }
        if scan.is(&["insert", "into"]) {
            return Ok(Some(Item::Insert { bytes, line }));
        }
        self.encoding_matters |= !bytes.is_ascii();
        let text = self.encoding.decode(bytes).map_err(|e| match e {
            RestoreError::Validation(v) => v.context(&format!("line {line}")).into(),
            other => other,
        })?;
        if scan.is(&["copy"]) {
            return self.copy(Statement { text, line }).map(Some);
        }
        if scan.is(&["set"]) {
            let words = tokens(&text, self.dialect);
            let value = words.get(3).and_then(|t| t.string().or_else(|| t.name()));
            match (words.get(1).and_then(Token::name).as_deref(), value) {
                (Some("client_encoding"), Some(name)) => {
                    self.set_encoding(&name, line)?;
                    return Ok(None);
                }
                (Some("standard_conforming_strings"), Some(value)) => {
                    self.dialect.standard_strings = !matches!(value.as_str(), "off" | "false" | "0");
                }
                _ => {}
            }
        }
        if scan.is(&["create", "database"]) {
            self.database = tokens(&text, self.dialect).get(2).and_then(Token::name);
        }
        Ok(Some(Item::Statement(Statement { text, line })))
    }

    /// `SET client_encoding`, which holds for the whole dump: there is one encoding for all of its rows.
    fn set_encoding(&mut self, name: &str, line: u64) -> Result<(), RestoreError> {
        if self.encoding.is_same(name) {
            return Ok(());
        }
        if self.encoding_matters {
            let (now, was) = (name.to_uppercase(), self.encoding.name());
            return Err(beyond_us(format!(
                "line {line}: client_encoding becomes {now}, and text in {was} came before: restore the parts one by one"
            )));
        }
        self.encoding = TextEncoding::new(&name.to_uppercase());
        self.dialect.wide = self.encoding.wide();
        Ok(())
    }

    fn copy(&mut self, statement: Statement) -> Result<Item, RestoreError> {
        let words = tokens(&statement.text, self.dialect);
        let from = words.windows(2).position(|w| w[0].is("from") && w[1].is("stdin"));
        let Some(from) = from else {
            return Err(unsupported(format!(
                "line {}: COPY that is not FROM stdin: pg_dump writes no other",
                statement.line
            )));
        };
        if words.len() > from + 3 {
            let what = format!("line {}: COPY with options: pg_dump writes none", statement.line);
            return Err(unsupported(what));
        }
        // The rows begin in the next line.
        self.take_line()?;
        Ok(Item::Copy(statement))
    }

    /// Rows up to the line `\.`.
    pub fn copy_rows(&mut self, entry: &TocEntry, sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        let first_line = self.line;
        let mut rows = Rows { text: self, at_row_start: true, done: false };
        let what = format!("rows of {} (from line {first_line})", entry.tag);
        let failed = |e| RestoreError::from_archive_io(e, &what);
        let mut oids = super::pieces::WithoutOids::new(&mut rows);
        let (mut buf, mut fresh): (Vec<u8>, bool) = (Vec::with_capacity(PIECE), true);
        loop {
            let want = (PIECE - buf.len()) as u64;
            let read = match entry.oids_in_data {
                true => (&mut oids).take(want).read_to_end(&mut buf).map_err(failed)?,
                false => oids.get_mut().take(want).read_to_end(&mut buf).map_err(failed)?,
            };
            let ended = (read as u64) < want;
            let (cut, ends_row) = match (ended, memchr::memrchr(b'\n', &buf)) {
                (true, _) => (buf.len(), true),
                (false, Some(newline)) => (newline + 1, true),
                (false, None) => (buf.len(), false),
            };
            let rest = buf.split_off(cut);
            let piece = std::mem::replace(&mut buf, rest);
            if !piece.is_empty() || !fresh {
                sink.piece(Piece::Rows { text: piece, ends_row })?;
            }
            fresh = ends_row;
            if ended {
                return Ok(());
            }
        }
    }
}

/// The rows of one COPY block as a stream that ends at its end marker.
struct Rows<'a> {
    text: &'a mut Text,
    at_row_start: bool,
    done: bool,
}

impl Rows<'_> {
    /// Bytes of rows that can be given out; 0 where more must be read first.
    fn ready(&mut self) -> usize {
        let buf = self.text.rest();
        if self.at_row_start && buf.first() == Some(&b'\\') && buf.get(1).is_none_or(|b| *b == b'.') {
            return 0;
        }
        match memchr::memmem::find(buf, b"\n\\.") {
            Some(n) => n + 1,
            // The last bytes may be the beginning of an end marker.
            None => match buf {
                [head @ .., b'\n', b'\\'] => head.len() + 1,
                all => all.len(),
            },
        }
    }

    /// Passes the end marker, if it stands here.
    fn passes_end(&mut self) -> bool {
        let buf = self.text.rest();
        let n = match buf {
            [b'\\', b'.', b'\n', ..] => 3,
            [b'\\', b'.', b'\r', b'\n', ..] => 4,
            [b'\\', b'.'] if self.text.at_end => 2,
            _ => return false,
        };
        self.text.pass(n);
        true
    }
}

impl Read for Rows<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        if self.done || out.is_empty() {
            return Ok(0);
        }
        loop {
            let n = self.ready().min(out.len());
            if n > 0 {
                out[..n].copy_from_slice(&self.text.rest()[..n]);
                self.text.pass(n);
                self.at_row_start = out[n - 1] == b'\n';
                return Ok(n);
            }
            if self.passes_end() {
                self.done = true;
                return Ok(0);
            }
            let too_long = self.text.rest().len() > 4;
            if too_long {
                let what = format!("line {}: \\. is not alone in its line", self.text.line);
                return Err(corrupt(what).into());
            }
            if !self.text.more()? {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
