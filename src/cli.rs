//! The command line: one file per command, documented exit codes, and one JSON document with
//! `--output json`.

#[macro_use]
mod terminal;

mod check;
#[cfg(feature = "emulator")]
mod demo;
mod doctor;
#[cfg(feature = "emulator")]
mod emulator;
mod evidence;
mod inspect;
mod list;
mod style;
mod prune;
mod reap;
mod reference;
mod report;
mod request;
mod restore;
mod rollback;
mod schema;
mod selftest;
mod status;
mod verify;
mod watch;
mod worker;

use std::future::Future;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{App, AppError};
use crate::config::{Config, ConfigErrors, RawConfig};
use crate::error::{Blame, FailureReason as R, RestoreError, report};
use crate::queue::QueueError;
use crate::telemetry::{self, LogFormat};

/// Restores PostgreSQL backups from Cloud Storage on request: streamed, verified, in parallel, and
/// swapped into place in one transaction.
#[derive(Debug, Parser)]
#[command(name = "pgrestored", version, after_help = after_help(), max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Format of the output on standard output
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Lowest severity of log lines to show: error, warn, info, debug, trace
    #[arg(long, global = true, env = "LOG_LEVEL", value_name = "LEVEL")]
    log_level: Option<String>,
    /// Format of the log on standard error; auto: text on a terminal, otherwise json
    #[arg(
        long,
        global = true,
        env = "LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    #[command(flatten)]
    config: RawConfig,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Process restore requests from a subscription
    #[command(
        after_help = "Example:\n  BACKUP_BUCKET=gs://my-backups GOOGLE_CLOUD_PROJECT=my-project DB_HOST=db.internal pgrestored worker"
    )]
    Worker(worker::Args),
    /// Restore a backup
    #[command(
        after_help = "Examples:\n  pgrestored restore latest --target app_copy\n  pgrestored restore orders/2026-11-22.dump --target app --on-existing replace\n  pg_dump -Fc app | pgrestored restore - --target app_copy\n  pgrestored restore latest --target part --table shop.orders"
    )]
    Restore(restore::Args),
    /// Bring back the database that a restore replaced
    #[command(
        after_help = "Examples:\n  pgrestored rollback app\n  pgrestored rollback app --list"
    )]
    Rollback(rollback::Args),
    /// Drop what killed workers left behind on the server
    #[command(after_help = "Example:\n  pgrestored reap --output json")]
    Reap,
    /// Prove that a backup can be restored
    #[command(
        after_help = "Examples:\n  pgrestored verify latest --html proof.html\n  pgrestored verify latest --depth archive --output json"
    )]
    Verify(verify::Args),
    /// Check evidence documents
    #[command(subcommand)]
    Evidence(evidence::Args),
    /// Test the verification itself with a backup that is broken in every known way
    Selftest(selftest::Args),
    /// Show which old backups can be deleted; delete them with --apply
    #[command(after_help = "Examples:\n  pgrestored prune\n  pgrestored prune --apply")]
    Prune(prune::Args),
    /// Show which backups were verified, according to the evidence
    #[command(after_help = "Example:\n  pgrestored report --since 30d --html month.html")]
    Report(report::Args),
    /// List backups
    #[command(after_help = "Example:\n  pgrestored list --prefix orders/ --output json")]
    List(list::Args),
    /// Show what a backup contains and needs
    #[command(after_help = "Example:\n  pgrestored inspect latest --against")]
    Inspect(inspect::Args),
    /// Publish a request for a restore or a verification
    #[command(
        after_help = "Examples:\n  pgrestored request latest --target orders_restored --wait\n  pgrestored request latest --verify --wait"
    )]
    Request(request::Args),
    /// Show the progress of a request and wait for its result
    #[command(after_help = "Example:\n  pgrestored watch ops-1234")]
    Watch(watch::Args),
    /// Show what a worker is doing
    #[command(
        after_help = "Examples:\n  pgrestored status --url http://worker:9464\n  pgrestored status --output json"
    )]
    Status(status::Args),
    /// Check the configuration without connecting to anything
    #[command(after_help = "Example:\n  pgrestored check && pgrestored doctor")]
    Check,
    /// Check everything that jobs need against the live services, and suggest fixes
    #[command(after_help = "Example:\n  pgrestored doctor --output json")]
    Doctor,
    /// Print the JSON Schema of a document
    Schema(schema::Args),
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
    Emulator(emulator::Args),
}

