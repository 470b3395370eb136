//! Without any server: the house's walls, the contract's documents, the archive corpus, the command line.

mod architecture;
mod archive;
mod cli;
mod contract;
