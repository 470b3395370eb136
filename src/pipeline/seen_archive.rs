//! What a verification sees of an archive, and what of a database that makes it.

use std::sync::{Arc, OnceLock};

use super::states::LoadedStaging;
use super::stored_rows::contents_in;
use crate::proof::{BackupContents, VerificationReport};
use crate::verification::{self, Checks, History, SeenData};
use pgdump_archive::{ContentDigest, DataCoverage};

/// What a verification sees of an archive.
pub(super) struct SeenArchive {
    /// Empty while SQL text was not read to its end.
    pub(super) coverage: Arc<OnceLock<DataCoverage>>,
    pub(super) content_digest: Arc<ContentDigest>,
    pub(super) checks: Checks,
}

impl SeenArchive {
    /// What of a database the archive holds, as far as it has been read.
    pub(super) fn contents(&self) -> Option<BackupContents> {
        let coverage = self.coverage.get()?;
        Some(verification::contents_of(coverage, &self.checks.drift))
    }

    /// The same once it was restored; where the archive does not say it, the database may.
    pub(super) async fn restored_contents(&self, loaded: &LoadedStaging) -> Option<BackupContents> {
        match self.contents() {
            Some(contents) => Some(contents),
            None => contents_in(&loaded.server, &loaded.staging.name).await,
        }
    }

    /// The same beside the last proven backup.
    pub(super) fn contents_beside(
        &self,
        report: &VerificationReport,
        history: &History,
    ) -> Option<BackupContents> {
        if !self.content_digest.counts_rows() {
            return report.contents;
        }
        let seen = SeenData {
            tables: &report.tables,
            large_objects: report.large_objects,
            coverage: self.coverage.get(),
        };
        verification::contents_beside(report.contents, &seen, history, &self.checks.drift)
    }

    /// The names of what has no data in it, if it lacks that of some, and how many more there are.
    pub(super) fn without_data(&self, contents: Option<BackupContents>) -> (Vec<String>, u64) {
        let lacks = matches!(
            contents,
            Some(BackupContents::Partial | BackupContents::UsualPart)
        );
        let coverage = self.coverage.get().filter(|_| lacks);
        coverage.map_or((vec![], 0), |c| {
            verification::without_data(c, &self.checks.drift)
        })
    }

    /// What the backup lacks, and what follows.
    pub(super) fn note(&self, report: &VerificationReport) -> Option<String> {
        let contents = report.contents;
        let note = verification::note_of(contents, self.coverage.get(), &self.checks.drift)?;
        if report.part().is_none() && contents == Some(BackupContents::Partial) {
            return Some(format!(
                "{note}: whether that is usual is compared once it is restored (depth `restore` or `data`)"
            ));
        }
        if contents == Some(BackupContents::UsualPart) {
            return Some(format!(
                "{note}: so it was in an earlier proven backup, or none is known; if they should have data, see which options the backup job gives pg_dump"
            ));
        }
        Some(format!(
            "{note}: it replaces no whole backup (`latest-proven`, prune, freshness)"
        ))
    }
}
