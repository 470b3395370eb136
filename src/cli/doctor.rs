//! `doctor`: checks everything that restores and verifications need against the live services, and
//! suggests fixes. It changes nothing, except that it starts and removes a sandbox.

pub(super) mod diagnostic_result;
mod queues;
mod standing;

use std::time::Duration;

use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, human_bytes, noun, print_json};
use super::style;
use crate::app::App;
use crate::config::{Config, DbAuth, DbConfig, EvidencePlace, Location, Trust};
use crate::credentials;
use crate::database::{ServerDisk, check_journal, check_restricted, free_bytes, unended};
use crate::error::{FailureReason, RestoreError, bound_list};
use crate::job::{BackupRef, LATEST};
use crate::postgres::{Server, ServerFacts};
use crate::sandbox::{Sandbox, fitting, found};
use pgdump_restore::{Finding, Level, Requirements};

use diagnostic_result::{CheckHealth, DiagnosticResult, PATIENCE, failed};

/// Versions of PostgreSQL that restores are tested on.
const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;
/// Most databases whose newest backup is looked at.
const MAX_DATABASES: usize = 10;
/// Free bytes for sandboxes below which `doctor` warns.
const MIN_SANDBOX_BYTES: u64 = 5 << 30;

pub(super) async fn run(mut config: Config, output: OutputFormat) -> CommandResult {
    config.retry_budget = config.retry_budget.min(PATIENCE);
    config.db.connect_budget = config.db.connect_budget.min(PATIENCE);
    let app = App::new(config)?;
    let mut all = Vec::new();
    let mut report_all = |results: Vec<DiagnosticResult>| {
        for c in results {
            if output == OutputFormat::Text {
                print(&c);
            }
            all.push(c);
        }
    };
    report_all(vec![DiagnosticResult::ok(
        "configuration",
        "valid; `pgrestored check` prints it",
    )]);
    report_all(vec![google_credentials(&app.config).await]);
    report_all(bucket(&app).await);
    report_all(queues::queues(&app).await);
    if app.config.only_verifies {
        report_all(vec![DiagnosticResult::skipped(
            "target server",
            "not configured (DB_HOST): a worker refuses restores",
        )]);
    } else {
        report_all(target(&app).await);
        report_all(newest_backups(&app).await);
        report_all(vec![standing::finishing_place(&app).await]);
        report_all(standing::orders(&app).await);
    }
    report_all(sandbox(&app).await);
    report_all(vec![traces(&app.config).await]);
    let failures = || all.iter().filter(|c| c.health == CheckHealth::Failure);
    // Most severe first.
    let by_severity = [
        Exit::Config,
        Exit::Permission,
        Exit::Unavailable,
        Exit::Failed,
    ];
    let exit = by_severity
        .into_iter()
        .find(|exit| failures().any(|c| c.exit == *exit));
    match output {
        OutputFormat::Json => {
            print_json(&all)?;
        }
        OutputFormat::Text => {
            let count = |health| all.iter().filter(|c| c.health == health).count();
            let (warnings, failed) = (count(CheckHealth::Warning), count(CheckHealth::Failure));
            out!(
                "{} ok, {warnings} {}, {failed} {}",
                count(CheckHealth::Ok),
                noun(warnings as u64, "warning"),
                noun(failed as u64, "failure")
            );
        }
    }
    Ok(exit
        .or(failures().next().map(|_| Exit::Failed))
        .unwrap_or(Exit::Ok))
}

fn print(c: &DiagnosticResult) {
    let mark = match c.health {
        CheckHealth::Ok => style::good("ok     "),
        CheckHealth::Warning => style::warn("WARNING"),
        CheckHealth::Failure => style::bad("FAILURE"),
        CheckHealth::Skipped => style::soft("skipped"),
    };
    out!("{mark} {:<16} {}", c.check, c.message);
    if let Some(fix) = &c.fix {
        out!("{:24} fix: {fix}", "");
    }
}

async fn google_credentials(config: &Config) -> DiagnosticResult {
    let name = "credentials";
    let is_local =
        matches!(config.bucket, Location::Folder(_)) || config.storage_emulator.is_some();
    let has_queue = config.project.is_some() && config.pubsub_emulator.is_none();
    if is_local && !has_queue {
        let what = match config.db_auth {
            DbAuth::Password => "Google Cloud is not used",
            DbAuth::GcpIam => "used only to log in to the target server",
        };
        return DiagnosticResult::skipped(name, what);
    }
    match credentials::check(PATIENCE).await {
        Ok(()) => DiagnosticResult::ok(name, "Google Cloud issued a token"),
        Err(what) => {
            DiagnosticResult::failure(name, Exit::Permission, what).fix(credentials::ADVICE)
        }
    }
}

