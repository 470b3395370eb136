//! The function of the database in which an error was raised. Pure.

use tokio_postgres::error::{DbError, ErrorPosition};

/// Characters kept of a query, and of the whole context of one error.
const QUERY: usize = 300;
const ALL: usize = 1000;

/// The functions that were running according to the server, without anything that can quote a row.
pub(super) fn of(db: &DbError) -> String {
    let of_data = db.code().code().starts_with("22") || db.code().code().starts_with("23");
    let query = match db.position() {
        Some(ErrorPosition::Internal { query, .. }) if !of_data => Some(query.as_str()),
        _ => None,
    };
    without_values(db.where_().unwrap_or_default(), query)
}

/// Whether a message ends with what [`of`] found.
pub(crate) fn names_running_function(message: &str) -> bool {
    [" (in PL/", " (in SQL function ", " (in the query "]
        .into_iter()
        .any(|begin| message.contains(begin))
}

fn without_values(context: &str, query: Option<&str>) -> String {
    // Other lines quote values: `COPY t, line 1, column a: "…"`, `SQL statement "…"`.
    let is_function = |l: &&str| l.starts_with("PL/") || l.starts_with("SQL function ");
    let mut parts: Vec<String> = context
        .lines()
        .filter(is_function)
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
}
