//! `psql` commands in SQL text: which of them have no effect on a restore, and which are rejected because
//! `psql` would run something, access a file or prompt for input.

use super::lexer::{Dialect, tokens};
use super::toc::unsupported;
use crate::error::ArchiveError;

/// Most bytes of one command.
pub(super) const MAX_COMMAND: usize = 64 << 10;

/// Commands that only show something or change how it is shown.
const DISPLAY_COMMANDS: [&str; 24] = [
    "echo",
    "qecho",
    "warn",
    "timing",
    "pset",
    "unset",
    "a",
    "C",
    "f",
    "H",
    "t",
    "T",
    "x",
    "p",
    "print",
    "r",
    "reset",
    "conninfo",
    "copyright",
    "errverbose",
    "h",
    "help",
    "l",
    "list",
];

/// Variables that change how `psql` parses the text that follows.
const PARSING_VARIABLES: [&str; 3] = ["AUTOCOMMIT", "SINGLELINE", "SINGLESTEP"];

/// Variables that `psql` sets itself.
pub(super) const PREDEFINED: [&str; 18] = [
    "AUTOCOMMIT",
    "DBNAME",
    "ENCODING",
    "ERROR",
    "HOST",
    "LAST_ERROR_MESSAGE",
    "LAST_ERROR_SQLSTATE",
    "PORT",
    "PROMPT1",
    "PROMPT2",
    "PROMPT3",
    "ROW_COUNT",
    "SERVER_VERSION_NAME",
    "SERVER_VERSION_NUM",
    "SQLSTATE",
    "USER",
    "VERSION",
    "VERSION_NUM",
];

/// The effect of a command on a restore.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PsqlCommand {
    Restrict(String),
    Unrestrict(String),
    Connect(String),
    Encoding(String),
    /// `\set NAME …`: later text may refer to it.
    Variable(String),
    /// `\q`: `psql` stops reading.
    Quit,
    Nothing,
}

/// Parses the command in a line that begins with a backslash.
///
/// # Errors
/// `ArchiveError::Unsupported` for every command that `psql` would run for its effect.
pub(super) fn command(line: &str, at: u64) -> Result<PsqlCommand, ArchiveError> {
    let (name, argument) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let argument = argument.trim();
    let first = || {
        argument
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let shown = name.strip_prefix('\\').unwrap_or_default();
    let found = match name {
        "\\restrict" if !argument.is_empty() => {
            return Ok(PsqlCommand::Restrict(argument.to_owned()));
        }
        "\\unrestrict" => return Ok(PsqlCommand::Unrestrict(argument.to_owned())),
        "\\connect" | "\\c" => return Ok(PsqlCommand::Connect(argument.to_owned())),
        "\\encoding" => PsqlCommand::Encoding(first().trim_matches('\'').to_owned()),
        "\\set" if PARSING_VARIABLES.contains(&first().as_str()) => {
            return Err(refused(line, name, at));
        }
        "\\set" => PsqlCommand::Variable(first()),
        "\\q" | "\\quit" => PsqlCommand::Quit,
        _ if DISPLAY_COMMANDS.contains(&shown) || is_description(shown) => PsqlCommand::Nothing,
        _ => return Err(refused(line, name, at)),
    };
    if has_side_effect(argument) {
        Err(refused(line, name, at))
    } else {
        Ok(found)
    }
}

/// The database that the argument of `\connect` names; `None` if it has other parameters.
pub(super) fn database_of(argument: &str) -> Option<String> {
    let words = tokens(argument, Dialect::default());
    match words.as_slice() {
        [one] => one.name().or_else(|| one.string()),
        // -reuse-previous=on "dbname='odd name'"
        _ => argument.split_once("\"dbname='").and_then(|(_, rest)| {
            Some(
                rest.strip_suffix("'\"")?
                    .replace("\\'", "'")
                    .replace("\\\\", "\\")
                    .replace("\"\"", "\""),
            )
        }),
    }
}

/// `\d`, `\dt+`, `\sf`, `\z`: commands that list objects.
fn is_description(name: &str) -> bool {
    let letters = name.trim_end_matches(['+', 'S']);
    letters.bytes().all(|b| b.is_ascii_lowercase() || b == b'E')
        && (letters.starts_with('d') || matches!(letters, "sf" | "sv" | "z"))
        && letters.len() <= 5
}

/// Whether an argument runs a program (backquotes) or is followed by another command.
fn has_side_effect(argument: &str) -> bool {
    let (mut quote, mut chars) = (None, argument.chars());
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\\') => drop(chars.next()),
            (Some(q), c) if q == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '`' | '\\') => return true,
            _ => {}
        }
    }
    argument.starts_with('|')
}

fn refused(line: &str, name: &str, at: u64) -> ArchiveError {
    let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
    let why = if line.contains('`') {
        ", which runs a program"
    } else {
        ""
    };
    unsupported(format!(
        "line {at}: the psql command {name}{why}: psql commands are not run (pg_dump writes none of them)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmful_psql_commands_are_refused_and_others_skipped() {
        for line in [
            "\\set ON_ERROR_STOP on",
            "\\echo 'a \\n b'",
            "\\qecho x",
            "\\timing",
            "\\timing off",
            "\\pset pager off",
            "\\unset x",
            "\\dt+ public.*",
            "\\x",
            "\\encoding UTF8",
            "\\q",
            "\\set ECHO all",
        ] {
            assert!(command(line, 1).is_ok(), "{line}");
        }
        for line in [
            "\\! touch x",
            "\\!touch",
            "\\copy t from 'x'",
            "\\i x.sql",
            "\\ir x.sql",
            "\\include x.sql",
            "\\o x",
            "\\o |sh",
            "\\g",
            "\\gexec",
            "\\gset",
            "\\w x",
            "\\if true",
            "\\endif",
            "\\prompt x",
            "\\setenv A b",
            "\\cd /",
            "\\watch",
            "\\lo_import x",
            "\\password",
            "\\bind",
            "\\parse x",
            "\\e",
            "\\set x `id`",
            "\\set x 1 \\! id",
            "\\echo a \\\\ \\! id",
            "\\timing \\! id",
            "\\echo `id`",
            "\\set AUTOCOMMIT off",
            "\\set SINGLELINE on",
            "\\",
            "\\.",
        ] {
            let e = command(line, 7).unwrap_err().to_string();
            assert!(e.contains("line 7"), "{line}: {e}");
        }
    }
}
