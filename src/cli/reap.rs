//! `reap`: one pass of the reaper, as every worker does it.

use super::{CommandResult, Exit, Output, print_json};
use crate::app::App;

pub(super) async fn run(app: App, output: Output) -> CommandResult {
    let reaped = app.manager.reap().await?;
    match output {
        Output::Json => {
            print_json(&reaped)?;
        }
        Output::Text => {
            for (what, list) in [
                ("dropped", &reaped.dropped),
                ("kept", &reaped.kept),
                ("NOT RECORDED, left alone", &reaped.unknown),
                ("NOT DROPPED", &reaped.failed),
                ("abandoned request, recorded as failed", &reaped.abandoned),
            ] {
                list.iter().for_each(|name| out!("{what}: {name}"));
            }
            if reaped == Default::default() {
                out!("nothing was left");
            }
        }
    }
    Ok(if reaped.failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    })
}
