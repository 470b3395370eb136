//! The states that a backup goes through in restores and verifications. Each state consumes the one before it:
//! `Pinned` → `Opened` → `Prepared` → `CreatedStaging` → `LoadedStaging` → `Proven`.

use std::sync::Arc;

use super::destination::Destination;
use super::job_context::JobContext;
use super::target_destination::{CreatedWork, TargetDestination, WantedWork};
use crate::backup::{IntegrityCheck, PinnedBackup, ProvenBytes, ReadHint, Source};
use crate::catalog::WantedBackup;
use crate::config::{Config, Trust};
use crate::database::{CreateOptions, ProvenStaging, Staging};
use crate::error::RestoreError;
use crate::event::RestoreResult;
use crate::job::made_for;
use crate::policy::{OnError, Owners, Policy, Selection};
use crate::postgres::{Server, ServerConnections};
use crate::progress::Progress;
use pgdump_archive::{Archive, BlockIndex, ContentDigest, TocEntry};
use pgdump_mask::Masking;
use pgdump_restore::{LoadMasking, LoadOptions, Loaded, Refusals, Rehearsed, Rewriter, WorkRecord};

/// One generation of a backup, or standard input.
#[derive(Clone)]
pub(super) struct Pinned {
    backup: Option<PinnedBackup>,
}

/// A backup that was read as far as its table of contents, and the check of all of its bytes.
pub(super) struct Opened {
    pub(super) archive: Archive,
    pub(super) integrity: IntegrityCheck,
}

/// What is loaded, and under which rules.
pub(super) struct LoadRequest<'a> {
    pub(super) policy: Policy,
    pub(super) selection: &'a Selection,
    /// The object, beside which the globals file is; `None` for standard input.
    pub(super) backup: Option<&'a PinnedBackup>,
    /// How rows are masked, if they are.
    pub(super) masking: Option<Masking>,
}

/// What preparing and loading leave for the result, also when one of them fails.
#[derive(Default)]
pub(super) struct LoadSummary {
    pub(super) notes: Vec<String>,
    /// How the dump was rewritten for the server.
    pub(super) rewriter: Option<Arc<Rewriter>>,
    /// What the server refused.
    pub(super) refusals: Option<Arc<Refusals>>,
    /// What was masked.
    pub(super) masking: Option<Arc<LoadMasking>>,
}

impl LoadSummary {
    /// Whether planner statistics of the backup were left out, because they may hold values of masked rows.
    pub(super) fn lacks_statistics(&self) -> bool {
        self.masking
            .as_ref()
            .is_some_and(|masking| masking.left_out_statistics())
    }

    /// Writes into a result what the load left out, if it was to leave out what the server refuses.
    pub(super) fn tell_refusals(&self, result: &mut RestoreResult) {
        let refusals = self.refusals.as_ref();
        let Some(refusals) = refusals.filter(|r| r.on_error() == OnError::Skip) else {
            return;
        };
        result.skipped = refusals.found();
        result.skipped_total = result.skipped.len() as u64;
        result.complete = Some(result.skipped.is_empty());
    }
}

/// A backup that fits the server, rewritten for it.
pub(super) struct Prepared {
    archive: Archive,
    integrity: IntegrityCheck,
    entries: Vec<TocEntry>,
    roles: Vec<String>,
    create_options: CreateOptions,
    /// The encoding of the database.
    encoding: String,
    rewriter: Arc<Rewriter>,
    masking: Option<Masking>,
}

/// What a restore begins with.
pub(super) enum Started {
    /// A database to load into, which may already hold what an earlier attempt has loaded.
    Staging(Box<CreatedStaging>),
    /// An earlier attempt has loaded and proven everything; the result of that.
    Sealed(ProvenStaging, serde_json::Value),
}

/// A database that the loading role, and no one else, can connect to: empty, or with what an earlier attempt has loaded.
pub(super) struct CreatedStaging {
    archive: Archive,
    integrity: IntegrityCheck,
    entries: Vec<TocEntry>,
    rewriter: Arc<Rewriter>,
    masking: Option<Masking>,
    pub(super) staging: Staging,
    /// The server as the role that loads; the database's name means this database.
    pub(super) server: Server,
    /// What was done in it, and is done from now on.
    pub(super) record: Arc<WorkRecord>,
    /// The server's connections before the load; `None` if it does not say.
    connections: Option<ServerConnections>,
}

/// How a backup is loaded.
#[derive(Default)]
pub(super) struct LoadStyle {
    /// Collects what passes by, for a comparison afterwards.
    pub(super) content_digest: Option<Arc<ContentDigest>>,
    /// Where rows go into tables that exist already: tables whose rows depend on others.
    pub(super) in_order_into: Option<Arc<std::collections::HashSet<String>>>,
    /// The database that the staging database is a copy of.
    pub(super) copy_of: Option<String>,
}

