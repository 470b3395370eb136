//! The search among documents of evidence. Anybody who may create objects decides how many there are and how long, so
//! a search is bounded by the documents that it reads and by the memory of the reports that it keeps.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{HashMap, HashSet};

use super::listing::{ListedDocuments, UnreadDocuments, backup_of, folder_of_document};
use super::names::{folder_of, is_of, is_of_generation};
use super::store::Evidence;
use super::times::{check_clock, check_times, rejected_document};
use crate::error::{
    FailureReason as R, RestoreError, StorageError, StorageKind, report as describe_error,
};
use crate::policy::Depth;
use crate::proof::{EVIDENCE_SUFFIX, ListedTables, Verdict, VerificationReport, pattern_of};
use crate::store::{StoredObject, bytes_of, read_small};
use crate::verification::envelope::{Envelope, MAX_ENVELOPE, invalid, sha256_hex};

/// How many documents one query reads.
pub(super) const MAX_READ: usize = 5_000;
/// Number of rejected documents after which a query is abandoned.
pub(super) const MAX_REJECTED: usize = 1_000;
/// Number of rejected documents beside one backup after which no others beside it are read, so that a flood there hides
/// nothing that is beside others.
pub(super) const MAX_REJECTED_BESIDE: usize = 250;
/// Most documents beside backups of one name pattern that a search in turns reads.
const MAX_OF_PATTERN: usize = 200;
/// Most of them that are beside one generation of a backup.
const MAX_OF_GENERATION: usize = 50;
/// Documents of each name pattern without which a search in turns is limited.
const FIRST_TURNS: usize = 2;
/// The warning about a rejected document from which on there are no further ones.
const MAX_LOGGED: usize = 6;

/// How much a search keeps.
#[derive(Debug, Clone, Copy)]
pub struct SearchLimit {
    pub reports: usize,
    /// Memory for the reports, in bytes, as [`bytes_of`] estimates it. The first one is kept whatever its size: it has
    /// at most that of a document.
    pub bytes: usize,
}

/// The result of a search among documents.
#[derive(Debug, Default)]
pub struct Found {
    pub reports: Vec<VerificationReport>,
    /// Number of rejected documents.
    pub rejected: usize,
    /// There were so many documents that do not count, under names that anybody can choose, that the search was abandoned,
    /// or was only among the others.
    pub is_flooded: bool,
    /// The search ended at a report that counts, because it did not fit into the memory for them.
    pub is_cut: bool,
    /// Of a search in turns: not even the two newest documents of every name pattern were read and kept, so that the only
    /// report of one here may not be its only one.
    pub is_limited: bool,
    /// The place, in the order of the search, of the first document that was not read or not kept.
    first_unread: Option<usize>,
    /// Why there may be more: this account may not look into a place where evidence may be.
    pub hidden: Option<String>,
    /// Which documents that could count were not read, because there are too many.
    pub left_out: Option<String>,
}

impl Found {
    fn leave_out(&mut self, place: usize) {
        self.first_unread = Some(self.first_unread.map_or(place, |p| p.min(place)));
    }

    /// Why there may be more that counts, if there may.
    pub fn incomplete(&self) -> Option<String> {
        let why = [&self.hidden, &self.left_out];
        let why: Vec<&str> = why.into_iter().flatten().map(String::as_str).collect();
        (!why.is_empty()).then(|| why.join("; "))
    }
}

/// The documents below a prefix, by folder, that is, by generation of a backup.
#[derive(Debug, Default)]
pub struct DocumentFolders {
    /// Newest first.
    pub(super) documents: HashMap<String, Vec<StoredObject>>,
    /// Names of places where there may be more, but this account may not look.
    pub(super) hidden: Vec<String>,
    left_out: UnreadDocuments,
}

