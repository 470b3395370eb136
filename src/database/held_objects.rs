//! What somebody put into a database, and how to remove it again: everything but what `initdb` creates, extensions and
//! their members.

use futures::TryStreamExt;

use super::ownership::run_listed;
use crate::error::{DatabaseError, DatabaseKind, report};
use crate::postgres::{Server, Session, ident, literal, map_pg_error};

/// Most objects that a message names.
const NAMED: i64 = 5;

/// How often what is left is listed and dropped: what one pass cannot drop, it may have made free.
const PASSES: usize = 3;

/// Owners whose objects belong to the service that runs the server, if this role cannot act as them. A user may have a
/// role `neon_lights`.
const PLATFORM_OWNERS: &str = "^(alloydb(admin|agent|export|importexport|metadata|observability|replica|superuser)|azure_(pg_admin|superuser)$|\
    azuresu$|cloud_admin$|cloudsql(admin|agent|connpooladmin|importexport|logical|observability|replica|superuser)|heroku_admin$|\
    neon_(service|superuser)$|oci_|rds_(ad|extension|iam|password|replication|reserved|superuser)$|\
    rds(admin|proxyadmin|repladmin|topmgr|writeforwarduser)$|supabase_)";

/// The objects of a database, as the relation `held`: `rank` is the order in which they are dropped, and `cost` about how
/// many locks that takes; besides the owner, `dropper`, who owns the schema, may do it. Members of extensions, and what its table, type or column brings along, are not listed. OIDs
/// below 16384 are those of `initdb`; only large objects may have any. The bootstrap superuser (10) owns what has no
/// recorded owner.
const HELD: &str = "WITH listed(class, object, rank, space, cost) AS (
    SELECT 'pg_event_trigger'::regclass::oid, oid, 0, 0::oid, 1::int8 FROM pg_event_trigger
    UNION ALL SELECT 'pg_publication'::regclass, oid, 1, 0, 1 FROM pg_publication
    UNION ALL SELECT 'pg_class'::regclass, oid, CASE WHEN relkind IN ('v', 'm') THEN 3 WHEN relispartition THEN 4 ELSE 5 END, relnamespace,
      10 + 3 * (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) + (SELECT count(*) FROM pg_trigger WHERE tgrelid = c.oid)
      FROM pg_class c WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
    UNION ALL SELECT 'pg_proc'::regclass, oid, 6, pronamespace, 1 FROM pg_proc
    UNION ALL SELECT 'pg_operator'::regclass, oid, 6, oprnamespace, 1 FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, 6, opcnamespace, 1 FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, 6, opfnamespace, 1 FROM pg_opfamily
    UNION ALL SELECT 'pg_cast'::regclass, oid, 6, 0, 1 FROM pg_cast
    UNION ALL SELECT 'pg_transform'::regclass, oid, 6, 0, 1 FROM pg_transform
    UNION ALL SELECT 'pg_type'::regclass, oid, 7, typnamespace, 2 FROM pg_type
    UNION ALL SELECT 'pg_collation'::regclass, oid, 7, collnamespace, 1 FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, 7, connamespace, 1 FROM pg_conversion
    UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, 7, stxnamespace, 1 FROM pg_statistic_ext
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, 7, cfgnamespace, 1 FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, 7, dictnamespace, 1 FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, 7, prsnamespace, 1 FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, 7, tmplnamespace, 1 FROM pg_ts_template
    UNION ALL SELECT 'pg_foreign_server'::regclass, oid, 8, 0, 1 FROM pg_foreign_server
    UNION ALL SELECT 'pg_foreign_data_wrapper'::regclass, oid, 9, 0, 1 FROM pg_foreign_data_wrapper
    UNION ALL SELECT 'pg_am'::regclass, oid, 9, 0, 1 FROM pg_am
    UNION ALL SELECT 'pg_extension'::regclass, oid, 10, 0, (SELECT 1 + count(*) FROM pg_depend
        WHERE refclassid = 'pg_extension'::regclass AND refobjid = e.oid AND deptype = 'e') FROM pg_extension e
    UNION ALL SELECT 'pg_language'::regclass, oid, 10, 0, 1 FROM pg_language
    UNION ALL SELECT 'pg_namespace'::regclass, oid, 11, oid, 1 FROM pg_namespace),
  held AS (SELECT class, object, rank, cost, coalesce(o.refobjid, 10) AS owner, coalesce(nspname, '') AS in_schema,
      coalesce(nspowner, o.refobjid, 10) AS dropper
    FROM listed LEFT JOIN pg_namespace s ON s.oid = space
      LEFT JOIN pg_shdepend o ON o.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND o.classid = class AND o.objid = object AND o.objsubid = 0 AND o.deptype = 'o'
    WHERE object >= 16384 AND (space = 0 OR nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'pgrestored_fill'))
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = class AND d.objid = object AND d.objsubid = 0
        AND (d.deptype IN ('e', 'i') OR d.deptype = 'a' AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0))
    UNION ALL SELECT 'pg_largeobject'::regclass, oid, 2, 2, lomowner, '', lomowner FROM pg_largeobject_metadata)";

