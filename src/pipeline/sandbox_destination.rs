//! The server of a verification as a destination, or the target server for a rehearsal: its database is never swapped.

use super::destination::Destination;
use crate::database::{CreateOptions, Loader, Staging, TemporaryDatabase};
use crate::error::RestoreError;
use crate::postgres::{Server, Session};
use pgdump_archive::{TextEncoding, TocEntry};

/// The locked database of a verification.
pub(super) struct SandboxDestination<'a> {
    server: &'a Server,
    locked: &'a TemporaryDatabase,
    loader: Option<Loader>,
    /// The request whose rehearsal this is; the server has other databases.
    rehearsed: Option<&'a str>,
}

impl<'a> SandboxDestination<'a> {
    pub(super) fn new(
        server: &'a Server,
        locked: &'a TemporaryDatabase,
        loader: Option<Loader>,
    ) -> Self {
        SandboxDestination {
            server,
            locked,
            loader,
            rehearsed: None,
        }
    }

    /// A database of its own on the target server, for the rehearsal of this request.
    pub(super) fn of_rehearsal(self, request_id: &'a str) -> Self {
        SandboxDestination {
            rehearsed: Some(request_id),
            ..self
        }
    }

    /// Whether a role without powers loads.
    pub(super) fn is_confined(&self) -> bool {
        self.loader.is_some()
    }
}

impl Destination for SandboxDestination<'_> {
    fn session(&self) -> &Session {
        self.locked.session()
    }

    fn server(&self) -> &Server {
        self.server
    }

    fn loader(&self) -> Option<&Loader> {
        self.loader.as_ref()
    }

    fn database(&self) -> &str {
        &self.locked.name
    }

    fn final_name(&self) -> &str {
        &self.locked.name
    }

    fn recorded_name(&self) -> String {
        self.locked.name.clone()
    }

    fn place(&mut self, _entries: &[TocEntry]) -> Vec<String> {
        vec![]
    }

    async fn create_options(
        &self,
        entries: &[TocEntry],
        encoding: &TextEncoding,
    ) -> Result<CreateOptions, RestoreError> {
        let options = CreateOptions::of_dump(self.session(), entries, encoding).await?;
        // To copy files, the server writes a checkpoint.
        Ok(match self.rehearsed {
            None => options.by_files(),
            Some(_) => options,
        })
    }

    async fn create(&self, options: &CreateOptions) -> Result<Staging, RestoreError> {
        let staging = match self.rehearsed {
            None => self.locked.create(options).await?,
            Some(request_id) => self.locked.create_marked(options, request_id).await?,
        };
        if let Some(loader) = &self.loader {
            self.locked.admit(loader, &staging).await?;
        }
        Ok(staging)
    }
}
