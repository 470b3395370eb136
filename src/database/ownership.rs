//! Gives everything that a loading role owns to the final owner, without any privilege that the backup granted.
//!
//! The new owner of an object needs CREATE on its schema, or on the database, at that moment, unless the role that
//! alters it is a superuser. And PostgreSQL locks each relation until the end of the transaction that changes its
//! owner, in a table of locks that all sessions share: `REASSIGN OWNED` alone would fill it if there are many. So
//! schemas come first, and relations follow in batches. Nobody sees a state in between: until the swap only `DB_USER`,
//! the loading role and superusers can connect to the database, and it is dropped if this fails.

use futures::TryStreamExt;
use tokio_postgres::types::ToSql;

use super::powers::map_lookup_error;
use crate::error::DatabaseError;
use crate::postgres::{Server, Session, ident, map_pg_error};

/// Most locks that a transaction takes. A server has at least `max_connections` times
/// `max_locks_per_transaction` (64 by default) of them.
const MAX_LOCKS: i64 = 500;

/// From this version on, the owner of the database owns the schema `public`.
const PUBLIC_BELONGS_TO_DATABASE: u32 = 150_000;

/// Statements that reset the privileges on what `$1` owns to the default, and the number of locks of each. Restored
/// statements that grant privileges are left out, but code of the backup may have granted some (`EXECUTE`). Schemas
/// come first, because names in a schema are found only with privileges on it. What the script of an extension
/// granted is part of the extension.
const PRIVILEGES: &str =
    "WITH loader AS (SELECT oid, rolname FROM pg_roles WHERE rolname = $1), granted(class, oid, kind, name, acl, to_public) AS (
    SELECT 'pg_namespace'::regclass, oid, 'SCHEMA', quote_ident(nspname), nspacl, CASE nspname WHEN 'public' THEN 'USAGE' END
      FROM pg_namespace WHERE nspowner = (SELECT oid FROM loader)
    UNION ALL SELECT 'pg_class'::regclass, oid, CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass::text,
      relacl || (SELECT array_agg(item) FROM pg_attribute, unnest(attacl) AS item WHERE attrelid = pg_class.oid), NULL
      FROM pg_class WHERE relowner = (SELECT oid FROM loader) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
    UNION ALL SELECT 'pg_proc'::regclass, oid, 'ROUTINE', oid::regprocedure::text, proacl, 'ALL'
      FROM pg_proc WHERE proowner = (SELECT oid FROM loader)
    UNION ALL SELECT 'pg_type'::regclass, oid, 'TYPE', oid::regtype::text, typacl, 'ALL'
      FROM pg_type WHERE typowner = (SELECT oid FROM loader)
    UNION ALL SELECT 'pg_language'::regclass, oid, 'LANGUAGE', quote_ident(lanname), lanacl, 'ALL'
      FROM pg_language WHERE lanowner = (SELECT oid FROM loader)
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 'FOREIGN SERVER', quote_ident(srvname), srvacl, NULL
      FROM pg_foreign_server WHERE srvowner = (SELECT oid FROM loader)
    UNION ALL SELECT 'pg_largeobject'::regclass, oid, 'LARGE OBJECT', oid::text, lomacl, NULL
      FROM pg_largeobject_metadata WHERE lomowner = (SELECT oid FROM loader))
  SELECT format('REVOKE ALL ON %1$s %2$s FROM %3$s CASCADE; GRANT ALL ON %1$s %2$s TO %4$I', kind, name, grantees, rolname)
      || coalesce('; GRANT ' || to_public || ' ON ' || kind || ' ' || name || ' TO PUBLIC', ''), 1::int8
    FROM loader, granted, LATERAL (
      SELECT string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, ', ')
      FROM (SELECT grantee FROM aclexplode(acl) UNION ALL VALUES (0), (loader.oid)) AS item) AS names(grantees)
    WHERE acl IS NOT NULL
      AND NOT EXISTS (SELECT FROM pg_init_privs WHERE classoid = class AND objoid = granted.oid AND privtype = 'e')
    ORDER BY kind <> 'SCHEMA'";

/// Statements that give the schemas of `$1` to `$2`.
const SCHEMAS: &str =
    "SELECT format('ALTER SCHEMA %I OWNER TO %I', nspname, $2::text), 1::int8 FROM pg_namespace
    WHERE nspowner = (SELECT oid FROM pg_roles WHERE rolname = $1)";

/// Statements that give the relations and composite types of `$1` to `$2`. Each also locks the indexes of a table, its
/// TOAST table and the sequences of its columns, which follow it. Temporary tables may be about to disappear.
const RELATIONS: &str =
    "SELECT format('ALTER %s %I.%I OWNER TO %I', CASE relkind WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, nspname, relname, $2::text),
      4 + (SELECT count(*) FROM pg_index WHERE indrelid = c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE relowner = (SELECT oid FROM pg_roles WHERE rolname = $1) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'
      AND NOT (relkind = 'S' AND EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid
        AND refclassid = 'pg_class'::regclass AND refobjsubid > 0 AND deptype IN ('a', 'i')))";

