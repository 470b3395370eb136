//! What commands print: text or one JSON document, and the texts that they share.

use clap::ValueEnum;

use super::exit::{CommandError, CommandResult, Exit};
use super::terminal;
use crate::error::Blame;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OutputFormat {
    Text,
    Json,
}

/// Prints one JSON document.
pub(super) fn print_json(value: &impl serde::Serialize) -> CommandResult {
    let text =
        serde_json::to_string_pretty(value).map_err(|e| CommandError::Other(e.to_string()))?;
    terminal::print_document(&text);
    Ok(Exit::Ok)
}

/// Who is to blame for a failure, as in JSON.
pub(super) fn blame_name(blame: Blame) -> &'static str {
    match blame {
        Blame::Backup => "backup",
        Blame::Target => "target",
        Blame::Infrastructure => "infrastructure",
        Blame::Request => "request",
    }
}

/// The singular or the plural of a noun, for a count of `n`.
pub(super) fn noun(n: u64, singular: &str) -> String {
    if n == 1 {
        singular.to_owned()
    } else {
        format!("{singular}s")
    }
}

/// A human-readable number of bytes.
pub(super) fn human_bytes(n: u64) -> String {
    indicatif::HumanBytes(n).to_string()
}
