//! `mask suggest`: a mask file to start from.

use std::fmt::Write as _;

use tokio_util::sync::CancellationToken;

use super::source::MaskSource;
use crate::app::App;
use crate::cli::exit::{CommandResult, Exit};
use crate::cli::failure;
use crate::cli::output::{OutputFormat, print_json};
use crate::cli::rehearse::with_hint;
use crate::cli::signals::until_signal;
use crate::manager::{MaskSuggestion, SuggestedTable};

/// Column at which comments begin, if there is room.
const COMMENT_AT: usize = 44;

/// Words that are no texts in YAML, in any case.
const YAML_WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];

pub(super) async fn run(app: App, source: MaskSource, output: OutputFormat) -> CommandResult {
    let (backup, stop) = (source.backup(&app)?, CancellationToken::new());
    let work = app
        .manager
        .suggest_masks(&backup, source.database.clone(), stop.clone());
    let (found, signalled) = until_signal(work, &stop).await?;
    if let (Err(_), Some(exit)) = (&found, signalled) {
        if output == OutputFormat::Json {
            failure::print_interrupted(exit);
        }
        return Ok(exit);
    }
    let found = found.map_err(|e| with_hint(e, &source.backup))?;
    if output == OutputFormat::Json {
        return print_json(&found);
    }
    found.notes.iter().for_each(|note| err!("note: {note}"));
    file_of(&found).lines().for_each(|line| out!("{line}"));
    Ok(Exit::Ok)
}

/// The mask file.
fn file_of(found: &MaskSuggestion) -> String {
    let of = found.database.as_deref().map(one_line);
    let of = of.map(|database| format!(" of database {database}"));
    let mut file = format!(
        "# Rules for a masked copy{}, to start from: read every line.\n\
         # A column has a rule if its name, its type or the first rows of its table look personal. What is personal for other\n\
         # reasons is not found, and what is kept is copied as it is.\n\
         version: 1\n",
        of.unwrap_or_default()
    );
    file += &commented(
        "unlisted: refuse",
        Some("a column that is not here stops the copy"),
    );
    if found.large_objects {
        let why = "their contents may be anything, and no rule masks them; or keep";
        file += &commented("large_objects: none", Some(why));
    }
    if found.tables.is_empty() {
        return file + "tables: {}\n";
    }
    file += "tables:\n";
    found.tables.iter().for_each(|t| add_table(&mut file, t));
    file
}

fn add_table(file: &mut String, table: &SuggestedTable) {
    let name = format!("{}.{}", pattern(&table.schema), pattern(&table.table));
    // Writing to a String cannot fail.
    let _ = writeln!(file, "  {}:", yaml_text(&name));
    if table.columns.is_empty() {
        *file += "    columns: {}\n";
        return;
    }
    *file += "    columns:\n";
    for column in &table.columns {
        let name = yaml_text(&pattern(&column.column));
        let line = format!("      {name}: {}", column.rule);
        *file += &commented(&line, column.why.as_deref());
    }
}

/// A line with a comment.
fn commented(line: &str, comment: Option<&str>) -> String {
    match comment {
        Some(comment) => format!("{line:<COMMENT_AT$}  # {}\n", one_line(comment)),
        None => format!("{line}\n"),
    }
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A name as the pattern that stands for it alone.
fn pattern(name: &str) -> String {
    if name.contains(['.', '*', '?', '"']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// A text as YAML writes it: plain if it cannot be taken for anything else. JSON's quotes are YAML's, too.
fn yaml_text(text: &str) -> String {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'))
        && !YAML_WORDS.iter().any(|w| text.eq_ignore_ascii_case(w));
    if is_word {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::SuggestedColumn;

    fn column(name: &str, rule: &str, why: Option<&str>) -> SuggestedColumn {
        SuggestedColumn {
            column: name.to_owned(),
            rule: rule.to_owned(),
            why: why.map(str::to_owned),
        }
    }

    fn suggestion() -> MaskSuggestion {
        let columns = vec![
            column("id", "keep", None),
            column(
                "email",
                "{ fake: email }",
                Some("its name, and 190 of 200\nvalues"),
            ),
            column("no", "keep", None),
            column("Größe: \"cm\"", "keep", None),
        ];
        let table = |table: &str, columns| SuggestedTable {
            schema: "shop".to_owned(),
            table: table.to_owned(),
            columns,
        };
        MaskSuggestion {
            database: Some("shop".to_owned()),
            tables: vec![table("customer", columns), table("a.b", vec![])],
            large_objects: true,
            notes: vec![],
        }
    }

    #[test]
    fn the_file_says_why_on_each_line_that_changes_something() {
        let file = file_of(&suggestion());
        let lines: Vec<&str> = file.lines().filter(|l| !l.starts_with('#')).collect();
        assert_eq!(
            lines,
            [
                "version: 1",
                "unlisted: refuse                              # a column that is not here stops the copy",
                "large_objects: none                           # their contents may be anything, and no rule masks them; or keep",
                "tables:",
                "  shop.customer:",
                "    columns:",
                "      id: keep",
                "      email: { fake: email }                  # its name, and 190 of 200 values",
                "      \"no\": keep",
                "      \"\\\"Größe: \\\"\\\"cm\\\"\\\"\\\"\": keep",
                "  \"shop.\\\"a.b\\\"\":",
                "    columns: {}",
            ]
        );
    }

    #[test]
    fn the_file_can_be_read() {
        let file = file_of(&suggestion());
        pgdump_mask::MaskFile::parse(&file).unwrap();
        let none = MaskSuggestion {
            tables: vec![],
            ..suggestion()
        };
        pgdump_mask::MaskFile::parse(&file_of(&none)).unwrap();
    }
}