impl DocumentFolders {
    /// Where this account may not look, although evidence may be there.
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }

    /// Whether there may be evidence about a backup in this place, a folder with a slash or a file.
    pub fn may_be_about(&self, place: &str) -> bool {
        let is_below = |name: &String| name.starts_with(place) || place.starts_with(name.as_str());
        self.documents.keys().any(is_below)
            || self.hidden.iter().any(is_below)
            || self.left_out.text().is_some()
    }
}

/// What the documents next to one generation of a backup say about it.
#[derive(Debug, Default)]
pub struct GenerationEvidence {
    pub reports: Vec<VerificationReport>,
    /// The tables of the newest report of a restore that lists them.
    pub tables: Option<ListedTables>,
    /// A report that calls other bytes of the same generation verified, if there is one: of the deepest, the newest.
    pub of_other_bytes: Option<Box<VerificationReport>>,
    /// Why there may be more: documents that count may be among those that were not read or kept.
    pub incomplete: Option<String>,
    /// What the store answered, if that is why.
    pub cause: Option<StorageKind>,
}

impl GenerationEvidence {
    /// The reports, also the one about other bytes.
    pub(crate) fn all(&self) -> impl Iterator<Item = &VerificationReport> {
        self.reports.iter().chain(self.of_other_bytes.as_deref())
    }
}

/// A document that counts.
pub(super) struct ReadDocument {
    pub report: VerificationReport,
    /// Id of the key that signed it, if signatures are checked or this process wrote it.
    pub signed_by: Option<String>,
    /// SHA-256 of what is signed.
    digest: String,
}

/// A search among documents.
struct Search {
    found: Found,
    /// Memory for the reports, in bytes, and how much of it they take.
    limit: usize,
    kept: usize,
    /// SHA-256 of the reports so far. A copy of a signed document is genuine under any name, but counts once.
    seen: HashSet<String>,
    /// Why a document could not be read, and what the store answered, if that is why.
    unread: Option<String>,
    cause: Option<StorageKind>,
    /// As [`ListedDocuments::asked`].
    asked: Option<String>,
    /// Warnings about rejected documents.
    warnings: usize,
}

impl Search {
    fn new(limit: usize) -> Self {
        Search {
            asked: None,
            warnings: 0,
            found: Found::default(),
            limit,
            kept: 0,
            seen: HashSet::new(),
            unread: None,
            cause: None,
        }
    }

    /// What was not read, because the store did not return it (`cause`) or for another reason, may count.
    fn leave_unread(&mut self, why: String, cause: Option<StorageKind>) {
        (self.unread, self.cause) = (Some(why), cause);
    }

    /// Whether a document lies beside a backup that is asked about.
    fn is_asked(&self, document: &StoredObject) -> bool {
        self.asked.as_ref().is_none_or(|asked| {
            let rest = document.name.strip_prefix(asked.as_str());
            rest.is_some_and(|rest| rest.starts_with(EVIDENCE_SUFFIX))
        })
    }

    /// Logs the rejection of a document, as a warning if it lies beside a backup that is asked about.
    fn log_rejection(&mut self, document: &StoredObject, error: &str) {
        let name = &document.name;
        if !self.is_asked(document) {
            tracing::debug!(name, error, "evidence rejected");
            return;
        }
        self.warnings += 1;
        match self.warnings.cmp(&MAX_LOGGED) {
            Less => tracing::warn!(name, error, "evidence rejected"),
            Equal => {
                tracing::warn!("more documents of evidence were rejected, which are not logged")
            }
            Greater => {}
        }
    }

    fn keep(&mut self, report: VerificationReport) {
        let bytes = bytes_of(&report);
        if self.kept > 0 && self.kept.saturating_add(bytes) > self.limit {
            self.found.is_cut = true;
            return;
        }
        self.kept += bytes;
        self.found.reports.push(report);
    }
}

