//! The command line: exit codes, JSON output, configuration errors, escaping.

use std::process::{Command, Output};

pub fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command.args(args).env_clear().envs(env.iter().copied());
    command.output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn exit_codes_match_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("file://{}", dir.path().display());
    std::fs::write(dir.path().join("bad.dump"), b"PGDMP\x01\x10").unwrap();
    std::fs::write(dir.path().join("text.dump"), b"-- PostgreSQL database dump").unwrap();
    let bucket = [("BACKUP_BUCKET", folder.as_str())];
    for (args, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&["check"], 0),
        (&["list"], 0),
        (&["nonsense"], 2),
        (&["restore"], 2),
        (&["schema", "nonsense"], 2),
        (&["inspect", "bad.dump"], 65),
        (&["inspect", "text.dump"], 65),
        (&["inspect", "missing.dump"], 1),
        (&["inspect", "latest@soon"], 2),
        (&["restore", "bad.dump"], 2),
        (&["restore", "bad.dump", "--target", "postgres"], 1),
        (&["promote", "copy"], 2),
        (&["promote", "copy", "--to", "postgres"], 1),
        (&["promote", "postgres", "--to", "copy"], 1),
        (
            &[
                "restore",
                "bad.dump",
                "--target",
                "app",
                "--db-host",
                "/nowhere",
                "--retry-budget",
                "10ms",
            ],
            69,
        ),
        (&["worker"], 78),
        (&["request", "x.dump"], 78),
        (&["list", "--backup-bucket", "file:///nowhere/at/all"], 1),
        (&["report", "--backup-bucket", "file:///nowhere/at/all"], 1),
        (&["report", "--since", "1x"], 2),
        (&["evidence", "verify", "/no/such/file"], 2),
        (&["evidence", "verify", "/proc/version"], 65),
    ] {
        let out = run(args, &bucket);
        assert_eq!(
            out.status.code(),
            Some(code),
            "{args:?}: {}{}",
            text(&out.stdout),
            text(&out.stderr)
        );
    }
}

#[test]
fn all_configuration_errors_are_reported_without_values() {
    let env = [
        ("DB_PORT", "hunter2"),
        ("DB_AUTH", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
        ("LOG_FORMAT", "hunter2"),
        ("BACKUP_TRUST", "hunter2"),
        ("BACKUP_USER_PROJECT", "hunter2!"),
        ("DB_SSLMODE", "hunter2"),
        ("RESTORE_COPY_FORMAT", "hunter2"),
        ("RESTORE_EXTENSIONS", "hunter2"),
        ("RESTORE_ON_ERROR", "hunter2"),
        ("RESTORE_PROFILE", "hunter2"),
        ("RESTORE_REHEARSE", "hunter2"),
        ("RESTORE_SWAP_WHEN_IDLE", "hunter2"),
        ("RESTORE_IN_PLACE", "hunter2"),
        ("RESTORE_OWNERS", "hunter2"),
        ("RESTORE_REQUIRE_COMPLETE", "hunter2"),
        ("SCRATCH_DB_HOST", "other"),
        ("SCRATCH_DB_SSLMODE", "hunter2"),
        ("SCRATCH_DB_TRUST", "hunter2"),
        ("RESTORE_TIMEOUT", "hunter2"),
        ("ADMIN_ADDR", "hunter2"),
        ("DB_PASSWORD_FILE", "/no/such/file"),
        ("VERIFY_DEPTH", "hunter2"),
        ("VERIFY_CHECKS", "/no/such/file"),
        ("VERIFY_OLDER", "hunter2"),
        ("VERIFY_SCHEDULE", "hunter2"),
        ("BACKUP_SETS", "hunter2"),
        ("EVIDENCE_LOCATION", "Hunter2"),
        ("EVIDENCE_SIGNING_KEY_FILE", "/no/such/file"),
        ("SANDBOX_ISOLATION", "hunter2"),
        ("SANDBOX_PRELOAD_LIBRARIES", "/hunter2"),
    ];
    let out = run(&["check"], &env);
    assert_eq!(out.status.code(), Some(78));
    let output = text(&out.stderr);
    for (variable, _) in env.iter().filter(|(_, value)| *value != "other") {
        let named = format!("  {variable}: ");
        assert!(output.contains(&named), "{variable}: {output}");
    }
    assert!(!output.contains("hunter2"), "{output}");
    let allowed = "LOG_LEVEL: must be error, warn, info, debug, trace or off";
    assert!(output.contains(allowed), "{output}");
    let worker = text(&run(&["worker"], &env).stderr);
    assert!(
        worker.contains("GOOGLE_CLOUD_PROJECT") && worker.contains("DB_PORT"),
        "{worker}"
    );
}

#[test]
fn check_never_shows_a_secret() {
    let out = run(
        &["check", "--output", "json"],
        &[("DB_PASSWORD", "hunter2"), ("DB_NAME", "app")],
    );
    let shown = text(&out.stdout);
    assert!(!shown.contains("hunter2") && !text(&out.stderr).contains("hunter2"));
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (shown["db_password"].as_str(), shown["db_name"].as_str()),
        (Some("set"), Some("app"))
    );
}

