//! Restricted restores: what a backup brings (rows, functions, triggers, views) is loaded by a role that
//! owns nothing else and may do nothing else, and then belongs to a role without powers.
//!
//! The loading role logs in itself: a dump can `RESET ROLE`, but not become whom it never was. Nothing
//! that was restored is run by the role that keeps the bookkeeping.

use std::collections::BTreeSet;

use super::pooled::Pooled;
use super::powers::power_of;
use super::{Staging, TargetLock, VerificationDatabase, short_hash, try_lock};
use crate::config::RestrictedRoles;
use crate::error::{DatabaseError, FailureReason as R, RestoreError};
use crate::job::{OWN_PREFIX, made_for};
use crate::postgres::{Server, ServerFacts, Session, ident, literal, map_pg_error};
use crate::steps::reached;

/// Who loads a restricted restore, and to whom it belongs afterwards.
pub struct Loader {
    /// The server, for the role that loads.
    pub server: Server,
    role: String,
    /// Made for this restore, and dropped with it.
    is_ephemeral: bool,
    owner: String,
    /// Why the owner of the replaced database does not own what was loaded.
    passed_over: Option<String>,
}

pub(super) fn refused(what: String) -> RestoreError {
    DatabaseError::new(R::InsufficientPrivilege, what).into()
}

pub(super) fn looking(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking at roles")
}

impl TargetLock {
    /// Finds or makes the role that loads, and the one that owns what was loaded.
    ///
    /// # Errors
    /// `insufficient_privilege` where there is no fitting role and none can be made, `target_busy` where
    /// all of them are at work, `target_unavailable`.
    pub async fn confine(&self, roles: &RestrictedRoles) -> Result<Loader, RestoreError> {
        let (owner, passed_over) = self.final_owner(&roles.owner).await?;
        if roles.users.is_empty() {
            let loader = ephemeral(&self.server, &self.lock, &self.staging_name(), owner).await?;
            return Ok(Loader {
                passed_over,
                ..loader
            });
        }
        for role in &roles.users {
            let pooled = Pooled::new(&self.server, role, roles.password.clone());
            if !try_lock(&self.lock, &pooled.lock_name()).await? {
                continue;
            }
            pooled.check_nature(&self.lock).await?;
            // A restore that was killed has undone nothing.
            pooled.undo(&self.lock).await;
            pooled.check_state(&self.lock).await?;
            let server = pooled.server.clone();
            let _ = self.pooled.set(pooled);
            return Ok(Loader {
                server,
                role: role.clone(),
                is_ephemeral: false,
                owner,
                passed_over,
            });
        }
        let what =
            "every role of DB_RESTRICTED_USER is at work: name as many as restores run at once";
        Err(DatabaseError::new(R::TargetBusy, what).into())
    }

    /// Who owns what is restored: the owner of the database that is replaced, if that is a role without
    /// powers, else the configured one. With it, why the former was passed over.
    async fn final_owner(
        &self,
        configured: &str,
    ) -> Result<(String, Option<String>), RestoreError> {
        let session = &self.lock;
        let mut passed_over = None;
        if let Some(existing) = &self.existing {
            let sql = "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE oid = $1";
            let owner = session
                .client()
                .query_opt(sql, &[&existing.oid])
                .await
                .map_err(looking)?;
            if let Some(owner) = owner.map(|row| row.get::<_, String>(0)) {
                match power_of(session, &owner).await? {
                    None => return Ok((owner, None)),
                    Some(why) => {
                        passed_over =
                            Some(format!("role {owner} owns the replaced database: {why}"))
                    }
                }
            }
        }
        let sql = "SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = $1";
        let found = session
            .client()
            .query_opt(sql, &[&configured])
            .await
            .map_err(looking)?;
        let Some(row) = found else {
            if !may_make_roles(session).await? {
                return Err(refused(format!(
                    "there is no role {configured} (RESTRICTED_OWNER) to own what restricted restores put in place, and {} may not make it: deploy/postgres has the SQL",
                    self.server.user()
                )));
            }
            let name = ident(configured);
            session.run(&format!("CREATE ROLE {name} NOLOGIN")).await?;
            belong_to(session, &name).await?;
            return Ok((configured.to_owned(), passed_over));
        };
        check_owner(session, configured).await?;
        if !row.get::<_, bool>(0) {
            let (owner, me) = (ident(configured), ident(self.server.user()));
            return Err(refused(format!(
                "{me} is no member of {owner}: GRANT {owner} TO {me}"
            )));
        }
        Ok((configured.to_owned(), passed_over))
    }

