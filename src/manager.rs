//! [`RestoreManager`]: the interface of restores, verifications and rollbacks. The work is done by the
//! jobs of `pipeline`, on the backups of [`BackupCatalog`].

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backup::{Backup, PinnedBackup};
use crate::config::{Config, Resume};
use crate::database::{
    self, IdleTarget, Promoted, Promotion, ReapScope, ReapTerms, Reaped, ResumeTerms,
    RetainedDatabase, RolledBack, WaitingRestore,
};
use crate::error::{RestoreError, report};
use crate::event::{Advice, RestoreResult};
use crate::job::{BackupRef, KeepProgress, OnExisting, Rehearsal, RestoreJob, VerifyJob};
use crate::metrics::RestoreMetricsManager;
use crate::pipeline::{self, Services, UnclaimedAttempts, targets};
use crate::postgres::Server;
use crate::progress::Progress;
use crate::store::Stores;
use pgdump_archive::Archive;
use pgdump_restore::Finding;

pub use crate::catalog::{
    BackupCatalog, BackupProof, BackupSetStatus, ClusterDatabaseProof, DatabaseStatus,
    ProvenBackup, ProvenGeneration,
};
pub use crate::pipeline::{
    JobOutcome, MaskDestination, MaskJob, MaskSuggestion, MaskedArchive, SuggestedColumn,
    SuggestedTable,
};

/// Core component responsible for database restore operations.
#[derive(Clone)]
pub struct RestoreManager {
    services: Services,
}

impl RestoreManager {
    pub fn new(
        config: Arc<Config>,
        stores: Arc<Stores>,
        server: Server,
        metrics: RestoreMetricsManager,
    ) -> Self {
        let catalog = BackupCatalog::new(config.clone(), stores, metrics.clone());
        RestoreManager {
            services: Services {
                config,
                catalog,
                server,
                metrics,
                unclaimed: UnclaimedAttempts::default(),
            },
        }
    }

    pub fn config(&self) -> &Config {
        &self.services.config
    }

    /// The backups, and what is known about them.
    pub fn catalog(&self) -> &BackupCatalog {
        &self.services.catalog
    }

    /// Restore the backup `backup_name` into a new database `target_db`. Returns true once it is in place.
    ///
    /// # Errors
    /// `RestoreError` if the restore fails, as `ValidationError` if the backup or request is wrong.
    pub async fn restore_backup(
        &self,
        backup_name: &str,
        target_db: &str,
    ) -> Result<bool, RestoreError> {
        let job = RestoreJob {
            request_id: uuid::Uuid::new_v4().to_string(),
            backup: BackupRef::from_name(backup_name, "")?,
            generation: None,
            crc32c: None,
            target_db: target_db.to_owned(),
            on_existing: OnExisting::Fail,
            jobs: None,
            deadline: None,
            labels: Default::default(),
            published_us: None,
            attempt: 1,
            policy: None,
            keep_previous: None,
            masking: None,
            database: None,
            selection: Default::default(),
            in_place: None,
            on_error: None,
            finish: Default::default(),
            is_rehearsal: false,
            keep: KeepProgress::Never,
            digest: String::new(),
        };
        let done = self
            .run(&job, Arc::default(), CancellationToken::new())
            .await;
        match done.result.error {
            None => Ok(true),
            Some(e) => Err(e.into()),
        }
    }

    /// List available database backups: name, size in bytes, created, checksum (CRC32C) and
    /// generation of each, by name.
    ///
    /// # Errors
    /// `StorageError` if the listing fails.
    pub async fn list_available_backups(&self) -> Result<Vec<Backup>, RestoreError> {
        self.catalog().list_backups("").await
    }

