//! What a copy that is promoted has of its own: settings, a connection limit and grants, which somebody gave to the copy and
//! not to the database that it replaces.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, Row};

use crate::error::{DatabaseError, report};
use crate::postgres::{ident, map_pg_error};

/// Most settings, and most grants, that a note lists.
const MAX_LISTED: usize = 20;
/// What everybody may do in a new database.
const OF_PUBLIC: &str = "CONNECT, TEMPORARY";

/// A database's comment in a column. One that was written from a database of another encoding may not be text in this one.
pub(super) fn comment_of(row: &Row, column: usize) -> Option<String> {
    row.try_get(column).unwrap_or_else(|e| {
        let error = report(&e);
        tracing::warn!(
            error,
            "the replaced database's comment cannot be read, and is not copied"
        );
        None
    })
}

#[derive(Debug, Default)]
pub(super) struct CopyProperties {
    owner: String,
    connection_limit: i32,
    settings: Vec<CopySetting>,
    /// Privileges by role, `None` for PUBLIC; no map if they are those of a new database.
    grants: Option<BTreeMap<Option<String>, String>>,
}

#[derive(Debug)]
struct CopySetting {
    /// For this role alone.
    role: Option<String>,
    name: String,
    /// Whether this role may reset it.
    is_ours: bool,
}

impl CopyProperties {
    pub(super) async fn read(client: &Client, oid: u32) -> Result<Self, DatabaseError> {
        let failed = |e: tokio_postgres::Error| map_pg_error(&e, "looking up the copy");
        let database = client
            .query_one(
                "SELECT pg_get_userbyid(datdba)::text, datconnlimit, datacl IS NOT NULL FROM pg_database WHERE oid = $1",
                &[&oid],
            )
            .await
            .map_err(failed)?;
        let settings = client
            .query(
                "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole)::text END, split_part(entry, '=', 1),
                   me.rolsuper OR (setrole IN (0, me.oid) AND NOT EXISTS (SELECT FROM pg_settings
                     WHERE lower(name) = lower(split_part(entry, '=', 1)) AND context IN ('superuser', 'superuser-backend')))
                 FROM pg_db_role_setting, unnest(setconfig) AS entry, pg_roles me
                 WHERE setdatabase = $1 AND me.rolname = current_user ORDER BY 1 NULLS FIRST, 2",
                &[&oid],
            )
            .await
            .map_err(failed)?;
        let granted = client
            .query(
                "SELECT CASE WHEN grantee = 0 THEN NULL ELSE pg_get_userbyid(grantee)::text END,
                   string_agg(DISTINCT privilege_type, ', ' ORDER BY privilege_type)
                 FROM pg_database, aclexplode(datacl) WHERE oid = $1 GROUP BY grantee",
                &[&oid],
            )
            .await
            .map_err(failed)?;
        let has_grants: bool = database.get(2);
        Ok(CopyProperties {
            owner: database.get(0),
            connection_limit: database.get(1),
            settings: settings
                .iter()
                .map(|r| CopySetting {
                    role: r.get(0),
                    name: r.get(1),
                    is_ours: r.get(2),
                })
                .collect(),
            grants: has_grants.then(|| granted.iter().map(|r| (r.get(0), r.get(1))).collect()),
        })
    }

    /// Statements that make the copy like a new database. What this role may not reset stays.
    pub(super) fn reset(&self, copy: &str) -> Vec<String> {
        let name = ident(copy);
        let mut sql = vec![
            format!("ALTER DATABASE {name} RESET ALL"),
            format!("ALTER DATABASE {name} CONNECTION LIMIT -1"),
        ];
        let ours = self.settings.iter().filter(|s| s.is_ours);
        let roles: BTreeSet<&str> = ours.filter_map(|s| s.role.as_deref()).collect();
        sql.extend(
            roles
                .iter()
                .map(|r| format!("ALTER ROLE {} IN DATABASE {name} RESET ALL", ident(r))),
        );
        let Some(grants) = &self.grants else {
            return sql;
        };
        sql.extend(grants.keys().map(|grantee| {
            let grantee = grantee.as_deref().map_or("PUBLIC".to_owned(), ident);
            // With what the grantee granted to others.
            format!("REVOKE ALL ON DATABASE {name} FROM {grantee} CASCADE")
        }));
        sql.push(format!("GRANT {OF_PUBLIC} ON DATABASE {name} TO PUBLIC"));
        sql.push(format!(
            "GRANT ALL ON DATABASE {name} TO {}",
            ident(&self.owner)
        ));
        sql
    }

