//! A streaming standby, to which a test fails over.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use super::{Cluster, normalised};

/// Settings of a primary.
pub const PRIMARY: &str = "-c wal_level=replica -c max_wal_senders=4 -c synchronous_commit=on";

/// A standby of a cluster that was started with [`PRIMARY`].
pub struct Standby {
    primary: Arc<Cluster>,
    /// The folder of its socket, with its data.
    folder: PathBuf,
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = self.pg_ctl("stop").args(["-m", "immediate"]).output();
    }
}

impl Standby {
    /// With `is_sync`, each transaction of the primary that waits for its commit also waits for the standby.
    pub fn of(primary: &Arc<Cluster>, is_sync: bool) -> Self {
        let folder = primary.sandbox.make_folder("standby").unwrap();
        let standby = Standby {
            primary: primary.clone(),
            folder,
        };
        let mut copy = primary.sandbox.command("pg_basebackup");
        copy.args(["-X", "stream", "-c", "fast", "-R", "--no-sync", "-D"]);
        standby.must(copy.arg(standby.folder.join("data")));
        let options = format!(
            "-k {} -c listen_addresses= -c fsync=off -c shared_buffers=64MB -c max_wal_senders=8 -c max_locks_per_transaction=256",
            standby.folder.display()
        );
        let log = standby.folder.join("log");
        let mut start = standby.pg_ctl("start");
        standby.must(start.args(["-w", "-o", &options, "-l"]).arg(log));
        if is_sync {
            let names = "ALTER SYSTEM SET synchronous_standby_names = '*'";
            primary.psql("postgres", names);
            primary.psql("postgres", "SELECT pg_reload_conf()");
            let waits = "SET statement_timeout = '30s'; DO 'BEGIN
                WHILE NOT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = ''sync'') LOOP
                    PERFORM pg_sleep(0.01), pg_stat_clear_snapshot();
                END LOOP; END'";
            primary.psql("postgres", waits);
        }
        standby
    }

    fn pg_ctl(&self, what: &str) -> Command {
        let mut command = self.command("pg_ctl");
        command.arg(what).arg("-D").arg(self.folder.join("data"));
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.primary.sandbox.command(program);
        command.env("PGHOST", &self.folder);
        command
    }

    fn must(&self, command: &mut Command) -> Vec<u8> {
        let ran = self.primary.sandbox.run(command);
        ran.unwrap_or_else(|e| panic!("{e}"))
    }

    /// The folder of its socket.
    pub fn host(&self) -> &str {
        self.folder.to_str().unwrap()
    }

    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = self.command("psql");
        psql.env(
            "PGOPTIONS",
            "-c statement_timeout=30s -c client_min_messages=warning",
        );
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        let out = self.must(psql.args(["-d", database, "-c", sql]));
        String::from_utf8(out).unwrap().trim_end().to_owned()
    }

    /// The whole database as SQL, as [`Cluster::content`].
    pub fn content(&self, database: &str) -> String {
        let out = self.must(self.command("pg_dump").args(["-d", database]));
        normalised(&String::from_utf8(out).unwrap())
    }

    /// Waits until it has all that the primary has done.
    pub fn catch_up(&self) {
        self.primary.psql("postgres", "CHECKPOINT");
        let at = "SELECT pg_current_wal_flush_lsn()";
        let at = self.primary.psql("postgres", at);
        let has_less = format!("pg_last_wal_replay_lsn() < '{at}'");
        self.wait_while(&has_less);
    }

    /// What the primary does from now on is lost when it dies.
    pub fn pause_receiving(&self) {
        self.psql("postgres", "ALTER SYSTEM SET primary_conninfo = ''");
        self.psql("postgres", "SELECT pg_reload_conf()");
        self.wait_while("EXISTS (SELECT FROM pg_stat_wal_receiver)");
    }

    fn wait_while(&self, condition: &str) {
        let waits =
            format!("DO $$ BEGIN WHILE {condition} LOOP PERFORM pg_sleep(0.01); END LOOP; END $$");
        self.psql("postgres", &waits);
    }

    /// The primary dies, and this server takes its place.
    pub fn promote(&self) {
        self.primary.crash();
        self.must(self.pg_ctl("promote").arg("-w"));
    }
}