async fn bucket(app: &App) -> Vec<DiagnosticResult> {
    let place = app.config.bucket.uri("");
    let store = match app.manager.catalog().store().await {
        Ok(store) => store,
        Err(e) => return vec![failed("bucket", &e, "see the check `credentials`")],
    };
    let listed = match app.manager.catalog().list_backups("").await {
        Ok(all) if all.is_empty() => DiagnosticResult::new(
            "bucket",
            CheckHealth::Warning,
            format!("{place}: no backups"),
        )
        .fix("check that BACKUP_BUCKET is the right one"),
        Ok(all) => {
            let (n, backups) = (all.len(), noun(all.len() as u64, "backup"));
            let payer = app.config.user_project.as_ref();
            let billed = payer.map_or_else(String::new, |p| format!(", requests billed to {p}"));
            DiagnosticResult::ok("bucket", format!("{place}: {n} {backups}{billed}"))
        }
        Err(e) => failed("bucket", &e, &may_list(&app.config.bucket, &place)),
    };
    let readable = listed.health != CheckHealth::Failure;
    let mut results = vec![listed];
    if !readable {
        return results;
    }
    let verifies =
        app.config.notification_subscription.is_some() || app.config.verify.schedule.is_some();
    let writes = verifies && app.config.verify.evidence == EvidencePlace::BesideBackup;
    let mut wanted = vec!["storage.objects.get", "storage.objects.list"];
    if writes {
        wanted.push("storage.objects.create");
    }
    results.push(match store.permissions(&wanted).await {
        Ok(Some(given)) => {
            let missing: Vec<_> = wanted
                .iter()
                .filter(|w| !given.iter().any(|g| g == *w))
                .copied()
                .collect();
            match missing.as_slice() {
                [] => DiagnosticResult::ok("bucket rights", wanted.join(", ")),
                ["storage.objects.create"] => DiagnosticResult::failure(
                    "bucket rights",
                    Exit::Permission,
                    "evidence cannot be written: storage.objects.create is missing",
                )
                .fix("grant roles/storage.objectCreator on the bucket, or set EVIDENCE_LOCATION"),
                more => DiagnosticResult::failure(
                    "bucket rights",
                    Exit::Permission,
                    format!("missing: {}", more.join(", ")),
                )
                .fix("grant roles/storage.objectViewer on the bucket"),
            }
        }
        Ok(None) => {
            DiagnosticResult::skipped("bucket rights", "this store does not report permissions")
        }
        Err(e) => failed("bucket rights", &e.into(), "see the check `credentials`"),
    });
    if verifies && app.config.verify.evidence != EvidencePlace::Nowhere {
        results.push(evidence_keys(app));
    }
    results
}

fn evidence_keys(app: &App) -> DiagnosticResult {
    let warn = |what: &str| DiagnosticResult::new("evidence", CheckHealth::Warning, what);
    match app.manager.catalog().keyring() {
        Ok(keys) if keys.signs() => DiagnosticResult::ok(
            "evidence",
            "signed; only evidence signed by a trusted key counts",
        ),
        Ok(keys) if keys.is_empty() => warn(
            "not signed: anyone who may create objects there can forge it, and prune does not rely on it",
        )
        .fix("set EVIDENCE_SIGNING_KEY_FILE (openssl genpkey -algorithm ed25519)"),
        Ok(_) => {
            warn("EVIDENCE_TRUSTED_KEYS without EVIDENCE_SIGNING_KEY: this worker's own proofs do not count")
                .fix("set EVIDENCE_SIGNING_KEY_FILE on workers")
        }
        Err(e) => failed("evidence", &e, "see EVIDENCE_SIGNING_KEY and EVIDENCE_TRUSTED_KEYS"),
    }
}

fn may_list(bucket: &Location, place: &str) -> String {
    match bucket {
        Location::Folder(_) => {
            "check that the folder exists and that this user may read it".to_owned()
        }
        _ => format!(
            "check that the bucket exists, and grant this account access: gcloud storage buckets add-iam-policy-binding \
             {place} --member=serviceAccount:WORKER --role=roles/storage.objectViewer"
        ),
    }
}