    /// Lets the loading role, and nobody else, into the staging database.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn admit(&self, loader: &Loader, staging: &Staging) -> Result<(), RestoreError> {
        admit(&staging.on(&self.server), &self.lock, loader, &staging.name).await
    }

    /// Undoes what a backup can have done to the role of `DB_RESTRICTED_USER` that loads, if one does: its
    /// sessions end, and later ones log in as before.
    pub async fn set_loader_right(&self) {
        if let Some(pooled) = self.pooled.get() {
            pooled.undo(&self.lock).await;
        }
    }

    /// Gives everything that was loaded to its owner, and takes every right from the role that loaded.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn reassign_owned(
        &self,
        loader: &Loader,
        staging: &mut Staging,
    ) -> Result<Vec<String>, RestoreError> {
        let (database, role, owner) = (
            ident(&staging.name),
            ident(&loader.role),
            ident(&loader.owner),
        );
        let inside = staging
            .on(&self.server)
            .connect(&staging.name, "restricted")
            .await?;
        let said = |e: DatabaseError| e.context("handing over what was loaded");
        self.set_loader_right().await;
        // Roles may have been granted since the load began.
        check_owner(&self.lock, &loader.owner).await?;
        let public =
            "SELECT FROM pg_namespace WHERE nspname = 'public' AND pg_get_userbyid(nspowner) = $1";
        let public = inside
            .client()
            .query_opt(public, &[&loader.role])
            .await
            .map_err(looking)?;
        if public.is_some() && inside.version() >= 150000 {
            inside
                .run("ALTER SCHEMA public OWNER TO pg_database_owner")
                .await
                .map_err(said)?;
        }
        inside
            .run(&format!(
                "REASSIGN OWNED BY {role} TO {owner}; DROP OWNED BY {role}"
            ))
            .await
            .map_err(said)?;
        drop(inside);
        if self.existing.is_none() {
            staging
                .at_end
                .push(format!("ALTER DATABASE {database} OWNER TO {owner}"));
        }
        if loader.is_ephemeral {
            // A session that has just been closed may not have ended yet.
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
            self.lock
                .client()
                .execute(sql, &[&loader.role])
                .await
                .map_err(looking)?;
            self.lock
                .run(&format!("DROP ROLE {role}"))
                .await
                .map_err(said)?;
        }
        reached("handed_over");
        let passed_over = loader
            .passed_over
            .as_ref()
            .map(|why| format!(", not to another: {why}"));
        let belongs = format!(
            "restricted: everything in it belongs to role {}",
            loader.owner
        );
        Ok(vec![belongs + &passed_over.unwrap_or_default()])
    }
}

impl VerificationDatabase {
    /// The role that loads a backup to be proven; `None` where our own may not make one, and loads itself.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn confine(&self) -> Result<Option<Loader>, RestoreError> {
        if may_make_roles(&self.session).await? {
            Ok(Some(
                ephemeral(&self.server, &self.session, &self.name, String::new()).await?,
            ))
        } else {
            Ok(None)
        }
    }

    /// Lets it, and nobody else, into the database.
    ///
    /// # Errors
    /// `insufficient_privilege`, `target_unavailable`.
    pub async fn admit(&self, loader: &Loader, made: &Staging) -> Result<(), RestoreError> {
        admit(&made.on(&self.server), &self.session, loader, &made.name).await
    }
}

/// A role for one database of ours alone; it goes with it.
async fn ephemeral(
    server: &Server,
    session: &Session,
    database: &str,
    owner: String,
) -> Result<Loader, RestoreError> {
    if !may_make_roles(session).await? {
        return Err(refused(format!(
            "a restricted restore needs a role to load: name it in DB_RESTRICTED_USER (deploy/postgres has the SQL), or let {} make roles",
            server.user()
        )));
    }
    let role = format!("{OWN_PREFIX}r_{}", short_hash(database));
    let password = format!(
        "{}{}",
        uuid::Uuid::new_v4().simple(),
        uuid::Uuid::new_v4().simple()
    );
    // As a verifier: the password itself would be in the server's log.
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let (name, label) = (ident(&role), literal(&made_for(database)));
    session
        .run(&format!(
            "BEGIN; CREATE ROLE {name} LOGIN PASSWORD '{verifier}'; COMMENT ON ROLE {name} IS {label}; COMMIT"
        ))
        .await
        .map_err(|e| e.context("making the role that loads"))?;
    belong_to(session, &name).await?;
    reached("role");
    let server = server.as_role(&role, Some(password.into()));
    Ok(Loader {
        server,
        role,
        is_ephemeral: true,
        owner,
        passed_over: None,
    })
}

