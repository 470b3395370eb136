//! Entries chosen by hand: lists in the format of `pg_restore -l`, and patterns of kind and name.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pgdump_restore::UseList;
use pgrestored::error::FailureReason as R;
use pgrestored::event::RestoreResult;
use pgrestored::job::OnExisting;
use pgrestored::manager::JobOutcome;
use pgrestored::policy::Selection;

use crate::formats::DumpFormat;
use crate::support::{Cluster, assert_same, is_full_campaign, job, quick};

const SOURCE: &str = "CREATE SCHEMA shop;
CREATE TABLE shop.log (id int PRIMARY KEY, what text);
CREATE TABLE shop.orders (id serial PRIMARY KEY, log_id int CONSTRAINT fk REFERENCES shop.log, note text);
CREATE TABLE shop.\"two
lines\" (a int);
CREATE INDEX orders_note ON shop.orders (note);
CREATE VIEW shop.recent AS SELECT id, note FROM shop.orders;
CREATE VIEW shop.logged AS SELECT log.what FROM shop.log;
CREATE FUNCTION shop.watch() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
CREATE EVENT TRIGGER watcher ON ddl_command_end EXECUTE FUNCTION shop.watch();
ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON shop.orders USING (true);
COMMENT ON TABLE shop.log IS 'what happened';
GRANT SELECT ON shop.log TO role_a;
INSERT INTO shop.log SELECT i, 'x' FROM generate_series(1, 100) i;
INSERT INTO shop.orders (log_id, note) SELECT i, 'y' FROM generate_series(1, 100) i;
SELECT lo_from_bytea(77, 'abc');";

/// The source in each format.
struct DumpPaths {
    custom: PathBuf,
    directory: PathBuf,
    plain: PathBuf,
    inserts: PathBuf,
}

impl DumpPaths {
    fn of(c: &Cluster) -> Self {
        let [custom, directory, plain, inserts] = [
            DumpFormat::Custom,
            DumpFormat::Directory,
            DumpFormat::Plain,
            DumpFormat::PlainInserts,
        ]
        .map(|format| c.dump_as("src", format));
        DumpPaths {
            custom,
            directory,
            plain,
            inserts,
        }
    }
}

