//! The order of the fields in rows. Partitions that are loaded through their root have their own orders of columns,
//! and yet are rows of one table.

use std::collections::HashMap;

use super::Dialect;
use super::lexer::tokens;

/// How to bring the fields of rows with one list of columns into the order of another list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum FieldOrder {
    /// They have that order.
    #[default]
    Same,
    /// For each field of the wanted order, its position.
    Permuted(Vec<usize>),
    /// They have other columns.
    Incomparable,
}

impl FieldOrder {
    /// From the list `from` to the list `to`, as written in statements; `None`: all columns of the table.
    pub(super) fn between(from: Option<&str>, to: Option<&str>) -> Self {
        if from == to {
            return FieldOrder::Same;
        }
        let (Some(from), Some(to)) = (from, to) else {
            return FieldOrder::Incomparable;
        };
        let (from, to) = (names_of(from), names_of(to));
        let positions: HashMap<&str, usize> = from.iter().map(String::as_str).zip(0..).collect();
        let order: Option<Vec<usize>> = to
            .iter()
            .map(|name| positions.get(name.as_str()).copied())
            .collect();
        match order {
            Some(order) if order.iter().copied().eq(0..from.len()) => FieldOrder::Same,
            Some(order) if is_permutation(&order, from.len()) => FieldOrder::Permuted(order),
            _ => FieldOrder::Incomparable,
        }
    }
}

/// The names in a list of columns.
fn names_of(list: &str) -> Vec<String> {
    let words = tokens(list, Dialect::default());
    words.iter().filter_map(|t| t.name()).collect()
}

fn is_permutation(order: &[usize], length: usize) -> bool {
    let mut seen = vec![false; length];
    order.len() == length
        && order
            .iter()
            .all(|i| !std::mem::replace(&mut seen[*i], true))
}

/// The fields of a line in this order; `None` if it does not have as many.
pub(super) fn permuted_line(line: &[u8], order: &[usize]) -> Option<Vec<u8>> {
    let fields: Vec<&[u8]> = line.split(|b| *b == b'\t').collect();
    if fields.len() != order.len() {
        return None;
    }
    let fields: Vec<&[u8]> = order.iter().map(|i| fields[*i]).collect();
    Some(fields.join(&b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_with_the_same_columns_differ_only_in_their_order() {
        use FieldOrder::{Incomparable, Permuted, Same};
        for (from, to, wanted) in [
            (Some("(a, b)"), Some("(a, b)"), Same),
            (Some("(\"a\", B)"), Some("(a,b)"), Same),
            (None, None, Same),
            (
                Some("(b, c, a)"),
                Some("(a, b, c)"),
                Permuted(vec![2, 0, 1]),
            ),
            (Some("(\"A\", b)"), Some("(b, \"A\")"), Permuted(vec![1, 0])),
            (Some("(a, b)"), Some("(a, c)"), Incomparable),
            (Some("(a, b, c)"), Some("(b, a)"), Incomparable),
            (Some("(a, b)"), Some("(b, a, c)"), Incomparable),
            (Some("(a, a)"), Some("(a, b)"), Incomparable),
            (Some("(a, b)"), Some("(b, b)"), Incomparable),
            (Some("(a, b)"), None, Incomparable),
        ] {
            assert_eq!(FieldOrder::between(from, to), wanted, "{from:?} {to:?}");
        }
        assert_eq!(
            permuted_line(b"x\t\\N\t1", &[2, 0, 1]).as_deref(),
            Some(&b"1\tx\t\\N"[..])
        );
        assert_eq!(permuted_line(b"x\t1", &[2, 0, 1]), None);
    }
}
