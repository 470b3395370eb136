//! Evidence of verifications, stored next to the backup: a document that is created once and never changed,
//! and an HTML page and a JUnit file rendered from it. Anyone who may create objects in the bucket can put
//! documents there too, so this module decides which of them count, by signature, location and time.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::envelope::{Envelope, Keyring, MAX_ENVELOPE, invalid, sha256_hex};
use super::html_report::page;
use super::junit;
use super::own_evidence::OwnEvidence;
use super::restore_index::RestoreIndex;
use crate::error::{
    FailureReason as R, RestoreError, StorageError, ValidationError, ValidationKind,
    report as describe_error,
};
use crate::policy::{Depth, Trigger};
use crate::proof::{EVIDENCE_SUFFIX, VerificationReport, pattern_of};
use crate::store::{BackupStore, StoredObject, read_small};

const ENVELOPE: &str = ".dsse.json";
/// How many documents one query reads.
const MAX_READ: usize = 5_000;
/// Number of rejected documents after which a query is abandoned.
const MAX_REJECTED: usize = 1_000;
/// Most documents next to one generation of a backup, under names that anybody can choose, that are read.
const MAX_PER_GENERATION: usize = 5_000;
/// The rejected document from which on the log names no further ones.
const MAX_LOGGED: usize = 6;
/// How far the clocks of workers and stores may differ.
const MAX_CLOCK_SKEW: jiff::SignedDuration = jiff::SignedDuration::from_mins(5);

/// The folder of the evidence about one generation of a backup.
fn folder_of(backup: &str, generation: &str) -> String {
    format!(
        "{}{EVIDENCE_SUFFIX}{generation}/",
        backup.trim_end_matches('/')
    )
}

/// The name of a request's evidence without its ending, the same for every attempt.
pub fn evidence_name(backup: &str, generation: &str, request_id: &str) -> String {
    format!(
        "{}{}",
        folder_of(backup, generation),
        &sha256_hex(request_id.as_bytes())[..16]
    )
}

/// Largest index that is written or read, in bytes: some 250,000 blocks. Larger archives are read sequentially.
const MAX_INDEX: u64 = 32 << 20;

/// Identifies a verification: which backup, for which request, why, and how deep. Evidence about another question
/// does not answer it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub backup: &'a StoredObject,
    pub request_id: &'a str,
    pub trigger: Trigger,
    pub depth: Depth,
}

impl Question<'_> {
    fn base(&self) -> String {
        evidence_name(
            &self.backup.name,
            &self.backup.generation.to_string(),
            self.request_id,
        )
    }

    /// A key that is different for every question.
    fn key(&self) -> String {
        key_of(&self.base(), self.trigger, self.depth)
    }

    fn is_answered_by(&self, r: &VerificationReport) -> bool {
        (r.request_id.as_str(), r.trigger, r.depth_requested)
            == (self.request_id, self.trigger, self.depth)
            && is_of(r, self.backup)
    }
}

fn key_of(base: &str, trigger: Trigger, depth: Depth) -> String {
    format!("{base}\n{trigger:?}\n{}", depth.as_str())
}

/// Whether a report is about exactly these bytes, as far as the store's metadata can tell. A directory and pieces
/// have no checksum; the time of their newest object shows whether one was added or replaced since.
pub fn is_of(report: &VerificationReport, object: &StoredObject) -> bool {
    let (name, generation) = (
        Some(object.name.as_str()),
        Some(object.generation.to_string()),
    );
    if report.backup.name.as_deref() != name || report.backup.generation != generation {
        return false;
    }
    let same = match object.crc32c.map(crate::backup::encode_crc32c) {
        Some(crc32c) => report.backup.crc32c == Some(crc32c),
        None => report.backup_created == Some(object.created),
    };
    same && (object.name.ends_with('/') || report.backup.size == Some(object.size.to_string()))
}

/// A report and the location of its document.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredEvidence {
    pub report: VerificationReport,
    /// `gs://…` or `file://…`
    pub uri: String,
}

