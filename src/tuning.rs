//! The tuning advisor: which of the target server's settings make a restore slower. [`read`] reads settings and counters,
//! [`advise`] is a pure function of them, and of what a restore saw or an archive foretells. The gains are those that
//! `benches/tuning.rs` has measured (`gains.json`, which it rewrites).
//!
//! Only speed is its subject. What keeps data safe (`fsync`, `full_page_writes`) is never suggested, and what a server with
//! replicas or an archive needs (`wal_level`) only where there are none.

mod amounts;
mod gains;
mod reading;
mod rules;

pub use reading::{IndexSizes, Reading, ServerSettings, index_sizes, read};
pub use rules::{AdviceSubject, Load, advise};
