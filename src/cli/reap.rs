//! `reap`: runs one pass of the reaper, like every worker does periodically. Unlike a worker, a person who asks for it also
//! drops what was kept by hand.

use super::continuable;
use super::exit::{CommandResult, Exit};
use super::help;
use super::output::{OutputFormat, print_json};
use crate::app::App;
use crate::database::{ReapScope, Reaped};

#[derive(Debug, clap::Args)]
pub(super) struct ReapArgs {
    /// Also drop the work of restores that wait for their next attempt
    ///
    /// What restore --keep-progress kept is dropped in any case. What a stopped worker kept for the redelivery of a request
    /// stays without this option; with it, that request begins from the start.
    #[arg(long, help_heading = help::TARGET)]
    all: bool,
}

impl ReapArgs {
    fn scope(&self) -> ReapScope {
        if self.all {
            ReapScope::All
        } else {
            ReapScope::Person
        }
    }
}

/// What a pass did, line by line.
fn lines_of(reaped: &Reaped, now: jiff::Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, list) in [
        ("dropped", &reaped.dropped),
        ("kept", &reaped.kept),
        ("NOT RECORDED, not touched", &reaped.unknown),
        ("NOT DROPPED", &reaped.failed),
        ("abandoned request, recorded as failed", &reaped.abandoned),
    ] {
        lines.extend(list.iter().map(|name| format!("{what}: {name}")));
    }
    let waiting = reaped.waiting.iter();
    lines.extend(waiting.map(|w| format!("waiting: {}", continuable::line(w, now))));
    if lines.is_empty() {
        lines.push("nothing to clean up".to_owned());
    }
    lines
}

pub(super) async fn run(app: App, args: ReapArgs, output: OutputFormat) -> CommandResult {
    let reaped = app.manager.reap(args.scope()).await?;
    match output {
        OutputFormat::Json => {
            print_json(&reaped)?;
        }
        OutputFormat::Text => {
            let lines = lines_of(&reaped, jiff::Timestamp::now());
            lines.iter().for_each(|line| out!("{line}"));
        }
    }
    Ok(if reaped.failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_listed_with_what_it_waits_for() {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let nothing = lines_of(&Reaped::default(), now);
        assert_eq!(nothing, ["nothing to clean up"]);
        let reaped = Reaped {
            dropped: vec!["database pgrestored_s_1".to_owned()],
            waiting: vec![continuable::waiting("app", false)],
            ..Reaped::default()
        };
        let lines = lines_of(&reaped, now);
        assert_eq!(lines[0], "dropped: database pgrestored_s_1");
        assert!(lines[1].starts_with("waiting: app: "));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn only_with_all_does_a_person_drop_what_waits_for_a_redelivery() {
        assert!(matches!(ReapArgs { all: false }.scope(), ReapScope::Person));
        assert!(matches!(ReapArgs { all: true }.scope(), ReapScope::All));
    }
}
