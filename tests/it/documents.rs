//! Documents for people say what the program does.

use std::collections::BTreeSet;

use clap::CommandFactory;
use pgrestored::cli::Cli;

/// Every variable that the program reads.
pub fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let named = command.get_arguments().filter_map(|a| a.get_env());
    named.map(|name| name.to_str().unwrap().to_owned()).collect()
}
