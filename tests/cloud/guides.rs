//! The commands of README and the guides, literally and in order: each document in one shell, in a folder of its own,
//! with a cluster, our emulator, and the program on PATH.
//!
//! Only the names of a reader's own servers and files are replaced by those of the test. A worker that a document
//! starts runs until the end of the document.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pgrestored::emulator::{Emulator, SubscriptionOptions};
use tokio::process::Command;

use crate::support::blocks::command_blocks;
use crate::support::{Cluster, bindir_of};

const BUCKET: &str = "my-backups";

/// What everybody's database has.
const SHOP: &str = "CREATE SCHEMA shop AUTHORIZATION app_owner; SET ROLE app_owner;
    CREATE TABLE shop.customers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE shop.orders (id int PRIMARY KEY, customer_id int REFERENCES shop.customers, placed_at timestamptz);
    CREATE TABLE shop.order_lines (order_id int REFERENCES shop.orders, line int, article text, PRIMARY KEY (order_id, line));
    CREATE TABLE shop.audit (at timestamptz, what text);
    INSERT INTO shop.customers SELECT i, 'customer ' || i FROM generate_series(1, 100) i;
    INSERT INTO shop.orders SELECT i, 1 + i % 100, '2026-11-22 06:00Z' FROM generate_series(1, 500) i;
    INSERT INTO shop.order_lines SELECT 1 + i % 500, i, md5(i::text) FROM generate_series(1, 2000) i;
    INSERT INTO shop.audit SELECT '2026-11-22 06:00Z', 'order ' || i FROM generate_series(1, 500) i;";

