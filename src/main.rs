//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgrestored::cli::Cli::parse_args().run()
}
