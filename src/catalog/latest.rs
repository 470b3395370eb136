//! `latest` and `latest-proven`: the newest backup, of one database.

use std::collections::BTreeSet;

use indicatif::HumanCount;
use tokio::time::Instant;

use super::archived_database::ArchivedDatabase;
use super::backup_catalog::BackupCatalog;
use super::companions::{is_beside, names_of, without_companions};
use super::database_names::{LOOK_LIMIT, SEARCHED, named_by};
use super::evidence::{is_proven, last_of_each, why_bad};
use super::former_generations::{check_deleted, or_soft_deleted};
use super::whole_backups::PassedBackup;
use crate::backup::{self, FormerBackups, FoundBackup, PinnedBackup, UnlistedPlaces, not_after};
use crate::error::{RestoreError, StorageError, StorageKind, ValidationError, ValidationKind};
use crate::job::LatestBackup;
use crate::proof::{BackupOrigin, VerificationReport, pattern_of};
use crate::store::StoredObject;
use crate::verification::{DocumentFolders, GenerationEvidence};

/// Newest backups that `latest` looks into, to see whether they are of several databases.
const COMPARED: usize = 100;
/// Backups that are looked into before those found so far are considered.
const STEP: usize = 32;
/// The note where no key is configured.
const UNSIGNED: &str = "the evidence that this backup is proven is not signed: anyone who may create objects there can have written it (EVIDENCE_TRUSTED_KEYS_FILE)";
/// Most databases or backups that a message names.
const MAX_LISTED: usize = 20;

/// Backups of a listing, newest first, and the databases of those that were looked into.
struct Candidates<'a> {
    found: &'a [FoundBackup],
    databases: Vec<ArchivedDatabase>,
}

/// A backup by its place in a listing, and the names of newer ones that were passed over.
#[derive(Default)]
struct ChosenBackup {
    place: usize,
    /// Those that do not say of which database they are.
    passed: Vec<String>,
    /// Those that are of none.
    left_out: Vec<String>,
    /// Those that were found bad, or of which other bytes were proven, each with the reason: one more than are named.
    refuted: Vec<String>,
    /// Places of evidence that this account may not look into, and that cannot change the choice.
    hidden: Vec<String>,
}

impl BackupCatalog {
    /// Pins the newest backup that is wanted and not among those that were passed over.
    ///
    /// # Errors
    /// `backup_not_found` if there is none, `invalid_request` if it could be one of several databases,
    /// `archive_corrupt` if a piece is missing, `access_denied` if a newer one may be where this account may not look,
    /// `timeout` if a newer one was not looked into within [`LOOK_LIMIT`], and errors of the store, also if they hide whether
    /// a newer one is proven.
    pub(super) async fn pin_latest(
        &self,
        wanted: &LatestBackup,
        passed: &[PassedBackup],
    ) -> Result<PinnedBackup, RestoreError> {
        let store = self.store().await?;
        let FormerBackups {
            found,
            mut unlisted,
            deleted,
            notes,
        } = self.candidates(store.as_ref(), wanted).await?;
        // There is no evidence about them, so none is proven.
        let unusable = wanted.is_proven.then(|| unlisted.take_unusable());
        let deadline = Instant::now() + LOOK_LIMIT;
        if wanted.database.is_none() {
            self.check_one_database(wanted, deadline, &found).await?;
        }
        let found = self.without(passed, found, wanted)?;
        let chosen = match (&wanted.database, wanted.is_proven) {
            (None, false) => self.newest_of_any(wanted, deadline, &found).await,
            (Some(_), false) => self.newest_of(wanted, deadline, &found).await,
            (_, true) => {
                self.newest_proven(wanted, deadline, (found.as_slice(), &mut unlisted))
                    .await
            }
        };
        let chosen = chosen.map_err(|e| or_soft_deleted(store.as_ref(), &deleted, e))?;
        let newer = check_deleted(store.as_ref(), &deleted, &found[chosen.place].object)?;
        let others = match wanted.database {
            None => self.note_of_others(deadline, &found, chosen.place).await?,
            Some(_) => None,
        };
        let found = found[chosen.place].clone();
        let globals = self.config.policy.globals.as_ref();
        let globals = globals.filter(|_| wanted.at.is_some() && store.has_generations());
        let mut pinned = backup::pin_found(store, found, &unlisted).await?;
        pinned.notes.extend(unusable.unwrap_or(unlisted).note());
        if wanted.is_proven && self.keyring()?.is_empty() {
            pinned.notes.push(UNSIGNED.to_owned());
        }
        pinned.notes.extend(chosen.notes());
        pinned.notes.extend(notes);
        pinned.notes.extend(globals.map(|name| {
            format!(
                "{name} beside it is read as it is now, and not as it was then (RESTORE_GLOBALS)"
            )
        }));
        pinned.notes.extend(newer);
        pinned.notes.extend(others);
        Ok(pinned)
    }

    /// That a backup chosen without `--database` does not say of which one it is, if there are backups of others.
    async fn note_of_others(
        &self,
        deadline: Instant,
        found: &[FoundBackup],
        place: usize,
    ) -> Result<Option<String>, RestoreError> {
        if found.len() < 2 {
            return Ok(None);
        }
        let chosen = &found[place].object;
        let own = self.database_before(deadline, chosen).await?;
        let Some(own) = own.filter(ArchivedDatabase::is_unknown) else {
            return Ok(None);
        };
        let own = own.origin(&chosen.name);
        let compared = objects_of(&found[..found.len().min(COMPARED)]);
        let databases = self.databases_before(deadline, &compared).await?;
        let names = names_of(found.iter().map(|f| &f.object));
        let is_backup = |d: &ArchivedDatabase, o: &StoredObject| {
            d.name().is_some() || (d.may_be_backup() && !is_beside(o, &names))
        };
        let origins = databases.iter().zip(&compared).filter_map(|(d, o)| {
            let database = d.as_ref().filter(|d| is_backup(d, o))?;
            Some(database.origin(&o.name))
        });
        let label = |origin: BackupOrigin| match origin {
            BackupOrigin::Named(name) => Some(name),
            BackupOrigin::CalledLike(pattern) => Some(pattern).filter(|p| p.contains('#')),
            BackupOrigin::Cluster(_) => None,
        };
        let others: BTreeSet<String> = origins.filter(|o| *o != own).filter_map(label).collect();
        if others.is_empty() {
            return Ok(None);
        }
        Ok(Some(format!(
            "this backup does not name its database, and there are backups of others ({}): if it is not the one that you want, choose with --database or --prefix",
            listed(others.iter())
        )))
    }