impl Evidence {
    /// Reads one document. This machine's clock is not asked: what it refuses, it may accept later.
    pub(super) async fn read_document(
        &self,
        object: &StoredObject,
        own: Option<&str>,
    ) -> Result<ReadDocument, RestoreError> {
        let _permit = self.own.reading(object.size).await;
        let bytes = read_small(self.store.as_ref(), object, MAX_ENVELOPE).await?;
        let envelope: Envelope =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("not evidence: {e}")))?;
        let (report, signed_by) = match own.map(|sha256| sha256 == sha256_hex(&bytes)) {
            Some(true) => (envelope.open()?, envelope.key_id()),
            Some(false) if self.keys.is_empty() => {
                return Err(rejected_document(
                    "the document differs from what this worker wrote there",
                ));
            }
            _ => self.keys.open(&envelope)?,
        };
        self.check_place(&report, object)?;
        check_times(&report, object)?;
        Ok(ReadDocument {
            report,
            signed_by,
            digest: envelope.digest()?,
        })
    }

    /// The reports under `prefix` that count and that `wanted` returns, newest first.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reports(
        &self,
        prefix: &str,
        limit: SearchLimit,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        let listed = self.list(prefix).await?;
        self.select(listed, limit, wanted).await
    }

    /// As [`Evidence::reports`], but starting with backups whose name resembles `name`, so that the reports of one
    /// database are found quickly in a set of many. Only documents beside `name` are rejected with a warning.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reports_like(
        &self,
        (prefix, name): (&str, &str),
        limit: SearchLimit,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        let pattern = pattern_of(name.trim_end_matches('/'));
        let mut listed = self.list(prefix).await?;
        listed.asked = Some(name.trim_end_matches('/').to_owned());
        let all = &mut listed.documents;
        all.sort_by_cached_key(|o| pattern_of_backup(o) != pattern);
        self.select(listed, limit, wanted).await
    }

    /// As [`Evidence::reports`], but of every name pattern the newest first, then the next of each, so that one database
    /// with many backups hides no other.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn reports_of_each(
        &self,
        prefix: &str,
        limit: SearchLimit,
        wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        let mut listed = self.list(prefix).await?;
        let (turns, first) = in_turns(listed.documents);
        listed.documents = turns;
        let mut found = self.select(listed, limit, wanted).await?;
        found.is_limited = found.first_unread.is_some_and(|place| place < first);
        Ok(found)
    }

    /// The folder of the documents about one generation of a backup.
    pub fn folder(object: &StoredObject) -> String {
        folder_of(&object.name, &object.generation.to_string())
    }

    /// All documents below a prefix, as far as they are listed.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn folders(&self, prefix: &str) -> Result<DocumentFolders, RestoreError> {
        let listed = self.list(prefix).await?;
        let mut folders = DocumentFolders {
            documents: HashMap::new(),
            hidden: listed.hidden,
            left_out: listed.left_out,
        };
        for object in listed.documents {
            let folder = folder_of_document(&object.name).to_owned();
            folders.documents.entry(folder).or_default().push(object);
        }
        Ok(folders)
    }

    /// What the documents next to one generation of a backup say about it, of those in a listing. What is not listed
    /// elsewhere does not matter.
    pub async fn among(
        &self,
        folders: &mut DocumentFolders,
        object: &StoredObject,
    ) -> GenerationEvidence {
        let folder = Self::folder(object);
        let documents = folders.documents.remove(&folder).unwrap_or_default();
        let mut known = self.about(object, documents).await;
        if let Some(place) = hiding(&folders.hidden, &folder) {
            known.incomplete = Some(self.unlisted(place));
            known.cause = Some(StorageKind::AccessDenied);
        }
        let left_out = || folders.left_out.about(backup_of(&folder));
        known.incomplete = known.incomplete.or_else(left_out);
        known
    }

    /// What the documents next to one generation of a backup say about it. What this account may not look into elsewhere
    /// does not matter.
    ///
    /// # Errors
    /// Errors of the store; `access_denied` if documents may be where this account may not look.
    pub async fn beside(&self, object: &StoredObject) -> Result<GenerationEvidence, RestoreError> {
        let folder = Self::folder(object);
        let mut folders = self.folders(&folder).await?;
        if let Some(place) = hiding(&folders.hidden, &folder) {
            return Err(StorageError::new(StorageKind::AccessDenied, self.unlisted(place)).into());
        }
        Ok(self.among(&mut folders, object).await)
    }

    /// The reports about exactly this backup in these documents, as far as they count. All are read, whichever
    /// are newer, because any may be the one that says that the backup is bad. Signed ones that do not call it verified
    /// count under whatever path their worker knew the same object.
    pub async fn about(
        &self,
        object: &StoredObject,
        documents: Vec<StoredObject>,
    ) -> GenerationEvidence {
        let is_own = self.own_names(&documents).await;
        let mut all: Vec<(StoredObject, bool)> = documents.into_iter().zip(is_own).collect();
        // What others wrote takes no memory from what counts for certain.
        all.sort_by_key(|(_, is_own)| !is_own);
        // One folder may have several paths. Only what speaks for a backup has to name the place that was asked for.
        let counts = |r: &VerificationReport| {
            self.is_about_our_store(r) || (self.is_signed() && r.verdict != Verdict::Verified)
        };
        let mut tables: Option<(jiff::Timestamp, ListedTables)> = None;
        let mut of_other_bytes: Option<Box<VerificationReport>> = None;
        let mut wanted = |r: VerificationReport| {
            if !counts(&r) {
                return None;
            }
            if is_of(&r, object) {
                // Without a restore, what a backup leaves out is not judged.
                let counts = r.depth >= Some(Depth::Restore)
                    && tables.as_ref().is_none_or(|(at, _)| *at <= r.finished_at);
                if let Some(listed) = r.listed_tables().filter(|_| counts) {
                    tables = Some((r.finished_at, listed));
                }
                return Some(r.brief());
            }
            let tells_most =
                |of: &VerificationReport| (r.depth, r.finished_at) > (of.depth, of.finished_at);
            let is_of_others = r.is_verified() && is_of_generation(&r, object);
            if is_of_others && of_other_bytes.as_deref().is_none_or(tells_most) {
                of_other_bytes = Some(Box::new(r.brief()));
            }
            None
        };
        let (mut search, mut others) = (Search::new(self.limits.testimony), 0);
        for (document, is_own) in &all {
            let is_own = *is_own;
            others += usize::from(!is_own);
            // None of the others can count where the names tell.
            if is_own || (others <= self.limits.per_generation && !self.has_own_names()) {
                self.take(document, is_own, &mut search, &mut wanted).await;
            }
            if search.found.is_cut {
                break;
            }
        }
        let left = others.saturating_sub(self.limits.per_generation);
        if left > 0 && !self.has_own_names() {
            let why = format!(
                "{left} of {others} documents of evidence in {} were not read, because there are too many",
                Self::folder(object)
            );
            search.leave_unread(why, None);
        }
        if search.found.is_cut {
            let why = format!(
                "not all documents of evidence in {} were kept, because together they are longer than {} MiB",
                Self::folder(object),
                self.limits.testimony >> 20
            );
            search.leave_unread(why, None);
        }
        GenerationEvidence {
            reports: search.found.reports,
            tables: tables.map(|(_, listed)| listed),
            of_other_bytes,
            incomplete: search.unread,
            cause: search.cause,
        }
    }

    async fn select(
        &self,
        listed: ListedDocuments,
        limit: SearchLimit,
        mut wanted: impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) -> Result<Found, RestoreError> {
        let mut wanted = |r: VerificationReport| {
            if self.is_about_our_store(&r) {
                wanted(r)
            } else {
                None
            }
        };
        let (documents, mut left_out) = (listed.documents, listed.left_out);
        let is_own = self.own_names(&documents).await;
        let documents = documents.into_iter().zip(is_own).enumerate();
        let mut all: Vec<(usize, (StoredObject, bool))> = documents.collect();
        if self.has_own_names() {
            // No flood of others costs time before all that counts was read.
            all.sort_by_key(|(_, (_, is_own))| !is_own);
        }
        let (mut search, mut own, mut others) = (Search::new(limit.bytes), 0, 0);
        let mut rejected_beside: HashMap<&str, usize> = HashMap::new();
        search.found.hidden = listed.hidden.first().map(|place| self.unlisted(place));
        search.asked = listed.asked;
        for (place, (document, is_own)) in &all {
            if search.found.reports.len() >= limit.reports || search.found.is_cut {
                search.found.leave_out(*place);
                continue;
            }
            let beside = backup_of(&document.name);
            let rejected = rejected_beside.entry(beside).or_default();
            let (read, most) = if *is_own {
                (&mut own, MAX_READ)
            } else {
                (&mut others, MAX_READ.saturating_sub(own))
            };
            let is_abandoned = search.found.is_flooded || *rejected >= MAX_REJECTED_BESIDE;
            if *read >= most || (is_abandoned && !is_own) {
                search.found.leave_out(*place);
                left_out.add(beside);
                continue;
            }
            *read += 1;
            let before = search.found.rejected;
            self.take(document, *is_own, &mut search, &mut wanted).await;
            if !is_own {
                *rejected += search.found.rejected - before;
            }
            if search.found.is_cut {
                search.found.leave_out(*place);
            }
            search.found.is_flooded |= search.found.rejected >= MAX_REJECTED;
        }
        if search.found.is_flooded {
            let rejected = search.found.rejected;
            tracing::warn!("the evidence has too many documents that do not count: {rejected}");
        }
        search.found.is_flooded |= listed.is_flooded;
        // Where the names tell, nothing of it could count.
        if !self.has_own_names() {
            search.found.left_out = left_out.text();
        }
        if search.found.is_cut {
            tracing::warn!(
                documents = search.found.reports.len(),
                "documents of evidence are too long to be kept together: only the newest are"
            );
        }
        Ok(search.found)
    }

    /// Reads one document; logs its rejection, once per document.
    async fn take(
        &self,
        object: &StoredObject,
        is_own: bool,
        search: &mut Search,
        wanted: &mut impl FnMut(VerificationReport) -> Option<VerificationReport>,
    ) {
        let uri = self.store.uri(&object.name);
        if self.own.has_rejected(uri.clone(), object) {
            search.found.rejected += 1;
            if search.is_asked(object)
                && let Some(why) = self.own.take_unsaid(uri, object)
            {
                search.log_rejection(object, &why);
            }
            return;
        }
        let error = match self.read_document(object, None).await {
            Ok(read) => match check_clock(&read.report, jiff::Timestamp::now()) {
                Ok(()) if search.seen.insert(read.digest) => {
                    if let Some(report) = wanted(read.report) {
                        search.keep(report);
                    }
                    return;
                }
                // Which of them is the copy depends on the order, so this is not remembered.
                Ok(()) => rejected_document("the document is a copy of another one"),
                // Nor is this: it counts once this machine's clock is right.
                Err(e) => {
                    if self.is_signed() {
                        search.leave_unread(format!("{uri}: {}", describe_error(&e)), None);
                    }
                    e
                }
            },
            Err(e) => {
                if matches!(e, RestoreError::Validation(_)) {
                    let why = describe_error(&e);
                    let unsaid = Some(why.as_str()).filter(|_| !search.is_asked(object));
                    self.own.reject(uri, object, unsaid);
                } else if is_unread(&e, object) && (is_own || !self.has_own_names()) {
                    let cause = match &e {
                        RestoreError::Storage(e) => Some(e.kind()),
                        _ => None,
                    };
                    search.leave_unread(format!("{uri}: {}", describe_error(&e)), cause);
                }
                e
            }
        };
        search.found.rejected += 1;
        search.log_rejection(object, &describe_error(&error));
    }
}