/// A database with everything that the archive holds. The bytes are not yet compared with the object's.
pub(super) struct LoadedStaging {
    pub(super) staging: Staging,
    pub(super) server: Server,
    pub(super) sessions: usize,
    pub(super) loaded: Loaded,
    pub(super) integrity: IntegrityCheck,
    pub(super) rewriter: Arc<Rewriter>,
    pub(super) record: Arc<WorkRecord>,
}

/// A loaded database, all of whose bytes are the object's.
pub(super) struct Proven {
    pub(super) staging: Staging,
    pub(super) server: Server,
    pub(super) sessions: usize,
    pub(super) loaded: Loaded,
    pub(super) bytes: ProvenBytes,
    pub(super) rewriter: Arc<Rewriter>,
    pub(super) record: Arc<WorkRecord>,
}

impl Pinned {
    pub(super) fn new(backup: Option<PinnedBackup>) -> Self {
        Pinned { backup }
    }

    /// The object; `None` for standard input.
    pub(super) fn backup(&self) -> Option<&PinnedBackup> {
        self.backup.as_ref()
    }

    /// Where its bytes come from.
    pub(super) fn source(&self) -> Source {
        self.backup.clone().map_or(Source::Stdin, Source::Object)
    }

    /// Starts the download and reads the backup as far as its table of contents. Of a dump of a whole
    /// cluster, only `database` is read.
    ///
    /// # Errors
    /// `archive_unsupported`, `archive_corrupt`, `download_failed`, `invalid_request` where the backup
    /// does not contain `database`.
    pub(super) async fn open<J>(
        &self,
        context: &JobContext<'_, J>,
        database: Option<&str>,
    ) -> Result<Opened, RestoreError> {
        let wanted = WantedBackup {
            source: self.source(),
            database: database.map(str::to_owned),
        };
        let (progress, cancel) = (context.progress.clone(), context.cancel.clone());
        let (mut archive, integrity) = context
            .catalog()
            .read_database(wanted, ReadHint::Whole, progress, cancel)
            .await?;
        // SQL text of a whole cluster ends with another database.
        if database.is_none() {
            context
                .catalog()
                .look_ahead(&mut archive, self.backup())
                .await;
        }
        Ok(Opened { archive, integrity })
    }

    /// The same, to be read by several readers if it is a large archive that says where its data is.
    ///
    /// # Errors
    /// As [`Pinned::open`].
    pub(super) async fn open_by_offsets<J>(
        &self,
        context: &JobContext<'_, J>,
        database: Option<&str>,
    ) -> Result<Opened, RestoreError> {
        let Opened { archive, integrity } = self.open(context, database).await?;
        let Some(backup) = self.backup() else {
            return Ok(Opened { archive, integrity });
        };
        let (progress, cancel) = (context.progress.clone(), context.cancel.clone());
        let (archive, integrity) = context
            .catalog()
            .read_by_offsets((archive, integrity), backup, progress, cancel)
            .await?;
        Ok(Opened { archive, integrity })
    }

    /// The same, with a restore index that says where the blocks of the archive are.
    ///
    /// # Errors
    /// As [`Pinned::open`]; an index that is wrong looks like a corrupt archive.
    pub(super) async fn open_by_index<J>(
        backup: PinnedBackup,
        index: BlockIndex,
        context: &JobContext<'_, J>,
    ) -> Result<Opened, RestoreError> {
        let (progress, cancel) = (context.progress.clone(), context.cancel.clone());
        let (archive, integrity) = context
            .catalog()
            .read_by_blocks(backup, index, progress, cancel)
            .await?;
        Ok(Opened { archive, integrity })
    }
}

