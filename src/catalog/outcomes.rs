//! The outcome of record: one object a request, made once for ever (`ifGenerationMatch = 0`). Whoever
//! comes second adopts what is there.

use super::backup_catalog::BackupCatalog;
use crate::error::{FailureReason as R, RestoreError, ValidationError, ValidationKind};
use crate::event::{Kind, RestoreResult};
use crate::proof::EVIDENCE_SUFFIX;
use crate::store;
use crate::verification::{Keyring, Signature};

/// What a signature of a record is over, beside the record itself.
const SIGNED: &str = "application/vnd.pgrestored.outcome+json";
/// Bytes of a record.
const MAX_RECORD: u64 = 4 << 20;

/// What an object of record says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    /// Of what was asked: the same id may not mean something else.
    digest: String,
    result: RestoreResult,
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

    /// Whether it is the outcome of this request. If there is a key, the outcome of a verification must be signed,
    /// because its verdict is believed like evidence.
    fn counts(&self, (id, kind): (&str, Kind), keys: &Keyring) -> Result<bool, RestoreError> {
        if self.result.kind != kind || self.result.request_id != id {
            return Ok(false);
        }
        if kind != Kind::Verification || keys.is_empty() {
            return Ok(true);
        }
        let text = self.text()?;
        let signature = self.signature.as_ref();
        Ok(signature.is_some_and(|s| keys.has_signed(SIGNED, &text, s)))
    }
}

/// Name of the record: the suffix keeps it from being taken for a backup.
fn name_of(request_id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let encoded = request_id.bytes().map(|b| {
        if plain(b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    });
    format!("{}{}.json", folder(), encoded.collect::<String>())
}

/// The folder of all records.
fn folder() -> String {
    format!("outcomes{EVIDENCE_SUFFIX}")
}

impl BackupCatalog {
    /// The recorded outcome of the request of this id and kind; `None` if there is none, or outcomes are not recorded.
    ///
    /// # Errors
    /// `invalid_request` where the id was used for another request; `access_denied`, `download_failed`.
    pub async fn recorded(
        &self,
        (request_id, kind): (&str, Kind),
        digest: &str,
    ) -> Result<Option<RestoreResult>, RestoreError> {
        let Some(place) = &self.config.records else {
            return Ok(None);
        };
        let store = self.stores.at(place).await?;
        let object = match store.stat(&name_of(request_id), None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return Err(e.context("the outcome of record").into()),
        };
        let text = store::read_small(store.as_ref(), &object, MAX_RECORD).await?;
        let record: Record = serde_json::from_slice(&text).map_err(|e| {
            RestoreError::internal(format!("the outcome of record cannot be read: {e}"))
        })?;
        if !record.counts((request_id, kind), &self.keyring()?)? {
            tracing::error!(
                name = store.uri(&object.name),
                "the outcome there does not count: it is another request's, or not signed"
            );
            return Ok(None);
        }
        if record.digest != digest {
            let what = format!("request_id {request_id} was used for another request");
            return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
        }
        Ok(Some(record.result))
    }

    /// The newest recorded outcomes, newest first, at most `most`; `None` if outcomes are not recorded.
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
        let is_record = |name: &str| name.ends_with(".json");
        let mut objects = match store.members_where(&folder(), is_record).await {
            Err(e) if e.reason() == R::BackupNotFound => vec![],
            other => other?,
        };
        objects.sort_by_key(|o| std::cmp::Reverse(o.created));
        objects.truncate(most);
        let mut results = Vec::new();
        for object in &objects {
            let text = store::read_small(store.as_ref(), object, MAX_RECORD).await?;
            let Ok(record) = serde_json::from_slice::<Record>(&text) else {
                continue;
            };
            let (id, kind) = (record.result.request_id.clone(), record.result.kind);
            if name_of(&id) == object.name && record.counts((&id, kind), &keys)? {
                results.push(record.result);
            }
        }
        Ok(Some(results))
    }

    /// Records an outcome. Returns the one that counts: this one, or one that was there before.
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
        let record = Record {
            digest: digest.to_owned(),
            result: result.clone(),
            signature: None,
        };
        let record = record.seal(&self.keyring()?)?;
        let text = serde_json::to_vec_pretty(&record)
            .map_err(|e| RestoreError::internal(e.to_string()))?;
        let store = self.stores.at(place).await?;
        let name = name_of(&result.request_id);
        let made =
            store::create_small(store.as_ref(), &name, text.into(), "application/json").await;
        match made.map_err(|e| e.context("the outcome of record"))? {
            Some(_) => Ok(result.clone()),
            None => match self
                .recorded((&result.request_id, result.kind), digest)
                .await
            {
                Ok(there) => Ok(there.unwrap_or_else(|| result.clone())),
                // The id was another request's: its record stays, and this answer is only published.
                Err(e) if e.reason() == R::InvalidRequest => Ok(result.clone()),
                Err(e) => Err(e),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_taken_on_signed_word_alone_where_there_is_a_key() {
        const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIDbVgGGVPP41q8bSdZVvrHEcxLMJgHhQfjK1NcvNr7gF\n-----END PRIVATE KEY-----\n";
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
        assert!(counts(&record(Kind::Restore, &none), "r", &keys));
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
        ] {
            assert_eq!(name_of(id), name);
            assert!(crate::proof::is_ours(name));
        }
    }
}
