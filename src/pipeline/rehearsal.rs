//! A rehearsal: all definitions of a backup, and none of its rows, in a database of its own on the target server.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::job_context::{JobClock, JobContext, Services};
use super::job_outcome::{JobOutcome, end_spans};
use super::placement::bound_to_target;
use super::sandbox_destination::SandboxDestination;
use super::states::{LoadRequest, LoadSummary, Opened, Pinned, policy_under};
use super::targets;
use crate::backup::{self, PinnedBackup};
use crate::catalog;
use crate::config::Trust;
use crate::database::{Loader, TemporaryDatabase};
use crate::error::{
    DatabaseError, DatabaseKind, RestoreError, ValidationError, ValidationKind, report as said,
};
use crate::event::{Kind, RestoreResult};
use crate::job::{OnExisting, Rehearsal, RehearsedRefusal, RestoreJob};
use crate::policy::{InPlace, OnError, Policy, Rehearse};
use crate::postgres::{Server, Session, ident, map_pg_error};
use crate::progress::Progress;
use pgdump_restore::{Refusal, Rehearsed, Stage, fixes_of, hooks_of, refusal_error};

/// How long cleaning up may take.
const CLEANUP: Duration = Duration::from_secs(60);

/// From this size on, in bytes, a restore is rehearsed first (`RESTORE_REHEARSE=auto`).
const LARGE: u64 = 1 << 30;

const NOTE: &str = "without rows: what only rows show is not known, such as rows that a constraint or a unique index rejects, \
    and materialized views, which are created without being filled";

type RestoreContext<'a> = JobContext<'a, RestoreJob>;