    /// The databases that the newest backups below `prefix` name; of a single backup, none.
    ///
    /// # Errors
    /// `backup_not_found` if there is no backup, and errors of the store.
    pub async fn databases(&self, prefix: &str) -> Result<BTreeSet<String>, RestoreError> {
        let store = self.store().await?;
        let globals = self.config.policy.globals.as_deref();
        let place = (prefix, None);
        let found = backup::newest_first(store.as_ref(), place, globals, self.manifest(), false);
        let (found, _) = found.await?;
        let found = without_companions(found, |f| &f.object);
        let deadline = Instant::now() + LOOK_LIMIT;
        self.named_by(deadline, &found).await
    }

    /// # Errors
    /// Also `timeout`, if it is not known before the deadline whether they are of several databases.
    async fn named_by(
        &self,
        deadline: Instant,
        found: &[FoundBackup],
    ) -> Result<BTreeSet<String>, RestoreError> {
        let mut newest = objects_of(&found[..found.len().min(COMPARED)]);
        if newest.len() < 2 {
            return Ok(BTreeSet::new());
        }
        let databases = self.databases_before(deadline, &newest).await?;
        let names = databases.iter().flatten().filter_map(|d| d.name());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let mut looked_at = databases.iter().map(Option::is_some);
        newest.retain(|_| looked_at.next() == Some(false));
        if names.len() < 2 && !newest.is_empty() {
            return Err(self.not_looked_into(&newest));
        }
        Ok(names)
    }

    /// Refuses backups of several databases: the newest could be of any.
    async fn check_one_database(
        &self,
        wanted: &LatestBackup,
        deadline: Instant,
        found: &[FoundBackup],
    ) -> Result<(), RestoreError> {
        let names = self.named_by(deadline, found).await?;
        if names.len() < 2 {
            return Ok(());
        }
        let what = format!(
            "{}: there are backups of {} databases ({}), and the newest may be of any: choose one with --database (in a request, backup.database)",
            self.config.bucket.uri(&wanted.prefix),
            names.len(),
            listed(names.iter())
        );
        Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
    }

    /// The newest backup of whatever database: files that are certainly none are passed over.
    ///
    /// # Errors
    /// As [`BackupCatalog::search`].
    async fn newest_of_any(
        &self,
        wanted: &LatestBackup,
        deadline: Instant,
        found: &[FoundBackup],
    ) -> Result<ChosenBackup, RestoreError> {
        let searched = &found[..found.len().min(SEARCHED)];
        // There is no other one: the error says what it is instead.
        if searched.len() < 2 {
            return Ok(ChosenBackup::default());
        }
        let (chosen, _) = self.search(deadline, searched, None).await?;
        chosen.ok_or_else(|| {
            let names: Vec<String> = searched.iter().map(|f| f.object.name.clone()).collect();
            let what = format!(
                "no backup of a database{}{}: {}",
                not_after(wanted.at),
                among(searched.len(), found.len() - searched.len()),
                listed(names.iter())
            );
            self.not_found(wanted, &what)
        })
    }

