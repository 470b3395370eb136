//! The rows that a database had when all of it was loaded, for the time after its record is gone. Pure.

use serde::{Deserialize, Serialize};

use super::body::UnitId;

/// How many rows each transaction of a load has brought, and what else explains a row. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tallies {
    /// Those with rows, and those of SQL text.
    pub(super) units: Vec<UnitTally>,
    /// All transactions of the record, as rows of tables name them.
    pub(super) xids: Vec<u32>,
    /// Transactions of finishing SQL, which may have changed any row: from one, up to another one.
    pub(super) finishing: Vec<(u64, u64)>,
    /// Schemas that have new names.
    pub(super) renames: Vec<(String, String)>,
}

/// The rows of a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnitTally {
    #[serde(rename = "u")]
    pub(super) unit: UnitId,
    /// The transactions that brought them, and how many each.
    #[serde(rename = "x", default, skip_serializing_if = "Vec::is_empty")]
    pub(super) xids: Vec<(u64, u64)>,
    /// Of SQL text: the table, and the statement that sets the search path, or nothing.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) table: Option<(String, String)>,
}

impl Tallies {
    /// The same, where transactions from `from` up to `to`, which is none of them, may have changed any row: those of SQL
    /// that nothing recorded.
    #[must_use]
    pub fn with_unrecorded(mut self, from: u64, to: u64) -> Self {
        if from < to {
            self.finishing.push((from, to));
        }
        self
    }
}
