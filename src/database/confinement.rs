//! Restricted restores: everything in a backup (rows, functions, triggers, views) is loaded by a role that
//! owns nothing else and may do nothing else, and is then handed to a role without powers.
//!
//! The loading role logs in itself: a dump can run `RESET ROLE`, but that leads back to the loading role
//! only. The role that keeps the journal never runs restored code.

use std::collections::BTreeSet;

use super::advisory_locks::try_lock;
use super::names::short_hash;
use super::ownership;
use super::pooled::{LoginRepair, Pooled};
use super::powers::{
    insufficient_privilege, map_lookup_error, may_act_as, membership_options, power_of,
};
use super::staging::Staging;
use super::target_lock::TargetLock;
use super::temporary_database::TemporaryDatabase;
use super::work::FoundWork;
use crate::config::RestrictedRoles;
use crate::error::{DatabaseError, DatabaseKind, RestoreError};
use crate::job::{OWN_PREFIX, made_for};
use crate::postgres::{Server, ServerFacts, Session, ident, literal};
use crate::steps::reached;
use pgdump_restore::hooks_of;

/// The role that loads a restricted restore, and the role that owns the result.
pub struct Loader {
    /// The server, as seen by the loading role.
    pub server: Server,
    role: String,
    /// Created for this restore, and dropped with it.
    is_temporary: bool,
    owner: String,
    /// The owner of the replaced database, and why that role must not own the restored one.
    rejected_owner: Option<String>,
}

impl TargetLock {
    /// Finds or creates the loading role and the final owner. Work of an earlier attempt is continued by the role that began
    /// it.
    ///
    /// # Errors
    /// `insufficient_privilege` if there is no suitable role and none can be created, `target_busy` if all
    /// loading roles are in use, `target_unavailable`.
    pub async fn confine(
        &self,
        roles: &RestrictedRoles,
        continued: Option<&FoundWork>,
    ) -> Result<Loader, RestoreError> {
        let (owner, rejected_owner) = self.final_owner(&roles.owner).await?;
        if roles.users.is_empty() {
            let loader =
                temporary_loader(&self.server, &self.lock, &self.staging_name(), owner).await?;
            return Ok(Loader {
                rejected_owner,
                ..loader
            });
        }
        // What it has loaded belongs to it. If this attempt begins once more, only the role that it has is set right again.
        let ours = self.pooled.get().map(|pooled| pooled.role().to_owned());
        let loaded_by = ours.or_else(|| continued.and_then(FoundWork::loader));
        let loaded_by = loaded_by.filter(|role| roles.users.contains(role));
        let is_suitable = |role: &&String| loaded_by.as_ref().is_none_or(|by| by == *role);
        for role in roles.users.iter().filter(is_suitable) {
            let pooled = Pooled::new(&self.server, role, roles.password.clone());
            if !try_lock(&self.lock, &pooled.lock_name()).await? {
                continue;
            }
            pooled.check_role(&self.lock).await?;
            // A killed restore may have left changes to the role.
            pooled.undo(&self.lock).await;
            pooled.check_state(&self.lock).await?;
            let server = LoginRepair::server(&self.server, role, roles.password.clone());
            let _ = self.pooled.set(pooled);
            return Ok(Loader {
                server,
                role: role.clone(),
                is_temporary: false,
                owner,
                rejected_owner,
            });
        }
        let what = match &loaded_by {
            Some(role) => format!(
                "role {role} (DB_RESTRICTED_USER), which has loaded a part of this restore, is in use"
            ),
            None => "every role of DB_RESTRICTED_USER is in use: name as many roles as restores run at once".to_owned(),
        };
        Err(DatabaseError::new(DatabaseKind::Busy, what).into())
    }