    /// Looks into backups, newest first, until the newest one of the database, or of any, is known, or all were looked into.
    ///
    /// # Errors
    /// `timeout`, if one that may be wanted was not looked into before the deadline.
    async fn search<'a>(
        &self,
        deadline: Instant,
        searched: &'a [FoundBackup],
        database: Option<&str>,
    ) -> Result<(Option<ChosenBackup>, Candidates<'a>), RestoreError> {
        let mut candidates = Candidates {
            found: searched,
            databases: vec![],
        };
        for step in searched.chunks(STEP) {
            let before = candidates.databases.len();
            let looked_at = self.databases_before(deadline, &objects_of(step)).await?;
            // Behind one that was not looked into, nothing is certainly the newest.
            candidates
                .databases
                .extend(looked_at.into_iter().map_while(|d| d));
            let chosen = match database {
                Some(database) => candidates.newest_of(database),
                None => candidates.newest_of_any(),
            };
            if chosen.is_some() {
                return Ok((chosen, candidates));
            }
            let looked_at = candidates.databases.len();
            if looked_at < before + step.len() {
                return Err(self.not_looked_into(&objects_of(&searched[looked_at..])));
            }
        }
        Ok((None, candidates))
    }

    /// The newest backup of the wanted database.
    ///
    /// # Errors
    /// Also `timeout`, if a backup that may be the newest was not looked into before the deadline.
    async fn newest_of(
        &self,
        wanted: &LatestBackup,
        deadline: Instant,
        found: &[FoundBackup],
    ) -> Result<ChosenBackup, RestoreError> {
        let database = wanted.database.as_deref().unwrap_or_default();
        let searched = &found[..found.len().min(SEARCHED)];
        let (chosen, candidates) = self.search(deadline, searched, Some(database)).await?;
        if let Some(chosen) = chosen {
            return Ok(chosen);
        }
        let older = found.len() - searched.len();
        let what = format!(
            "no backup of database {database}{}{}; {}",
            not_after(wanted.at),
            among(searched.len(), older),
            candidates.summary()
        );
        Err(self.not_found(wanted, &what))
    }

    /// The newest backup that its evidence calls proven, of the wanted database if there is one. What may hide backups
    /// and cannot hide evidence about them is taken out of `unlisted`: nothing there is proven.
    ///
    /// # Errors
    /// Also if the evidence about a newer one is not known completely: an older one in its place would be old data that
    /// nobody asked for. What is not known about others does not matter.
    async fn newest_proven(
        &self,
        wanted: &LatestBackup,
        deadline: Instant,
        (found, unlisted): (&[FoundBackup], &mut UnlistedPlaces),
    ) -> Result<ChosenBackup, RestoreError> {
        let Some(evidence) = self.evidence(None).await? else {
            return Err(self.not_found(wanted, "no evidence is kept (EVIDENCE_LOCATION=none), so no backup is known to be proven: name one"));
        };
        let database = wanted.database.as_deref();
        let mut documents: DocumentFolders = evidence.folders(&wanted.prefix).await?;
        if evidence.is_elsewhere() {
            unlisted.retain(|place| documents.may_be_about(place));
        }
        let (mut verified, mut passed, mut refuted) = (0, Vec::new(), Vec::new());
        let may_be_about = |r: &VerificationReport| {
            database.is_none() || r.database.is_none() || r.database.as_deref() == database
        };
        for (place, FoundBackup { object, .. }) in found.iter().enumerate() {
            let known = evidence.among(&mut documents, object).await;
            if known.incomplete.is_some() {
                self.check_known(object, &known, (database, deadline))
                    .await?;
                continue;
            }
            let reports = known.reports.into_iter().filter(may_be_about);
            let reports: Vec<VerificationReport> = reports.collect();
            verified += usize::from(!reports.is_empty());
            if !is_proven(&reports) {
                let other = known.of_other_bytes.as_deref();
                let why = why_refuted(&reports, other.filter(|r| may_be_about(r)));
                if refuted.len() <= MAX_LISTED {
                    let which = label(object, wanted.of_all_generations);
                    refuted.extend(why.map(|why| format!("{which} ({why})")));
                }
                continue;
            }
            let is_it = match database {
                None => true,
                Some(database) => {
                    let of = self.database_by(deadline, object, &reports).await?;
                    if of.is_unknown() {
                        passed.push(object.name.clone());
                    }
                    match of {
                        // Those about its other databases are left out above.
                        ArchivedDatabase::Cluster => reports.iter().any(|r| r.database.is_some()),
                        of => of.name() == Some(database),
                    }
                }
            };
            if is_it {
                let hidden = documents.hidden().iter().map(|p| evidence.uri(p)).collect();
                return Ok(ChosenBackup {
                    refuted,
                    hidden,
                    ..ChosenBackup::after(place, passed)
                });
            }
        }
        let of = database.map(|d| format!(" of database {d}"));
        let of = of.unwrap_or_default();
        let when = not_after(wanted.at);
        let keys = if evidence.is_signed() {
            "; only evidence that a trusted key signed counts"
        } else {
            ""
        };
        let what = format!(
            "no backup{of}{when} is proven ({verified} of {} have evidence{keys}): prove one with `pgrestored verify`, or restore one by its name",
            found.len()
        );
        Err(self.not_found(wanted, &what))
    }

    /// Refuses a backup whose evidence is not known completely, unless it is certainly of another database: what was
    /// not read may say that it is proven, or bad.
    async fn check_known(
        &self,
        object: &StoredObject,
        known: &GenerationEvidence,
        (database, deadline): (Option<&str>, Instant),
    ) -> Result<(), RestoreError> {
        let Some(why) = &known.incomplete else {
            return Ok(());
        };
        let may_be_it = match database {
            None => true,
            Some(database) => match self.database_by(deadline, object, &known.reports).await? {
                ArchivedDatabase::Named(name) => name == database,
                ArchivedDatabase::Cluster | ArchivedDatabase::Unreadable(_) => true,
                _ => false,
            },
        };
        if !may_be_it {
            return Ok(());
        }
        let what = format!(
            "{}: it may be the newest backup that is proven, but its evidence was not read completely ({why}): make the evidence readable, or choose an older backup by its name (`pgrestored list` shows which are proven)",
            self.config.bucket.uri(&object.name)
        );
        let kind = known.cause.unwrap_or(StorageKind::NotFound);
        Err(StorageError::new(kind, what).into())
    }

    /// The database of a backup: by its evidence or, where that names none, by its first bytes.
    ///
    /// # Errors
    /// Also `timeout`, if it was not looked into before the deadline.
    async fn database_by(
        &self,
        deadline: Instant,
        object: &StoredObject,
        reports: &[VerificationReport],
    ) -> Result<ArchivedDatabase, RestoreError> {
        if let Some(named) = reports.iter().find_map(named_by) {
            return Ok(named);
        }
        let looked_at = self.database_before(deadline, object).await?;
        looked_at.ok_or_else(|| self.not_looked_into(std::slice::from_ref(object)))
    }

    fn not_found(&self, wanted: &LatestBackup, what: &str) -> RestoreError {
        let at = self.config.bucket.uri(&wanted.prefix);
        StorageError::new(StorageKind::NotFound, format!("{at}: {what}")).into()
    }
}

impl ChosenBackup {
    fn after(place: usize, passed: Vec<String>) -> Self {
        ChosenBackup {
            place,
            passed,
            ..ChosenBackup::default()
        }
    }

    /// What newer files were passed over, if there are any, and which evidence was not looked for.
    fn notes(&self) -> Vec<String> {
        let notes = [
            self.note_of_passed(),
            self.note_of_left_out(),
            self.note_of_refuted(),
            self.note_of_hidden(),
        ];
        notes.into_iter().flatten().collect()
    }

    fn note_of_hidden(&self) -> Option<String> {
        let places = listed(self.hidden.iter());
        (!self.hidden.is_empty()).then(|| {
            format!(
                "this account may not list {places}, and the evidence there was left out: it is about no newer backup that could have been chosen"
            )
        })
    }

    /// What was chosen is older than what somebody may take for the newest proven one.
    fn note_of_refuted(&self) -> Option<String> {
        let (are, them) = match self.refuted.len() {
            0 => return None,
            1 => ("a newer backup was", "it"),
            _ => ("newer backups were", "one of them"),
        };
        let names = listed(self.refuted.iter());
        Some(format!(
            "{are} not chosen: {names}; if you want {them}, choose it by its name"
        ))
    }

    fn note_of_left_out(&self) -> Option<String> {
        let names = listed(self.left_out.iter());
        match self.left_out.len() {
            0 => None,
            1 => Some(format!(
                "1 newer file is not a backup of a database and was left out: {names}"
            )),
            n => Some(format!(
                "{} newer files are not backups of a database and were left out: {names}",
                HumanCount(n as u64)
            )),
        }
    }

