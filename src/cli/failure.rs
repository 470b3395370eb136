//! What a command prints with `--output json` when it fails: one document, like its answer.

use std::ffi::OsString;

use pgdump_restore::Stage;

use super::exit::{CommandError, Exit};
use super::output::print_json;
use super::terminal;
use crate::app::AppError;
use crate::error::{Blame, ErrorBody, FailureReason as R, RetryClass, one_line, report};
use crate::event::{RestoreResult, Status};
use crate::queue::QueueError;

/// What a command prints with `--output json` if it fails before it has an answer. `restore` and `verify` print a
/// `restore-result` instead, unless their command line cannot be parsed.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct CommandFailure {
    status: Status,
    exit_code: u8,
    /// As in a result. `target_unavailable` also stands for Pub/Sub and for a worker's status page, `invalid_request` also
    /// for an invalid configuration.
    error: ErrorBody,
}

impl CommandFailure {
    fn new(exit: Exit, error: ErrorBody) -> Self {
        CommandFailure {
            status: Status::Failure,
            exit_code: exit.code(),
            error,
        }
    }
}

/// Prints the document of an error, unless the command has printed one already. `draft` is the result of a job that
/// could not begin.
pub(super) fn print(e: &CommandError, draft: Option<RestoreResult>) {
    if terminal::has_printed_document() {
        return;
    }
    let error = body_of(e);
    let _ = match draft {
        Some(result) => print_json(&RestoreResult {
            status: Status::Failure,
            error: Some(error),
            ..result
        }),
        None => print_json(&CommandFailure::new(e.exit(), error)),
    };
}

/// Prints the document of a command that a signal ended.
pub(super) fn print_interrupted(exit: Exit) {
    let error = body((R::Cancelled, R::Cancelled.blame()), exit.meaning());
    let _ = print_json(&CommandFailure::new(exit, error));
}

/// Prints the document of a command line that cannot be parsed, if it asks for JSON.
pub(super) fn print_unparsed(e: &clap::Error, args: &[OsString]) {
    if !e.use_stderr() || !wants_json(args) {
        return;
    }
    let error = body((R::InvalidRequest, R::InvalidRequest.blame()), &said_by(e));
    let _ = print_json(&CommandFailure::new(Exit::Usage, error));
}

fn wants_json(args: &[OsString]) -> bool {
    let options = args.split(|a| a == "--").next().unwrap_or_default();
    let is_pair = |pair: &[OsString]| pair[0] == "--output" && pair[1] == "json";
    options.iter().any(|a| a == "--output=json") || options.windows(2).any(is_pair)
}

/// The sentence of an error of the command line, without its advice and its usage line.
fn said_by(e: &clap::Error) -> String {
    use clap::error::ErrorKind;
    if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing".to_owned();
    }
    let text = e.to_string();
    let sentence = text.split("\n\n").next().unwrap_or_default();
    let words = sentence.strip_prefix("error: ").unwrap_or(sentence);
    one_line(&words.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn body((reason, blame): (R, Blame), message: &str) -> ErrorBody {
    ErrorBody {
        reason,
        blame,
        stage: Stage::Request.to_string(),
        message: message.to_owned(),
        sqlstate: None,
        refusals: vec![],
        refusals_total: 0,
        misfits: vec![],
        retryable: reason.retry_class() != RetryClass::Permanent,
    }
}

fn body_of(e: &CommandError) -> ErrorBody {
    let of = |reason: R| (reason, reason.blame());
    let unavailable = (R::TargetUnavailable, Blame::Infrastructure);
    let of_queue = |e: &QueueError| match e {
        QueueError::Permanent(_) => of(R::AccessDenied),
        QueueError::Missing(_) | QueueError::Refused(_) => of(R::InvalidRequest),
        QueueError::Transient(_) => unavailable,
    };
    let (cause, sqlstate) = match e {
        CommandError::Restore(e) => ((e.reason(), e.blame()), e.sqlstate()),
        CommandError::App(AppError::Database(e)) => ((e.reason(), e.kind().blame()), e.sqlstate()),
        CommandError::App(AppError::Config(_)) | CommandError::NothingToContinue(_) => {
            (of(R::InvalidRequest), None)
        }
        CommandError::App(AppError::Queue(e)) | CommandError::Queue(e) => (of_queue(e), None),
        CommandError::App(AppError::Admin(_)) | CommandError::Unavailable(_) => (unavailable, None),
        CommandError::Io(_) | CommandError::Other(_) => (of(R::Internal), None),
    };
    let message = match e {
        CommandError::App(AppError::Config(e)) => {
            one_line(&format!("invalid configuration: {}", e.0.join("; ")))
        }
        other => report(other),
    };
    let misfits = match e {
        CommandError::Restore(e) => e.misfits().to_vec(),
        _ => vec![],
    };
    ErrorBody {
        sqlstate: sqlstate.map(str::to_owned),
        misfits,
        ..body(cause, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigErrors;

    fn args(all: &[&str]) -> Vec<OsString> {
        all.iter().map(OsString::from).collect()
    }

    #[test]
    fn json_is_asked_for_by_its_option_alone() {
        for (all, is_asked) in [
            (&["p", "list", "--output", "json"][..], true),
            (&["p", "--output=json", "list"], true),
            (&["p", "list", "--output", "text", "json"], false),
            (&["p", "list", "--", "--output", "json"], false),
            (&["p", "--output"], false),
        ] {
            assert_eq!(wants_json(&args(all)), is_asked, "{all:?}");
        }
    }

    #[test]
    fn the_document_of_a_parse_error_has_its_sentence() {
        let command = clap::Command::new("p")
            .arg(clap::Arg::new("FILE").required(true))
            .arg(
                clap::Arg::new("jobs")
                    .long("jobs")
                    .action(clap::ArgAction::SetTrue),
            );
        let said = |all: &[&str]| said_by(&command.clone().try_get_matches_from(all).unwrap_err());
        assert_eq!(
            said(&["p"]),
            "the following required arguments were not provided: <FILE>"
        );
        assert_eq!(said(&["p", "--job"]), "unexpected argument '--job' found");
    }

    #[test]
    fn every_error_has_a_reason_and_whose_it_is() {
        let config = ConfigErrors(vec!["A: must be b".into(), "C: must be d".into()]);
        let missing = QueueError::Missing("no topic".into());
        for (e, reason, message) in [
            (
                CommandError::from(config),
                R::InvalidRequest,
                "invalid configuration: A: must be b; C: must be d",
            ),
            (missing.into(), R::InvalidRequest, "no topic"),
            (
                CommandError::NothingToContinue("nothing".into()),
                R::InvalidRequest,
                "nothing",
            ),
            (
                CommandError::Unavailable("no answer".into()),
                R::TargetUnavailable,
                "no answer",
            ),
            (
                crate::cli::exit::usage("--since: no"),
                R::InvalidRequest,
                "--since: no",
            ),
        ] {
            let body = body_of(&e);
            assert_eq!((body.reason, body.message.as_str()), (reason, message));
        }
        let unavailable = body_of(&CommandError::Unavailable("x".into()));
        assert_eq!(unavailable.blame, Blame::Infrastructure);
        assert!(unavailable.retryable);
    }
}