    /// The owner of the restored database: the owner of the replaced one, if that is a role without powers,
    /// else the configured role. Also returns why the former was rejected.
    async fn final_owner(
        &self,
        configured: &str,
    ) -> Result<(String, Option<String>), RestoreError> {
        let session = &self.lock;
        let mut rejected_owner = None;
        if let Some(existing) = &self.existing {
            let sql = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE oid = $1";
            let owner = session
                .client()
                .query_opt(sql, &[&existing.oid])
                .await
                .map_err(map_lookup_error)?;
            if let Some(owner) = owner.map(|row| row.get::<_, String>(0)) {
                match power_of(session, &owner).await? {
                    None => return Ok((owner, None)),
                    Some(why) => {
                        rejected_owner = Some(format!(
                            "role {owner}, which owns the replaced database: {why}"
                        ))
                    }
                }
            }
        }
        let Some(is_member) = is_member_of_owner(session, configured).await? else {
            if !may_create_roles(session).await? {
                return Err(insufficient_privilege(format!(
                    "role {configured} (RESTRICTED_OWNER), which owns databases of restricted restores, does not exist, and {} may not create it: create it with the SQL in deploy/postgres",
                    self.server.user()
                )));
            }
            let name = ident(configured);
            session.run(&format!("CREATE ROLE {name} NOLOGIN")).await?;
            grant_to_self(session, &name).await?;
            return Ok((configured.to_owned(), rejected_owner));
        };
        check_owner(session, configured).await?;
        if !is_member {
            return Err(not_a_member(&self.server, configured, session.version()));
        }
        Ok((configured.to_owned(), rejected_owner))
    }

    /// Allows only the loading role to connect to the staging database.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn admit(&self, loader: &Loader, staging: &Staging) -> Result<(), RestoreError> {
        grant_connect(&staging.on(&self.server), &self.lock, loader, &staging.name).await
    }

    /// If a role of `DB_RESTRICTED_USER` loads, undoes what the backup may have changed in it and ends its
    /// sessions.
    pub async fn set_loader_right(&self) {
        if let Some(pooled) = self.pooled.get() {
            pooled.undo(&self.lock).await;
        }
    }

    /// Hands everything that was loaded to the final owner, without the privileges that the backup granted on it,
    /// and revokes all privileges of the loading role. Returns notes for the result.
    ///
    /// # Errors
    /// `insufficient_privilege`, `restore_error` if the server has too few locks, `target_unavailable`.
    pub async fn reassign_owned(
        &self,
        loader: &Loader,
        staging: &mut Staging,
    ) -> Result<Vec<String>, RestoreError> {
        self.give_to(&loader.owner, loader, staging).await
    }

    /// The same for a role that an earlier attempt has chosen. That one may have begun with it, or have done all of it.
    ///
    /// # Errors
    /// As [`TargetLock::reassign_owned`].
    pub(super) async fn give_to(
        &self,
        owner: &str,
        loader: &Loader,
        staging: &mut Staging,
    ) -> Result<Vec<String>, RestoreError> {
        let with_context =
            |e: DatabaseError| e.context("reassigning the restored objects to their owner");
        self.set_loader_right().await;
        // The owner may have been granted roles since the load began.
        check_owner(&self.lock, owner).await?;
        let server = staging.on(&self.server);
        ownership::transfer(&server, &staging.name, &loader.role, owner)
            .await
            .map_err(with_context)?;
        staging.belongs_to(owner, self.existing.is_none());
        self.drop_temporary(loader).await.map_err(with_context)?;
        reached("handed_over");
        let rejected_owner = loader
            .rejected_owner
            .as_ref()
            .map(|why| format!(", not to {why}"));
        let belongs = format!("restricted: everything in it belongs to role {owner}");
        Ok(vec![belongs + &rejected_owner.unwrap_or_default()])
    }

    /// Drops the role that loads, if it was made for this restore.
    async fn drop_temporary(&self, loader: &Loader) -> Result<(), DatabaseError> {
        if !loader.is_temporary {
            return Ok(());
        }
        // A session that was just closed may not have ended yet, and would block the drop.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        self.lock
            .client()
            .execute(sql, &[&loader.role])
            .await
            .map_err(map_lookup_error)?;
        self.lock
            .run(&format!("DROP ROLE {}", ident(&loader.role)))
            .await
    }
}

impl TemporaryDatabase {
    /// Creates the role that loads a backup to be verified; `None` if this role may not create roles, and
    /// therefore loads the backup itself.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn confine(&self) -> Result<Option<Loader>, RestoreError> {
        if may_create_roles(&self.session).await? {
            Ok(Some(
                temporary_loader(&self.server, &self.session, &self.name, String::new()).await?,
            ))
        } else {
            Ok(None)
        }
    }

    /// Allows only the loading role to connect to the database.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn admit(&self, loader: &Loader, made: &Staging) -> Result<(), RestoreError> {
        grant_connect(&made.on(&self.server), &self.session, loader, &made.name).await
    }
}

