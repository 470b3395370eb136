//! What a rehearsal finds.

use super::ResultBackup;
use pgdump_restore::Refusal;

/// A definition that the server refused in a rehearsal, and what to do about it.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct RehearsedRefusal {
    #[serde(flatten)]
    pub refusal: Refusal,
    /// What makes the server accept it.
    pub fix: String,
}

/// What a restore into the target server would do, tried with all definitions of a backup and none of its rows.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Rehearsal {
    pub backup: ResultBackup,
    /// Whether the server refused nothing.
    pub restorable: bool,
    /// Number of definitions that were tried.
    pub entries: u64,
    /// Everything that would not be restored: each refused entry before those that are left out with it.
    pub refusals: Vec<RehearsedRefusal>,
    /// Number of all of them; a result event lists the first 100.
    pub refusals_total: u64,
    /// What a rehearsal cannot know.
    pub note: String,
    pub duration_seconds: f64,
}
