// Shared by the targets: a sink that keeps everything, and limits suitable for a fuzzer.

use pgdump_archive::{DataSink, Limits, Chunk, Statement, TocEntry};

#[derive(Default, PartialEq, Debug)]
pub struct Seen {
    /// Rows, statements and objects, without chunk boundaries.
    pub all: Vec<(String, Vec<u8>)>,
}

impl Seen {
    fn push(&mut self, kind: &str, bytes: &[u8]) {
        match self.all.last_mut() {
            Some((last, text)) if last == kind => text.extend_from_slice(bytes),
            _ => self.all.push((kind.to_owned(), bytes.to_vec())),
        }
    }
}

impl DataSink for Seen {
    fn begin(&mut self, entry: &TocEntry) -> Result<(), pgdump_archive::ArchiveError> {
        self.push(&format!("begin {} {}", entry.dump_id, entry.tag), b"");
        Ok(())
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), pgdump_archive::ArchiveError> {
        match chunk {
            Chunk::Rows { text, .. } => self.push("rows", &text),
            Chunk::Statements { text, .. } => self.push("statements", &text),
            Chunk::LargeObject { oid, bytes, .. } => self.push(&format!("object {oid}"), &bytes),
        }
        Ok(())
    }

    fn end(&mut self, _: &TocEntry) -> Result<(), pgdump_archive::ArchiveError> {
        self.push("end", b"");
        Ok(())
    }

    fn statement(&mut self, s: Statement) -> Result<(), pgdump_archive::ArchiveError> {
        self.push(&format!("line {}", s.line), s.text.as_bytes());
        Ok(())
    }
}

pub fn limits() -> Limits {
    Limits { max_entries: 10_000, max_toc: 4 << 20, max_statement: 4 << 20, memory: 64 << 20, ..Limits::default() }
}
