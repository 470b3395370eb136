//! Tests without any server: module layers, generated documents, deployment files, memory limits and the
//! command line.

#[path = "../support/blocks.rs"]
mod blocks;
#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/tools.rs"]
mod tools;

mod addresses;
mod architecture;
mod bounds;
mod circles;
mod cli;
mod contract;
mod deploy;
mod deploy_cloud_run;
mod deploy_gke;
mod deploy_helm;
mod deploy_rendered;
mod deploy_terraform;
mod documents;
mod mistakes;
mod guides;
mod mask;
mod platforms;
mod setup;
mod snapshots;
mod standing;
