//! What of the server's settings made a restore slower.

/// Most pieces of advice in a result.
pub const MOST_ADVICE: usize = 5;

/// A setting of the target's server that makes restores slower. It is the server's, for all of its databases: pgrestored
/// never changes it.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct Advice {
    /// The name of the setting.
    pub setting: String,
    /// Its value.
    pub value: String,
    /// A value under which the restore would have been faster.
    pub suggested: String,
    /// Why the setting makes the restore slower, and what changing it takes.
    pub reason: String,
    /// What the suggested value gained in a measurement; absent if that was not measured for a value like the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<MeasuredGain>,
}

/// The gain that `make bench` measured.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct MeasuredGain {
    /// The share of the restore's time that was saved, from 0 to 1.
    pub share: f64,
    /// What was measured, and where: dataset, both values, server.
    pub source: String,
}
