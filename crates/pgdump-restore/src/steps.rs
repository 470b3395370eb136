//! Failpoints: named steps of a job at which tests kill or pause the real program. Releases have none.

/// Reads `FAILPOINTS`; the failpoints are active until the returned value is dropped.
pub fn init_failpoints() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// Marks a failpoint. With the `fail` crate's `failpoints` feature (in tests only) and
/// `FAILPOINTS=NAME=return`, the process ends here as by `kill -9`; with `return(MS)`, the job pauses here
/// for that many milliseconds while everything else continues.
pub fn reached(step: &'static str) {
    fail::fail_point!(step, |argument: Option<String>| act(
        argument.and_then(|ms| ms.parse().ok())
    ));
    tracing::trace!(step, "reached");
}

#[allow(dead_code, reason = "only called with failpoints")]
fn act(pause_ms: Option<u64>) {
    if let Some(ms) = pause_ms {
        #[allow(
            clippy::disallowed_methods,
            reason = "the runtime is told with block_in_place"
        )]
        return tokio::task::block_in_place(|| {
            std::thread::sleep(std::time::Duration::from_millis(ms))
        });
    }
    // If the signal cannot be sent, nothing can be done about it.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
