//! What to do about an error whose usual cause is known. Pure.

use crate::error::{DatabaseError, DatabaseKind as D};
use crate::postgres::names_running_function;
use pgdump_archive::{EntryKind, TocEntry};

/// What to do about a role that the server lacks. A dump of one database has no roles.
pub(crate) const MISSING_ROLE: &str = "create the role, or restore with --globals globals.sql (the roles, by pg_dumpall \
    --globals-only), --create-roles, --owners map or --owners none --no-privileges";

/// The same for a role that a policy or a user mapping names, whoever owns its table and whatever is granted.
pub(crate) const MISSING_NAMED_ROLE: &str = "create the role, or restore with --globals globals.sql (the roles, by pg_dumpall \
    --globals-only), --create-roles, --owners map --role-map ROLE=OTHER, or without the policies and user mappings that \
    name it (--skip)";

/// Adds a remedy for a missing role, and if a function did not find a name because `pg_dump` restores with an empty
/// search path. `entry` is the entry that was being restored, if it is known.
pub(super) fn with_hint(e: DatabaseError, entry: Option<&TocEntry>) -> DatabaseError {
    // Without a SQLSTATE, it is our own error, and has it.
    if e.kind() == D::RoleMissing && e.sqlstate().is_some() {
        let is_named = |e: &TocEntry| matches!(e.kind, EntryKind::Policy | EntryKind::UserMapping);
        let remedy = if entry.is_some_and(is_named) {
            MISSING_NAMED_ROLE
        } else {
            MISSING_ROLE
        };
        return e.followed_by(&format!(": {remedy}"));
    }
    if e.kind() == D::RoleMissing || !is_for_a_function(&e.to_string()) {
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

/// Whether a function that was running used a name that has no schema, or a function that has none was called. The
/// names in definitions have a schema: `pg_dump` writes it, and other SQL text is not restored with an empty path.
fn is_for_a_function(message: &str) -> bool {
    let quoted = |kind: &str| {
        let rest = message.split_once(kind)?.1;
        let (name, rest) = rest.split_once('"')?;
        Some(!name.contains('.') && rest.starts_with(" does not exist"))
    };
    let function = || {
        let (name, rest) = message.split_once("function ")?.1.split_once('(')?;
        Some(!name.contains(['.', ' ']) && rest.contains(") does not exist"))
    };
    let other = || {
        ["relation \"", "type \"", "text search configuration \""]
            .into_iter()
            .any(|k| quoted(k) == Some(true))
            || message.contains("operator does not exist: ")
    };
    function() == Some(true) || (names_running_function(message) && other())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_function_used_get_a_hint() {
        const IN_SQL: &str = " [42P01] (in SQL function \"f\" during inlining)";
        const IN_QUERY: &str = " [42883] (in the query SELECT $1 = b FROM public.t)";
        for (message, context, wanted) in [
            ("statement: relation \"docs\" does not exist", IN_SQL, true),
            (
                "statement: relation \"docs\" does not exist",
                " [42P01]",
                false,
            ),
            ("relation \"public.docs\" does not exist", IN_SQL, false),
            ("function helper(integer, text) does not exist", "", true),
            (
                "function helper(integer, text) does not exist",
                IN_SQL,
                true,
            ),
            ("function s.helper(integer) does not exist", IN_SQL, false),
            ("type \"citext\" does not exist", " [42704]", false),
            ("type \"citext\" does not exist", IN_QUERY, true),
            ("schema \"s\" does not exist", IN_SQL, false),
            (
                "column \"a\" of relation \"t\" already exists",
                IN_SQL,
                false,
            ),
            (
                "operator does not exist: public.citext = text",
                " [42883]",
                false,
            ),
            (
                "operator does not exist: public.citext = text",
                IN_QUERY,
                true,
            ),
        ] {
            let message = format!("{message}{context}");
            assert_eq!(is_for_a_function(&message), wanted, "{message}");
        }
    }

    #[test]
    fn a_missing_role_may_be_in_the_globals() {
        let role = || DatabaseError::new(D::RoleMissing, "role \"app\" does not exist [42704]");
        let said = with_hint(role().with_sqlstate("42704"), None).to_string();
        assert!(said.contains("[42704]: create the role, or"), "{said}");
        assert!(said.contains("--globals globals.sql"), "{said}");
        assert!(!with_hint(role(), None).to_string().contains("--globals"));
        let policy = TocEntry::bare(1, "POLICY", "t p");
        let said = with_hint(role().with_sqlstate("42704"), Some(&policy)).to_string();
        assert!(said.contains("--role-map"), "{said}");
        assert!(!said.contains("--no-privileges"), "{said}");
    }

    #[test]
    fn hint_suggests_excluding_rows_of_a_materialized_view() {
        let mut entry = TocEntry::bare(1, "MATERIALIZED VIEW DATA", "w");
        entry.namespace = Some("s".into());
        let what = "relation \"docs\" does not exist [42P01] (in SQL function \"f\" statement 1)";
        let e = || DatabaseError::new(D::StatementRejected, what);
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