/// Runs the rehearsal of a request: there is always a result. What the server refuses is an answer, and no failure.
pub(crate) async fn answer(
    services: &Services,
    job: &RestoreJob,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> JobOutcome {
    let clock = JobClock::start();
    let rehearsed = run(services, job, &progress, stop).await;
    let mut result = RestoreResult::new(&job.request_id, (clock.started(), clock.now()));
    result.kind = Kind::Rehearsal;
    result.duration_seconds = clock.seconds();
    result.attempt = job.attempt;
    result.labels = job.labels.clone();
    match rehearsed {
        Ok(rehearsal) => {
            result.backup = rehearsal.backup.clone();
            result.rehearsal = Some(Box::new(rehearsal));
        }
        Err(e) => {
            let (stage, reason) = (progress.stage(), e.reason());
            tracing::warn!(stage = stage.as_str(), failure_reason = %reason, error = said(&e), "the rehearsal failed");
            result.fail(&e, stage);
        }
    }
    result.bound();
    let failure = result.error.as_ref().map(|e| e.reason);
    end_spans(&progress, failure);
    JobOutcome {
        result,
        failure,
        repeated: false,
        is_final: false,
        counted: None,
        is_denied_alone: false,
        proof: None,
    }
}

/// Rehearses the restore that `job` asks for. Its target is not touched, and need not exist.
///
/// # Errors
/// Everything that keeps definitions from being tried: errors of the backup, the download, the server.
pub(crate) async fn run(
    services: &Services,
    job: &RestoreJob,
    progress: &Arc<Progress>,
    stop: CancellationToken,
) -> Result<Rehearsal, RestoreError> {
    let cancel = stop.child_token();
    let _guard = cancel.clone().drop_guard();
    let context = JobContext {
        services,
        job,
        progress,
        cancel: &cancel,
        clock: JobClock::start(),
    };
    if job.selection.data_only {
        let what = "--data-only: a data-only restore has no definitions to rehearse";
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    targets::check_part(job)?;
    progress.enter(Stage::Prepare);
    let crc32c = job.crc32c.as_deref();
    let crc32c = crc32c.map(backup::decode_crc32c).transpose()?;
    let pin = context.catalog().pin(&job.backup, job.generation, crc32c);
    let mut bounds = context.bounds("rehearsal", job.deadline);
    let pinned = bounds.within(pin).await?;
    rehearse(&context, pinned).await
}

/// The database of a rehearsal. The journal knows it before it exists, and a reaper drops what a killed worker leaves.
struct RehearsalDatabase(Option<TemporaryDatabase>);

impl RehearsalDatabase {
    async fn clean_up(mut self) {
        if let Some(database) = self.0.take() {
            clean_up(&database).await;
        }
    }
}

impl Drop for RehearsalDatabase {
    /// The job ended before the rehearsal did.
    fn drop(&mut self) {
        if let (Some(database), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move { clean_up(&database).await });
        }
    }
}

/// Rehearses the restore of a backup.
async fn rehearse(
    context: &RestoreContext<'_>,
    pinned: Option<PinnedBackup>,
) -> Result<Rehearsal, RestoreError> {
    let job = context.job;
    let clock = JobClock::start();
    let backup = pinned.as_ref().map(catalog::describe).unwrap_or_default();
    let own = Pinned::new(pinned.clone());
    let opened = own.open(context, job.database.as_deref()).await?;
    let id = format!("rehearsal:{}", job.request_id);
    let name = TemporaryDatabase::name_for(&id);
    let server = &context.services.server;
    let mut bounds = context.bounds("rehearsal", job.deadline);
    let claim = TemporaryDatabase::claim(server, &id, name, true);
    let claimed = RehearsalDatabase(Some(bounds.within(claim).await?));
    let tried = async {
        let Some(database) = &claimed.0 else {
            return Err(RestoreError::internal("a rehearsal without a database"));
        };
        check_right(server, database.session()).await?;
        let tried = try_definitions(context, opened, database, pinned.as_ref()).await;
        match tried {
            Ok(tried) => Ok(tried),
            Err(e) => Err(database.unless_lost(e).await),
        }
    };
    let tried = bounds.within(Box::pin(tried)).await;
    claimed.clean_up().await;
    let (entries, note, refusals) = tried?;
    Ok(Rehearsal {
        backup,
        restorable: refusals.is_empty(),
        entries,
        refusals_total: refusals.len() as u64,
        refusals: with_fixes(refusals, context.catalog().trust_of(&job.backup)),
        note,
        duration_seconds: clock.seconds(),
    })
}

/// Whether the role may create the database of a rehearsal.
async fn check_right(server: &Server, session: &Session) -> Result<(), RestoreError> {
    let sql =
        "SELECT rolsuper OR rolcreatedb FROM pg_catalog.pg_roles WHERE rolname = current_user";
    let asked = session.client().query_one(sql, &[]).await;
    let asked = asked.map_err(|e| map_pg_error(&e, "looking up the role"))?;
    if asked.get(0) {
        return Ok(());
    }
    let what = format!(
        "a rehearsal creates a database, and role {0} may not create databases: ALTER ROLE {1} CREATEDB; or rehearse on another \
         server that has the same roles and extensions (--db-host), or restore with --into-empty, which empties the database \
         again if the server refuses anything, and names it",
        server.user(),
        ident(server.user())
    );
    Err(DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into())
}

fn with_fixes(refusals: Vec<Refusal>, trust: Trust) -> Vec<RehearsedRefusal> {
    let fixes = fixes_of(&refusals, trust == Trust::Restricted);
    let with_fix = |refusal: Refusal| RehearsedRefusal {
        fix: fixes.get(&refusal.root).cloned().unwrap_or_default(),
        refusal,
    };
    refusals.into_iter().map(with_fix).collect()
}

/// Returns the number of definitions, what is not known of them, and what the server refused.
async fn try_definitions(
    context: &RestoreContext<'_>,
    opened: Opened,
    database: &TemporaryDatabase,
    backup: Option<&PinnedBackup>,
) -> Result<(u64, String, Vec<Refusal>), RestoreError> {
    let (job, config) = (context.job, context.config());
    let trust = context.catalog().trust_of(&job.backup);
    let policy = job.policy.clone().unwrap_or_else(|| config.policy.clone());
    let request = LoadRequest {
        policy: Policy {
            on_error: OnError::Skip,
            ..policy_under(trust, policy)
        },
        selection: &job.selection,
        backup,
        masking: context.masking(),
    };
    let server = &context.services.server;
    let loader = loader(database, trust).await?;
    let destination = SandboxDestination::new(server, database, loader);
    let mut destination = destination.of_rehearsal(&job.request_id);
    let mut summary = LoadSummary::default();
    let prepared = opened
        .prepare(context, &mut destination, request, &mut summary)
        .await?;
    let listed = prepared.definitions();
    let staged = prepared
        .create_staging(&destination, context.progress, &mut summary)
        .await?;
    let rehearsed = staged.rehearse(context, job.jobs, &mut summary).await?;
    let mut note = note_of(&rehearsed);
    let entries = rehearsed.definitions.unwrap_or(listed);
    let mut refusals = summary.refusals.map(|r| r.found()).unwrap_or_default();
    let facts = summary.rewriter.as_ref().map(|r| &r.facts);
    if let Some(extension) = facts.and_then(|f| bound_to_target(f, &job.target_db))
        && is_restored_in_place(context, database.session()).await?
    {
        // The backup has values of its sequences, in the schema that it would have created.
        let schema = hooks_of(extension).and_then(|h| h.preload);
        let roots = [
            Some(format!("EXTENSION {extension}")),
            schema.map(|p| format!("SCHEMA {}", p.settings)),
        ];
        refusals.retain(|r| !roots.iter().flatten().any(|root| r.root == *root));
        note.push_str(&format!(
            "; the extension {extension} was not tried: the server has it in the target's database alone"
        ));
    }
    Ok((entries, note, refusals))
}

/// What a rehearsal does not know.
fn note_of(rehearsed: &Rehearsed) -> String {
    match &rehearsed.ended_before {
        Some(rows) => format!(
            "SQL text: only the statements before {rows} were tried, not those after it, such as indexes, keys and privileges; {NOTE}"
        ),
        None => NOTE.to_owned(),
    }
}

/// Whether the restore creates its database under the target's name, if it needs that.
async fn is_restored_in_place(
    context: &RestoreContext<'_>,
    session: &Session,
) -> Result<bool, RestoreError> {
    let in_place = context.job.in_place.unwrap_or(context.config().in_place);
    let sql = "SELECT 1 FROM pg_catalog.pg_database WHERE datname = $1";
    let target = &context.job.target_db;
    let found = session.client().query_opt(sql, &[target]).await;
    let exists = found.map_err(|e| map_pg_error(&e, "looking up the target"))?;
    Ok(in_place != InPlace::Never && exists.is_none())
}

/// The role that tries the definitions, if it is not our own.
async fn loader(
    database: &TemporaryDatabase,
    trust: Trust,
) -> Result<Option<Loader>, RestoreError> {
    match trust {
        Trust::Full => Ok(None),
        Trust::Restricted => match database.confine().await? {
            Some(loader) => Ok(Some(loader)),
            None => {
                let what = "a rehearsal of a restricted restore needs a role of its own: ALTER ROLE … CREATEROLE for DB_USER, \
                    or rehearse with BACKUP_TRUST=full if you trust the backup";
                Err(DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into())
            }
        },
    }
}

async fn clean_up(database: &TemporaryDatabase) {
    match tokio::time::timeout(CLEANUP, database.discard()).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => {
            tracing::error!(
                error = said(&e),
                "the database of the rehearsal was not dropped"
            );
        }
        Err(_) => tracing::error!("dropping the database of the rehearsal took too long"),
    }
}

