//! The status of a set of backups, database by database. Pure.

use crate::policy::Depth;
use crate::proof::{BackupOrigin, RestoreSample, Rto, Verdict, VerificationReport, pattern_of};

/// Most databases of a set that are told apart.
const MAX_DATABASES: usize = 1_000;
/// A database counts for its set from this number of proofs on, if as many of each could be read: a single backup that
/// somebody made by hand is not expected to be proven again.
const REGULAR: u32 = 2;
/// Restores in the trend of a set.
const TREND: usize = 30;

/// A set of backups, as its evidence says. With several databases, the set is as fresh as the one whose proof is
/// oldest.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[schemars(rename = "SetStanding")]
pub struct BackupSetStatus {
    pub name: String,
    /// When a backup of it was last proven; of several databases, of the one that was proven longest ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proof: Option<jiff::Timestamp>,
    /// The newest backup that was proven, of the same database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_backup: Option<String>,
    /// When that backup was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_created: Option<jiff::Timestamp>,
    /// How far it was looked at: `restore` or `data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_depth: Option<Depth>,
    /// Of the last verification that restored, or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_verdict: Option<Verdict>,
    /// Of several databases, of the one whose restore is expected to take longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
    /// The last restores of proven backups, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trend: Vec<RestoreSample>,
    /// Whether this rests on signed evidence alone.
    #[serde(default)]
    pub is_signed: bool,
    /// Each database, if there are several.
    #[serde(default, skip_serializing_if = "has_at_most_one")]
    pub databases: Vec<DatabaseStatus>,
    /// Whether there are so many databases that not two proofs of each, or not all databases, are known. A single known
    /// proof of one is then no sign that nobody proves it again.
    #[serde(skip)]
    pub is_limited: bool,
}

fn has_at_most_one(databases: &[DatabaseStatus]) -> bool {
    databases.len() < 2
}

/// The proven backups of one database in a set.
#[derive(
    Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct DatabaseStatus {
    /// As its archives name it; absent if they name none, or are of a whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Of dumps of a whole cluster, the only database of them that these proofs looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_database: Option<String>,
    /// The name of its backups, with `#` for dates and times.
    pub backups: String,
    /// Number of proofs that are known.
    pub proofs: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_proof: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_backup: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_created: Option<jiff::Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_depth: Option<Depth>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Rto>,
}

impl DatabaseStatus {
    /// The database, or what its backups are called; of a whole cluster, both.
    pub fn label(&self) -> String {
        match (&self.database, &self.cluster_database) {
            (Some(database), _) => database.clone(),
            (None, Some(database)) => format!("{database} in {}", self.backups),
            (None, None) => self.backups.clone(),
        }
    }

    pub(super) fn origin(&self) -> BackupOrigin {
        match (&self.database, &self.cluster_database) {
            (None, Some(_)) => BackupOrigin::Cluster(self.backups.clone()),
            (database, _) => BackupOrigin::new(database.clone(), &self.backups),
        }
    }

    /// Whether it is the database of backups of this origin and, of a whole cluster, this database of it.
    fn is(&self, origin: &BackupOrigin, cluster_database: Option<&str>) -> bool {
        self.origin() == *origin && self.cluster_database.as_deref() == cluster_database
    }

    /// Whether a report is, or may be: a backup that could not be opened is one of every database whose backups are
    /// called like it.
    pub(crate) fn may_be_about(&self, report: &VerificationReport) -> bool {
        let name = report.backup.name.as_deref().unwrap_or_default();
        let is_unopened = report.database.is_none() && report.archive.is_none();
        self.is(&report.origin(), cluster_database(report).as_deref())
            || (is_unopened && pattern_of(name) == self.backups)
    }

    /// What a proof adds to it. An older backup that is proven afterwards, as a sample, makes the newest one no better
    /// proven.
    pub(super) fn add(&mut self, proof: &VerificationReport) {
        if self.last_proof.is_none_or(|t| proof.finished_at > t) {
            self.proofs = self.proofs.saturating_add(1);
        }
        self.database = proof.own_database().map(str::to_owned);
        self.cluster_database = cluster_database(proof);
        self.backups = pattern_of(proof.backup.name.as_deref().unwrap_or_default());
        if proof.backup_created >= self.proven_created {
            self.last_proof = Some(proof.finished_at);
            self.proven_backup.clone_from(&proof.backup.name);
            self.proven_created = proof.backup_created;
            self.proven_depth = proof.depth;
            self.rto = proof.rto.or(self.rto);
        }
    }
}

/// The database of a whole cluster that a report looked at.
fn cluster_database(report: &VerificationReport) -> Option<String> {
    report.database.clone().filter(|_| report.is_of_several())
}

impl BackupSetStatus {
    pub(super) fn new(name: &str, is_signed: bool) -> Self {
        BackupSetStatus {
            name: name.to_owned(),
            last_proof: None,
            proven_backup: None,
            proven_created: None,
            proven_depth: None,
            last_verdict: None,
            rto: None,
            trend: vec![],
            is_signed,
            databases: vec![],
            is_limited: false,
        }
    }