#[test]
fn list_and_inspect_print_one_document_that_matches_its_schema() {
    let fixtures = concat!("file://", env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
    let bucket = [("BACKUP_BUCKET", fixtures)];
    let schema = |name: &str| {
        let (_, s) = pgrestored::cli::schemas()
            .into_iter()
            .find(|(n, _)| *n == name)
            .unwrap();
        jsonschema::draft202012::new(s.as_value()).unwrap()
    };
    let listed: serde_json::Value =
        serde_json::from_slice(&run(&["list", "--output", "json"], &bucket).stdout).unwrap();
    assert!(schema("backup-list").is_valid(&listed), "{listed}");
    let zstd = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|b| b["name"] == "shop18.zstd.dump")
        .unwrap();
    assert_eq!(zstd["size"], 209125);
    assert!(zstd["checksum"].as_str().unwrap().ends_with("=="));
    let out = run(
        &["inspect", "shop18.zstd.dump", "--output", "json"],
        &bucket,
    );
    let seen: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(schema("inspection").is_valid(&seen), "{seen}");
    assert_eq!(
        (
            seen["compression"].as_str(),
            seen["archive_version"].as_str()
        ),
        (Some("zstd"), Some("1.16.0"))
    );
    assert_eq!(seen["has_offsets"], true);
}

/// Of an archive with the offsets of its data, the last table has a size, too, and a missing end is remarked.
#[test]
fn inspect_shows_every_size_and_a_missing_end() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.zstd.dump"
    );
    let bytes = std::fs::read(fixture).unwrap();
    for (name, kept) in [("whole.dump", bytes.len()), ("cut.dump", bytes.len() - 12)] {
        let file = folder.path().join(name);
        std::fs::write(&file, &bytes[..kept]).unwrap();
        let out = run(
            &["inspect", file.to_str().unwrap(), "--output", "json"],
            &[],
        );
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        let seen: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        let tables = seen["tables"].as_array().unwrap().iter();
        let sized = tables.filter(|t| t["stored_bytes"].is_u64()).count();
        assert_eq!(seen["entries"]["TABLE DATA"], sized, "{seen}");
        let is_cut = seen["cut_off"]
            .as_str()
            .is_some_and(|c| c.contains("is cut off"));
        assert_eq!(is_cut, name == "cut.dump", "{seen}");
    }
}

/// SQL text of `pg_dump -C`: the statements that follow CREATE DATABASE are no part of its options.
#[test]
fn inspect_shows_the_options_of_the_database_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.sql");
    let sql = "--\n-- PostgreSQL database dump\n--\n\nCREATE DATABASE \"a b\" WITH TEMPLATE = template0 ENCODING = 'UTF8' \
               LC_COLLATE = 'C' LC_CTYPE = 'C.UTF-8';\n\nALTER DATABASE \"a b\" OWNER TO postgres;\n\n\
               \\connect -reuse-previous=on \"dbname='a b'\"\n\nSELECT pg_catalog.set_config('search_path', '', false);\n\n\
               --\n-- PostgreSQL database dump complete\n--\n";
    std::fs::write(&file, sql).unwrap();
    let args = ["inspect", file.to_str().unwrap()];
    let said = text(&run(&args, &[]).stdout);
    let locale = "locale          LC_COLLATE = 'C' LC_CTYPE = 'C.UTF-8'\n";
    assert!(said.contains(locale), "{said}");
    // Compressed, it is a guess how much it is.
    let space = "space needed    about ";
    let line = |said: &str| {
        said.lines()
            .find(|l| l.starts_with(space))
            .map(str::to_owned)
    };
    assert!(line(&said).is_some_and(|l| !l.contains("if its")), "{said}");
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    let said = text(&run(&["inspect", fixture], &[]).stdout);
    let guess = "if its compressed data expands to 4 times its size";
    assert!(line(&said).is_some_and(|l| l.contains(guess)), "{said}");
}

/// A failed restore also prints the body of the result event.
#[test]
fn a_failed_restore_prints_its_result() {
    let args = [
        "restore",
        "/no/such/file.dump",
        "--target",
        "app",
        "--db-host",
        "/nowhere",
        "--retry-budget",
        "10ms",
        "--output",
        "json",
    ];
    let out = run(&args, &[]);
    let body: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(
        (body["status"].as_str(), body["error"]["reason"].as_str()),
        (Some("failure"), Some("backup_not_found"))
    );
}