    /// Runs one restore to its end: there is always a result.
    pub async fn run(
        &self,
        job: &RestoreJob,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> JobOutcome {
        Box::pin(pipeline::restore::run(&self.services, job, progress, stop)).await
    }

    /// Proves that a backup can be restored, to the depth that the job or the configuration asks for. There
    /// is always an answer; a final answer is written as evidence beside the backup.
    pub async fn verify_backup(
        &self,
        job: &VerifyJob,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> JobOutcome {
        Box::pin(pipeline::verification::run(
            &self.services,
            job,
            progress,
            stop,
        ))
        .await
    }

    /// The newest results of jobs that ended, newest first, at most `most`: those that are recorded (RESTORE_RECORDS),
    /// otherwise the restores in the target server's journal.
    ///
    /// # Errors
    /// `access_denied`, `download_failed`, `target_unavailable`.
    pub async fn past_results(&self, most: usize) -> Result<Vec<RestoreResult>, RestoreError> {
        if let Some(recorded) = self.catalog().newest_recorded(most).await? {
            return Ok(recorded);
        }
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let outcomes = database::journaled(&self.services.server, most).await?;
        let results = outcomes.into_iter().map(serde_json::from_value);
        Ok(results.filter_map(Result::ok).collect())
    }

    /// Tries all definitions of a backup without rows, in a database of its own on the target server.
    ///
    /// # Errors
    /// Everything that keeps definitions from being tried; what the server refuses is part of the answer.
    pub async fn rehearse(
        &self,
        job: &RestoreJob,
        progress: &Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<Rehearsal, RestoreError> {
        let rehearsed = pipeline::rehearsal::run(&self.services, job, progress, stop);
        Box::pin(rehearsed).await
    }

    /// Writes a masked copy of a backup as an archive, without a database.
    ///
    /// # Errors
    /// The backup cannot be read, the rules do not fit it, or the archive cannot be written. Then there is no archive, or its
    /// end is missing.
    pub async fn mask(
        &self,
        job: MaskJob,
        progress: Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<MaskedArchive, RestoreError> {
        let masked = pipeline::masked_archive::run(&self.services, job, progress, stop);
        Box::pin(masked).await
    }

    /// Looks at a backup for columns that masking rules should name.
    ///
    /// # Errors
    /// The backup cannot be opened, or what is read of it is damaged.
    pub async fn suggest_masks(
        &self,
        backup: &BackupRef,
        database: Option<String>,
        stop: CancellationToken,
    ) -> Result<MaskSuggestion, RestoreError> {
        let found = pipeline::mask_samples::run(&self.services, backup, database, stop);
        Box::pin(found).await
    }

    /// Counts a request that has its final outcome.
    pub fn record_completion(&self, outcome: &JobOutcome) {
        pipeline::record_completion(&self.services, outcome);
    }

    /// Compares a backup with the target server under the configured policy and the trust in its source.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn preflight(
        &self,
        archive: &Archive,
        wanted: &BackupRef,
        pinned: Option<&PinnedBackup>,
    ) -> Result<Vec<Finding>, RestoreError> {
        pipeline::preflight::preflight(&self.services, archive, wanted, pinned).await
    }

    /// Settings of the target server that will make a restore of a backup slower; `None` if the server does not tell.
    pub async fn advice(
        &self,
        archive: &Archive,
        pinned: Option<&PinnedBackup>,
    ) -> Option<Vec<Advice>> {
        pipeline::preflight::advice(&self.services, archive, pinned).await
    }

    /// Whether a database may be restored into at all.
    ///
    /// # Errors
    /// `target_not_allowed`; `invalid_request` for what cannot be a name.
    pub fn check_target(&self, name: &str) -> Result<(), RestoreError> {
        targets::check_target(self.config(), name)
    }

    /// Whether a worker has a server to rehearse restores on.
    ///
    /// # Errors
    /// `target_not_allowed`.
    pub(crate) fn check_has_target(&self) -> Result<(), RestoreError> {
        targets::check_served(self.config())
    }

    /// Whether a worker restores into a database at all. One without a target server only verifies.
    ///
    /// # Errors
    /// As [`RestoreManager::check_target`].
    pub(crate) fn check_served(&self, name: &str, is_fill: bool) -> Result<(), RestoreError> {
        targets::check_served(self.config())?;
        targets::check_restore(self.config(), name, is_fill)
    }

    /// Whether the target server has answered: if not, nothing can have happened there.
    pub fn has_reached_target(&self) -> bool {
        self.services.server.is_reached()
    }

    /// Holds a target and a request on which no restore works.
    ///
    /// # Errors
    /// As [`database::hold_idle`].
    pub(crate) async fn hold_idle(
        &self,
        target_db: &str,
        request_id: &str,
    ) -> Result<IdleTarget, RestoreError> {
        database::hold_idle(&self.services.server, target_db, request_id).await
    }

    /// Exchanges `target_db` with the database that it replaced last, or with `wanted`.
    ///
    /// # Errors
    /// As [`database::rollback`].
    pub async fn rollback(
        &self,
        target_db: &str,
        wanted: Option<&str>,
        request_id: &str,
    ) -> Result<RolledBack, RestoreError> {
        self.check_target(target_db)?;
        let digest = format!("rollback of {target_db}");
        let job = RestoreJob::replacing(request_id, target_db, digest);
        let terms = targets::claim_policy(self.config());
        database::rollback(&self.services.server, &job, wanted, terms).await
    }

    /// Swaps a database that a restore made under another name into the target's place.
    ///
    /// # Errors
    /// As [`database::promote`].
    pub async fn promote(&self, promotion: &Promotion<'_>) -> Result<Promoted, RestoreError> {
        self.check_target(promotion.target_db)?;
        targets::check_copy(self.config(), promotion.copy)?;
        let terms = targets::claim_policy(self.config());
        database::promote(&self.services.server, promotion, terms).await
    }

    /// The databases that are kept for a rollback of `target_db`, newest first.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn kept(&self, target_db: &str) -> Result<Vec<RetainedDatabase>, RestoreError> {
        let keep = self.config().keep_previous;
        database::kept(&self.services.server, target_db, keep).await
    }

    /// The restores on the target server that stopped, and whose work is kept for their next attempt.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn waiting(&self) -> Result<Vec<WaitingRestore>, RestoreError> {
        let terms = ResumeTerms::of(self.config());
        if terms.mode == Resume::Never {
            return Ok(vec![]);
        }
        database::waiting(&self.services.server, terms.within).await
    }

    /// The request whose restore into `target` could be continued if it were not running, as far as the server knows.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn occupied(&self, target: &str) -> Result<Option<String>, RestoreError> {
        let within = ResumeTerms::of(self.config()).within;
        database::occupied(&self.services.server, within, target).await
    }

    /// One pass of the reaper over the target server, and over the scratch server if there is one.
    ///
    /// # Errors
    /// `target_unavailable`, `access_denied`.
    pub async fn reap(&self, scope: ReapScope) -> Result<Reaped, RestoreError> {
        let (config, server) = (self.config(), &self.services.server);
        let terms = ReapTerms {
            resume: ResumeTerms::of(config),
            scope,
        };
        let target = database::reap(server, config.request_max_age, terms).await;
        let Some(scratch) = &config.verify.scratch else {
            return target;
        };
        // A worker that only verifies has no target server.
        let scratch = Server::new(scratch)?;
        let mut reaped = database::reap(&scratch, config.request_max_age, terms).await?;
        match target {
            Ok(more) => reaped.add(more),
            Err(e) => reaped
                .failed
                .push(format!("the target server: {}", report(&e))),
        }
        Ok(reaped)
    }

    /// Folder of sandboxes and their templates.
    pub fn sandbox_dir(&self) -> PathBuf {
        pipeline::sandbox_dir(self.config())
    }
}
