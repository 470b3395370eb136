//! `psql` commands in SQL text: which of them have no effect on a restore, and which are rejected because
//! `psql` would run something, access a file or prompt for input.

use super::lexer::{Dialect, tokens};
use super::toc::{limit_error, unsupported};
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

/// Commands that `psql` runs for their effect, as of PostgreSQL 18.
const EFFECTIVE_COMMANDS: [&str; 56] = [
    "!",
    "?",
    "bind",
    "bind_named",
    "c",
    "cd",
    "close_prepared",
    "connect",
    "copy",
    "crosstabview",
    "e",
    "edit",
    "ef",
    "elif",
    "else",
    "encoding",
    "endif",
    "endpipeline",
    "ev",
    "flush",
    "flushrequest",
    "g",
    "gdesc",
    "getenv",
    "getresults",
    "gexec",
    "gset",
    "gx",
    "html",
    "i",
    "if",
    "include",
    "include_relative",
    "ir",
    "lo_export",
    "lo_import",
    "lo_list",
    "lo_unlink",
    "o",
    "out",
    "parse",
    "password",
    "prompt",
    "q",
    "quit",
    "restrict",
    "s",
    "sendpipeline",
    "set",
    "setenv",
    "startpipeline",
    "syncpipeline",
    "unrestrict",
    "w",
    "watch",
    "write",
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
/// `ArchiveError::Limit` for every command that `psql` would run for its effect, `ArchiveError::Unsupported` for what
/// it does not know either.
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
            return Err(rejected_command(line, name, at));
        }
        "\\set" => PsqlCommand::Variable(first()),
        "\\q" | "\\quit" => PsqlCommand::Quit,
        _ if DISPLAY_COMMANDS.contains(&shown) || is_description(shown) => PsqlCommand::Nothing,
        _ => return Err(rejected_command(line, name, at)),
    };
    if has_side_effect(argument) {
        Err(rejected_command(line, name, at))
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

/// Whether `psql` has the command that begins behind a backslash.
pub(super) fn has_command(behind: &[u8]) -> bool {
    let is_end = |b: &u8| b.is_ascii_whitespace() || *b == b'\\';
    let end = behind.iter().position(is_end).unwrap_or(behind.len());
    let Ok(name) = std::str::from_utf8(&behind[..end]) else {
        return false;
    };
    // `\;` may be followed by anything.
    behind.starts_with(b";")
        || EFFECTIVE_COMMANDS.contains(&name)
        || DISPLAY_COMMANDS.contains(&name)
        || is_description(name)
}

/// The error for text that this program does not take: its own limit if `psql` takes it, the text's fault if `psql`
/// refuses it, too.
pub(super) fn not_taken(does_psql: bool, what: String) -> ArchiveError {
    if does_psql {
        limit_error(what)
    } else {
        unsupported(what)
    }
}

fn rejected_command(line: &str, name: &str, at: u64) -> ArchiveError {
    let why = if line.contains('`') {
        ", which runs a program"
    } else {
        ""
    };
    let what = format!(
        "line {at}: {}{why}: psql commands are not run (pg_dump writes none of them)",
        in_words(name)
    );
    not_taken(is_known(name), what)
}

/// Whether this is the name of a command of `psql`, with its backslash.
fn is_known(name: &str) -> bool {
    let behind = name.strip_prefix('\\').unwrap_or_default();
    has_command(behind.as_bytes())
}

/// A command for messages. Any other word may be one of a row, where text before it is lost: it is not repeated.
pub(super) fn in_words(name: &str) -> String {
    if !is_known(name) {
        return "a backslash that begins no psql command".to_owned();
    }
    // Another backslash ends the name, and anything may follow `\;`.
    let behind = name.strip_prefix('\\').unwrap_or_default();
    let word = behind.split(['\\', ';']).next().unwrap_or_default();
    let word = if word.is_empty() { ";" } else { word };
    format!("the psql command \\{word}")
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
            let e = command(line, 7).unwrap_err();
            assert!(e.to_string().contains("line 7"), "{line}: {e}");
            // What psql runs is no fault of the text.
            let is_known = !["\\", "\\.", "\\!touch"].contains(&line);
            let is_limit = matches!(e, ArchiveError::Limit(_));
            assert_eq!(is_limit, is_known, "{line}: {e}");
            assert_eq!(
                e.to_string().contains("the psql command"),
                is_known,
                "{line}: {e}"
            );
        }
    }

    #[test]
    fn a_word_that_is_no_command_is_not_repeated() {
        for line in ["\\secret\t1", "\\\\secret", "\\N\\secret `"] {
            let e = command(line, 7).unwrap_err().to_string();
            assert!(
                e.contains("line 7: a backslash") && !e.contains("secret"),
                "{line}: {e}"
            );
        }
    }

    #[test]
    fn a_command_is_named_without_what_follows_it() {
        for (name, words) in [
            ("\\gexec", "the psql command \\gexec"),
            ("\\g\\secret", "the psql command \\g"),
            ("\\;secret", "the psql command \\;"),
        ] {
            assert_eq!(in_words(name), words);
        }
    }

    #[test]
    fn commands_of_psql_are_known_and_escapes_of_copy_are_not() {
        for behind in ["gexec", "gset x\n", "; SELECT", "watch 1", "dt+", "x\\y"] {
            assert!(has_command(behind.as_bytes()), "{behind}");
        }
        for behind in ["", ".", "N\t1", "\\", "x41", "nothing"] {
            assert!(!has_command(behind.as_bytes()), "{behind}");
        }
    }
}
