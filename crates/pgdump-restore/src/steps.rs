//! Named steps of a job. Tests end the real program at each of them; a release has none of it.

/// Reads `FAILPOINTS`, until the answer is dropped.
pub fn init_failpoints() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// A step is reached. With the `fail` crate's `failpoints` feature (in tests only) and
/// `FAILPOINTS=NAME=return`, the process ends here as by `kill -9`; with `return(MS)` the job stops here
/// for so many milliseconds, and everything else goes on.
pub fn reached(step: &'static str) {
    fail::fail_point!(step, |argument: Option<String>| act(
        argument.and_then(|ms| ms.parse().ok())
    ));
    tracing::trace!(step, "reached");
}

#[allow(dead_code, reason = "called with failpoints only")]
fn act(pause_ms: Option<u64>) {
    if let Some(ms) = pause_ms {
        #[allow(clippy::disallowed_methods, reason = "the runtime is told")]
        return tokio::task::block_in_place(|| {
            std::thread::sleep(std::time::Duration::from_millis(ms))
        });
    }
    // Nothing can be done about a signal to oneself that cannot be sent.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