/// Opens a backup. A large one is rehearsed meanwhile, so that its download has started when that is done; not one of which
/// a restore is continued.
///
/// # Errors
/// That of `open`, or what the server refuses, whichever comes first.
pub(super) async fn open_and_rehearse<T>(
    context: &RestoreContext<'_>,
    (pinned, is_continued): (&Pinned, bool),
    open: impl Future<Output = Result<T, RestoreError>>,
) -> Result<T, RestoreError> {
    if is_continued {
        return open.await;
    }
    let stop = context.cancel.child_token();
    let stoppable = JobContext {
        services: context.services,
        job: context.job,
        progress: context.progress,
        cancel: &stop,
        clock: context.clock,
    };
    let rehearse = Box::pin(before_rows(&stoppable, pinned));
    unless_open_fails(open, rehearse, &stop).await
}

/// Waits for both. An error of `open` ends the rehearsal, which then only drops its database: what the server refuses of
/// a backup that could not be read says nothing.
async fn unless_open_fails<T>(
    open: impl Future<Output = Result<T, RestoreError>>,
    rehearse: impl Future<Output = Result<(), RestoreError>>,
    stop: &CancellationToken,
) -> Result<T, RestoreError> {
    tokio::pin!(open);
    tokio::pin!(rehearse);
    tokio::select! {
        opened = &mut open => {
            if opened.is_err() {
                stop.cancel();
                let _ = rehearse.await;
            } else {
                rehearse.await?;
            }
            opened
        }
        rehearsed = &mut rehearse => {
            rehearsed?;
            open.await
        }
    }
}