    /// Each of them may be of the wanted database.
    fn note_of_passed(&self) -> Option<String> {
        let names = listed(self.passed.iter());
        match self.passed.len() {
            0 => None,
            1 => Some(format!(
                "1 newer backup does not name its database, and was not chosen: {names}; if you want it, choose it by its name"
            )),
            n => Some(format!(
                "{} newer backups do not name their databases, and were not chosen: {names}; if you want one of them, choose it by its name",
                HumanCount(n as u64)
            )),
        }
    }
}

impl Candidates<'_> {
    /// The newest backup of a database, if one was found: one that names it or a cluster's dump, which may hold it. A
    /// newer one that cannot be read or names no database, and that is called like it, is taken for its newest, too: its
    /// restore fails and says why, which an older backup in its place would hide.
    fn newest_of(&self, database: &str) -> Option<ChosenBackup> {
        let is_it =
            |d: &ArchivedDatabase| d.name() == Some(database) || *d == ArchivedDatabase::Cluster;
        let named = self.databases.iter().position(is_it)?;
        let pattern = |i: usize| pattern_of(&self.found[i].object.name);
        let own = pattern(named);
        let is_unknown = |i: &usize| self.databases[*i].is_unknown();
        let hides = |i: &usize| is_unknown(i) && pattern(*i) == own;
        let place = (0..named).find(hides).unwrap_or(named);
        let passed = (0..place).filter(|i| is_unknown(i) && self.databases[*i].may_be_backup());
        let passed = passed.map(|i| self.found[i].object.name.clone()).collect();
        Some(ChosenBackup::after(place, passed))
    }

    /// The newest backup of any database, if one was found. One that cannot be read is taken for one, and so is a newer
    /// file that is no dump, but is called like the backup: an older backup in its place would hide that the newest is bad.
    fn newest_of_any(&self) -> Option<ChosenBackup> {
        let is_backup = ArchivedDatabase::may_be_backup;
        let found = self.databases.iter().position(is_backup)?;
        let pattern = |i: usize| pattern_of(&self.found[i].object.name);
        let own = pattern(found);
        let hides = |i: &usize| self.databases[*i].is_unknown() && pattern(*i) == own;
        let place = (0..found).find(hides).unwrap_or(found);
        let left_out = (0..place).map(|i| self.found[i].object.name.clone());
        Some(ChosenBackup {
            place,
            left_out: left_out.collect(),
            ..ChosenBackup::default()
        })
    }

    /// What they are instead.
    fn summary(&self) -> String {
        let names: BTreeSet<String> = self
            .databases
            .iter()
            .filter_map(|d| d.name().map(str::to_owned))
            .collect();
        let is_unnamed = |d: &&ArchivedDatabase| d.name().is_none() && d.may_be_backup();
        let unnamed = self.databases.iter().filter(is_unnamed).count();
        let mut parts = Vec::new();
        if !names.is_empty() {
            parts.push(format!("there are backups of {}", listed(names.iter())));
        }
        match unnamed {
            0 if names.is_empty() => parts.push("no file there is a backup of a database".into()),
            0 => {}
            1 => parts.push("1 backup names none: choose it by its own name".into()),
            n => parts.push(format!(
                "{n} backups name none: choose one by its own name, or with --prefix"
            )),
        }
        parts.join("; ")
    }
}

/// Why a backup is not proven that somebody may take for a proven one: it was found bad, or something else was proven in its
/// place. Otherwise it was not verified, or without an answer.
fn why_refuted(
    reports: &[VerificationReport],
    of_other_bytes: Option<&VerificationReport>,
) -> Option<String> {
    let all: Vec<&VerificationReport> = reports.iter().collect();
    let mut last = last_of_each(&all).into_iter();
    if let Some(why) = last.find_map(|(_, r)| why_bad(r)) {
        return Some(format!("its verification failed: {why}"));
    }
    let proof = of_other_bytes.filter(|r| r.is_proof())?;
    Some(format!(
        "it has other bytes or members than when it was proven at {}",
        proof.finished_at
    ))
}

/// What a message calls a backup: with its generation, where there may be others of the same name.
fn label(object: &StoredObject, with_generation: bool) -> String {
    if with_generation {
        format!("{}#{}", object.name, object.generation)
    } else {
        object.name.clone()
    }
}

fn objects_of(found: &[FoundBackup]) -> Vec<StoredObject> {
    found.iter().map(|f| f.object.clone()).collect()
}

/// The first names, for a message.
fn listed<'a>(names: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = if names.len() > MAX_LISTED {
        ", …"
    } else {
        ""
    };
    let shown: Vec<&str> = names.take(MAX_LISTED).map(String::as_str).collect();
    format!("{}{more}", shown.join(", "))
}

