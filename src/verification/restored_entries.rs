//! Checks that every entry of the table of contents exists in the restored database, that sequences have the
//! archive's values, and that indexes are valid.

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;

use super::restored_database::RestoredDatabase;
use crate::error::RestoreError;
use crate::postgres::map_pg_error;
use crate::proof::{Check, CheckStatus};
use pgdump_archive::{Dialect, EntryKind, TocEntry, Token, tokens};
use pgdump_restore::listed;

/// All named objects of the database, in the terms of the table of contents: kind, schema, name.
const INVENTORY: &str = r#"
SELECT 'SCHEMA', NULL, nspname::text FROM pg_catalog.pg_namespace
UNION ALL SELECT 'EXTENSION', NULL, extname::text FROM pg_catalog.pg_extension
UNION ALL SELECT CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
    WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' ELSE 'TABLE' END, n.nspname, c.relname::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind <> 't'
UNION ALL SELECT 'TYPE', n.nspname, t.typname::text
  FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
UNION ALL SELECT 'FUNCTION', n.nspname, p.proname::text
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE p.oid >= 16384
UNION ALL SELECT 'OPERATOR', n.nspname, o.oprname::text
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid >= 16384
UNION ALL SELECT 'OPERATOR CLASS', n.nspname, o.opcname::text
  FROM pg_catalog.pg_opclass o JOIN pg_catalog.pg_namespace n ON n.oid = o.opcnamespace
UNION ALL SELECT 'OPERATOR FAMILY', n.nspname, o.opfname::text
  FROM pg_catalog.pg_opfamily o JOIN pg_catalog.pg_namespace n ON n.oid = o.opfnamespace
UNION ALL SELECT 'COLLATION', n.nspname, o.collname::text
  FROM pg_catalog.pg_collation o JOIN pg_catalog.pg_namespace n ON n.oid = o.collnamespace
UNION ALL SELECT 'CONVERSION', n.nspname, o.conname::text
  FROM pg_catalog.pg_conversion o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace
UNION ALL SELECT 'TEXT SEARCH CONFIGURATION', n.nspname, o.cfgname::text
  FROM pg_catalog.pg_ts_config o JOIN pg_catalog.pg_namespace n ON n.oid = o.cfgnamespace
UNION ALL SELECT 'TEXT SEARCH DICTIONARY', n.nspname, o.dictname::text
  FROM pg_catalog.pg_ts_dict o JOIN pg_catalog.pg_namespace n ON n.oid = o.dictnamespace
UNION ALL SELECT 'TEXT SEARCH PARSER', n.nspname, o.prsname::text
  FROM pg_catalog.pg_ts_parser o JOIN pg_catalog.pg_namespace n ON n.oid = o.prsnamespace
UNION ALL SELECT 'TEXT SEARCH TEMPLATE', n.nspname, o.tmplname::text
  FROM pg_catalog.pg_ts_template o JOIN pg_catalog.pg_namespace n ON n.oid = o.tmplnamespace
UNION ALL SELECT 'STATISTICS', n.nspname, o.stxname::text
  FROM pg_catalog.pg_statistic_ext o JOIN pg_catalog.pg_namespace n ON n.oid = o.stxnamespace
UNION ALL SELECT 'CONSTRAINT', n.nspname, coalesce(c.relname, t.typname)::text || ' ' || o.conname
  FROM pg_catalog.pg_constraint o JOIN pg_catalog.pg_namespace n ON n.oid = o.connamespace
  LEFT JOIN pg_catalog.pg_class c ON c.oid = o.conrelid LEFT JOIN pg_catalog.pg_type t ON t.oid = o.contypid
UNION ALL SELECT 'TRIGGER', n.nspname, c.relname::text || ' ' || o.tgname
  FROM pg_catalog.pg_trigger o JOIN pg_catalog.pg_class c ON c.oid = o.tgrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE NOT o.tgisinternal
UNION ALL SELECT 'RULE', n.nspname, c.relname::text || ' ' || o.rulename
  FROM pg_catalog.pg_rewrite o JOIN pg_catalog.pg_class c ON c.oid = o.ev_class
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL SELECT 'POLICY', n.nspname, c.relname::text || ' ' || o.polname
  FROM pg_catalog.pg_policy o JOIN pg_catalog.pg_class c ON c.oid = o.polrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL SELECT 'ROW SECURITY', n.nspname, c.relname::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relrowsecurity
