//! Parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    pgrestored::cli::Cli::parse().run()
}
