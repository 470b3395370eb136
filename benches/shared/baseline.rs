//! `pg_restore` of a local file, as a user would run it.

use std::path::Path;
use std::process::{Command, Stdio};

use pgrestored::sandbox::Sandbox;

use super::{MeasuredCost, OURS, Ours, env_or, measure, restoring, watch};

/// Creates the database `restored`. Some installations have no `createdb`.
pub const CREATE: &str = "psql -X -q -d postgres -c 'CREATE DATABASE restored TEMPLATE template0'";

/// Creates the database `restored`, and restores `dump` into it with one session per core.
pub fn pg_restore(server: &Sandbox, cores: usize, dump: &Path) -> MeasuredCost {
    let line = format!("{CREATE} && pg_restore -d restored -j{cores} \"$0\"");
    let path = format!(
        "{}:{}",
        server.bindir().display(),
        env_or("PATH", "/usr/bin:/bin")
    );
    measure(server, || {
        let mut command = Command::new("bash");
        command
            .env("PATH", path)
            .env("PGHOST", server.host())
            .env("PGUSER", "postgres")
            .args(["-c", &line])
            .arg(dump)
            .stdin(Stdio::null());
        watch(command.spawn().expect("a shell"))
    })
}

/// Restores a local file into the database `restored`, which must not exist.
pub fn restore_file(server: &Sandbox, dump: &Path) -> Ours {
    let mut command = Command::new(OURS);
    command
        .args(["restore", dump.to_str().expect("a path")])
        .args(["--target", "restored", "--output", "json", "--no-analyze"])
        .args(["--db-host", server.host()]);
    restoring(server, command)
}
