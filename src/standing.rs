//! Standing restores: orders of the configuration by which workers keep databases as fresh as the backups. An order says
//! which backups are restored, when, and into which database. The id of a run is its order and the generation of its
//! backup, so each backup is restored once, whatever is delivered, and by however many workers.

mod due;
mod newest;
mod orders;
mod schedule;
mod state;

pub use due::{Due, KnownOfOrder, Waiting, due};
pub use newest::{NewestBackup, newest};
pub use orders::{Candidate, OrderTrigger, StandingFile, StandingOrder, orders};
pub use state::{OrderHistory, RunOutcome, StandingRun, StandingStates, StandingStatus};
