//! `worker`: processes requests until it is stopped. The first SIGTERM or SIGINT stops it gracefully,
//! the second immediately.

use super::exit::{CommandResult, Exit};
use super::selftest;
use super::signals::stop_signal;
use crate::app::App;
use crate::worker::Shutdown;

#[derive(Debug, clap::Args)]
pub(super) struct WorkerArgs {}

pub(super) async fn run(app: App, _args: WorkerArgs) -> CommandResult {
    let shutdown = Shutdown::default();
    let tokens = shutdown.clone();
    tokio::spawn(async move {
        for token in [&tokens.soft, &tokens.hard] {
            if let Ok(signal) = stop_signal().await {
                tracing::info!(?signal, "signal received, stopping");
                token.cancel();
            }
        }
    });
    let worker = app.start_worker(shutdown).await?;
    let selftest = async {
        match app.config.verify.selftest {
            Some(every) => selftest::keep_testing(&app.config, &app.metrics, every).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = worker.ended() => ended?,
        () = selftest => {}
    }
    Ok(Exit::Ok)
}
