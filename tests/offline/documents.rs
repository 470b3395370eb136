//! The documentation matches the program: defaults, links, commands and log fields.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::CommandFactory;
use pgrestored::cli::Cli;
use pgrestored::config::{Config, RawConfig};

use crate::deploy::root;

/// Every variable that the program reads.
pub fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let named = command.get_arguments().filter_map(|a| a.get_env());
    named
        .map(|name| name.to_str().unwrap().to_owned())
        .collect()
}

/// Setting every flag to the `[default: …]` of its help changes nothing.
#[test]
fn defaults_in_the_help_are_the_actual_defaults() {
    let command = Cli::command();
    let defaults: Vec<(String, String)> = command
        .get_arguments()
        .filter(|a| a.get_env().is_some())
        .filter_map(|a| {
            let help = a.get_help()?.to_string();
            let (_, default) = help.rsplit_once(" [default: ")?;
            Some((
                a.get_long()?.to_owned(),
                default.trim_end_matches(']').to_owned(),
            ))
        })
        // These defaults are described in words.
        .filter(|(_, default)| {
            ![
                "the server's cores",
                "the cgroup's limit",
                "one set for all; databases in a set are distinguished in any case",
                "only on the target server",
                "no limit",
                "those of the system",
                "the bucket's own project",
                "any",
            ]
            .contains(&default.as_str())
        })
        .collect();
    assert!(defaults.len() > 30, "{defaults:?}");
    let flags: Vec<(&str, &str)> = defaults
        .iter()
        .map(|(f, d)| (f.as_str(), d.as_str()))
        .collect();
    let config =
        |flags: &[(&str, &str)]| Config::new(&RawConfig::from_flags(flags).unwrap()).unwrap();
    // Whether the bucket and the target server are set makes a difference of its own.
    let is_place = |(flag, _): &&(&str, &str)| {
        ["backup-bucket", "db-host", "db-port", "db-user"].contains(flag)
    };
    let (places, flags): (Vec<_>, Vec<_>) = flags.iter().partition(is_place);
    assert_eq!(places.len(), 4);
    let of = |c: Config| (c.bucket, c.db.host, c.db.port, c.db.user);
    assert_eq!(of(config(&places)), of(config(&[])));
    let shown = |config: Config| format!("{config:#?}");
    assert_eq!(shown(config(&flags)), shown(config(&[])));
}

/// Every page of the documentation.
fn pages() -> Vec<PathBuf> {
    let top = [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
    ];
    let mut pages: Vec<PathBuf> = top.iter().map(|name| root().join(name)).collect();
    let mut folders = vec![
        root().join("docs"),
        root().join("examples"),
        root().join("deploy"),
    ];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 30, "{pages:?}");
    pages
}

/// Every link between our documents has an existing target.
#[test]
fn links_are_not_broken() {
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
        kept.map(|c| if c == ' ' { '-' } else { c })
            .collect::<String>()
    };
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            if link.contains("://") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(to.exists(), "{}: {link}", page.display());
            if !part.is_empty() {
                let target = std::fs::read_to_string(&to).unwrap();
                let mut heads = target.lines().filter(|l| l.starts_with('#')).map(anchor);
                assert!(heads.any(|h| h == part), "{}: {link}", page.display());
            }
        }
    }
}

#[test]
fn lines_of_the_architecture_fit_into_an_editor() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for line in page.lines() {
        assert!(line.chars().count() <= 140, "{line}");
    }
}

