//! The stages of a job. A restore claims its target and takes the backup through the states
//! `Pinned` → `Opened` → `Prepared` → `Staged` → `LoadedStaging` → `Proven`; then the swap puts the database in
//! the target's place. A verification takes the same stages into a sandbox and compares instead of swapping.
//! Each stage consumes the state before it, so none can be left out.

mod bisection;
mod completeness;
mod completion;
mod context;
mod destination;
mod diagnosis;
mod job_outcome;
mod limits;
mod placement;
pub(crate) mod preflight;
pub(crate) mod rehearsal;
pub(crate) mod restore;
mod sandbox_destination;
mod stages;
mod target_destination;
pub(crate) mod targets;
mod upload;
pub(crate) mod verification;
mod verification_server;
mod wholeness;

pub(crate) use completion::record_completion;
pub use context::Services;
pub use job_outcome::JobOutcome;
pub(crate) use verification_server::sandbox_dir;
