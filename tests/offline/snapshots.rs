//! What people read: help, and the messages of common mistakes. `INSTA_UPDATE=always cargo test --test
//! offline` writes the snapshots again; review them as text.

use crate::cli::{run, text};

pub const COMMANDS: [&str; 20] = [
    "worker", "restore", "rollback", "promote", "reap", "verify", "evidence", "selftest", "prune",
    "report", "list", "inspect", "mask", "request", "watch", "status", "check", "doctor", "demo",
    "standing",
];

#[test]
fn help() {
    insta::assert_snapshot!("help", text(&run(&["--help"], &[]).stdout));
    for command in COMMANDS {
        // Most options are the same for all commands: `-h` is short and shows them all.
        let help = text(&run(&[command, "-h"], &[]).stdout);
        assert_eq!(crate::cli::too_long(&help), None, "{command}");
        insta::assert_snapshot!(format!("help_{command}"), help);
    }
}

/// Exit code and message of what goes wrong on the first day.
#[test]
fn messages_of_common_mistakes() {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("file://{}", dir.path().display());
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("cut.dump", b"PGDMP\x01\x10");
    write("cut.sql", b"--\n-- PostgreSQL database dump\n--\n");
    write("page.html", b"<!DOCTYPE html><html><body>404</body></html>");
    write("empty.dump", b"");
    let env = [("BACKUP_BUCKET", folder.as_str())];
    let mut all = String::new();
    for args in [
        &["restore"][..],
        &["restore", "cut.dump"],
        &["restore", "cut.dump", "--target", "postgres"],
        &[
            "restore",
            "cut.dump",
            "--target",
            "app",
            "--on-existing",
            "merge",
        ],
        &[
            "restore",
            "missing.dump",
            "--target",
            "app",
            "--db-host",
            "/nowhere",
            "--retry-budget",
            "10ms",
        ],
        &["inspect", "cut.dump"],
        &["inspect", "cut.sql"],
        &["inspect", "page.html"],
        &["inspect", "empty.dump"],
        &["inspect", "missing.dump"],
        &["inspect", "latest@soon"],
        &["verify", "cut.dump", "--depth", "deep"],
        &["list", "--backup-bucket", "s3://bucket"],
        &["worker"],
        &["request", "x.dump"],
    ] {
        let out = run(args, &env);
        let code = out.status.code().unwrap();
        let shown = text(&out.stdout) + &text(&out.stderr);
        // Log lines have times and ids.
        let shown: String = shown
            .split_inclusive('\n')
            .filter(|line| !line.starts_with('{'))
            .collect();
        let shown = shown.replace(dir.path().to_str().unwrap(), "FOLDER");
        all += &format!(
            "$ pgrestored {}\n{shown}exit code {code}\n\n",
            args.join(" ")
        );
    }
    insta::assert_snapshot!("messages", all);
}