UNION ALL SELECT 'DEFAULT', n.nspname, c.relname::text || ' ' || a.attname
  FROM pg_catalog.pg_attrdef o JOIN pg_catalog.pg_class c ON c.oid = o.adrelid
  JOIN pg_catalog.pg_attribute a ON a.attrelid = o.adrelid AND a.attnum = o.adnum
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL SELECT 'MATERIALIZED VIEW DATA', n.nspname, c.relname::text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'm' AND c.relispopulated
UNION ALL SELECT 'EVENT TRIGGER', NULL, evtname::text FROM pg_catalog.pg_event_trigger
UNION ALL SELECT 'PUBLICATION', NULL, pubname::text FROM pg_catalog.pg_publication
UNION ALL SELECT 'PUBLICATION TABLE', n.nspname, p.pubname::text || ' ' || c.relname
  FROM pg_catalog.pg_publication_rel o JOIN pg_catalog.pg_publication p ON p.oid = o.prpubid
  JOIN pg_catalog.pg_class c ON c.oid = o.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
UNION ALL SELECT 'FOREIGN DATA WRAPPER', NULL, fdwname::text FROM pg_catalog.pg_foreign_data_wrapper
UNION ALL SELECT 'SERVER', NULL, srvname::text FROM pg_catalog.pg_foreign_server
UNION ALL SELECT 'ACCESS METHOD', NULL, amname::text FROM pg_catalog.pg_am
UNION ALL SELECT 'PROCEDURAL LANGUAGE', NULL, lanname::text FROM pg_catalog.pg_language
UNION ALL SELECT 'CAST', NULL, '' FROM pg_catalog.pg_cast WHERE oid >= 16384
UNION ALL SELECT 'TRANSFORM', NULL, '' FROM pg_catalog.pg_transform
UNION ALL SELECT 'USER MAPPING', NULL, '' FROM pg_catalog.pg_user_mappings"#;

/// How many names a finding lists.
const MAX_NAMED: usize = 20;