/// With `--output json`, a command prints one document, also when it fails, and says why on standard error.
#[test]
fn a_failure_is_one_json_document() {
    let (failure, result) = ("command-failure", "restore-result");
    let nowhere = "file:///nowhere/at/all";
    let far = ["--db-host", "/nowhere", "--retry-budget", "10ms"];
    let rollback = [&["rollback", "app"][..], &far].concat();
    for (args, code, reason, schema) in [
        (&["restore"][..], 2, "invalid_request", failure),
        (&["restroe", "x"], 2, "invalid_request", failure),
        (&["evidence"], 2, "invalid_request", failure),
        (&["check", "--db-port", "x"], 78, "invalid_request", failure),
        (
            &["list", "--backup-bucket", nowhere],
            1,
            "backup_not_found",
            failure,
        ),
        (
            &["report", "--backup-bucket", nowhere],
            1,
            "backup_not_found",
            failure,
        ),
        (&["report", "--since", "1x"], 2, "invalid_request", failure),
        (&["prune", "--set", "nosuch"], 2, "invalid_request", failure),
        (
            &["inspect", "/no/such.dump"],
            1,
            "backup_not_found",
            failure,
        ),
        (
            &["evidence", "verify", "/no/such/file"],
            2,
            "invalid_request",
            failure,
        ),
        (&["schema", "nonsense"], 2, "invalid_request", failure),
        (&["watch", ""], 2, "invalid_request", failure),
        (&rollback[..], 69, "target_unavailable", failure),
        (
            &["status", "--url", "http://127.0.0.1:1"],
            69,
            "target_unavailable",
            failure,
        ),
        (&["restore", "x"], 2, "invalid_request", result),
        (
            &["verify", "x", "--html", "/no/such/page"],
            2,
            "invalid_request",
            result,
        ),
    ] {
        let out = run(&[args, &["--output", "json"]].concat(), &[]);
        let (shown, said) = (text(&out.stdout), text(&out.stderr));
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        let document: serde_json::Value =
            serde_json::from_str(&shown).unwrap_or_else(|e| panic!("{args:?}: {e}: {shown}{said}"));
        let mut schemas = pgrestored::cli::schemas().into_iter();
        let (_, schema) = schemas.find(|(name, _)| *name == schema).unwrap();
        let schema = jsonschema::draft202012::new(schema.as_value()).unwrap();
        assert!(schema.is_valid(&document), "{args:?}: {document}");
        assert_eq!(document["status"], "failure", "{args:?}");
        assert_eq!(document["error"]["reason"], reason, "{args:?}: {document}");
        let is_said = !said.is_empty() && !said.contains('{');
        assert!(is_said, "{args:?}: {said}");
    }
}

/// Where `DB_*` is not set, commands connect as `psql` would, and `check` says what came from where.
#[test]
fn settings_of_libpq_are_taken_where_none_are_given() {
    use std::os::unix::fs::PermissionsExt;
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join(".pgpass");
    std::fs::write(&file, "db.internal:*:*:restorer:hunter2\n").unwrap();
    let allow = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode));
    allow(0o600).unwrap();
    let env = [
        ("HOME", home.path().to_str().unwrap()),
        ("PGHOST", "db.internal"),
        ("PGUSER", "me"),
        ("DB_USER", "restorer"),
    ];
    let shown = text(&run(&["check"], &env).stdout);
    assert!(shown.contains(" db.internal (from PGHOST)\n"), "{shown}");
    assert!(
        shown.contains(" restorer\n") && !shown.contains("PGUSER"),
        "{shown}"
    );
    let out = run(&["check", "--output", "json"], &env);
    let shown: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let expected = serde_json::json!({ "db_host": "PGHOST", "db_password": file });
    assert_eq!(shown["db_taken_from"], expected);
    assert!(!text(&out.stdout).contains("hunter2"));
    allow(0o644).unwrap();
    let out = run(&["check"], &env);
    let said = text(&out.stderr);
    assert!(
        out.status.success() && said.contains("is ignored"),
        "{said}"
    );
    assert!(
        said.contains("chmod 600") && !said.contains("hunter2"),
        "{said}"
    );
    // A worker takes only its own variables.
    let service = [("PGSERVICE", "hunter2"), ("PGSERVICEFILE", "/no/such/file")];
    let out = run(&["check"], &service);
    assert_eq!(out.status.code(), Some(78));
    let said = text(&out.stderr);
    assert!(
        said.contains("PGSERVICE") && !said.contains("hunter2"),
        "{said}"
    );
    assert!(!text(&run(&["worker"], &service).stderr).contains("PGSERVICE"));
}

/// A server that does not respond, or never answers, is reported within seconds, with the settings that name it.
#[test]
fn an_unreachable_server_is_reported_within_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port_of = |l: &std::net::TcpListener| l.local_addr().unwrap().port().to_string();
    let closed = port_of(&std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    for port in [port_of(&silent), closed] {
        let started = tokio::time::Instant::now();
        let env = [("PGHOST", "127.0.0.1"), ("DB_PORT", port.as_str())];
        let out = run(&["rollback", "app"], &env);
        let (took, said) = (started.elapsed().as_secs(), text(&out.stderr));
        assert_eq!(out.status.code(), Some(69), "{said}");
        let advice = format!(
            "no server responds at 127.0.0.1:{port}: check that it is running, and PGHOST and DB_PORT"
        );
        assert!(said.contains(&advice), "{said}");
        assert!(took < 15, "{took} s");
    }
}

/// A bucket, topic or subscription of a service that does not answer is reported within seconds.
#[test]
fn an_unreachable_service_is_reported_within_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address_of = |l: &std::net::TcpListener| l.local_addr().unwrap().to_string();
    let closed = address_of(&std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    for host in [address_of(&silent), closed] {
        let env = [
            ("STORAGE_EMULATOR_HOST", host.as_str()),
            ("PUBSUB_EMULATOR_HOST", &host),
            ("GOOGLE_CLOUD_PROJECT", "test"),
        ];
        for (args, advice) in [
            (&["list"][..], "check STORAGE_EMULATOR_HOST"),
            (
                &["request", "x.dump", "--target", "app"],
                "PUBSUB_EMULATOR_HOST",
            ),
        ] {
            let started = tokio::time::Instant::now();
            let out = run(args, &env);
            let (took, said) = (started.elapsed().as_secs(), text(&out.stderr));
            assert_eq!(out.status.code(), Some(69), "{args:?}: {said}");
            assert!(said.contains(advice), "{args:?}: {said}");
            assert!(took < 15, "{args:?}: {took} s");
        }
    }
}

