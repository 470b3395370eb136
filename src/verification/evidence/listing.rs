//! Listings of evidence, in bounded memory. Anybody who may create objects decides how many documents there are, beside
//! which backups and under which names, so a listing that would be too long keeps some beside each backup.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use indicatif::HumanCount;
use parking_lot::Mutex;

use super::names::{is_document, is_own_name, older_names, parts_of};
use super::store::Evidence;
use crate::backup::whole_of;
use crate::error::{FailureReason as R, StorageError, StorageKind};
use crate::proof::{EVIDENCE_SUFFIX, is_ours};
use crate::store::{NameFilter, Obstacle, StoredObject};
use crate::verification::envelope::Keyring;

/// The documents kept beside all generations of a backup are at most so many times those beside one of them.
const GENERATIONS: usize = 4;
/// Most backups that a message names.
const MAX_NAMED: usize = 5;
/// Requests without a document of their first name that are asked for the names that older versions took: a look at each
/// takes half a millisecond.
const MAX_OLDER: usize = 1_000;

/// The documents of a place.
pub(super) struct ListedDocuments {
    /// Newest first.
    pub(super) documents: Vec<StoredObject>,
    /// Names of places where there may be more, but this account may not look.
    pub(super) hidden: Vec<String>,
    /// There were more than a listing holds, so it has only those with own names.
    pub(super) is_flooded: bool,
    /// What else was left out, because there were more than a listing holds.
    pub(super) left_out: UnreadDocuments,
    /// The backup that is asked about, without the slash of a directory; of `None`, all are.
    pub(super) asked: Option<String>,
}

/// How many documents were not read, because there are too many, by the backup beside which they are.
#[derive(Debug, Default)]
pub(super) struct UnreadDocuments {
    beside: BTreeMap<String, usize>,
    /// Beside nothing that is there.
    elsewhere: usize,
}

impl UnreadDocuments {
    pub(super) fn add(&mut self, backup: &str) {
        match self.beside.get_mut(backup) {
            Some(count) => *count += 1,
            None => {
                self.beside.insert(backup.to_owned(), 1);
            }
        }
    }

    /// Why evidence about a backup may be missing, if it may. `backup` is its name without a slash at the end.
    pub(super) fn about(&self, backup: &str) -> Option<String> {
        let count = self.beside.get(backup)?;
        Some(format!("{} beside {backup}", not_read(*count)))
    }

    /// Everything that was left out; `None` if nothing was.
    pub(super) fn text(&self) -> Option<String> {
        let all = self.elsewhere + self.beside.values().sum::<usize>();
        let number = |n: usize| HumanCount(n as u64);
        let mut by_count: Vec<(&String, usize)> =
            self.beside.iter().map(|(b, n)| (b, *n)).collect();
        by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let named = by_count.iter().take(MAX_NAMED);
        let mut parts: Vec<String> = named
            .map(|(backup, count)| format!("{} beside {backup}", number(*count)))
            .collect();
        if let more @ 1.. = by_count.len().saturating_sub(MAX_NAMED) {
            parts.push(format!("the others beside {} more", number(more)));
        }
        if self.elsewhere > 0 {
            parts.push(format!(
                "{} beside no backup that is listed",
                number(self.elsewhere)
            ));
        }
        (all > 0).then(|| format!("{}: {}", not_read(all), parts.join(", ")))
    }
}

fn not_read(count: usize) -> String {
    match count {
        1 => "1 document of evidence was not read, because there are too many".to_owned(),
        n => format!(
            "{} documents of evidence were not read, because there are too many",
            HumanCount(n as u64)
        ),
    }
}

/// The backup beside which a document is, without a slash at the end.
pub(super) fn backup_of(document: &str) -> &str {
    document
        .rsplit_once(EVIDENCE_SUFFIX)
        .map_or(document, |(backup, _)| backup)
}

/// The folder of a document, with its slash.
pub(super) fn folder_of_document(name: &str) -> &str {
    name.rfind('/').map_or("", |n| &name[..=n])
}

/// Keeps so many documents beside each backup of a listing, and counts the others.
struct DocumentFilter {
    most: usize,
    /// Backups that are there, without a slash at the end; `None`: whichever.
    existing: Option<HashSet<String>>,
    filtered: Mutex<FilteredDocuments>,
}

#[derive(Default)]
struct FilteredDocuments {
    /// Documents that were kept, by backup and by folder.
    kept: HashMap<String, usize>,
    left_out: UnreadDocuments,
}

