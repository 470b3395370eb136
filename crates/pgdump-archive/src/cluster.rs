//! Selects one database from the text of `pg_dumpall`: the text of the others is read to find where it ends,
//! and skipped.

use super::text::SqlReader;
use super::text_item::TextItem;
use crate::error::ArchiveError;

/// How many bytes are searched for names of databases if none was requested.
const MAX_UNNAMED_SCAN: u64 = 8 << 20;
/// Most databases that an error names.
const MAX_LISTED: usize = 20;

/// The next item of the requested database, or simply the next item if the text is not of a cluster.
pub(super) fn next(text: &mut SqlReader) -> Result<TextItem, ArchiveError> {
    loop {
        let item = text.next()?;
        let at_end = matches!(item, TextItem::End(_));
        if !text.session.marks.is_cluster() || text.session.is_selected() {
            return Ok(item);
        }
        if at_end && text.session.was_selected {
            return Ok(item);
        }
        if at_end || (text.session.selected_database.is_none() && text.consumed > MAX_UNNAMED_SCAN)
        {
            return Err(not_found(text, at_end));
        }
        if let TextItem::Copy(_) = item {
            text.skip_copy_block()?;
        }
    }
}

fn not_found(text: &SqlReader, at_end: bool) -> ArchiveError {
    let mut names: Vec<&str> = text
        .session
        .databases
        .iter()
        .map(String::as_str)
        .take(MAX_LISTED)
        .collect();
    if !at_end || text.session.databases.len() > MAX_LISTED {
        names.push("…");
    }
    let names = names.join(", ");
    let what = match &text.session.selected_database {
        _ if text.session.databases.is_empty() => {
            "it has the roles and settings of a cluster (pg_dumpall --globals-only) and no database: use it \
             as --globals of a backup"
                .to_owned()
        }
        None => format!(
            "it is a dump of a whole cluster (pg_dumpall): choose one of its databases with --database ({names}), \
             and pass the file itself as --globals for its roles"
        ),
        Some(wanted) => format!("the dump of the cluster does not have database {wanted}; it has {names}"),
    };
    ArchiveError::not_found(what)
}
