//! The command blocks of a document: its fenced blocks of shell commands, in order.

use std::path::Path;

/// Languages of blocks that a reader runs.
const COMMANDS: [&str; 4] = ["sh", "bash", "console", "crontab"];
/// Languages of blocks that nobody runs.
const OTHERS: [&str; 3] = ["text", "json", "yaml"];
/// The sentence before a block that the tests cannot run; a reason and a full stop follow.
const BLOCK_IS_NOT_RUN: &str = "he tests do not run this: ";
/// The sentence on a page whose blocks the tests cannot run.
const PAGE_IS_NOT_RUN: &str = "he tests do not run the commands of this page: ";
/// Why the tests do not run a block.
const REASONS: [&str; 3] = [
    "it builds the program",
    "they need Google Cloud",
    "it takes a minute",
];

/// A block of commands.
pub struct CommandBlock {
    /// The line of its first command, counted from 1.
    pub line: usize,
    language: String,
    /// Its lines, without the indentation of the fence.
    text: String,
    /// Why the tests do not run it, as the document says.
    pub not_run: Option<String>,
}

impl CommandBlock {
    /// What a shell gets of it.
    pub fn commands(&self) -> String {
        let lines = self.text.lines().map(|line| match self.language.as_str() {
            // After minute, hour, day, month and day of the week.
            "crontab" => line
                .split_whitespace()
                .skip(5)
                .collect::<Vec<_>>()
                .join(" "),
            _ => line.strip_prefix("$ ").unwrap_or(line).to_owned(),
        });
        lines.map(|line| line + "\n").collect()
    }
}

/// The command blocks of a page.
///
/// # Panics
/// At a fence without a known language, and at a reason that is not listed.
pub fn command_blocks(page: &str) -> Vec<CommandBlock> {
    let page_reason = reason(&page.replace('\n', " "), PAGE_IS_NOT_RUN);
    let (mut found, mut paragraph) = (Vec::new(), String::new());
    let mut paragraph_ended = false;
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let content = line.trim_start();
        let Some(language) = content.strip_prefix("```") else {
            if paragraph_ended && !content.is_empty() {
                paragraph.clear();
            }
            paragraph_ended = content.is_empty();
            paragraph += content;
            paragraph.push(' ');
            continue;
        };
        let indent = line.len() - content.len();
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| line.trim() != "```")
            .map(|line| line.get(indent..).unwrap_or_default())
            .collect();
        let is_command = COMMANDS.contains(&language);
        assert!(
            is_command || OTHERS.contains(&language),
            "line {}: ```{language}: name the language of the block, one of {COMMANDS:?} or {OTHERS:?}",
            number + 1
        );
        if is_command {
            let own = reason(&paragraph, BLOCK_IS_NOT_RUN);
            found.push(CommandBlock {
                line: number + 2,
                language: language.to_owned(),
                text: body.join("\n") + "\n",
                not_run: own.or_else(|| page_reason.clone()),
            });
        }
        paragraph.clear();
    }
    found
}

/// The reason that follows `sentence` in a text.
fn reason(text: &str, sentence: &str) -> Option<String> {
    let (_, after) = text.split_once(sentence)?;
    let reason = after.split('.').next().unwrap_or_default();
    assert!(REASONS.contains(&reason), "{reason}: one of {REASONS:?}");
    Some(reason.to_owned())
}

/// The documents whose commands are run: README and the guides.
pub fn documents(root: &Path) -> Vec<String> {
    let guides = std::fs::read_dir(root.join("docs/guides")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        format!("docs/guides/{}", entry.unwrap().file_name().display())
    };
    let mut all: Vec<String> = guides.map(name).collect();
    all.push("README.md".to_owned());
    all.sort();
    all
}
