//! The function of the database in which an error was raised. Pure.

use tokio_postgres::error::{DbError, ErrorPosition};

/// Characters kept of a query, and of the whole context of one error.
const QUERY: usize = 300;
const ALL: usize = 1000;

/// The functions that were running according to the server, without anything that can quote a row. `quotes_rows`: queries
/// may have been made of rows.
pub(super) fn of(db: &DbError, quotes_rows: bool) -> String {
    let of_data = db.code().code().starts_with("22") || db.code().code().starts_with("23");
    let query = match db.position() {
        Some(ErrorPosition::Internal { query, .. }) if !of_data && !quotes_rows => {
            Some(query.as_str())
        }
        _ => None,
    };
    without_values(db.where_().unwrap_or_default(), query)
}

/// Whether the message of a statement that reads rows may quote one, because a function of the database wrote it, or made
/// the statement that it is about.
pub(super) fn may_quote_rows(db: &DbError) -> bool {
    let is_of_query = matches!(db.position(), Some(ErrorPosition::Internal { .. }));
    is_made_of_rows(
        db.code().code(),
        db.where_().unwrap_or_default(),
        is_of_query,
    )
}

/// `is_of_query`: the error is about a word of a query that a function runs.
fn is_made_of_rows(code: &str, context: &str, is_of_query: bool) -> bool {
    // Statements of a dump in another encoding are run by a block of ours.
    let is_of_dump = |l: &&str| is_function(l) && !l.contains("inline_code_block");
    let Some(function) = context.lines().find(is_of_dump) else {
        // PL/pgSQL raises these, and no other part of the server.
        return code.starts_with("P0");
    };
    let has = |words: &[&str]| words.iter().any(|w| function.contains(w));
    let is_sql = function.starts_with("SQL function ");
    let writes_messages =
        !is_sql && (!function.starts_with("PL/pgSQL") || has(&["RAISE", "ASSERT"]));
    // These name objects of the database, or say what is short.
    let is_of_server = code == "42501"
        || ["23", "40", "53", "54", "55", "57", "58"].contains(&code.get(..2).unwrap_or_default());
    let is_dynamic = !is_sql && has(&["EXECUTE", "RETURN QUERY", "OPEN"]);
    writes_messages || !is_of_server && (is_dynamic || !is_of_query)
}

fn is_function(line: &str) -> bool {
    line.starts_with("PL/") || line.starts_with("SQL function ")
}

/// Whether a message ends with what [`of`] found.
pub(crate) fn names_running_function(message: &str) -> bool {
    [" (in PL/", " (in SQL function ", " (in the query "]
        .into_iter()
        .any(|begin| message.contains(begin))
}

fn without_values(context: &str, query: Option<&str>) -> String {
    // Other lines quote values: `COPY t, line 1, column a: "…"`, `SQL statement "…"`.
    let mut parts: Vec<String> = context
        .lines()
        .filter(|l| is_function(l))
        .map(|l| format!("in {l}"))
        .collect();
    parts.extend(query.map(|q| format!("in the query {}", without_literals(q))));
    if parts.is_empty() {
        return String::new();
    }
    format!(
        " ({})",
        parts.join("; ").chars().take(ALL).collect::<String>()
    )
}

/// A query on one line without its constants, which may come from a row.
fn without_literals(query: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for c in query
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
    {
        match (c, quoted) {
            ('\'', false) => out.push_str("'…"),
            ('\'', true) => out.push('\''),
            ('$', false) if query.contains("$$") => return out + "…",
            (c, false) => out.push(c),
            (_, true) => {}
        }
        quoted ^= c == '\'';
    }
    match out.char_indices().nth(QUERY) {
        Some((end, _)) => out[..end].to_owned() + "…",
        None => out,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_names_functions_but_no_values() {
        let context = "PL/pgSQL function s.f(integer) line 3 at SQL statement\nSQL statement \"SELECT 'secret'\"\n\
                       COPY t, line 1, column a: \"secret\"";
        assert_eq!(
            without_values(context, None),
            " (in PL/pgSQL function s.f(integer) line 3 at SQL statement)"
        );
        let query = "SELECT to_tsvector('it''s secret',\n b) FROM docs";
        assert_eq!(
            without_values("", Some(query)),
            " (in the query SELECT to_tsvector('…''…', b) FROM docs)"
        );
        assert_eq!(
            without_values("", Some("SELECT $$secret$$")),
            " (in the query SELECT …)"
        );
        assert_eq!(without_values("COPY t, line 1: \"secret\"", None), "");
        for (context, query, names) in [
            (context, None, true),
            ("SQL function \"f\" during inlining", None, true),
            ("", Some("SELECT 1 FROM docs"), true),
            ("COPY t, line 1: \"secret\"", None, false),
        ] {
            let message = format!(
                "relation \"docs\" does not exist [42P01]{}",
                without_values(context, query)
            );
            assert_eq!(names_running_function(&message), names, "{message}");
        }
    }

    #[test]
    fn a_function_may_quote_a_row() {
        const RAISE: &str = "PL/pgSQL function f(text) line 1 at RAISE\nCOPY t, line 1: \"secret\"";
        const QUERY: &str = "PL/pgSQL function f(text) line 1 at SQL statement";
        const EXECUTE: &str = "PL/pgSQL function f(text) line 1 at EXECUTE";
        for (code, context, is_of_query, wanted) in [
            ("P0001", RAISE, false, true),
            ("42704", RAISE, false, true),
            ("53100", RAISE, false, true),
            ("P0001", "", false, true),
            ("XX000", "PL/Python function \"f\"", false, true),
            ("42P01", QUERY, true, false),
            ("42P01", QUERY, false, true),
            ("42703", EXECUTE, true, true),
            ("42P01", "SQL function \"f\" during inlining", true, false),
            ("42704", "SQL function \"f\" statement 1", false, true),
            ("23505", QUERY, false, false),
            ("42501", QUERY, false, false),
            ("53100", EXECUTE, false, false),
            ("42P01", "COPY t, line 1: \"x\"", false, false),
            (
                "42710",
                "PL/pgSQL function inline_code_block line 1 at EXECUTE",
                true,
                false,
            ),
        ] {
            assert_eq!(
                is_made_of_rows(code, context, is_of_query),
                wanted,
                "{code} {context}"
            );
        }
    }
}
