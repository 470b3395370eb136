//! Restores data only into a copy of existing tables: foreign keys are dropped and triggers disabled
//! while the rows arrive, in any order and on several connections. Afterwards both are restored, and
//! every foreign key has been checked.

use std::collections::HashSet;
use std::sync::Arc;

use super::dependence::dependent_tables;
use crate::error::{DatabaseError, RestoreError};
use crate::postgres::{Server, Session, literal, map_pg_error};
use tokio_postgres::Row;

/// What to restore once the rows are loaded.
pub struct SuspendedConstraints {
    afterwards: Vec<Suspended>,
    /// Tables whose rows depend on others, each both with and without its schema.
    pub dependent: Arc<HashSet<String>>,
}

/// A trigger or foreign key that is not in force.
struct Suspended {
    what: String,
    /// The statement that restores it.
    restore: String,
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
    let mut afterwards = vec![];
    for trigger in list(&session, TRIGGERS).await? {
        afterwards.push(disable_trigger(&session, &trigger).await?);
    }
    for key in list(&session, FOREIGN_KEYS).await? {
        afterwards.push(drop_key(&session, &key).await?);
    }
    Ok(SuspendedConstraints {
        afterwards,
        dependent: Arc::new(dependent_tables(&session).await?),
    })
}

async fn list(session: &Session, sql: &str) -> Result<Vec<Row>, DatabaseError> {
    let rows = session.client().query(sql, &[]).await;
    rows.map_err(|e| map_pg_error(&e, "listing foreign keys and triggers"))
}

async fn disable_trigger(session: &Session, row: &Row) -> Result<Suspended, DatabaseError> {
    let (table, name, how): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let how = match how.as_str() {
        "R" => "REPLICA ",
        "A" => "ALWAYS ",
        _ => "",
    };
    let disable = format!("ALTER TABLE {table} DISABLE TRIGGER {name}");
    session.run(&disable).await?;
    Ok(Suspended {
        what: format!("trigger {name} of {table}"),
        restore: format!("ALTER TABLE {table} ENABLE {how}TRIGGER {name}"),
    })
}

async fn drop_key(session: &Session, row: &Row) -> Result<Suspended, DatabaseError> {
    let (table, name, definition): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let drop = format!("ALTER TABLE {table} DROP CONSTRAINT {name}");
    session.run(&drop).await?;
    let mut restore = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}");
    if let Some(comment) = row.get::<_, Option<String>>(3) {
        let comment = literal(&comment);
        restore.push_str(&format!(
            "; COMMENT ON CONSTRAINT {name} ON {table} IS {comment}"
        ));
    }
    Ok(Suspended {
        what: format!("foreign key {name} of {table}"),
        restore,
    })
}

impl SuspendedConstraints {
    /// Restores triggers and foreign keys; each foreign key is checked against the rows.
    ///
    /// # Errors
    /// `data_rejected` if a row refers to a missing one; the server's error.
    pub async fn close(self, server: &Server, database: &str) -> Result<(), RestoreError> {
        let session = server.connect(database, "prepare").await?;
        for Suspended { what, restore } in self.afterwards {
            let restored = session.run(&restore).await;
            restored.map_err(|e| e.context(&what))?;
        }
        Ok(())
    }
}