const EXAMPLES: &str = "Examples:
  pgrestored restore latest --target app_copy
  pgrestored restore ./app.dump --target app --on-existing replace
  pgrestored verify latest --html proof.html
  pgrestored list --output json";

fn after_help() -> String {
    let codes = Exit::ALL
        .map(|e| format!("  {:>3} {}\n", e.code(), e.meaning()))
        .concat();
    format!("Exit codes:\n{codes}\n{EXAMPLES}")
}

/// The name and JSON Schema of every document; the files are `schemas/NAME.v1.json`.
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    schema::all()
}

/// The exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Ok,
    Failed,
    Usage,
    BadData,
    Unavailable,
    Permission,
    Config,
    /// Ended by SIGINT.
    Interrupted,
    /// Ended by SIGTERM.
    Terminated,
}

impl Exit {
    const ALL: [Exit; 9] = [
        Exit::Ok,
        Exit::Failed,
        Exit::Usage,
        Exit::BadData,
        Exit::Unavailable,
        Exit::Permission,
        Exit::Config,
        Exit::Interrupted,
        Exit::Terminated,
    ];

    fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "success",
            Exit::Failed => "the restore or verification failed",
            Exit::Usage => "invalid command line",
            Exit::BadData => "a message or an archive cannot be read",
            Exit::Unavailable => "a server or service does not respond",
            Exit::Permission => "missing credentials or permissions",
            Exit::Config => "invalid configuration",
            Exit::Interrupted => "ended by SIGINT",
            Exit::Terminated => "ended by SIGTERM",
        }
    }

    fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::BadData => 65,
            Exit::Unavailable => 69,
            Exit::Permission => 77,
            Exit::Config => 78,
            Exit::Interrupted => 130,
            Exit::Terminated => 143,
        }
    }

    /// The exit code for a failure.
    fn of(reason: R) -> Self {
        match reason {
            R::ArchiveCorrupt | R::ArchiveUnsupported | R::ChecksumMismatch | R::BackupChanged => {
                Exit::BadData
            }
            R::TargetUnavailable | R::DownloadFailed => Exit::Unavailable,
            R::AccessDenied | R::InsufficientPrivilege => Exit::Permission,
            R::InvalidRequest => Exit::Usage,
            R::Cancelled => Exit::Interrupted,
            R::TargetNotAllowed
            | R::TargetExists
            | R::TargetBusy
            | R::SourceNotAllowed
            | R::BackupNotFound
            | R::VersionIncompatible
            | R::ExtensionMissing
            | R::RoleMissing
            | R::InsufficientSpace
            | R::DataRejected
            | R::RestoreError
            | R::VerificationFailed
            | R::Timeout
            | R::Internal => Exit::Failed,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A server or service does not respond.
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Other(String),
}

impl From<ConfigErrors> for CommandError {
    fn from(e: ConfigErrors) -> Self {
        CommandError::App(e.into())
    }
}

impl CommandError {
    /// Prints the error to standard error; each configuration error on a line of its own.
    fn complain(&self) {
        match self {
            CommandError::App(AppError::Config(e)) => {
                err!("pgrestored: invalid configuration");
                e.0.iter().for_each(|mistake| err!("  {mistake}"));
            }
            other => err!("pgrestored: {}", report(other)),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            CommandError::App(AppError::Config(_)) => Exit::Config,
            CommandError::App(AppError::Database(e)) => Exit::of(e.reason()),
            CommandError::App(AppError::Admin(_))
            | CommandError::Io(_)
            | CommandError::Unavailable(_) => Exit::Unavailable,
            CommandError::App(AppError::Queue(e)) | CommandError::Queue(e) => match e {
                QueueError::Permanent(_) => Exit::Permission,
                QueueError::Refused(_) => Exit::BadData,
                QueueError::Transient(_) => Exit::Unavailable,
            },
            CommandError::Restore(e) => Exit::of(e.reason()),
            CommandError::Other(_) => Exit::Failed,
        }
    }
}

type CommandResult = Result<Exit, CommandError>;

impl Cli {
    /// Parses the command line; exits the process after `--help` and after usage errors.
    pub fn parse_args() -> Self {
        // `-h` hides configuration flags; `--help` shows them.
        let command = Cli::command().mut_args(|a| {
            let is_config = a.get_env().is_some();
            a.hide_short_help(is_config)
        });
        Cli::from_arg_matches(&command.get_matches()).unwrap_or_else(|e| e.exit())
    }

    /// Runs the command and returns its exit code.
    pub fn run(self) -> ExitCode {
        // No core dumps: memory contains passwords and rows of databases.
        let none = rustix::process::Rlimit {
            current: Some(0),
            maximum: Some(0),
        };
        let _ = rustix::process::setrlimit(rustix::process::Resource::Core, none);
        let quiet = !matches!(self.command, Command::Worker(_));
        let level = self
            .log_level
            .clone()
            .unwrap_or_else(|| if quiet { "warn" } else { "info" }.into());
        let config = match self.command {
            Command::Worker(_) | Command::Request(_) => Config::with_queue(&self.config),
            _ => Config::new(&self.config),
        };
        let valid = config.as_ref().ok();
        let telemetry = telemetry::Options {
            level,
            format: self.log_format,
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
            e.complain();
            e.exit()
        });
        ExitCode::from(exit.code())
    }

    async fn dispatch(self, config: Result<Config, ConfigErrors>) -> CommandResult {
        let output = self.output;
        match self.command {
            Command::Schema(args) => schema::run(&args),
            Command::Completions { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Cli::command(),
                    "pgrestored",
                    &mut std::io::stdout(),
                );
                Ok(Exit::Ok)
            }
            Command::Man { folder } => Ok(reference::man(&folder)?),
            Command::Reference { folder } => Ok(reference::write(&folder)?),
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
            Command::List(args) => list::run(App::new(config?)?, args, output).await,
            Command::Verify(args) => verify::run(App::new(config?)?, args, output).await,
            Command::Evidence(args) => evidence::run(args, output),
            Command::Selftest(args) => selftest::run(config?, args, output).await,
            Command::Prune(args) => prune::run(App::new(config?)?, args, output).await,
            Command::Report(args) => report::run(App::new(config?)?, args, output).await,
            Command::Rollback(args) => rollback::run(App::new(config?)?, args, output).await,
            Command::Reap => reap::run(App::new(config?)?, output).await,
            Command::Inspect(args) => inspect::run(App::new(config?)?, args, output).await,
            Command::Request(args) => request::run(App::new(config?)?, args, output).await,
        }
    }
}