/// The result of a search among documents.
pub struct Found<T> {
    pub reports: Vec<T>,
    /// Number of rejected documents.
    pub refused: usize,
    /// There were so many rejected documents, under names that anybody can choose, that the search was abandoned.
    pub is_flooded: bool,
}

/// What the documents next to one generation of a backup say about it.
#[derive(Default)]
pub struct Testimony {
    pub reports: Vec<VerificationReport>,
    /// Why there may be more: documents that count may be among those that were not read.
    pub incomplete: Option<String>,
}

/// A search among documents.
struct Search<T> {
    found: Found<T>,
    /// SHA-256 of the reports so far. A copy of a signed document is genuine under any name, but counts once.
    seen: HashSet<String>,
    /// Why a document could not be read.
    unread: Option<String>,
}

impl<T> Default for Search<T> {
    fn default() -> Self {
        let found = Found {
            reports: vec![],
            refused: 0,
            is_flooded: false,
        };
        Search {
            found,
            seen: HashSet::new(),
            unread: None,
        }
    }
}

/// The store of evidence.
#[derive(Clone)]
pub struct Evidence {
    store: Arc<dyn BackupStore>,
    /// The store of the backups that the evidence is about.
    backups: Arc<dyn BackupStore>,
    keys: Arc<Keyring>,
    own: Arc<OwnEvidence>,
}

fn refused(what: impl Into<String>) -> RestoreError {
    ValidationError::new(ValidationKind::VerificationFailed, what).into()
}

impl Evidence {
    pub fn new(
        store: Arc<dyn BackupStore>,
        backups: Arc<dyn BackupStore>,
        keys: Arc<Keyring>,
        own: Arc<OwnEvidence>,
    ) -> Self {
        Evidence {
            store,
            backups,
            keys,
            own,
        }
    }

    /// Whether every document that counts has a name that only holders of the signing key can compute. Documents
    /// that are signed with another trusted key do not.
    pub fn has_own_names(&self) -> bool {
        self.keys.trusts_itself_alone()
    }

