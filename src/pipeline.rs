//! The course of a job. A restore claims its target and takes the backup through the states
//! `Pinned` → `Opened` → `Prepared` → `CreatedStaging` → `LoadedStaging` → `Proven` (`states`); then the swap puts the
//! database in the target's place. A verification goes through the same states in a sandbox and compares instead of
//! swapping. Each state consumes the one before it, so none can be left out.
//!
//! A stage ([`Stage`](pgdump_restore::Stage)) is something else: what a job does at the moment, as results, metrics, traces
//! and progress name it.

mod bisection;
mod completeness;
mod completion;
mod destination;
mod diagnosis;
mod failed_restore;
mod finish;
mod handover;
mod job_context;
mod job_outcome;
mod limits;
pub(crate) mod mask_samples;
pub(crate) mod masked_archive;
mod pins;
mod placement;
pub(crate) mod preflight;
mod preload;
mod reading;
pub(crate) mod rehearsal;
mod replacement;
pub(crate) mod restore;
mod result_draft;
mod sandbox_destination;
mod seen_archive;
mod states;
mod stored_rows;
mod target_destination;
pub(crate) mod targets;
mod tuning_watch;
mod unclaimed;
mod upload;
pub(crate) mod verification;
mod verification_server;

pub(crate) use completion::record_completion;
pub use job_context::Services;
pub use job_outcome::JobOutcome;
pub use mask_samples::{MaskSuggestion, SuggestedColumn, SuggestedTable};
pub use masked_archive::{MaskDestination, MaskJob, MaskedArchive};
pub(crate) use unclaimed::UnclaimedAttempts;
pub(crate) use verification_server::sandbox_dir;
