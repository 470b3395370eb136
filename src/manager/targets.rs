//! Target databases: which may be restored into, the way back, and what is left on their server.

use super::RestoreManager;
use crate::admission::fits;
use crate::database::{self, ClaimPolicy, Reaped, RetainedDatabase, RolledBack};
use crate::error::{FailureReason as R, RestoreError, ValidationError};
use crate::job::{OnExisting, RestoreJob, check_target};
use crate::postgres::Server;

impl RestoreManager {
    /// Whether a database may be restored into at all.
    ///
    /// # Errors
    /// `target_not_allowed`, `invalid_request` for what cannot be a name.
    pub fn check_target(&self, name: &str) -> Result<(), RestoreError> {
        check_target(name, &self.config.db.maintenance)?;
        let refuse = |why: &str| {
            Err(ValidationError::new(R::TargetNotAllowed, format!("target_db: {why}")).into())
        };
        if self.config.protected_databases.iter().any(|p| p == name) {
            return refuse(&format!(
                "database {name} is protected (PROTECTED_DATABASES)"
            ));
        }
        if fits(&self.config.allowed_targets, name) {
            Ok(())
        } else {
            refuse(&format!("database {name} is none of ALLOWED_TARGETS"))
        }
    }

    pub(super) fn terms(&self) -> ClaimPolicy {
        ClaimPolicy {
            keep: self.config.keep_previous,
            deaths: self.config.quarantine_after,
            max_age: self.config.request_max_age,
        }
    }

    /// One pass of the reaper over the target server, and over the scratch server where there is one.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn reap(&self) -> Result<Reaped, RestoreError> {
        let max_age = self.config.request_max_age;
        let mut reaped = database::reap(&self.server, max_age).await?;
        if let Some(scratch) = &self.config.verify.scratch {
            let more = database::reap(&Server::new(scratch)?, max_age).await?;
            reaped.add(more);
        }
        Ok(reaped)
    }

    /// Exchanges `target_db` with the database that it replaced last, or with `wanted`.
    ///
    /// # Errors
    /// As [`target::rollback`].
    pub async fn rollback(
        &self,
        target_db: &str,
        wanted: Option<&str>,
        request_id: &str,
    ) -> Result<RolledBack, RestoreError> {
        self.check_target(target_db)?;
        let digest = format!("rollback of {target_db}");
        let job = RestoreJob::replacing(request_id, target_db, digest);
        database::rollback(&self.server, &job, wanted, self.terms()).await
    }

    /// The databases that are kept for a rollback of `target_db`, the newest first.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn kept(&self, target_db: &str) -> Result<Vec<RetainedDatabase>, RestoreError> {
        database::kept(&self.server, target_db, self.config.keep_previous).await
    }
}

/// A part of a backup makes a new database; rows alone go into a copy of one that is there. Anything
/// else would lose what the part does not have.
pub(super) fn check_part(job: &RestoreJob) -> Result<(), RestoreError> {
    let replaces = job.on_existing == OnExisting::Replace;
    match (job.selection.is_everything(), job.selection.data_only) {
        (false, false) if replaces => {
            let what = "a part of a backup does not replace a whole database: the rest of it would be gone";
            Err(ValidationError::new(R::TargetNotAllowed, what).into())
        }
        (_, true) if !replaces => {
            let what = "rows alone go into a copy of an existing database, which then takes its place: on_existing must be replace";
            Err(ValidationError::new(R::InvalidRequest, what).into())
        }
        _ => Ok(()),
    }
}