/// Before rows move: rehearses a large restore. With `on_error: stop`, what the server refuses ends the restore.
///
/// # Errors
/// The first refusal, with all of them.
async fn before_rows(context: &RestoreContext<'_>, pinned: &Pinned) -> Result<(), RestoreError> {
    if !is_due(context, pinned) {
        return Ok(());
    }
    let refusals = refusals_of(context, pinned).await;
    if refusals.is_empty() {
        return Ok(());
    }
    let on_error = context
        .job
        .on_error
        .unwrap_or(context.config().policy.on_error);
    match on_error {
        OnError::Stop => Err(refusal_error(refusals).into()),
        OnError::Skip => {
            let left_out = refusals.len();
            tracing::warn!(left_out, "the server will refuse definitions of the backup");
            Ok(())
        }
    }
}

/// The error of a restore that was blocked before it tried anything: also with what the server refuses, so that one answer
/// names everything.
pub(super) async fn with_refusals(
    context: &RestoreContext<'_>,
    pinned: &Pinned,
    e: RestoreError,
) -> RestoreError {
    let is_blocked = |r: &Refusal| r.sqlstate.is_none() && r.caused_by.is_none();
    let found = e.refusals();
    if found.is_empty() || !found.iter().all(is_blocked) || !can_rehearse(context, pinned) {
        return e;
    }
    let mut all = found.to_vec();
    all.extend(refusals_of(context, pinned).await);
    e.with_refusals(all)
}

/// What the server refuses of a backup; nothing if that cannot be found out.
async fn refusals_of(context: &RestoreContext<'_>, pinned: &Pinned) -> Vec<Refusal> {
    let own = Arc::new(Progress::default());
    // Which has a limit of its own. The restore itself may have nothing to do meanwhile.
    let _step = context.progress.long_step();
    let apart = JobContext {
        services: context.services,
        job: context.job,
        progress: &own,
        cancel: context.cancel,
        clock: context.clock,
    };
    match Box::pin(rehearse(&apart, pinned.backup().cloned())).await {
        Ok(rehearsed) => {
            let refusals = rehearsed.refusals.into_iter();
            refusals.map(|r| r.refusal).collect()
        }
        Err(_) if context.cancel.is_cancelled() => vec![],
        // The restore itself finds out whether it can succeed.
        Err(e) => {
            tracing::warn!(error = said(&e), "the restore could not be rehearsed");
            vec![]
        }
    }
}

fn is_due(context: &RestoreContext<'_>, pinned: &Pinned) -> bool {
    let is_large = |b: &PinnedBackup| b.object.size >= LARGE;
    let is_wanted = match context.config().rehearse {
        Rehearse::Auto => pinned.backup().is_some_and(is_large),
        Rehearse::Always => true,
        Rehearse::Never => false,
    };
    is_wanted && can_rehearse(context, pinned)
}

fn can_rehearse(context: &RestoreContext<'_>, pinned: &Pinned) -> bool {
    // A role that fills a database may have no other one, and this one must not be touched.
    let has_server = context.job.on_existing != OnExisting::Fill;
    let is_allowed = context.config().rehearse != Rehearse::Never;
    // Standard input cannot be read twice.
    let is_readable = pinned.backup().is_some();
    is_readable && is_allowed && has_server && !context.job.selection.data_only
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason as R;

    fn failed(kind: ValidationKind) -> RestoreError {
        ValidationError::new(kind, "no").into()
    }

    #[tokio::test]
    async fn an_error_of_the_download_ends_the_rehearsal_and_is_not_replaced() {
        let stop = CancellationToken::new();
        let rehearse = async {
            stop.cancelled().await;
            Err(failed(ValidationKind::InvalidRequest))
        };
        let open = async { Err::<(), _>(failed(ValidationKind::ArchiveCorrupt)) };
        let done = unless_open_fails(open, rehearse, &stop).await;
        assert_eq!(done.unwrap_err().reason(), R::ArchiveCorrupt);
    }

    #[tokio::test]
    async fn a_restore_waits_for_both_and_ends_at_the_first_refusal() {
        let stop = CancellationToken::new();
        let opened = unless_open_fails(async { Ok(7) }, async { Ok(()) }, &stop).await;
        assert_eq!(opened.unwrap(), 7);
        let refused = || async { Err(failed(ValidationKind::InvalidRequest)) };
        let waits = std::future::pending::<Result<(), RestoreError>>();
        let done = unless_open_fails(waits, refused(), &stop).await;
        assert_eq!(done.unwrap_err().reason(), R::InvalidRequest);
        let done = unless_open_fails(async { Ok(()) }, refused(), &stop).await;
        assert_eq!(done.unwrap_err().reason(), R::InvalidRequest);
        assert!(!stop.is_cancelled());
    }
}
