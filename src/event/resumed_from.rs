//! What a restore continued.

/// What earlier attempts had done when a restore went on where they stopped.
#[derive(
    Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct ResumedFrom {
    /// The last earlier attempt, from 1.
    pub attempt: u32,
    /// Uncompressed bytes of table data and large objects that were not loaded again.
    pub bytes: u64,
    /// Rows that were not loaded again.
    pub rows: u64,
    /// How long the earlier attempts had worked, less what this one needed to check and to pass over it.
    pub seconds_saved: f64,
}
