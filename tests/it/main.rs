//! Without any server: the house's walls, the contract's documents, the archive corpus, the command line.

#[path = "../support/memory.rs"]
mod memory;
#[path = "../support/synthetic.rs"]
mod synthetic;
#[path = "../support/tools.rs"]
mod tools;

mod architecture;
mod archive;
mod bounds;
mod cli;
mod contract;
mod deploy;
mod documents;
mod members;
mod platforms;
mod tail;
mod text;
mod wrappings;
