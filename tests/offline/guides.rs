//! The commands of README and the guides: which of them `tests/cloud` runs, and the syntax of the others.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::blocks::{command_blocks, documents};
use crate::deploy::{root, text_of};

/// How many blocks of each document are run, and how many are not: nobody skips one by accident.
const COUNTS: [(&str, usize, usize); 12] = [
    ("README.md", 5, 4),
    ("docs/guides/cloud-run.md", 0, 2),
    ("docs/guides/cloud-sql-iam.md", 0, 5),
    ("docs/guides/disaster-day.md", 9, 0),
    ("docs/guides/gke.md", 0, 9),
    ("docs/guides/least-privilege.md", 1, 0),
    ("docs/guides/masked-copies.md", 6, 0),
    ("docs/guides/migration.md", 4, 0),
    ("docs/guides/one-name.md", 0, 4),
    ("docs/guides/restore-once.md", 6, 0),
    ("docs/guides/standing-restores.md", 7, 0),
    ("docs/guides/verification-only.md", 4, 0),
];

#[test]
fn all_blocks_of_commands_are_counted() {
    let names: Vec<String> = COUNTS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(documents(root()), names);
    let runner = text_of("tests/cloud/guides.rs");
    for (name, run, not_run) in COUNTS {
        assert!(run == 0 || runner.contains(&format!("{name:?}")), "{name}");
        let blocks = command_blocks(&text_of(name));
        let skipped = blocks.iter().filter(|b| b.not_run.is_some()).count();
        let counted = (blocks.len() - skipped, skipped);
        assert_eq!(counted, (run, not_run), "{name}: blocks run, not run");
    }
}

/// Also of the blocks that no test runs.
#[test]
fn all_blocks_of_commands_are_valid_shell() {
    for name in documents(root()) {
        for block in command_blocks(&text_of(&name)) {
            let mut bash = Command::new("bash")
                .arg("-n")
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut script = bash.stdin.take().unwrap();
            script.write_all(block.commands().as_bytes()).unwrap();
            drop(script);
            let done = bash.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(done.status.success(), "{name}:{}: {said}", block.line);
        }
    }
}

/// A command in an indented block would not be run.
#[test]
fn no_command_is_outside_a_fence() {
    for name in documents(root()) {
        let text = text_of(&name);
        let mut is_fenced = false;
        for line in text.lines() {
            let content = line.trim_start();
            if content.starts_with("```") {
                is_fenced = !is_fenced;
            }
            let starts = ["pgrestored ", "export ", "$ "]
                .iter()
                .any(|p| content.starts_with(p));
            let is_indented = line.len() - content.len() >= 4;
            assert!(is_fenced || !is_indented || !starts, "{name}: {line}");
        }
    }
}

#[test]
fn a_remark_counts_for_the_block_right_after_it() {
    let page = "# P\n\nFirst. (The tests do not run this: it builds the\nprogram.)\n\n```sh\nmake\n```\n\n- Item:\n\n  ```sh\n  a \\\n    b\n  ```\n\n```text\nno\n```\n\n```crontab\n0 6 * * *  c d\n```\n";
    let blocks = command_blocks(page);
    let shown: Vec<(usize, String, bool)> = blocks
        .iter()
        .map(|b| (b.line, b.commands(), b.not_run.is_some()))
        .collect();
    let wanted = [
        (7, "make\n", true),
        (13, "a \\\n  b\n", false),
        (22, "c d\n", false),
    ];
    assert_eq!(shown, wanted.map(|(l, c, n)| (l, c.to_owned(), n)));
    let all = command_blocks(&format!(
        "The tests do not run the commands of this page: they need Google Cloud.\n\n{page}"
    ));
    assert!(all.iter().all(|b| b.not_run.is_some()));
}

#[test]
#[should_panic(expected = "too lazy")]
fn an_unlisted_reason_is_rejected() {
    command_blocks("The tests do not run this: too lazy.\n\n```sh\nmake\n```\n");
}

#[test]
#[should_panic(expected = "name the language")]
fn a_block_without_a_language_is_rejected() {
    command_blocks("```\nmake\n```\n");
}
