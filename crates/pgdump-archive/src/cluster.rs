//! One database out of the text of `pg_dumpall`: what belongs to others is read, so that its end is
//! known, and passed over.

use super::text::{SqlReader, TextItem};
use crate::error::ArchiveError;

/// Bytes in which databases are looked for where none was named.
const MAX_UNNAMED_SCAN: u64 = 8 << 20;
/// Databases that an error names.
const MAX_LISTED: usize = 20;

/// The next item of the wanted database; of a text that is no cluster's, the next item.
pub(super) fn next(text: &mut SqlReader) -> Result<TextItem, ArchiveError> {
    loop {
        let item = text.next()?;
        let at_end = matches!(item, TextItem::End(_));
        if !text.marks.is_cluster() || text.is_selected() {
            return Ok(item);
        }
        if at_end && text.was_selected {
            return Ok(item);
        }
        if at_end || (text.selected_database.is_none() && text.consumed > MAX_UNNAMED_SCAN) {
            return Err(not_found(text, at_end));
        }
        if let TextItem::Copy(_) = item {
            text.skip_rows()?;
        }
    }
}

fn not_found(text: &SqlReader, at_end: bool) -> ArchiveError {
    let mut names: Vec<&str> = text
        .databases
        .iter()
        .map(String::as_str)
        .take(MAX_LISTED)
        .collect();
    if !at_end || text.databases.len() > MAX_LISTED {
        names.push("…");
    }
    let names = names.join(", ");
    let what = match &text.selected_database {
        _ if text.databases.is_empty() => {
            "it is the roles and settings of a cluster (pg_dumpall --globals-only) without any database: use it \
             as --globals of a backup"
                .to_owned()
        }
        None => format!(
            "it is a dump of a whole cluster (pg_dumpall): name one of its databases with --database ({names}), \
             and the file itself as --globals for its roles"
        ),
        Some(wanted) => format!("the dump of a cluster has no database {wanted}, but {names}"),
    };
    ArchiveError::not_found(what)
}
