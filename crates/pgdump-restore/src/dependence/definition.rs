//! Parses a table's definition as far as its expressions.

use crate::postgres::ident;
use pgdump_archive::Token;

/// `CREATE TABLE s.t (…) …`
#[derive(Debug, Default)]
pub(super) struct Definition<'a, 'b> {
    pub name: String,
    /// The contents of the parentheses, split at top-level commas.
    items: Vec<&'b [Token<'a>]>,
    /// The tokens after the parentheses.
    pub tail: &'b [Token<'a>],
}

/// A column that gets a value if a row has none.
#[derive(Debug)]
pub(super) struct Default<'a, 'b> {
    pub column: String,
    pub expression: &'b [Token<'a>],
}

/// A name at the start, with its schema, and the rest; both parts unquoted, as the catalog stores them.
pub(super) fn relation<'a, 'b>(mut t: &'b [Token<'a>]) -> Option<(String, &'b [Token<'a>])> {
    for words in [&["if", "not", "exists"][..], &["if", "exists"], &["only"]] {
        if words.len() <= t.len() && words.iter().zip(t).all(|(w, t)| t.is(w)) {
            t = &t[words.len()..];
        }
    }
    let first = t.first()?.name()?;
    if t.get(1).is_some_and(|d| d.is_symbol(b'.')) {
        Some((
            format!("{}.{}", ident(&first), ident(&t.get(2)?.name()?)),
            t.get(3..)?,
        ))
    } else {
        Some((ident(&first), t.get(1..)?))
    }
}

/// The contents of the parentheses at the start, and the rest.
pub(crate) fn parenthesized<'a, 'b>(
    t: &'b [Token<'a>],
) -> Option<(&'b [Token<'a>], &'b [Token<'a>])> {
    let mut depth = 0_usize;
    for (i, token) in t.iter().enumerate() {
        match token {
            w if w.is_symbol(b'(') => depth += 1,
            w if w.is_symbol(b')') => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some((&t[1..i], &t[i + 1..]));
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

/// The tokens outside of parentheses, each with its position.
pub(crate) fn outer<'a, 'b>(t: &'b [Token<'a>]) -> impl Iterator<Item = (usize, &'b Token<'a>)> {
    let mut depth = 0_usize;
    t.iter().enumerate().filter(move |(_, token)| {
        let is_open = token.is_symbol(b'(') || token.is_symbol(b'[');
        let is_closed = token.is_symbol(b')') || token.is_symbol(b']');
        depth = if is_closed {
            depth.saturating_sub(1)
        } else {
            depth
        };
        let is_outer = depth == 0 && !is_closed;
        depth += usize::from(is_open);
        is_outer
    })
}

/// The tokens between top-level commas.
pub(crate) fn at_commas<'a, 'b>(t: &'b [Token<'a>]) -> Vec<&'b [Token<'a>]> {
    let (mut items, mut start) = (vec![], 0);
    let commas: Vec<usize> = outer(t)
        .filter(|(_, w)| w.is_symbol(b','))
        .map(|(i, _)| i)
        .collect();
    for end in commas.into_iter().chain([t.len()]) {
        items.push(&t[start..end]);
        start = end + 1;
    }
    items
}

/// Words that end the preceding clause in the definition of a column.
const CLAUSES: [&str; 10] = [
    "check",
    "collate",
    "constraint",
    "default",
    "exclude",
    "generated",
    "not",
    "primary",
    "references",
    "unique",
];

fn is_clause(token: &Token<'_>) -> bool {
    CLAUSES.iter().any(|w| token.is(w))
}

impl<'a, 'b> Definition<'a, 'b> {
    /// Parses the tokens after `CREATE … TABLE`.
    pub(super) fn of(t: &'b [Token<'a>]) -> Option<Self> {
        let (name, rest) = relation(t)?;
        let open = rest
            .iter()
            .position(|w| w.is_symbol(b'(') || w.is("for") || w.is("default") || w.is("as"));
        let before = open.unwrap_or(rest.len());
        match rest.get(before..).and_then(parenthesized) {
            // The parents of a partition precede its columns.
            Some((body, tail)) if before == 0 => Some(Definition {
                name,
                items: at_commas(body),
                tail,
            }),
            Some((body, _)) => Some(Definition {
                name,
                items: at_commas(body),
                tail: rest,
            }),
            None => Some(Definition {
                name,
                items: vec![],
                tail: rest,
            }),
        }
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &'b [Token<'a>]> {
        self.items.iter().copied()
    }

    /// Columns with a default, an identity or a serial type.
    pub(super) fn defaults(&self) -> Vec<Default<'a, 'b>> {
        self.items().filter_map(default_of).collect()
    }

    /// Checks, generated columns and the partition key: everything that is evaluated for each row.
    pub(super) fn expressions(&self) -> Vec<&'b [Token<'a>]> {
        let mut found: Vec<&[Token<'_>]> = self.items().flat_map(expressions_of).collect();
        found.extend(
            self.tail
                .iter()
                .position(|w| w.is("partition"))
                .map(|at| &self.tail[at..]),
        );
        found
    }
}