impl Opened {
    /// Compares the backup with the server and rewrites it for the server.
    ///
    /// # Errors
    /// Everything that a preflight refuses, and a selection that the backup cannot satisfy.
    pub(super) async fn prepare<J>(
        mut self,
        context: &JobContext<'_, J>,
        destination: &mut impl Destination,
        request: LoadRequest<'_>,
        summary: &mut LoadSummary,
    ) -> Result<Prepared, RestoreError> {
        let LoadRequest {
            policy,
            selection,
            backup,
            masking,
        } = request;
        let globals = context
            .catalog()
            .globals(&policy, backup, context.cancel)
            .await?;
        let create_options = destination
            .create_options(self.archive.entries(), self.archive.encoding())
            .await?;
        let session = destination.session();
        let encoding = create_options.encoding(session).await?;
        pgdump_restore::convert_texts(session, &mut self.archive, &encoding).await?;
        summary
            .notes
            .extend(destination.place(self.archive.entries()));
        let rewriter = Rewriter::new(destination.facts().await?, policy, globals)
            .with_role_comment(made_for(&destination.recorded_name()));
        let rewriter = Arc::new(rewriter);
        summary.rewriter = Some(rewriter.clone());
        let stored = backup.map(|b| b.object.size);
        let prepared = pgdump_restore::prepare(&self.archive, selection, stored, &rewriter)?;
        summary.notes.extend(prepared.notes);
        if let Some(masking) = &masking {
            let fit = pgdump_restore::check_masking(&self.archive, &prepared.entries, masking);
            summary.notes.extend(fit?);
        }
        Ok(Prepared {
            archive: self.archive,
            integrity: self.integrity,
            entries: prepared.entries,
            roles: prepared.roles,
            create_options,
            encoding,
            rewriter,
            masking,
        })
    }
}

impl Prepared {
    /// Entries of the table of contents that are restored; none of SQL text, which has no table of
    /// contents.
    pub(super) fn entries(&self) -> &[TocEntry] {
        if self.archive.is_script() {
            &[]
        } else {
            &self.entries
        }
    }

    /// Number of definitions; of SQL text, those among its first statements.
    pub(super) fn definitions(&self) -> u64 {
        let is_one = |e: &&TocEntry| !e.has_data && !e.defn.is_empty();
        self.entries.iter().filter(is_one).count() as u64
    }

    /// The backup as it is.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// The entries that are restored; of SQL text, those among its first statements.
    pub(super) fn planned(&self) -> &[TocEntry] {
        &self.entries
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.rewriter.policy
    }

    /// The encoding that the database gets.
    pub(super) fn encoding(&self) -> &str {
        &self.encoding
    }

    /// The server's cores, if it says.
    pub(super) fn cores(&self) -> Option<usize> {
        self.rewriter.facts.cores
    }

    /// Creates the roles that are missing and the empty database. Nothing is recorded.
    ///
    /// # Errors
    /// `insufficient_privilege`, `insufficient_space`, `target_unavailable`, `restore_error`.
    pub(super) async fn create_staging(
        self,
        destination: &impl Destination,
        progress: &Progress,
        summary: &mut LoadSummary,
    ) -> Result<CreatedStaging, RestoreError> {
        // With `--data-only`, the database is a copy of the target.
        let _step = progress.long_step();
        create_roles(&self.roles, destination).await?;
        let staging = destination.create(&self.create_options).await?;
        let created = (staging, WorkRecord::off());
        Ok(self.created(destination, created, summary).await)
    }

    /// The same for the target of a restore, whose work is recorded. What an earlier attempt has left is continued if it
    /// belongs to the same; notes say why not.
    ///
    /// # Errors
    /// As [`Prepared::create_staging`].
    pub(super) async fn create_or_continue(
        self,
        destination: &TargetDestination<'_>,
        work: WantedWork<'_>,
        progress: &Progress,
        summary: &mut LoadSummary,
    ) -> Result<Started, RestoreError> {
        let _step = progress.long_step();
        create_roles(&self.roles, destination).await?;
        let options = &self.create_options;
        let created = destination
            .create_or_continue(options, self.entries(), work)
            .await?;
        match created {
            CreatedWork::Staging(staging, record) => {
                let created = self.created(destination, (staging, record), summary);
                Ok(Started::Staging(Box::new(created.await)))
            }
            CreatedWork::Sealed(staging, draft) => Ok(Started::Sealed(staging, draft)),
        }
    }

    async fn created(
        self,
        destination: &impl Destination,
        (mut staging, record): (Staging, Arc<WorkRecord>),
        summary: &mut LoadSummary,
    ) -> CreatedStaging {
        summary.notes.append(&mut staging.notes);
        let connections = destination.session().connections().await.ok();
        CreatedStaging {
            record,
            connections,
            archive: self.archive,
            integrity: self.integrity,
            entries: self.entries,
            rewriter: self.rewriter,
            masking: self.masking,
            server: staging.on(destination.loading_server()),
            staging,
        }
    }
}

/// Creates the roles that the backup needs and the server lacks.
async fn create_roles(
    roles: &[String],
    destination: &impl Destination,
) -> Result<(), RestoreError> {
    for sql in roles {
        destination
            .session()
            .run(sql)
            .await
            .map_err(|e| e.context("creating a role"))?;
    }
    Ok(())
}