/// Prints one JSON document.
fn print_json(value: &impl serde::Serialize) -> CommandResult {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| CommandError::Other(e.to_string()))?;
    terminal::print_document(&text);
    Ok(Exit::Ok)
}

/// Who is to blame for a failure, as in JSON.
fn blame_name(blame: Blame) -> &'static str {
    match blame {
        Blame::Backup => "backup",
        Blame::Target => "target",
        Blame::Infrastructure => "infrastructure",
        Blame::Request => "request",
    }
}

/// The singular or the plural of a noun, for a count of `n`.
fn noun(n: u64, singular: &str) -> String {
    if n == 1 {
        singular.to_owned()
    } else {
        format!("{singular}s")
    }
}

/// A human-readable number of bytes.
fn human_bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}

/// Waits for the first SIGINT or SIGTERM.
async fn stop_signal() -> Result<Exit, std::io::Error> {
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(tokio::select! {
        _ = int.recv() => Exit::Interrupted,
        _ = term.recv() => Exit::Terminated,
    })
}

/// Runs `work` to completion. A signal cancels `stop`, so that `work` can end early, and is returned.
async fn until_signal<T>(
    work: impl Future<Output = T>,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<(T, Option<Exit>), std::io::Error> {
    tokio::pin!(work);
    let signalled = tokio::select! {
        done = &mut work => return Ok((done, None)),
        signalled = stop_signal() => signalled?,
    };
    stop.cancel();
    Ok((work.await, Some(signalled)))
}