    /// A note about what [`CopyProperties::reset`] leaves, if there is any.
    pub(super) fn note_left(&self, target: &str) -> Option<String> {
        let left: Vec<String> = self
            .settings
            .iter()
            .filter(|s| !s.is_ours)
            .map(CopySetting::label)
            .collect();
        (!left.is_empty()).then(|| {
            format!(
                "settings of the copy stay in force in {target}, because only a superuser can reset them (ALTER DATABASE … RESET): {}",
                listed(&left)
            )
        })
    }

    /// A note about all that the copy has of its own and keeps as `target`, if there is any.
    pub(super) fn note_kept(&self, target: &str) -> Option<String> {
        let mut parts = Vec::new();
        if !self.settings.is_empty() {
            let settings: Vec<String> = self.settings.iter().map(CopySetting::label).collect();
            parts.push(format!("settings ({})", listed(&settings)));
        }
        if self.connection_limit != -1 {
            parts.push(format!("connection limit ({})", self.connection_limit));
        }
        let grants = self.unusual_grants();
        if !grants.is_empty() {
            parts.push(format!("grants ({})", listed(&grants)));
        }
        (!parts.is_empty()).then(|| {
            format!(
                "{target} keeps what the copy had of its own: {}",
                parts.join(", ")
            )
        })
    }

    /// Grants that a new database does not have.
    fn unusual_grants(&self) -> Vec<String> {
        let Some(grants) = &self.grants else {
            return vec![];
        };
        let of_public = grants.get(&None).map_or("nothing", String::as_str);
        let mut unusual = Vec::new();
        if of_public != OF_PUBLIC {
            unusual.push(format!("{of_public} to PUBLIC"));
        }
        for (grantee, privileges) in grants {
            if let Some(role) = grantee.as_ref().filter(|g| **g != self.owner) {
                unusual.push(format!("{privileges} to {role}"));
            }
        }
        unusual
    }
}

impl CopySetting {
    fn label(&self) -> String {
        match &self.role {
            Some(role) => format!("{} of role {role}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The first of these, for a note.
fn listed(all: &[String]) -> String {
    let shown = all[..all.len().min(MAX_LISTED)].join(", ");
    match all.len().saturating_sub(MAX_LISTED) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(role: Option<&str>, name: &str, is_ours: bool) -> CopySetting {
        CopySetting {
            role: role.map(str::to_owned),
            name: name.to_owned(),
            is_ours,
        }
    }

    #[test]
    fn what_a_copy_has_of_its_own_is_reset_or_named() {
        let new = CopyProperties {
            owner: "me".into(),
            connection_limit: -1,
            grants: Some(BTreeMap::from([
                (None, OF_PUBLIC.to_owned()),
                (Some("me".into()), "CONNECT, CREATE, TEMPORARY".into()),
            ])),
            ..CopyProperties::default()
        };
        assert_eq!((new.note_kept("app"), new.note_left("app")), (None, None));
        let changed = CopyProperties {
            owner: "me".into(),
            connection_limit: 1,
            settings: vec![
                setting(None, "statement_timeout", true),
                setting(Some("me"), "work_mem", true),
                setting(Some("x"), "work_mem", false),
            ],
            grants: Some(BTreeMap::from([(Some("x".into()), "CONNECT".into())])),
        };
        assert_eq!(
            changed.note_kept("app").unwrap(),
            "app keeps what the copy had of its own: settings (statement_timeout, work_mem of role me, work_mem of role x), \
             connection limit (1), grants (nothing to PUBLIC, CONNECT to x)"
        );
        let left = changed.note_left("app").unwrap();
        assert!(left.ends_with("RESET): work_mem of role x"), "{left}");
        assert_eq!(
            changed.reset("c"),
            [
                "ALTER DATABASE \"c\" RESET ALL",
                "ALTER DATABASE \"c\" CONNECTION LIMIT -1",
                "ALTER ROLE \"me\" IN DATABASE \"c\" RESET ALL",
                "REVOKE ALL ON DATABASE \"c\" FROM \"x\" CASCADE",
                "GRANT CONNECT, TEMPORARY ON DATABASE \"c\" TO PUBLIC",
                "GRANT ALL ON DATABASE \"c\" TO \"me\"",
            ]
        );
        let many: Vec<String> = (0..22).map(|n| n.to_string()).collect();
        assert!(listed(&many).ends_with("19, and 2 more"));
    }
}
