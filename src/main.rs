//! Parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgrestored::config::hide_secrets();
    let _steps = pgrestored::steps::armed();
    pgrestored::cli::Cli::parse_args().run()
}
