//! Tests without any server: module layers, generated documents, deployment files, memory limits and the
//! command line.

#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/tools.rs"]
mod tools;

mod architecture;
mod bounds;
mod circles;
mod cli;
mod contract;
mod deploy;
mod documents;
mod platforms;
mod snapshots;
