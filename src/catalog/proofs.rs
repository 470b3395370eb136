//! The backups of a listing, each with what the evidence says about it.

use super::backup_catalog::BackupCatalog;
use crate::backup::Backup;
use crate::error::{RestoreError, report as said};
use crate::policy::Depth;
use crate::proof::{BackupContents, Verdict, VerificationReport};
use crate::store::StoredObject;
use crate::verification::{Found, SearchLimit, is_of};

/// The newest reports that a listing reads.
const READ: SearchLimit = SearchLimit {
    reports: 1_000,
    bytes: 16 << 20,
};

/// What the evidence says about a backup: its last verification that restored it or found it bad, otherwise its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct BackupProof {
    pub verdict: Verdict,
    /// The depth that was reached without a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    pub finished_at: jiff::Timestamp,
    /// What of a database the backup holds; absent if that is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contents: Option<BackupContents>,
    /// Whether a trusted key signed it.
    pub is_signed: bool,
}

/// A backup of a listing, and what is known about it.
#[derive(Debug)]
pub struct ProvenBackup {
    pub backup: Backup,
    /// Its database, if its evidence or its first bytes name one.
    pub database: Option<String>,
    pub proof: Option<BackupProof>,
}

/// Backups with their proofs.
#[derive(Debug)]
pub struct ProvenListing {
    pub backups: Vec<ProvenBackup>,
    /// Number of backups that were not looked into for their database. Of one database, they are not listed.
    pub not_looked_into: usize,
    /// Why proofs may be missing.
    pub incomplete: Option<String>,
}

impl BackupCatalog {
    /// The backups below `prefix`, of one database if it is given, by name, each with what the evidence says about exactly
    /// its bytes.
    ///
    /// # Errors
    /// `StorageError` if the listing fails, and `download_failed` if backups cannot be looked into for their database;
    /// evidence that cannot be read is no error.
    pub async fn list_proven(
        &self,
        prefix: &str,
        database: Option<&str>,
    ) -> Result<ProvenListing, RestoreError> {
        let (backups, mut not_looked_into) = match database {
            Some(database) => self.backups_of_database(prefix, database).await?,
            None => (self.backups_below(prefix).await?, 0),
        };
        let (reports, incomplete) = match self.newest_reports(prefix).await {
            Ok(found) if found.reports.len() >= READ.reports || found.is_cut => {
                let what = format!(
                    "only the newest {} verifications were read",
                    found.reports.len()
                );
                (found.reports, Some(what))
            }
            Ok(found) => {
                let incomplete = found.incomplete();
                (found.reports, incomplete)
            }
            Err(e) => (
                vec![],
                Some(format!("the evidence cannot be read: {}", said(&e))),
            ),
        };
        let is_signed = !self.keyring()?.is_empty();
        let databases = match database {
            Some(database) => vec![Some(database.to_owned()); backups.len()],
            None => {
                let named = self.database_names(&backups, &reports).await;
                not_looked_into = named.not_looked_into;
                named.names
            }
        };
        let backups = backups.into_iter().zip(databases);
        let backups = backups.map(|(object, database)| ProvenBackup {
            database,
            proof: proof_of(&object, &reports, is_signed),
            backup: Backup::from(object),
        });
        Ok(ProvenListing {
            backups: backups.collect(),
            not_looked_into,
            incomplete,
        })
    }

    async fn newest_reports(&self, prefix: &str) -> Result<Found, RestoreError> {
        match self.evidence(None).await? {
            Some(evidence) => evidence.reports(prefix, READ, |r| Some(r.brief())).await,
            None => Ok(Found::default()),
        }
    }
}

fn proof_of(
    object: &StoredObject,
    reports: &[VerificationReport],
    is_signed: bool,
) -> Option<BackupProof> {
    let is_conclusive = |r: &VerificationReport| r.is_proof() || r.verdict == Verdict::Failed;
    let of_object = reports.iter().filter(|r| is_of(r, object));
    let last = of_object.max_by_key(|r| (is_conclusive(r), r.finished_at))?;
    Some(BackupProof {
        verdict: last.verdict,
        depth: last.depth,
        finished_at: last.finished_at,
        contents: last.known_contents(),
        is_signed,
    })
}