/// How far a search went, if not to the end.
fn among(searched: usize, older: usize) -> String {
    match older {
        0 => String::new(),
        n => format!(
            " among the newest {searched} ({n} older ones were not searched: narrow the search with --prefix)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{archive_of, catalog_of, set_age, verified};
    use crate::error::FailureReason as R;
    use crate::job::BackupRef;
    use crate::proof::Verdict;
    use crate::store::faulty::{Call, StoreFault};

    const CLUSTER: &[u8] = b"--\n-- PostgreSQL database cluster dump\n--\n\nSET default_transaction_read_only = off;\n\nCREATE ROLE a;\n\n--\n-- PostgreSQL database cluster dump complete\n--\n\n";

    async fn newest(
        catalog: &BackupCatalog,
        text: &str,
        database: Option<&str>,
    ) -> Result<String, (R, String)> {
        let wanted = BackupRef::from_name(text, "")
            .unwrap()
            .of_database(database);
        match catalog.pin(&wanted, None, None).await {
            Ok(pinned) => Ok(pinned.unwrap().object.name),
            Err(e) => Err((e.reason(), crate::error::report(&e))),
        }
    }

    /// Evidence beside a backup with this verdict, at depth `data`.
    async fn judge(catalog: &BackupCatalog, id: &str, backup: &str, verdict: Verdict) {
        verified(catalog, id, backup, |r| r.verdict = verdict).await;
    }

    /// A backup belongs to the set with the longest prefix.
    #[tokio::test]
    async fn a_backup_of_another_set_is_not_chosen() {
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[("shop/a.dump", &app), ("shop/eu/b.dump", &app)];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "shop/a.dump", 60);
        for (other_sets, chosen) in [
            (vec![], Some("shop/eu/b.dump")),
            (vec!["shop/eu/".to_owned()], Some("shop/a.dump")),
            (vec!["shop/".to_owned()], None),
        ] {
            let wanted = BackupRef::Latest(LatestBackup {
                prefix: "shop/".into(),
                other_sets,
                ..LatestBackup::default()
            });
            let pinned = catalog.pin(&wanted, None, None).await;
            match (pinned, chosen) {
                (Ok(Some(pinned)), Some(chosen)) => assert_eq!(pinned.object.name, chosen),
                (Err(e), None) => assert_eq!(e.reason(), R::BackupNotFound),
                (pinned, _) => panic!("{:?}", pinned.err()),
            }
        }
    }

    #[tokio::test]
    async fn the_newest_backup_of_one_database_is_chosen() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[
            ("a1.dump", &app),
            ("a2.dump", &app),
            ("s1.dump", &shop),
            ("roles.sql", CLUSTER),
            ("text.sql", b"CREATE TABLE t ();\n"),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, name) in ["roles.sql", "s1.dump", "a2.dump", "a1.dump", "text.sql"]
            .into_iter()
            .enumerate()
        {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        assert_eq!(
            newest(&catalog, "latest", Some("app")).await.unwrap(),
            "a2.dump"
        );
        assert_eq!(
            newest(&catalog, "latest", Some("shop")).await.unwrap(),
            "s1.dump"
        );
        let before = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(210);
        let before = format!("latest@{before}");
        assert_eq!(
            newest(&catalog, &before, Some("app")).await.unwrap(),
            "a1.dump"
        );
        let (reason, what) = newest(&catalog, "latest", Some("billing"))
            .await
            .unwrap_err();
        assert_eq!(reason, R::BackupNotFound);
        assert!(
            what.contains(
                "no backup of database billing; there are backups of app, shop; 1 backup names none"
            ),
            "{what}"
        );
        let (reason, what) = newest(&catalog, "latest", None).await.unwrap_err();
        assert_eq!(reason, R::InvalidRequest);
        assert!(
            what.contains("2 databases (app, shop)") && what.contains("--database"),
            "{what}"
        );
        let (listed, _, left_out) = catalog.backups_of_database("", "app").await.unwrap();
        let names: Vec<&str> = listed.iter().map(|b| b.name.as_str()).collect();
        assert_eq!((names, left_out), (vec!["a1.dump", "a2.dump"], 0));
    }

    /// Where this account may not look there may be a newer backup of one database, while the other's newest is known.
    #[tokio::test]
    async fn a_newer_backup_of_the_database_may_be_hidden() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a.dump", &app), ("s.dump", &shop)];
        let (folder, store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "a.dump", 120);
        let hidden = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(60);
        store.hide("private/", hidden);
        let of = async |database| newest(&catalog, "latest", Some(database)).await;
        assert_eq!(of("shop").await.unwrap(), "s.dump");
        assert_eq!(of("app").await.unwrap_err().0, R::AccessDenied);
    }

    /// With backups of one database, `latest` is the newest file that may be one of them.
    #[tokio::test]
    async fn with_one_database_nothing_has_to_be_chosen() {
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("a.dump", &app),
            ("b.dump", &app[..9]),
            ("c.sql", b"CREATE TABLE t ();\n"),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, name) in ["c.sql", "b.dump", "a.dump"].into_iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        assert_eq!(newest(&catalog, "latest", None).await.unwrap(), "c.sql");
        let wanted = BackupRef::from_name("latest", "").unwrap();
        let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
        assert_eq!(
            pinned.notes,
            [
                "this backup does not name its database, and there are backups of others (app): if it is not the one that you want, choose with --database or --prefix"
            ]
        );
        // It cannot be read, and may be the newest backup.
        set_age(&folder, "b.dump", 1);
        assert_eq!(newest(&catalog, "latest", None).await.unwrap(), "b.dump");
    }

    /// Files beside the backups that are of no database are left out, and named.
    #[tokio::test]
    async fn latest_is_a_backup_of_a_database() {
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("roles.sql", CLUSTER),
            ("backup.log", b"2026-11-29 INFO done\n"),
            ("app-2026-11-28.dump", &app),
            ("older.log", b"2026-11-27 INFO done\n"),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let latest = BackupRef::from_name("latest", "").unwrap();
        let pinned = catalog.pin(&latest, None, None).await.unwrap().unwrap();
        assert_eq!(pinned.object.name, "app-2026-11-28.dump");
        assert_eq!(
            pinned.notes,
            [
                "2 newer files are not backups of a database and were left out: roles.sql, backup.log"
            ]
        );
        let of_app = latest.of_database(Some("app"));
        let pinned = catalog.pin(&of_app, None, None).await.unwrap().unwrap();
        assert!(pinned.notes.is_empty(), "{:?}", pinned.notes);
        // What is called like a backup is one that went wrong.
        std::fs::write(
            folder.path().join("app-2026-11-29.dump"),
            "<html>404</html>",
        )
        .unwrap();
        let chosen = newest(&catalog, "latest", None).await.unwrap();
        assert_eq!(chosen, "app-2026-11-29.dump");
        for name in ["app-2026-11-28.dump", "app-2026-11-29.dump"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        let (reason, what) = newest(&catalog, "latest", None).await.unwrap_err();
        assert_eq!(reason, R::BackupNotFound);
        assert!(
            what.contains("no backup of a database: roles.sql, backup.log, older.log"),
            "{what}"
        );
        let (_, what) = newest(&catalog, "latest", Some("app")).await.unwrap_err();
        assert!(
            what.contains("no backup of database app; no file there is a backup of a database"),
            "{what}"
        );
    }

    /// Only backups of databases are named as those of others, and a marker that was written after a backup is not the newest.
    #[tokio::test]
    async fn files_about_a_backup_are_no_backups_of_other_databases() {
        let shop = archive_of("shop");
        let text: &[u8] = b"CREATE TABLE t ();\n";
        let files: &[(&str, &[u8])] = &[
            ("blog-2026-11-29.sql.ok", b""),
            (
                "blog-2026-11-29.sql.sha256",
                b"9f86d081884c7d659a2feaa0c55ad015  blog-2026-11-29.sql\n",
            ),
            ("blog-2026-11-29.sql", text),
            ("roles-2026-11-29.sql", CLUSTER),
            ("backup-2026-11-29.log", b"2026-11-29 INFO done\n"),
            ("shop-2026-11-29.dump", &shop[..20]),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let latest = BackupRef::from_name("latest", "").unwrap();
        let pinned = catalog.pin(&latest, None, None).await.unwrap().unwrap();
        assert_eq!(pinned.object.name, "blog-2026-11-29.sql");
        assert_eq!(
            pinned.notes,
            [
                "this backup does not name its database, and there are backups of others (shop-#.dump): if it is not the one that you want, choose with --database or --prefix"
            ]
        );
    }

    /// A folder that does not exist is named with the setting to check.
    #[tokio::test]
    async fn a_folder_that_does_not_exist_is_named() {
        let (folder, _store, catalog) = catalog_of(&[], &[]).await;
        let path = folder.path().display().to_string();
        drop(folder);
        let wanted = format!("file://{path}: no such folder; check BACKUP_BUCKET");
        let (reason, what) = newest(&catalog, "latest", None).await.unwrap_err();
        assert_eq!((reason, what), (R::BackupNotFound, wanted.clone()));
        let all = [
            catalog.check_bucket().await.unwrap_err(),
            catalog.list_proven("", None).await.unwrap_err(),
            catalog.retention("default", false).await.unwrap_err(),
        ];
        assert_eq!(
            all.map(|e| crate::error::report(&e)),
            [(); 3].map(|()| wanted.clone())
        );
    }

    /// That one database of a cluster was looked at does not show that no other was.
    #[tokio::test]
    async fn evidence_about_a_cluster_that_cannot_be_read_may_be_about_any_of_its_databases() {
        const APP: &[u8] = b"--\n-- PostgreSQL database cluster dump\n--\n\n\\connect app\n";
        let shop = archive_of("shop");
        let files: &[(&str, &[u8])] = &[("all.sql", APP), ("s1.dump", &shop)];
        let (folder, store, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "s1.dump", 3600);
        judge(&catalog, "1", "s1.dump", Verdict::Verified).await;
        let one_of_several = async |database: &str| {
            let change = |r: &mut VerificationReport| {
                (r.database, r.one_of_several) = (Some(database.to_owned()), true);
            };
            verified(&catalog, database, "all.sql", change).await
        };
        one_of_several("app").await;
        let proven = async |database| newest(&catalog, "latest-proven", Some(database)).await;
        assert_eq!(proven("app").await.unwrap(), "all.sql");
        assert_eq!(proven("shop").await.unwrap(), "s1.dump");
        let of_shop = one_of_several("shop").await;
        assert_eq!(proven("shop").await.unwrap(), "all.sql");
        let document = of_shop.rsplit_once('/').unwrap().1;
        let generation = of_shop.rsplit('/').nth(1).unwrap();
        let document = format!("all.sql.pgrestored/{generation}/{document}");
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::Read, &document, denied, 99);
        assert_eq!(proven("shop").await.unwrap_err().0, R::AccessDenied);
    }

    /// An older backup does not hide that the newest is damaged.
    #[tokio::test]
    async fn a_damaged_backup_is_of_the_database_that_its_name_is_of() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[
            ("app-2026-11-28.dump", &app),
            ("app-2026-11-29.dump", &app[..20]),
            ("shop-2026-11-28.dump", &shop),
            ("shop-2026-11-29.dump", &shop[..20]),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (name, _) in files.iter().filter(|(name, _)| name.contains("28")) {
            set_age(&folder, name, 3600);
        }
        for database in ["app", "shop"] {
            let chosen = newest(&catalog, "latest", Some(database)).await.unwrap();
            assert_eq!(chosen, format!("{database}-2026-11-29.dump"));
        }
    }

    /// SQL text that names no database hides an older backup that is called like it, and what is called otherwise is named.
    #[tokio::test]
    async fn a_newer_backup_of_unknown_database_is_not_passed_over_silently() {
        const TEXT: &[u8] = b"--\n-- PostgreSQL database dump\n--\n\nCREATE TABLE t ();\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[
            ("app-2026-11-20.dump", TEXT),
            ("shop_tuesday.dump", &shop[..20]),
            ("shop_monday.dump", &shop),
            ("app-2026-11-01.dump", &app),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in files.iter().enumerate() {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let latest = async |database| {
            let wanted = BackupRef::from_name("latest", "").unwrap();
            let wanted = wanted.of_database(Some(database));
            catalog.pin(&wanted, None, None).await.unwrap().unwrap()
        };
        let newest = latest("app").await;
        assert_eq!(newest.object.name, "app-2026-11-20.dump");
        assert!(newest.notes.is_empty(), "{:?}", newest.notes);
        let newest = latest("shop").await;
        assert_eq!(newest.object.name, "shop_monday.dump");
        assert_eq!(
            newest.notes,
            [
                "2 newer backups do not name their databases, and were not chosen: app-2026-11-20.dump, shop_tuesday.dump; if you want one of them, choose it by its name"
            ]
        );
    }

    /// What was read once is not read again, and what could not be read is no answer.
    #[tokio::test(start_paused = true)]
    async fn the_first_bytes_are_read_once() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a.dump", &app), ("s.dump", &shop)];
        let (_folder, store, catalog) = catalog_of(files, &[]).await;
        let unavailable = StoreFault::Error(crate::error::StorageKind::DownloadFailed);
        store.fail(Call::Read, "a.dump", unavailable, 5);
        let (reason, _) = newest(&catalog, "latest", Some("app")).await.unwrap_err();
        assert_eq!(reason, R::DownloadFailed);
        assert_eq!(
            newest(&catalog, "latest", Some("app")).await.unwrap(),
            "a.dump"
        );
        store.fail(Call::Read, "", unavailable, 99);
        assert_eq!(
            newest(&catalog, "latest", Some("app")).await.unwrap(),
            "a.dump"
        );
        assert_eq!(
            newest(&catalog, "latest", Some("shop")).await.unwrap(),
            "s.dump"
        );
    }

    #[tokio::test]
    async fn the_newest_proven_backup_is_chosen() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[
            ("a1.dump", &app),
            ("a2.dump", &app),
            ("a3.dump", &app),
            ("s1.dump", &shop),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, name) in ["a3.dump", "s1.dump", "a2.dump", "a1.dump"]
            .into_iter()
            .enumerate()
        {
            set_age(&folder, name, 60 * age as u64 + 60);
        }
        let proven = async |database| newest(&catalog, "latest-proven", database).await;
        let (reason, what) = proven(Some("app")).await.unwrap_err();
        assert_eq!(reason, R::BackupNotFound);
        assert!(
            what.contains("no backup of database app is proven (0 of 4 have evidence)"),
            "{what}"
        );
        judge(&catalog, "1", "a1.dump", Verdict::Verified).await;
        judge(&catalog, "2", "a2.dump", Verdict::Verified).await;
        judge(&catalog, "3", "s1.dump", Verdict::Verified).await;
        judge(&catalog, "4", "a3.dump", Verdict::Inconclusive).await;
        assert_eq!(proven(Some("app")).await.unwrap(), "a2.dump");
        assert_eq!(proven(Some("shop")).await.unwrap(), "s1.dump");
        assert_eq!(proven(None).await.unwrap_err().0, R::InvalidRequest);
        // Found bad since.
        judge(&catalog, "5", "a2.dump", Verdict::Failed).await;
        assert_eq!(proven(Some("app")).await.unwrap(), "a1.dump");
        let wanted = BackupRef::from_name("latest-proven", "")
            .unwrap()
            .of_database(Some("app"));
        let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
        let refuted = "a newer backup was not chosen: a2.dump (its verification failed: the evidence does not say why); if you want it, choose it by its name";
        assert_eq!(pinned.notes, [UNSIGNED, refuted]);
    }

    /// An object that somebody adds to a newer backup does not make an older one the newest without a word.
    #[tokio::test]
    async fn a_newer_backup_that_is_not_what_was_proven_is_named() {
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[
            ("20/toc.dat", &app),
            ("20/1.dat", b"1\n"),
            ("19.dump", &app),
        ];
        let (folder, _store, catalog) = catalog_of(files, &[]).await;
        for (age, (name, _)) in (1..).zip(files) {
            set_age(&folder, name, 60 * age);
        }
        let prove = async |id: &str, name: &str, verdict: Verdict| {
            let wanted = BackupRef::from_name(name, "").unwrap();
            let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            let members = pinned.object.members.as_deref().cloned();
            verified(&catalog, id, name, |r| {
                r.verdict = verdict;
                r.members = members;
            })
            .await;
        };
        prove("1", "19.dump", Verdict::Verified).await;
        prove("2", "20/", Verdict::Verified).await;
        let wanted = BackupRef::from_name("latest-proven", "").unwrap();
        let chosen = async || {
            let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            (pinned.object.name, pinned.notes)
        };
        let (name, notes) = chosen().await;
        assert_eq!(name, "20/");
        assert!(!notes.iter().any(|n| n.contains("not chosen")), "{notes:?}");
        // Older than the others: the directory seems to be from the same time.
        std::fs::write(folder.path().join("20/2.dat"), b"2\n").unwrap();
        set_age(&folder, "20/2.dat", 900);
        let said = "a newer backup was not chosen: 20/ (it has other bytes or members than when it was proven at ";
        for is_looked_at in [false, true] {
            if is_looked_at {
                prove("3", "20/", Verdict::Inconclusive).await;
            }
            let (name, notes) = chosen().await;
            assert_eq!(name, "19.dump");
            assert!(notes.iter().any(|n| n.starts_with(said)), "{notes:?}");
        }
    }

    /// An older proof is no answer while it cannot be known whether a newer backup is proven.
    #[tokio::test(start_paused = true)]
    async fn evidence_that_cannot_be_read_is_not_passed_over() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a2.dump", &app), ("s1.dump", &shop), ("a1.dump", &app)];
        for kind in [StorageKind::DownloadFailed, StorageKind::AccessDenied] {
            let (folder, store, catalog) = catalog_of(files, &[]).await;
            for (age, (name, _)) in files.iter().enumerate() {
                set_age(&folder, name, 60 * age as u64 + 60);
                judge(&catalog, name, name, Verdict::Verified).await;
            }
            let proven = async |database| newest(&catalog, "latest-proven", Some(database)).await;
            assert_eq!(proven("app").await.unwrap(), "a2.dump");
            store.fail(
                Call::Read,
                "a2.dump.pgrestored/",
                StoreFault::Error(kind),
                99,
            );
            let (reason, what) = proven("app").await.unwrap_err();
            assert_eq!(reason, kind.reason());
            assert!(
                what.contains("a2.dump: it may be the newest backup that is proven")
                    && what.contains("choose an older backup by its name"),
                "{what}"
            );
            // What is of another database says nothing about this one.
            assert_eq!(proven("shop").await.unwrap(), "s1.dump");
        }
    }

    /// Evidence that is hidden about one backup stops nobody who is to get another one, and is named.
    #[tokio::test]
    async fn hidden_evidence_matters_only_to_its_own_backup() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("a2.dump", &app), ("s1.dump", &shop), ("a1.dump", &app)];
        for (hidden, database, chosen) in [
            // Of no backup that is there, of an older one, and of another database.
            ("x.dump.pgrestored/", "app", Some("a2.dump")),
            ("a1.dump.pgrestored/", "app", Some("a2.dump")),
            ("a2.dump.pgrestored/", "shop", Some("s1.dump")),
            ("a2.dump.pgrestored/", "app", None),
        ] {
            let (folder, store, catalog) = catalog_of(files, &[]).await;
            for (age, (name, _)) in files.iter().enumerate() {
                set_age(&folder, name, 60 * age as u64 + 60);
                judge(&catalog, name, name, Verdict::Verified).await;
            }
            store.hide(hidden, jiff::Timestamp::now());
            let wanted = BackupRef::from_name("latest-proven", "").unwrap();
            let wanted = wanted.of_database(Some(database));
            match (catalog.pin(&wanted, None, None).await, chosen) {
                (Ok(pinned), Some(chosen)) => {
                    let pinned = pinned.unwrap();
                    assert_eq!(pinned.object.name, chosen, "{hidden}");
                    let is_note = |n: &String| n.contains(hidden) && n.contains("left out");
                    assert!(pinned.notes.iter().any(is_note), "{:?}", pinned.notes);
                }
                (Err(e), None) => {
                    let said = crate::error::report(&e);
                    assert!(
                        e.reason() == R::AccessDenied && said.contains(hidden),
                        "{said}"
                    );
                }
                (pinned, _) => panic!("{hidden} {database} {:?}", pinned.err()),
            }
        }
    }

    /// Where evidence is kept elsewhere, a folder of backups that cannot be listed hides no proof.
    #[tokio::test]
    async fn a_hidden_folder_without_evidence_holds_nothing_that_is_proven() {
        let elsewhere = tempfile::tempdir().unwrap();
        let place = format!("file://{}", elsewhere.path().display());
        let flags = [("evidence-location", place.as_str())];
        let app = archive_of("app");
        let (_folder, store, catalog) = catalog_of(&[("a.dump", &app)], &flags).await;
        judge(&catalog, "r", "a.dump", Verdict::Verified).await;
        store.hide("private/", jiff::Timestamp::now());
        let proven = newest(&catalog, "latest-proven", None).await;
        assert_eq!(proven.unwrap(), "a.dump");
        assert_eq!(
            newest(&catalog, "latest", None).await.unwrap_err().0,
            R::AccessDenied
        );
        // Evidence about something in it may be there.
        let document = "private/b.dump.pgrestored/1/0123456789abcdef.dsse.json";
        let path = elsewhere.path().join(document);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "{}").unwrap();
        let (reason, _) = newest(&catalog, "latest-proven", None).await.unwrap_err();
        assert_eq!(reason, R::AccessDenied);
    }

    /// A backup that was not looked into in time is named, and no older one is chosen in its place.
    #[tokio::test]
    async fn a_search_ends_in_time_and_passes_over_nothing() {
        let (app, shop) = (archive_of("app"), archive_of("shop"));
        let files: &[(&str, &[u8])] = &[("s.dump", &shop), ("a.dump", &app)];
        let (folder, faulty, catalog) = catalog_of(files, &[]).await;
        set_age(&folder, "a.dump", 60);
        faulty.fail(Call::Read, "", StoreFault::Stall, 999);
        let store = catalog.store().await.unwrap();
        let found = backup::newest_first(store.as_ref(), ("", None), None, None, false).await;
        let (found, _) = found.unwrap();
        let wanted = BackupRef::from_name("latest", "").unwrap();
        let BackupRef::Latest(wanted) = wanted.of_database(Some("app")) else {
            panic!("not the latest");
        };
        let late = Instant::now();
        let search = async || catalog.newest_of(&wanted, late, &found).await;
        for (known, named) in [(0, "2 of them"), (1, "1 of them")] {
            for found in &found[..known] {
                let shop = ArchivedDatabase::Named("shop".into());
                catalog.known_databases.keep(&found.object, shop);
            }
            let e = search().await.err().unwrap();
            let said = crate::error::report(&e);
            assert!(e.reason() == R::Timeout && said.contains(named), "{said}");
            assert!(said.contains("a.dump"), "{said}");
            let e = catalog.named_by(late, &found).await.unwrap_err();
            assert_eq!(e.reason(), R::Timeout);
        }
        let app = ArchivedDatabase::Named("app".into());
        catalog.known_databases.keep(&found[1].object, app);
        assert_eq!(search().await.unwrap().place, 1);
        assert_eq!(catalog.named_by(late, &found).await.unwrap().len(), 2);
    }

    /// A file that cannot be chosen, because its name is not UTF-8 or because it is a link that leads out, may be the newest
    /// backup.
    #[tokio::test]
    async fn a_newer_file_that_cannot_be_used_is_not_passed_over() {
        use std::os::unix::ffi::OsStrExt;
        let app = archive_of("app");
        let files: &[(&str, &[u8])] = &[("a.dump", &app)];
        for (is_link, problem) in [
            (false, "b-\\xE9.dump: its name is not UTF-8"),
            (true, "b.dump: it is a link that points outside its folder"),
        ] {
            let (folder, _store, catalog) = catalog_of(files, &[]).await;
            set_age(&folder, "a.dump", 60);
            let elsewhere = tempfile::tempdir().unwrap();
            let file = if is_link {
                let file = elsewhere.path().join("b.dump");
                std::os::unix::fs::symlink(&file, folder.path().join("b.dump")).unwrap();
                file
            } else {
                let name = std::ffi::OsStr::from_bytes(b"b-\xe9.dump");
                folder.path().join(name)
            };
            std::fs::write(&file, &app).unwrap();
            let (reason, what) = newest(&catalog, "latest", None).await.unwrap_err();
            assert_eq!(reason, R::AccessDenied);
            assert!(what.contains(problem), "{what}");
            // It is not the newest one that is proven.
            judge(&catalog, "r", "a.dump", Verdict::Verified).await;
            let proven = newest(&catalog, "latest-proven", None).await;
            assert_eq!(proven.unwrap(), "a.dump");
            // One that is older is named, and changes nothing.
            let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
            let opened = std::fs::File::options().write(true).open(&file).unwrap();
            opened.set_modified(hour_ago).unwrap();
            let wanted = BackupRef::from_name("latest", "").unwrap();
            let pinned = catalog.pin(&wanted, None, None).await.unwrap().unwrap();
            assert_eq!(pinned.object.name, "a.dump");
            assert!(
                pinned.notes.concat().contains(problem),
                "{:?}",
                pinned.notes
            );
            let listing = catalog.list_proven("", None).await.unwrap();
            let (named, more) = listing.unlisted.problems(1);
            assert_eq!((listing.backups.len(), named.len(), more), (1, 1, 0));
            assert!(named[0].contains(problem), "{named:?}");
        }
    }
}