/// What the program prints, and its exit code.
fn pgrestored(args: &[&str]) -> (Option<i32>, String, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .env_clear()
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// The lines of `pg_restore -l`.
fn list_of_pg_restore(c: &Cluster, dump: &Path) -> String {
    let mut list = c.sandbox.command("pg_restore");
    String::from_utf8(c.sandbox.run(list.arg("-l").arg(dump)).unwrap()).unwrap()
}

/// A list without what depends on the program: the time zone of the first line, and the name of the compression.
fn comparable(list: &str) -> String {
    let differs = |line: &&str| {
        line.starts_with("; Archive created at") || line.starts_with(";     Compression:")
    };
    let kept: Vec<&str> = list.lines().filter(|line| !differs(line)).collect();
    kept.join("\n")
}

/// The list is equal to that of `pg_restore`.
fn is_listed(c: &Cluster, dump: &Path) -> String {
    let path = dump.to_str().unwrap();
    let (code, list, stderr) = pgrestored(&["inspect", path, "--list"]);
    assert_eq!(code, Some(0), "{stderr}");
    let theirs = list_of_pg_restore(c, dump);
    assert_eq!(comparable(&list), comparable(&theirs));
    let (_, json, _) = pgrestored(&["inspect", path, "--list", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["list"].as_array().unwrap().len(), list.lines().count());
    theirs
}

/// A list with some lines commented out gives what `pg_restore -L` gives.
fn chosen_by_list(c: &Cluster, dump: &Path) {
    let (path, theirs) = (dump.to_str().unwrap(), is_listed(c, dump));
    let left_out = [
        " EVENT TRIGGER ",
        " POLICY ",
        " INDEX shop orders_note ",
        " TABLE DATA shop log ",
        " FK CONSTRAINT ",
    ];
    let edited: Vec<String> = theirs
        .lines()
        .map(|line| {
            let prefix = if left_out.iter().any(|part| line.contains(part)) {
                ";"
            } else {
                ""
            };
            format!("{prefix}{line}")
        })
        .collect();
    let file = c.scratch("edited.list");
    std::fs::write(&file, edited.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    c.pg_restore(dump, "theirs", &["-L", file]);
    let restore = ["restore", path, "--target", "ours", "--use-list", file];
    let server = ["--db-host", c.sandbox.host(), "--output", "json"];
    let (code, stdout, stderr) = pgrestored(&[&restore[..], &server[..]].concat());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let result: RestoreResult = serde_json::from_str(&stdout).unwrap();
    let notes = result.notes.iter();
    let about_list: Vec<&String> = notes.filter(|n| n.contains("edited.list")).collect();
    assert_eq!(about_list.len(), 1, "{:?}", result.notes);
    assert!(about_list[0].ends_with("in the order of this program"));
    assert_same(&c.content("ours", &[]), &c.content("theirs", &[]), path);
    let counts = "SELECT (SELECT count(*) FROM shop.log), (SELECT count(*) FROM shop.orders)";
    assert_eq!(c.psql("ours", counts), "0|100");
    c.psql("postgres", "DROP DATABASE ours");
    c.psql("postgres", "DROP DATABASE theirs");
}

async fn restore(c: &Cluster, dump: &Path, selection: Selection) -> JobOutcome {
    let mut job = job(dump, "ours", OnExisting::Fail);
    job.selection = selection;
    // Commands restored into it before.
    job.published_us = None;
    c.restore_with(&job, quick()).await
}

fn skipping(patterns: &[&str]) -> Selection {
    Selection {
        skip: patterns.iter().map(|p| (*p).to_owned()).collect(),
        ..Selection::default()
    }
}

/// The same is left out of every format, and named.
async fn patterns(c: &Cluster, dumps: &DumpPaths) {
    let mut contents = vec![];
    // The last one has a table of contents like the first one's.
    let all = [
        &dumps.custom,
        &dumps.plain,
        &dumps.inserts,
        &dumps.directory,
    ];
    let tested = if is_full_campaign() { 4 } else { 3 };
    for dump in &all[..tested] {
        let path = dump.display();
        let asked = skipping(&["EVENT TRIGGER *", "policy shop.*", "TABLE shop.log"]);
        let done = restore(c, dump, asked).await;
        assert_eq!(done.failure, None, "{path}: {:?}", done.result.error);
        assert!(done.result.partial);
        let rewrites = done.result.rewrites.iter().flat_map(|r| &r.examples);
        let said: Vec<&String> = done.result.notes.iter().chain(rewrites).collect();
        for name in [
            "EVENT TRIGGER watcher",
            "POLICY shop.orders mine",
            "TABLE shop.log",
            "TABLE DATA shop.log",
            "CONSTRAINT shop.log log_pkey",
            "FK CONSTRAINT shop.orders fk",
            "VIEW shop.logged",
        ] {
            assert!(
                said.iter().any(|s| s.contains(name)),
                "{path}: {name}: {said:?}"
            );
        }
        let left = "SELECT (SELECT count(*) FROM pg_event_trigger), (SELECT count(*) FROM pg_policy), to_regclass('shop.log'),
            to_regclass('shop.logged'), (SELECT count(*) FROM shop.recent), (SELECT count(*) FROM pg_constraint WHERE contype = 'f')";
        assert_eq!(c.psql("ours", left), "0|0|||100|0", "{path}");
        contents.push(c.content("ours", &[]));
        c.psql("postgres", "DROP DATABASE ours");
    }
    for other in &contents[1..] {
        assert_same(other, &contents[0], "the same is left out of every format");
    }

    // By kind: an archive adds what the kinds need, and of SQL text they have to name it.
    for (dump, kinds) in [
        (&dumps.custom, &["VIEW"][..]),
        (&dumps.plain, &["SCHEMA", "TABLE", "VIEW"]),
    ] {
        let path = dump.display();
        let only = Selection {
            only_kinds: kinds.iter().map(|k| (*k).to_owned()).collect(),
            ..Selection::default()
        };
        let done = restore(c, dump, only).await;
        assert_eq!(done.failure, None, "{path}: {:?}", done.result.error);
        let left = "SELECT count(*), (SELECT count(*) FROM pg_index WHERE indrelid = 'shop.orders'::regclass) FROM shop.recent";
        assert_eq!(c.psql("ours", left), "0|0", "{path}");
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// A role without superuser restores a backup with an event trigger, and may even replace a database with it.
async fn an_event_trigger_is_left_out(c: &Cluster, dumps: &DumpPaths) {
    c.psql("postgres", "CREATE ROLE maker LOGIN CREATEDB");
    for (dump, times) in [(&dumps.custom, 2), (&dumps.plain, 1)] {
        let path = dump.display();
        let flags = [
            ("db-user", "maker"),
            ("restore-owners", "none"),
            ("restore-no-privileges", "true"),
        ];
        let mut replacing = job(dump, "ours", OnExisting::Replace);
        replacing.published_us = None;
        replacing.selection = skipping(&["EVENT TRIGGER *"]);
        for _ in 0..if is_full_campaign() { 2 } else { times } {
            replacing.request_id.push('x');
            let done = c.restore_with(&replacing, &flags).await;
            assert_eq!(done.failure, None, "{path}: {:?}", done.result.error);
        }
        assert_eq!(c.psql("ours", "SELECT count(*) FROM shop.orders"), "100");
        // The rest of a database would be gone.
        replacing.request_id.push('x');
        replacing.selection = skipping(&["TABLE shop.log"]);
        let done = c.restore_with(&replacing, &flags).await;
        assert_eq!(done.failure, Some(R::TargetNotAllowed), "{path}");
        c.psql("postgres", "DROP DATABASE ours");
    }
}

/// What cannot be meant is refused, and nothing is left behind.
async fn mistakes(c: &Cluster, dumps: &DumpPaths) {
    let (custom, plain) = (&dumps.custom, &dumps.plain);
    let unknown = c.scratch("unknown.list");
    let known = list_of_pg_restore(c, custom);
    std::fs::write(
        &unknown,
        format!("{known}999999; 1259 1 TABLE public gone me\n"),
    )
    .unwrap();
    let unknown = unknown.to_str().unwrap();
    let line = format!(
        "unknown.list, line {}: the backup has no entry 999999",
        known.lines().count() + 1
    );
    let restore_of = |dump: &Path| {
        let dump = dump.to_str().unwrap();
        pgrestored(&[
            "restore",
            dump,
            "--target",
            "ours",
            "--use-list",
            unknown,
            "--db-host",
            c.sandbox.host(),
        ])
    };
    let (code, _, stderr) = restore_of(custom);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains(&line), "{stderr}");
    let (code, _, stderr) = restore_of(plain);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("an archive with a table of contents"),
        "{stderr}"
    );
    let (code, _, stderr) = pgrestored(&["inspect", plain.to_str().unwrap(), "--list"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("no table of contents to list"), "{stderr}");

    for dump in [custom, plain] {
        for selection in [skipping(&["TABLE shop.lgo"]), skipping(&["TABLE"])] {
            let done = restore(c, dump, selection).await;
            assert_eq!(
                done.failure,
                Some(R::InvalidRequest),
                "{:?}",
                done.result.error
            );
        }
    }
    // What a listed entry needs is not added: the server says what is missing.
    let of_rows: String = known
        .lines()
        .filter(|l| l.contains(" TABLE DATA "))
        .map(|l| format!("{l}\n"))
        .collect();
    let list = Selection {
        use_list: Some(Arc::new(UseList::parse("rows.list", &of_rows).unwrap())),
        ..Selection::default()
    };
    let error = restore(c, custom, list).await.result.error.unwrap();
    assert!(error.message.contains("does not exist"), "{error:?}");
    assert!(!c.databases().contains(&"ours".to_owned()));
    assert_eq!(c.leftovers(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_chosen_by_list_and_by_pattern() {
    let c = Cluster::start();
    c.create("src", SOURCE);
    let dumps = DumpPaths::of(&c);
    // First, while no journal belongs to another role.
    an_event_trigger_is_left_out(&c, &dumps).await;
    chosen_by_list(&c, &dumps.directory);
    if is_full_campaign() {
        chosen_by_list(&c, &dumps.custom);
    } else {
        is_listed(&c, &dumps.custom);
    }
    patterns(&c, &dumps).await;
    mistakes(&c, &dumps).await;
}
