//! The entries that a file in the format of `pg_restore --list` lists (`SortTocFromFile` of `pg_backup_archiver.c`).

use std::collections::{BTreeMap, HashSet};

use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::notes::listed;
use pgdump_archive::{DumpId, TocEntry, toc_line};

/// A list of entries of one archive, by their dump ids. The first entry that a line names counts, as for `pg_restore`;
/// the order does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UseList {
    /// The file, for messages.
    file: String,
    entries: BTreeMap<DumpId, ListLine>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct ListLine {
    /// From 1.
    number: usize,
    /// What follows the semicolon.
    description: String,
}

fn invalid_list(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

impl UseList {
    /// Parses a list. What follows a semicolon is a comment. `file`: its name, for messages.
    ///
    /// # Errors
    /// `invalid_request` for a line that begins with no dump id, and for a list without entries.
    pub fn parse(file: &str, text: &str) -> Result<Self, RestoreError> {
        let mut entries = BTreeMap::new();
        // Editors on Windows write one.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (at, line) in text.lines().enumerate() {
            let (before, description) = line.split_once(';').unwrap_or((line, ""));
            let Some(word) = before.split_whitespace().next() else {
                continue;
            };
            let number = at + 1;
            let id = word.parse::<DumpId>().ok().filter(|id| *id > DumpId::NONE);
            let id = id.ok_or_else(|| {
                invalid_list(format!(
                    "{file}, line {number}: {word} is not the number of an entry: write a line as pgrestored inspect --list prints it, or begin it with a semicolon to leave it out"
                ))
            })?;
            entries.entry(id).or_insert_with(|| ListLine {
                number,
                description: description.trim().to_owned(),
            });
        }
        if entries.is_empty() {
            return Err(invalid_list(format!("{file} lists no entry")));
        }
        Ok(UseList {
            file: file.to_owned(),
            entries,
        })
    }

    /// The dump ids that it lists.
    pub fn ids(&self) -> impl Iterator<Item = DumpId> {
        self.entries.keys().copied()
    }

    /// Keeps the entries that are listed, and those that every restore takes. Returns notes.
    ///
    /// # Errors
    /// `invalid_request` for a line whose entry the archive does not have.
    pub(crate) fn keep_listed(
        &self,
        entries: &mut Vec<TocEntry>,
        is_always_kept: impl Fn(&TocEntry) -> bool,
    ) -> Result<Vec<String>, RestoreError> {
        self.check(entries)?;
        let all = entries.len();
        let mut notes: Vec<String> = self.note_of_others(entries).into_iter().collect();
        entries.retain(|e| is_always_kept(e) || self.entries.contains_key(&e.dump_id));
        notes.push(format!(
            "{}: {} of {all} entries are restored, in the order of this program",
            self.file,
            entries.len()
        ));
        Ok(notes)
    }

    fn check(&self, entries: &[TocEntry]) -> Result<(), RestoreError> {
        let known: HashSet<DumpId> = entries.iter().map(|e| e.dump_id).collect();
        let unknown = self.entries.iter().filter(|(id, _)| !known.contains(*id));
        let mut unknown = unknown.collect::<Vec<_>>();
        unknown.sort_by_key(|(_, line)| line.number);
        let Some((id, line)) = unknown.first() else {
            return Ok(());
        };
        let more = match unknown.len() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        Err(invalid_list(format!(
            "{}, line {}: the backup has no entry {id}{more}: print its own list with pgrestored inspect --list",
            self.file, line.number
        )))
    }

    /// Lines that describe another entry than the archive has under their number: the list may be another archive's.
    fn note_of_others(&self, entries: &[TocEntry]) -> Option<String> {
        let differs = |e: &TocEntry| {
            let line = self.entries.get(&e.dump_id)?;
            let (said, found) = (line.description.as_str(), toc_line(e));
            // Names may have been written in another encoding.
            let is_comparable = !said.is_empty() && said.is_ascii() && found.is_ascii();
            let is_same = found
                .split_once("; ")
                .is_some_and(|(_, of)| said.starts_with(of.trim()));
            (is_comparable && !is_same).then(|| format!("line {} ({})", line.number, e.name()))
        };
        let lines: Vec<String> = entries.iter().filter_map(differs).collect();
        let what = format!(
            "{} describes entries that differ from those of the backup with the same numbers",
            self.file
        );
        listed(&what, &lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

    fn entries() -> Vec<TocEntry> {
        let mut all = vec![
            TocEntry::bare(1, "ENCODING", "ENCODING"),
            TocEntry::bare(7, "TABLE", "t"),
            TocEntry::bare(9, "INDEX", "i"),
        ];
        all[1].namespace = Some("public".into());
        all[1].owner = "me".into();
        all
    }

    const LIST: &str =
        ";\n; Selected TOC Entries:\n;\n7; 0 0 TABLE public t me\n;9; 0 0 INDEX - i \n\n  \n";

    fn kept(text: &str) -> Result<(Vec<i32>, Vec<String>), RestoreError> {
        let mut all = entries();
        let list = UseList::parse("my.list", text)?;
        let notes = list.keep_listed(&mut all, |e| e.tag == "ENCODING")?;
        Ok((all.iter().map(|e| e.dump_id.0).collect(), notes))
    }

    #[test]
    fn listed_entries_are_kept_and_commented_lines_are_not() {
        let (ids, notes) = kept(LIST).unwrap();
        assert_eq!(ids, [1, 7]);
        assert_eq!(
            notes,
            ["my.list: 2 of 3 entries are restored, in the order of this program"]
        );
        // Lines need no more than a number; a comment of one's own may follow, and a line may come twice.
        for text in [
            "9\n7\r\n",
            "9;\n7 ;\n7;\n",
            "7; 0 0 TABLE public t me ; the old one\n9;",
            "\u{feff};\r\n7;\r\n9;\r\n",
            "\u{feff}7;\r\n9;\r\n",
        ] {
            let (ids, notes) = kept(text).unwrap();
            assert_eq!((ids.as_slice(), notes.len()), (&[1, 7, 9][..], 1), "{text}");
        }
    }

    #[test]
    fn a_line_without_an_entry_is_refused_by_file_and_line() {
        for (text, said) in [
            (
                "7;\n\n; x\n8; 0 0 TABLE public u me\n12;\n",
                "my.list, line 4: the backup has no entry 8 (and 1 more)",
            ),
            ("7;\nTABLE t\n", "my.list, line 2: TABLE is not the number"),
            (
                "0; 0 0 TABLE public t me",
                "my.list, line 1: 0 is not the number",
            ),
            ("-7;", "my.list, line 1: -7 is not the number"),
            ("; 7; 0 0 TABLE public t me\n", "my.list lists no entry"),
        ] {
            let e = kept(text).unwrap_err();
            assert!(e.to_string().contains(said), "{e}");
            assert_eq!(e.reason(), FailureReason::InvalidRequest);
        }
    }

    #[test]
    fn a_list_of_another_archive_is_noted() {
        let (_, notes) = kept("7; 1259 5 TABLE public other me\n9; 0 0 INDEX - i\n").unwrap();
        assert_eq!(
            notes[0],
            "my.list describes entries that differ from those of the backup with the same numbers: line 1 (TABLE public.t)"
        );
    }
}
