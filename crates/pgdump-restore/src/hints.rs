//! What to do about an error whose usual cause is known. Pure.

use crate::error::{DatabaseError, DatabaseKind as D};
use pgdump_archive::{EntryKind, TocEntry};

/// Adds a remedy if a name was not found because `pg_dump` restores with an empty search path.
/// `entry` is the entry that was being restored, if it is known.
pub(super) fn with_hint(e: DatabaseError, entry: Option<&TocEntry>) -> DatabaseError {
    if e.kind() == D::RoleMissing || !is_missing_unqualified_name(&e.to_string()) {
        return e;
    }
    let alternative = entry
        .filter(|e| e.kind == EntryKind::MaterializedViewData)
        .map(|e| {
            let name = e
                .namespace
                .as_ref()
                .map_or_else(|| e.tag.clone(), |ns| format!("{ns}.{}", e.tag));
            format!(
                ", or restore without the rows of this materialized view: --exclude-table-data {name}"
            )
        });
    e.followed_by(&format!(
        ": dumps are restored with an empty search_path, so a function must qualify the names it uses, or have a \
         SET search_path clause{}",
        alternative.unwrap_or_default()
    ))
}

/// Whether the server did not find a name that has no schema. `pg_dump` itself always writes one.
fn is_missing_unqualified_name(message: &str) -> bool {
    let quoted = |kind: &str| {
        let rest = message.split_once(kind)?.1;
        let (name, rest) = rest.split_once('"')?;
        Some(!name.contains('.') && rest.starts_with(" does not exist"))
    };
    let function = || {
        let (name, rest) = message.split_once("function ")?.1.split_once('(')?;
        Some(!name.contains(['.', ' ']) && rest.contains(") does not exist"))
    };
    ["relation \"", "type \"", "text search configuration \""]
        .into_iter()
        .any(|k| quoted(k) == Some(true))
        || function() == Some(true)
        || message.contains("operator does not exist: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unqualified_names_are_recognized() {
        for (message, wanted) in [
            ("statement: relation \"docs\" does not exist [42P01]", true),
            (
                "statement: relation \"public.docs\" does not exist [42P01]",
                false,
            ),
            (
                "function helper(integer, text) does not exist [42883]",
                true,
            ),
            ("function s.helper(integer) does not exist [42883]", false),
            ("type \"citext\" does not exist", true),
            ("schema \"s\" does not exist [3F000]", false),
            ("column \"a\" of relation \"t\" already exists", false),
            ("operator does not exist: public.citext = text", true),
        ] {
            assert_eq!(is_missing_unqualified_name(message), wanted, "{message}");
        }
    }

    #[test]
    fn hint_suggests_excluding_rows_of_a_materialized_view() {
        let mut entry = TocEntry::bare(1, "MATERIALIZED VIEW DATA", "w");
        entry.namespace = Some("s".into());
        let e = || DatabaseError::new(D::StatementRejected, "relation \"docs\" does not exist");
        assert!(
            with_hint(e(), Some(&entry))
                .to_string()
                .contains("--exclude-table-data s.w")
        );
        let message = with_hint(e(), None).to_string();
        assert!(
            message.contains("empty search_path") && !message.contains("--exclude"),
            "{message}"
        );
    }
}
