//! What people get wrong on their own machine: each mistake's exit code, and what the message names. Those with a server
//! are in `tests/pg/mistakes.rs`.

use crate::cli::{run, text};

#[test]
fn mistakes_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let write = |name: &str, content: &str| std::fs::write(dir.path().join(name), content).unwrap();
    write("page.dump", "<!DOCTYPE html><html><body>404</body></html>");
    write("notes.dump", "\u{1}\u{2}\u{3}");
    write("checks.yaml", "assertions: [{name: a, sqll: SELECT 1}]");
    let bucket = format!("file://{}", dir.path().display());
    let (no_dump, no_html, checks, no_checks, file) = (
        path("none.dump"),
        path("none/proof.html"),
        path("checks.yaml"),
        path("none.yaml"),
        path("notes.dump"),
    );
    let inside = format!("{file}/man");
    let page = path("page.dump");
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/v15.custom.dump"
    );
    let far = ["--db-host", "/nowhere", "--retry-budget", "10ms"];
    let to_app = |file| [&["restore", file, "--target", "app"][..], &far].concat();
    let [restore_far, page_far, none_far] = [dump, page.as_str(), no_dump.as_str()].map(to_app);
    let rows_and_definitions = [&restore_far[..], &["--schema-only", "--data-only"]].concat();
    let nowhere = "file:///nowhere";
    let no_folder = format!("{nowhere}: no such folder; check BACKUP_BUCKET");
    let request = |backup| {
        [
            "request",
            backup,
            "--target",
            "app",
            "--google-cloud-project",
            "p",
        ]
    };
    type Mistake<'a> = (&'a [&'a str], i32, &'a [&'a str]);
    let mistakes: [Mistake; 39] = [
        (&["restroe", "x"], 2, &["restroe", "restore"]),
        (
            &["restore"],
            2,
            &["<BACKUP>", "Usage: pgrestored restore [OPTIONS] <BACKUP>"],
        ),
        (
            &["restore", "x", "--tagret", "app"],
            2,
            &["--tagret", "--target"],
        ),
        (
            &["restore", "x"],
            2,
            &["no target database", "--target or DB_NAME"],
        ),
        (
            &["restore", "x", "--target", "app", "--on-existing", "merge"],
            2,
            &["merge", "fail, replace"],
        ),
        (
            &["restore", "x", "--target", "app", "--jobs", "0"],
            2,
            &["--jobs"],
        ),
        (
            &["restore", "x", "--target", "postgres"],
            1,
            &["database postgres is protected"],
        ),
        (
            &restore_far,
            69,
            &[
                "not restored: ",
                "target_unavailable",
                "nothing was changed",
            ],
        ),
        // The file is looked at before the server.
        (
            &page_far,
            65,
            &["not restored: ", "HTML page", "nothing was changed"],
        ),
        (
            &none_far,
            1,
            &["not restored: ", &no_dump, "backup_not_found"],
        ),
        (
            &rows_and_definitions,
            2,
            &["--schema-only and --data-only exclude each other"],
        ),
        (
            &["restore", "x", "--target", "app", "--owners", "map"],
            78,
            &["RESTORE_OWNERS: map needs", "--role-map OLD=NEW"],
        ),
        (
            &["restore", "x", "--target", "app", "--role-map", "a=b"],
            78,
            &["RESTORE_ROLE_MAP: has no effect", "--owners map"],
        ),
        (
            &["verify", "x", "--jobs", "-1"],
            2,
            &["--jobs", "must be from 1 to 256"],
        ),
        (
            &["request", "x", "--verify", "--target", "app"],
            2,
            &["--verify", "cannot be used with", "--target"],
        ),
        (&["inspect", &no_dump], 1, &[&no_dump]),
        (&["inspect", "page.dump"], 65, &["HTML page"]),
        (&["inspect", "notes.dump"], 65, &["not a PostgreSQL dump"]),
        (&["inspect", "latest@soon"], 2, &["2026-11-20T00:00Z"]),
        (
            &["inspect", "page.dump", "--prefix", "none/"],
            2,
            &["--prefix: it is where latest and latest-proven search"],
        ),
        (
            &["inspect", "latest", "--prefix", "none/"],
            1,
            &["no backup"],
        ),
        (
            &["verify", "page.dump", "--html", &no_html],
            2,
            &[&no_html, "cannot be written"],
        ),
        (
            &["verify", "page.dump", "--checks", &checks],
            78,
            &["VERIFY_CHECKS", &checks, "sqll", "line 1"],
        ),
        (
            &["verify", "page.dump", "--checks", &no_checks],
            78,
            &["VERIFY_CHECKS", &no_checks, "cannot be read"],
        ),
        (
            &["prune", "--set", "nosuch"],
            2,
            &["no backup set nosuch", "BACKUP_SETS (default)"],
        ),
        (&["report", "--set", "nosuch"], 2, &["no backup set nosuch"]),
        (&["request", "x.dump"], 78, &["GOOGLE_CLOUD_PROJECT"]),
        (&["man", &inside], 2, &[&inside, "cannot be created"]),
        (
            &["inspect", "page.dump", "--prefix", "orders/"],
            2,
            &["--prefix: ", "page.dump names a backup"],
        ),
        (&["report", "--since", "1x"], 2, &["--since: ", "30d"]),
        (
            &["evidence", "verify", &no_dump],
            2,
            &[&no_dump, "cannot be read"],
        ),
        (
            &["status", "--url", "nowhere"],
            2,
            &["--url: nowhere", "http://worker:9464"],
        ),
        (
            &["list", "--backup-bucket", nowhere],
            1,
            &[no_folder.as_str()],
        ),
        (
            &["prune", "--backup-bucket", nowhere],
            1,
            &[no_folder.as_str()],
        ),
        (
            &["report", "--backup-bucket", nowhere],
            1,
            &[no_folder.as_str()],
        ),
        (
            &["verify", "latest", "--backup-bucket", nowhere],
            1,
            &["inconclusive: latest in file:///nowhere/", &no_folder],
        ),
        (
            &request("./notes.dump"),
            2,
            &[
                "./notes.dump: a worker cannot read",
                "pgrestored restore ./notes.dump",
                "gs://BUCKET/NAME",
            ],
        ),
        (&request("-"), 2, &["-: a worker cannot read"]),
        (
            &request("file:///elsewhere/app.dump"),
            2,
            &["a worker cannot read"],
        ),
    ];
    for (args, exit, texts) in mistakes {
        let out = run(args, &[("BACKUP_BUCKET", bucket.as_str())]);
        let said = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(exit), "{args:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{args:?}: {text}: {said}");
        }
        // The query of the checks file.
        assert!(!said.contains("SELECT"), "{args:?}: {said}");
        let is_json = said.lines().any(|line| line.starts_with('{'));
        assert!(!is_json && said.lines().count() <= 8, "{args:?}: {said}");
    }
    let buckets = ["--backup-bucket", "s3://bucket"];
    let out = run(&[&["list"][..], &buckets].concat(), &[]);
    assert_eq!(out.status.code(), Some(78));
    assert!(text(&out.stderr).contains("gs://bucket/prefix"));
}