async fn admit(
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
    // Before 15 everybody may create in it.
    if inside.version() >= 150000 {
        inside
            .run(&format!("ALTER SCHEMA public OWNER TO {role}"))
            .await?;
    }
    Ok(())
}

impl Loader {
    /// What the server has, for the role that loads.
    pub fn facts(&self, facts: ServerFacts) -> ServerFacts {
        let trusted = |e: &String| facts.trusted_extensions.contains(e);
        let (extensions, untrusted) = facts.extensions.iter().cloned().partition(trusted);
        ServerFacts {
            user: self.role.clone(),
            is_superuser: false,
            may_create_roles: false,
            may_become: [self.role.clone()].into(),
            extensions,
            untrusted_extensions: untrusted,
            // It may create nothing in any but the database's own.
            tablespaces: BTreeSet::new(),
            ..facts
        }
    }
}

/// Whether restricted restores find their roles, in words.
///
/// # Errors
/// `insufficient_privilege`, `target_unavailable`, `access_denied` where a role cannot log in.
pub async fn check_restricted(
    server: &Server,
    roles: &RestrictedRoles,
) -> Result<String, RestoreError> {
    let session = server.maintenance("doctor").await?;
    let may_make = may_make_roles(&session).await?;
    let owner = session
        .client()
        .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&roles.owner])
        .await;
    if owner.map_err(looking)?.is_none() && !may_make {
        return Err(refused(format!(
            "there is no role {} (RESTRICTED_OWNER)",
            roles.owner
        )));
    }
    check_owner(&session, &roles.owner).await?;
    for role in &roles.users {
        let pooled = Pooled::new(server, role, roles.password.clone());
        pooled.check_nature(&session).await?;
        pooled.check_state(&session).await?;
        pooled
            .server
            .maintenance("doctor")
            .await
            .map_err(|e| e.context(&format!("logging in as {role}")))?;
    }
    match (roles.users.as_slice(), may_make) {
        ([], false) => Err(refused(
            "there is no DB_RESTRICTED_USER, and no role can be made".into(),
        )),
        ([], true) => Ok("a role is made for each restore".into()),
        (users, _) => Ok(format!(
            "loaded by {}, owned by {}",
            users.join(", "),
            roles.owner
        )),
    }
}

async fn may_make_roles(session: &Session) -> Result<bool, DatabaseError> {
    // Before 16, a role with CREATEROLE could make itself what it likes: nothing is made easier by it.
    let sql = "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user";
    Ok(session
        .client()
        .query_one(sql, &[])
        .await
        .map_err(looking)?
        .get(0))
}

/// Makes us a member of a role that we have just made: objects are given to members' roles only.
async fn belong_to(session: &Session, role: &str) -> Result<(), DatabaseError> {
    let row = session
        .client()
        .query_one(
            "SELECT rolsuper, current_user::text FROM pg_roles WHERE rolname = current_user",
            &[],
        )
        .await
        .map_err(looking)?;
    if row.get(0) {
        return Ok(());
    }
    let how = if session.version() >= 160000 {
        " WITH INHERIT TRUE, SET TRUE"
    } else {
        ""
    };
    session
        .run(&format!("GRANT {role} TO {}{how}", ident(row.get(1))))
        .await
}

/// The role of `RESTRICTED_OWNER` owns code that anybody may have written.
async fn check_owner(session: &Session, owner: &str) -> Result<(), RestoreError> {
    match power_of(session, owner).await? {
        None => Ok(()),
        Some(why) => Err(refused(format!(
            "role {owner} is too powerful to own what an untrusted backup brought, whose functions could act as that role: {why} \
             (take that from it, or name another role in RESTRICTED_OWNER)"
        ))),
    }
}
