//! Evidence of verifications, stored next to the backup: a document that is created once and never changed,
//! and an HTML page and a JUnit file rendered from it. Anyone who may create objects in the bucket can put
//! documents there too, so this module decides which of them count, by signature, location and time.

mod limits;
mod listing;
mod names;
mod search;
mod store;
mod times;

pub use limits::EvidenceLimits;
pub use names::{Question, evidence_name, is_of};
pub use search::{DocumentFolders, Found, GenerationEvidence, SearchLimit};
pub use store::{Evidence, StoredEvidence};

#[cfg(test)]
pub(super) mod tests;
