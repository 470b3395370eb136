//! What `inspect --against` foretells is what `restore` of the same backup then does.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::Cluster;

/// Settings, as environment variables.
type Settings<'a> = &'a [(&'a str, &'a str)];

/// A command of the program on `c`, as superuser unless `settings` say otherwise.
fn run(c: &Cluster, settings: Settings<'_>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command
        .args(args)
        .env_clear()
        .env("DB_HOST", c.sandbox.host())
        .env("DB_USER", "postgres")
        .envs(settings.iter().copied());
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(out: &Output) -> Value {
    serde_json::from_slice(&out.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", text(&out.stdout), text(&out.stderr)))
}

/// The exit code of `inspect --against`, and its findings.
fn foretold(c: &Cluster, settings: Settings<'_>, dump: &Path) -> (Option<i32>, Vec<Value>) {
    let file = dump.to_str().unwrap();
    let out = run(
        c,
        settings,
        &["inspect", file, "--against", "--output", "json"],
    );
    let said = json(&out);
    // Every role may see the settings, and none of them matters to a small backup.
    assert_eq!(said["advice"], serde_json::json!([]), "{said}");
    let findings = said["findings"].as_array().unwrap().clone();
    (out.status.code(), findings)
}

/// The exit code of `restore`, and its result.
fn restored(
    c: &Cluster,
    settings: Settings<'_>,
    dump: &Path,
    target: &str,
) -> (Option<i32>, Value) {
    let file = dump.to_str().unwrap();
    let args = ["restore", file, "--target", target, "--output", "json"];
    let out = run(c, settings, &args);
    (out.status.code(), json(&out))
}

/// A dump whose owner is no role of the server any more.
fn dump_of_missing_owner(c: &Cluster) -> PathBuf {
    c.psql("postgres", "CREATE ROLE gone");
    c.create("src", "CREATE TABLE t (a int); ALTER TABLE t OWNER TO gone");
    let dump = c.dump_to_file("src", &[]);
    c.psql("postgres", "DROP DATABASE src");
    c.psql("postgres", "DROP ROLE gone");
    dump
}

#[test]
fn inspect_foretells_what_restore_does() {
    let c = Cluster::start_with("-c max_wal_size=32MB");
    c.psql("postgres", "CREATE ROLE weak LOGIN");
    c.create("plain", "CREATE TABLE t (a int)");
    c.create("extended", "CREATE EXTENSION pageinspect");
    let plain = c.dump_to_file("plain", &[]);
    let extended = c.dump_to_file("extended", &[]);
    let owned = dump_of_missing_owner(&c);
    let folder = format!("file://{}", owned.parent().unwrap().display());
    let weak = [("DB_USER", "weak")];
    let allowed = [("ALLOWED_SOURCES", folder.as_str())];
    let no_roles = [("DB_USER", "creator"), ("ALLOWED_SOURCES", &folder)];
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    type Case<'a> = (&'a PathBuf, Settings<'a>, Option<&'a str>, i32);
    let cases: [Case<'_>; 7] = [
        (&plain, &[], None, 0),
        (&plain, &weak, Some("insufficient_privilege"), 77),
        (&owned, &[], Some("role_missing"), 1),
        (&extended, &[], None, 0),
        // Restricted: without owners, and by a role that is not a superuser.
        (&owned, &allowed, None, 0),
        (&extended, &allowed, Some("insufficient_privilege"), 77),
        (&plain, &no_roles, Some("insufficient_privilege"), 77),
    ];
    for (i, (dump, settings, reason, exit)) in cases.into_iter().enumerate() {
        let what = format!("case {i}: {settings:?}");
        let (code, findings) = foretold(&c, settings, dump);
        let blocks = findings.iter().filter(|f| f["level"] == "blocks");
        let first = blocks.map(|f| f["reason"].as_str().unwrap()).next();
        assert_eq!(first, reason, "{what}: {findings:?}");
        assert_eq!(code, Some(i32::from(reason.is_some())), "{what}");
        let (code, result) = restored(&c, settings, dump, &format!("app{i}"));
        assert_eq!(
            result["error"]["reason"].as_str(),
            reason,
            "{what}: {result}"
        );
        assert_eq!(code, Some(exit), "{what}");
    }
    let (_, findings) = foretold(&c, &weak, &plain);
    assert_eq!(findings[0]["fix"], "ALTER ROLE \"weak\" CREATEDB");
    says_why_it_is_restricted(&c, &allowed, (&owned, &folder));
    says_that_a_cut_backup_is_bad(&c, &plain);
    says_what_made_it_slower(&c);
}

/// What is counted of the load, and not of creating the database.
fn says_what_made_it_slower(c: &Cluster) {
    let text = c.dump_to_file("plain", &["-Fp"]);
    let (_, result) = restored(c, &[], &text, "undisturbed");
    assert_eq!(result["advice"], Value::Null, "{result}");
    let text = std::fs::read_to_string(text).unwrap();
    let mark = "--\n-- PostgreSQL database dump complete";
    // Some more WAL than two checkpoints take with the smallest limit. As a statement of the text, CHECKPOINT would be skipped.
    // The server counts one when the next one begins.
    let wal = "PERFORM pg_logical_emit_message(false, 'w', repeat('x', 1 << 20)) FROM generate_series(1, 50); ";
    let all = "EXECUTE 'CHECKPOINT'; ".repeat(3);
    let checkpoints = format!("DO $$ BEGIN {wal}{all}END $$;\n\n{mark}");
    let disturbed = c.scratch("disturbed.sql");
    std::fs::write(&disturbed, text.replace(mark, &checkpoints)).unwrap();
    let (code, result) = restored(c, &[], &disturbed, "disturbed");
    assert_eq!(code, Some(0), "{result}");
    let advice = &result["advice"][0];
    assert_eq!(advice["setting"], "max_wal_size", "{result}");
    assert_eq!(advice["value"], "32MB", "{result}");
    assert_eq!(advice["suggested"], "4GB", "{result}");
}

/// Whatever the target has, a backup that is cut off is not one to rely on, and a restore of it fails.
fn says_that_a_cut_backup_is_bad(c: &Cluster, archive: &Path) {
    let text = c.dump_to_file("plain", &["-Fp"]);
    let [archive, text] = [archive, &text].map(|file| std::fs::read(file).unwrap());
    let mark = memchr::memmem::rfind(&text, b"-- PostgreSQL database dump complete");
    for (bytes, level) in [
        (&archive[..archive.len() - 3], "blocks"),
        (&text[..mark.unwrap()], "warns"),
    ] {
        let cut = c.scratch(&format!("cut-{level}"));
        std::fs::write(&cut, bytes).unwrap();
        let (code, findings) = foretold(c, &[], &cut);
        assert_eq!(code, Some(65), "{findings:?}");
        assert_eq!(findings[0]["reason"], "archive_corrupt", "{findings:?}");
        assert_eq!(findings[0]["level"], level, "{findings:?}");
        let (code, result) = restored(c, &[], &cut, "cut");
        assert_eq!(code, Some(65), "{result}");
    }
}

/// Both say which setting would keep the owners.
fn says_why_it_is_restricted(c: &Cluster, allowed: Settings<'_>, (dump, folder): (&Path, &str)) {
    let change = format!("add {folder} to TRUSTED_SOURCES");
    let (_, findings) = foretold(c, allowed, dump);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0]["fix"].as_str().unwrap().contains(&change),
        "{findings:?}"
    );
    let (_, result) = restored(c, allowed, dump, "restricted");
    let notes = result["notes"].as_array().unwrap();
    let note = notes.iter().find(|n| n.as_str().unwrap().contains(&change));
    assert!(note.is_some(), "{notes:?}");
}

