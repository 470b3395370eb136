//! `pgrestored` restores PostgreSQL backups out of Cloud Storage on request: streamed, verified, in
//! parallel, and swapped into place in one transaction.
//!
//! ```text
//! request ─► queue ─► worker ─► manager ──────────────────────────────────────► result event ─► ack
//!                                 │ pin        read          load       prove    swap
//!                               backup ─► archive ─► restore ─► CRC32C ─► target
//!                                 │ one ordered stream of bytes          staging ─► target
//!                               store                                    database
//! ```
//!
//! The modules stand in reading order; imports go down only (`tests/offline/architecture.rs`).
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

// The shell and the assembly.
pub mod cli;
pub mod app;
pub mod admin;

// The loop and the story of one job.
pub mod worker;
pub mod catalog;
pub mod manager;
pub mod pipeline;

// The stages.
pub mod backup;
pub mod retention;
pub mod database;
pub mod verification;

// The mechanisms.
pub mod admission;
pub mod sandbox;
pub mod store;
pub mod queue;

// The words.
pub mod job;
pub mod event;
pub mod proof;
pub mod outcome;
pub mod config;
pub mod progress;
pub mod metrics;
pub mod telemetry;

pub use pgdump_restore::{error, policy, postgres, retry, steps};

/// Pub/Sub and Cloud Storage on a loopback port; left out of the worker image.
#[cfg(feature = "emulator")]
pub use gcp_emulator as emulator;
