//! `reap`: runs one pass of the reaper, like every worker does periodically.

use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, print_json};
use crate::app::App;

pub(super) async fn run(app: App, output: OutputFormat) -> CommandResult {
    let reaped = app.manager.reap().await?;
    match output {
        OutputFormat::Json => {
            print_json(&reaped)?;
        }
        OutputFormat::Text => {
            for (what, list) in [
                ("dropped", &reaped.dropped),
                ("kept", &reaped.kept),
                ("NOT RECORDED, not touched", &reaped.unknown),
                ("NOT DROPPED", &reaped.failed),
                ("abandoned request, recorded as failed", &reaped.abandoned),
            ] {
                list.iter().for_each(|name| out!("{what}: {name}"));
            }
            if reaped == Default::default() {
                out!("nothing to clean up");
            }
        }
    }
    Ok(if reaped.failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}
