//! Patterns of names: `*` stands for any characters, `?` for one. With them, case does not matter.

use std::cmp::Reverse;

/// A pattern of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamePattern {
    text: String,
    /// A quoted name has no wildcards.
    is_exact: bool,
}

/// How specific a pattern is; greater wins. Exact names first, then those with more literal characters, then the later ones
/// in the file.
pub(crate) type Specificity = (bool, usize, usize);

impl NamePattern {
    /// Reads a column's pattern: a name in double quotes is meant literally.
    pub(crate) fn parse(text: &str) -> Self {
        let unquoted = text
            .strip_prefix('"')
            .and_then(|t| t.strip_suffix('"'))
            .map(|t| t.replace("\"\"", "\""));
        match unquoted {
            Some(text) => Self {
                text,
                is_exact: true,
            },
            None => Self {
                text: text.to_owned(),
                is_exact: !text.contains(['*', '?']),
            },
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        if self.is_exact {
            self.text == name
        } else {
            // Who writes `*email*` means workEmail, too.
            glob(&self.text.to_lowercase(), &name.to_lowercase())
        }
    }

    /// The name, if the pattern has no wildcards.
    pub(crate) fn exact(&self) -> Option<&str> {
        self.is_exact.then_some(self.text.as_str())
    }

    fn literals(&self) -> usize {
        if self.is_exact {
            self.text.chars().count()
        } else {
            self.text
                .chars()
                .filter(|c| !['*', '?'].contains(c))
                .count()
        }
    }

    pub(crate) fn specificity(&self, position: usize) -> Specificity {
        (self.is_exact, self.literals(), position)
    }
}

/// A pattern of a table: `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TablePattern {
    schema: NamePattern,
    table: NamePattern,
}

impl TablePattern {
    /// Reads `schema.table`; a name in double quotes may contain a dot.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let dot = dot_outside_quotes(text)?;
        let (schema, table) = (&text[..dot], &text[dot + 1..]);
        let is_whole = !schema.is_empty()
            && !table.is_empty()
            && (table.starts_with('"') || !table.contains('.'));
        is_whole.then(|| Self {
            schema: NamePattern::parse(schema),
            table: NamePattern::parse(table),
        })
    }

    pub(crate) fn matches(&self, schema: &str, table: &str) -> bool {
        self.schema.matches(schema) && self.table.matches(table)
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.schema.is_exact && self.table.is_exact
    }

    pub(crate) fn specificity(&self, position: usize) -> Specificity {
        let literals = self.schema.literals() + self.table.literals();
        (self.is_exact(), literals, position)
    }
}

/// Sorts by specificity, the most specific first.
pub(crate) fn most_specific_first<T>(found: &mut [(Specificity, T)]) {
    found.sort_by_key(|(specificity, _)| Reverse(*specificity));
}

fn dot_outside_quotes(text: &str) -> Option<usize> {
    let mut is_quoted = false;
    text.bytes().position(|b| {
        is_quoted ^= b == b'"';
        b == b'.' && !is_quoted
    })
}

/// Matches in linear time per star: on a mismatch, the last star takes one more character.
fn glob(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    let mut last_star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                last_star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else {
                    return false;
                };
                last_star = Some((star, taken + 1));
                p = star + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("email", "email", true),
            ("email", "emails", false),
            ("*", "", true),
            ("*_email", "work_email", true),
            ("*a*b", "xaxxb", true),
            ("*a*b", "xaxxbc", false),
            ("log_?", "log_1", true),
            ("log_?", "log_", false),
            ("*email*", "workEmail", true),
            ("E*", "email", true),
            ("Email", "email", false),
            ("\"a*\"", "ab", false),
            ("\"a*\"", "a*", true),
        ] {
            assert_eq!(
                NamePattern::parse(pattern).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn tables_are_named_with_their_schema() {
        let quoted = TablePattern::parse("\"my.schema\".\"T\"").unwrap();
        assert!(quoted.matches("my.schema", "T"));
        assert!(
            TablePattern::parse("audit.*")
                .unwrap()
                .matches("audit", "log")
        );
        for text in ["customer", ".t", "s.", "a.b.c"] {
            assert_eq!(TablePattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let rank = |text: &str, position| TablePattern::parse(text).unwrap().specificity(position);
        assert!(rank("shop.customer", 0) > rank("shop.customer_*", 1));
        assert!(rank("shop.c*", 0) > rank("shop.*", 1));
        assert!(rank("*.log", 1) > rank("*.log", 0));
    }
}
