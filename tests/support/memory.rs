//! Measures the peak memory of a program.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::process::{Command, Stdio};

/// A finished process: exit code, output and peak memory.
#[derive(Debug)]
pub struct FinishedProcess {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// Peak resident memory, in MiB.
    pub peak_mib: u64,
}

/// Runs `program` for at most two minutes and returns its peak memory as the kernel counts it (`ru_maxrss`), which
/// does not depend on how busy the machine is.
pub fn peak_rss_of(program: &Command) -> FinishedProcess {
    // Without the modules that Python loads by default, it starts in a fraction of the time. An alarm outlives exec.
    const COUNT: &str = "
import os, sys, _signal
child = os.fork()
if child == 0:
    _signal.alarm(120)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, used = os.wait4(child, 0)
sys.stderr.write('\\npeak %d\\n' % used.ru_maxrss)
code = os.waitstatus_to_exitcode(status)
sys.exit(code if code >= 0 else 128 - code)";
    let mut counted = Command::new("python3");
    counted
        .args(["-I", "-S", "-c", COUNT])
        .arg(program.get_program())
        .args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => counted.env(name, value),
            None => counted.env_remove(name),
        };
    }
    if let Some(folder) = program.get_current_dir() {
        counted.current_dir(folder);
    }
    let out = counted.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let (stderr, peak) = text
        .trim_end()
        .rsplit_once("\npeak ")
        .unwrap_or_else(|| panic!("no peak memory in the output: {text}"));
    FinishedProcess {
        code: out.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: stderr.to_owned(),
        peak_mib: peak.parse::<u64>().unwrap().div_ceil(1024),
    }
}
