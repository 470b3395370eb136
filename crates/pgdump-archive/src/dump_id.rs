//! The numbers of the entries of an archive.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// The number of an entry in its archive, from 1. Dependencies and data blocks refer to entries by it; it is not an
/// entry's position in the table of contents.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct DumpId(pub i32);

impl DumpId {
    /// The number of entries that are not part of a table of contents, such as those about the end of SQL text.
    pub const NONE: DumpId = DumpId(0);
}

impl From<i32> for DumpId {
    fn from(number: i32) -> Self {
        DumpId(number)
    }
}

impl FromStr for DumpId {
    type Err = ParseIntError;

    fn from_str(digits: &str) -> Result<Self, ParseIntError> {
        digits.parse().map(DumpId)
    }
}

impl fmt::Display for DumpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
