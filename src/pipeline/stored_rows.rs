//! Whether a database has rows.

use std::time::Duration;

use crate::error::{RestoreError, report as said};
use crate::postgres::{Server, map_pg_error};
use crate::proof::BackupContents;

/// How long it may take to look for rows in a database: its tables may be locked.
const LOOK_LIMIT: Duration = Duration::from_secs(10);

/// Whether a database has tables of its own, and whether anything has been stored in them or in large objects. Our own
/// records do not count.
const STORED_ROWS: &str = "SELECT count(*) > 0,
    coalesce(bool_or(pg_catalog.pg_relation_size(c.oid) > 0), false)
      OR EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)
  FROM pg_catalog.pg_class c
  WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384
    AND c.relnamespace NOT IN (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname IN ('pgrestored_fill', 'pgrestored_work'))
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
      WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e')";

/// What a database holds.
struct StoredRows {
    has_tables: bool,
    has_rows: bool,
}

/// Whether a database has rows, or that cannot be found out.
pub(super) async fn may_have_rows(server: &Server, database: &str) -> bool {
    let found = stored_rows(server, database).await;
    found.is_none_or(|found| found.has_rows)
}

/// What a restored database shows of its backup: only that it has tables, and rows in none.
pub(super) async fn contents_in(server: &Server, database: &str) -> Option<BackupContents> {
    let found = stored_rows(server, database).await?;
    (found.has_tables && !found.has_rows).then_some(BackupContents::SchemaOnly)
}

/// What a database holds; `None` if that cannot be found out.
async fn stored_rows(server: &Server, database: &str) -> Option<StoredRows> {
    let look = async {
        let session = server.connect(database, "contents").await?;
        let row = session.client().query_one(STORED_ROWS, &[]).await;
        let row = row.map_err(|e| map_pg_error(&e, "looking for rows"))?;
        Ok::<_, RestoreError>(StoredRows {
            has_tables: row.get(0),
            has_rows: row.get(1),
        })
    };
    match tokio::time::timeout(LOOK_LIMIT, look).await {
        Ok(Ok(found)) => Some(found),
        Ok(Err(e)) => {
            tracing::debug!(error = said(&e), "whether a database has rows is not known");
            None
        }
        Err(_) => {
            tracing::debug!("whether a database has rows was not found out in time");
            None
        }
    }
}