/// Kind, schema and name.
type InventoryKey = (&'static str, Option<String>, String);

/// The entries with one key.
struct WantedEntry {
    name: String,
    entries: u64,
    there: u64,
}

/// The key of an entry in the inventory; `None` for entries that create no named object. Their statements have
/// succeeded, which is all that can be checked.
fn key_of(e: &TocEntry) -> Option<InventoryKey> {
    let (schema, tag) = (|| e.namespace.clone(), || e.tag.clone());
    // `name(arguments)`; arguments have no parentheses.
    let function = || {
        e.tag
            .rsplit_once('(')
            .map_or_else(tag, |(name, _)| name.to_owned())
    };
    Some(match &e.kind {
        EntryKind::Schema => ("SCHEMA", None, tag()),
        EntryKind::Extension => ("EXTENSION", None, tag()),
        EntryKind::Table | EntryKind::ForeignTable => ("TABLE", schema(), tag()),
        EntryKind::View => ("VIEW", schema(), tag()),
        EntryKind::MaterializedView => ("MATERIALIZED VIEW", schema(), tag()),
        EntryKind::MaterializedViewData => ("MATERIALIZED VIEW DATA", schema(), tag()),
        EntryKind::Sequence => ("SEQUENCE", schema(), tag()),
        EntryKind::Index => ("INDEX", schema(), tag()),
        EntryKind::Type | EntryKind::Domain | EntryKind::ShellType => ("TYPE", schema(), tag()),
        EntryKind::Function | EntryKind::Procedure | EntryKind::Aggregate => {
            ("FUNCTION", schema(), function())
        }
        EntryKind::Operator => ("OPERATOR", schema(), tag()),
        EntryKind::OperatorClass => ("OPERATOR CLASS", schema(), tag()),
        EntryKind::OperatorFamily => ("OPERATOR FAMILY", schema(), tag()),
        EntryKind::Collation => ("COLLATION", schema(), tag()),
        EntryKind::Conversion => ("CONVERSION", schema(), tag()),
        EntryKind::TextSearchConfiguration => ("TEXT SEARCH CONFIGURATION", schema(), tag()),
        EntryKind::TextSearchDictionary => ("TEXT SEARCH DICTIONARY", schema(), tag()),
        EntryKind::TextSearchParser => ("TEXT SEARCH PARSER", schema(), tag()),
        EntryKind::TextSearchTemplate => ("TEXT SEARCH TEMPLATE", schema(), tag()),
        EntryKind::Statistics => ("STATISTICS", schema(), tag()),
        EntryKind::Constraint | EntryKind::CheckConstraint | EntryKind::FkConstraint => {
            ("CONSTRAINT", schema(), tag())
        }
        EntryKind::Trigger => ("TRIGGER", schema(), tag()),
        EntryKind::Rule => ("RULE", schema(), tag()),
        EntryKind::Policy => ("POLICY", schema(), tag()),
        EntryKind::RowSecurity => ("ROW SECURITY", schema(), tag()),
        EntryKind::Default => ("DEFAULT", schema(), tag()),
        EntryKind::EventTrigger => ("EVENT TRIGGER", None, tag()),
        EntryKind::Publication => ("PUBLICATION", None, tag()),
        EntryKind::PublicationTable => ("PUBLICATION TABLE", schema(), tag()),
        EntryKind::ForeignDataWrapper => ("FOREIGN DATA WRAPPER", None, tag()),
        EntryKind::Server | EntryKind::ForeignServer => ("SERVER", None, tag()),
        EntryKind::AccessMethod => ("ACCESS METHOD", None, tag()),
        EntryKind::ProceduralLanguage => ("PROCEDURAL LANGUAGE", None, tag()),
        // These are only counted, because their tags have several spellings.
        EntryKind::Cast => ("CAST", None, String::new()),
        EntryKind::Transform => ("TRANSFORM", None, String::new()),
        EntryKind::UserMapping => ("USER MAPPING", None, String::new()),
        _ => return None,
    })
}

/// Whether several objects may have the same key, so that they have to be counted.
fn is_counted(kind: &str) -> bool {
    matches!(
        kind,
        "FUNCTION" | "OPERATOR" | "CAST" | "TRANSFORM" | "USER MAPPING"
    )
}

/// Compares the table of contents with the catalogs.
pub(super) async fn compare(subject: &RestoredDatabase<'_>) -> Result<Vec<Check>, RestoreError> {
    if subject.entries.is_empty() {
        // For SQL text, the restore has shown that every statement up to the end mark succeeded.
        return Ok(vec![Check::new(
            "entries",
            CheckStatus::Passed,
            "every statement of the SQL text succeeded",
        )]);
    }
    let missing = missing(subject).await?;
    let behind = sequences(subject).await?;
    let mut checks = vec![match missing.len() {
        0 => Check::new(
            "entries",
            CheckStatus::Passed,
            format!(
                "every entry of the table of contents exists in the restored database ({})",
                subject.entries.len()
            ),
        ),
        n => {
            let named: Vec<&str> = missing.iter().take(MAX_NAMED).map(String::as_str).collect();
            Check::new(
                "entries",
                CheckStatus::Failed,
                format!(
                    "{} missing in the restored database: {}",
                    if n == 1 {
                        "1 entry is".to_owned()
                    } else {
                        format!("{n} entries are")
                    },
                    named.join(", ")
                ),
            )
        }
    }];
    if let Some(what) = listed("sequences whose value differs from the archive's", &behind) {
        checks.push(Check::new("sequence values", CheckStatus::Failed, what));
    }
    Ok(checks)
}

/// Names of the entries that the database does not have. The inventory is streamed, because the dump decides how
/// many other objects there are.
async fn missing(subject: &RestoredDatabase<'_>) -> Result<BTreeSet<String>, RestoreError> {
    type OfKind = HashMap<(Option<String>, String), WantedEntry>;
    let mut wanted: HashMap<&str, OfKind> = HashMap::new();
    for e in subject.entries {
        let Some((kind, schema, name)) = key_of(e) else {
            continue;
        };
        let of_kind = wanted.entry(kind).or_default();
        let entry = of_kind
            .entry((schema, name))
            .or_insert_with(|| WantedEntry {
                name: e.name(),
                entries: 0,
                there: 0,
            });
        entry.entries += 1;
    }
    let server = subject.server.streaming_rows();
    let session = server.connect(subject.database, "check").await?;
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "listing what was restored");
    let mut rows = session.rows(INVENTORY, &[]).await.map_err(e)?;
    while let Some(row) = rows.try_next().await.map_err(e)? {
        let key = (row.get(1), row.get(2));
        let of_kind = wanted.get_mut(row.get::<_, &str>(0));
        if let Some(entry) = of_kind.and_then(|of| of.get_mut(&key)) {
            entry.there += 1;
        }
    }
    let mut missing = BTreeSet::new();
    for (kind, of_kind) in wanted {
        let is_missing = |e: &WantedEntry| e.there < if is_counted(kind) { e.entries } else { 1 };
        missing.extend(of_kind.into_values().filter(is_missing).map(|e| e.name));
    }
    Ok(missing)
}

/// Parses `SELECT pg_catalog.setval('s.q', 12, true);` into `s.q`, 12, true.
fn setval(defn: &str) -> Option<(String, i64, bool)> {
    let t = tokens(defn, Dialect::default());
    let open = t.iter().position(|w| w.is_symbol(b'('))?;
    let args: Vec<&Token<'_>> = t[open + 1..]
        .iter()
        .take_while(|w| !w.is_symbol(b')'))
        .collect();
    let commas: Vec<usize> = args
        .iter()
        .enumerate()
        .filter(|(_, w)| w.is_symbol(b','))
        .map(|(i, _)| i)
        .collect();
    let value: String = args
        .get(commas.first()? + 1..*commas.get(1)?)?
        .iter()
        .map(|w| w.text)
        .collect();
    Some((
        args.first()?.string()?,
        value.parse().ok()?,
        args.last()?.is("true"),
    ))
}

