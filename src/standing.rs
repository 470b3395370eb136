//! Standing restores: orders of the configuration by which workers keep databases as fresh as the backups. An order says
//! which backups are restored, when, and into which database. The id of a run is its order, the generation of its backup
//! and its masking rules, so each backup is restored once, whatever is delivered, and by however many workers.

mod due;
mod empty_fields;
mod newest;
mod orders;
mod run_key;
mod schedule;
mod state;

pub use due::{Due, OrderSnapshot, PendingBackups, due};
pub use newest::{NewestBackup, newest};
pub use orders::{Candidate, OrderTrigger, StandingFile, StandingOrder, check_masked, orders};
pub use run_key::RunKey;
pub use state::{OrderHistory, RunOutcome, StandingRun, StandingStates, StandingStatus};