    /// What a verification adds to it. One that was not restored, and one of a part, say nothing good of the set.
    pub fn add(&mut self, report: &VerificationReport) {
        if report.is_verified() && !report.proves_whole() {
            return;
        }
        self.last_verdict = Some(report.verdict);
        if let Some(sample) = report.sample() {
            self.trend.push(sample);
            let old = self.trend.len().saturating_sub(TREND);
            self.trend.drain(..old);
        }
        if !report.is_proof() {
            return;
        }
        let (origin, of_cluster) = (report.origin(), cluster_database(report));
        let is_its = |d: &DatabaseStatus| d.is(&origin, of_cluster.as_deref());
        match self.databases.iter_mut().find(|d| is_its(d)) {
            Some(database) => database.add(report),
            None => {
                if self.databases.len() >= MAX_DATABASES {
                    self.leave_out_freshest();
                }
                let mut database = DatabaseStatus::default();
                database.add(report);
                self.databases.push(database);
            }
        }
        self.sum_up();
    }

    /// Makes room for another database. The set is as fresh as its stalest one, so that one stays.
    fn leave_out_freshest(&mut self) {
        self.is_limited = true;
        let last_proofs = self.databases.iter().map(|d| d.last_proof).enumerate();
        if let Some((freshest, _)) = last_proofs.max_by_key(|(_, at)| *at) {
            self.databases.remove(freshest);
        }
    }

    /// Leaves out the databases of which no backup is left, unless there is none of any.
    pub(super) fn leave_out_gone(&mut self, is_there: impl Fn(&DatabaseStatus) -> bool) {
        if self.databases.iter().any(&is_there) {
            self.databases.retain(is_there);
            self.sum_up();
        }
    }

