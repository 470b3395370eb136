//! SIGINT and SIGTERM.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use super::exit::Exit;

/// Waits for the first SIGINT or SIGTERM.
pub(super) async fn stop_signal() -> Result<Exit, std::io::Error> {
    let (mut int, mut term) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    Ok(tokio::select! {
        _ = int.recv() => Exit::Interrupted,
        _ = term.recv() => Exit::Terminated,
    })
}

/// Runs `work` to completion. A signal cancels `stop`, so that `work` can end early, and is returned.
pub(super) async fn until_signal<T>(
    work: impl Future<Output = T>,
    stop: &tokio_util::sync::CancellationToken,
) -> Result<(T, Option<Exit>), std::io::Error> {
    tokio::pin!(work);
    let signalled = tokio::select! {
        done = &mut work => return Ok((done, None)),
        signalled = stop_signal() => signalled?,
    };
    stop.cancel();
    Ok((work.await, Some(signalled)))
}