impl FilteredDocuments {
    fn count(&self, of: &str) -> usize {
        self.kept.get(of).copied().unwrap_or_default()
    }

    fn keep(&mut self, of: &str) {
        match self.kept.get_mut(of) {
            Some(count) => *count += 1,
            None => {
                self.kept.insert(of.to_owned(), 1);
            }
        }
    }
}

impl DocumentFilter {
    fn new(most: usize, existing: Option<HashSet<String>>) -> Self {
        DocumentFilter {
            most,
            existing,
            filtered: Mutex::default(),
        }
    }

    fn keeps(&self, document: &str) -> bool {
        let (backup, folder) = (backup_of(document), folder_of_document(document));
        let mut filtered = self.filtered.lock();
        if self.existing.as_ref().is_some_and(|e| !e.contains(backup)) {
            filtered.left_out.elsewhere += 1;
            return false;
        }
        let most_beside = self.most.saturating_mul(GENERATIONS);
        if filtered.count(backup) >= most_beside || filtered.count(folder) >= self.most {
            filtered.left_out.add(backup);
            return false;
        }
        filtered.keep(backup);
        filtered.keep(folder);
        true
    }
}

impl Evidence {
    /// All documents under `prefix`, as far as this account may look. If they are too many for a listing, only those
    /// with own names, if no others count; otherwise some beside each backup.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) async fn list(&self, prefix: &str) -> Result<ListedDocuments, StorageError> {
        let mut listed = self.store.members_where(prefix, is_document).await;
        let (mut is_flooded, mut left_out) = (false, UnreadDocuments::default());
        if let Some(too_long) = take_if_too_long(&mut listed) {
            if self.has_own_names() {
                is_flooded = true;
                listed = self.list_own(prefix).await;
            } else {
                let (some, others) = self.list_some_of_each(prefix, too_long).await?;
                (listed, left_out) = (Ok(some), others);
            }
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
            left_out,
            asked: None,
        })
    }

    /// Those with own names: no documents of others count, and nobody else can give one such a name.
    async fn list_own(&self, prefix: &str) -> Result<Vec<StoredObject>, StorageError> {
        tracing::warn!("the evidence has too many documents that do not count for one listing");
        let keys = self.keys.clone();
        let is_own = move |name: &str| {
            is_document(name) && (is_own_name(&keys, name) || has_older_name(&keys, name))
        };
        self.store.members_named(prefix, Arc::new(is_own)).await
    }

    /// Some documents beside each backup: no flood beside one hides the evidence about others. If it is beside very many,
    /// those beside backups that are not there are left out.
    async fn list_some_of_each(
        &self,
        prefix: &str,
        mut too_long: StorageError,
    ) -> Result<(Vec<StoredObject>, UnreadDocuments), StorageError> {
        for (attempt, most) in self.limits.most_beside.into_iter().enumerate() {
            let existing = if attempt > 0 || is_ours(prefix) {
                Some(self.existing(prefix).await?)
            } else {
                None
            };
            let filter = Arc::new(DocumentFilter::new(most, existing));
            let (keys, shared) = (self.keys.clone(), filter.clone());
            let is_kept: NameFilter = Arc::new(move |name: &str| {
                is_document(name) && (is_own_name(&keys, name) || shared.keeps(name))
            });
            let mut listed = self.store.members_named(prefix, is_kept).await;
            if let Some(e) = take_if_too_long(&mut listed) {
                too_long = e;
                continue;
            }
            let left_out = std::mem::take(&mut filter.filtered.lock().left_out);
            if let Some(why) = left_out.text() {
                tracing::warn!(why, "evidence was not listed completely");
            }
            return Ok((listed?, left_out));
        }
        Err(too_long)
    }

    /// What evidence below `prefix` may be beside: the backups that are there, by their names without a slash at the end.
    async fn existing(&self, prefix: &str) -> Result<HashSet<String>, StorageError> {
        if is_ours(prefix) {
            return Ok(HashSet::from([backup_of(prefix).to_owned()]));
        }
        let is_backup = |name: &str| !is_ours(name);
        let mut names = HashSet::new();
        for object in self.backups.members_where(prefix, is_backup).await? {
            let name = object.name;
            // A directory dump, and pieces, have names of their own.
            names.extend(name.match_indices('/').map(|(n, _)| name[..n].to_owned()));
            names.extend(whole_of(&name).map(str::to_owned));
            names.insert(name);
        }
        Ok(names)
    }

    /// Why evidence may be missing if this place is not listed.
    pub(super) fn unlisted(&self, place: &str) -> String {
        format!(
            "{}: this account may not list it, and evidence may be there: let the account read it",
            self.store.uri(place)
        )
    }

    /// Whether evidence that matters may be in a place that is not listed. Beside backups, an unlisted folder that is not
    /// one of evidence hides both; evidence about what is not listed is not looked for.
    fn may_hide_documents(&self, place: &StoredObject) -> bool {
        // No evidence is about a backup whose name is not UTF-8.
        let may_hold_any = place.obstacle != Some(Obstacle::NotUtf8);
        place.is_unlisted && may_hold_any && (is_ours(&place.name) || self.is_elsewhere())
    }

    /// Whether evidence is kept in another place than the backups.
    pub fn is_elsewhere(&self) -> bool {
        self.store.uri("") != self.backups.uri("")
    }

    /// Which documents have a name that only a worker with this signing key can have chosen.
    pub(super) async fn own_names(&self, documents: &[StoredObject]) -> Vec<bool> {
        let mut is_own = vec![false; documents.len()];
        if !self.keys.signs() {
            return is_own;
        }
        // Older names beside a first one that is there exist only because it was taken.
        let (mut older, mut left): (HashMap<String, Option<HashSet<String>>>, _) =
            (HashMap::new(), MAX_OLDER);
        for (i, object) in documents.iter().enumerate() {
            is_own[i] = is_own_name(&self.keys, &object.name);
            if let Some((base, _)) = parts_of(&object.name).filter(|_| is_own[i]) {
                older.insert(base.to_owned(), None);
            }
            if i % 1_000 == 999 {
                tokio::task::yield_now().await;
            }
        }
        for (object, is_own) in documents.iter().zip(&mut is_own).filter(|(_, is)| !**is) {
            let Some((base, second)) = parts_of(&object.name) else {
                continue;
            };
            if !older.contains_key(base) && left > 0 {
                left -= 1;
                older.insert(base.to_owned(), None);
            }
            if let Some(names) = older.get_mut(base) {
                let names = names.get_or_insert_with(|| older_names(&self.keys, base));
                *is_own = names.contains(second);
            }
        }
        is_own
    }
}

