//! The table and the columns that a COPY statement names.

use super::Dialect;
use super::lexer::tokens;

/// `COPY s.t (a, b) FROM stdin;` → `s.t` and `(a, b)`
pub fn copy_target(copy: &str) -> Option<(String, Option<String>)> {
    let t = tokens(copy, Dialect::default());
    let from = t.iter().rposition(|w| w.is("from"))?;
    let open = t[..from].iter().position(|w| w.is_symbol(b'('));
    let start = t.get(1)?.at;
    let name_end = open.map_or(t[from].at, |i| t[i].at);
    let relation = copy.get(start..name_end)?.trim().to_owned();
    let columns = open
        .and_then(|i| copy.get(t[i].at..t[from].at))
        .map(|c| c.trim().to_owned());
    Some((relation, columns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_of_a_copy_is_parsed_with_its_columns() {
        let of = |sql| copy_target(sql).unwrap();
        assert_eq!(
            of("COPY s.t (a, \"b (c\") FROM stdin;"),
            ("s.t".into(), Some("(a, \"b (c\")".into()))
        );
        assert_eq!(
            of("COPY \"S\".\"from\"  FROM stdin;"),
            ("\"S\".\"from\"".into(), None)
        );
    }
}