/// Nobody waits for further attempts to reach an emulator that is not there.
#[test]
fn an_emulator_that_is_not_there_is_reported_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let reported = || {
        let started = tokio::time::Instant::now();
        let out = run(&["list"], &[("STORAGE_EMULATOR_HOST", host.as_str())]);
        assert_eq!(out.status.code(), Some(69), "{}", text(&out.stderr));
        started.elapsed()
    };
    // This machine may be busy for a moment.
    let took: Vec<_> = (0..3).map(|_| reported()).collect();
    assert!(took.iter().any(|t| t.as_millis() < 1_000), "{took:?}");
}

/// Credentials that cannot be used are reported with how to get some; here, the file that should have them is missing.
#[test]
fn missing_credentials_are_reported_within_seconds() {
    let env = [
        ("GOOGLE_APPLICATION_CREDENTIALS", "/no/such/file"),
        ("GOOGLE_CLOUD_PROJECT", "test"),
    ];
    for args in [
        &["list", "--backup-bucket", "some-backups"][..],
        &["request", "x.dump", "--target", "app"],
        &["watch", "some-request"],
    ] {
        let out = run(args, &env);
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(77), "{args:?}: {said}");
        assert!(
            said.contains("gcloud auth application-default login"),
            "{args:?}: {said}"
        );
    }
}

/// Without a metadata server that issues a token, nothing is sent to the target server, and the person learns what is
/// missing.
#[test]
fn a_missing_login_token_is_reported_within_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address_of = |l: &std::net::TcpListener| l.local_addr().unwrap().to_string();
    let closed = address_of(&std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = target.local_addr().unwrap().port().to_string();
    for host in [address_of(&silent), closed] {
        let started = tokio::time::Instant::now();
        let env = [
            ("DB_AUTH", "gcp-iam"),
            ("DB_HOST", "127.0.0.1"),
            ("DB_PORT", &port),
            ("DB_USER", "pgrestored@my-project.iam"),
            ("DB_SSLMODE", "require"),
            ("GCE_METADATA_HOST", &host),
        ];
        let out = run(&["rollback", "app"], &env);
        let (took, said) = (started.elapsed().as_secs(), text(&out.stderr));
        assert_eq!(out.status.code(), Some(77), "{said}");
        for part in [
            "no access token to log in with (DB_AUTH): ",
            "run as a service account",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("check DB_"), "{said}");
        assert!(took < 15, "{took} s");
    }
    target.set_nonblocking(true).unwrap();
    assert!(target.accept().is_err(), "the target server was contacted");
}

/// Verifications must not run on the target server.
#[test]
fn the_scratch_server_must_not_be_the_target() {
    let out = run(&["check"], &[("SCRATCH_DB_HOST", "localhost")]);
    assert_eq!(out.status.code(), Some(78));
    assert!(text(&out.stderr).contains("SCRATCH_DB_HOST: must not be the target server"));
    assert!(
        run(
            &["check"],
            &[
                ("SCRATCH_DB_HOST", "localhost"),
                ("SCRATCH_DB_PORT", "5433")
            ]
        )
        .status
        .success()
    );
}

/// Documents that the configuration names are read at the start, not only when they are needed.
#[test]
fn an_invalid_checks_file_or_key_is_reported_at_the_start() {
    let scratch = tempfile::tempdir().unwrap();
    let (checks, key) = (
        scratch.path().join("checks.yaml"),
        scratch.path().join("key.pem"),
    );
    std::fs::write(&checks, "assertions: [{name: a, sql: SELECT 1}]").unwrap();
    std::fs::write(&key, "no key").unwrap();
    let env = [
        ("VERIFY_CHECKS", checks.to_str().unwrap()),
        ("EVIDENCE_SIGNING_KEY_FILE", key.to_str().unwrap()),
        ("GOOGLE_CLOUD_PROJECT", "test"),
    ];
    for command in [&["check"][..], &["worker"], &["verify", "latest"]] {
        let out = run(command, &env);
        let output = text(&out.stderr);
        assert_eq!(out.status.code(), Some(78), "{command:?}: {output}");
        assert!(
            output.contains("VERIFY_CHECKS") && output.contains("EVIDENCE_SIGNING_KEY"),
            "{output}"
        );
    }
}

#[test]
fn completions_and_man_pages_cover_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = run(&["man", folder.path().to_str().unwrap()], &[]);
    assert!(out.status.success(), "{}", text(&out.stderr));
    let shells: Vec<String> = ["bash", "zsh", "fish", "elvish", "powershell"]
        .map(|shell| text(&run(&["completions", shell], &[]).stdout))
        .to_vec();
    let help = text(&run(&["-h"], &[]).stdout);
    let commands = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Output:")
        .next()
        .unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands.into_iter().filter(|c| *c != "help") {
        let page = folder.path().join(format!("pgrestored-{command}.1"));
        assert!(page.exists(), "no man page for {command}");
        assert!(shells.iter().all(|s| s.contains(command)), "{command}");
        let long = text(&run(&[command, "--help"], &[]).stdout);
        let page = std::fs::read_to_string(page).unwrap();
        for name in ["DB_PASSWORD", "RESTORE_OWNERS", "BACKUP_BUCKET"] {
            assert!(
                long.contains(name) && page.contains(name),
                "{command}: {name}"
            );
        }
    }
    // Also what `-h` of the command hides.
    let page = std::fs::read_to_string(folder.path().join("pgrestored-restore.1")).unwrap();
    assert!(
        page.contains("Only this generation of the object"),
        "{page}"
    );
}