    /// Whether documents must be signed to count.
    pub fn is_signed(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The name under which the answer to a question is written, and the second choice if that name is taken.
    /// Nobody without the signing key, if there is one, can predict either.
    fn names(&self, question: &Question<'_>) -> [String; 2] {
        let base = question.base();
        let name = |second: &str| format!("{base}-{second}{ENVELOPE}");
        match (
            self.keys.secret_name(&base),
            self.keys.secret_name(&question.key()),
        ) {
            (Some(first), Some(second)) => [name(&first), name(&second)],
            _ => {
                let second = uuid::Uuid::new_v4().simple().to_string();
                [format!("{base}{ENVELOPE}"), name(&second[..16])]
            }
        }
    }

    /// Which documents have a name that only a worker with this signing key can have chosen.
    async fn own_names(&self, documents: &[StoredObject]) -> Vec<bool> {
        let mut is_own = vec![false; documents.len()];
        if !self.keys.signs() {
            return is_own;
        }
        let parts = |o: &StoredObject| {
            let (base, second) = o.name.strip_suffix(ENVELOPE)?.rsplit_once('-')?;
            Some((base.to_owned(), second.to_owned()))
        };
        // The names of further questions of a request exist only if its first one is taken.
        let mut further: HashMap<String, Option<HashSet<String>>> = HashMap::new();
        for (i, object) in documents.iter().enumerate() {
            if let Some((base, second)) = parts(object)
                && self.keys.secret_name(&base) == Some(second)
            {
                is_own[i] = true;
                further.insert(base, None);
            }
            if i % 1_000 == 999 {
                tokio::task::yield_now().await;
            }
        }
        for (object, is_own) in documents.iter().zip(&mut is_own).filter(|(_, is)| !**is) {
            if let Some((base, second)) = parts(object)
                && let Some(names) = further.get_mut(&base)
            {
                let names = names.get_or_insert_with(|| self.further_names(&base));
                *is_own = names.contains(&second);
            }
        }
        is_own
    }

    /// The second choice of names for every question of one request.
    fn further_names(&self, base: &str) -> HashSet<String> {
        let all = Trigger::ALL
            .into_iter()
            .flat_map(|t| Depth::ALL.map(|d| key_of(base, t, d)));
        all.filter_map(|key| self.keys.secret_name(&key)).collect()
    }

    /// Writes the evidence of a verification. If the question already has an answer, that one stands and is
    /// returned. Foreign documents under the same name are left unchanged.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`; `internal` if both names are taken.
    pub async fn write(
        &self,
        question: &Question<'_>,
        report: &VerificationReport,
    ) -> Result<StoredEvidence, RestoreError> {
        let envelope = self.keys.seal(report)?;
        let report = &envelope.open()?;
        let json = serde_json::to_vec_pretty(&envelope)
            .map_err(|e| RestoreError::internal(e.to_string()))?;
        for name in self.names(question) {
            let made = self
                .store
                .create(&name, json.clone().into(), "application/json")
                .await?;
            if made.is_some() {
                self.own.remember(question.key(), &name, &json);
                self.write_renderings(&name, report).await?;
                return Ok(StoredEvidence {
                    report: report.clone(),
                    uri: self.store.uri(&name),
                });
            }
            if let Some(there) = self.answer_at(question, &name).await? {
                return Ok(there);
            }
        }
        let at = self.store.uri(&question.base());
        Err(RestoreError::internal(format!(
            "{at}: foreign objects occupy both names of the evidence: delete them, and check who may create objects there"
        )))
    }

    /// Writes the HTML page and the JUnit file next to a document. They prove nothing themselves.
    async fn write_renderings(
        &self,
        name: &str,
        report: &VerificationReport,
    ) -> Result<(), RestoreError> {
        let base = name.trim_end_matches(ENVELOPE);
        let file = name.rsplit('/').next().unwrap_or_default();
        let html = page(report, Some((file, self.keys.signs())));
        let xml = junit(report).map_err(RestoreError::internal)?;
        for (ending, text, kind) in [
            ("html", html, "text/html; charset=utf-8"),
            ("junit.xml", xml, "application/xml"),
        ] {
            let name = format!("{base}.{ending}");
            if self.store.create(&name, text.into(), kind).await?.is_none() {
                tracing::error!(
                    name = self.store.uri(&name),
                    "the object exists already, and this worker did not write it: do not trust it"
                );
            }
        }
        Ok(())
    }

    /// The recorded answer to a question: with a key, a signed document; without one, only a document that this
    /// process wrote itself.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn find(
        &self,
        question: &Question<'_>,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let own = self.own.of(&question.key()).map(|(name, _)| name);
        // The name that workers without this key use.
        let plain = format!("{}{ENVELOPE}", question.base());
        for name in own.into_iter().chain(self.names(question)).chain([plain]) {
            if let Some(there) = self.answer_at(question, &name).await? {
                return Ok(Some(there));
            }
        }
        Ok(None)
    }

