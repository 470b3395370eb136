//! The outcomes that were recorded before, for a worker that starts. Anybody who may create objects there decides how many
//! there are and what is in them, so only some are listed and read.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use indicatif::HumanCount;

use super::backup_catalog::BackupCatalog;
use super::idempotency_records::{Record, folder, is_plain, name_of, names_of, read};
use crate::error::{FailureReason as R, RestoreError, RetryClass, report};
use crate::event::RestoreResult;
use crate::store::{BackupStore, NewestObjects, StoredObject, bytes_of};
use crate::verification::Keyring;

/// Objects of which a listing keeps the metadata: the newest.
const LISTED: usize = 20_000;
/// Most objects that are read.
const READ: usize = 2_000;
/// The newest of these are read first.
const READ_FIRST: usize = 1_000;
/// Objects that are read at the same time.
const AT_ONCE: usize = 8;
/// Bytes of a record in the history, which is only shown: many are read, and anybody may have written them.
const MAX_RECORD: u64 = 256 << 10;
/// Memory for the history, in bytes, as [`bytes_of`] estimates it.
const MAX_HISTORY: usize = 8 << 20;

impl BackupCatalog {
    /// The newest recorded outcomes, newest first, at most `most`, and no more than fit into the memory for them; `None`
    /// if outcomes are not recorded.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn newest_recorded(
        &self,
        most: usize,
    ) -> Result<Option<Vec<RestoreResult>>, RestoreError> {
        let Some(place) = &self.config.records else {
            return Ok(None);
        };
        let (store, keys) = (self.stores.at(place).await?, self.keyring()?);
        let store = store.as_ref();
        let folder = folder();
        let listed = store.newest_members(&folder, Arc::new(may_be_record), LISTED);
        let NewestObjects {
            mut objects,
            mut all,
        } = match listed.await {
            Err(e) if e.reason() == R::BackupNotFound => NewestObjects::default(),
            other => other?,
        };
        all -= objects.len().min(all);
        objects.retain(|o| o.obstacle.is_none() && !o.name.ends_with('/'));
        all += objects.len();
        let objects = in_reading_order(objects).into_iter().take(READ);
        // Boxed here: the compiler cannot tell that a stream of borrowing closures may change threads.
        let reads: Vec<BoxFuture<'_, _>> = objects.map(|o| read_one(store, o).boxed()).collect();
        let mut reads = futures::stream::iter(reads).buffered(AT_ONCE);
        let mut past = PastOutcomes::new(store, &keys);
        while let Some((object, read)) = reads.next().await {
            past.take(&object, read)?;
            if past.found.len() >= most || past.is_full {
                break;
            }
        }
        past.warn(all, most);
        past.into_results(most).map(Some)
    }
}

/// Whether a record may have this name, as far as its form shows.
fn may_be_record(name: &str) -> bool {
    let own = name.strip_prefix(&folder());
    let own = own.and_then(|own| own.strip_suffix(".json"));
    own.is_some_and(|own| own.bytes().all(|b| is_plain(b) || matches!(b, b'%' | b'~')))
}

/// Objects, given newest first, in the order in which they are read: the newest, then of each hour the next one in turn. So
/// a flood of them hides only outcomes that were recorded in the same hours.
fn in_reading_order(mut objects: Vec<StoredObject>) -> Vec<StoredObject> {
    let others = objects.split_off(objects.len().min(READ_FIRST));
    let mut of_hour: HashMap<i64, usize> = HashMap::new();
    let turns = others.into_iter().map(|o| {
        let turn = of_hour.entry(o.created.as_second() / 3_600).or_default();
        *turn += 1;
        (*turn, o)
    });
    let mut turns: Vec<(usize, StoredObject)> = turns.collect();
    turns.sort_by_key(|(turn, _)| *turn);
    objects.extend(turns.into_iter().map(|(_, o)| o));
    objects
}

async fn read_one(
    store: &dyn BackupStore,
    object: StoredObject,
) -> (StoredObject, Result<Record, RestoreError>) {
    let read = read(store, &object, MAX_RECORD).await;
    (object, read)
}

/// The outcomes among the objects that were read.
struct PastOutcomes<'a> {
    store: &'a dyn BackupStore,
    keys: &'a Keyring,
    found: Vec<(jiff::Timestamp, RestoreResult)>,
    bytes: usize,
    is_full: bool,
    read: usize,
    /// Objects that are no outcomes that count, and why the first one is none.
    left_out: usize,
    first: Option<String>,
    /// The error of the first one that this account may not read, and whether it may read another one.
    denied: Option<RestoreError>,
    has_bytes: bool,
}

