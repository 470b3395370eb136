//! The whole worker against real protocol implementations: always our emulator, and Google's Pub/Sub emulator
//! if it is installed.

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod alerts;
mod cases;
mod crash;
mod examples;
mod formats;
mod handover;
mod google;
mod guides;
mod index;
mod masked_archives;
mod nights;
mod operator;
mod page;
mod test_env;
mod policy;
mod process;
mod queue;
mod race;
mod refusals;
mod resume;
mod service;
mod standing;
mod storage;
mod store_answers;
mod telemetry;
mod verify;
mod worker;