/// What counts as somebody's of `held`: not the schema `public`, not an extension or the schema of one, nothing that
/// belongs to the platform, and no schema or event trigger that this role may not drop. Other roles' schemas are
/// counted by what is in them.
const IS_SOMEBODYS: &str = "class <> 'pg_extension'::regclass
    AND NOT (class = 'pg_namespace'::regclass AND (in_schema = 'public' OR EXISTS (SELECT FROM pg_extension WHERE extnamespace = object)))
    AND (pg_has_role(owner, 'USAGE')
      OR class NOT IN ('pg_namespace'::regclass, 'pg_event_trigger'::regclass) AND pg_get_userbyid(owner) !~ $1)";

/// The record of a fill, where nothing fills the database: it came with a copy.
const RECORD: &str =
    "SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname = 'pgrestored_fill'";

const SUBSCRIPTIONS: &str =
    "SELECT subname::text FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
    WHERE d.datname = current_database() ORDER BY 1";

const PREPARED: &str =
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY 1";

/// The record of what a database has before it is filled, in the schema `pgrestored_fill`.
pub(super) fn recording() -> String {
    format!(
        "CREATE TABLE pgrestored_fill.present AS {HELD} SELECT class, object FROM held;
         CREATE TABLE pgrestored_fill.defaults AS SELECT defaclrole AS role, defaclnamespace AS space, defaclobjtype AS type, defaclacl AS acl
           FROM pg_default_acl;
         CREATE TABLE pgrestored_fill.setting AS {SETTINGS} SELECT name FROM setting;
         CREATE TABLE pgrestored_fill.space AS SELECT oid AS object, nspowner AS owner, nspacl AS acl,
           obj_description(oid, 'pg_namespace') AS comment FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'pgrestored_fill'"
    )
}

/// Drops what is not recorded. What no longer exists was dropped by one of the statements before. An owner whose
/// privileges are not inherited is one that this role can only become.
fn drops(version: u32) -> String {
    let becomes = if version >= 160_000 { "SET" } else { "MEMBER" };
    format!(
        "{HELD}, named AS MATERIALIZED (
           SELECT rank, object, cost, owner, dropper, CASE class WHEN 'pg_largeobject'::regclass THEN format('SELECT lo_unlink(%s)', object)
             ELSE format('DROP %s IF EXISTS %s CASCADE', CASE class WHEN 'pg_proc'::regclass THEN 'ROUTINE' WHEN 'pg_type'::regclass THEN 'TYPE'
                 WHEN 'pg_statistic_ext'::regclass THEN 'STATISTICS' WHEN 'pg_foreign_data_wrapper'::regclass THEN 'FOREIGN DATA WRAPPER'
                 ELSE upper(i.type) END,
               CASE class WHEN 'pg_transform'::regclass THEN (SELECT format('FOR %s LANGUAGE %I', trftype::regtype, lanname)
                   FROM pg_transform t JOIN pg_language l ON l.oid = trflang WHERE t.oid = object)
                 ELSE i.identity END) END AS statement
           FROM held, LATERAL pg_identify_object(class, object, 0) AS i
           WHERE i.identity IS NOT NULL
             AND NOT EXISTS (SELECT FROM pgrestored_fill.present p WHERE p.class = held.class AND p.object = held.object))
         SELECT CASE WHEN NOT pg_has_role(owner, 'USAGE') AND NOT pg_has_role(dropper, 'USAGE') AND pg_has_role(owner, '{becomes}')
             THEN format('SET ROLE %I; %s; RESET ROLE', pg_get_userbyid(owner), statement) ELSE statement END, cost
         FROM named ORDER BY rank, object"
    )
}

