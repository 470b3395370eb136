//! The command line: one file per command, documented exit codes, and one JSON document with
//! `--output json`.

#[macro_use]
mod terminal;

mod advice;
mod backup;
mod check;
mod continuable;
#[cfg(feature = "emulator")]
mod demo;
mod display;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod evidence;
mod exit;
mod failure;
mod files;
mod help;
mod inspect;
mod ledger;
mod list;
mod mask;
mod output;
mod promote;
mod prune;
mod reap;
mod reference;
mod rehearse;
mod report;
mod request;
mod restore;
mod rollback;
mod schema;
mod selftest;
mod signals;
mod standing;
mod status;
mod style;
mod verify;
mod watch;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::app::App;
use crate::config::{Config, ConfigErrors, RawConfig};
use crate::event::RestoreResult;
use crate::telemetry::{self, LogFormat, LogReader};

use exit::{CommandError, CommandResult, Exit};
use output::OutputFormat;
#[cfg(feature = "emulator")]
use signals::stop_signal;

/// Restores PostgreSQL backups from Cloud Storage, and proves that they can be restored
///
/// Restores PostgreSQL backups from Cloud Storage on request: streamed, verified, in parallel, and
/// swapped into place in one transaction.
#[derive(Debug, Parser)]
#[command(name = "pgrestored", version, after_help = EXAMPLES, after_long_help = after_help(), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Format of the result on standard output: text or json
    #[arg(long, global = true, value_enum, default_value_t = OutputFormat::Text, value_name = "FORMAT", hide_possible_values = true)]
    output: OutputFormat,
    /// Lowest severity of log lines to show: error, warn, info, debug, trace or off; by default info for a worker, otherwise warn
    #[arg(long, global = true, env = "LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// Format of the log on standard error: text, json, or auto, the default: json for a worker whose log is not a terminal, otherwise text
    #[arg(long, global = true, env = "LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    #[command(flatten)]
    config: RawConfig,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Process restore requests from a subscription
    #[command(
        after_help = "Example:\n  BACKUP_BUCKET=gs://my-backups GOOGLE_CLOUD_PROJECT=my-project DB_HOST=db.internal pgrestored worker"
    )]
    Worker(worker::WorkerArgs),
    /// Restore a backup
    #[command(
        after_help = "Examples:\n  pgrestored restore latest --target app_copy\n  pgrestored restore ./app.dump --target app --on-existing replace",
        after_long_help = "Examples:\n  pgrestored restore latest --target app_copy\n  pgrestored restore orders/2026-11-22.dump --target app --on-existing replace\n  pg_dump -Fc app | pgrestored restore - --target app_copy\n  pgrestored restore latest --target part --table shop.orders"
    )]
    Restore(restore::RestoreArgs),
    /// Show what the target server would refuse in a backup, without restoring rows
    #[command(
        after_help = "Examples:\n  pgrestored rehearse latest\n  pgrestored rehearse ./app.dump --output json"
    )]
    Rehearse(rehearse::RehearseArgs),
    /// Bring back the database that a restore replaced
    #[command(
        after_help = "Examples:\n  pgrestored rollback app\n  pgrestored rollback app --list"
    )]
    Rollback(rollback::RollbackArgs),
    /// Swap a restored copy into the place of another database
    #[command(
        after_help = "Examples:\n  pgrestored promote app_restored --to app\n  pgrestored promote app_restored --to app --on-existing replace"
    )]
    Promote(promote::PromoteArgs),
    /// Drop what killed workers left behind on the server
    #[command(after_help = "Example:\n  pgrestored reap --output json")]
    Reap(reap::ReapArgs),
    /// Prove that a backup can be restored
    #[command(
        after_help = "Examples:\n  pgrestored verify latest --html proof.html\n  pgrestored verify latest --depth archive --output json"
    )]
    Verify(verify::VerifyArgs),
    /// Check evidence documents
    #[command(subcommand)]
    Evidence(evidence::EvidenceArgs),
    /// Test the verification itself with a backup that is broken in every known way
    Selftest(selftest::SelftestArgs),
    /// Show which old backups can be deleted; delete them with --apply
    #[command(after_help = "Examples:\n  pgrestored prune\n  pgrestored prune --apply")]
    Prune(prune::PruneArgs),
    /// Show which backups were verified, according to the evidence
    #[command(after_help = "Example:\n  pgrestored report --since 30d --html month.html")]
    Report(report::ReportArgs),
    /// List backups
    #[command(after_help = "Example:\n  pgrestored list --prefix orders/ --output json")]
    List(list::ListArgs),
    /// Show what a backup contains and needs
    #[command(after_help = "Example:\n  pgrestored inspect latest --against")]
    Inspect(inspect::InspectArgs),
    /// Write a masked copy of a backup as an archive, without a database
    #[command(
        after_help = "Examples:\n  pgrestored mask suggest latest > mask.yaml\n  pgrestored mask check latest --mask mask.yaml\n  pgrestored mask latest --mask mask.yaml --to gs://for-vendor/app.dump"
    )]
    Mask(mask::MaskArgs),
    /// Show, run or pause standing restores
    #[command(
        subcommand,
        after_help = "Examples:\n  pgrestored standing list\n  pgrestored standing run staging\n  pgrestored standing pause staging --resume"
    )]
    Standing(standing::StandingArgs),
    /// Publish a request for a restore or a verification
    #[command(
        after_help = "Examples:\n  pgrestored request latest --target orders_restored --wait\n  pgrestored request latest --verify --wait"
    )]
    Request(request::RequestArgs),
    /// Show the progress of a request and wait for its result
    #[command(after_help = "Example:\n  pgrestored watch ops-1234")]
    Watch(watch::WatchArgs),
    /// Show what a worker is doing
    #[command(
        after_help = "Examples:\n  pgrestored status --url http://worker:9464\n  pgrestored status --output json"
    )]
    Status(status::StatusArgs),
    /// Check the configuration without connecting to anything
    #[command(after_help = "Example:\n  pgrestored check && pgrestored doctor")]
    Check,
    /// Check everything that jobs need against the live services, and suggest fixes
    #[command(after_help = "Example:\n  pgrestored doctor --output json")]
    Doctor,
    /// Print the JSON Schema of a document
    Schema(schema::SchemaArgs),
    /// Print a shell's completion script
    #[command(
        after_help = "Example:\n  pgrestored completions bash > ~/.local/share/bash-completion/completions/pgrestored"
    )]
    Completions { shell: clap_complete::Shell },
    /// Write the man pages, one per command, to a folder
    Man { folder: std::path::PathBuf },
    /// Write the reference pages of docs/
    #[command(hide = true)]
    Reference { folder: std::path::PathBuf },
    /// Demonstrate everything on this machine, without any configuration
    #[cfg(feature = "emulator")]
    Demo,
    /// Run an emulator of Pub/Sub and Cloud Storage on one loopback port
    #[cfg(feature = "emulator")]
    Emulator(emulator::EmulatorArgs),
}

