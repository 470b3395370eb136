//! What people get wrong with a server: each mistake's exit code, and the message with what to do. The offline ones are
//! in `tests/offline/mistakes.rs`.

use std::process::Command;

use crate::support::Cluster;

/// Runs the program as a person does; exit code and output.
fn run(c: &Cluster, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    let usual = [
        ("DB_HOST", c.sandbox.host()),
        ("RETRY_BUDGET", "10ms"),
        ("EVIDENCE_LOCATION", "none"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.args(args).env_clear().env("PATH", path);
    let out = command
        .envs(usual)
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let said = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (out.status.code(), said.concat())
}

#[test]
fn mistakes_with_a_server_say_what_to_do() {
    let c = Cluster::start();
    c.psql(
        "postgres",
        "CREATE ROLE weak LOGIN; CREATE ROLE secured LOGIN PASSWORD 'right'; CREATE ROLE gone",
    );
    c.create(
        "src",
        "CREATE TABLE t (a int); INSERT INTO t VALUES (1); CREATE TABLE o (a int); ALTER TABLE o OWNER TO gone",
    );
    let dump = c.dump_to_file("src", &[]);
    let dump = dump.to_str().unwrap();
    c.psql("src", "DROP TABLE o; DROP ROLE gone");
    let rules = "local all secured scram-sha-256\nlocal all all trust";
    c.psql("postgres", &format!("COPY (SELECT rule FROM regexp_split_to_table($r${rules}$r$, E'\\n') rule) TO PROGRAM 'cat > pg_hba.conf'; SELECT pg_reload_conf()"));
    let wrong = [("DB_PASSWORD", "wrong")];
    type Mistake<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32, &'a [&'a str]);
    let mistakes: [Mistake; 7] = [
        (
            &["restore", dump, "--target", "src"],
            &[],
            1,
            &[
                "database src already exists",
                "--on-existing replace",
                "pgrestored rollback src",
            ],
        ),
        (
            &["restore", dump, "--target", "new", "--db-user", "secured"],
            &wrong,
            77,
            &["password authentication failed", "access_denied"],
        ),
        (
            &["restore", dump, "--target", "new", "--db-user", "nobody"],
            &[],
            77,
            &["role \"nobody\" does not exist"],
        ),
        (
            &["restore", dump, "--target", "new", "--db-user", "weak"],
            &[],
            77,
            &["role weak may not create databases: ALTER ROLE \"weak\" CREATEDB"],
        ),
        (
            &["restore", dump, "--target", "new"],
            &[],
            1,
            &["gone", "role_missing", "--globals globals.sql"],
        ),
        (
            &["restore", dump, "--target", "new", "--table", "nosuch"],
            &[],
            2,
            &["no table of the backup matches nosuch"],
        ),
        (&["rollback", "nosuch"], &[], 1, &["nosuch"]),
    ];
    for (args, env, exit, texts) in mistakes {
        let (code, said) = run(&c, args, env);
        assert_eq!(code, Some(exit), "{args:?}: {said}");
        for text in texts {
            assert!(said.contains(text), "{args:?}: {text}: {said}");
        }
        assert!(
            !said.lines().any(|l| l.starts_with('{')),
            "{args:?}: {said}"
        );
        assert!(!said.contains("wrong"), "{said}");
    }
    assert!(!c.databases().contains(&"new".to_owned()));
    // What cannot be checked is not verified.
    let checks = c.scratch("checks.yaml");
    let broken = "assertions: [{name: odd, sql: SELECT nosuch FROM nosuch, expect: 1}]";
    std::fs::write(&checks, broken).unwrap();
    let checks = checks.to_str().unwrap();
    let args = ["verify", dump, "--checks", checks];
    let scratch = [
        ("DB_HOST", "localhost"),
        ("SCRATCH_DB_HOST", c.sandbox.host()),
    ];
    let (code, said) = run(&c, &args, &scratch);
    assert_ne!(code, Some(0), "{said}");
    assert!(said.starts_with("inconclusive: "), "{said}");
    assert!(
        said.contains("relation \"nosuch\" does not exist"),
        "{said}"
    );
}
