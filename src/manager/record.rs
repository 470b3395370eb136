//! The outcome of record: one object a request, made once for ever (`ifGenerationMatch = 0`). Whoever
//! comes second adopts what is there.

use super::RestoreManager;
use crate::error::{FailureReason as R, RestoreError, ValidationError};
use crate::event::RestoreResult;
use crate::proof::EVIDENCE_SUFFIX;
use crate::store;

/// Bytes of a record.
const MAX_RECORD: u64 = 4 << 20;

/// What an object of record says.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    /// Of what was asked: the same id may not mean something else.
    digest: String,
    result: RestoreResult,
}

/// Name of the record: the suffix keeps it from being taken for a backup.
fn name_of(request_id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let encoded = request_id.bytes().map(|b| match plain(b) {
        true => char::from(b).to_string(),
        false => format!("%{b:02X}"),
    });
    format!("outcomes{EVIDENCE_SUFFIX}{}.json", encoded.collect::<String>())
}

impl RestoreManager {
    /// The outcome that a request has already; `None` where it has none, or none is recorded.
    ///
    /// # Errors
    /// `invalid_request` where the id was used for another request; `access_denied`, `download_failed`.
    pub async fn recorded(
        &self,
        request_id: &str,
        digest: &str,
    ) -> Result<Option<RestoreResult>, RestoreError> {
        let Some(place) = &self.config.records else { return Ok(None) };
        let store = self.stores.at(place).await?;
        let object = match store.stat(&name_of(request_id), None).await {
            Ok(object) => object,
            Err(e) if e.reason() == R::BackupNotFound => return Ok(None),
            Err(e) => return Err(e.context("the outcome of record").into()),
        };
        let text = store::read_small(store.as_ref(), &object, MAX_RECORD).await?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|e| RestoreError::internal(format!("the outcome of record cannot be read: {e}")))?;
        if record.digest != digest {
            let what = format!("request_id {request_id} was used for another request");
            return Err(ValidationError::new(R::InvalidRequest, what).into());
        }
        Ok(Some(record.result))
    }

    /// Records an outcome. Returns the one that counts: this one, or one that was there before.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`.
    pub async fn record(&self, digest: &str, result: &RestoreResult) -> Result<RestoreResult, RestoreError> {
        let Some(place) = &self.config.records else { return Ok(result.clone()) };
        let record = Record { digest: digest.to_owned(), result: result.clone() };
        let text = serde_json::to_vec_pretty(&record).map_err(|e| RestoreError::internal(e.to_string()))?;
        let store = self.stores.at(place).await?;
        let made = store.create(&name_of(&result.request_id), text.into(), "application/json").await;
        match made.map_err(|e| e.context("the outcome of record"))? {
            Some(_) => Ok(result.clone()),
            None => match self.recorded(&result.request_id, digest).await {
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
