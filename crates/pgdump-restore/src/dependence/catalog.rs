//! Finds the rows that depend on others in the catalog of the database that they are loaded into.

use std::collections::HashSet;

use crate::error::DatabaseError;
use crate::postgres::{Session, map_pg_error};

/// Tables whose rows run through functions that are not built in, found by following dependencies from the
/// functions. Functions of an extension count if an expression calls them, but not if they implement a type.
/// Triggers do not count: they are disabled while only data is restored.
const DEPENDENT: &str = r#"
WITH RECURSIVE reading(classid, objid) AS (
    SELECT 'pg_catalog.pg_proc'::pg_catalog.regclass::oid, p.oid FROM pg_catalog.pg_proc p
    WHERE p.oid >= 16384 AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.deptype = 'e'
        AND e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid)
  UNION
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
    JOIN pg_catalog.pg_depend e ON e.classid = d.refclassid AND e.objid = d.refobjid AND e.deptype = 'e'
    WHERE d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.classid IN
        ('pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass)
  UNION
    SELECT n.classid, n.objid FROM reading r CROSS JOIN LATERAL (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d
        WHERE d.refclassid = r.classid AND d.refobjid = r.objid AND d.deptype <> 'e' AND d.classid IN (
            'pg_catalog.pg_type'::pg_catalog.regclass, 'pg_catalog.pg_operator'::pg_catalog.regclass,
            'pg_catalog.pg_opclass'::pg_catalog.regclass, 'pg_catalog.pg_amproc'::pg_catalog.regclass,
            'pg_catalog.pg_amop'::pg_catalog.regclass, 'pg_catalog.pg_opfamily'::pg_catalog.regclass,
            'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_attrdef'::pg_catalog.regclass,
            'pg_catalog.pg_class'::pg_catalog.regclass)
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, a.adrelid FROM pg_catalog.pg_attrdef a
        WHERE r.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND a.oid = r.objid
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, c.conrelid FROM pg_catalog.pg_constraint c
        WHERE r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = r.objid AND c.conrelid <> 0
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.contypid FROM pg_catalog.pg_constraint c
        WHERE r.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass AND c.oid = r.objid AND c.contypid <> 0
      UNION ALL SELECT 'pg_catalog.pg_type'::pg_catalog.regclass, c.reltype FROM pg_catalog.pg_class c
        WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.oid = r.objid AND c.relkind = 'c'
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, i.indrelid FROM pg_catalog.pg_index i
        WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND i.indexrelid = r.objid
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, h.inhrelid FROM pg_catalog.pg_inherits h
        WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND h.inhparent = r.objid
      UNION ALL SELECT 'pg_catalog.pg_class'::pg_catalog.regclass, h.inhparent FROM pg_catalog.pg_inherits h
        WHERE r.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND h.inhrelid = r.objid
    ) n
)
SELECT pg_catalog.format('"%s"."%s"', pg_catalog.replace(n.nspname, '"', '""'), pg_catalog.replace(c.relname, '"', '""')),
    '"' || pg_catalog.replace(c.relname, '"', '""') || '"'
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND (c.relhasrules
    OR c.oid IN (SELECT objid FROM reading WHERE classid = 'pg_catalog.pg_class'::pg_catalog.regclass))
    AND n.nspname NOT IN ('pg_catalog', 'information_schema')"#;

/// The tables whose rows depend on others, each both with and without its schema.
///
/// # Errors
/// The server's error.
pub(crate) async fn dependent_tables(session: &Session) -> Result<HashSet<String>, DatabaseError> {
    let rows = session.client().query(DEPENDENT, &[]).await;
    let rows = rows.map_err(|e| map_pg_error(&e, "finding rows that depend on others"))?;
    Ok(rows
        .iter()
        .flat_map(|row| [row.get::<_, String>(0), row.get(1)])
        .collect())
}