/// A column's default; for an identity or serial column, the words that define it.
pub(super) fn default_of<'a, 'b>(item: &'b [Token<'a>]) -> Option<Default<'a, 'b>> {
    let column = item.first()?.name()?;
    if let Some((at, _)) = outer(item).find(|(i, w)| *i > 0 && w.is("default")) {
        let is_end = |(i, w): &(usize, &Token<'_>)| *i > at + 1 && is_clause(w);
        let end = outer(item).find(is_end).map_or(item.len(), |(i, _)| i);
        return item
            .get(at + 1..end)
            .map(|expression| Default { column, expression });
    }
    let is_counted = |w: &Token<'_>| {
        [
            "identity",
            "serial",
            "bigserial",
            "smallserial",
            "serial4",
            "serial8",
            "serial2",
        ]
        .iter()
        .any(|s| w.is(s))
    };
    let at = outer(item).find(|(i, w)| *i > 0 && is_counted(w))?.0;
    Some(Default {
        column,
        expression: &item[at..=at],
    })
}

/// The part of a column or constraint that is evaluated for each row, except its default.
pub(super) fn expressions_of<'a, 'b>(item: &'b [Token<'a>]) -> Vec<&'b [Token<'a>]> {
    let places: Vec<usize> = outer(item)
        .filter(|(_, w)| is_clause(w))
        .map(|(i, _)| i)
        .collect();
    let ends = places.iter().copied().skip(1).chain([item.len()]);
    let of_clause = |(start, end): (usize, usize)| {
        let is_evaluated = ["check", "exclude", "generated"]
            .iter()
            .any(|w| item[start].is(w));
        is_evaluated.then(|| &item[start..end])
    };
    places
        .iter()
        .copied()
        .zip(ends)
        .filter_map(of_clause)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_archive::{Dialect, tokens};

    fn shown(t: &[Token<'_>]) -> String {
        t.iter().map(|w| w.text).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn expressions_of_a_table_are_parsed() {
        let sql = "s.\"T t\" (\n    id integer DEFAULT nextval('s.q'::regclass) NOT NULL,\n    \
            g public.geometry(Point,4326),\n    n numeric(10,2) DEFAULT NULL::numeric,\n    \
            l text GENERATED ALWAYS AS (public.lb(id)) STORED,\n    k bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,\n    \
            CONSTRAINT c CHECK ((public.ok(id) AND (n > (0)::numeric)))\n)\nPARTITION BY RANGE (public.pk(id));";
        let t = tokens(sql, Dialect::default());
        let d = Definition::of(&t).unwrap();
        assert_eq!(d.name, "\"s\".\"T t\"");
        let defaults: Vec<(String, String)> = d
            .defaults()
            .into_iter()
            .map(|d| (d.column, shown(d.expression)))
            .collect();
        let of = |c: &str, e: &str| (c.to_owned(), e.to_owned());
        assert_eq!(
            defaults,
            [
                of("id", "nextval ( 's.q' : : regclass )"),
                of("n", "NULL : : numeric"),
                of("k", "AS IDENTITY")
            ]
        );
        let expressions: Vec<String> = d.expressions().into_iter().map(shown).collect();
        assert_eq!(
            expressions,
            [
                "GENERATED ALWAYS AS ( public . lb ( id ) ) STORED",
                "GENERATED BY",
                "CHECK ( ( public . ok ( id ) AND ( n > ( 0 ) : : numeric ) ) )",
                "PARTITION BY RANGE ( public . pk ( id ) ) ;",
            ]
        );
    }

    #[test]
    fn parents_of_a_partition_are_parsed() {
        for sql in [
            "p PARTITION OF s.root FOR VALUES FROM (1) TO (2);",
            "IF NOT EXISTS p PARTITION OF s.root DEFAULT;",
            "p (c text) INHERITS (s.root);",
            "p PARTITION OF s.root (CONSTRAINT c CHECK (a > 0)) FOR VALUES IN (1);",
        ] {
            let t = tokens(sql, Dialect::default());
            let d = Definition::of(&t).unwrap();
            assert_eq!(d.name, "\"p\"");
            assert!(shown(d.tail).contains("root"), "{sql}");
        }
    }
}
