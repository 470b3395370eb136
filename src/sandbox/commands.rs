//! Runs PostgreSQL's programs for a sandbox.

use std::io::{Error, Result};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program with a clean environment, run as the server's user.
pub(super) fn plain_command(bindir: &Path, program: &str, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(bindir.join(program));
    command
        .env_clear()
        .env("PATH", bindir)
        .env("LC_ALL", "C.UTF-8")
        .env("TZ", "UTC");
    if let Some((uid, gid)) = user {
        command.gid(gid).uid(uid);
    }
    command.stdin(Stdio::null());
    command
}

pub(super) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    Err(Error::other(format!(
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )))
}

/// Makes the server's user the owner of the folder, with access for nobody else.
pub(super) fn restrict_to_owner(folder: &Path, user: Option<(u32, u32)>) -> Result<()> {
    if let Some((uid, gid)) = user {
        chown(folder, Some(uid), Some(gid))?;
    }
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))
}
