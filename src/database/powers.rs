//! Finds powers of a role beyond its own objects, direct or through roles that it is a member of. Code of an
//! untrusted backup could use all of them, because a `SECURITY DEFINER` function runs as its owner.

use crate::error::{DatabaseError, DatabaseKind, RestoreError};
pub(super) use crate::postgres::membership_options;
use crate::postgres::{MEMBERSHIP_OPTIONS, Session, literal, map_pg_error};

/// Roles of hosted PostgreSQL services that replace a superuser, replicate, or can access other databases.
const PLATFORM_ROLES: [&str; 30] = [
    "alloydbadmin",
    "alloydbimportexport",
    "alloydbreplica",
    "authenticator",
    "avnadmin",
    "azure_pg_admin",
    "azuresu",
    "ccp_monitoring",
    "cloud_admin",
    "cloudsqladmin",
    "cloudsqlimportexport",
    "cloudsqlreplica",
    "dashboard_user",
    "doadmin",
    "mdb_admin",
    "mdb_replication",
    "oci_admin",
    "rds_ad",
    "rds_password",
    "rds_replication",
    "rdsadmin",
    "rdsrepladmin",
    "rdstopmgr",
    "replication",
    "service_role",
    "supabase_admin",
    "supabase_read_only_user",
    "supabase_replication_admin",
    "tsdbadmin",
    "yb_db_admin",
];

/// The role `$1` and every role that it is a member of, directly or indirectly. Membership counts whatever
/// its options: since 16, one without `INHERIT` and `SET` may have `ADMIN`, which can grant the others.
const REACHED: &str = "WITH RECURSIVE reached(oid) AS (
    SELECT oid FROM pg_roles WHERE rolname = $1
    UNION SELECT m.roleid FROM pg_auth_members m JOIN reached ON m.member = reached.oid)";

/// OIDs from here on belong to objects created after `initdb`.
const FIRST_NORMAL_OID: u32 = 16_384;

/// Why code of an untrusted backup must not run as `role`: its attributes, or those of a role that it is a
/// member of. `None` if there is no reason, or no such role.
///
/// # Errors
/// `target_unavailable`.
pub(super) async fn power_of(
    session: &Session,
    role: &str,
) -> Result<Option<String>, DatabaseError> {
    let platform: Vec<String> = PLATFORM_ROLES.iter().map(|r| literal(r)).collect();
    let sql = format!(
        "{REACHED} SELECT r.rolname::text, r.rolname = $1, concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END,
           CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
           CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END)
         FROM reached JOIN pg_roles r USING (oid)
         WHERE rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
           OR (r.oid < {FIRST_NORMAL_OID} AND r.rolname LIKE 'pg\\_%') OR r.rolname = current_user
           OR r.rolname LIKE '%superuser%' OR r.rolname IN ({})
         ORDER BY r.rolname = $1 DESC, rolsuper DESC, 1 LIMIT 1",
        platform.join(", ")
    );
    let looking = |e: tokio_postgres::Error| map_pg_error(&e, "looking up a role's privileges");
    if let Some(row) = session
        .client()
        .query_opt(&sql, &[&role])
        .await
        .map_err(looking)?
    {
        let (reached, is_itself, attributes): (&str, bool, &str) =
            (row.get(0), row.get(1), row.get(2));
        return Ok(Some(match (is_itself, attributes) {
            (true, "") => "it is an administrator role of the server".to_owned(),
            (true, attributes) => format!("it has {attributes}"),
            (false, "") => format!("it is, directly or through other roles, a member of {reached}"),
            (false, attributes) => {
                format!(
                    "it is, directly or through other roles, a member of {reached}, which has {attributes}"
                )
            }
        }));
    }
    if session.version() < 150_000 {
        return Ok(None);
    }
    // A grant to PUBLIC (grantee 0) does not count: every role that code of a backup could run as has it, a newly
    // created one too, so another role would be no safer.
    let parameters = format!(
        "{REACHED} SELECT parname FROM pg_parameter_acl, aclexplode(paracl) WHERE grantee IN (SELECT oid FROM reached)
         ORDER BY 1 LIMIT 1"
    );
    let granted = session
        .client()
        .query_opt(&parameters, &[&role])
        .await
        .map_err(looking)?;
    Ok(granted.map(|r| format!("it may set the server parameter {}", r.get::<_, &str>(0))))
}

/// A condition: this role may act as `role`, an expression of a query, and give objects to it.
pub(super) fn may_act_as(version: u32, role: &str) -> String {
    if version < MEMBERSHIP_OPTIONS {
        format!("pg_has_role({role}, 'USAGE')")
    } else {
        format!("(pg_has_role({role}, 'USAGE') AND pg_has_role({role}, 'SET'))")
    }
}

pub(super) fn insufficient_privilege(what: String) -> RestoreError {
    DatabaseError::new(DatabaseKind::InsufficientPrivilege, what).into()
}

pub(super) fn map_lookup_error(e: tokio_postgres::Error) -> DatabaseError {
    map_pg_error(&e, "looking up roles")
}
