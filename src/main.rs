//! Parses the command line, runs the command and returns its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(failed) = pgrestored::sandbox::launch(std::env::args_os()) {
        return failed;
    }
    if let Ok(program) = std::env::current_exe() {
        pgrestored::sandbox::set_launcher(program);
    }
    pgrestored::config::hide_secrets();
    let _steps = pgrestored::steps::init_failpoints();
    pgrestored::cli::Cli::parse_args().run()
}