/// What is too much for a screen of 100 columns and 40 lines, which `-h` fits; `--help` has the rest. If a new option does
/// not fit, hide it or a rarer one with `hide_short_help`.
pub fn too_long(help: &str) -> Option<String> {
    let lines = help.lines().count();
    let width = help.lines().map(|l| l.chars().count()).max();
    (lines == 0 || lines > 40 || width > Some(100)).then(|| format!("{lines} lines:\n{help}"))
}

/// With those of `snapshots`, the short help of every command.
#[test]
fn short_help_fits_a_screen() {
    let cli = <pgrestored::cli::Cli as clap::CommandFactory>::command();
    let mut commands = vec![vec![]];
    for command in cli.get_subcommands().filter(|c| !c.is_hide_set()) {
        commands.push(vec![command.get_name().to_owned()]);
        let inner = command.get_subcommands().map(|c| c.get_name().to_owned());
        commands.extend(inner.map(|name| vec![command.get_name().to_owned(), name]));
    }
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let recorded = &crate::snapshots::COMMANDS;
        if command.len() == 1 && recorded.contains(&command[0].as_str()) {
            continue;
        }
        let args: Vec<&str> = command.iter().map(String::as_str).chain(["-h"]).collect();
        let help = text(&run(&args, &[]).stdout);
        assert_eq!(too_long(&help), None, "{command:?}");
    }
}

#[test]
fn the_help_command_takes_the_options_of_help() {
    for (asked, same) in [
        (&["help", "-h"][..], &["-h"][..]),
        (&["help", "--help"], &["--help"]),
        (&["help", "restore", "-h"], &["restore", "-h"]),
        (
            &["evidence", "help", "verify", "--help"],
            &["evidence", "verify", "--help"],
        ),
    ] {
        let (out, wanted) = (run(asked, &[]), run(same, &[]));
        assert_eq!(
            out.status.code(),
            Some(0),
            "{asked:?}: {}",
            text(&out.stderr)
        );
        assert!(wanted.stdout.len() > 100);
        assert_eq!(text(&out.stdout), text(&wanted.stdout), "{asked:?}");
    }
}

#[test]
fn short_help_is_grouped_by_topic() {
    let headings = |command: &str| -> Vec<String> {
        let help = text(&run(&[command, "-h"], &[]).stdout);
        let all = help
            .lines()
            .filter(|l| l.ends_with(':') && !l.starts_with(' '));
        all.map(|l| l.trim_end_matches(':').to_owned()).collect()
    };
    assert_eq!(
        headings("restore"),
        [
            "Arguments",
            "Target",
            "Selection",
            "Policy",
            "Output",
            "Examples"
        ]
    );
    assert_eq!(
        headings("list"),
        ["Selection", "Source", "Output", "Example"]
    );
}

/// The environment does not make options look required.
#[test]
fn usage_lines_do_not_depend_on_the_environment() {
    let env = [
        ("BACKUP_BUCKET", "file:///nowhere"),
        ("DB_HOST", "/nowhere"),
    ];
    let out = run(&["restore"], &env);
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(2), "{said}");
    assert!(
        said.contains("Usage: pgrestored restore [OPTIONS] <BACKUP>\n"),
        "{said}"
    );
}

/// JSON lines carry request and trace at every log level; that of this command is `warn`.
#[test]
fn log_lines_carry_request_and_trace() {
    let args = [
        "restore",
        "none.dump",
        "--target",
        "x",
        "--request-id",
        "r9",
        "--retry-budget",
        "10ms",
        "--log-format",
        "json",
    ];
    let out = run(&args, &[("DB_HOST", "/nowhere")]);
    let output = text(&out.stderr);
    let line = output
        .lines()
        .find(|l| l.contains("the restore failed"))
        .unwrap_or_else(|| panic!("{output}"));
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["request_id"], "r9");
    assert!(
        line["trace_id"].as_str().is_some_and(|t| t.len() == 32),
        "{line}"
    );
}

/// A person's command says once what went wrong, also without a terminal. The log of a worker is JSON there.
#[test]
fn logs_of_commands_are_for_people() {
    let args = [
        "restore",
        "./none.dump",
        "--target",
        "x",
        "--retry-budget",
        "10ms",
    ];
    let out = run(&args, &[("DB_HOST", "/nowhere")]);
    let (said, log) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(1), "{said}{log}");
    // Standard output has results only.
    assert_eq!(said, "");
    assert!(log.starts_with("not restored: "), "{log}");
    let is_said_again = |l: &str| l.starts_with('{') || l.contains("the restore failed");
    assert!(!log.lines().any(is_said_again), "{log}");
}

/// A command in a folder with the file `app.dump`, without any configuration.
fn in_folder_of_a_dump(args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().unwrap();
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    std::fs::copy(dump, folder.path().join("app.dump")).unwrap();
    std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .args(args)
        .current_dir(folder.path())
        .env_clear()
        .env("EVIDENCE_LOCATION", "none")
        .output()
        .unwrap()
}