/// The command line accepts every command that a document shows.
#[test]
fn documented_commands_are_valid() {
    let mut checked = 0;
    // To build it takes longer than to copy it.
    let cli = Cli::command();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for line in text.lines() {
            // Commands in code blocks or between backticks, up to the shell's own syntax.
            let Some((before, rest)) = line.split_once("pgrestored ") else {
                continue;
            };
            let starts = before.is_empty() || before.ends_with([' ', '`']);
            let is_command = before.trim().is_empty()
                || before.ends_with('`')
                || before.trim_end().ends_with(['|', '&', '*'])
                || before
                    .split_whitespace()
                    .all(|w| w.contains('=') || w == "export" || w == "*");
            if !starts || !is_command {
                continue;
            }
            let shell = |c: char| "`#|&>;".contains(c);
            let args = words(rest.split(shell).next().unwrap());
            // Skip prose about pgrestored, and commands that are not written out.
            let known = cli
                .get_subcommands()
                .any(|c| args.first().is_some_and(|a| a == c.get_name()));
            if !known || args.iter().any(|a| a.contains('…') || a == "\\") {
                continue;
            }
            let given = std::iter::once("pgrestored".to_owned()).chain(args.clone());
            let parsed = cli.clone().try_get_matches_from(given);
            let missing =
                |e: &clap::Error| e.kind() == clap::error::ErrorKind::MissingRequiredArgument;
            match parsed {
                Ok(_) => checked += 1,
                Err(e) if e.kind() == clap::error::ErrorKind::DisplayHelp => checked += 1,
                // Only the command's name is mentioned.
                Err(e) if missing(&e) && args.len() == 1 => {}
                Err(e) => panic!("{}: {line}\n{e}", page.display()),
            }
        }
    }
    assert!(checked > 60, "{checked}");
}

/// The words of a shell's line, without their quotes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quote) = (vec![String::new()], None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The text of every source file of the program.
fn program() -> String {
    let mut folders = vec![root().join("src"), root().join("crates")];
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

/// The program logs the messages that docs/troubleshooting.md explains, in these words.
#[test]
fn explained_log_messages_exist() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let code = words(&program().replace("\\\n", ""));
    let page = std::fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let (_, explained) = page
        .split_once("Messages of the log that are normal")
        .unwrap();
    let (explained, _) = explained.split_once("\n## ").unwrap();
    let (rows, prose): (Vec<&str>, Vec<&str>) =
        explained.lines().partition(|line| line.starts_with('|'));
    let first_cells = rows.iter().filter_map(|row| row.split('|').nth(1));
    let prose = words(&prose.join(" "));
    let mut checked = 0;
    for text in first_cells.chain([prose.as_str()]) {
        for message in text.split('`').skip(1).step_by(2) {
            let known = message
                .split('…')
                .next()
                .unwrap()
                .trim_end_matches([' ', ':']);
            assert!(code.contains(known), "{message}");
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");
}

/// The fields in the text of a `tracing` macro's call.
fn fields_of(call: &str) -> Vec<String> {
    let (mut depth, mut quoted, mut part, mut parts) = (0, false, String::new(), Vec::new());
    let mut last = ' ';
    for c in call.chars() {
        match c {
            '"' if last != '\\' => quoted = !quoted,
            '(' | '[' | '{' if !quoted => depth += 1,
            ')' | ']' | '}' if !quoted && depth == 0 => break,
            ')' | ']' | '}' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        last = c;
        part.push(c);
    }
    parts.push(part);
    let names = parts
        .iter()
        .map(|p| p.trim())
        .filter(|p| !p.is_empty() && !p.starts_with('"') && !p.starts_with("parent:"));
    names
        .map(|p| {
            p.split(" = ")
                .next()
                .unwrap()
                .trim_start_matches(['%', '?'])
                .to_owned()
        })
        .collect()
}

/// Every field of log lines is in docs/logging.md.
#[test]
fn all_log_fields_are_documented() {
    let documented = log_fields();
    let (mut folders, mut lines) = (vec![root().join("src")], 0);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
        {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for level in ["error", "warn", "info", "debug"] {
                for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                    lines += 1;
                    for field in fields_of(call) {
                        assert!(documented.contains(&field), "{}: {field}", path.display());
                    }
                }
            }
        }
    }
    assert!(lines > 40, "{lines}");
}

/// The fields in the table of docs/logging.md.
pub fn log_fields() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/logging.md")).unwrap();
    let rows = page.lines().filter(|l| l.starts_with("| `"));
    let names = rows.flat_map(|l| {
        l.split('|')
            .nth(1)
            .unwrap()
            .split('`')
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    names.filter(|w| !w.trim().is_empty()).collect()
}
