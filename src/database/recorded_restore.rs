//! What the journal says of a restore that made a database: whether that is whole.

use crate::error::RestoreError;
use crate::event::{Kind, RestoreResult, Status};
use crate::job::Completeness;
use crate::proof::BackupContents;

/// The field of an outcome that says whether only a part of the backup was restored.
const PARTIAL: &str = "partial";

/// A restore that made a database. Only the journal creates it.
pub(super) struct RecordedRestore {
    request_id: String,
    /// Whether it restored only a part of its backup; `None` in records of versions that did not always say so.
    is_partial: Option<bool>,
    completeness: Option<Completeness>,
    contents: Option<BackupContents>,
}

impl RecordedRestore {
    /// From a recorded outcome. Rollbacks and promotions are recorded, too, and have outcomes of another form.
    pub(super) fn of(outcome: serde_json::Value) -> Option<Self> {
        let is_partial = outcome.get(PARTIAL).and_then(serde_json::Value::as_bool);
        let result: RestoreResult = serde_json::from_value(outcome).ok()?;
        let is_restored = result.kind == Kind::Restore && result.status == Status::Success;
        is_restored.then_some(RecordedRestore {
            request_id: result.request_id,
            is_partial,
            completeness: result.completeness,
            contents: result.contents,
        })
    }

    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Whether it restored only a part of its backup.
    pub fn is_partial(&self) -> bool {
        self.is_partial == Some(true)
    }

    /// Whether its backup had tables and no rows.
    pub fn has_no_rows(&self) -> bool {
        self.contents == Some(BackupContents::SchemaOnly)
    }

    /// Why what it restored may be less than a whole database, unless it is known to be a part.
    pub fn doubt(&self) -> Option<&'static str> {
        match (self.is_partial, self.completeness) {
            (Some(true), _) | (Some(false), Some(Completeness::Proven)) => None,
            (None, _) => Some(
                "an earlier version of pgrestored restored it, and did not record whether it restored the whole backup",
            ),
            (Some(false), _) => Some(
                "the backup that it was restored from did not show that it is complete (it is SQL text without pg_dump's end mark)",
            ),
        }
    }
}

/// The recorded outcome of a restore. It always says whether it restored only a part, unlike the published result.
///
/// # Errors
/// `internal`.
pub fn outcome_of(result: &RestoreResult) -> Result<serde_json::Value, RestoreError> {
    let outcome = serde_json::to_value(result);
    let mut outcome = outcome.map_err(|e| RestoreError::internal(e.to_string()))?;
    if let Some(fields) = outcome.as_object_mut() {
        fields.insert(PARTIAL.to_owned(), result.partial.into());
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy is known to be whole only by a record that says so.
    #[test]
    fn a_restore_is_doubted_unless_its_record_says_that_it_is_whole() {
        let t = jiff::Timestamp::UNIX_EPOCH;
        let mut result = RestoreResult::new("r", (t, t));
        result.status = Status::Success;
        let doubt = |result: &RestoreResult, is_old: bool| {
            let mut outcome = outcome_of(result).unwrap();
            if is_old {
                outcome.as_object_mut().unwrap().remove(PARTIAL);
            }
            let recorded = RecordedRestore::of(outcome).unwrap();
            (recorded.is_partial(), recorded.doubt())
        };
        for (completeness, is_old, why) in [
            (Some(Completeness::Proven), false, None),
            (Some(Completeness::Unknown), false, Some("end mark")),
            (None, false, Some("end mark")),
            (Some(Completeness::Proven), true, Some("earlier version")),
        ] {
            result.completeness = completeness;
            let (is_partial, doubt) = doubt(&result, is_old);
            assert!(!is_partial);
            assert_eq!(doubt.is_some(), why.is_some(), "{doubt:?}");
            let is_why = doubt.zip(why).is_none_or(|(said, why)| said.contains(why));
            assert!(is_why, "{doubt:?}");
        }
        // A part is one, whatever its backup was, and whichever version wrote it.
        result.partial = true;
        assert_eq!(doubt(&result, false), (true, None));
        result.status = Status::Failure;
        assert!(RecordedRestore::of(outcome_of(&result).unwrap()).is_none());
    }
}
