//! Restores that stopped and that can be continued: how they are shown, which one `restore --resume` means, and what a
//! person is told when a restore stops.

use std::time::Duration;

use super::exit::{CommandError, usage};
use super::output::{count, duration, human_bytes};
use crate::app::App;
use crate::config::Resume;
use crate::database::WaitingRestore;
use crate::error::{ErrorBody, FailureReason, RestoreError, RetryClass};
use crate::event::RestoreResult;
use crate::job::{BackupRef, KeepProgress, OnExisting, RestoreJob};

/// How long the server may take to say what is kept, after the restore has ended.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the server may take to notice that the restore's session is closed. Until then, its work does not wait.
const NOTICE: Duration = Duration::from_secs(2);
/// Pause between looks at the server meanwhile.
const LOOK: Duration = Duration::from_millis(200);

/// A moment without fractions of a second.
fn moment(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// How much is loaded; `None` if the last attempt was killed before it could say it.
fn loaded(w: &WaitingRestore) -> Option<String> {
    if w.bytes == 0 && w.rows == 0 {
        return None;
    }
    let percent = (w.share * 100.0) as u64;
    let (bytes, rows) = (human_bytes(w.bytes), count(w.rows, "row"));
    Some(format!("{bytes}, {rows} ({percent} %)"))
}

/// One line about a restore that can be continued.
pub(super) fn line(w: &WaitingRestore, now: jiff::Timestamp) -> String {
    let age = duration(now.duration_since(w.since).as_secs_f64());
    let next = if w.by_command {
        "continue with `pgrestored restore BACKUP --resume`"
    } else {
        "it continues when its request is delivered again"
    };
    format!(
        "{}: {}loaded by request {}, stopped {age} ago, kept until {}: {next}",
        w.target,
        loaded(w).map_or_else(String::new, |amount| format!("{amount} ")),
        w.request_id,
        moment(w.until)
    )
}

/// What a person can do with the work that is kept of a restore of `backup`.
fn kept(w: &WaitingRestore, backup: &str) -> String {
    let loaded = loaded(w).map_or_else(
        || "what was loaded is".to_owned(),
        |amount| format!("{amount} are"),
    );
    format!(
        "{loaded} kept until {}: continue with `pgrestored restore {backup} --target {} --resume` and the same options, or drop it with `pgrestored reap`",
        moment(w.until),
        w.target
    )
}

/// Checks that what a person asks to keep or to continue is kept at all.
///
/// # Errors
/// A mistake on the command line.
pub(super) fn check(flag: &str, mode: Resume, backup: &str) -> Result<(), CommandError> {
    if mode == Resume::Never {
        let what = format!(
            "{flag}: has no effect with RESTORE_RESUME=never: unset it, or leave the flag out"
        );
        return Err(usage(what));
    }
    if backup == "-" {
        let what = format!("{flag}: standard input cannot be read again: name a file or an object");
        return Err(usage(what));
    }
    Ok(())
}

/// The restore into `target` that `--resume` continues.
///
/// # Errors
/// There is none, or more than one.
pub(super) async fn find(
    app: &App,
    target: &str,
    request_id: Option<&str>,
) -> Result<String, CommandError> {
    let chosen = choose(&app.manager.waiting().await?, target, request_id);
    if matches!(chosen, Err(CommandError::NothingToContinue(_)))
        && let Some(running) = app.manager.occupied(target).await?
    {
        return Err(CommandError::NothingToContinue(format!(
            "nothing to continue for {target} yet: its restore by request {running} is running, or the server has not noticed that it ended: try again later"
        )));
    }
    chosen
}

fn choose(
    waiting: &[WaitingRestore],
    target: &str,
    request_id: Option<&str>,
) -> Result<String, CommandError> {
    let is_named = |w: &&WaitingRestore| request_id.is_none_or(|id| id == w.request_id);
    let (by_hand, others): (Vec<_>, Vec<_>) = waiting
        .iter()
        .filter(|w| w.target == target)
        .filter(is_named)
        .partition(|w| w.by_command);
    match (by_hand.as_slice(), others.first()) {
        ([one], _) => Ok(one.request_id.clone()),
        ([], None) => Err(CommandError::NothingToContinue(format!(
            "nothing to continue for {target}: `pgrestored status` lists what is kept, RESTORE_RESUME_FOR says for how long"
        ))),
        ([], Some(other)) => Err(CommandError::NothingToContinue(format!(
            "nothing to continue by hand for {target}: request {} continues when it is delivered again",
            other.request_id
        ))),
        (several, _) => {
            let ids: Vec<_> = several.iter().map(|w| w.request_id.as_str()).collect();
            Err(usage(format!(
                "--resume: several restores into {target} can be continued: choose one with --request-id: {}",
                ids.join(", ")
            )))
        }
    }
}

/// Whether the work of such a restore could have been kept, had it been asked for.
fn could_be_kept(app: &App, job: &RestoreJob, result: &RestoreResult) -> bool {
    let resume = app.config.resume;
    resume.mode == Resume::Auto
        && result.duration_seconds >= resume.from.as_secs_f64()
        && job.on_existing != OnExisting::Fill
        && !job.selection.data_only
        && job.backup != BackupRef::Stdin
}

/// That nothing is kept of a restore that was to be kept, because it had taken less than `from`; an attempt that has continued
/// another one is always kept.
fn too_short(
    keep: KeepProgress,
    has_resumed: bool,
    seconds: f64,
    from: Duration,
) -> Option<String> {
    let is_short = keep == KeepProgress::ForPerson && !has_resumed && seconds < from.as_secs_f64();
    let from = duration(from.as_secs_f64());
    is_short.then(|| {
        format!("nothing is kept: it had loaded for less than {from} (RESTORE_RESUME_FROM)")
    })
}

/// What a person is to know about the work of a restore that failed; `backup` is as the person named it.
pub(super) async fn hint_after_failure(
    app: &App,
    job: &RestoreJob,
    backup: &str,
    result: &RestoreResult,
) -> Option<String> {
    let reason = result.error.as_ref()?.reason;
    let (has_resumed, seconds) = (result.resumed_from.is_some(), result.duration_seconds);
    let short = too_short(job.keep, has_resumed, seconds, app.config.resume.from);
    if reason == FailureReason::Cancelled && short.is_some() {
        return short;
    }
    if !could_be_kept(app, job, result) || !app.manager.has_reached_target() {
        return None;
    }
    if job.keep != KeepProgress::ForPerson {
        let offer = "with --keep-progress, an interrupted restore can be continued";
        return (reason == FailureReason::Cancelled).then(|| offer.to_owned());
    }
    let is_over = reason.retry_class() == RetryClass::Permanent;
    if is_over && reason != FailureReason::Timeout {
        return None;
    }
    match tokio::time::timeout(PATIENCE, own_work(app, &job.request_id)).await {
        Ok(Ok(own)) => own.map(|w| kept(&w, backup)),
        Ok(Err(_)) | Err(_) => {
            Some("what was loaded may be kept: see `pgrestored status`".to_owned())
        }
    }
}

/// What is kept of a restore that has just ended.
async fn own_work(app: &App, request_id: &str) -> Result<Option<WaitingRestore>, RestoreError> {
    let until = tokio::time::Instant::now() + NOTICE;
    loop {
        let all = app.manager.waiting().await?;
        let own = all.into_iter().find(|w| w.request_id == request_id);
        if own.is_some() || tokio::time::Instant::now() >= until {
            return Ok(own);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The id belongs to the restore that was to be continued: something else was asked for.
pub(super) fn explain_other_options(error: &mut ErrorBody, target: &str) {
    if error.reason == FailureReason::InvalidRequest
        && error
            .message
            .contains("was already used for another request")
    {
        error.message = format!(
            "the restore into {target} that can be continued was begun with another backup or other options: give the same ones, or drop it with `pgrestored reap`"
        );
    }
}

/// A restore into this target that stopped when half of it was loaded, at 1970-01-01.
#[cfg(test)]
pub(super) fn waiting(target: &str, by_command: bool) -> WaitingRestore {
    let at = jiff::Timestamp::UNIX_EPOCH;
    WaitingRestore {
        database: format!("pgrestored_s_{target}"),
        target: target.to_owned(),
        request_id: format!("r-{target}"),
        by_command,
        bytes: 3 << 30,
        rows: 1_234,
        share: 0.5,
        attempt: 1,
        since: at,
        until: at + Duration::from_secs(24 * 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::exit::Exit;
    use super::*;
    use crate::error::{ValidationError, ValidationKind};

    #[test]
    fn what_can_be_continued_is_one_line() {
        let now = jiff::Timestamp::from_second(600).unwrap();
        assert_eq!(
            line(&waiting("app", false), now),
            "app: 3.00 GiB, 1,234 rows (50 %) loaded by request r-app, stopped 10 min 0 s ago, kept until \
             1970-01-02T00:00:00Z: it continues when its request is delivered again"
        );
        assert!(line(&waiting("app", true), now).ends_with("restore BACKUP --resume`"));
        assert_eq!(
            kept(&waiting("app", true), "latest"),
            "3.00 GiB, 1,234 rows (50 %) are kept until 1970-01-02T00:00:00Z: continue with `pgrestored restore latest \
             --target app --resume` and the same options, or drop it with `pgrestored reap`"
        );
    }

    #[test]
    fn a_restore_that_was_too_short_to_be_kept_says_so() {
        let minute = Duration::from_secs(60);
        let by_hand = KeepProgress::ForPerson;
        let said = too_short(by_hand, false, 59.0, minute).unwrap();
        assert_eq!(
            said,
            "nothing is kept: it had loaded for less than 1 min 0 s (RESTORE_RESUME_FROM)"
        );
        assert_eq!(too_short(by_hand, false, 60.0, minute), None);
        assert_eq!(too_short(by_hand, true, 59.0, minute), None);
        assert_eq!(too_short(by_hand, false, 0.0, Duration::ZERO), None);
        assert_eq!(too_short(KeepProgress::Never, false, 59.0, minute), None);
    }

    #[test]
    fn an_amount_that_nobody_has_said_is_not_shown() {
        let killed = WaitingRestore {
            bytes: 0,
            rows: 0,
            share: 0.0,
            ..waiting("app", true)
        };
        let now = jiff::Timestamp::from_second(600).unwrap();
        assert!(line(&killed, now).starts_with("app: loaded by request r-app, stopped"));
        let kept = kept(&killed, "latest");
        assert!(
            kept.starts_with("what was loaded is kept until 1970-01-02T00:00:00Z: continue with")
        );
    }

    #[test]
    fn the_one_that_was_kept_by_hand_is_continued() {
        let mut all = vec![
            waiting("app", true),
            waiting("other", true),
            waiting("queued", false),
        ];
        let error = |waiting: &[WaitingRestore], target: &str, id: Option<&str>| {
            let e = choose(waiting, target, id).unwrap_err();
            (e.exit(), e.to_string())
        };
        assert_eq!(choose(&all, "app", None).unwrap(), "r-app");
        assert_eq!(choose(&all, "app", Some("r-app")).unwrap(), "r-app");
        for (target, id, said) in [
            ("none", None, "nothing to continue for none: "),
            ("app", Some("r-other"), "nothing to continue for app: "),
            (
                "queued",
                None,
                "nothing to continue by hand for queued: request r-queued",
            ),
        ] {
            let (exit, text) = error(&all, target, id);
            assert!(exit == Exit::BadData && text.starts_with(said), "{text}");
        }
        all[1] = WaitingRestore {
            request_id: "r-2".to_owned(),
            ..waiting("app", true)
        };
        let (exit, text) = error(&all, "app", None);
        assert!(
            exit == Exit::Usage && text.ends_with(": r-app, r-2"),
            "{text}"
        );
        assert_eq!(choose(&all, "app", Some("r-2")).unwrap(), "r-2");
    }

    #[test]
    fn what_cannot_be_kept_is_a_mistake() {
        assert!(check("--resume", Resume::Auto, "latest").is_ok());
        for (mode, backup, said) in [
            (Resume::Never, "latest", "RESTORE_RESUME=never"),
            (Resume::Auto, "-", "standard input"),
        ] {
            let e = check("--resume", mode, backup).unwrap_err();
            assert_eq!(e.exit(), Exit::Usage);
            assert!(e.to_string().contains(said), "{e}");
        }
    }

    #[test]
    fn another_request_with_the_same_id_is_explained() {
        let of = |what: &str| {
            let e = ValidationError::new(ValidationKind::InvalidRequest, what);
            let mut body = ErrorBody::new(&e.into(), pgdump_restore::Stage::Prepare);
            explain_other_options(&mut body, "app");
            body.message
        };
        let reused = of("request_id r was already used for another request: use a new one");
        assert!(reused.starts_with("the restore into app that can be continued"));
        assert_eq!(of("no"), "no");
    }
}
