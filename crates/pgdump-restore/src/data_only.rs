//! Restores data only into a copy of existing tables: foreign keys are dropped and triggers disabled
//! while the rows arrive, in any order and on several connections. Afterwards both are restored, and
//! every foreign key has been checked.

use std::collections::HashSet;
use std::sync::Arc;

use super::dependence::dependent_tables;
use crate::error::RestoreError;
use crate::postgres::{Server, literal, map_pg_error};

/// What to restore once the rows are loaded.
pub struct SuspendedConstraints {
    afterwards: Vec<(String, String)>,
    /// Tables whose rows depend on others, each both with and without its schema.
    pub dependent: Arc<HashSet<String>>,
}

const FOREIGN_KEYS: &str = "SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid), \
    obj_description(oid, 'pg_constraint') FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 ORDER BY oid";
const TRIGGERS: &str = "SELECT tgrelid::regclass::text, quote_ident(tgname), tgenabled::text FROM pg_trigger \
    WHERE NOT tgisinternal AND tgparentid = 0 AND tgenabled <> 'D' ORDER BY oid";

/// Prepares the tables of `database` for rows in any order.
///
/// # Errors
/// The server's error.
pub async fn open_tables(
    server: &Server,
    database: &str,
) -> Result<SuspendedConstraints, RestoreError> {
    let session = server.connect(database, "prepare").await?;
    let e = |e: tokio_postgres::Error| map_pg_error(&e, "listing foreign keys and triggers");
    let mut afterwards = Vec::new();
    for row in session.client().query(TRIGGERS, &[]).await.map_err(e)? {
        let (table, name, how): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let how = match how.as_str() {
            "R" => "REPLICA ",
            "A" => "ALWAYS ",
            _ => "",
        };
        session
            .run(&format!("ALTER TABLE {table} DISABLE TRIGGER {name}"))
            .await?;
        let what = format!("trigger {name} of {table}");
        afterwards.push((
            what,
            format!("ALTER TABLE {table} ENABLE {how}TRIGGER {name}"),
        ));
    }
    for row in session.client().query(FOREIGN_KEYS, &[]).await.map_err(e)? {
        let (table, name, definition): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        session
            .run(&format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))
            .await?;
        let mut again = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}");
        if let Some(comment) = row.get::<_, Option<String>>(3) {
            again.push_str(&format!(
                "; COMMENT ON CONSTRAINT {name} ON {table} IS {}",
                literal(&comment)
            ));
        }
        afterwards.push((format!("foreign key {name} of {table}"), again));
    }
    let dependent = Arc::new(dependent_tables(&session).await?);
    Ok(SuspendedConstraints {
        afterwards,
        dependent,
    })
}

impl SuspendedConstraints {
    /// Restores triggers and foreign keys; each foreign key is checked against the rows.
    ///
    /// # Errors
    /// `data_rejected` if a row refers to a missing one; the server's error.
    pub async fn close(self, server: &Server, database: &str) -> Result<(), RestoreError> {
        let session = server.connect(database, "prepare").await?;
        for (what, sql) in self.afterwards {
            session.run(&sql).await.map_err(|e| e.context(&what))?;
        }
        Ok(())
    }
}
