//! What of a database a backup holds.

use std::collections::BTreeMap;

use super::VerificationReport;
use crate::policy::Depth;

/// What of a database a backup holds, as far as its table of contents, its text and earlier proofs show. Tables that
/// `pg_dump -t` or `-n` left out with their definitions show only beside an earlier proof.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum BackupContents {
    /// Every table and sequence that it defines has its data.
    Whole,
    /// Tables or sequences are missing, or have no data.
    Partial,
    /// The same, but their data was missing in a proven backup before it as well, or had no rows in the last one, or nothing
    /// was proven before: that is how this database is backed up (`--exclude-table-data`), and it counts as a whole backup.
    UsualPart,
    /// Definitions; tables, but rows of none.
    SchemaOnly,
    /// Data, but no definitions.
    DataOnly,
}

impl BackupContents {
    /// Whether it is no replacement for a whole backup.
    pub fn is_part(self) -> bool {
        !matches!(self, BackupContents::Whole | BackupContents::UsualPart)
    }

    /// In words, for a list: `schema only`.
    pub fn label(self) -> &'static str {
        match self {
            BackupContents::Whole => "whole",
            BackupContents::Partial => "partial",
            BackupContents::UsualPart => "partial as usual",
            BackupContents::SchemaOnly => "schema only",
            BackupContents::DataOnly => "data only",
        }
    }

    /// What it holds, as the end of a sentence about it.
    pub fn phrase(self) -> &'static str {
        match self {
            BackupContents::Whole => "holds a whole database",
            BackupContents::Partial => "lacks tables, or their data",
            BackupContents::UsualPart => "lacks the data of tables, as those before it",
            BackupContents::SchemaOnly => "has definitions and no rows",
            BackupContents::DataOnly => "has data and no definitions",
        }
    }

    /// From the number of entries of each kind in a table of contents. Only that no table has rows is certain then.
    fn of_entries(entries: &BTreeMap<String, u64>) -> Option<Self> {
        let count = |kind: &str| entries.get(kind).copied().unwrap_or_default();
        (count("TABLE") > 0 && count("TABLE DATA") == 0).then_some(BackupContents::SchemaOnly)
    }
}

impl VerificationReport {
    /// What of a database the backup holds, if that is known. Evidence of versions before `contents` shows only, and not
    /// of SQL text, that no table has rows.
    pub fn known_contents(&self) -> Option<BackupContents> {
        let archive = self.archive.as_ref().filter(|a| a.format != "plain");
        self.contents
            .or_else(|| archive.and_then(|a| BackupContents::of_entries(&a.entries)))
    }

    /// What the backup holds if it is known to be no replacement for a whole one. Whether tables may lack their data is
    /// known only once it was restored, and compared with those before it.
    pub fn part(&self) -> Option<BackupContents> {
        let is_judged = self.depth >= Some(Depth::Restore);
        self.known_contents()
            .filter(|c| c.is_part() && (is_judged || *c != BackupContents::Partial))
    }

    /// Whether it is a proof, and not of a part. A part makes no other backup dispensable: it does not count for freshness,
    /// retention or the schedule.
    pub fn proves_whole(&self) -> bool {
        self.is_proof() && self.part().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Trigger;
    use crate::proof::{ArchiveProof, Verdict};

    fn proof(format: &str, kinds: &[(&str, u64)]) -> VerificationReport {
        let kinds = kinds.iter().map(|(kind, n)| ((*kind).to_owned(), *n));
        let now = jiff::Timestamp::UNIX_EPOCH;
        VerificationReport {
            verdict: Verdict::Verified,
            depth: Some(Depth::Data),
            archive: Some(ArchiveProof {
                format: format.to_owned(),
                wrapped_in: vec![],
                server_version: "15.4".into(),
                pg_dump_version: "15.4".into(),
                encoding: "UTF8".into(),
                entries: kinds.collect(),
            }),
            ..VerificationReport::new("r", Trigger::Command, Depth::Data, now)
        }
    }

    #[test]
    fn evidence_without_the_field_shows_only_that_no_table_has_rows() {
        let definitions = [("TABLE", 2), ("SEQUENCE", 1)];
        let old = proof("custom", &definitions);
        assert_eq!(old.part(), Some(BackupContents::SchemaOnly));
        assert!(old.is_proof() && !old.proves_whole());
        for unknown in [
            // The entries of SQL text are those before its rows.
            proof("plain", &definitions),
            proof("custom", &[("TABLE", 2), ("TABLE DATA", 1)]),
            proof("custom", &[("FUNCTION", 2)]),
        ] {
            assert_eq!(unknown.known_contents(), None, "{:?}", unknown.archive);
            assert!(unknown.proves_whole());
        }
        let said = VerificationReport {
            contents: Some(BackupContents::Whole),
            ..old
        };
        assert!(said.proves_whole());
        // Long lists are left out, this is not.
        let brief = VerificationReport {
            contents: Some(BackupContents::Partial),
            ..said
        }
        .brief();
        assert_eq!(brief.part(), Some(BackupContents::Partial));
        let json = serde_json::to_value(&brief).unwrap();
        assert_eq!(json["contents"], "partial");
    }
}