/// Without a bucket, a name is that of a file in the current folder.
#[test]
fn a_local_file_needs_no_path() {
    let out = in_folder_of_a_dump(&["inspect", "app.dump"]);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("BACKUP_BUCKET is not set: taking the file ./app.dump"));
}

/// `inspect` also writes a page, with what names of the backup contain as text.
#[test]
fn an_inspection_can_be_read_as_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    std::fs::copy(dump, folder.path().join("<b>.dump")).unwrap();
    let bucket = format!("file://{}", folder.path().display());
    let file = folder.path().join("page.html");
    let out = run(
        &["inspect", "<b>.dump", "--html", file.to_str().unwrap()],
        &[("BACKUP_BUCKET", bucket.as_str())],
    );
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let page = std::fs::read_to_string(file).unwrap();
    for part in [
        "&lt;b&gt;.dump",
        "shop.orders",
        "Extensions",
        "id=\"tables\"",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(
        !page.contains("<b>.dump") && !page.contains("<script"),
        "{page}"
    );
}

/// `list` has a header, and says of each backup how far it was proven.
#[test]
fn a_listing_shows_which_backups_were_verified() {
    let folder = tempfile::tempdir().unwrap();
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    for name in ["a.dump", "b.dump"] {
        std::fs::copy(dump, folder.path().join(name)).unwrap();
    }
    let bucket = format!("file://{}", folder.path().display());
    let env = [("BACKUP_BUCKET", bucket.as_str())];
    let out = run(&["verify", "a.dump", "--depth", "archive"], &env);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let listed = text(&run(&["list"], &env).stdout);
    let lines: Vec<&str> = listed.lines().collect();
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(lines[0]),
        ["CREATED", "SIZE", "CRC32C", "DATABASE", "PROOF", "NAME"]
    );
    assert!(lines[1].contains("  demo      verified "), "{listed}");
    assert!(
        lines[1].contains("verified (archive) ") && lines[1].ends_with(" a.dump"),
        "{listed}"
    );
    assert!(
        lines[2].contains(" none ") && lines[2].ends_with(" b.dump"),
        "{listed}"
    );
    let json: serde_json::Value =
        serde_json::from_slice(&run(&["list", "--output", "json"], &env).stdout).unwrap();
    assert_eq!(json[0]["proof"]["verdict"], "verified");
    assert_eq!(json[0]["proof"]["is_signed"], false);
    assert!(json[1].get("proof").is_none(), "{json}");
    // One is known by its evidence, the other by its first bytes.
    for backup in json.as_array().unwrap() {
        assert_eq!(backup["database"], "demo", "{json}");
    }
    let reported = text(&run(&["report"], &env).stdout);
    for part in [
        "1 verification from ",
        "1 verified (0 restored, 1 only read), 0 failed, 0 inconclusive\n",
        "  DATABASE  BACKUP\n",
        "  demo      a.dump\n",
    ] {
        assert!(reported.contains(part), "{part}: {reported}");
    }
}

/// Nothing is configured: no bucket is asked for evidence of standard input, and the answer says that there is none.
#[test]
fn standard_input_needs_no_bucket() {
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    let out = Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .args(["verify", "-", "--depth", "archive"])
        .env_clear()
        .stdin(std::fs::File::open(dump).unwrap())
        .output()
        .unwrap();
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(0), "{said}{}", text(&out.stderr));
    assert!(said.starts_with("verified: standard input"), "{said}");
    assert!(said.contains("note: no evidence was written: "), "{said}");
}

/// The verdict stays, and the exit code says that what was asked for was not done.
#[test]
fn evidence_that_cannot_be_written_is_no_success() {
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    let nowhere = [("EVIDENCE_LOCATION", "file:///dev/null/evidence")];
    let out = run(&["verify", dump, "--depth", "archive"], &nowhere);
    let (said, log) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(out.status.code(), Some(69), "{said}{log}");
    assert!(said.starts_with("verified: "), "{said}");
    assert!(
        said.contains("note: the evidence was not written: "),
        "{said}"
    );
    assert!(
        log.contains("set EVIDENCE_LOCATION to another one"),
        "{log}"
    );
}

/// What was not read is not counted: an object that nobody opened has no number of tables.
#[test]
fn a_summary_counts_only_what_was_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cut.dump"), b"PGDMP\x01\x10").unwrap();
    let dump = folder.path().join("cut.dump");
    let none = [("EVIDENCE_LOCATION", "none")];
    for (depth, code) in [("object", 0), ("archive", 1)] {
        let out = run(&["verify", dump.to_str().unwrap(), "--depth", depth], &none);
        let said = text(&out.stdout);
        assert_eq!(out.status.code(), Some(code), "{said}");
        assert!(!said.contains("0 tables"), "{said}");
    }
}

/// Files for reports are checked before the work, and errors name them.
#[test]
fn files_that_cannot_be_written_are_found_before_the_work() {
    for flag in ["--html", "--junit", "--report"] {
        let args = [
            "verify",
            "./app.dump",
            "--depth",
            "archive",
            flag,
            "/no/such/file",
        ];
        let out = in_folder_of_a_dump(&args);
        assert_eq!(out.status.code(), Some(2), "{}", text(&out.stderr));
        assert!(text(&out.stderr).contains("/no/such/file cannot be written: "));
        assert!(out.stdout.is_empty(), "{}", text(&out.stdout));
    }
}

