//! One database out of the text of `pg_dumpall`: what belongs to others is read, so that its end is
//! known, and passed over.

use super::text::{Text, TextItem};
use crate::error::ArchiveError;

/// Bytes in which databases are looked for where none was named.
const LOOK: u64 = 8 << 20;
/// Databases that an error names.
const NAMED: usize = 20;

/// The next item of the wanted database; of a text that is no cluster's, the next item.
pub(super) fn next(text: &mut Text) -> Result<TextItem, ArchiveError> {
    loop {
        let item = text.next()?;
        let at_end = matches!(item, TextItem::End(_));
        if !text.frames.is_cluster() || text.is_wanted() {
            return Ok(item);
        }
        if at_end && text.was_wanted {
            return Ok(item);
        }
        if at_end || (text.wanted.is_none() && text.consumed > LOOK) {
            return Err(not_found(text, at_end));
        }
        if let TextItem::Copy(_) = item {
            text.pass_rows()?;
        }
    }
}

fn not_found(text: &Text, at_end: bool) -> ArchiveError {
    let mut names: Vec<&str> = text
        .databases
        .iter()
        .map(String::as_str)
        .take(NAMED)
        .collect();
    if !at_end || text.databases.len() > NAMED {
        names.push("…");
    }
    let names = names.join(", ");
    let what = match &text.wanted {
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