impl Command {
    fn connects_to_target(&self) -> bool {
        match self {
            Command::Restore(_)
            | Command::Rehearse(_)
            | Command::Rollback(_)
            | Command::Promote(_)
            | Command::Reap(_)
            | Command::Inspect(_)
            | Command::Check
            | Command::Doctor => true,
            Command::Standing(args) => args.connects_to_target(),
            Command::Worker(_)
            | Command::Verify(_)
            | Command::Evidence(_)
            | Command::Selftest(_)
            | Command::Prune(_)
            | Command::Report(_)
            | Command::List(_)
            | Command::Mask(_)
            | Command::Request(_)
            | Command::Watch(_)
            | Command::Status(_)
            | Command::Schema(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Reference { .. } => false,
            #[cfg(feature = "emulator")]
            Command::Demo | Command::Emulator(_) => false,
        }
    }

    /// What a command whose answer is the result of a job prints as JSON if the job cannot begin.
    fn draft(&self) -> Option<RestoreResult> {
        match self {
            Command::Restore(args) => Some(args.draft()),
            Command::Verify(args) => Some(args.draft()),
            _ => None,
        }
    }
}

const EXAMPLES: &str = "Examples:
  pgrestored restore latest --target app_copy
  pgrestored verify latest --html proof.html";

fn after_help() -> String {
    let codes = Exit::ALL
        .map(|e| format!("  {:>3} {}\n", e.code(), e.meaning()))
        .concat();
    let config =
        "Every option with a variable (env) can be set by it; an option overrides its variable.";
    format!("{config}\n\nExit codes:\n{codes}\n{EXAMPLES}")
}

/// Lowest severities of log lines.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The configuration, unless there are these mistakes, too.
fn with_mistakes(
    config: Result<Config, ConfigErrors>,
    mistakes: Vec<String>,
) -> Result<Config, ConfigErrors> {
    if mistakes.is_empty() {
        return config;
    }
    let others = config.err().map(|e| e.0).unwrap_or_default();
    Err(ConfigErrors(mistakes.into_iter().chain(others).collect()))
}

/// The name and JSON Schema of every document; the files are `schemas/NAME.v1.json`.
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    schema::all()
}

