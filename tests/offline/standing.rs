//! Standing restores: what is wrong with their file is found at the start.

use crate::cli::{run, text};
use crate::deploy::root;

const WRONG: &str = r#"
version: 1
orders:
  - name: staging
    when: proven
    target: production
  - name: reports
    set: bi
    when: { schedule: "0 25 * * *", time_zone: Europe/Berlin }
    target: reports
"#;

#[test]
fn all_mistakes_are_found_at_once_each_with_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("standing.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, WRONG).unwrap();
    let env = [
        ("STANDING_RESTORES", path),
        ("DB_HOST", "db.internal"),
        ("ALLOWED_TARGETS", "staging,reports"),
        ("BACKUP_SETS", "shop=shop/"),
    ];
    for args in [&["check"][..], &["standing", "list"]] {
        let out = run(args, &env);
        assert_eq!(out.status.code(), Some(78), "{args:?}");
        let said = text(&out.stderr);
        for mistake in [
            "order staging: target: database production is not in ALLOWED_TARGETS",
            "order reports: set: bi is not in BACKUP_SETS",
            "order reports: when: schedule: must be a cron pattern",
        ] {
            let line = format!("STANDING_RESTORES: {path}: {mistake}");
            assert!(said.contains(&line), "{args:?}: {line}\n{said}");
        }
    }
    let right = WRONG
        .replace("production", "staging")
        .replace("set: bi", "set: shop")
        .replace("0 25", "0 3");
    std::fs::write(&file, right).unwrap();
    let out = run(&["check"], &env);
    assert!(out.status.success(), "{}", text(&out.stderr));
    // Nothing else tells a second worker what the first one has restored.
    let warning = "RESTORE_RECORDS is not set: unless the target server has a journal";
    assert!(text(&out.stdout).contains(warning), "{}", text(&out.stdout));
    let records = ("RESTORE_RECORDS", "gs://outcomes");
    let out = run(&["check"], &[&env[..], &[records]].concat());
    assert!(!text(&out.stdout).contains(warning));
}

/// The example of deploy/.
#[test]
fn the_example_is_valid() {
    let file = root().join("deploy/kubernetes/components/standing-restores/standing.yaml");
    let env = [
        ("STANDING_RESTORES", file.to_str().unwrap()),
        ("DB_HOST", "db.internal"),
        ("ALLOWED_TARGETS", "staging"),
    ];
    let out = run(&["check"], &env);
    assert!(out.status.success(), "{}", text(&out.stderr));
}

#[test]
fn the_commands_need_the_file() {
    let out = run(&["standing", "list"], &[("DB_HOST", "db.internal")]);
    assert_eq!(out.status.code(), Some(78));
    let said = text(&out.stderr);
    assert!(said.contains("STANDING_RESTORES: required"), "{said}");
}