/// Whether there is a token to log in to the target server with; `None` if it logs in with a password.
async fn login_token(db: &DbConfig) -> Option<DiagnosticResult> {
    let name = "target login";
    Some(match db.passwords.as_ref()?.password(None).await {
        Ok(_) => DiagnosticResult::ok(name, "Google Cloud issued a token for logins (DB_AUTH)"),
        Err(e) => failed(
            name,
            &e.into(),
            "give this workload a Google account: Workload Identity on GKE, the service account of the pool on Cloud Run",
        ),
    })
}

/// What to do if the target server does not let this program in.
fn login_fix(auth: DbAuth) -> &'static str {
    match auth {
        DbAuth::Password => {
            "check DB_HOST, DB_PORT, DB_USER, DB_PASSWORD and DB_SSLMODE, and that pg_hba.conf allows the connection"
        }
        DbAuth::GcpIam => {
            "check DB_HOST, DB_PORT and DB_SSLMODE, and that DB_USER is this workload's service account without \
             .gserviceaccount.com, a user of the instance (gcloud sql users create, gcloud alloydb users create) with \
             roles/cloudsql.instanceUser or roles/alloydb.databaseUser"
        }
    }
}

async fn target(app: &App) -> Vec<DiagnosticResult> {
    let mut results = Vec::new();
    if let Some(login) = login_token(&app.config.db).await {
        let is_failure = login.health == CheckHealth::Failure;
        results.push(login);
        if is_failure {
            return results;
        }
    }
    results.extend(target_server(app).await);
    results
}

async fn target_server(app: &App) -> Vec<DiagnosticResult> {
    let db = &app.config.db;
    let at = format!("{}:{}", db.host, db.port);
    let facts = async {
        let session = Server::new(db)?.maintenance("doctor").await?;
        let facts = session.facts().await?;
        let row = session.client().query_one(RIGHTS, &[]).await;
        let row = row.map_err(|e| crate::postgres::map_pg_error(&e, "checking privileges"))?;
        Ok::<_, crate::error::DatabaseError>((facts, row.get::<_, bool>(0)))
    };
    let (facts, may_create) = match facts.await {
        Ok(facts) => facts,
        Err(e) => {
            let fix = login_fix(app.config.db_auth);
            return vec![failed("target server", &e.into(), fix)];
        }
    };
    let major = facts.version / 10_000;
    let message = format!("{at}: PostgreSQL {major}, as {}", facts.user);
    let server = if SUPPORTED.contains(&major) {
        DiagnosticResult::ok("target server", message)
    } else {
        DiagnosticResult::new(
            "target server",
            CheckHealth::Warning,
            format!("{message}; only 13 to 18 are tested"),
        )
    };
    vec![
        server,
        rights(app, &facts, may_create),
        journal(app).await,
        restricted(app).await,
    ]
}

/// Checks the roles of restricted restores, if the configuration allows such restores.
async fn restricted(app: &App) -> DiagnosticResult {
    let (name, c) = ("restricted roles", &app.config);
    if c.trust == Trust::Full && c.allowed_sources.is_empty() && c.restricted.users.is_empty() {
        return DiagnosticResult::skipped(
            name,
            "every source is trusted (BACKUP_TRUST, ALLOWED_SOURCES)",
        );
    }
    let checked = async { check_restricted(&Server::new(&c.db)?, &c.restricted).await };
    match checked.await {
        Ok(message) => DiagnosticResult::ok(name, message),
        Err(e) => failed(
            name,
            &e,
            "run psql -f deploy/postgres/roles.sql, and set DB_RESTRICTED_USER to the roles",
        ),
    }
}

/// Whether the role may create databases.
const RIGHTS: &str = "SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = current_user";

fn rights(app: &App, facts: &ServerFacts, may_create: bool) -> DiagnosticResult {
    let name = "target rights";
    if !may_create {
        return DiagnosticResult::failure(
            name,
            Exit::Permission,
            format!("{} may not create databases", facts.user),
        )
        .fix(format!(
            "ALTER ROLE {} CREATEDB",
            crate::postgres::ident(&facts.user)
        ));
    }
    if facts.is_superuser && app.config.trust == Trust::Full {
        let what = format!(
            "{} is a superuser: anyone who can write to the bucket can run code as a superuser",
            facts.user
        );
        return DiagnosticResult::new(name, CheckHealth::Warning, what).fix(
            "set BACKUP_TRUST=restricted, restore as a role with CREATEDB that is a member of the owner roles (deploy/postgres), or let only the backup job write to the bucket",
        );
    }
    let others = facts
        .may_become
        .iter()
        .filter(|r| **r != facts.user && !r.starts_with("pg_"))
        .count();
    let owners = match app.config.policy.owners {
        crate::policy::Owners::None => String::new(),
        _ => format!(
            "; is a member of {others} other {}",
            noun(others as u64, "role")
        ),
    };
    DiagnosticResult::ok(name, format!("{} may create databases{owners}", facts.user))
}

