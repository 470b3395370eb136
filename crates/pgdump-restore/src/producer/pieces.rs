//! The parts of a chunk that no earlier attempt has loaded. Pure.

use std::ops::Range;

use super::span_check::within;
use crate::copy_lines::ChunkLines;
use pgdump_archive::Chunk;

/// A chunk, or a part of one, and where it is in the data of its entry.
#[derive(Debug)]
pub(super) struct Piece {
    pub chunk: Chunk,
    pub bytes: Range<u64>,
    pub lines: ChunkLines,
}

impl Piece {
    /// The parts that are missing; what was loaded of a chunk ends where rows, statements or pages of large objects do.
    pub(super) fn missing(self, missing: &[Range<u64>]) -> Vec<Piece> {
        match missing {
            [] => vec![],
            [all] if *all == self.bytes => vec![self],
            parts => parts.iter().map(|part| self.part(part)).collect(),
        }
    }

    fn part(&self, part: &Range<u64>) -> Piece {
        let Range { start, end } = self.bytes;
        let bytes = part.start.clamp(start, end)..part.end.clamp(start, end);
        let (from, to) = (within(start, bytes.start), within(start, bytes.end));
        let before = lines_in(&self.chunk, 0..from);
        let lines = ChunkLines {
            before: self.lines.before + before,
            count: lines_in(&self.chunk, from..to),
        };
        let chunk = match &self.chunk {
            Chunk::Rows { text, ends_row } => Chunk::Rows {
                text: slice(text, from..to).to_vec(),
                ends_row: *ends_row || bytes.end < end,
            },
            Chunk::Statements {
                text,
                standard_strings,
            } => Chunk::Statements {
                text: slice(text, from..to).to_vec(),
                standard_strings: *standard_strings,
            },
            Chunk::LargeObject { oid, offset, bytes } => Chunk::LargeObject {
                oid: *oid,
                offset: offset + from as u64,
                bytes: bytes.slice_ref(slice(bytes, from..to)),
            },
        };
        Piece {
            chunk,
            bytes,
            lines,
        }
    }
}

/// Number of lines of rows that end in a chunk.
pub(super) fn lines_of(chunk: &Chunk) -> u64 {
    lines_in(chunk, 0..chunk.len())
}

fn lines_in(chunk: &Chunk, part: Range<usize>) -> u64 {
    match chunk {
        Chunk::Rows { text, .. } => memchr::memchr_iter(b'\n', slice(text, part)).count() as u64,
        Chunk::Statements { .. } | Chunk::LargeObject { .. } => 0,
    }
}

fn slice(bytes: &[u8], part: Range<usize>) -> &[u8] {
    bytes.get(part).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, at: u64, ends_row: bool) -> Piece {
        let chunk = Chunk::Rows {
            text: text.as_bytes().to_vec(),
            ends_row,
        };
        Piece {
            bytes: at..at + text.len() as u64,
            lines: ChunkLines {
                before: 50,
                count: lines_of(&chunk),
            },
            chunk,
        }
    }

    /// Text, place, lines before it, lines in it, and whether it ends a row.
    fn seen(piece: &Piece) -> (String, u64, u64, u64, bool) {
        let Chunk::Rows { text, ends_row } = &piece.chunk else {
            panic!("{piece:?}");
        };
        let text = String::from_utf8(text.clone()).unwrap();
        assert_eq!(piece.bytes.end - piece.bytes.start, text.len() as u64);
        let ChunkLines { before, count } = piece.lines;
        (text, piece.bytes.start, before, count, *ends_row)
    }

    fn one(part: &Range<u64>) -> &[Range<u64>] {
        std::slice::from_ref(part)
    }

    fn missing(ends_row: bool, parts: &[Range<u64>]) -> Vec<(String, u64, u64, u64, bool)> {
        let all = rows("a\nbb\nccc\nd\n", 100, ends_row);
        all.missing(parts).iter().map(seen).collect()
    }

    #[test]
    fn rows_are_cut_where_earlier_ones_end() {
        assert!(missing(true, &[]).is_empty());
        let all = ("a\nbb\nccc\nd\n".to_owned(), 100, 50, 4, true);
        assert_eq!(missing(true, one(&(100..111))), [all]);
        let two = [
            ("bb\n".to_owned(), 102, 51, 1, true),
            ("d\n".to_owned(), 109, 53, 1, true),
        ];
        assert_eq!(missing(true, &[102..105, 109..111]), two);
        // A chunk of a row that is longer than it is loaded as a whole or not at all.
        let whole = missing(false, one(&(100..111)));
        assert_eq!((whole.len(), whole[0].4), (1, false));
        let last = missing(false, &[100..102, 105..111]);
        assert_eq!((last[0].4, last[1].4), (true, false));
    }

    #[test]
    fn parts_of_statements_and_large_objects_have_their_places() {
        let text = Chunk::Statements {
            text: b"INSERT 1;\nINSERT 2;\n".to_vec(),
            standard_strings: Some(false),
        };
        let object = Chunk::LargeObject {
            oid: 7,
            offset: 4096,
            bytes: bytes::Bytes::from_static(b"0123456789abcdefghij"),
        };
        let of = |chunk: Chunk| Piece {
            bytes: 1000..1000 + chunk.len() as u64,
            lines: ChunkLines::default(),
            chunk,
        };
        let rest = of(text).missing(one(&(1010..1020)));
        assert!(
            matches!(&rest[0].chunk, Chunk::Statements { text, standard_strings: Some(false) } if text == b"INSERT 2;\n")
        );
        let rest = of(object).missing(one(&(1010..1020)));
        let Chunk::LargeObject { oid, offset, bytes } = &rest[0].chunk else {
            panic!("{rest:?}");
        };
        assert_eq!((*oid, *offset, &bytes[..]), (7, 4106, &b"abcdefghij"[..]));
        assert_eq!(rest[0].bytes, 1010..1020);
    }
}
