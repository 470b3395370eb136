//! The search among documents of evidence. Anybody who may create objects decides how many there are and how long, so
//! a search is bounded by the documents that it reads and by the memory of the reports that it keeps.

use std::cmp::Ordering::{Equal, Greater, Less};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::names::{ENVELOPE, folder_of, is_document, is_of, key_of};
use super::store::Evidence;
use super::times::{check_clock, check_times, refused};
use crate::error::{
    FailureReason as R, RestoreError, StorageError, StorageKind, report as describe_error,
};
use crate::policy::{Depth, Trigger};
use crate::proof::{EVIDENCE_SUFFIX, Verdict, VerificationReport, is_ours, pattern_of};
use crate::store::{StoredObject, bytes_of, read_small};
use crate::verification::envelope::{Envelope, Keyring, MAX_ENVELOPE, invalid, sha256_hex};

/// How many documents one query reads.
pub(super) const MAX_READ: usize = 5_000;
/// Number of rejected documents after which a query is abandoned.
pub(super) const MAX_REJECTED: usize = 1_000;
/// Most documents next to one generation of a backup, under names that anybody can choose, that are read.
pub(super) const MAX_PER_GENERATION: usize = 5_000;
/// Most documents beside backups of one name pattern that a search in turns reads.
const MAX_OF_PATTERN: usize = 200;
/// Documents of each name pattern without which a search in turns is limited.
const FIRST_TURNS: usize = 2;
/// The warning about a rejected document from which on there are no further ones.
const MAX_LOGGED: usize = 6;
/// Memory for the reports about one generation of a backup, in bytes.
const MAX_TESTIMONY: usize = 16 << 20;

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
    pub refused: usize,
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
}

impl Found {
    fn leave_out(&mut self, place: usize) {
        self.first_unread = Some(self.first_unread.map_or(place, |p| p.min(place)));
    }
}

/// The documents of a place.
struct ListedDocuments {
    /// Newest first.
    documents: Vec<StoredObject>,
    /// Names of places where there may be more, but this account may not look.
    hidden: Vec<String>,
    /// There were more than a listing holds, so it has only those with own names.
    is_flooded: bool,
    /// The backup that is asked about, without the slash of a directory; of `None`, all are.
    asked: Option<String>,
}

/// What the documents next to one generation of a backup say about it.
#[derive(Debug, Default)]
pub struct Testimony {
    pub reports: Vec<VerificationReport>,
    /// Why there may be more: documents that count may be among those that were not read or kept.
    pub incomplete: Option<String>,
    /// What the store answered, if that is why.
    pub cause: Option<StorageKind>,
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
    /// Which documents have a name that only a worker with this signing key can have chosen.
    async fn own_names(&self, documents: &[StoredObject]) -> Vec<bool> {
        let mut is_own = vec![false; documents.len()];
        if !self.keys.signs() {
            return is_own;
        }
        // The names of further questions of a request exist only if its first one is taken.
        let mut further: HashMap<String, Option<HashSet<String>>> = HashMap::new();
        for (i, object) in documents.iter().enumerate() {
            if let Some((base, second)) = parts_of(&object.name)
                && self.keys.secret_name(base).as_deref() == Some(second)
            {
                is_own[i] = true;
                further.insert(base.to_owned(), None);
            }
            if i % 1_000 == 999 {
                tokio::task::yield_now().await;
            }
        }
        for (object, is_own) in documents.iter().zip(&mut is_own).filter(|(_, is)| !**is) {
            if let Some((base, second)) = parts_of(&object.name)
                && let Some(names) = further.get_mut(base)
            {
                let names = names.get_or_insert_with(|| further_names(&self.keys, base));
                *is_own = names.contains(second);
            }
        }
        is_own
    }

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
                return Err(refused(
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

    /// All documents under `prefix`, as far as this account may look.
    ///
    /// # Errors
    /// Errors of the store.
    async fn list(&self, prefix: &str) -> Result<ListedDocuments, StorageError> {
        let mut listed = self.store.members_where(prefix, is_document).await;
        let is_too_long = |e: &StorageError| e.kind() == StorageKind::ListingTooLong;
        let is_flooded = self.has_own_names() && listed.as_ref().is_err_and(is_too_long);
        if is_flooded {
            // No documents of others count, and nobody else can give one an own name.
            let keys = self.keys.clone();
            let is_own = move |name: &str| is_document(name) && is_own_name(&keys, name);
            listed = self.store.members_named(prefix, Arc::new(is_own)).await;
            tracing::warn!("the evidence has too many documents that do not count for one listing");
        }
        let mut all = match listed {
            Err(e) if e.reason() == R::BackupNotFound => vec![],
            other => other?,
        };
        let hidden = all.iter().filter(|o| self.may_hide_documents(o));
        let hidden = hidden.map(|o| o.name.clone()).collect();
        all.retain(|o| !o.is_unlisted);
        all.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.name.cmp(&a.name)));
        Ok(ListedDocuments {
            documents: all,
            hidden,
            is_flooded,
            asked: None,
        })
    }