impl Cli {
    /// Parses the command line; exits the process after `--help` and after usage errors.
    pub fn parse_args() -> Self {
        let command = || help::arrange(Cli::command());
        let args = help::without_help_command(crate::config::arguments());
        let found = command().try_get_matches_from(&args);
        // After an error, once more for its usage line.
        let found = found.or_else(|_| help::with_usage(command()).try_get_matches_from(&args));
        let parsed = found.and_then(|found| Cli::from_arg_matches(&found));
        parsed.unwrap_or_else(|e| {
            failure::print_unparsed(&e, &args);
            e.exit()
        })
    }

    /// Runs the command and returns its exit code.
    pub fn run(self) -> ExitCode {
        // No core dumps: memory contains passwords and rows of databases.
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let reader = match self.command {
            Command::Worker(_) => LogReader::Operator,
            _ => LogReader::Person(terminal::write_log),
        };
        let mut mistakes = Vec::new();
        let (level, format) = self.log_settings(reader, &mut mistakes);
        let raw = match reader {
            LogReader::Operator => self.config.clone(),
            LogReader::Person(_) => self.config.clone().for_person(),
        };
        let raw = match &self.command {
            Command::Mask(args) if args.needs_no_key() => raw.with_any_mask_key(),
            _ => raw,
        };
        let config = match self.command {
            Command::Worker(_) | Command::Request(_) => Config::with_queue(&raw),
            Command::Verify(_) | Command::Selftest(_) => Config::for_verification(&raw),
            _ => Config::new(&raw),
        };
        let config = with_mistakes(config, mistakes);
        if let (true, Ok(config)) = (self.command.connects_to_target(), &config) {
            let warnings = config.db_origins.warnings().iter();
            warnings.for_each(|warning| err!("pgrestored: {warning}"));
        }
        let (output, draft) = (self.output, self.command.draft());
        let valid = config.as_ref().ok();
        let telemetry = telemetry::Options {
            level,
            format,
            reader,
            colours: crate::config::colours(),
            otlp_endpoint: valid.and_then(|c| c.otlp_endpoint.clone()),
            service_name: crate::config::service_name(),
            project: valid.and_then(|c| c.project.clone()),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let done = runtime.map_err(CommandError::from).and_then(|runtime| {
            // The OTLP exporter must be built inside a runtime.
            let _entered = runtime.enter();
            let telemetry = telemetry::start(&telemetry).map_err(CommandError::Other)?;
            let done = runtime.block_on(self.dispatch(config));
            drop(telemetry);
            // A thread that blocks on standard input cannot be stopped.
            runtime.shutdown_background();
            done
        });
        let exit = done.unwrap_or_else(|e| {
            if output == OutputFormat::Json {
                failure::print(&e, draft);
            }
            e.complain();
            e.exit()
        });
        ExitCode::from(exit.code())
    }

    /// The lowest severity of log lines, and their format. A mistake in either is one of the configuration.
    fn log_settings(&self, reader: LogReader, mistakes: &mut Vec<String>) -> (String, LogFormat) {
        let given = |value: &Option<String>| {
            let value = value.as_deref().map(str::trim).filter(|v| !v.is_empty());
            value.map(str::to_lowercase)
        };
        let default = match reader {
            LogReader::Operator => "info",
            LogReader::Person(_) => "warn",
        };
        let mut level = given(&self.log_level).unwrap_or_else(|| default.to_owned());
        if !LEVELS.contains(&level.as_str()) {
            mistakes.push("LOG_LEVEL: must be error, warn, info, debug, trace or off".to_owned());
            level = default.to_owned();
        }
        let format = given(&self.log_format).map(|f| LogFormat::from_str(&f, true));
        let format = format.unwrap_or(Ok(LogFormat::Auto)).unwrap_or_else(|_| {
            mistakes.push("LOG_FORMAT: must be auto, text or json".to_owned());
            LogFormat::Auto
        });
        (level, format)
    }

    async fn dispatch(self, config: Result<Config, ConfigErrors>) -> CommandResult {
        let output = self.output;
        match self.command {
            Command::Schema(args) => schema::run(&args),
            Command::Completions { shell } => {
                let mut script = Vec::new();
                let mut command = help::arrange(Cli::command());
                clap_complete::generate(shell, &mut command, "pgrestored", &mut script);
                terminal::print_bytes(&script);
                Ok(Exit::Ok)
            }
            Command::Man { folder } => reference::man(help::arrange(Cli::command()), &folder),
            Command::Reference { folder } => reference::write(&Cli::command(), &folder),
            #[cfg(feature = "emulator")]
            Command::Demo => tokio::select! {
                done = demo::run(self.config.pg_bindir()) => done,
                // Dropping the demo's future stops everything that it started.
                signalled = stop_signal() => Ok(signalled?),
            },
            #[cfg(feature = "emulator")]
            Command::Emulator(args) => emulator::run(args).await,
            Command::Check => check::run(&config?, output),
            Command::Doctor => doctor::run(config?, output).await,
            Command::Status(args) => status::run(&config?, args, output).await,
            Command::Watch(args) => watch::run(App::new(config?)?, args, output).await,
            Command::Worker(args) => worker::run(App::new(config?)?, args).await,
            Command::Restore(args) => restore::run(App::new(config?)?, args, output).await,
            Command::Rehearse(args) => rehearse::run(App::new(config?)?, args, output).await,
            Command::List(args) => list::run(App::new(config?)?, args, output).await,
            Command::Verify(args) => verify::run(App::new(config?)?, args, output).await,
            Command::Evidence(args) => evidence::run(args, output),
            Command::Selftest(args) => selftest::run(config?, args, output).await,
            Command::Prune(args) => prune::run(App::new(config?)?, args, output).await,
            Command::Report(args) => report::run(App::new(config?)?, args, output).await,
            Command::Rollback(args) => rollback::run(App::new(config?)?, args, output).await,
            Command::Promote(args) => promote::run(App::new(config?)?, args, output).await,
            Command::Reap(args) => reap::run(App::new(config?)?, args, output).await,
            Command::Inspect(args) => inspect::run(App::new(config?)?, args, output).await,
            Command::Mask(args) => mask::run(App::new(config?)?, args, output).await,
            Command::Standing(args) => standing::run(App::new(config?)?, args, output).await,
            Command::Request(args) => request::run(App::new(config?)?, args, output).await,
        }
    }
}