/// What a reader has before the first command of a document.
struct Reader {
    emulator: Emulator,
    cluster: Cluster,
    folder: tempfile::TempDir,
    /// Names in the document, and what the test has instead.
    replaced: Vec<(&'static str, String)>,
    variables: Vec<(&'static str, String)>,
}

impl Reader {
    /// With a server that has the database `database`, and its dumps in the bucket.
    async fn with_backups_of(database: &str) -> Self {
        let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        for name in [
            "restore-requests",
            "restore-completions",
            "backup-notifications",
        ] {
            emulator.pubsub.create_subscription(
                &format!("projects/my-project/topics/{name}"),
                &format!("projects/my-project/subscriptions/{name}"),
                SubscriptionOptions::default(),
            );
        }
        let cluster = Cluster::start();
        let roles = "CREATE ROLE app_owner; CREATE ROLE restorer LOGIN SUPERUSER";
        cluster.psql("postgres", roles);
        cluster.create(database, SHOP);
        let owner = format!("ALTER DATABASE {database} OWNER TO app_owner");
        cluster.psql("postgres", &owner);
        let folder = tempfile::tempdir().unwrap();
        let reader = Reader {
            emulator,
            cluster,
            folder,
            replaced: vec![],
            variables: vec![],
        };
        reader.fill_folder();
        reader
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn fill_folder(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir(self.path("bin")).unwrap();
        let program = env!("CARGO_BIN_EXE_pgrestored");
        symlink(program, self.path("bin/pgrestored")).unwrap();
        symlink(root.join("deploy"), self.path("deploy")).unwrap();
        std::fs::write(self.path(".db-password"), "secret\n").unwrap();
    }

    fn upload(&self, bucket: &str, name: &str, file: &Path) {
        let bytes = std::fs::read(file).unwrap();
        self.emulator.storage.put(bucket, name, bytes);
    }

    /// Uploads a directory dump below a prefix.
    fn upload_folder(&self, database: &str, prefix: &str) {
        let dump = self.cluster.scratch("folder");
        let sandbox = &self.cluster.sandbox;
        let mut pg_dump = sandbox.command("pg_dump");
        pg_dump.args(["-Fd", "-d", database, "-f"]).arg(&dump);
        sandbox.run(&mut pg_dump).unwrap();
        for member in std::fs::read_dir(&dump).unwrap() {
            let member = member.unwrap();
            let name = format!("{prefix}{}", member.file_name().display());
            self.upload(BUCKET, &name, &member.path());
        }
    }

    fn replace(&mut self, name: &'static str, by: impl Into<String>) {
        self.replaced.push((name, by.into()));
    }

    /// The server's socket instead of these hosts.
    fn replace_hosts(&mut self, hosts: &[&'static str]) {
        for host in hosts {
            self.replace(host, self.cluster.sandbox.host().to_owned());
        }
    }

    /// The script of a document: its blocks in order, after `before`.
    fn script(&self, document: &str, before: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = std::fs::read_to_string(root.join(document)).unwrap();
        // Workers get SIGTERM, and have ended when the script ends.
        let mut script = format!(
            "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\nset -x\n{before}\n"
        );
        let mut replaced = vec![false; self.replaced.len()];
        for block in command_blocks(&page) {
            if block.not_run.is_some() {
                continue;
            }
            script += &format!(": {document}:{}\n", block.line);
            let mut commands = block.commands();
            for ((name, by), done) in self.replaced.iter().zip(&mut replaced) {
                *done |= commands.contains(name);
                commands = commands.replace(name, by);
            }
            for line in commands.lines() {
                let command = line.split(" #").next().unwrap_or_default().trim_end();
                assert!(
                    !command.contains(" && "),
                    "{document}: {line}: the shell does not notice a failure before &&"
                );
                script += &if command == "pgrestored worker" {
                    format!("{command}{IN_BACKGROUND}")
                } else {
                    format!("{line}\n")
                };
            }
        }
        for ((name, _), done) in self.replaced.iter().zip(replaced) {
            assert!(done, "{document} does not contain {name}");
        }
        script
    }

    /// Runs the commands of a document; returns what they print on standard output.
    async fn follow(&self, document: &str, before: &str) -> String {
        let script = self.path("document.sh");
        std::fs::write(&script, self.script(document, before)).unwrap();
        let path = format!(
            "{}:{}:{}",
            self.path("bin").display(),
            self.cluster.sandbox.bindir().display(),
            std::env::var("PATH").unwrap()
        );
        // Ends the shell and everything that it started, in time for nextest.
        let mut shell = Command::new("timeout");
        shell
            .args(["--kill-after=10", "200", "bash"])
            .arg(&script)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", std::env::temp_dir())
            .env("PUBSUB_EMULATOR_HOST", self.emulator.host())
            .env("STORAGE_EMULATOR_HOST", self.emulator.host())
            .env("ADMIN_ADDR", free_address())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::null()).kill_on_drop(true);
        let done = shell.output().await.unwrap();
        let (out, said) = (
            String::from_utf8_lossy(&done.stdout).into_owned(),
            String::from_utf8_lossy(&done.stderr).into_owned(),
        );
        assert!(
            done.status.success(),
            "{document}: {}\n{out}\n{said}",
            done.status
        );
        out
    }
}

/// After the command of a worker: the next command follows when it answers, and fails if it has ended.
const IN_BACKGROUND: &str = " &
until pgrestored status --alive 2>/dev/null; do kill -0 $!; done
";

/// A loopback address that is free now.
fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn readme() {
    let mut reader = Reader::with_backups_of("app").await;
    let dump = reader.cluster.dump_to_file("app", &[]);
    std::fs::copy(&dump, reader.path("app.dump")).unwrap();
    reader.upload_folder("app", "nightly/2026-11-22/");
    reader.upload(BUCKET, "orders/2026-11-22.dump", &dump);
    reader.replace_hosts(&["localhost", "db.internal"]);
    let password = reader.path(".db-password").display().to_string();
    reader.replace("/run/secrets/db", password);
    let host = reader.cluster.sandbox.host().to_owned();
    reader.variables = vec![("PGHOST", host), ("PGUSER", "postgres".to_owned())];
    let said = reader.follow("README.md", "").await;
    assert!(
        said.contains("restored orders/2026-11-22.dump into orders_restored"),
        "{said}"
    );
    assert!(reader.path("proof.html").is_file());
    let rows = |database| {
        reader
            .cluster
            .psql(database, "SELECT count(*) FROM shop.orders")
    };
    for database in ["app", "app_copy", "app_nightly", "app_now", "app_empty"] {
        assert_eq!(rows(database), "500", "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_once() {
    let mut reader = Reader::with_backups_of("orders").await;
    let dump = reader.cluster.dump_to_file("orders", &[]);
    for bucket in [BUCKET, "other-bucket"] {
        reader.upload(bucket, "orders.dump", &dump);
    }
    reader.replace_hosts(&["db.internal"]);
    let said = reader.follow("docs/guides/restore-once.md", "").await;
    let note = "restricted: everything in it belongs to role pgrestored_owner";
    assert_eq!(said.matches(note).count(), 1, "{said}");
    let owner = |database| {
        let sql = "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'shop'";
        reader.cluster.psql(database, sql)
    };
    assert_eq!(owner("orders_restricted"), "pgrestored_owner");
    for database in ["orders", "orders_copy", "orders_kept", "orders_trusted"] {
        assert_eq!(owner(database), "app_owner", "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masked_copies() {
    let mut reader = Reader::with_backups_of("orders").await;
    let dump = reader.cluster.dump_to_file("orders", &[]);
    reader.upload(BUCKET, "orders.dump", &dump);
    reader.replace_hosts(&["db.internal"]);
    reader.follow("docs/guides/masked-copies.md", "").await;
    let rules = std::fs::read_to_string(reader.path("mask.yaml")).unwrap();
    let suggested = [
        "  shop.customers:\n",
        "      name: { fake: name }",
        "      placed_at: keep\n",
    ];
    suggested
        .iter()
        .for_each(|line| assert!(rules.contains(line), "{rules}"));
    let archive = reader.emulator.storage.get("for-vendor", "orders.dump");
    let vendor = reader.cluster.scratch("vendor.dump");
    std::fs::write(&vendor, archive.unwrap()).unwrap();
    reader.cluster.pg_restore(&vendor, "vendor", &[]);
    let counts = |database| {
        let sql = "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE name LIKE 'customer %'), (SELECT count(*) FROM shop.order_lines)) FROM shop.customers";
        reader.cluster.psql(database, sql)
    };
    let rows = counts("orders");
    assert_eq!(rows, "100 100 2000");
    for database in ["vendor", "orders_staging"] {
        assert_eq!(counts(database), "100 0 2000", "{database}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migration() {
    // The documents install nothing: the newest server that the tests have.
    let Some(newest) = bindir_of(18) else {
        return;
    };
    let mut reader = Reader::with_backups_of("app").await;
    let new = Cluster::of(&newest, "");
    reader.replace_hosts(&["old-db"]);
    reader.replace("new-db", new.sandbox.host());
    reader.replace(
        "/usr/lib/postgresql/18/bin",
        newest.display().to_string().trim_end_matches('/'),
    );
    reader.variables = vec![("PGUSER", "postgres".to_owned())];
    reader.follow("docs/guides/migration.md", "").await;
    let owners = "SELECT count(*) FROM pg_tables WHERE tableowner = 'app_owner'";
    assert_eq!(new.psql("app", owners), "4");
    assert!(reader.path("rehearsal.html").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_only() {
    let reader = Reader::with_backups_of("orders").await;
    let dump = reader.cluster.dump_to_file("orders", &[]);
    reader.upload(BUCKET, "orders/2026-11-22.dump", &dump);
    reader.follow("docs/guides/verification-only.md", "").await;
    for file in ["proof.html", "backup.xml"] {
        assert!(reader.path(file).is_file(), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_restores() {
    let mut reader = Reader::with_backups_of("shop").await;
    let dump = reader.cluster.dump_to_file("shop", &[]);
    reader.upload(BUCKET, "shop/2026-11-22.dump", &dump);
    reader.replace_hosts(&["staging-db"]);
    let before = format!("BACKUP_BUCKET=gs://{BUCKET} pgrestored verify latest");
    let document = "docs/guides/standing-restores.md";
    let said = reader.follow(document, &before).await;
    assert!(
        said.contains("restored gs://my-backups/shop/2026-11-22.dump into staging"),
        "{said}"
    );
    assert!(said.contains("order staging goes on"), "{said}");
    let rows = "SELECT concat_ws(' ', count(*), (SELECT count(*) FROM shop.customers WHERE name LIKE 'customer %'), (SELECT count(*) FROM shop.newest_orders)) FROM shop.orders";
    assert_eq!(reader.cluster.psql("staging", rows), "500 0 100");
    // The unmasked copy before it is gone.
    let databases = reader.cluster.databases();
    let previous = databases.iter().filter(|d| d.starts_with("pgrestored_o_"));
    assert_eq!(previous.count(), 0, "{databases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn disaster_day() {
    let mut reader = Reader::with_backups_of("orders").await;
    let dump = reader.cluster.dump_to_file("orders", &[]);
    reader.upload(BUCKET, "orders/2026-11-22.dump", &dump);
    // The database is gone, and its backup was proven.
    reader.cluster.psql("postgres", "DROP DATABASE orders");
    reader.replace_hosts(&["new-db"]);
    let before = format!(
        "openssl genpkey -algorithm ed25519 -out key.pem
         openssl pkey -in key.pem -pubout -out pub.pem
         BACKUP_BUCKET=gs://{BUCKET} EVIDENCE_SIGNING_KEY_FILE=key.pem pgrestored verify latest"
    );
    reader.follow("docs/guides/disaster-day.md", &before).await;
    let databases = reader.cluster.databases();
    assert!(databases.iter().any(|d| d == "orders"), "{databases:?}");
    assert!(!databases.iter().any(|d| d == "orders_restored"));
    // What the second restore and the promotion replaced.
    let previous = databases.iter().filter(|d| d.starts_with("pgrestored_o_"));
    assert_eq!(previous.count(), 2, "{databases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn least_privilege() {
    let mut reader = Reader::with_backups_of("app").await;
    let dump = reader.cluster.dump_to_file("app", &[]);
    reader.upload(BUCKET, "app.dump", &dump);
    let host = reader.cluster.sandbox.host().to_owned();
    // The environment of a worker.
    reader.variables = vec![
        ("PGHOST", host.clone()),
        ("PGUSER", "postgres".to_owned()),
        ("DB_HOST", host),
        ("BACKUP_BUCKET", format!("gs://{BUCKET}")),
        ("GOOGLE_CLOUD_PROJECT", "my-project".to_owned()),
    ];
    let said = reader.follow("docs/guides/least-privilege.md", "").await;
    assert!(said.contains("0 failures"), "{said}");
}