/// Creates a role for one database only; it is dropped together with the database.
async fn temporary_loader(
    server: &Server,
    session: &Session,
    database: &str,
    owner: String,
) -> Result<Loader, RestoreError> {
    if !may_create_roles(session).await? {
        return Err(insufficient_privilege(format!(
            "a restricted restore needs a loading role: name one in DB_RESTRICTED_USER (deploy/postgres has the SQL), or allow {} to create roles (CREATEROLE)",
            server.user()
        )));
    }
    let role = format!("{OWN_PREFIX}r_{}", short_hash(database));
    let password = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    // A SCRAM verifier, because a plaintext password would appear in the server's log.
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let (name, label) = (ident(&role), literal(&made_for(database)));
    // One that an earlier attempt has made owns what that has loaded.
    let sql = if is_made_for(session, &role, database).await? {
        format!("ALTER ROLE {name} LOGIN PASSWORD '{verifier}'")
    } else {
        format!(
            "BEGIN; CREATE ROLE {name} LOGIN PASSWORD '{verifier}'; COMMENT ON ROLE {name} IS {label}; COMMIT"
        )
    };
    let made = session.run(&sql).await;
    made.map_err(|e| e.context("creating the loading role"))?;
    grant_to_self(session, &name).await?;
    reached("role");
    let server = LoginRepair::server(server, &role, Some(password.into()));
    Ok(Loader {
        server,
        role,
        is_temporary: true,
        owner,
        rejected_owner: None,
    })
}

/// Whether a role of this name was made for this database.
async fn is_made_for(session: &Session, role: &str, database: &str) -> Result<bool, DatabaseError> {
    let sql = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1 AND shobj_description(oid, 'pg_authid') = $2)";
    let label = made_for(database);
    let row = session.client().query_one(sql, &[&role, &label]).await;
    Ok(row.map_err(map_lookup_error)?.get(0))
}

async fn grant_connect(
    server: &Server,
    session: &Session,
    loader: &Loader,
    database: &str,
) -> Result<(), RestoreError> {
    let (quoted, role) = (ident(database), ident(&loader.role));
    let sql = format!(
        "REVOKE ALL ON DATABASE {quoted} FROM PUBLIC; \
         GRANT CONNECT, CREATE, TEMPORARY ON DATABASE {quoted} TO {role}"
    );
    session.run(&sql).await?;
    let inside = server.connect(database, "restricted").await?;
    // Before 15, everybody may create objects in it anyway.
    if inside.version() >= 150000 {
        inside
            .run(&format!("ALTER SCHEMA public OWNER TO {role}"))
            .await?;
    }
    Ok(())
}

impl Loader {
    /// The role that loads.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The role that everything belongs to in the end.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// The role of `DB_RESTRICTED_USER` that loads.
    pub fn configured_role(&self) -> Option<&str> {
        (!self.is_temporary).then_some(self.role.as_str())
    }

    /// The role that loads, if it was made for this restore alone.
    pub(super) fn temporary_role(&self) -> Option<String> {
        self.is_temporary.then(|| self.role.clone())
    }

    /// The server's properties as they apply to the loading role, which may create only the `trusted` extensions.
    pub fn facts(&self, facts: ServerFacts, trusted: &BTreeSet<String>) -> ServerFacts {
        facts_for_loader(&self.role, facts, trusted)
    }
}

/// The server's properties as they apply to a loading role of this name, which may create only the `trusted` extensions.
pub fn facts_for_loader(role: &str, facts: ServerFacts, trusted: &BTreeSet<String>) -> ServerFacts {
    // Functions that are called after CREATE EXTENSION change settings of the database.
    let is_called = |e: &str| hooks_of(e).is_some_and(|h| !h.after_create.is_empty());
    let is_trusted = |e: &String| trusted.contains(e) && !is_called(e);
    let (extensions, untrusted) = facts.extensions.iter().cloned().partition(is_trusted);
    ServerFacts {
        user: role.to_owned(),
        is_superuser: false,
        may_create_databases: false,
        may_create_roles: false,
        may_become: [role.to_owned()].into(),
        may_grant_itself: BTreeSet::new(),
        extensions,
        untrusted_extensions: untrusted,
        // It may only use the database's default tablespace.
        tablespaces: BTreeSet::new(),
        ..facts
    }
}

