//! Documents for people say what the program does.

use std::collections::BTreeSet;

use clap::CommandFactory;
use pgrestored::cli::Cli;
use pgrestored::config::{Config, RawConfig};

use crate::deploy::root;

/// Every variable that the program reads.
pub fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let named = command.get_arguments().filter_map(|a| a.get_env());
    named.map(|name| name.to_str().unwrap().to_owned()).collect()
}

/// `[default: …]` of the help is what holds where nothing is said.
#[test]
fn the_defaults_that_are_told_are_the_defaults() {
    let command = Cli::command();
    let told: Vec<(String, String)> = command
        .get_arguments()
        .filter(|a| a.get_env().is_some())
        .filter_map(|a| {
            let help = a.get_help()?.to_string();
            let (_, default) = help.rsplit_once(" [default: ")?;
            Some((a.get_long()?.to_owned(), default.trim_end_matches(']').to_owned()))
        })
        // These are told in words.
        .filter(|(_, default)| !["cores", "one for all"].contains(&default.as_str()))
        .collect();
    assert!(told.len() > 30, "{told:?}");
    let flags: Vec<(&str, &str)> = told.iter().map(|(f, d)| (f.as_str(), d.as_str())).collect();
    let of = |flags: &[(&str, &str)]| {
        format!("{:#?}", Config::new(&RawConfig::from_flags(flags).unwrap()).unwrap())
    };
    assert_eq!(of(&flags), of(&[]));
}

/// Every link between our documents leads somewhere.
#[test]
fn links_lead_somewhere() {
    let mut pages =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CHANGELOG.md")];
    let mut folders = vec![root().join("docs"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|e| e == "md") => pages.push(path),
                false => {}
            }
        }
    }
    assert!(pages.len() > 15, "{pages:?}");
    let anchor = |line: &str| {
        let words = line.trim_start_matches('#').trim().to_lowercase();
        let kept = words.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-' || *c == '_');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.contains("://") {
                continue;
            }
            let (file, part) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {link}", page.display());
            if !part.is_empty() {
                let there = std::fs::read_to_string(&to).unwrap();
                let mut heads = there.lines().filter(|l| l.starts_with('#')).map(anchor);
                assert!(heads.any(|h| h == part), "{}: {link}", page.display());
            }
        }
    }
}