/// Undoes `ALTER DEFAULT PRIVILEGES`: a row that says what is so without it disappears. A role's own defaults for all
/// schemas replace those that are built in; those for one schema are added to them.
const DEFAULT_PRIVILEGES: &str = "WITH changed AS (
    SELECT role, space, type, n.acl AS now, w.acl AS before
    FROM (SELECT defaclrole AS role, defaclnamespace AS space, defaclobjtype AS type, defaclacl AS acl FROM pg_default_acl) AS n
      FULL JOIN pgrestored_fill.defaults AS w USING (role, space, type)
    WHERE n.acl IS DISTINCT FROM w.acl AND pg_has_role(role, 'MEMBER')),
  acl AS (
    SELECT format('ALTER DEFAULT PRIVILEGES FOR ROLE %I %s ', pg_get_userbyid(role),
        CASE WHEN space <> 0 THEN format('IN SCHEMA %s', space::regnamespace) END) AS for_role, kind,
      coalesce(now, built_in) AS now, coalesce(before, built_in) AS before
    FROM changed JOIN (VALUES ('r', 'r', 'TABLES'), ('S', 's', 'SEQUENCES'), ('f', 'f', 'ROUTINES'), ('T', 'T', 'TYPES'), ('n', 'n', 'SCHEMAS'),
        ('L', 'L', 'LARGE OBJECTS')) AS kinds(letter, of_object, kind) ON letter = type::text,
      LATERAL (SELECT CASE WHEN space = 0 THEN acldefault(of_object::\"char\", role) END AS built_in) AS b)
  SELECT concat_ws('; ',
      (SELECT format('%sREVOKE ALL ON %s FROM %s', for_role, kind,
          string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, ', '))
        FROM aclexplode(now) HAVING count(*) > 0),
      (SELECT string_agg(format('%sGRANT %s ON %s TO %s%s', for_role, privilege_type, kind,
          CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), '; ')
        FROM aclexplode(before))),
    2::int8
  FROM acl";

/// The event triggers that were not there before the fill. Others stay enabled: the role may have become able to act for
/// their owners since, and nobody would enable them again.
const UNRECORDED_TRIGGERS: &str = "NOT EXISTS (SELECT FROM pgrestored_fill.present p
    WHERE p.class = 'pg_event_trigger'::regclass AND p.object = t.oid)";

/// How long to wait for each lock that somebody else may hold for good.
const SHORT_WAITS: &str = "SET lock_timeout = '2s'";
const ANY_WAITS: &str = "SET lock_timeout = 0";

/// The names of the database's own settings, which hold for all roles.
const SETTINGS: &str = "WITH setting AS (
    SELECT split_part(unnest(setconfig), '=', 1) AS name FROM pg_db_role_setting
    WHERE setrole = 0 AND setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database()))";

/// Resets the settings that were not there: extensions have some while they are loaded.
fn resets() -> String {
    format!(
        "{SETTINGS} SELECT format('ALTER DATABASE %I RESET %s', current_database(), name), 1::int8
         FROM setting JOIN pg_database ON datname = current_database()
         WHERE name ~ '^[A-Za-z_][A-Za-z0-9_$.]*$' AND pg_has_role(datdba, 'USAGE')
           AND name NOT IN (SELECT s.name FROM pgrestored_fill.setting AS s)"
    )
}

/// Gives the schemas that were there their owner, privileges and comments back, as far as this role may.
const SCHEMAS: &str = "WITH changed AS (
    SELECT n.nspname, n.nspowner, s.owner, s.comment, quote_ident(nspname) AS name, nspacl IS DISTINCT FROM acl AS is_granted,
      obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM comment AS is_described,
      (SELECT string_agg(DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, ', ')
        FROM aclexplode(coalesce(nspacl, acldefault('n', nspowner)))) AS grantees,
      (SELECT string_agg(format('GRANT %s ON SCHEMA %I TO %s%s', privilege_type, nspname,
          CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END), '; ')
        FROM aclexplode(coalesce(acl, acldefault('n', owner)))) AS grants
    FROM pgrestored_fill.space s JOIN pg_namespace n ON n.oid = s.object
    WHERE pg_has_role(nspowner, 'USAGE'))
  SELECT concat_ws('; ',
      CASE WHEN nspowner <> owner THEN format('ALTER SCHEMA %s OWNER TO %I', name, pg_get_userbyid(owner)) END,
      CASE WHEN is_granted THEN format('REVOKE ALL ON SCHEMA %s FROM %s', name, coalesce(grantees, 'PUBLIC')) END,
      CASE WHEN is_granted THEN grants END,
      CASE WHEN is_described THEN format('COMMENT ON SCHEMA %s IS %L', name, comment) END), 1::int8
  FROM changed WHERE nspowner <> owner OR is_granted OR is_described";

