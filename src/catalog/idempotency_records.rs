//! Idempotency records: one object per request with its outcome, created once (`ifGenerationMatch = 0`) and never changed.
//! Whoever comes second adopts what is there.

use super::backup_catalog::BackupCatalog;
use crate::error::{
    FailureReason as R, RestoreError, RetryClass, ValidationError, ValidationKind, report,
};
use crate::event::{Kind, RestoreResult};
use crate::proof::EVIDENCE_SUFFIX;
use crate::store::{BackupStore, StoredObject, can_read_another, create_unless_taken, read_small};
use crate::verification::{Keyring, Signature};

/// What a signature of a record is over, beside the record itself.
const SIGNED: &str = "application/vnd.pgrestored.outcome+json";
/// Bytes of a record.
const MAX_RECORD: u64 = 4 << 20;

/// What an idempotency record says.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Record {
    /// Of what was asked: the same id may not mean something else.
    digest: String,
    pub(super) result: RestoreResult,
    /// Where there is a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Signature>,
}

impl Record {
    /// What is signed: everything, with the request that it answers.
    fn text(&self) -> Result<Vec<u8>, RestoreError> {
        let all = (&self.result.request_id, &self.digest, &self.result);
        serde_json::to_vec(&all).map_err(|e| RestoreError::internal(e.to_string()))
    }

    fn seal(self, keys: &Keyring) -> Result<Self, RestoreError> {
        Ok(Record {
            signature: keys.sign(SIGNED, &self.text()?),
            ..self
        })
    }

    /// What it answers to a request with this digest.
    ///
    /// # Errors
    /// `invalid_request` if the id was used for another request.
    fn answer(self, digest: &str) -> Result<RestoreResult, RestoreError> {
        if self.digest == digest {
            return Ok(self.result);
        }
        let id = &self.result.request_id;
        let what = format!("request_id {id} was used for another request");
        Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
    }

    /// Whether it is the outcome of this request, by a worker that is believed. With a signing key, every outcome must
    /// be signed; without one, but with trusted keys, that of a verification, whose verdict is believed like evidence.
    pub(super) fn counts(
        &self,
        (id, kind): (&str, Kind),
        keys: &Keyring,
    ) -> Result<bool, RestoreError> {
        if self.result.kind != kind || self.result.request_id != id {
            return Ok(false);
        }
        let must_be_signed = match kind {
            Kind::Restore | Kind::Rehearsal => keys.signs(),
            Kind::Verification => !keys.is_empty(),
        };
        if !must_be_signed {
            return Ok(true);
        }
        let text = self.text()?;
        let signature = self.signature.as_ref();
        Ok(signature.is_some_and(|s| keys.has_signed(SIGNED, &text, s)))
    }
}

/// Names of a record, in the order in which they are tried: of the second and third, nobody without the signing key can
/// predict any. Without a key, whoever may create objects there can take all three, or write a record themselves.
pub(super) fn names_of(request_id: &str, keys: &Keyring) -> [String; 3] {
    let name = name_of(request_id);
    let further = |n: usize| {
        let second = keys.secret_name(&format!("outcome {n}\n{name}"));
        let second = second.unwrap_or_else(|| n.to_string());
        // No id has a `~` in its name.
        let own = name.strip_suffix(".json").unwrap_or(&name);
        format!("{own}~{second}.json")
    };
    let (second, third) = (further(2), further(3));
    [name, second, third]
}