/// The error of a listing that was too long; an empty listing is left in its place.
fn take_if_too_long(listed: &mut Result<Vec<StoredObject>, StorageError>) -> Option<StorageError> {
    let is_too_long = matches!(listed, Err(e) if e.kind() == StorageKind::ListingTooLong);
    if !is_too_long {
        return None;
    }
    std::mem::replace(listed, Ok(vec![])).err()
}

fn has_older_name(keys: &Keyring, name: &str) -> bool {
    parts_of(name).is_some_and(|(base, second)| older_names(keys, base).contains(second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sieve_keeps_some_beside_each_backup() {
        let filter = DocumentFilter::new(2, None);
        let name = |backup: &str, generation: usize, n: usize| {
            format!("{backup}{EVIDENCE_SUFFIX}{generation}/{n:016x}.dsse.json")
        };
        // Two beside each generation, and eight beside all.
        let kept = |backup: &str| {
            let all = (0..9).flat_map(|g| (0..3).map(move |n| (g, n)));
            all.filter(|(g, n)| filter.keeps(&name(backup, *g, *n)))
                .count()
        };
        assert_eq!((kept("a.dump"), kept("b/c")), (8, 8));
        let filtered = filter.filtered.lock();
        let left_out = &filtered.left_out;
        assert_eq!(
            left_out.text().unwrap(),
            "38 documents of evidence were not read, because there are too many: 19 beside a.dump, 19 beside b/c"
        );
        assert_eq!(
            left_out.about("a.dump").unwrap(),
            "19 documents of evidence were not read, because there are too many beside a.dump"
        );
        assert_eq!(left_out.about("b"), None);
    }

    #[test]
    fn a_sieve_leaves_out_what_is_beside_nothing() {
        let existing = HashSet::from(["a.dump".to_owned()]);
        let filter = DocumentFilter::new(2, Some(existing));
        assert!(filter.keeps("a.dump.pgrestored/1/0123456789abcdef.dsse.json"));
        assert!(!filter.keeps("z.dump.pgrestored/1/0123456789abcdef.dsse.json"));
        assert_eq!(
            filter.filtered.lock().left_out.text().unwrap(),
            "1 document of evidence was not read, because there are too many: 1 beside no backup that is listed"
        );
        assert_eq!(UnreadDocuments::default().text(), None);
    }
}
