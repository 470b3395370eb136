//! Roles of `DB_RESTRICTED_USER`. They outlive a restore, and a backup that they load can change them: a role may
//! set its own password and settings and, before 15, its members. This is undone before and after each use, by
//! whichever role may do it: `DB_USER`, `DB_USER` after `SET ROLE`, or the role itself.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt};
use secrecy::{ExposeSecret, SecretString};

use super::powers::{
    insufficient_privilege, map_lookup_error, may_act_as, membership_options, power_of,
};
use crate::error::{DatabaseError, RestoreError, report};
use crate::postgres::{RoleRepair, Server, Session, ident};

/// How long to wait for the role's sessions to end.
const ENDING_LIMIT: Duration = Duration::from_secs(5);
const ENDING_PAUSE: Duration = Duration::from_millis(20);
const DENIED: &str = "42501";
/// A statement of the backup may be changing the role at the moment, in a transaction that stays open.
const REPAIR_SETTINGS: &str = "SET lock_timeout = '5s'";

/// From this version on, a role cannot administer its own membership.
const NO_SELF_ADMIN: u32 = 150_000;

/// One such role. Changing it requires the lock of its name.
pub(super) struct Pooled {
    /// The server, as seen by this role.
    pub server: Server,
    role: String,
    password: Option<SecretString>,
}

impl Pooled {
    pub fn new(server: &Server, role: &str, password: Option<SecretString>) -> Self {
        let server = server.as_role(role, password.clone());
        Pooled {
            server,
            role: role.to_owned(),
            password,
        }
    }

    /// Its name.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The name to lock, so that only one restore at a time uses the role.
    pub fn lock_name(&self) -> String {
        format!("role {}", self.role)
    }

    fn unsuitable(&self, why: &str) -> RestoreError {
        insufficient_privilege(format!("role {} (DB_RESTRICTED_USER) {why}", self.role))
    }