impl<'a> PastOutcomes<'a> {
    fn new(store: &'a dyn BackupStore, keys: &'a Keyring) -> Self {
        PastOutcomes {
            store,
            keys,
            found: vec![],
            bytes: 0,
            is_full: false,
            read: 0,
            left_out: 0,
            first: None,
            denied: None,
            has_bytes: false,
        }
    }

    /// # Errors
    /// What may pass.
    fn take(
        &mut self,
        object: &StoredObject,
        read: Result<Record, RestoreError>,
    ) -> Result<(), RestoreError> {
        self.read += 1;
        let record = match read {
            Ok(record) => record,
            Err(e) => return self.leave_unread(object, e),
        };
        self.has_bytes = true;
        let (id, kind) = (record.result.request_id.as_str(), record.result.kind);
        let is_its = name_of(id) == object.name || names_of(id, self.keys).contains(&object.name);
        if !is_its || !record.counts((id, kind), self.keys)? {
            let uri = self.store.uri(&object.name);
            self.leave_out(format!("{uri}: it is another request's, or not signed"));
            return Ok(());
        }
        let mut result = record.result;
        result.bound();
        self.bytes = self.bytes.saturating_add(bytes_of(&result));
        if self.bytes > MAX_HISTORY {
            self.is_full = true;
        } else {
            // A copy, because the lists that were cut keep the memory of their former length.
            self.found.push((object.created, result.clone()));
        }
        Ok(())
    }

    fn leave_unread(&mut self, object: &StoredObject, e: RestoreError) -> Result<(), RestoreError> {
        let is_denied = match e.reason().retry_class() {
            RetryClass::Permanent => false,
            RetryClass::Environment => true,
            RetryClass::Transient | RetryClass::Busy | RetryClass::Interrupted => return Err(e),
        };
        self.leave_out(report(&e));
        if is_denied {
            self.denied.get_or_insert(e);
        } else if matches!(e, RestoreError::Validation(_)) {
            // Otherwise, it was not even asked for.
            self.has_bytes |= (1..=MAX_RECORD).contains(&object.size);
        }
        Ok(())
    }

    fn leave_out(&mut self, why: String) {
        self.left_out += 1;
        self.first.get_or_insert(why);
    }

    /// Says what the history lacks, of so many objects in all and so many outcomes that were wanted.
    fn warn(&self, all: usize, most: usize) {
        let number = |n: usize| HumanCount(n as u64);
        let mut parts = Vec::new();
        if let Some(first) = &self.first {
            parts.push(format!(
                "{} of the {} objects that were read {} as outcomes ({first})",
                number(self.left_out),
                number(self.read),
                if self.left_out == 1 {
                    "does not count"
                } else {
                    "do not count"
                },
            ));
        }
        let unread = all.saturating_sub(self.read);
        if unread > 0 && self.found.len() < most && !self.is_full {
            let what = "others were not read, because there are too many";
            parts.push(format!("{} {what}", number(unread)));
        }
        if self.is_full {
            parts.push("together they are too long: only the newest are kept".into());
        }
        if !parts.is_empty() {
            let why = parts.join("; ");
            tracing::warn!(why, "recorded outcomes are left out of the history");
        }
    }

