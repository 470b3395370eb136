//! Named steps of a job. Tests end the real program at each of them; a release has none of it.

/// Reads `FAILPOINTS`, until the answer is dropped.
pub fn armed() -> fail::FailScenario<'static> {
    fail::FailScenario::setup()
}

/// A step is reached. With the `fail` crate's `failpoints` feature (in tests only) and
/// `FAILPOINTS=NAME=return`, the process ends here as by `kill -9`.
pub fn reached(step: &'static str) {
    fail::fail_point!(step, |_| end_the_process());
    tracing::trace!(step, "reached");
}

#[allow(dead_code, reason = "called with failpoints only")]
fn end_the_process() {
    // Nothing can be done about a signal to oneself that cannot be sent.
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
}