    /// The answer to a question, if the object of this name contains it and can be trusted.
    async fn answer_at(
        &self,
        question: &Question<'_>,
        name: &str,
    ) -> Result<Option<StoredEvidence>, RestoreError> {
        let own = self.own.of(&question.key()).filter(|(own, _)| own == name);
        if self.keys.is_empty() && own.is_none() {
            return Ok(None);
        }
        let object = match self.store.stat(name, None).await {
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            other => other?,
        };
        let uri = self.store.uri(name);
        match self
            .read(&object, own.map(|(_, sha256)| sha256).as_deref())
            .await
        {
            Ok(report) if question.is_answered_by(&report) => {
                Ok(Some(StoredEvidence { report, uri }))
            }
            Ok(_) => {
                tracing::info!(name = uri, "this evidence is about another verification");
                Ok(None)
            }
            Err(e) if matches!(e, RestoreError::Validation(_)) || object.size > MAX_ENVELOPE => {
                tracing::error!(name = uri, error = describe_error(&e), "evidence rejected");
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Stores the index of an archive unless there is one already.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn write_index(
        &self,
        backup: &str,
        index: &RestoreIndex,
    ) -> Result<(), RestoreError> {
        let name = format!("{}index.json", folder_of(backup, &index.generation));
        let json = serde_json::to_vec(index).map_err(|e| RestoreError::internal(e.to_string()))?;
        if json.len() as u64 > MAX_INDEX {
            return Ok(());
        }
        self.store
            .create(&name, json.into(), "application/json")
            .await?;
        Ok(())
    }

    /// The stored index of this generation of a backup, if there is one.
    ///
    /// # Errors
    /// `invalid_request` if it cannot be parsed, and errors of the store.
    pub async fn index(
        &self,
        backup: &str,
        generation: &str,
    ) -> Result<Option<RestoreIndex>, RestoreError> {
        let name = format!("{}index.json", folder_of(backup, generation));
        let object = match self.store.stat(&name, None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let bytes = read_small(self.store.as_ref(), &object, MAX_INDEX).await?;
        let index = serde_json::from_slice(&bytes);
        index.map(Some).map_err(|e| {
            invalid(format!(
                "{}: not a restore index: {e}",
                self.store.uri(&name)
            ))
        })
    }

    /// The report in a document, if the document counts: signed if that is required, at the right location, and
    /// with plausible times. `own` is the SHA-256 of what this process wrote there, which needs no signature.
    async fn read(
        &self,
        object: &StoredObject,
        own: Option<&str>,
    ) -> Result<VerificationReport, RestoreError> {
        let (report, _) = self.read_document(object, own).await?;
        check_clock(&report, jiff::Timestamp::now())?;
        Ok(report)
    }

    /// The report and the SHA-256 of what is signed. This machine's clock is not asked: what it refuses, it may accept
    /// later.
    async fn read_document(
        &self,
        object: &StoredObject,
        own: Option<&str>,
    ) -> Result<(VerificationReport, String), RestoreError> {
        let bytes = read_small(self.store.as_ref(), object, MAX_ENVELOPE).await?;
        let envelope: Envelope =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not evidence: {e}")))?;
        let report = match own.map(|sha256| sha256 == sha256_hex(&bytes)) {
            Some(true) => envelope.open()?,
            Some(false) if self.keys.is_empty() => {
                return Err(refused(
                    "the document differs from what this worker wrote there",
                ));
            }
            _ => self.keys.open(&envelope)?,
        };
        self.check_place(&report, object)?;
        check_times(&report, object)?;
        Ok((report, envelope.digest()?))
    }

    /// Checks that a document is next to the backup and generation that it is about, under its request's name.
    fn check_place(
        &self,
        report: &VerificationReport,
        object: &StoredObject,
    ) -> Result<(), RestoreError> {
        let misplaced =
            || refused("the document is about another backup or request than its location says");
        let (name, generation) = report.subject().ok_or_else(misplaced)?;
        let base = evidence_name(name, generation, &report.request_id);
        let rest = object.name.strip_prefix(&base);
        let fits = rest
            .is_some_and(|r| r == ENVELOPE || (r.starts_with('-') && is_document(&object.name)))
            && report.backup.uri == Some(self.backups.uri(name));
        if fits { Ok(()) } else { Err(misplaced()) }
    }

    /// All documents under `prefix`, newest first.
    ///
    /// # Errors
    /// Errors of the store.
    async fn list(&self, prefix: &str) -> Result<Vec<StoredObject>, StorageError> {
        let mut all = match self.store.members(prefix).await {
            Err(e) if e.reason() == R::BackupNotFound => vec![],
            other => other?,
        };
        all.retain(|o| is_document(&o.name));
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
        Ok(all)
    }

    /// The reports under `prefix` that count and that `wanted` maps to a value, newest first, at most `limit`.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reports<T>(
        &self,
        prefix: &str,
        limit: usize,
        wanted: impl FnMut(VerificationReport) -> Option<T>,
    ) -> Result<Found<T>, RestoreError> {
        let all = self.list(prefix).await?;
        self.select(all, limit, wanted).await
    }

    /// As [`Evidence::reports`], but starting with backups whose name resembles `name`, so that the reports of one
    /// database are found quickly in a set of many.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reports_like<T>(
        &self,
        (prefix, name): (&str, &str),
        limit: usize,
        wanted: impl FnMut(VerificationReport) -> Option<T>,
    ) -> Result<Found<T>, RestoreError> {
        let pattern = pattern_of(name.trim_end_matches('/'));
        let mut all = self.list(prefix).await?;
        let backup =
            |o: &StoredObject| pattern_of(o.name.split(EVIDENCE_SUFFIX).next().unwrap_or_default());
        all.sort_by_cached_key(|o| backup(o) != pattern);
        self.select(all, limit, wanted).await
    }

    /// The folder of the documents about one generation of a backup.
    pub fn folder(object: &StoredObject) -> String {
        folder_of(&object.name, &object.generation.to_string())
    }

    /// Documents by folder, that is, by generation; newest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn folders(
        &self,
        prefix: &str,
    ) -> Result<HashMap<String, Vec<StoredObject>>, RestoreError> {
        let mut folders: HashMap<String, Vec<StoredObject>> = HashMap::new();
        for object in self.list(prefix).await? {
            let folder = object.name.rfind('/').map_or("", |n| &object.name[..=n]);
            folders.entry(folder.to_owned()).or_default().push(object);
        }
        Ok(folders)
    }

    /// The reports about exactly this backup in these documents, as far as they count. All are read, whichever
    /// are newer, because any may be the one that says that the backup is bad.
    pub async fn about(&self, object: &StoredObject, documents: Vec<StoredObject>) -> Testimony {
        let is_own = self.own_names(&documents).await;
        let mut wanted = |r: VerificationReport| is_of(&r, object).then(|| r.brief());
        let (mut search, mut others) = (Search::default(), 0);
        for (document, is_own) in documents.iter().zip(is_own) {
            others += usize::from(!is_own);
            if is_own || others <= MAX_PER_GENERATION {
                self.take(document, is_own, &mut search, &mut wanted).await;
            }
        }
        let left = others.saturating_sub(MAX_PER_GENERATION);
        if left > 0 && !self.has_own_names() {
            search.unread = Some(format!(
                "{left} of {others} documents of evidence in {} were not read, because there are too many",
                Self::folder(object)
            ));
        }
        Testimony {
            reports: search.found.reports,
            incomplete: search.unread,
        }
    }

    async fn select<T>(
        &self,
        documents: Vec<StoredObject>,
        limit: usize,
        mut wanted: impl FnMut(VerificationReport) -> Option<T>,
    ) -> Result<Found<T>, RestoreError> {
        let is_own = self.own_names(&documents).await;
        let mut all: Vec<(StoredObject, bool)> = documents.into_iter().zip(is_own).collect();
        if self.has_own_names() {
            // No flood of others costs time before all that counts was read.
            all.sort_by_key(|(_, is_own)| !is_own);
        }
        let (mut search, mut own, mut others) = (Search::default(), 0, 0);
        for (document, is_own) in &all {
            if search.found.reports.len() >= limit {
                break;
            }
            let (read, most) = if *is_own {
                (&mut own, MAX_READ)
            } else {
                (&mut others, MAX_READ.saturating_sub(own))
            };
            if *read >= most || (search.found.is_flooded && !is_own) {
                search.found.is_flooded |= !is_own;
                continue;
            }
            *read += 1;
            self.take(document, *is_own, &mut search, &mut wanted).await;
            search.found.is_flooded |= search.found.refused >= MAX_REJECTED;
        }
        if search.found.is_flooded {
            let refused = search.found.refused;
            tracing::warn!("the evidence has too many documents that do not count: {refused}");
        }
        Ok(search.found)
    }

    /// Reads one document; logs its rejection, once per document.
    async fn take<T>(
        &self,
        object: &StoredObject,
        is_own: bool,
        search: &mut Search<T>,
        wanted: &mut impl FnMut(VerificationReport) -> Option<T>,
    ) {
        let found = &mut search.found;
        if self.own.has_refused(object) {
            found.refused += 1;
            return;
        }
        let error = match self.read_document(object, None).await {
            Ok((report, digest)) => match check_clock(&report, jiff::Timestamp::now()) {
                Ok(()) if search.seen.insert(digest) => {
                    return found.reports.extend(wanted(report));
                }
                // Which of them is the copy depends on the order, so this is not remembered.
                Ok(()) => refused("the document is a copy of another one"),
                // Nor is this: it counts once this machine's clock is right.
                Err(e) => {
                    if self.is_signed() {
                        let uri = self.store.uri(&object.name);
                        search.unread = Some(format!("{uri}: {}", describe_error(&e)));
                    }
                    e
                }
            },
            Err(e) => {
                if matches!(e, RestoreError::Validation(_)) {
                    self.own.refuse(object);
                } else if is_unread(&e, object) && (is_own || !self.has_own_names()) {
                    let uri = self.store.uri(&object.name);
                    search.unread = Some(format!("{uri}: {}", describe_error(&e)));
                }
                e
            }
        };
        found.refused += 1;
        match found.refused.cmp(&MAX_LOGGED) {
            Less => {
                tracing::warn!(
                    name = object.name,
                    error = describe_error(&error),
                    "evidence rejected"
                )
            }
            Equal => {
                tracing::warn!("more documents of evidence were rejected, which are not logged")
            }
            Greater => {}
        }
    }
}

/// Whether the document could count: it exists and is not too large, but the store did not return it.
fn is_unread(e: &RestoreError, object: &StoredObject) -> bool {
    e.reason() != R::BackupNotFound && object.size <= MAX_ENVELOPE
}

/// Whether a name has the form of a document, `BACKUP.pgrestored/GENERATION/ID.dsse.json`.
fn is_document(name: &str) -> bool {
    let is_hex = |t: &str| t.len() == 16 && t.bytes().all(|b| b.is_ascii_hexdigit());
    let below = name
        .rsplit_once(EVIDENCE_SUFFIX)
        .and_then(|(_, below)| below.strip_suffix(ENVELOPE));
    let Some((generation, id)) = below.and_then(|b| b.split_once('/')) else {
        return false;
    };
    let (first, second) = id.split_once('-').map_or((id, None), |(a, b)| (a, Some(b)));
    generation.bytes().all(|b| b.is_ascii_digit()) && is_hex(first) && second.is_none_or(is_hex)
}

/// The times of a report that must not be in the future.
fn times_of(report: &VerificationReport) -> impl Iterator<Item = jiff::Timestamp> {
    let times = [
        Some(report.started_at),
        Some(report.finished_at),
        report.backup_created,
    ];
    times.into_iter().flatten()
}

fn is_after(time: jiff::Timestamp, now: jiff::Timestamp) -> bool {
    time > now.saturating_add(MAX_CLOCK_SKEW).unwrap_or(now)
}

/// Checks that the times in the report are in order, and that none was in the future when it was stored.
fn check_times(report: &VerificationReport, document: &StoredObject) -> Result<(), RestoreError> {
    let is_late = times_of(report).any(|t| is_after(t, document.created));
    if is_late || report.started_at > report.finished_at {
        return Err(refused(
            "the document contains times that are in the future or in the wrong order",
        ));
    }
    Ok(())
}

/// Checks that no time in the report is in the future by this machine's clock, which may be wrong.
fn check_clock(report: &VerificationReport, now: jiff::Timestamp) -> Result<(), RestoreError> {
    if times_of(report).any(|t| is_after(t, now)) {
        return Err(refused(
            "the document contains times that are in the future by this machine's clock",
        ));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests;