/// A reader that ends early, such as `head`, is no error.
#[test]
fn a_closed_pipe_is_no_error() {
    for args in [
        &["completions", "bash"][..],
        &["schema", "restore-request"],
        &["--help"],
    ] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"))
            .args(args)
            .env_clear()
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(text(&out.stderr), "", "{args:?}");
        assert_eq!(out.status.code(), Some(0), "{args:?}");
    }
}

/// The pieces that `split` wrote are one backup.
#[test]
fn pieces_are_one_backup() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = format!("file://{}", folder.path().display());
    let bucket = [("BACKUP_BUCKET", bucket.as_str())];
    let json = |args: &[&str]| -> serde_json::Value {
        let out = run(&[args, &["--output", "json"]].concat(), &bucket);
        serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e} {}", text(&out.stderr)))
    };
    let fixture = |name: &str| {
        let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read(path).unwrap()
    };
    let put = |prefix: &str, counts: &[&str], bytes: &[u8]| {
        for (count, piece) in counts
            .iter()
            .zip(bytes.chunks(bytes.len().div_ceil(counts.len())))
        {
            std::fs::write(folder.path().join(format!("{prefix}{count}")), piece).unwrap();
        }
    };
    let custom = fixture("v15.custom.dump");
    put("x.dump.", &["aa", "ab", "ac"], &custom);
    // Its table of contents is not the first member, so a separate pass finds it first.
    let mut tar = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&fixture("v15.directory.tar.gz")[..]),
        &mut tar,
    )
    .unwrap();
    put("d.tar.part-", &["0001", "0002", "0003", "0004"], &tar);
    std::fs::write(folder.path().join("alone.aa"), &custom).unwrap();
    let listed = json(&["list"]);
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|b| b["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alone.aa", "d.tar", "x.dump"]);
    assert_eq!(listed[2]["size"], custom.len());
    for name in ["x.dump", "x.dump.", "alone.aa", "alone"] {
        assert_eq!(json(&["inspect", name])["format"], "custom", "{name}");
    }
    // One piece is what was named.
    for piece in ["x.dump.aa", "x.dump.ac"] {
        let out = run(&["inspect", piece], &bucket);
        let said = text(&out.stderr);
        let advice = format!("{piece} is one piece of x.dump: restore x.dump");
        assert!(said.contains(&advice), "{said}");
    }
    assert_eq!(json(&["inspect", "d.tar"])["format"], "directory in a tar");
    std::fs::remove_file(folder.path().join("x.dump.ab")).unwrap();
    let out = run(&["inspect", "x.dump"], &bucket);
    assert_eq!(out.status.code(), Some(65));
    assert!(
        text(&out.stderr).contains("the piece x.dump.ab is missing"),
        "{}",
        text(&out.stderr)
    );
}