/// The first name of a record: the suffix keeps it from being taken for a backup.
pub(super) fn name_of(request_id: &str) -> String {
    let encoded = request_id.bytes().map(|b| {
        if is_plain(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    });
    format!("{}{}.json", folder(), encoded.collect::<String>())
}

/// Whether a byte of a request's id is itself in the name of its record.
pub(super) fn is_plain(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

/// The folder of all records.
pub(super) fn folder() -> String {
    format!("outcomes{EVIDENCE_SUFFIX}")
}

/// Reads what should be a record of at most `most` bytes. Whoever may create objects there can put anything in its place.
///
/// # Errors
/// `archive_unsupported` for what is no record, or too large; as [`read_small`].
pub(super) async fn read(
    store: &dyn BackupStore,
    object: &StoredObject,
    most: u64,
) -> Result<Record, RestoreError> {
    let name = object.name.as_str();
    let is_none = |why: String| {
        let what = format!("{}: not an idempotency record: {why}", store.uri(name));
        RestoreError::from(ValidationError::new(
            ValidationKind::ArchiveUnsupported,
            what,
        ))
    };
    if object.size > most {
        return Err(is_none(format!("more than {} KiB", most >> 10)));
    }
    let text = read_small(store, object, most).await?;
    serde_json::from_slice(&text).map_err(|e| is_none(e.to_string()))
}

/// The record in an object; `None` for what is no record or is gone, and for what is denied alone.
///
/// # Errors
/// As [`read_small`], where another attempt or another worker may read it.
async fn read_if_one(
    store: &dyn BackupStore,
    object: StoredObject,
) -> Result<Option<Record>, RestoreError> {
    match read(store, &object, MAX_RECORD).await {
        Ok(record) => Ok(Some(record)),
        Err(e) => unless_of_object(store, &object.name, e).await,
    }
}

/// The record of this name, if it counts as that of the request.
///
/// # Errors
/// As [`read_small`], where another attempt or another worker may read it.
async fn record_at(
    store: &dyn BackupStore,
    name: &str,
    (request, keys): ((&str, Kind), &Keyring),
) -> Result<Option<Record>, RestoreError> {
    let record = match store.stat(name, None).await {
        Ok(object) => read_if_one(store, object).await?,
        Err(e) if e.reason() == R::BackupNotFound => None,
        Err(e) => {
            let e = e.context("the idempotency record").into();
            unless_of_object(store, name, e).await?
        }
    };
    let Some(record) = record else {
        return Ok(None);
    };
    if record.counts(request, keys)? {
        return Ok(Some(record));
    }
    tracing::error!(
        name = store.uri(name),
        "the outcome there does not count: it is another request's, or not signed"
    );
    Ok(None)
}

/// No record, if the error is about this object alone: whoever may create objects there can cause that.
async fn unless_of_object(
    store: &dyn BackupStore,
    name: &str,
    e: RestoreError,
) -> Result<Option<Record>, RestoreError> {
    let is_of_object = match e.reason().retry_class() {
        RetryClass::Permanent => true,
        // A backup that can be read says nothing of records.
        RetryClass::Environment => {
            can_read_another(store, name, |n| {
                n.starts_with(&folder()) && n.ends_with(".json")
            })
            .await
        }
        RetryClass::Transient | RetryClass::Busy | RetryClass::Interrupted => false,
    };
    if !is_of_object {
        return Err(e);
    }
    let name = store.uri(name);
    tracing::error!(name, error = report(&e), "the outcome there cannot be read");
    Ok(None)
}

impl BackupCatalog {
    /// The recorded outcome of the request of this id and kind; `None` if there is none that counts, or outcomes are not
    /// recorded.
    ///
    /// # Errors
    /// `invalid_request` where the id was used for another request; `access_denied`, `download_failed`.
    pub async fn recorded(
        &self,
        request: (&str, Kind),
        digest: &str,
    ) -> Result<Option<RestoreResult>, RestoreError> {
        let Some(place) = &self.config.records else {
            return Ok(None);
        };
        let (store, keys) = (self.stores.at(place).await?, self.keyring()?);
        for name in names_of(request.0, &keys) {
            let record = record_at(store.as_ref(), &name, (request, &keys)).await?;
            if let Some(record) = record {
                return record.answer(digest).map(Some);
            }
        }
        Ok(None)
    }

    /// Records an outcome. Returns the one that counts: this one, or one that was there before. If all its names are taken
    /// by what is no record, it is only published.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn record(
        &self,
        digest: &str,
        result: &RestoreResult,
    ) -> Result<RestoreResult, RestoreError> {
        let Some(place) = &self.config.records else {
            return Ok(result.clone());
        };
        let keys = self.keyring()?;
        let record = Record {
            digest: digest.to_owned(),
            result: result.clone(),
            signature: None,
        };
        let record = record.seal(&keys)?;
        let text = serde_json::to_vec_pretty(&record)
            .map_err(|e| RestoreError::internal(e.to_string()))?;
        let store = self.stores.at(place).await?;
        let request = (result.request_id.as_str(), result.kind);
        for name in names_of(&result.request_id, &keys) {
            let content = text.clone().into();
            let made =
                create_unless_taken(store.as_ref(), &name, content, "application/json").await;
            if made
                .map_err(|e| e.context("the idempotency record"))?
                .is_some()
            {
                return Ok(result.clone());
            }
            if let Some(there) = record_at(store.as_ref(), &name, (request, &keys)).await? {
                // If the id was another request's, its record stays, and this answer is only published.
                return Ok(there.answer(digest).unwrap_or_else(|_| result.clone()));
            }
        }
        tracing::error!(
            name = store.uri(&name_of(&result.request_id)),
            "the outcome is not recorded: objects that are not records occupy its names"
        );
        Ok(result.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verification::TEST_SIGNING_KEY as KEY;

    /// Whoever may create objects there can put anything in the place of an outcome.
    #[tokio::test]
    async fn what_is_no_record_keeps_no_request_from_running() {
        use crate::config::Location;
        use crate::config::{Config, RawConfig};
        use crate::error::StorageKind;
        use crate::metrics::RestoreMetricsManager;
        use crate::store::Stores;
        use crate::store::faulty::{Call, FaultyStore, StoreFault};
        let folder = tempfile::tempdir().unwrap();
        let place = format!("file://{}", folder.path().display());
        let flags = [("restore-records", place.as_str()), ("db-host", "/nowhere")];
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let stores = Stores::new(None);
        let store = FaultyStore::at(folder.path());
        let denied = StoreFault::Error(StorageKind::AccessDenied);
        store.fail(Call::Read, &name_of("denied"), denied, 99);
        stores.replace(
            Location::Folder(folder.path().to_owned()),
            std::sync::Arc::new(store),
        );
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(config.into(), stores.into(), metrics);
        let t = jiff::Timestamp::UNIX_EPOCH;
        let too_large = vec![b' '; usize::try_from(MAX_RECORD).unwrap() + 1];
        for (id, bytes) in [
            ("empty", vec![]),
            ("other", b"{\"digest\": 1}".to_vec()),
            ("large", too_large),
            ("denied", b"{}".to_vec()),
        ] {
            let path = folder.path().join(name_of(id));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            let recorded = catalog.recorded((id, Kind::Restore), "d").await;
            assert!(recorded.unwrap().is_none(), "{id}");
            // It stays there, and the request's own outcome is published, and recorded under a further name.
            let result = RestoreResult::new(id, (t, t));
            assert_eq!(catalog.record("d", &result).await.unwrap(), result, "{id}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes, "{id}");
            let recorded = catalog.recorded((id, Kind::Restore), "d").await;
            assert_eq!(recorded.unwrap(), Some(result), "{id}");
        }
        let ids = |found: Vec<RestoreResult>| -> Vec<String> {
            let mut ids: Vec<String> = found.into_iter().map(|r| r.request_id).collect();
            ids.sort_unstable();
            ids
        };
        let found = catalog.newest_recorded(99).await.unwrap().unwrap();
        assert_eq!(ids(found), ["denied", "empty", "large", "other"]);
        let result = RestoreResult::new("good", (t, t));
        catalog.record("d", &result).await.unwrap();
        let recorded = catalog.recorded(("good", Kind::Restore), "d").await;
        assert_eq!(recorded.unwrap(), Some(result));
    }

    #[test]
    fn an_outcome_is_taken_on_signed_word_alone_where_there_is_a_key() {
        let (keys, none) = (Keyring::new(Some(KEY), None).unwrap(), Keyring::default());
        let t = jiff::Timestamp::UNIX_EPOCH;
        let record = |kind: Kind, keys: &Keyring| {
            let mut result = RestoreResult::new("r", (t, t));
            result.kind = kind;
            result.duration_seconds = 0.1 + 0.2;
            let record = Record {
                digest: "d".into(),
                result,
                signature: None,
            }
            .seal(keys)
            .unwrap();
            // As it is read again.
            serde_json::from_slice::<Record>(&serde_json::to_vec_pretty(&record).unwrap()).unwrap()
        };
        let counts = |record: &Record, id: &str, keys: &Keyring| {
            record.counts((id, record.result.kind), keys).unwrap()
        };
        let signed = record(Kind::Verification, &keys);
        assert!(counts(&signed, "r", &keys) && counts(&signed, "r", &none));
        assert!(!counts(&signed, "another", &keys));
        assert!(!counts(&record(Kind::Verification, &none), "r", &keys));
        assert!(counts(&record(Kind::Restore, &keys), "r", &keys));
        assert!(!counts(&record(Kind::Restore, &none), "r", &keys));
        assert!(counts(&record(Kind::Restore, &none), "r", &none));
        let mut changed = record(Kind::Verification, &keys);
        changed.result.rows = 5;
        assert!(!counts(&changed, "r", &keys));
        let mut of_another = record(Kind::Verification, &keys);
        of_another.digest = String::new();
        assert!(!counts(&of_another, "r", &keys));
        // An unsigned outcome of a restore is no verdict.
        let restore = record(Kind::Restore, &none);
        assert!(!restore.counts(("r", Kind::Verification), &keys).unwrap());
        assert!(!restore.counts(("another", Kind::Restore), &keys).unwrap());
    }

    #[test]
    fn every_id_has_a_name_of_its_own_and_none_is_a_backup() {
        for (id, name) in [
            ("ops-1.2_x", "outcomes.pgrestored/ops-1.2_x.json"),
            ("gcs:b/x#1", "outcomes.pgrestored/gcs%3Ab%2Fx%231.json"),
            ("../é", "outcomes.pgrestored/..%2F%C3%A9.json"),
            ("a~2", "outcomes.pgrestored/a%7E2.json"),
        ] {
            assert_eq!(name_of(id), name);
            assert!(crate::proof::is_ours(name));
        }
        // Further ones are of nobody else, and with a key, they cannot be predicted.
        let (keys, none) = (Keyring::new(Some(KEY), None).unwrap(), Keyring::default());
        assert_eq!(
            names_of("a", &none),
            [
                "outcomes.pgrestored/a.json",
                "outcomes.pgrestored/a~2.json",
                "outcomes.pgrestored/a~3.json"
            ]
        );
        let [first, second, third] = names_of("a", &keys);
        assert_eq!(first, name_of("a"));
        assert!(second != third && second.len() == "outcomes.pgrestored/a~.json".len() + 16);
    }

    /// A name that may not be read or overwritten keeps nothing from being recorded, unless nothing may be written at all.
    #[tokio::test]
    async fn a_denied_name_does_not_keep_an_outcome_from_being_recorded() {
        use crate::error::StorageKind;
        use crate::store::faulty::{Call, StoreFault};
        for key in [None, Some(("evidence-signing-key", KEY))] {
            let denied_name = name_of("denied");
            let files: &[(&str, &[u8])] = &[
                ("a.dump", b"PGDMP"),
                (&denied_name, b"{}"),
                ("outcomes.pgrestored/x.json", b"{}"),
            ];
            let (folder, store, catalog) = catalog_with_records(files, key).await;
            let denied = StoreFault::Error(StorageKind::AccessDenied);
            store.fail(Call::Create, &denied_name, denied, 99);
            store.fail(Call::Read, &denied_name, denied, 99);
            let t = jiff::Timestamp::UNIX_EPOCH;
            let result = RestoreResult::new("denied", (t, t));
            assert_eq!(catalog.record("d", &result).await.unwrap(), result);
            let request = ("denied", Kind::Restore);
            let recorded = catalog.recorded(request, "d").await.unwrap();
            assert_eq!(recorded.as_ref(), Some(&result));
            let e = catalog.recorded(request, "another").await.unwrap_err();
            assert_eq!(e.reason(), R::InvalidRequest);
            assert_eq!(
                std::fs::read(folder.path().join(&denied_name)).unwrap(),
                b"{}"
            );
            store.fail(Call::Create, "", denied, 99);
            let other = RestoreResult::new("other", (t, t));
            let e = catalog.record("d", &other).await.unwrap_err();
            assert_eq!(e.reason(), R::AccessDenied);
        }
    }

    /// That backups can be read does not say that records can: what is denied may be all of them.
    #[tokio::test]
    async fn a_denied_record_is_foreign_only_if_other_records_can_be_read() {
        use crate::error::StorageKind;
        use crate::store::faulty::{Call, StoreFault};
        let denied_name = name_of("denied");
        for (other, is_record) in [
            ("a.dump", false),
            ("outcomes.pgrestored/x.html", false),
            ("a.dump.pgrestored/1/x.json", false),
            ("outcomes.pgrestored/x.json", true),
        ] {
            let files: &[(&str, &[u8])] = &[(&denied_name, b"{}"), (other, b"{}")];
            let (_folder, store, catalog) = catalog_with_records(files, None).await;
            let denied = StoreFault::Error(StorageKind::AccessDenied);
            store.fail(Call::Read, &denied_name, denied, 99);
            match catalog.recorded(("denied", Kind::Restore), "d").await {
                Ok(recorded) => assert!(is_record && recorded.is_none(), "{other}"),
                Err(e) => assert!(!is_record && e.reason() == R::AccessDenied, "{other}"),
            }
        }
    }

    /// A catalogue of a folder with these files, in which outcomes are recorded.
    async fn catalog_with_records(
        files: &[(&str, &[u8])],
        key: Option<(&str, &str)>,
    ) -> (
        tempfile::TempDir,
        std::sync::Arc<crate::store::faulty::FaultyStore>,
        BackupCatalog,
    ) {
        use crate::config::{Config, Location, RawConfig};
        use crate::metrics::RestoreMetricsManager;
        use crate::store::{Stores, faulty::FaultyStore};
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let place = format!("file://{}", folder.path().display());
        let mut flags = vec![("restore-records", place.as_str()), ("db-host", "/nowhere")];
        flags.extend(key);
        let config = Config::new(&RawConfig::from_flags(&flags).unwrap()).unwrap();
        let (store, stores) = (FaultyStore::at(folder.path()), Stores::new(None));
        let store = std::sync::Arc::new(store);
        let place = Location::Folder(folder.path().to_owned());
        stores.replace(place, store.clone());
        let metrics = RestoreMetricsManager::new(0.0);
        let catalog = BackupCatalog::new(config.into(), stores.into(), metrics);
        (folder, store, catalog)
    }
}
