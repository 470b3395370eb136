//! Without any server: the house's walls, the contract's documents, the archive corpus, the command line.

#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/tools.rs"]
mod tools;

mod architecture;
mod bounds;
mod cli;
mod contract;
mod deploy;
mod documents;
mod platforms;