/// If a backup is not found but a local file has its name, the error says how to name the file.
#[test]
fn a_file_in_the_current_folder_is_suggested() {
    let (here, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let fixture = format!(
        "{}/tests/fixtures/v15.custom.dump",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::copy(&fixture, here.path().join("app.dump")).unwrap();
    std::os::unix::fs::symlink(&fixture, here.path().join("link.dump")).unwrap();
    let place = format!("file://{}", bucket.path().display());
    let run_here = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
        let out = command
            .args(args)
            .env("BACKUP_BUCKET", &place)
            .current_dir(here.path())
            .output()
            .unwrap();
        (out.status.code(), text(&out.stdout) + &text(&out.stderr))
    };
    let (code, output) = run_here(&["inspect", "app.dump"]);
    assert_ne!(code, Some(0));
    assert!(output.contains("write ./app.dump"), "{output}");
    assert!(
        run_here(&["verify", "app.dump"])
            .1
            .contains("write ./app.dump")
    );
    assert!(!run_here(&["inspect", "other.dump"]).1.contains("write ./"));
    assert_eq!(run_here(&["inspect", "./app.dump"]).0, Some(0));
    // A link given as a path is followed; a link in a folder of backups is not.
    assert_eq!(run_here(&["inspect", "./link.dump"]).0, Some(0));
    let (code, output) = run_here(&[
        "inspect",
        &format!("file://{}/link.dump", here.path().display()),
    ]);
    assert_ne!(code, Some(0));
    assert!(output.contains("points outside the folder"), "{output}");
}

/// Control characters in names, flags and damaged files are escaped in the output.
#[test]
fn output_contains_no_control_characters() {
    let dir = tempfile::tempdir().unwrap();
    let folder = format!("file://{}", dir.path().display());
    std::fs::write(
        dir.path().join("a\u{1b}]0;owned\u{7}\u{9b}2J.dump"),
        b"PGDMP",
    )
    .unwrap();
    let odd = "x\u{1b}[2J\nok: restored";
    let bucket = [("BACKUP_BUCKET", folder.as_str())];
    for args in [
        &["list"][..],
        &["list", "--output", "json"],
        &["inspect", odd],
        &["inspect", &format!("./{odd}")],
        &["restore", "a.dump", "--target", odd],
        &["restore", "a.dump", "--target", "app", "--request-id", odd],
        &["restore", "a.dump", "--target", "app", "--table", odd],
        &["rollback", odd],
        &["promote", odd, "--to", "app"],
        &["verify", odd],
        &["status", "--url", odd],
        &["schema", odd],
        &["check", "--backup-bucket", odd],
        &["check", "--db-name", odd],
        &["evidence", "verify", odd],
    ] {
        let out = run(args, &bucket);
        let shown = text(&out.stdout) + &text(&out.stderr);
        assert!(
            !shown.chars().any(|c| c.is_control() && c != '\n'),
            "{args:?}: {shown:?}"
        );
        assert!(
            !shown.lines().any(|l| l.starts_with("ok: restored")),
            "{args:?}: {shown:?}"
        );
    }
    assert!(
        text(&run(&["list"], &bucket).stdout).contains("owned"),
        "the backup is listed"
    );
}

/// Evidence about a directory dump covers all of its files.
#[test]
fn evidence_about_a_directory_is_checked_against_every_file() {
    use base64::Engine;
    let base64 = base64::engine::general_purpose::STANDARD;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("night")).unwrap();
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/v15.directory.tar.gz"
    );
    let unpacked = Command::new("tar")
        .args(["-xzf", fixture, "-C"])
        .arg(path("night"))
        .status();
    assert!(unpacked.unwrap().success());
    let bucket = format!("file://{}", folder.path().display());
    let env = [("BACKUP_BUCKET", bucket.as_str())];
    let verify = ["verify", "night/", "--depth", "archive", "--output", "json"];
    let out = run(&verify, &env);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    let result: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let uri = result["verification"]["evidence"].as_str().unwrap();
    let document = uri.strip_prefix("file://").unwrap();
    // As versions wrote it that did not know of the files.
    let mut envelope: serde_json::Value =
        serde_json::from_slice(&std::fs::read(document).unwrap()).unwrap();
    let payload = base64.decode(envelope["payload"].as_str().unwrap());
    let mut statement: serde_json::Value = serde_json::from_slice(&payload.unwrap()).unwrap();
    let predicate = statement["predicate"].as_object_mut().unwrap();
    assert_eq!(predicate.remove("members").unwrap()["count"], 8);
    envelope["payload"] = base64.encode(statement.to_string()).into();
    let older = path("older.json").display().to_string();
    std::fs::write(&older, envelope.to_string()).unwrap();
    let checked = |document: &str, backup: &str| {
        let backup = path(backup).display().to_string();
        let out = run(&["evidence", "verify", document, "--backup", &backup], &[]);
        (out.status.code(), text(&out.stdout) + &text(&out.stderr))
    };
    let (code, said) = checked(document, "night");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the given backup matches"), "{said}");
    let (code, said) = checked(&older, "night");
    assert_eq!(code, Some(65), "{said}");
    assert!(said.contains("covers toc.dat alone"), "{said}");
    let (code, said) = checked(document, "night/toc.dat");
    assert_eq!(code, Some(1), "{said}");
    // What is not part of the dump does not matter.
    std::fs::write(path("night/notes.txt"), "x").unwrap();
    assert_eq!(checked(document, "night").0, Some(0));
    let (table, other) = (path("night/3387.dat.gz"), path("night/9999.dat.gz"));
    let good = std::fs::read(&table).unwrap();
    let mut bytes = good.clone();
    bytes[500] ^= 1;
    std::fs::write(&table, bytes).unwrap();
    let (code, said) = checked(document, "night");
    assert!(said.contains("the checksum of a file"), "{said}");
    assert_eq!(code, Some(1));
    std::fs::write(&table, good).unwrap();
    std::fs::rename(&table, &other).unwrap();
    let (code, said) = checked(document, "night");
    assert!(said.contains("the names or sizes of the files"), "{said}");
    assert_eq!(code, Some(1));
    std::fs::remove_file(&other).unwrap();
    let (code, said) = checked(document, "night");
    assert!(said.contains("it has 8 files, and this one 7"), "{said}");
    assert_eq!(code, Some(1));
}

/// What may be the newest backup and cannot be used is named, and no older one is taken in its place.
#[test]
fn files_that_cannot_be_used_are_named() {
    use std::os::unix::ffi::OsStrExt;
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let dump = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/shop18.gzip.dump"
    );
    std::fs::copy(dump, folder.path().join("a.dump")).unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"b-\xe9.dump");
    std::fs::copy(dump, folder.path().join(odd)).unwrap();
    let out_of_it = elsewhere.path().join("c.dump");
    std::fs::copy(dump, &out_of_it).unwrap();
    std::os::unix::fs::symlink(&out_of_it, folder.path().join("c.dump")).unwrap();
    let bucket = format!("file://{}", folder.path().display());
    let env = [("BACKUP_BUCKET", bucket.as_str())];
    let listed = run(&["list"], &env);
    let said = text(&listed.stderr);
    assert_eq!(text(&listed.stdout).lines().count(), 2, "{said}");
    for name in ["b-\\xE9.dump: its name is not", "c.dump: it is a link"] {
        assert!(said.contains(&format!("{bucket}/{name}")), "{said}");
    }
    let latest = run(&["verify", "latest", "--depth", "archive"], &env);
    let said = text(&latest.stdout) + &text(&latest.stderr);
    assert_eq!(latest.status.code(), Some(77), "{said}");
    assert!(said.contains("it may be the newest backup"), "{said}");
}
