//! The server that a backup is proven on: a sandbox of this machine, or a scratch server.

use std::path::PathBuf;
use std::time::Duration;

use super::RestoreManager;
use crate::config::{DbConfig, SslMode, TlsFiles};
use crate::database::VerificationDatabase;
use crate::error::{FailureReason as R, JobError, RestoreError, report};
use crate::postgres::Server;
use crate::proof::ServerProof;
use crate::sandbox::{Sandbox, fitting, found};
use pgdump_archive::TocEntry;

/// How long cleaning up a scratch server may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// A server to restore into, and what it is.
pub(super) struct VerificationServer {
    pub server: Server,
    pub proof: ServerProof,
    /// Dropping it ends the server.
    sandbox: Option<Sandbox>,
}

impl Drop for VerificationServer {
    fn drop(&mut self) {
        // Its end waits for processes.
        if let (Some(sandbox), Ok(runtime)) =
            (self.sandbox.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(sandbox));
        }
    }
}

impl VerificationServer {
    /// A database for one verification: in a sandbox it may have `name`; on a scratch server it has one of
    /// ours, and is recorded for the reaper.
    ///
    /// # Errors
    /// `target_busy`, `target_unavailable`.
    pub async fn claim(
        &self,
        request_id: &str,
        name: String,
    ) -> Result<VerificationDatabase, RestoreError> {
        if self.sandbox.is_some() {
            VerificationDatabase::claim(&self.server, request_id, name, false).await
        } else {
            VerificationDatabase::claim(
                &self.server,
                request_id,
                VerificationDatabase::name_for(request_id),
                true,
            )
            .await
        }
    }

    /// Whether what is loaded can reach nothing but itself.
    pub fn is_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// Removes what was made on a scratch server; a sandbox goes with all that is in it.
    pub async fn clean_up_server(&self, apart: &VerificationDatabase) {
        if self.sandbox.is_some() {
            return;
        }
        match tokio::time::timeout(CLEANUP, apart.discard()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                tracing::error!(
                    error = report(&e),
                    "the database on the scratch server was not dropped"
                );
            }
            Err(_) => tracing::error!("dropping the database on the scratch server took too long"),
        }
    }
}

/// Names that the server has already.
const TAKEN: [&str; 3] = ["postgres", "template0", "template1"];

/// The name that a backup's database had, where a sandbox can give it.
pub(super) fn own_name(database: Option<&str>) -> Option<String> {
    let name = database?;
    let fits = !name.is_empty() && name.len() <= 63 && !name.chars().any(char::is_control);
    (fits && !TAKEN.contains(&name)).then(|| name.to_owned())
}

/// What pg_cron needs to be created in `database`; it starts none of the jobs that it finds there.
pub(super) fn settings_for(entries: &[TocEntry], database: &str) -> Vec<String> {
    if !entries
        .iter()
        .any(|e| e.desc == "EXTENSION" && e.tag == "pg_cron")
    {
        return vec![];
    }
    vec![
        "shared_preload_libraries=pg_cron".into(),
        format!("cron.database_name={database}"),
        "cron.launch_active_jobs=off".into(),
        "cron.log_run=off".into(),
    ]
}

fn unavailable(what: String) -> RestoreError {
    JobError::new(R::TargetUnavailable, what).into()
}

fn version_text(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// The sandbox's server as any other.
fn config_of(sandbox: &Sandbox) -> DbConfig {
    DbConfig {
        host: sandbox.host().to_owned(),
        port: 5432,
        user: "postgres".into(),
        password: None,
        ssl_mode: SslMode::Disable,
        tls: TlsFiles::default(),
        maintenance: "postgres".into(),
        connect_budget: Duration::from_secs(10),
    }
}

impl RestoreManager {
    /// Where sandboxes and their templates are.
    pub fn sandbox_dir(&self) -> PathBuf {
        let usual = || std::env::temp_dir().join("pgrestored-sandboxes");
        self.config.verify.sandbox_dir.clone().unwrap_or_else(usual)
    }

    /// Bytes of one row that is read back: the client's buffer may grow to twice as much.
    fn max_row(&self) -> usize {
        usize::try_from(self.config.archive_memory / 2).unwrap_or(usize::MAX)
    }

    /// A server of a fitting version that nothing of value is reachable from, with `settings` as far as a
    /// sandbox starts with them.
    pub(super) async fn ground(
        &self,
        major: Option<u32>,
        settings: Vec<String>,
    ) -> Result<VerificationServer, RestoreError> {
        if let Some(scratch) = &self.config.verify.scratch {
            let server = Server::new(scratch)?.with_max_row(self.max_row());
            let version = version_text(server.maintenance("verification").await?.version());
            let proof = ServerProof {
                kind: "scratch server".into(),
                version,
                isolation: None,
            };
            return Ok(VerificationServer {
                server,
                proof,
                sandbox: None,
            });
        }
        let (bindirs, parent) = (self.config.pg_bindir.clone(), self.sandbox_dir());
        let started = tokio::task::spawn_blocking(move || {
            let all = found(&bindirs);
            let none = "no PostgreSQL server on this machine: install one, or set PG_BINDIR or SCRATCH_DB_HOST";
            let binaries = fitting(&all, major).ok_or_else(|| std::io::Error::other(none))?;
            Sandbox::isolated(&binaries.dir, &parent, &settings).or_else(|e| {
                match settings.as_slice() {
                    [] => Err(e),
                    // A library that is not there; the preflight says what is missing.
                    _ => Sandbox::isolated(&binaries.dir, &parent, &[]),
                }
            })
        });
        let started = started
            .await
            .map_err(|e| RestoreError::internal(format!("starting a sandbox died: {e}")))?;
        let sandbox = started.map_err(|e| unavailable(format!("no sandbox: {e}")))?;
        let isolation = sandbox.isolation().clone();
        let server = Server::new(&config_of(&sandbox))?.with_max_row(self.max_row());
        let proof = ServerProof {
            kind: "sandbox".into(),
            version: String::new(),
            isolation: None,
        };
        let mut ground = VerificationServer {
            server,
            proof,
            sandbox: Some(sandbox),
        };
        if let (true, Some(why)) = (self.config.verify.require_isolation, &isolation.why_not) {
            return Err(unavailable(format!("SANDBOX_ISOLATION is require: {why}")));
        }
        ground.proof.version =
            version_text(ground.server.maintenance("verification").await?.version());
        ground.proof.isolation = Some(isolation);
        Ok(ground)
    }
}