impl CreatedStaging {
    /// Loads everything, with `jobs` sessions or as many as the configuration says; with fewer if the server's
    /// other clients would have none left.
    ///
    /// # Errors
    /// The first failure, with its entry: `data_rejected`, `role_missing`, `restore_error`, …; the
    /// archive's and the download's own errors.
    pub(super) async fn load<J>(
        self,
        context: &JobContext<'_, J>,
        jobs: Option<usize>,
        style: LoadStyle,
        summary: &mut LoadSummary,
    ) -> Result<LoadedStaging, RestoreError> {
        let config = context.config();
        let wanted = config.jobs_for(jobs, self.rewriter.facts.cores);
        let sessions = self.connections.map_or(wanted, |c| c.bound(wanted));
        if let Some(c) = self.connections.filter(|_| sessions < wanted) {
            tracing::warn!(
                jobs = sessions,
                "the load uses fewer connections than it should, to leave some to the server's other clients"
            );
            summary.notes.push(format!(
                "only {sessions} of {wanted} connections loaded: of {} that the server allows (max_connections), {} were in use, and {} \
                 are left to its other clients",
                c.allowed,
                c.in_use,
                c.spare()
            ));
        }
        let options = self.options(config, (sessions, style), summary);
        let observer = Arc::clone(context.progress);
        let loaded = pgdump_restore::load(
            &self.server,
            &self.staging.name,
            self.archive,
            self.entries,
            options,
            self.rewriter.clone(),
            observer,
        );
        let loaded = Box::pin(loaded).await?;
        summary.notes.extend(self.rewriter.unused_patterns());
        let of_masking = summary.masking.as_ref().map(|masking| masking.notes());
        summary.notes.extend(of_masking.unwrap_or_default());
        Ok(LoadedStaging {
            staging: self.staging,
            server: self.server,
            sessions,
            loaded,
            integrity: self.integrity,
            rewriter: self.rewriter,
            record: self.record,
        })
    }
}

impl CreatedStaging {
    fn options(
        &self,
        config: &Config,
        (sessions, style): (usize, LoadStyle),
        summary: &mut LoadSummary,
    ) -> LoadOptions {
        let refusals = Arc::new(Refusals::new(self.rewriter.policy.on_error));
        summary.refusals = Some(refusals.clone());
        let masking = self.masking.clone().map(LoadMasking::new);
        summary.masking = masking.map(Arc::new);
        LoadOptions {
            sessions,
            queue_bytes: config.queue_bytes,
            binary_from: config.binary_from,
            max_bytes: config.max_bytes,
            content_digest: style.content_digest,
            in_order_into: style.in_order_into,
            copy_of: style.copy_of,
            refusals,
            masking: summary.masking.clone(),
            record: self.record.clone(),
        }
    }

    /// Tries all definitions, without rows. What the server refuses is in the summary.
    ///
    /// # Errors
    /// Errors of the archive, the download and the connection.
    pub(super) async fn rehearse<J>(
        self,
        context: &JobContext<'_, J>,
        jobs: Option<usize>,
        summary: &mut LoadSummary,
    ) -> Result<Rehearsed, RestoreError> {
        let config = context.config();
        let wanted = config.jobs_for(jobs, self.rewriter.facts.cores);
        let sessions = self.connections.map_or(wanted, |c| c.bound(wanted));
        let options = self.options(config, (sessions, LoadStyle::default()), summary);
        let observer = Arc::clone(context.progress);
        let rehearsed = pgdump_restore::rehearse(
            &self.server,
            &self.staging.name,
            self.archive,
            self.entries,
            options,
            self.rewriter.clone(),
            observer,
        );
        Box::pin(rehearsed).await
    }
}

impl LoadedStaging {
    /// The loaded data is the backup's only if every byte was the object's.
    ///
    /// # Errors
    /// `checksum_mismatch`, `download_failed`.
    pub(super) fn prove(self) -> Result<Proven, RestoreError> {
        Ok(Proven {
            bytes: self.integrity.check()?,
            staging: self.staging,
            server: self.server,
            sessions: self.sessions,
            loaded: self.loaded,
            rewriter: self.rewriter,
            record: self.record,
        })
    }
}

impl Proven {
    /// What the swap asks for.
    pub(super) fn into_staging(self) -> ProvenStaging {
        self.staging.proven(self.loaded, self.bytes)
    }
}

/// The policy of a restore under this trust.
pub(super) fn policy_under(trust: Trust, policy: Policy) -> Policy {
    match trust {
        Trust::Full => policy,
        Trust::Restricted => restricted(policy),
    }
}

/// A restricted restore keeps nothing of the dump's roles: everything belongs to one role without powers.
pub(super) fn restricted(policy: Policy) -> Policy {
    Policy {
        owners: Owners::None,
        privileges: false,
        create_roles: false,
        globals: None,
        ..policy
    }
}
