//! `pgrestored` restores PostgreSQL backups from Cloud Storage on request: streamed, verified, in
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
//! Modules are listed in reading order, grouped by layer. Imports go only to lower layers
//! (`tests/offline/architecture.rs`).
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

// Command line and composition root.
pub mod cli;
pub mod app;
pub mod admin;

// The worker's loop, and the course of one job.
pub mod worker;
pub mod catalog;
pub mod manager;
pub mod pipeline;

// Stages of a job.
pub mod backup;
pub mod retention;
pub mod database;
pub mod verification;

// Infrastructure.
pub mod admission;
pub mod sandbox;
pub mod store;
pub mod queue;

// Domain types, configuration and telemetry.
pub mod job;
pub mod event;
pub mod proof;
pub mod outcome;
pub mod config;
pub mod progress;
pub mod metrics;
pub mod telemetry;

pub use pgdump_restore::{error, policy, postgres, retry, steps};

/// An emulator of Pub/Sub and Cloud Storage on a loopback port; not part of the worker image.
#[cfg(feature = "emulator")]
pub use gcp_emulator as emulator;
