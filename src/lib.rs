//! `pgrestored` restores PostgreSQL backups from Cloud Storage on request: streamed, verified, in
//! parallel, and swapped into place in one transaction.
//!
//! ```text
//! request ─► queue ─► worker ─► pipeline ─────────────────────────────────────► result event ─► ack
//!                                 │ pin        read          load       prove    swap
//!                               backup ─► archive ─► restore ─► CRC32C ─► target
//!                                 │ one ordered stream of bytes          staging ─► target
//!                               store                                    database
//! ```
//!
//! Modules are grouped by layer. Imports go only to lower layers
//! (`tests/offline/architecture.rs`).
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

// Command line and composition root.
pub mod admin;
pub mod app;
pub mod cli;

// The worker's loop, and the course of one job.
pub mod catalog;
pub mod manager;
pub mod pipeline;
pub mod standing;
pub mod worker;

// Backups, and the servers that they are restored on.
pub mod backup;
pub mod database;
pub mod retention;
pub mod verification;

// Infrastructure.
pub mod admission;
mod html;
pub mod queue;
pub mod sandbox;
pub mod store;
pub mod tuning;

// Domain types, configuration and telemetry.
pub mod config;
pub mod credentials;
pub mod event;
pub mod job;
pub mod metrics;
pub mod outcome;
pub mod progress;
pub mod proof;
pub mod telemetry;

pub use pgdump_restore::{error, policy, postgres, retry, steps};

/// An emulator of Pub/Sub and Cloud Storage on a loopback port; not part of the worker image.
#[cfg(feature = "emulator")]
pub use gcp_emulator as emulator;
