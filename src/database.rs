//! Databases on the target server. A restore claims its target with an advisory lock on one session, loads
//! into its own staging database and, once that is proven, swaps it into place in one transaction on the
//! same session. That is the fencing: a worker that loses the session loses the lock, and can no longer
//! swap. An empty database may be filled instead (`fill`), for roles that may not create one.

mod abandoned;
mod advisory_locks;
mod claim;
mod confinement;
mod copy_properties;
mod disk;
mod displacement;
mod fill;
mod fill_record;
mod held_objects;
mod idle_target;
mod in_place;
mod journal;
mod journal_tables;
mod names;
mod ownership;
mod pooled;
mod powers;
mod promote;
mod reachability;
mod reaper;
mod recorded_restore;
mod retained;
mod rollback;
mod sealed;
mod staging;
mod swap;
mod target_lock;
mod target_staging;
mod temporary_database;
mod waiting;
mod work;
mod work_rows;
mod work_session;
mod work_start;

pub use abandoned::unended;
pub use claim::{Claim, claim};
pub use confinement::{Loader, check_restricted, facts_for_loader};
pub use disk::{ServerDisk, free_bytes, out_of_space, unless_full};
pub use idle_target::{IdleTarget, hold_idle};
pub use journal::{check_journal, journaled};
pub use promote::{Promoted, Promotion, Provenance, promote};
pub use reachability::TargetHealth;
pub use reaper::{ReapScope, ReapTerms, Reaped, reap};
pub use recorded_restore::outcome_of;
pub use retained::{RetainedDatabase, kept};
pub use rollback::{RolledBack, rollback};
pub use staging::{CreateOptions, OTHER_LOCALE, ProvenStaging, Staging};
pub use target_lock::{ClaimPolicy, TargetLock};
pub use temporary_database::TemporaryDatabase;
pub use waiting::{WaitingRestore, occupied, waiting};
pub use work::{FoundWork, NotContinued, ResumeTerms, WorkDone, WorkState};
pub use work_session::{Continuing, KeptWork, TakenOver};
pub use work_start::BeginWork;