/// The first objects that somebody made in the database of a session, for a message; empty if there are none.
pub(super) async fn first_objects(session: &Session) -> Result<Vec<String>, DatabaseError> {
    let sql = format!(
        "{HELD} SELECT i.type || ' ' || i.identity FROM held, LATERAL pg_identify_object(class, object, 0) AS i
         WHERE {IS_SOMEBODYS} ORDER BY rank = 5 DESC, rank, object LIMIT $2"
    );
    let limit = NAMED + 1;
    let failed = |e: tokio_postgres::Error| map_pg_error(&e, "listing what the database holds");
    let rows = session
        .client()
        .query(&sql, &[&PLATFORM_OWNERS, &limit])
        .await
        .map_err(failed)?;
    let mut found: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    found.extend(names(session, RECORD).await?);
    found.extend(blockers(session).await?);
    let most = usize::try_from(NAMED).unwrap_or_default();
    if found.len() > most {
        found.truncate(most);
        found.push("more".to_owned());
    }
    Ok(found)
}

async fn names(session: &Session, sql: &str) -> Result<Vec<String>, DatabaseError> {
    let rows = session.client().query(sql, &[]).await;
    let rows = rows.map_err(|e| map_pg_error(&e, "listing what the database holds"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Removes what keeps a database, or objects in it, from being dropped: prepared transactions, which hold locks, and
/// subscriptions, without their slots on other servers. Returns the first refusal: what belongs to others does not keep
/// the rest.
pub(super) async fn remove_blockers(
    session: &Session,
) -> Result<Option<DatabaseError>, DatabaseError> {
    let mut first = None;
    for gid in names(session, PREPARED).await? {
        let sql = format!("ROLLBACK PREPARED {}", literal(&gid));
        let refused = unless_refused(session.run(&sql).await)?;
        first = first.or(refused);
    }
    for name in names(session, SUBSCRIPTIONS).await? {
        let refused = unless_refused(remove_subscription(session, &ident(&name)).await)?;
        first = first.or(refused);
    }
    Ok(first)
}

async fn remove_subscription(session: &Session, s: &str) -> Result<(), DatabaseError> {
    session
        .run(&format!(
            "ALTER SUBSCRIPTION {s} DISABLE; ALTER SUBSCRIPTION {s} SET (slot_name = NONE)"
        ))
        .await?;
    session.run(&format!("DROP SUBSCRIPTION {s}")).await
}

/// The refusal, if it is one; other errors stay errors.
fn unless_refused(done: Result<(), DatabaseError>) -> Result<Option<DatabaseError>, DatabaseError> {
    match done {
        Ok(()) => Ok(None),
        Err(e) if is_refusal(&e) => Ok(Some(e)),
        Err(e) => Err(e),
    }
}

/// Prepared transactions and subscriptions of the database of a session. None of them was there before a fill.
async fn blockers(session: &Session) -> Result<Vec<String>, DatabaseError> {
    let prepared = names(session, PREPARED).await?.into_iter();
    let mut found: Vec<String> = prepared
        .map(|gid| format!("prepared transaction {gid}"))
        .collect();
    let subscriptions = names(session, SUBSCRIPTIONS).await?.into_iter();
    found.extend(subscriptions.map(|name| format!("subscription {name}")));
    Ok(found)
}

/// Removes everything from `database` that [`recording`] did not record, in transactions that take few locks. `server`
/// has the database pinned to its OID, and `session` is on it.
///
/// # Errors
/// `insufficient_privilege`, `restore_error` with the first objects that are left, `target_unavailable`.
pub(super) async fn remove_unrecorded(
    server: &Server,
    database: &str,
    session: &Session,
) -> Result<(), DatabaseError> {
    // A session of its own: it lists the objects while the other one drops them.
    let lists = server.streaming_rows().connect(database, "listing").await?;
    // Those of the backup may refuse whatever follows.
    let (disable, _) = event_triggers(session, UNRECORDED_TRIGGERS).await?;
    session.run(&disable).await?;
    let blocked = remove_blockers(session).await?;
    if blocked.is_some() {
        // A prepared transaction holds its locks for good.
        session.run(SHORT_WAITS).await?;
    }
    let drops = drops(session.version());
    let mut refused = None;
    for _ in 0..PASSES {
        refused = run_allowed(&lists, session, &drops).await?;
        if unrecorded(session, "true").await?.is_empty() {
            break;
        }
    }
    let mut refused = blocked.or(refused);
    for undo in [DEFAULT_PRIVILEGES, SCHEMAS, resets().as_str()] {
        let also = run_allowed(&lists, session, undo).await?;
        refused = refused.or(also);
    }
    session.run(ANY_WAITS).await?;
    let mut left = unrecorded(session, IS_SOMEBODYS).await?;
    left.extend(blockers(session).await?);
    match refused {
        Some(e) if left.is_empty() => {
            // Such as an extension that belongs to the service that runs the server.
            tracing::warn!(
                error = report(&e),
                "something that does not count as contents was not removed from the database"
            );
            Ok(())
        }
        None if left.is_empty() => Ok(()),
        refused => {
            let what = format!(
                "database {database} still has {}: drop it by hand",
                left.join(", ")
            );
            let e = DatabaseError::new(DatabaseKind::StatementRejected, what);
            Err(match refused {
                Some(cause) => e.with_source(cause),
                None => e,
            })
        }
    }
}

/// Runs what `query` lists, and returns the first refusal. What the server refuses to this role does not keep it from the
/// rest: it may belong to somebody else.
async fn run_allowed(
    lists: &Session,
    session: &Session,
    query: &str,
) -> Result<Option<DatabaseError>, DatabaseError> {
    let Err(refusal) = run_listed(lists, session, query, &[]).await else {
        return Ok(None);
    };
    if !is_refusal(&refusal) {
        return Err(refusal);
    }
    let failed = |e: tokio_postgres::Error| map_pg_error(&e, "listing what the database holds");
    let mut rows = lists.rows(query, &[]).await.map_err(failed)?;
    let mut first = None;
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        let refused = unless_refused(session.run(row.get(0)).await)?;
        first = first.or(refused);
    }
    Ok(first)
}

/// Insufficient privileges, something that others depend on, use or lock, something that has disappeared, or an event
/// trigger of somebody else.
fn is_refusal(e: &DatabaseError) -> bool {
    let code = e.sqlstate().unwrap_or_default();
    code.starts_with("42") || ["0LP01", "2BP01", "55006", "55P03", "P0001"].contains(&code)
}

/// Statements that disable the event triggers that this role may disable, and that enable them again as they were; not
/// those of extensions. Changes of event triggers fire none.
pub(super) async fn own_event_triggers(
    session: &Session,
) -> Result<(String, String), DatabaseError> {
    event_triggers(session, "true").await
}

/// The same for those for which a condition holds.
async fn event_triggers(
    session: &Session,
    condition: &str,
) -> Result<(String, String), DatabaseError> {
    // Those of logins fire for no statement.
    let sql = format!("SELECT coalesce(string_agg(format('ALTER EVENT TRIGGER %I DISABLE; ', evtname), ''), ''),
          coalesce(string_agg(format('ALTER EVENT TRIGGER %I ENABLE%s; ', evtname,
            CASE evtenabled WHEN 'R' THEN ' REPLICA' WHEN 'A' THEN ' ALWAYS' END), ''), '')
        FROM pg_event_trigger AS t WHERE evtenabled <> 'D' AND evtevent <> 'login' AND pg_has_role(evtowner, 'USAGE') AND {condition}
          AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_event_trigger'::regclass AND objid = t.oid AND deptype = 'e')");
    let row = session.client().query_one(&sql, &[]).await;
    let row = row.map_err(|e| map_pg_error(&e, "listing event triggers"))?;
    Ok((row.get(0), row.get(1)))
}

/// The first objects that were not recorded, and for which a condition holds.
async fn unrecorded(session: &Session, condition: &str) -> Result<Vec<String>, DatabaseError> {
    let sql = format!(
        "{HELD} SELECT i.type || ' ' || i.identity FROM held, LATERAL pg_identify_object(class, object, 0) AS i
         WHERE NOT EXISTS (SELECT FROM pgrestored_fill.present p WHERE p.class = held.class AND p.object = held.object)
           AND $1::text IS NOT NULL AND {condition}
         ORDER BY rank, object LIMIT $2"
    );
    let rows = session
        .client()
        .query(&sql, &[&PLATFORM_OWNERS, &NAMED])
        .await;
    let rows = rows.map_err(|e| map_pg_error(&e, "listing what is left"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}
