//! The server on which a backup is verified: a sandbox on this machine, or a scratch server.

use std::path::PathBuf;
use std::time::Duration;

use super::preload::{self, PreloadLibrary};
use crate::config::{Config, DbConfig, FirstContact, SslMode, TlsFiles};
use crate::database::TemporaryDatabase;
use crate::error::{DatabaseError, DatabaseKind, RestoreError, report};
use crate::postgres::Server;
use crate::proof::ServerProof;
use crate::sandbox::{Sandbox, fitting, found};

/// How long cleaning up a scratch server may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// A server to restore into, and its description for the report.
pub(super) struct VerificationServer {
    pub server: Server,
    pub proof: ServerProof,
    /// Dropping it ends the server.
    sandbox: Option<Sandbox>,
}

impl Drop for VerificationServer {
    fn drop(&mut self) {
        // Dropping it waits for processes.
        if let (Some(sandbox), Ok(runtime)) =
            (self.sandbox.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(sandbox));
        }
    }
}

impl VerificationServer {
    /// Locks a database for one verification. In a sandbox it is called `name`; on a scratch server it has a
    /// name of ours and is recorded for the reaper.
    ///
    /// # Errors
    /// `target_busy`, `target_unavailable`.
    pub async fn claim(
        &self,
        request_id: &str,
        name: String,
    ) -> Result<TemporaryDatabase, RestoreError> {
        if self.sandbox.is_some() {
            TemporaryDatabase::claim(&self.server, request_id, name, false).await
        } else {
            TemporaryDatabase::claim(
                &self.server,
                request_id,
                TemporaryDatabase::name_for(request_id),
                true,
            )
            .await
        }
    }

    /// Whether the loaded code can reach nothing outside its own server.
    pub fn is_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// Drops the database from a scratch server. A sandbox is removed as a whole.
    pub async fn clean_up(&self, database: &TemporaryDatabase) {
        if self.sandbox.is_some() {
            return;
        }
        match tokio::time::timeout(CLEANUP, database.discard()).await {
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

/// Names that every server has.
const TAKEN: [&str; 3] = ["postgres", "template0", "template1"];

/// The name of the backup's database, if a database of a sandbox can have it.
pub(super) fn own_name(database: Option<&str>) -> Option<String> {
    let name = database?;
    let fits = !name.is_empty() && name.len() <= 63 && !name.chars().any(char::is_control);
    (fits && !TAKEN.contains(&name)).then(|| name.to_owned())
}

fn unavailable(what: String) -> RestoreError {
    DatabaseError::new(DatabaseKind::Unavailable, what).into()
}

fn version_text(number: u32) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

/// The connection parameters of a sandbox.
fn config_of(sandbox: &Sandbox) -> DbConfig {
    DbConfig {
        host: sandbox.host().to_owned(),
        port: 5432,
        user: "postgres".into(),
        password: None,
        passwords: None,
        ssl_mode: SslMode::Disable,
        tls: TlsFiles::default(),
        maintenance: "postgres".into(),
        connect_budget: Duration::from_secs(10),
        first_contact: FirstContact::default(),
    }
}

/// Folder of sandboxes and their templates. Users of one machine share the folder for temporary files, so each has a
/// folder of its own there.
pub(crate) fn sandbox_dir(config: &Config) -> PathBuf {
    let usual = || usual_folder(rustix::process::getuid().as_raw());
    config.verify.sandbox_dir.clone().unwrap_or_else(usual)
}

fn usual_folder(uid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("pgrestored-sandboxes-{uid}"))
}

/// Largest row that is read back, in bytes: the client's buffer may grow to twice as much.
fn max_row(config: &Config) -> usize {
    usize::try_from(config.archive_memory / 2).unwrap_or(usize::MAX)
}

impl VerificationServer {
    /// The scratch server if one is configured, else a sandbox of the major version that suits the backup
    /// best, which loads those of the libraries that it has, if it starts with them.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub(super) async fn start(
        config: &Config,
        major: Option<u32>,
        libraries: Vec<PreloadLibrary>,
    ) -> Result<Self, RestoreError> {
        match &config.verify.scratch {
            Some(scratch) => Self::scratch(config, scratch).await,
            None => Self::sandbox(config, major, libraries).await,
        }
    }

    async fn scratch(config: &Config, scratch: &DbConfig) -> Result<Self, RestoreError> {
        let server = Server::new(scratch)?.with_max_row(max_row(config));
        let version = version_text(server.maintenance("verification").await?.version());
        Ok(VerificationServer {
            server,
            proof: ServerProof {
                kind: "scratch server".into(),
                version,
                isolation: None,
            },
            sandbox: None,
        })
    }

    async fn sandbox(
        config: &Config,
        major: Option<u32>,
        libraries: Vec<PreloadLibrary>,
    ) -> Result<Self, RestoreError> {
        let (bindirs, parent) = (config.pg_bindir.clone(), sandbox_dir(config));
        let started = tokio::task::spawn_blocking(move || {
            let all = found(&bindirs);
            let none = "no PostgreSQL server on this machine: install one, or set PG_BINDIR or SCRATCH_DB_HOST";
            let binaries = fitting(&all, major).ok_or_else(|| std::io::Error::other(none))?;
            let settings = preload::settings(&binaries.dir, &libraries);
            Sandbox::isolated(&binaries.dir, &parent, &settings).or_else(|e| {
                match settings.as_slice() {
                    [] => Err(e),
                    // A library does not work; the preflight says which is not loaded.
                    _ => Sandbox::isolated(&binaries.dir, &parent, &[]),
                }
            })
        });
        let started = started
            .await
            .map_err(|e| RestoreError::internal(format!("starting a sandbox panicked: {e}")))?;
        let sandbox = started.map_err(|e| unavailable(format!("no sandbox: {e}")))?;
        let isolation = sandbox.isolation().clone();
        let server = Server::new(&config_of(&sandbox))?.with_max_row(max_row(config));
        let mut started = VerificationServer {
            server,
            proof: ServerProof {
                kind: "sandbox".into(),
                version: String::new(),
                isolation: None,
            },
            sandbox: Some(sandbox),
        };
        if let (true, Some(why)) = (config.verify.require_isolation, &isolation.why_not) {
            return Err(unavailable(format!("SANDBOX_ISOLATION is require: {why}")));
        }
        let session = started.server.maintenance("verification").await?;
        started.proof.version = version_text(session.version());
        started.proof.isolation = Some(isolation);
        Ok(started)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn each_user_has_a_folder_for_sandboxes() {
        assert_ne!(usual_folder(0), usual_folder(1000));
        let dir = |flags: &[(&str, &str)]| {
            let raw = RawConfig::from_flags(flags).unwrap();
            sandbox_dir(&Config::new(&raw).unwrap())
        };
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(dir(&[("sandbox-dir", "")]), usual_folder(uid));
        assert_eq!(
            dir(&[("sandbox-dir", "/sandbox")]),
            PathBuf::from("/sandbox")
        );
    }
}