    /// Why evidence may be missing if this place is not listed.
    fn unlisted(&self, place: &str) -> String {
        format!(
            "{}: this account may not look into it, and evidence may be there: let the account read it",
            self.store.uri(place)
        )
    }

    /// Whether evidence that matters may be in a place that is not listed. Beside backups, an unlisted folder that is not
    /// one of evidence hides both; evidence about what is not listed is not looked for.
    fn may_hide_documents(&self, place: &StoredObject) -> bool {
        let holds_backups = self.store.uri("") == self.backups.uri("");
        place.is_unlisted && (is_ours(&place.name) || !holds_backups)
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

    /// Documents by folder, that is, by generation; newest first.
    ///
    /// # Errors
    /// Errors of the store; `access_denied` if documents may be where this account may not look.
    pub async fn folders(
        &self,
        prefix: &str,
    ) -> Result<HashMap<String, Vec<StoredObject>>, RestoreError> {
        let mut folders: HashMap<String, Vec<StoredObject>> = HashMap::new();
        let listed = self.list(prefix).await?;
        if let Some(place) = listed.hidden.first() {
            return Err(StorageError::new(StorageKind::AccessDenied, self.unlisted(place)).into());
        }
        for object in listed.documents {
            let folder = object.name.rfind('/').map_or("", |n| &object.name[..=n]);
            folders.entry(folder.to_owned()).or_default().push(object);
        }
        Ok(folders)
    }

    /// What the documents next to one generation of a backup say about it. What this account may not look into elsewhere
    /// does not matter.
    ///
    /// # Errors
    /// Errors of the store; `access_denied` if documents may be where this account may not look.
    pub async fn beside(&self, object: &StoredObject) -> Result<Testimony, RestoreError> {
        let folder = Self::folder(object);
        let is_beside = |name: &str| {
            let rest = name.strip_prefix(&folder);
            rest.is_some_and(|file| !file.contains('/'))
        };
        let mut listed = self.list(&folder).await?;
        let mut hidden = listed.hidden.iter();
        if let Some(place) = hidden.find(|p| is_beside(p) || folder.starts_with(p.as_str())) {
            return Err(StorageError::new(StorageKind::AccessDenied, self.unlisted(place)).into());
        }
        listed.documents.retain(|o| is_beside(&o.name));
        Ok(self.about(object, listed.documents).await)
    }

    /// The reports about exactly this backup in these documents, as far as they count. All are read, whichever
    /// are newer, because any may be the one that says that the backup is bad. Signed ones that do not call it verified
    /// count under whatever path their worker knew the same object.
    pub async fn about(&self, object: &StoredObject, documents: Vec<StoredObject>) -> Testimony {
        let is_own = self.own_names(&documents).await;
        let mut all: Vec<(StoredObject, bool)> = documents.into_iter().zip(is_own).collect();
        // What others wrote takes no memory from what counts for certain.
        all.sort_by_key(|(_, is_own)| !is_own);
        // One folder may have several paths. Only what speaks for a backup has to name the place that was asked for.
        let counts = |r: &VerificationReport| {
            self.is_about_our_store(r) || (self.is_signed() && r.verdict != Verdict::Verified)
        };
        let mut wanted =
            |r: VerificationReport| (is_of(&r, object) && counts(&r)).then(|| r.brief());
        let (mut search, mut others) = (Search::new(MAX_TESTIMONY), 0);
        for (document, is_own) in &all {
            let is_own = *is_own;
            others += usize::from(!is_own);
            // None of the others can count where the names tell.
            if is_own || (others <= MAX_PER_GENERATION && !self.has_own_names()) {
                self.take(document, is_own, &mut search, &mut wanted).await;
            }
            if search.found.is_cut {
                break;
            }
        }
        let left = others.saturating_sub(MAX_PER_GENERATION);
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
                MAX_TESTIMONY >> 20
            );
            search.leave_unread(why, None);
        }
        Testimony {
            reports: search.found.reports,
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
        let documents = listed.documents;
        let is_own = self.own_names(&documents).await;
        let documents = documents.into_iter().zip(is_own).enumerate();
        let mut all: Vec<(usize, (StoredObject, bool))> = documents.collect();
        if self.has_own_names() {
            // No flood of others costs time before all that counts was read.
            all.sort_by_key(|(_, (_, is_own))| !is_own);
        }
        let (mut search, mut own, mut others) = (Search::new(limit.bytes), 0, 0);
        search.found.hidden = listed.hidden.first().map(|place| self.unlisted(place));
        search.asked = listed.asked;
        for (place, (document, is_own)) in &all {
            if search.found.reports.len() >= limit.reports || search.found.is_cut {
                search.found.leave_out(*place);
                continue;
            }
            let (read, most) = if *is_own {
                (&mut own, MAX_READ)
            } else {
                (&mut others, MAX_READ.saturating_sub(own))
            };
            if *read >= most || (search.found.is_flooded && !is_own) {
                search.found.leave_out(*place);
                continue;
            }
            *read += 1;
            self.take(document, *is_own, &mut search, &mut wanted).await;
            if search.found.is_cut {
                search.found.leave_out(*place);
            }
            search.found.is_flooded |= search.found.refused >= MAX_REJECTED;
        }
        if search.found.is_flooded {
            let refused = search.found.refused;
            tracing::warn!("the evidence has too many documents that do not count: {refused}");
        }
        search.found.is_flooded |= listed.is_flooded;
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
        if self.own.has_refused(uri.clone(), object) {
            search.found.refused += 1;
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
                Ok(()) => refused("the document is a copy of another one"),
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
                    self.own.refuse(uri, object, unsaid);
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
        search.found.refused += 1;
        search.log_rejection(object, &describe_error(&error));
    }
}

/// The name of a document without what follows the request, and the secret that follows it.
fn parts_of(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(ENVELOPE)?.rsplit_once('-')
}

/// The second choice of names for every question of one request.
fn further_names(keys: &Keyring, base: &str) -> HashSet<String> {
    let all = Trigger::ALL
        .into_iter()
        .flat_map(|t| Depth::ALL.map(|d| key_of(base, t, d)));
    all.filter_map(|key| keys.secret_name(&key)).collect()
}

/// Whether only a worker with the signing key can have chosen this name of a document.
fn is_own_name(keys: &Keyring, name: &str) -> bool {
    parts_of(name).is_some_and(|(base, second)| {
        keys.secret_name(base).as_deref() == Some(second)
            || further_names(keys, base).contains(second)
    })
}

/// The pattern of the name of the backup that a document lies beside.
fn pattern_of_backup(document: &StoredObject) -> String {
    pattern_of(
        document
            .name
            .split(EVIDENCE_SUFFIX)
            .next()
            .unwrap_or_default(),
    )
}

/// Documents, given newest first, in turns: the newest of each pattern, then the next of each. Also how many of them are
/// of the first turns.
fn in_turns(documents: Vec<StoredObject>) -> (Vec<StoredObject>, usize) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut turns: Vec<(usize, StoredObject)> = documents
        .into_iter()
        .map(|o| {
            let count = counts.entry(pattern_of_backup(&o)).or_default();
            *count += 1;
            (*count, o)
        })
        .filter(|(turn, _)| *turn <= MAX_OF_PATTERN)
        .collect();
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
    use super::*;
    use crate::job::Generation;

    /// Of each pattern the newest documents come first, and no more than a search in turns reads of one.
    #[test]
    fn a_search_in_turns_reads_every_pattern() {
        let document = |(age, name): (usize, String)| StoredObject {
            name: format!("{name}{EVIDENCE_SUFFIX}1/x{ENVELOPE}"),
            size: 1,
            created: jiff::Timestamp::from_second(1_000 - age as i64).unwrap(),
            crc32c: None,
            generation: Generation(1),
            is_unlisted: false,
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
    }
}