/// Gives everything in `database` that `from` owns to `to`, with default privileges, and revokes all privileges of
/// `from`. `server` has the database pinned to its OID. It may be repeated if it was interrupted.
///
/// # Errors
/// `insufficient_privilege`, `restore_error` if the server has too few locks, `target_unavailable`.
pub(super) async fn transfer(
    server: &Server,
    database: &str,
    from: &str,
    to: &str,
) -> Result<(), DatabaseError> {
    let session = server.connect(database, "restricted").await?;
    // A session of its own: it lists the objects while the other one alters them.
    let lists = server
        .streaming_rows()
        .connect(database, "restricted")
        .await?;
    // An interrupted transfer may have given it to the final owner, with the other schemas.
    let takes_public = session.version() >= PUBLIC_BELONGS_TO_DATABASE
        && owns_public(&session, &[from, to]).await?;
    run_listed(&lists, &session, PRIVILEGES, &[&from]).await?;
    run_listed(&lists, &session, SCHEMAS, &[&from, &to]).await?;
    run_listed(&lists, &session, RELATIONS, &[&from, &to]).await?;
    let end = remainder(&ident(database), &ident(from), &ident(to), takes_public);
    session.run(&end).await
}

async fn owns_public(session: &Session, roles: &[&str]) -> Result<bool, DatabaseError> {
    let sql = "SELECT FROM pg_namespace WHERE nspname = 'public' AND pg_get_userbyid(nspowner)::text = ANY($1)";
    let row = session.client().query_opt(sql, &[&roles]).await;
    Ok(row.map_err(map_lookup_error)?.is_some())
}

/// What follows schemas and relations, in one transaction: other objects take no locks. The new owner of a
/// publication needs CREATE on the database.
fn remainder(database: &str, from: &str, to: &str, takes_public: bool) -> String {
    let public = if takes_public {
        "ALTER SCHEMA public OWNER TO pg_database_owner; "
    } else {
        ""
    };
    format!(
        "GRANT CREATE ON DATABASE {database} TO {to}; REASSIGN OWNED BY {from} TO {to}; \
         REVOKE CREATE ON DATABASE {database} FROM {to}; {public}DROP OWNED BY {from}"
    )
}

/// Runs on `session` the statements that `query` returns, each with the number of its locks, in transactions of at
/// most [`MAX_LOCKS`].
pub(super) async fn run_listed(
    lists: &Session,
    session: &Session,
    query: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<(), DatabaseError> {
    let failed = |e: tokio_postgres::Error| map_pg_error(&e, "listing the objects of the database");
    let mut rows = lists.rows(query, values).await.map_err(failed)?;
    let mut batch = Batch::default();
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        if let Some(full) = batch.add(row.get(0), row.get(1)) {
            session.run(&full).await?;
        }
    }
    if batch.sql.is_empty() {
        return Ok(());
    }
    session.run(&batch.sql).await
}

/// Statements that run in one transaction.
#[derive(Debug, Default)]
struct Batch {
    sql: String,
    locks: i64,
}

impl Batch {
    /// Adds a statement that takes so many locks. If there is no room for them, returns the statements before it.
    fn add(&mut self, statement: &str, locks: i64) -> Option<String> {
        let is_full = !self.sql.is_empty() && self.locks + locks > MAX_LOCKS;
        let full = is_full.then(|| std::mem::take(self).sql);
        self.sql.push_str(statement);
        self.sql.push_str(";\n");
        self.locks += locks;
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_limited_by_their_locks() {
        let mut batch = Batch::default();
        let tables = ["a", "b", "c", "d", "e"];
        let locks = [200, 300, 1, 9000, 4];
        let full: Vec<Option<String>> = tables
            .iter()
            .zip(locks)
            .map(|(table, locks)| batch.add(table, locks))
            .collect();
        let of = |sql: &str| Some(sql.to_owned());
        // One that needs more than that is alone.
        assert_eq!(full, [None, None, of("a;\nb;\n"), of("c;\n"), of("d;\n")]);
        assert_eq!((batch.sql.as_str(), batch.locks), ("e;\n", 4));
    }

    #[test]
    fn a_privilege_that_the_transfer_needs_ends_with_it() {
        assert_eq!(
            remainder("\"d\"", "\"loads\"", "\"owns\"", true),
            "GRANT CREATE ON DATABASE \"d\" TO \"owns\"; REASSIGN OWNED BY \"loads\" TO \"owns\"; \
             REVOKE CREATE ON DATABASE \"d\" FROM \"owns\"; ALTER SCHEMA public OWNER TO pg_database_owner; \
             DROP OWNED BY \"loads\""
        );
        assert!(!remainder("d", "a", "b", false).contains("SCHEMA"));
    }
}
