//! `status`: shows what a worker is doing, from its `/status.json`, and which restores can be continued. If no worker answers,
//! the target server is asked for those.

use std::time::Duration;

use super::continuable;
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::output::{OutputFormat, count, duration, human_bytes, print_json};
use super::style;
use crate::app::App;
use crate::config::Config;
use crate::database::WaitingRestore;
use crate::event::RestoreResult;
use crate::manager::DatabaseStatus;
use crate::standing::{StandingRun, StandingStatus};
use crate::worker::{JobStatus, QueueStatus, WaitReason, WorkerStatus};

/// How long to wait for a worker's response.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the target server, which is asked only if no worker answers.
const SERVER_PATIENCE: Duration = Duration::from_secs(3);
/// Number of results to show.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// URL of the worker's admin port [default: http://ADMIN_ADDR]
    #[arg(long)]
    url: Option<String>,
    /// Print nothing; the exit code says whether the worker is alive, for a container's health check
    #[arg(long)]
    alive: bool,
}

pub(super) async fn run(config: &Config, args: StatusArgs, output: OutputFormat) -> CommandResult {
    let at = url(config, args.url)?;
    if args.alive {
        ask(&format!("{at}/livez"))
            .await
            .map_err(|e| CommandError::Unavailable(format!("{at}: {e}")))?;
        return Ok(Exit::Ok);
    }
    let status = match status_at(&at).await {
        Ok(status) => status,
        Err(e) => return without_worker(config, &format!("{at}: {e}"), output).await,
    };
    match output {
        OutputFormat::Json => print_json(&status),
        OutputFormat::Text => {
            print(&status);
            Ok(Exit::Ok)
        }
    }
}

/// Shows what can be continued according to the target server, with a warning that no worker answers.
///
/// # Errors
/// Nothing can be continued, as far as is known: then there is no answer at all.
async fn without_worker(config: &Config, problem: &str, output: OutputFormat) -> CommandResult {
    let continuable = continuable_on_server(config).await;
    if continuable.is_empty() {
        return Err(CommandError::Unavailable(format!(
            "{problem}; check that the worker is running and that --url or ADMIN_ADDR is its address"
        )));
    }
    err!("pgrestored: warning: no worker answers: {problem}");
    match output {
        OutputFormat::Json => {
            let problem = format!("no worker answers: {problem}");
            print_json(&WorkerStatus::without_worker(continuable, problem))
        }
        OutputFormat::Text => {
            print_continuable(&continuable);
            Ok(Exit::Ok)
        }
    }
}

/// The restores that can be continued; none if the server does not tell.
async fn continuable_on_server(config: &Config) -> Vec<WaitingRestore> {
    let Ok(app) = App::new(config.clone()) else {
        return vec![];
    };
    let waiting = tokio::time::timeout(SERVER_PATIENCE, app.manager.waiting()).await;
    waiting
        .map(|answer| answer.unwrap_or_default())
        .unwrap_or_default()
}

