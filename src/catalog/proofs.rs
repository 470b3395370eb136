//! The backups of a listing, each with what the evidence says about it.

use std::cmp::Reverse;

use super::backup_catalog::BackupCatalog;
use super::evidence::last_of_each;
use crate::backup::{Backup, UnlistedPlaces};
use crate::error::{RestoreError, StorageError, report as said};
use crate::policy::Depth;
use crate::proof::{BackupContents, Verdict, VerificationReport};
use crate::store::{GenerationState, StoredObject};
use crate::verification::{Found, SearchLimit, is_of};

/// The newest reports that a listing reads.
const READ: SearchLimit = SearchLimit {
    reports: 1_000,
    bytes: 16 << 20,
};

/// What the evidence says about a backup: its last verification that restored it or found it bad, otherwise its last one.
/// Of a dump of a whole cluster, the worst of what it says about the databases that were looked at.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
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
    /// Of a dump of a whole cluster, each database that was looked at. Nothing is known of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<ClusterDatabaseProof>,
}

/// What the evidence says about one database of a dump of a whole cluster.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct ClusterDatabaseProof {
    pub database: String,
    pub verdict: Verdict,
    /// The depth that was reached without a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    pub finished_at: jiff::Timestamp,
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
    /// What may be backups and cannot be listed.
    pub unlisted: UnlistedPlaces,
}

/// A generation of an object, and what the evidence says about it.
#[derive(Debug)]
pub struct ProvenGeneration {
    pub backup: Backup,
    pub state: GenerationState,
    pub proof: Option<BackupProof>,
}

/// Generations with their proofs.
#[derive(Debug)]
pub struct GenerationListing {
    /// By name, newest first.
    pub generations: Vec<ProvenGeneration>,
    /// Why proofs may be missing.
    pub incomplete: Option<String>,
    /// Why there are no soft-deleted ones.
    pub without_deleted: Option<StorageError>,
}

impl BackupCatalog {
    /// All generations of the objects below `prefix`, each with what the evidence says about exactly its bytes.
    ///
    /// # Errors
    /// `invalid_request` for a folder, which has none, and `StorageError` if the listing fails.
    pub async fn list_generations(&self, prefix: &str) -> Result<GenerationListing, RestoreError> {
        let (all, without_deleted) = self.generations(prefix).await?;
        let (reports, incomplete) = self.reports_for_list(prefix).await;
        let is_signed = !self.keyring()?.is_empty();
        let generations = all.into_iter().map(|g| ProvenGeneration {
            state: g.state,
            proof: proof_of(&g.object, &reports, is_signed),
            backup: Backup::from(g.object),
        });
        Ok(GenerationListing {
            generations: generations.collect(),
            incomplete,
            without_deleted,
        })
    }

    /// The newest reports, and why others may be missing.
    async fn reports_for_list(&self, prefix: &str) -> (Vec<VerificationReport>, Option<String>) {
        match self.newest_reports(prefix).await {
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
        }
    }

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
        let (backups, unlisted, mut not_looked_into) = match database {
            Some(database) => self.backups_of_database(prefix, database).await?,
            None => {
                let (backups, unlisted) = self.backups_below(prefix).await?;
                (backups, unlisted, 0)
            }
        };
        let (reports, incomplete) = self.reports_for_list(prefix).await;
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
            unlisted,
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
    let of_object: Vec<&VerificationReport> = reports.iter().filter(|r| is_of(r, object)).collect();
    let last = last_of_each(&of_object);
    let badness = |verdict| match verdict {
        Verdict::Verified => 0,
        Verdict::Inconclusive => 1,
        Verdict::Failed => 2,
    };
    let worst = last
        .iter()
        .map(|(_, r)| r)
        .max_by_key(|r| (badness(r.verdict), Reverse(r.depth), r.finished_at))?;
    let of_database = |(database, r): &(Option<&str>, &VerificationReport)| {
        database.map(|database| ClusterDatabaseProof {
            database: database.to_owned(),
            verdict: r.verdict,
            depth: r.depth,
            finished_at: r.finished_at,
        })
    };
    Some(BackupProof {
        verdict: worst.verdict,
        depth: worst.depth,
        finished_at: worst.finished_at,
        contents: worst.known_contents(),
        is_signed,
        databases: last.iter().filter_map(of_database).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Trigger;

    /// A report about one database of a cluster, or about a backup of one database (`None`), of this hour.
    fn report(
        database: Option<&str>,
        verdict: Verdict,
        depth: Depth,
        hour: i64,
    ) -> VerificationReport {
        let at = jiff::Timestamp::from_second(hour * 3600).unwrap();
        let mut r = VerificationReport::new("r", Trigger::Command, Depth::Data, at);
        (r.verdict, r.depth) = (verdict, Some(depth));
        r.backup.name = Some("all.sql".into());
        r.backup.generation = Some("1".into());
        r.backup.size = Some("1".into());
        r.backup_created = Some(jiff::Timestamp::UNIX_EPOCH);
        r.database = database.map(str::to_owned);
        r.one_of_several = database.is_some();
        r
    }

    fn proof(reports: &[VerificationReport]) -> BackupProof {
        proof_of(&StoredObject::named("all.sql"), reports, true).unwrap()
    }

    #[test]
    fn a_proof_of_one_database_of_a_cluster_hides_no_failure_of_another() {
        use Verdict::{Failed, Verified};
        let app = report(Some("app"), Verified, Depth::Data, 3);
        let shop = report(Some("shop"), Failed, Depth::Archive, 2);
        let both = proof(&[app.clone(), shop.clone()]);
        assert_eq!((both.verdict, both.databases.len()), (Failed, 2));
        // Each database's newest report counts, and the shallowest of what is verified.
        let again = report(Some("shop"), Verified, Depth::Restore, 4);
        let all = proof(&[app.clone(), shop, again]);
        assert_eq!((all.verdict, all.depth), (Verified, Some(Depth::Restore)));
        assert_eq!(all.databases[0].database, "app");
        assert_eq!(all.databases[0].depth, Some(Depth::Data));
        // One that was read before any database was chosen is about all of them.
        let damaged = report(None, Failed, Depth::Object, 5);
        assert_eq!(proof(&[app, damaged]).verdict, Failed);
    }

    #[test]
    fn of_one_database_the_last_conclusive_report_counts() {
        use Verdict::{Failed, Inconclusive, Verified};
        let reports = [
            report(None, Failed, Depth::Archive, 1),
            report(None, Verified, Depth::Data, 2),
            report(None, Inconclusive, Depth::Object, 3),
        ];
        let proof = proof(&reports);
        assert_eq!((proof.verdict, proof.depth), (Verified, Some(Depth::Data)));
        assert!(proof.databases.is_empty());
    }
}