    /// # Errors
    /// `access_denied` if this account can read none of the objects.
    fn into_results(self, most: usize) -> Result<Vec<RestoreResult>, RestoreError> {
        if let (Some(e), false) = (self.denied, self.has_bytes) {
            return Err(e);
        }
        let mut found = self.found;
        found.sort_by_key(|(created, _)| std::cmp::Reverse(*created));
        found.truncate(most);
        Ok(found.into_iter().map(|(_, result)| result).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::folder_catalog::{catalog_of, set_age};
    use crate::error::{StorageError, StorageKind, ValidationError, ValidationKind};
    use crate::event::Kind;
    use crate::store::faulty::FaultyStore;

    const HOUR: i64 = 3_600;

    /// Whoever floods the folder hides no history, and is named once.
    #[tokio::test]
    async fn a_flood_of_objects_hides_no_outcome() {
        let records = tempfile::tempdir().unwrap();
        let place = format!("file://{}", records.path().display());
        let flags = [("restore-records", place.as_str())];
        let (_folder, _store, catalog) = catalog_of(&[], &flags).await;
        let t = jiff::Timestamp::UNIX_EPOCH;
        for (id, age) in [("older", 2), ("newer", 1)] {
            catalog
                .record("d", &RestoreResult::new(id, (t, t)))
                .await
                .unwrap();
            set_age(&records, &name_of(id), 3_600 * age);
        }
        for n in 0..50 {
            let path = records.path().join(name_of(&format!("flood{n}")));
            std::fs::write(path, "{}").unwrap();
        }
        // What no record can be called is not even read.
        let path = records.path().join(format!("{}a b.json", folder()));
        std::fs::write(path, "{}").unwrap();
        let log = records.path().join("log");
        let file = std::fs::File::create(&log).unwrap();
        let logging = tracing_subscriber::fmt().with_writer(file).finish();
        let logging = tracing::subscriber::set_default(logging);
        let found = catalog.newest_recorded(5).await.unwrap().unwrap();
        drop(logging);
        let ids: Vec<&str> = found.iter().map(|r| r.request_id.as_str()).collect();
        assert_eq!(ids, ["newer", "older"]);
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.contains("WARN") && said.contains("50 of the 52 objects"),
            "{said}"
        );
        assert!(said.contains("do not count as outcomes"), "{said}");
    }

    #[test]
    fn a_flood_takes_the_turns_of_its_own_hours() {
        let object = |name: String, second: i64| StoredObject {
            created: jiff::Timestamp::from_second(second).unwrap(),
            ..StoredObject::named(&name)
        };
        let flood = (0..READ_FIRST + 500).map(|n| object(format!("flood{n}"), 9 * HOUR));
        let older = (1..=3).map(|n| object(format!("older{n}"), (9 - n) * HOUR));
        let order = in_reading_order(flood.chain(older).collect());
        let names: Vec<&str> = order.iter().map(|o| o.name.as_str()).collect();
        assert_eq!(names.len(), READ_FIRST + 503);
        assert_eq!(names[..2], ["flood0", "flood1"]);
        let next = format!("flood{READ_FIRST}");
        assert_eq!(
            names[READ_FIRST..READ_FIRST + 4],
            [next.as_str(), "older1", "older2", "older3"]
        );
    }

    /// One object that nobody may read is nothing; if all are, nobody has given this account the permission.
    #[test]
    fn a_history_that_may_not_be_read_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (store, keys) = (FaultyStore::at(folder.path()), Keyring::default());
        let object = StoredObject {
            size: 2,
            ..StoredObject::named(&name_of("r"))
        };
        let denied = || RestoreError::from(StorageError::new(StorageKind::AccessDenied, "r"));
        let foreign = || {
            let e = ValidationError::new(ValidationKind::ArchiveUnsupported, "r");
            RestoreError::from(e)
        };
        for has_other in [false, true] {
            let mut past = PastOutcomes::new(&store, &keys);
            past.take(&object, Err(denied())).unwrap();
            if has_other {
                past.take(&object, Err(foreign())).unwrap();
            }
            match past.into_results(5) {
                Ok(found) => assert!(has_other && found.is_empty()),
                Err(e) => assert!(!has_other && e.reason() == R::AccessDenied, "{e}"),
            }
        }
    }

    /// Nor does what is recorded take the memory of a worker that starts.
    #[tokio::test]
    async fn the_history_is_bounded_whatever_is_recorded() {
        let records = tempfile::tempdir().unwrap();
        let place = format!("file://{}", records.path().display());
        let (_folder, _store, catalog) =
            catalog_of(&[], &[("restore-records", place.as_str())]).await;
        let t = jiff::Timestamp::UNIX_EPOCH;
        let mut listed = RestoreResult::new("listed", (t, t));
        listed.notes = vec![String::new(); 15_000];
        let mut long = RestoreResult::new("long", (t, t));
        long.notes = vec![String::new(); 300_000];
        for result in [&listed, &long] {
            catalog.record("d", result).await.unwrap();
        }
        let found = catalog.newest_recorded(100).await.unwrap().unwrap();
        let ids: Vec<&str> = found.iter().map(|r| r.request_id.as_str()).collect();
        assert_eq!(ids, ["listed"], "the other is too long");
        assert_eq!(found[0].notes.len(), 100);
        assert!(
            found[0].notes.capacity() < 200,
            "nor is there room for more"
        );
        // A redelivery is still answered with all of it.
        let recorded = catalog.recorded(("long", Kind::Restore), "d").await;
        assert_eq!(recorded.unwrap(), Some(long));
        // Together, they are bounded as well.
        for i in 0..50 {
            let mut result = RestoreResult::new(&format!("r{i}"), (t, t));
            result.labels.insert("a".into(), "x".repeat(200_000));
            catalog.record("d", &result).await.unwrap();
        }
        let found = catalog.newest_recorded(100).await.unwrap().unwrap();
        let kept: usize = found.iter().map(bytes_of).sum();
        assert!(kept <= MAX_HISTORY && found.len() < 50 && found.len() > 20);
    }
}
