//! Access to a database while it is created, and what a backup can change of the role that loads it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pgrestored::error::FailureReason as R;
use pgrestored::job::OnExisting;
use pgrestored::manager::JobOutcome;
use pgrestored::sandbox::find_bindir;
use tokio::time::Instant;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::formats::DumpFormat;
use crate::support::{Cluster, bindir_of, is_full_campaign, job};

/// Before 15 every role may create objects in `public`, and a role administers its own memberships; since 16 a
/// membership has options.
fn bindirs() -> Vec<PathBuf> {
    let others = [14, 18].into_iter().filter_map(bindir_of);
    others.chain(find_bindir(&[])).collect()
}

/// `None` if `user` can connect, else the SQLSTATE of the error.
async fn refusal(c: &Cluster, user: &str, password: &str, database: &str) -> Option<String> {
    let config = format!(
        "host={} user={user} password='{password}' dbname={database}",
        c.sandbox.host()
    );
    let refused = tokio_postgres::connect(&config, NoTls).await.err()?;
    Some(
        refused
            .code()
            .map_or_else(|| refused.to_string(), |code| code.code().to_owned()),
    )
}

const PRIVILEGES: &str = "SELECT coalesce(datacl, acldefault('d', datdba)), pg_get_userbyid(datdba) FROM pg_database WHERE datname = ";

/// `make soak` creates and replaces every kind of database on each server, `make test` on one of them.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_connect_to_a_database_during_the_load() {
    let bindirs = bindirs();
    for (n, bindir) in bindirs.iter().enumerate() {
        let c = Cluster::of(bindir, "");
        c.psql(
            "postgres",
            "CREATE ROLE visitor LOGIN; CREATE ROLE pgrestored_owner",
        );
        let dump = c.waiting_dump();
        for (i, (target, acl, trust)) in [
            ("fresh", None, "full"),
            ("usual", Some(""), "full"),
            (
                "closed",
                Some(
                    "REVOKE ALL ON DATABASE closed FROM PUBLIC; GRANT CONNECT ON DATABASE closed TO visitor WITH GRANT OPTION",
                ),
                "full",
            ),
            (
                "mixed",
                Some(
                    "REVOKE TEMP ON DATABASE mixed FROM PUBLIC; GRANT CREATE ON DATABASE mixed TO role_a; ALTER DATABASE mixed OWNER TO role_b",
                ),
                "full",
            ),
            (
                "untrusted",
                Some("GRANT CREATE ON DATABASE untrusted TO role_a"),
                "restricted",
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let turn: usize = [2, 1, 0, 1, 0][i];
            let is_its_turn = turn.min(bindirs.len() - 1) == n;
            if !is_its_turn && !is_full_campaign() {
                continue;
            }
            if let Some(acl) = acl {
                c.create(target, "");
                c.psql("postgres", acl);
            }
            let of = |database: &str| c.psql("postgres", &format!("{PRIVILEGES}'{database}'"));
            let before = acl.map(|_| of(target));
            let on_existing = if acl.is_some() {
                OnExisting::Replace
            } else {
                OnExisting::Fail
            };
            let app = c.app(&[("backup-trust", trust)]);
            let request = job(&dump, target, on_existing);
            let running = app
                .manager
                .run(&request, Arc::default(), CancellationToken::new());
            let looked = async {
                let loaded = "SELECT datname FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
                let staging = c.until(loaded).await;
                let refused = refusal(&c, "visitor", "", &staging).await;
                assert_eq!(refused.as_deref(), Some("42501"), "{target}: {staging}");
                c.psql("postgres", "CREATE ROLE go_on");
            };
            let (done, ()) = tokio::join!(running, looked);
            assert_eq!(done.result.error, None, "{target}");
            c.psql("postgres", "DROP ROLE go_on");
            assert_eq!(refusal(&c, "visitor", "", target).await, None, "{target}");
            let wanted = before
                .clone()
                .unwrap_or("{=Tc/postgres,postgres=CTc/postgres}|postgres".into());
            assert_eq!(of(target), wanted, "{target}");
            if let Some(kept) = done.result.previous_database {
                assert_eq!(Some(of(&kept)), before, "{target}");
                app.manager
                    .rollback(target, None, &format!("back-{target}"))
                    .await
                    .unwrap();
                assert_eq!(Some(of(target)), before, "{target}");
            }
        }
    }
}

const LOADER: &str = "pgrestored_load_1";

/// A server with the roles of deploy/postgres, where the loading role needs its password.
struct Pool {
    c: Cluster,
    dump: PathBuf,
}

