//! Notifications of Cloud Storage.

use std::collections::HashMap;

/// Attributes of a Cloud Storage notification. Only `OBJECT_FINALIZE` acts.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct GcsNotification {
    /// `projects/_/buckets/BUCKET/notificationConfigs/ID`
    pub notification_config: String,
    /// `OBJECT_FINALIZE`, `OBJECT_METADATA_UPDATE`, `OBJECT_DELETE` or `OBJECT_ARCHIVE`
    pub event_type: String,
    pub bucket_id: String,
    pub object_id: String,
    /// An int64 as a string.
    pub object_generation: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_format: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overwrote_generation: Option<String>,
}

impl GcsNotification {
    /// Parses a notification from its attributes; `None` for other messages.
    pub fn from_attributes(attributes: &HashMap<String, String>) -> Option<Self> {
        attributes
            .get("notificationConfig")
            .and(attributes.get("eventType"))?;
        serde_json::from_value(serde_json::to_value(attributes).ok()?).ok()
    }

    /// The id of the verification that this notification triggers.
    pub fn request_id(&self) -> String {
        format!(
            "gcs:{}/{}#{}",
            self.bucket_id, self.object_id, self.object_generation
        )
    }
}