/// Base URL of the worker's admin port: as given, otherwise from ADMIN_ADDR.
///
/// # Errors
/// What was given is not a URL.
pub(super) fn url(config: &Config, given: Option<String>) -> Result<String, CommandError> {
    let mut addr = config.admin_addr;
    if addr.ip().is_unspecified() {
        addr.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = given.unwrap_or_else(|| format!("http://{addr}"));
    let parsed = reqwest::Url::parse(&url).ok();
    if parsed.is_none_or(|u| !matches!(u.scheme(), "http" | "https") || !u.has_host()) {
        let what = format!("--url: {url} must be a URL such as http://worker:9464");
        return Err(usage(what));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

async fn ask(url: &str) -> Result<String, reqwest::Error> {
    let client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .no_proxy()
        .build()?;
    client
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .text()
        .await
}

/// Fetches the status of the worker at `url`.
pub(super) async fn status_at(url: &str) -> Result<WorkerStatus, String> {
    let text = ask(&format!("{url}/status.json"))
        .await
        .map_err(|e| crate::error::report(&e.without_url()))?;
    serde_json::from_str(&text).map_err(|e| format!("not a worker's status: {e}"))
}

/// A human-readable number of seconds.
pub(super) fn span(seconds: f64) -> String {
    indicatif::HumanDuration(Duration::from_secs_f64(seconds.max(0.0))).to_string()
}

/// One line about a running job.
pub(super) fn line(j: &JobStatus) -> String {
    let p = &j.progress;
    let what = match &j.target_db {
        Some(target) => format!("restoring {} into {target}", j.backup),
        None => format!("verifying {}", j.backup),
    };
    let share = p
        .fraction
        .map(|f| format!(", {} %", (f * 100.0) as u64))
        .unwrap_or_default();
    let left = p
        .eta_seconds
        .map(|s| format!(", about {} left", span(s)))
        .unwrap_or_default();
    format!(
        "{what}: {}{share}{left}; {} read, {}",
        p.stage,
        human_bytes(p.object_bytes),
        count(p.rows, "row")
    )
}

/// One line about a result.
pub(super) fn result_line(r: &RestoreResult) -> String {
    let (word, colour): (_, fn(&str) -> String) = match (r.verdict, &r.error) {
        (Some(v), None) => (v.as_str(), style::good),
        (Some(v), Some(_)) => (v.as_str(), style::bad),
        (None, None) if r.rehearsal.is_some() => ("rehearsed", style::good),
        (None, None) => ("restored", style::good),
        (None, Some(_)) => ("failed", style::bad),
    };
    let depth = r
        .verification
        .as_ref()
        .filter(|_| r.error.is_none())
        .and_then(|v| v.depth);
    let depth = depth
        .map(|d| format!(", depth {}", d.as_str()))
        .unwrap_or_default();
    let why = r
        .error
        .as_ref()
        .map(|e| format!(": {}: {}", e.reason, e.message))
        .unwrap_or_default();
    let why = match (r.complete, &r.rehearsal) {
        (Some(false), _) => format!(", without {} definitions", r.skipped_total),
        (_, Some(rehearsal)) => format!(": {} would not be restored", rehearsal.refusals_total),
        (_, None) => why,
    };
    let backup = r.backup.name.as_deref().unwrap_or("-");
    let into = r
        .target_db
        .as_deref()
        .map(|t| format!(" into {t}"))
        .unwrap_or_default();
    format!(
        "{} {} {backup}{into} in {}{depth}{why}",
        r.request_id,
        colour(word),
        duration(r.duration_seconds)
    )
}

const fn wait_text(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::TargetBusy => "for a target that another restore uses",
        WaitReason::SameRequest => "for another delivery of the same request",
        WaitReason::Permit => "until a running job ends (RESTORE_MAX_CONCURRENT)",
        WaitReason::Retry => "for the next attempt after a failure",
    }
}

/// The messages that the worker holds, those of them that wait, and how long the last new one had waited before.
fn queue_lines(q: &QueueStatus, now: jiff::Timestamp) -> Vec<String> {
    let oldest = |at: Option<jiff::Timestamp>| {
        let age = at.map(|at| span(now.duration_since(at).as_secs_f64()));
        age.map(|age| format!(", the oldest published {age} ago"))
            .unwrap_or_default()
    };
    let mut lines = vec![match q.held {
        0 => style::soft("no message is held by this worker"),
        n => format!(
            "{} held by this worker{}",
            count(n, "message"),
            oldest(q.oldest)
        ),
    }];
    lines.extend(q.waiting.iter().map(|w| {
        format!(
            "{} {} {}{}",
            count(w.messages, "message"),
            if w.messages == 1 { "waits" } else { "wait" },
            wait_text(w.reason),
            oldest(w.oldest)
        )
    }));
    let delay = q.last_delay_seconds.map(span);
    lines.extend(delay.map(|delay| format!("the last new message had waited {delay}")));
    lines
}

fn print(s: &WorkerStatus) {
    let state = match (s.stopping, s.ready) {
        (true, _) => style::warn("stopping"),
        (false, true) => style::good("ready"),
        (false, false) => style::bad("not ready"),
    };
    out!("pgrestored {} is {state}", s.version);
    s.problems.iter().for_each(|p| out!("  {p}"));
    out!("running");
    s.running
        .iter()
        .for_each(|j| out!("  {} {}", j.request_id, line(j)));
    if s.running.is_empty() {
        out!("  {}", style::soft("nothing"));
    }
    out!("queue");
    queue_lines(&s.queue, jiff::Timestamp::now())
        .iter()
        .for_each(|line| out!("  {line}"));
    if !s.sets.is_empty() {
        out!("proofs");
    }
    for set in &s.sets {
        let proven = match (&set.last_proof, &set.proven_backup) {
            (Some(at), Some(backup)) => {
                let age = jiff::Timestamp::now().duration_since(*at).as_secs_f64();
                let depth = set.proven_depth.map_or("restore", |d| d.as_str());
                let signed = if set.is_signed {
                    ""
                } else {
                    " (evidence signatures are not checked)"
                };
                format!(
                    "{backup} was proven {} ago, depth {depth}{signed}",
                    span(age)
                )
            }
            _ => style::warn("no backup is proven"),
        };
        let rto = set
            .rto
            .as_ref()
            .map(|r| format!("; a restore takes {}", span(r.measured_seconds)));
        out!("  {}: {proven}{}", set.name, rto.unwrap_or_default());
        set.databases.iter().for_each(print_database);
    }
    if !s.standing.is_empty() {
        out!("standing restores");
    }
    s.standing
        .iter()
        .for_each(|order| out!("  {}", standing_line(order)));
    print_continuable(&s.continuable);
    out!("last results");
    s.recent
        .iter()
        .take(SHOWN)
        .for_each(|r| out!("  {}", result_line(&r.result)));
    if s.recent.is_empty() {
        out!("  {}", style::soft("none"));
    }
}

fn print_continuable(waiting: &[WaitingRestore]) {
    if !waiting.is_empty() {
        out!("can be continued");
    }
    let now = jiff::Timestamp::now();
    waiting
        .iter()
        .for_each(|w| out!("  {}", continuable::line(w, now)));
}

/// One line about a standing restore.
fn standing_line(s: &StandingStatus) -> String {
    let age = |run: &StandingRun| {
        let age = jiff::Timestamp::now().duration_since(run.finished_at);
        span(age.as_secs_f64())
    };
    let success = match &s.last_success {
        Some(run) => format!("restored into {} {} ago", s.target_db, age(run)),
        None => style::warn("never restored"),
    };
    let since = s.last_success.as_ref().map(|run| run.finished_at);
    let failure = s.last_failure.as_ref();
    let failure = failure.filter(|run| since.is_none_or(|since| run.finished_at > since));
    let failure = failure.map(|run| {
        let reason = run.reason.map(|r| format!(": {r}")).unwrap_or_default();
        style::bad(&format!("; a run failed {} ago{reason}", age(run)))
    });
    let paused = if s.paused_since.is_some() {
        "; paused"
    } else {
        ""
    };
    let waits = s.waiting.as_ref();
    let waits = waits
        .map(|backup| format!("; {backup} waits"))
        .unwrap_or_default();
    let problem = s.problem.as_ref();
    let problem = problem.map(|what| style::bad(&format!("; {what}")));
    format!(
        "{}: {success}{}{paused}{waits}{}",
        s.order,
        failure.unwrap_or_default(),
        problem.unwrap_or_default()
    )
}

/// One line about a database of a set with several.
fn print_database(d: &DatabaseStatus) {
    let (Some(at), Some(backup)) = (&d.last_proof, &d.proven_backup) else {
        return;
    };
    let age = jiff::Timestamp::now().duration_since(*at).as_secs_f64();
    out!("    {}: {backup} was proven {} ago", d.label(), span(age));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::WaitingMessages;

    #[test]
    fn the_queue_is_shown_with_the_age_of_what_waits() {
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        let mut queue = QueueStatus::default();
        let lines = queue_lines(&queue, at(0));
        assert!(lines.len() == 1 && lines[0].contains("no message is held"));
        (queue.held, queue.oldest) = (3, Some(at(0)));
        let waiting = |reason, messages, oldest| WaitingMessages {
            reason,
            messages,
            oldest: Some(oldest),
        };
        queue.waiting = vec![
            waiting(WaitReason::TargetBusy, 2, at(0)),
            waiting(WaitReason::Retry, 1, at(540)),
        ];
        queue.last_delay_seconds = Some(2.0);
        assert_eq!(
            queue_lines(&queue, at(600)),
            [
                "3 messages held by this worker, the oldest published 10 minutes ago",
                "2 messages wait for a target that another restore uses, the oldest published 10 minutes ago",
                "1 message waits for the next attempt after a failure, the oldest published 60 seconds ago",
                "the last new message had waited 2 seconds",
            ]
        );
    }

    #[test]
    fn the_page_says_the_same_of_what_waits() {
        let script = include_str!("../admin/status.js");
        for (name, reason) in [
            ("target_busy", WaitReason::TargetBusy),
            ("same_request", WaitReason::SameRequest),
            ("permit", WaitReason::Permit),
            ("retry", WaitReason::Retry),
        ] {
            assert_eq!(serde_json::to_value(reason).unwrap(), name);
            let entry = format!("{name}: \"{}\"", wait_text(reason));
            assert!(script.contains(&entry), "{entry}");
        }
    }
}