    fn sum_up(&mut self) {
        let has_regular = !self.is_limited && self.databases.iter().any(|d| d.proofs >= REGULAR);
        let counts = |d: &&DatabaseStatus| !has_regular || d.proofs >= REGULAR;
        let counted = || self.databases.iter().filter(counts);
        let Some(oldest) = counted().min_by_key(|d| d.last_proof).cloned() else {
            return;
        };
        let slowest = counted()
            .filter_map(|d| d.rto)
            .max_by(|a, b| a.forecast_seconds.total_cmp(&b.forecast_seconds));
        self.last_proof = oldest.last_proof;
        self.proven_backup = oldest.proven_backup;
        self.proven_created = oldest.proven_created;
        self.proven_depth = oldest.proven_depth;
        self.rto = slowest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Trigger;
    use crate::proof::BackupContents;

    fn at(hour: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(hour * 3600).unwrap()
    }

    /// A proof of a backup of `database` that was made and proven at this hour.
    fn proof(database: Option<&str>, backup: &str, hour: i64, forecast: f64) -> VerificationReport {
        let mut report = VerificationReport::new("r", Trigger::Notification, Depth::Data, at(hour));
        report.verdict = Verdict::Verified;
        report.depth = Some(Depth::Data);
        report.database = database.map(str::to_owned);
        report.backup.name = Some(backup.to_owned());
        report.backup_created = Some(at(hour));
        report.rto = Some(Rto {
            measured_seconds: forecast,
            forecast_seconds: forecast,
            samples: 1,
        });
        report
    }

    fn status_of(proofs: &[VerificationReport]) -> BackupSetStatus {
        let mut status = BackupSetStatus::new("default", true);
        proofs.iter().for_each(|p| status.add(p));
        status
    }

    #[test]
    fn a_set_is_as_fresh_as_its_stalest_database() {
        let (app, shop) = (Some("app"), Some("shop"));
        let mut status = status_of(&[
            proof(app, "1.dump", 1, 90.0),
            proof(shop, "2.dump", 2, 5.0),
            proof(app, "3.dump", 3, 80.0),
            proof(shop, "4.dump", 4, 6.0),
            proof(shop, "5.dump", 5, 7.0),
        ]);
        assert_eq!(status.last_proof, Some(at(3)));
        assert_eq!(status.proven_backup.as_deref(), Some("3.dump"));
        assert_eq!(status.rto.unwrap().forecast_seconds, 80.0);
        let labels: Vec<String> = status.databases.iter().map(DatabaseStatus::label).collect();
        assert_eq!(labels, ["app", "shop"]);
        // Made by hand, once: nobody proves it again.
        status.add(&proof(Some("test"), "test.dump", 0, 1.0));
        assert_eq!(status.last_proof, Some(at(3)));
        // The backups of a database that is no longer backed up were deleted.
        let kept = BackupOrigin::new(Some("shop".into()), "6.dump");
        status.leave_out_gone(|d| d.origin() == kept);
        assert_eq!(status.last_proof, Some(at(5)));
        assert_eq!(status.databases.len(), 1);
        status.leave_out_gone(|_| false);
        assert_eq!(status.last_proof, Some(at(5)));
    }

    #[test]
    fn backups_without_a_database_name_are_told_apart_by_their_own() {
        let status = status_of(&[
            proof(None, "shop-2026-11-01.sql", 1, 1.0),
            proof(None, "blog-2026-11-01.sql", 2, 1.0),
            proof(None, "shop-2026-11-02.sql", 3, 1.0),
            proof(None, "blog-2026-11-02.sql", 4, 1.0),
        ]);
        assert_eq!(status.last_proof, Some(at(3)));
        let labels: Vec<String> = status.databases.iter().map(DatabaseStatus::label).collect();
        assert_eq!(labels, ["shop-#.sql", "blog-#.sql"]);
        // Of one database, nothing is listed apart.
        let one = status_of(&[proof(Some("app"), "1.dump", 1, 1.0)]);
        let json = serde_json::to_value(&one).unwrap();
        assert!(json.get("databases").is_none(), "{json}");
    }

    #[test]
    fn a_proof_of_one_database_of_a_cluster_is_none_of_that_databases_own_backups() {
        let of_cluster = VerificationReport {
            one_of_several: true,
            ..proof(Some("app"), "all-2026-11-01.sql", 5, 1.0)
        };
        let of_shop = VerificationReport {
            database: Some("shop".into()),
            backup_created: Some(at(4)),
            finished_at: at(4),
            ..of_cluster.clone()
        };
        let status = status_of(&[proof(Some("app"), "1.dump", 1, 1.0), of_shop, of_cluster]);
        let labels: Vec<String> = status.databases.iter().map(DatabaseStatus::label).collect();
        assert_eq!(labels, ["app", "shop in all-#.sql", "app in all-#.sql"]);
        assert_eq!(status.last_proof, Some(at(1)));
        let last: Vec<_> = status.databases.iter().map(|d| d.last_proof).collect();
        assert_eq!(last, [Some(at(1)), Some(at(4)), Some(at(5))]);
    }

    /// All of them are called alike.
    #[test]
    fn a_proof_without_a_database_name_refreshes_no_database_that_has_one() {
        let status = status_of(&[
            proof(Some("shop"), "backup-2026-11-01", 1, 1.0),
            proof(Some("blog"), "backup-2026-11-02", 2, 1.0),
            proof(None, "backup-2026-11-03", 3, 1.0),
        ]);
        let labels: Vec<String> = status.databases.iter().map(DatabaseStatus::label).collect();
        assert_eq!(labels, ["shop", "blog", "backup-#"]);
        assert_eq!(status.last_proof, Some(at(1)));
    }

    /// A schema alone is no replacement for a backup with rows, however new and well proven it is.
    #[test]
    fn a_proof_of_a_part_makes_a_set_no_fresher() {
        let part = VerificationReport {
            contents: Some(BackupContents::SchemaOnly),
            ..proof(Some("app"), "2.dump", 2, 1.0)
        };
        let status = status_of(&[proof(Some("app"), "1.dump", 1, 9.0), part]);
        assert_eq!(status.last_proof, Some(at(1)));
        assert_eq!(status.proven_backup.as_deref(), Some("1.dump"));
        assert_eq!((status.databases[0].proofs, status.trend.len()), (1, 1));
    }

    #[test]
    fn an_answer_that_is_repeated_counts_once() {
        let once = proof(Some("app"), "1.dump", 1, 1.0);
        let status = status_of(&[once.clone(), once]);
        assert_eq!(status.databases[0].proofs, 1);
    }

    /// Of many databases only one proof of some was read, and those may be the stalest.
    #[test]
    fn a_database_with_one_known_proof_counts_if_there_may_be_more() {
        let proofs = [
            proof(Some("app"), "1.dump", 2, 1.0),
            proof(Some("app"), "2.dump", 3, 1.0),
            proof(Some("shop"), "3.dump", 1, 1.0),
        ];
        assert_eq!(status_of(&proofs).last_proof, Some(at(3)));
        let mut status = BackupSetStatus::new("default", true);
        status.is_limited = true;
        proofs.iter().for_each(|p| status.add(p));
        assert_eq!(status.last_proof, Some(at(1)));
    }

    #[test]
    fn the_stalest_of_too_many_databases_stays() {
        let mut status = BackupSetStatus::new("default", true);
        let database = |hour| DatabaseStatus {
            database: Some(format!("app{hour}")),
            last_proof: Some(at(hour)),
            ..DatabaseStatus::default()
        };
        status.databases = (1..=MAX_DATABASES as i64).map(database).collect();
        status.add(&proof(Some("new"), "1.dump", 2_000, 1.0));
        assert_eq!(status.databases.len(), MAX_DATABASES);
        assert_eq!(status.last_proof, Some(at(1)));
    }
}