/// The place that may hide documents of this folder, if there is one.
fn hiding<'a>(hidden: &'a [String], folder: &str) -> Option<&'a str> {
    let may_hide = |place: &&String| {
        let rest = place.strip_prefix(folder);
        rest.is_some_and(|file| !file.contains('/')) || folder.starts_with(place.as_str())
    };
    hidden.iter().find(may_hide).map(String::as_str)
}

/// The pattern of the name of the backup that a document lies beside.
fn pattern_of_backup(document: &StoredObject) -> String {
    pattern_of(backup_of(&document.name))
}

/// Documents, given newest first, in turns: the newest of each pattern, then the next of each. Also how many of them are
/// of the first turns.
fn in_turns(documents: Vec<StoredObject>) -> (Vec<StoredObject>, usize) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut of_folder: HashMap<String, usize> = HashMap::new();
    let turns = documents.into_iter().filter_map(|o| {
        let beside = of_folder
            .entry(folder_of_document(&o.name).to_owned())
            .or_default();
        *beside += 1;
        if *beside > MAX_OF_GENERATION {
            return None;
        }
        let count = counts.entry(pattern_of_backup(&o)).or_default();
        *count += 1;
        (*count <= MAX_OF_PATTERN).then_some((*count, o))
    });
    let mut turns: Vec<(usize, StoredObject)> = turns.collect();
    turns.sort_by_key(|(turn, _)| *turn);
    let first = turns.partition_point(|(turn, _)| *turn <= FIRST_TURNS);
    (turns.into_iter().map(|(_, o)| o).collect(), first)
}