    /// Checks properties of the role that no backup can change.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn check_role(&self, session: &Session) -> Result<(), RestoreError> {
        let sql = "SELECT rolname = current_user, rolcanlogin,
             EXISTS (SELECT FROM pg_auth_members WHERE member = pg_roles.oid) FROM pg_roles WHERE rolname = $1";
        let row = session
            .client()
            .query_opt(sql, &[&self.role])
            .await
            .map_err(map_lookup_error)?;
        let row = row.ok_or_else(|| {
            insufficient_privilege(format!(
                "role {} (DB_RESTRICTED_USER) does not exist: create it with the SQL in deploy/postgres",
                self.role
            ))
        })?;
        if row.get(0) {
            return Err(self.unsuitable("is the role of DB_USER"));
        }
        if let Some(power) = power_of(session, &self.role).await? {
            return Err(self.unsuitable(&format!(
                "is too powerful to load untrusted backups: {power}"
            )));
        }
        if !row.get::<_, bool>(1) {
            return Err(self.unsuitable(&format!(
                "may not log in: ALTER ROLE {} LOGIN",
                ident(&self.role)
            )));
        }
        if row.get(2) {
            Err(self.unsuitable("is a member of other roles: revoke them"))
        } else {
            Ok(())
        }
    }

    /// Checks that no change by an earlier backup is left in the role.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn check_state(&self, session: &Session) -> Result<(), RestoreError> {
        let name = ident(&self.role);
        if !self.is_ours(session).await? {
            let options = membership_options(session.version());
            let why = format!(
                "does not have DB_USER as a member, so restored objects could not be reassigned: \
                 GRANT {name} TO the role of DB_USER{options}"
            );
            return Err(self.unsuitable(&why));
        }
        // Settings for one database disappear with that database.
        if self.settings(session).await?.contains(&None) {
            let why = format!(
                "has settings that an earlier backup may have made: ALTER ROLE {name} RESET ALL"
            );
            return Err(self.unsuitable(&why));
        }
        let members = self.members(session).await?;
        if members.is_empty() {
            Ok(())
        } else {
            Err(self.unsuitable(&format!(
                "has members that an earlier backup may have added: REVOKE {name} FROM {}",
                members.join(", ")
            )))
        }
    }

    /// Undoes what a backup may have changed in the role, and ends its sessions. If something cannot be
    /// undone, [`Pooled::check_state`] or the next login fails.
    pub async fn undo(&self, session: &Session) {
        if let Err(e) = self.undo_all(session).await {
            tracing::warn!(
                role = self.role,
                error = report(&e),
                "failed to inspect a loading role"
            );
        }
    }

    async fn undo_all(&self, session: &Session) -> Result<(), DatabaseError> {
        let role = ident(&self.role);
        let administers_itself = session.version() < NO_SELF_ADMIN;
        if administers_itself && !self.is_ours(session).await? {
            let us = ident(self.our_role(session).await?.as_str());
            self.attempt(
                session,
                &format!("GRANT {role} TO {us}"),
                "the membership of DB_USER",
            )
            .await;
        }
        self.set_password(session).await;
        // Somebody who logged in with another password may still be connected, and could repeat the changes.
        self.end_sessions(session).await?;
        self.reset_settings(session).await?;
        for member in self.members(session).await? {
            self.attempt(
                session,
                &format!("REVOKE {role} FROM {}", ident(&member)),
                "the members",
            )
            .await;
        }
        Ok(())
    }

    async fn set_password(&self, session: &Session) {
        // A SCRAM verifier, because a plaintext password would appear in the server's log.
        let password = match &self.password {
            Some(p) => {
                let verifier =
                    postgres_protocol::password::scram_sha_256(p.expose_secret().as_bytes());
                format!("'{verifier}'")
            }
            None => "NULL".to_owned(),
        };
        self.attempt(
            session,
            &format!("ALTER ROLE {} PASSWORD {password}", ident(&self.role)),
            "the password",
        )
        .await;
    }

    async fn reset_settings(&self, session: &Session) -> Result<(), DatabaseError> {
        let settings = self.settings(session).await?;
        if !settings.is_empty() {
            // A session can only reset settings that it knows, and it learns PL/pgSQL's on first use.
            let _ = session.run("DO 'BEGIN END'").await;
        }
        for database in settings {
            let place = database
                .map(|d| format!(" IN DATABASE {}", ident(&d)))
                .unwrap_or_default();
            self.attempt(
                session,
                &format!("ALTER ROLE {}{place} RESET ALL", ident(&self.role)),
                "the settings",
            )
            .await;
        }
        Ok(())
    }

    async fn attempt(&self, session: &Session, sql: &str, what: &str) {
        if let Err(e) = self.by_whoever_may(session, sql).await {
            tracing::warn!(
                role = self.role, error = %e,
                "failed to reset {what} of a loading role, which a backup may have changed"
            );
        }
    }

    async fn by_whoever_may(&self, session: &Session, sql: &str) -> Result<(), DatabaseError> {
        let is_denied = |done: &Result<(), DatabaseError>| matches!(done, Err(e) if e.sqlstate() == Some(DENIED));
        let by_us = session.run(sql).await;
        if !is_denied(&by_us) {
            return by_us;
        }
        // One implicit transaction; SET LOCAL ends with it.
        let as_it = session
            .run(&format!("SET LOCAL ROLE {}; {sql}", ident(&self.role)))
            .await;
        if !is_denied(&as_it) {
            return as_it;
        }
        match self.server.without_retry().maintenance("restricted").await {
            Ok(itself) => itself.run(sql).await,
            Err(_) => as_it,
        }
    }

    async fn end_sessions(&self, session: &Session) -> Result<(), DatabaseError> {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        let deadline = tokio::time::Instant::now() + ENDING_LIMIT;
        while session
            .client()
            .execute(sql, &[&self.role])
            .await
            .map_err(map_lookup_error)?
            > 0
        {
            if tokio::time::Instant::now() >= deadline {
                tracing::warn!(
                    role = self.role,
                    "sessions of a loading role are still running after they were told to end"
                );
                break;
            }
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        Ok(())
    }

    async fn our_role(&self, session: &Session) -> Result<String, DatabaseError> {
        let row = session
            .client()
            .query_one("SELECT current_user::text", &[])
            .await;
        Ok(row.map_err(map_lookup_error)?.get(0))
    }

    /// Whether this session's role may reassign what it owns.
    async fn is_ours(&self, session: &Session) -> Result<bool, DatabaseError> {
        let sql = format!("SELECT {}", may_act_as(session.version(), "$1::name"));
        let row = session.client().query_one(&sql, &[&self.role]).await;
        Ok(row.map_err(map_lookup_error)?.get(0))
    }

    /// The databases for which it has settings; `None` stands for all databases.
    async fn settings(&self, session: &Session) -> Result<Vec<Option<String>>, DatabaseError> {
        let sql = "SELECT datname::text FROM pg_db_role_setting JOIN pg_roles r ON r.oid = setrole
             LEFT JOIN pg_database d ON d.oid = setdatabase WHERE rolname = $1 AND (setdatabase = 0 OR d.oid IS NOT NULL)";
        let rows = session
            .client()
            .query(sql, &[&self.role])
            .await
            .map_err(map_lookup_error)?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }

    /// Members that the role may have added itself.
    async fn members(&self, session: &Session) -> Result<Vec<String>, DatabaseError> {
        if session.version() >= NO_SELF_ADMIN {
            return Ok(vec![]);
        }
        let sql = "SELECT m.rolname::text FROM pg_auth_members JOIN pg_roles m ON m.oid = member
             JOIN pg_roles r ON r.oid = roleid
             WHERE r.rolname = $1 AND m.rolname <> current_user AND NOT m.rolsuper ORDER BY 1";
        let rows = session
            .client()
            .query(sql, &[&self.role])
            .await
            .map_err(map_lookup_error)?;
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }
}

/// Undoes, during a load, what the backup has done to the role that loads it: the sessions that are opened next work as
/// those that were open before.
pub(super) struct LoginRepair {
    /// Logs in as `DB_USER`.
    by: Server,
    role: Pooled,
    /// Two sessions that change a role at once fail.
    turn: tokio::sync::Mutex<()>,
}

impl LoginRepair {
    /// The server for a role that `by` can change.
    pub fn server(by: &Server, role: &str, password: Option<SecretString>) -> Server {
        let role = Pooled::new(by, role, password);
        let server = role.server.clone();
        server.repaired_by(Arc::new(LoginRepair {
            by: by.without_retry(),
            role,
            turn: tokio::sync::Mutex::default(),
        }))
    }

    async fn undo(&self) -> Result<(), DatabaseError> {
        let session = self.by.maintenance("restricted").await?;
        session.run(REPAIR_SETTINGS).await?;
        self.role.set_password(&session).await;
        self.role.reset_settings(&session).await
    }
}

impl RoleRepair for LoginRepair {
    fn repair(&self) -> BoxFuture<'_, ()> {
        async {
            let _turn = self.turn.lock().await;
            tracing::warn!(
                role = self.role.role,
                "a session of a loading role was refused, or has settings of the role, which the backup may have changed: trying to set its password and settings again"
            );
            if let Err(e) = self.undo().await {
                tracing::warn!(
                    role = self.role.role,
                    error = report(&e),
                    "failed to set the password and settings of a loading role again"
                );
            }
        }
        .boxed()
    }
}
