//! Where a backup is loaded. The target server and the sandbox implement one trait, so that a restore
//! and a verification share everything up to the loaded database.

use super::placement::facts_for_database;
use crate::database::{CreateOptions, Loader, Staging};
use crate::error::RestoreError;
use crate::postgres::{Server, ServerFacts, Session};
use pgdump_archive::{TextEncoding, TocEntry};

/// A locked place for one database on a server.
pub(super) trait Destination {
    /// The session that holds the lock, on the maintenance database.
    fn session(&self) -> &Session;

    /// The server, as our own role.
    fn server(&self) -> &Server;

    /// The role that loads, if that is not our own.
    fn loader(&self) -> Option<&Loader>;

    /// Name of the database while it is loaded.
    fn database(&self) -> &str;

    /// Name of the database afterwards.
    fn final_name(&self) -> &str;

    /// Name that the reaper knows the job's database and roles by.
    fn recorded_name(&self) -> String;

    /// Decides what the entries of the backup decide: where to load it. Returns notes for the result.
    fn place(&mut self, entries: &[TocEntry]) -> Vec<String>;

    /// Encoding, locale and template of the database, for a dump with these entries and this encoding.
    ///
    /// # Errors
    /// Those of the connection.
    async fn create_options(
        &self,
        entries: &[TocEntry],
        encoding: &TextEncoding,
    ) -> Result<CreateOptions, RestoreError>;

    /// Creates the empty database and admits the loading role.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    async fn create(&self, options: &CreateOptions) -> Result<Staging, RestoreError>;

    /// The server's facts, for the role that loads and the database that is loaded.
    ///
    /// # Errors
    /// `target_unavailable`.
    async fn facts(&self) -> Result<ServerFacts, RestoreError> {
        let session = self.session();
        let facts = session.facts().await?;
        let facts = facts_for_database(facts, self.database(), self.final_name());
        Ok(match self.loader() {
            Some(loader) => loader.facts(facts, &session.trusted_extensions().await?),
            None => facts,
        })
    }

    /// The server as the role that loads.
    fn loading_server(&self) -> &Server {
        self.loader().map_or(self.server(), |loader| &loader.server)
    }
}