/// Whether the document could count: it exists and is not too large, but the store did not return it.
fn is_unread(e: &RestoreError, object: &StoredObject) -> bool {
    e.reason() != R::BackupNotFound && object.size <= MAX_ENVELOPE
}

#[cfg(test)]
mod tests {
    use super::super::names::ENVELOPE;
    use super::*;

    /// Of each pattern the newest documents come first, and no more than a search in turns reads of one.
    #[test]
    fn a_search_in_turns_reads_every_pattern() {
        let document = |(age, name): (usize, String)| StoredObject {
            created: jiff::Timestamp::from_second(1_000 - age as i64).unwrap(),
            ..StoredObject::named(&format!("{name}{EVIDENCE_SUFFIX}1/x{ENVELOPE}"))
        };
        let day = |n: usize| format!("2026-{:02}-{:02}", 1 + n / 28, 1 + n % 28);
        let app = (0..MAX_OF_PATTERN + 9).map(|n| format!("app-{}.dump", day(n)));
        let all: Vec<String> = app
            .chain(["shop-2026-01-02.dump".into(), "shop-2026-01-01.dump".into()])
            .collect();
        let documents = all.into_iter().enumerate().map(document).collect();
        let (turns, first) = in_turns(documents);
        assert_eq!(first, 4);
        let names: Vec<&str> = turns.iter().map(|o| &o.name[..15]).collect();
        assert_eq!(
            names[..4],
            [
                "app-2026-01-01.",
                "shop-2026-01-02",
                "app-2026-01-02.",
                "shop-2026-01-01"
            ]
        );
        assert_eq!(names.len(), MAX_OF_PATTERN + 2);
        // A flood beside one backup leaves turns to the others of its pattern.
        let newest = (0..500).map(|_| "app-2026-12-31.dump".to_owned());
        let all = newest.chain(["app-2026-12-30.dump".to_owned()]);
        let documents = all.enumerate().map(document).collect();
        let (turns, _) = in_turns(documents);
        assert_eq!(turns.len(), MAX_OF_GENERATION + 1);
        let last = turns.last().unwrap();
        assert!(last.name.starts_with("app-2026-12-30"), "{}", last.name);
    }
}