impl Pool {
    fn of(c: Cluster) -> Self {
        let roles = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres/roles.sql");
        c.psql("postgres", &std::fs::read_to_string(roles).unwrap());
        c.psql("postgres", &format!("ALTER ROLE {LOADER} PASSWORD 'right'"));
        let rules = format!("local all {LOADER} scram-sha-256\nlocal all all trust");
        c.psql("postgres", &format!("COPY (SELECT rule FROM regexp_split_to_table($r${rules}$r$, E'\\n') rule) TO PROGRAM 'cat > pg_hba.conf'; SELECT pg_reload_conf()"));
        c.create("src", "CREATE TABLE t (a int); INSERT INTO t VALUES (1)");
        let dump = c.dump_as("src", DumpFormat::Plain);
        Pool { c, dump }
    }

    /// The dump, preceded by statements whose errors are ignored, and the result of restoring it.
    fn with(&self, statements: &[&str], then: &str) -> PathBuf {
        let end = "--\n-- PostgreSQL database dump complete\n";
        let tried: String = statements
            .iter()
            .map(|s| {
                format!(
                    "DO $$ BEGIN {s}; EXCEPTION WHEN insufficient_privilege THEN NULL; END $$;\n"
                )
            })
            .collect();
        let text = std::fs::read_to_string(&self.dump).unwrap();
        assert!(text.contains(end));
        let file = self.c.scratch("hostile.sql");
        std::fs::write(
            &file,
            text.replacen(end, &format!("{tried}{then}\n{end}"), 1),
        )
        .unwrap();
        file
    }

    async fn restore(&self, file: &std::path::Path) -> JobOutcome {
        let flags = [
            ("db-user", "pgrestored"),
            ("backup-trust", "restricted"),
            ("db-restricted-user", LOADER),
            ("db-restricted-password", "right"),
            ("restore-jobs", "2"),
        ];
        self.c.psql("postgres", "DROP DATABASE IF EXISTS app");
        self.c
            .restore_with(&job(file, "app", OnExisting::Fail), &flags)
            .await
    }

    /// What the role can change of its next logins.
    fn login(&self) -> String {
        let sql =
            "SELECT rolpassword || (SELECT count(*) FROM pg_db_role_setting WHERE setrole = r.oid)
            FROM pg_authid r WHERE rolname = 'pgrestored_load_1'";
        self.c.psql("postgres", sql)
    }

    /// Everything that a backup could have changed of the role.
    fn state(&self) -> String {
        self.c.psql(
            "postgres",
            &format!(
                "SELECT rolconnlimit, rolvaliduntil, (SELECT string_agg(member::regrole::text, ',' ORDER BY 1) FROM pg_auth_members WHERE roleid = r.oid),
                 (SELECT string_agg(setconfig::text, ',') FROM pg_db_role_setting WHERE setrole = r.oid),
                 (SELECT count(*) FROM pg_stat_activity WHERE usename = rolname) FROM pg_roles r WHERE rolname = '{LOADER}'"
            ),
        )
    }

    /// The role is as it was, and nobody else knows its password.
    async fn check_role(&self, what: &str) {
        let version = self.c.psql("postgres", "SHOW server_version");
        assert_eq!(self.state(), "-1||pgrestored||0", "{what} on {version}");
        let wrong = refusal(&self.c, LOADER, "theirs", "postgres").await;
        assert_eq!(wrong.as_deref(), Some("28P01"), "{what} on {version}");
        assert_eq!(
            refusal(&self.c, LOADER, "right", "postgres").await,
            None,
            "{what} on {version}"
        );
    }

    async fn check(&self, what: &str) {
        self.check_role(what).await;
        let next = self.restore(&self.dump).await;
        assert_eq!(next.result.error, None, "after {what}");
    }
}

const CHANGES: [&str; 8] = [
    "ALTER ROLE CURRENT_USER SET work_mem = '1GB'",
    "ALTER ROLE CURRENT_USER SET search_path = 'pg_temp'",
    // A session that has not used PL/pgSQL does not have its settings.
    "ALTER ROLE CURRENT_USER SET plpgsql.extra_errors = 'all'",
    "ALTER ROLE CURRENT_USER IN DATABASE postgres SET work_mem = '1GB'",
    "GRANT pgrestored_load_1 TO role_b",
    "ALTER ROLE CURRENT_USER CONNECTION LIMIT 0",
    "ALTER ROLE CURRENT_USER VALID UNTIL '2001-01-01'",
    "ALTER ROLE CURRENT_USER PASSWORD 'theirs'",
];