/// Age from which `doctor` reports a request without an outcome.
const UNENDED: Duration = Duration::from_secs(3600);

async fn journal(app: &App) -> DiagnosticResult {
    let unended = async { unended(&Server::new(&app.config.db)?, UNENDED).await };
    if let Some(what) = unended.await.ok().filter(|ids| !ids.is_empty()) {
        let mut shown = what;
        bound_list(&mut shown, 10);
        let message = format!(
            "requests that began, have no outcome and are not being processed: {}",
            shown.join(", ")
        );
        return DiagnosticResult::new("target journal", CheckHealth::Warning, message).fix(
            "look for their messages in the dead-letter topic; the reaper records them as failed after REQUEST_MAX_AGE",
        );
    }
    let name = "target journal";
    let checked = async { check_journal(&Server::new(&app.config.db)?).await };
    match checked.await {
        Ok(None) => DiagnosticResult::ok(name, "requests can be recorded in the schema pgrestored"),
        Ok(Some(why)) => {
            let has_orders = app.config.standing_restores.is_some();
            let of_orders = if has_orders && app.config.records.is_none() {
                ", as does a standing restore whose worker was killed (RESTORE_RECORDS is not set either)"
            } else {
                ""
            };
            let message = format!(
                "requests cannot be recorded, and a repeated request restores again{of_orders}: {why}"
            );
            DiagnosticResult::new(name, CheckHealth::Warning, message)
                .fix("grant that, or run psql -f deploy/postgres/roles.sql, which creates the schema for the worker's role")
        }
        Err(e) => failed(name, &e, "see the check `target server`"),
    }
}

/// Looks at the newest backup; where the newest backups are of several databases, at that of each.
async fn newest_backups(app: &App) -> Vec<DiagnosticResult> {
    let named = app.manager.catalog().databases("").await;
    let named = named.unwrap_or_default();
    if named.len() < 2 {
        return newest_backup(app, None).await;
    }
    let mut all = Vec::new();
    for database in named.iter().take(MAX_DATABASES) {
        all.extend(newest_backup(app, Some(database)).await);
    }
    all
}

/// Whether the newest backup, of one database if it is given, could be restored into the target: extensions, roles,
/// versions, disk space.
async fn newest_backup(app: &App, database: Option<&str>) -> Vec<DiagnosticResult> {
    let name = "newest backup";
    let stop = tokio_util::sync::CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let opened = async {
        let newest = BackupRef::parse(LATEST, "")?.of_database(database);
        let (pinned, archive) = app.manager.catalog().open(&newest, stop).await?;
        Ok::<_, RestoreError>((newest, pinned, archive))
    };
    let (newest, pinned, archive) = match opened.await {
        Ok(opened) => opened,
        Err(e) if e.reason() == FailureReason::BackupNotFound => {
            return vec![DiagnosticResult::skipped(name, "no backup exists")];
        }
        Err(e) => {
            let of = database.map_or_else(String::new, |d| format!(" --database {d}"));
            let fix = format!("run `pgrestored inspect latest{of}`");
            return vec![failed(name, &e, &fix)];
        }
    };
    let backup_name = pinned
        .as_ref()
        .map_or("latest", |p| p.object.name.as_str())
        .to_owned();
    let findings = app.manager.preflight(&archive, &newest, pinned.as_ref());
    let Ok(findings) = findings.await else {
        return vec![DiagnosticResult::skipped(
            name,
            "the target server does not respond",
        )];
    };
    let worst = |level| findings.iter().find(|f| f.level == level);
    let message = |f: &Finding| format!("{backup_name}: {}", f.what);
    let fits = match (worst(Level::Blocks), worst(Level::Warns)) {
        (Some(f), _) => {
            DiagnosticResult::failure(name, Exit::Failed, message(f)).fix(f.fix.clone())
        }
        (None, Some(f)) => {
            DiagnosticResult::new(name, CheckHealth::Warning, message(f)).fix(f.fix.clone())
        }
        (None, None) => DiagnosticResult::ok(
            name,
            format!("{backup_name}: the target has everything it needs"),
        ),
    };
    let needs = Requirements::of(&archive, archive.entries(), pinned.map(|p| p.object.size));
    vec![fits, target_room(app, needs.estimated_bytes).await]
}