/// Before the disk of the server is full, where the role may ask how full it is.
#[test]
fn a_full_disk_is_insufficient_space() {
    let c = Cluster::start();
    c.psql("postgres", "CREATE ROLE creator LOGIN CREATEDB");
    c.create("src", "CREATE TABLE t (a int)");
    let dump = c.dump_to_file("src", &["--no-owner"]);
    let full = [("RESTORE_MIN_FREE_MIB", "1000000000")];
    let (code, findings) = foretold(&c, &full, &dump);
    assert_eq!((code, findings.len()), (Some(1), 1), "{findings:?}");
    assert_eq!(findings[0]["reason"], "insufficient_space");
    let (code, result) = restored(&c, &full, &dump, "app");
    let error = &result["error"];
    assert_eq!(code, Some(1), "{result}");
    assert_eq!(error["reason"], "insufficient_space", "{result}");
    assert_eq!(error["blame"], "target", "{result}");
    assert_eq!(c.databases(), ["postgres", "src", "template0", "template1"]);
    for settings in [
        &[("RESTORE_MIN_FREE_MIB", "0")][..],
        &[full[0], ("DB_USER", "creator"), ("RESTORE_OWNERS", "none")],
    ] {
        let (code, result) = restored(&c, settings, &dump, "app");
        assert_eq!(code, Some(0), "{settings:?}: {result}");
        c.psql("postgres", "DROP DATABASE app");
    }
}

#[test]
fn a_missing_maintenance_database_is_a_configuration_mistake() {
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (a int)");
    let dump = c.dump_to_file("src", &[]);
    let file = dump.to_str().unwrap();
    let bucket = format!("file://{}", dump.parent().unwrap().display());
    let nowhere = [
        ("DB_MAINTENANCE_NAME", "nowhere"),
        ("BACKUP_BUCKET", &bucket),
    ];
    for args in [
        &["restore", file, "--target", "app"][..],
        &["inspect", file, "--against"],
        &["doctor"],
        &["reap"],
    ] {
        let out = run(&c, &nowhere, args);
        let said = text(&out.stdout) + &text(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{args:?}: {said}");
        let fix = "database \"nowhere\" does not exist [3D000]: name a database of this server in DB_MAINTENANCE_NAME";
        assert!(said.contains(fix), "{args:?}: {said}");
    }
    let (_, result) = restored(&c, &nowhere, &dump, "app");
    assert_eq!(result["error"]["blame"], "infrastructure", "{result}");
}