/// Whatever a backup does to the role that loads it, the next restore works, and nobody else can be that role. Each server
/// undoes all changes at once; one after the other, `make soak` makes every one on every server, `make test` on one of them.
#[tokio::test(flavor = "multi_thread")]
async fn changes_to_the_loading_role_are_undone() {
    let bindirs = bindirs();
    for (n, bindir) in bindirs.iter().enumerate() {
        let pool = Pool::of(Cluster::of(bindir, ""));
        for (i, change) in CHANGES.iter().enumerate() {
            // Before 16 only, a role can grant itself: 14 is the first server, and this is the fifth change.
            let is_its_turn = (i + 2) % bindirs.len() == n;
            if !is_its_turn && !is_full_campaign() {
                continue;
            }
            // It also shows that the role works after the preceding change.
            let done = pool.restore(&pool.with(&[change], "")).await;
            assert_eq!(done.result.error, None, "{change}");
            pool.check_role(change).await;
        }
        // Also undone if the restore fails because of it, or after it.
        let rows = "COPY public.t (a) FROM stdin;\nnone\n\\.\n";
        let done = pool.restore(&pool.with(&CHANGES, rows)).await;
        assert_eq!(done.failure, Some(R::DataRejected));
        // The restore below shows that the next one works.
        pool.check_role("a restore that failed").await;
        // A restore that was killed undoes nothing, and a session of the role may still be open.
        let config = format!(
            "host={} user={LOADER} password=right dbname=postgres",
            pool.c.sandbox.host()
        );
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        let accomplice = tokio::spawn(connection);
        let killed = "ALTER ROLE pgrestored_load_1 PASSWORD 'theirs'; ALTER ROLE pgrestored_load_1 SET work_mem = '1GB';
            ALTER ROLE pgrestored_load_1 SET plpgsql.extra_errors = 'all'";
        pool.c
            .psql("postgres", &format!("DO 'BEGIN END'; {killed}"));
        assert_eq!(pool.restore(&pool.dump).await.result.error, None);
        assert!(accomplice.await.unwrap().is_err() && client.is_closed());
        if is_full_campaign() {
            pool.check("a restore that was killed").await;
        } else {
            pool.check_role("a restore that was killed").await;
        }
    }
}

/// What a backup does to the role that loads it changes nothing for the sessions that open afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn sessions_that_open_after_a_change_of_the_loading_role_work() {
    let pool = Arc::new(Pool::of(Cluster::start()));
    let _failpoints = fail::FailScenario::setup();
    let hidden = "CREATE SCHEMA evil; CREATE VIEW evil.pg_database AS SELECT datname, oid::int8 AS oid FROM pg_catalog.pg_database;
        ALTER ROLE CURRENT_USER SET search_path = evil, pg_catalog";
    for changes in [
        "ALTER ROLE CURRENT_USER PASSWORD 'theirs'",
        "ALTER ROLE CURRENT_USER SET default_transaction_read_only = on",
        "ALTER ROLE CURRENT_USER SET local_preload_libraries = 'none'",
        "ALTER ROLE CURRENT_USER SET statement_timeout = 1; ALTER ROLE CURRENT_USER SET idle_session_timeout = 1",
        hidden,
    ] {
        // What the role has when each session opens.
        let opened = Arc::new(Mutex::new(vec![]));
        let (seen, logins) = (pool.clone(), opened.clone());
        fail::cfg_callback("session", move || {
            let mut logins = logins.lock().unwrap();
            logins.push(seen.login());
            if logins.len() == 1 {
                return;
            }
            // The first session changes the role, and the other opens afterwards.
            let deadline = Instant::now() + Duration::from_secs(60);
            tokio::task::block_in_place(|| {
                while seen.login() == logins[0] {
                    assert!(Instant::now() < deadline, "the role was not changed");
                }
            });
        })
        .unwrap();
        let done = pool.restore(&pool.with(&[changes], "")).await;
        assert_eq!(done.result.error, None, "{changes}");
        assert_eq!(opened.lock().unwrap().len(), 2, "{changes}");
        pool.check_role(changes).await;
    }
}

/// Before 15 a role can revoke memberships in itself, also that of the role that reassigns its objects.
#[tokio::test(flavor = "multi_thread")]
async fn a_loading_role_that_cannot_be_repaired_is_refused() {
    let Some(bindir) = bindir_of(14) else { return };
    let pool = Pool::of(Cluster::of(&bindir, ""));
    let leave = "REVOKE pgrestored_load_1 FROM pgrestored";
    assert_eq!(
        pool.restore(&pool.with(&[leave], "")).await.result.error,
        None
    );
    pool.check("membership").await;
    // With another password, only another role can.
    let password = "ALTER ROLE CURRENT_USER PASSWORD 'theirs'";
    assert!(
        pool.restore(&pool.with(&[leave, password], ""))
            .await
            .failure
            .is_some()
    );
    let refused = pool.restore(&pool.dump).await.result.error.unwrap();
    assert_eq!(refused.reason, R::InsufficientPrivilege);
    assert!(
        refused.message.contains("GRANT \"pgrestored_load_1\" TO"),
        "{}",
        refused.message
    );
    pool.c
        .psql("postgres", "GRANT pgrestored_load_1 TO pgrestored");
    assert_eq!(pool.restore(&pool.dump).await.result.error, None);
    pool.check_role("granted again").await;
}