/// Checks the disk space of the target. PostgreSQL does not report it, so it is known only if the
/// data directory is on this machine.
async fn target_room(app: &App, needed: Option<u64>) -> DiagnosticResult {
    let name = "target room";
    let about = needed.map_or_else(String::new, |n| {
        format!("the newest backup needs about {}", human_bytes(n))
    });
    let room = async {
        let server = Server::new(&app.config.db).ok()?;
        let session = server.maintenance("doctor").await.ok()?;
        ServerDisk::of(&session).await?.free()
    };
    match (room.await, needed) {
        (Some(room), Some(needed)) if room < needed => {
            let what = format!("{about}, but only {} is free", human_bytes(room));
            DiagnosticResult::new(name, CheckHealth::Warning, what)
                .fix("free disk space, or restore only a part of the backup")
        }
        (Some(room), _) => {
            DiagnosticResult::ok(name, format!("{} free; {about}", human_bytes(room)))
        }
        (None, _) => DiagnosticResult::skipped(
            name,
            format!("PostgreSQL does not report its disk space; {about}"),
        ),
    }
}

async fn sandbox(app: &App) -> Vec<DiagnosticResult> {
    if app.config.verify.scratch.is_some() {
        return vec![DiagnosticResult::skipped(
            "sandbox",
            "verifications run on the scratch server",
        )];
    }
    let (bindirs, parent) = (app.config.pg_bindir.clone(), app.manager.sandbox_dir());
    let room = free_bytes(
        parent
            .parent()
            .filter(|_| !parent.exists())
            .unwrap_or(&parent),
    );
    let dir = parent.display().to_string();
    let started = tokio::task::spawn_blocking(move || {
        let all = found(&bindirs);
        let Some(newest) = fitting(&all, None) else {
            return Ok(None);
        };
        let majors: Vec<_> = all.iter().map(|b| b.major.to_string()).collect();
        std::fs::create_dir_all(&parent)?;
        Sandbox::isolated(&newest.dir, &parent, &[]).map(|s| Some((majors, s.isolation().clone())))
    });
    let mut results = vec![match started.await {
        Ok(Ok(Some((majors, isolation)))) => {
            let what = format!("starts; PostgreSQL {}", majors.join(", "));
            let summary = isolation.summary();
            match isolation.why_not {
                None => DiagnosticResult::ok("sandbox", format!("{what}; {summary}")),
                Some(why) => {
                    let health = if app.config.verify.require_isolation {
                        CheckHealth::Failure
                    } else {
                        CheckHealth::Warning
                    };
                    DiagnosticResult::new("sandbox", health, format!("{what}; not isolated: {why}")).fix(
                        "run as root, allow user namespaces, or verify on a scratch server (SCRATCH_DB_HOST); \
                         verify only trusted backups in a sandbox without isolation",
                    )
                }
            }
        }
        Ok(Ok(None)) => {
            let what = "PostgreSQL is not installed on this machine; only verifications need it";
            return vec![DiagnosticResult::skipped("sandbox", what)];
        }
        Ok(Err(e)) => {
            DiagnosticResult::failure("sandbox", Exit::Failed, format!("does not start: {e}"))
                .fix("check PG_BINDIR and SANDBOX_DIR; RUST_LOG=pgrestored=debug logs details")
        }
        Err(e) => DiagnosticResult::failure("sandbox", Exit::Failed, e.to_string())
            .fix("report this as a bug"),
    }];
    if let Some(room) = room {
        let what = format!("{dir}: {} free", human_bytes(room));
        results.push(if room < MIN_SANDBOX_BYTES {
            DiagnosticResult::new("sandbox room", CheckHealth::Warning, what)
                .fix("SANDBOX_DIR needs space for one restored database")
        } else {
            DiagnosticResult::ok("sandbox room", what)
        });
    }
    results
}

async fn traces(config: &Config) -> DiagnosticResult {
    let name = "traces";
    let Some(endpoint) = &config.otlp_endpoint else {
        return DiagnosticResult::skipped(name, "OTEL_EXPORTER_OTLP_ENDPOINT is not set");
    };
    let address = endpoint
        .rsplit("://")
        .next()
        .unwrap_or(endpoint)
        .trim_end_matches('/')
        .to_owned();
    let connect = tokio::net::TcpStream::connect(&address);
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(_)) => DiagnosticResult::ok(name, format!("{endpoint} responds")),
        _ => DiagnosticResult::new(
            name,
            CheckHealth::Warning,
            format!("{endpoint} does not respond; spans are lost"),
        )
        .fix("check that the collector is running and that this is its gRPC port (4317)"),
    }
}
