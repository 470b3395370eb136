//! Which line of a table's data the server rejected. Pure.

use crate::ddl;
use pgdump_archive::TocEntry;

/// Where a chunk is in the data of its table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ChunkLines {
    /// Lines before it.
    pub before: u64,
    /// Lines that end in it.
    pub count: u64,
}

/// The lines that one COPY sends, which need not follow each other in the data of the table.
#[derive(Debug, Default)]
pub(crate) struct CopyLines {
    runs: Vec<LineRun>,
    sent: u64,
}

/// Lines that follow each other.
#[derive(Debug)]
struct LineRun {
    /// Lines of this COPY before them.
    copied: u64,
    /// Lines of the table's data before them.
    before: u64,
}

impl CopyLines {
    pub(crate) fn add(&mut self, lines: ChunkLines) {
        let next = self.runs.last().map(|r| r.before + (self.sent - r.copied));
        if next != Some(lines.before) {
            self.runs.push(LineRun {
                copied: self.sent,
                before: lines.before,
            });
        }
        self.sent += lines.count;
    }

    /// Where in the data the server rejected a row, from the CONTEXT of its error. Only the number and the name of a column
    /// of the table are taken from there, never a value.
    pub(crate) fn place(&self, context: &str, entry: &TocEntry) -> Option<String> {
        let (line, column) = place_in_copy(context)?;
        let line = self.line(line)?;
        let column = column.filter(|c| ddl::copied_columns(entry).iter().any(|known| known == c));
        let column = column.map(|c| format!(", column {c}"));
        Some(format!(
            " in line {line} of its data{}",
            column.unwrap_or_default()
        ))
    }

    /// The line of the table's data, for a line of this COPY. Both are counted from 1.
    fn line(&self, of_copy: u64) -> Option<u64> {
        let copied = of_copy.checked_sub(1)?;
        let run = self.runs.iter().rev().find(|r| r.copied <= copied)?;
        Some(run.before + (copied - run.copied) + 1)
    }
}

/// `COPY t, line 3, column a: "…"`, in the language of the server.
fn place_in_copy(context: &str) -> Option<(u64, Option<&str>)> {
    let copy = context.lines().find_map(|l| l.strip_prefix("COPY "))?;
    let (_, place) = copy.split_once(", ")?;
    let number = place.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = number.find(|c: char| !c.is_ascii_digit());
    let (number, rest) = number.split_at(end.unwrap_or(number.len()));
    let column = rest.strip_prefix(", ").and_then(|rest| {
        let (_, name) = rest.split_once(' ')?;
        Some(name.split_once(": ").map_or(name, |(name, _)| name))
    });
    Some((number.parse().ok()?, column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TocEntry {
        let mut e = TocEntry::bare(1, "TABLE DATA", "t");
        e.copy_stmt = "COPY s.t (a, \"B c\") FROM stdin;\n".to_owned();
        e
    }

    #[test]
    fn a_line_of_a_copy_is_a_line_of_the_table() {
        let mut lines = CopyLines::default();
        // Another session copies the lines between.
        for (before, count) in [(0, 10), (10, 5), (100, 10)] {
            lines.add(ChunkLines { before, count });
        }
        assert_eq!(lines.runs.len(), 2);
        for (of_copy, wanted) in [
            (1, Some(1)),
            (15, Some(15)),
            (16, Some(101)),
            (20, Some(105)),
            (0, None),
        ] {
            assert_eq!(lines.line(of_copy), wanted, "{of_copy}");
        }
    }

    #[test]
    fn the_place_of_a_row_has_no_value() {
        let mut lines = CopyLines::default();
        lines.add(ChunkLines {
            before: 1000,
            count: 10,
        });
        for (context, wanted) in [
            (
                "COPY t, line 3, column a: \"secret\"",
                Some(" in line 1003 of its data, column a"),
            ),
            (
                "PL/pgSQL function f() line 7 at RAISE\nCOPY t, line 3",
                Some(" in line 1003 of its data"),
            ),
            (
                "COPY t, Zeile 3, Spalte B c: »secret«",
                Some(" in line 1003 of its data, column B c"),
            ),
            (
                "COPY t, line 3: \"secret, line 4, column a\"",
                Some(" in line 1003 of its data"),
            ),
            (
                "COPY t, line 3, column secret",
                Some(" in line 1003 of its data"),
            ),
            ("SQL function \"f\" statement 1", None),
            ("", None),
        ] {
            let place = lines.place(context, &table());
            assert_eq!(place.as_deref(), wanted, "{context}");
        }
    }
}