/// Sequences whose value differs from that of their entry.
async fn sequences(subject: &RestoredDatabase<'_>) -> Result<Vec<String>, RestoreError> {
    let mut wrong = Vec::new();
    let set = subject
        .entries
        .iter()
        .filter(|e| e.kind == EntryKind::SequenceSet)
        .filter_map(|e| setval(&e.defn));
    let set: Vec<_> = set.collect();
    if set.is_empty() {
        return Ok(wrong);
    }
    let session = subject.server.connect(subject.database, "check").await?;
    for batch in set.chunks(100) {
        let questions = batch.iter().map(|(name, value, called)| {
            let shown = crate::postgres::literal(name);
            format!(
                "SELECT {shown} FROM {name} WHERE last_value <> {value} OR is_called <> {called}"
            )
        });
        let sql = questions.collect::<Vec<_>>().join(" UNION ALL ");
        let rows = session
            .client()
            .query(&sql, &[])
            .await
            .map_err(|e| map_pg_error(&e, "reading sequences"))?;
        wrong.extend(rows.iter().map(|r| r.get::<_, String>(0)));
    }
    Ok(wrong)
}

/// Whether code of the dump runs when an object is created in the database.
pub(super) async fn has_event_triggers(
    subject: &RestoredDatabase<'_>,
) -> Result<bool, RestoreError> {
    let session = subject.server.connect(subject.database, "catalog").await?;
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger)";
    let row = session
        .client()
        .query_one(sql, &[])
        .await
        .map_err(|e| map_pg_error(&e, "looking up event triggers"))?;
    Ok(row.get(0))
}

/// Checks that indexes are valid. What a restore makes as it is in the source is worth knowing, and not the backup's
/// fault: constraints that are not validated, sequences behind their columns, and the like.
pub(super) async fn validity(subject: &RestoredDatabase<'_>) -> Result<Vec<Check>, RestoreError> {
    let s = pgdump_restore::survey(subject.server, subject.database, subject.sessions).await?;
    let mut checks = Vec::new();
    let mut finding = |name: &str, status, what: &str, names: &[String], fix: &str| {
        if let Some(message) = listed(what, names) {
            checks.push(Check::new(name, status, message).fix(fix));
        }
    };
    use CheckStatus::{Failed, Warned};
    finding(
        "indexes",
        Failed,
        "invalid indexes",
        &s.invalid_indexes,
        "REINDEX them",
    );
    finding(
        "partitioned indexes",
        Warned,
        "indexes of partitioned tables that some partition lacks, as in the source",
        &s.incomplete_indexes,
        "create the index on the partition, and attach it (ALTER INDEX … ATTACH PARTITION), in the source",
    );
    finding(
        "constraints",
        Warned,
        "constraints that are not validated",
        &s.not_validated,
        "they are NOT VALID in the source too: run ALTER TABLE … VALIDATE CONSTRAINT there",
    );
    finding(
        "materialized views",
        Warned,
        "materialized views that are not populated, as in the source",
        &s.not_populated,
        "REFRESH MATERIALIZED VIEW",
    );
    finding(
        "sequences",
        Warned,
        "sequences behind their columns, as the backup sets them",
        &s.sequences_behind,
        "the next insert may fail or reuse a value: setval() each to the largest value in use, in the source too",
    );
    let not_checked = s
        .not_checked
        .iter()
        .map(|e| Check::new("validity", CheckStatus::NotChecked, e.clone()));
    checks.extend(not_checked);
    if checks.iter().all(|c| c.status == Warned) {
        let what = if checks.is_empty() {
            "indexes and constraints are valid, and no sequence is behind its column"
        } else {
            "indexes and constraints are valid, except as noted"
        };
        checks.insert(0, Check::new("validity", CheckStatus::Passed, what));
    }
    Ok(checks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequences_value_is_parsed_from_its_entry() {
        let of = |sql| setval(sql).unwrap();
        assert_eq!(
            of("SELECT pg_catalog.setval('public.s', 12, true);"),
            ("public.s".into(), 12, true)
        );
        assert_eq!(
            of("SELECT pg_catalog.setval('\"S\".\"a''b\"', -5, false);"),
            ("\"S\".\"a'b\"".into(), -5, false)
        );
    }
}