/// Checks the roles of restricted restores; returns a human-readable summary.
///
/// # Errors
/// `insufficient_privilege`, `target_unavailable`, `access_denied` if a role cannot log in.
pub async fn check_restricted(
    server: &Server,
    roles: &RestrictedRoles,
) -> Result<String, RestoreError> {
    let session = server.maintenance("doctor").await?;
    let may_make = may_create_roles(&session).await?;
    let owner = is_member_of_owner(&session, &roles.owner).await?;
    if owner.is_none() && !may_make {
        return Err(insufficient_privilege(format!(
            "role {} (RESTRICTED_OWNER) does not exist: create it with the SQL in deploy/postgres",
            roles.owner
        )));
    }
    check_owner(&session, &roles.owner).await?;
    if owner == Some(false) {
        return Err(not_a_member(server, &roles.owner, session.version()));
    }
    for role in &roles.users {
        let pooled = Pooled::new(server, role, roles.password.clone());
        pooled.check_role(&session).await?;
        pooled.check_state(&session).await?;
        pooled
            .server
            .maintenance("doctor")
            .await
            .map_err(|e| e.context(&format!("logging in as {role}")))?;
    }
    match (roles.users.as_slice(), may_make) {
        ([], false) => Err(insufficient_privilege(
            "DB_RESTRICTED_USER is not set, and DB_USER may not create roles".into(),
        )),
        ([], true) => Ok("a role is created for each restore".into()),
        (users, _) => Ok(format!(
            "loaded by {}, owned by {}",
            users.join(", "),
            roles.owner
        )),
    }
}

/// Whether our role may give objects to the configured owner; `None` if there is no such role.
async fn is_member_of_owner(
    session: &Session,
    configured: &str,
) -> Result<Option<bool>, DatabaseError> {
    let may = may_act_as(session.version(), "oid");
    let sql = format!("SELECT {may} FROM pg_roles WHERE rolname = $1");
    let found = session.client().query_opt(&sql, &[&configured]).await;
    Ok(found.map_err(map_lookup_error)?.map(|row| row.get(0)))
}

fn not_a_member(server: &Server, owner: &str, version: u32) -> RestoreError {
    let (owner, me) = (ident(owner), ident(server.user()));
    let options = membership_options(version);
    insufficient_privilege(format!(
        "{me} is not a member of {owner}: GRANT {owner} TO {me}{options}"
    ))
}

async fn may_create_roles(session: &Session) -> Result<bool, DatabaseError> {
    // Before 16, a role with CREATEROLE could grant itself almost any role, so this check grants nothing new.
    let sql = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user";
    Ok(session
        .client()
        .query_one(sql, &[])
        .await
        .map_err(map_lookup_error)?
        .get(0))
}

/// Makes this role a member of one that it has just created: objects can only be reassigned to roles that
/// one is a member of.
async fn grant_to_self(session: &Session, role: &str) -> Result<(), DatabaseError> {
    let row = session
        .client()
        .query_one(
            "SELECT rolsuper, current_user::text FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(map_lookup_error)?;
    if row.get(0) {
        return Ok(());
    }
    let options = membership_options(session.version());
    session
        .run(&format!("GRANT {role} TO {}{options}", ident(row.get(1))))
        .await
}

/// Checks that the final owner has no powers, because it will own code from an untrusted source.
pub(super) async fn check_owner(session: &Session, owner: &str) -> Result<(), RestoreError> {
    match power_of(session, owner).await? {
        None => Ok(()),
        Some(why) => Err(insufficient_privilege(format!(
            "role {owner} is too powerful to own objects of an untrusted backup, whose functions could act as that role: {why} \
             (revoke that, or name another role in RESTRICTED_OWNER)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_creates_only_trusted_extensions_that_call_nothing() {
        let names = |all: &[&str]| all.iter().map(|e| (*e).to_owned()).collect::<BTreeSet<_>>();
        let facts = ServerFacts {
            extensions: names(&["hstore", "timescaledb", "dblink"]),
            ..ServerFacts::default()
        };
        let facts = facts_for_loader("loader", facts, &names(&["hstore", "timescaledb"]));
        assert_eq!(facts.extensions, names(&["hstore"]));
        assert_eq!(
            facts.untrusted_extensions,
            names(&["dblink", "timescaledb"])
        );
    }
}
