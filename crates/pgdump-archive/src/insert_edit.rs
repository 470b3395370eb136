//! Changes the rows of INSERT statements. Values that stay the same keep their spelling.

use super::Dialect;
use super::insert_values::value;
use super::lexer::{Token, tokens};
use crate::error::ArchiveError;

/// A value in a row of an INSERT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsertValue {
    /// `DEFAULT`, as `pg_dump` writes it for a generated column.
    Default,
    /// NULL.
    Null,
    /// A value as the server shows it.
    Text(String),
}

/// Changes rows.
pub trait RowEditor {
    /// A statement begins. `relation` is the table as written; `columns` the names of its list, as the catalog has them.
    ///
    /// # Errors
    /// The editor's own, which end the reading.
    fn target(&mut self, relation: &str, columns: Option<Vec<String>>) -> Result<(), ArchiveError>;
    /// Changes the values of a row in place; false leaves it out. A row of `DEFAULT VALUES` has none.
    ///
    /// # Errors
    /// The editor's own, which end the reading.
    fn row(&mut self, values: &mut [InsertValue]) -> Result<bool, ArchiveError>;
}

/// The INSERT statements of `sql` with their rows changed; without statements that have no rows left.
///
/// # Errors
/// `ArchiveError::Limit`, which names the place and no value, for anything that `pg_dump` does not write: another
/// statement, an expression among the values, a clause after them; and the errors of the editor.
pub fn edit_inserts(
    sql: &str,
    dialect: Dialect,
    editor: &mut dyn RowEditor,
) -> Result<String, ArchiveError> {
    let t = tokens(sql, dialect);
    let mut edit = InsertEdit {
        sql,
        t: &t,
        at: 0,
        dialect,
        out: String::with_capacity(sql.len()),
    };
    // The lexer stops at what it cannot read.
    let is_read = t.last().map_or(sql.trim().is_empty(), |last| {
        sql[last.at + last.text.len()..].trim().is_empty()
    });
    if !is_read {
        return Err(not_understood("ends within a quote or comment"));
    }
    while edit.at < t.len() {
        if edit.is_symbol(b';') {
            edit.at += 1;
        } else {
            edit.statement(editor)?;
        }
    }
    Ok(edit.out)
}

fn not_understood(what: &str) -> ArchiveError {
    ArchiveError::limit(format!(
        "an INSERT {what}, which pg_dump does not write: its rows cannot be changed"
    ))
}

struct InsertEdit<'a> {
    sql: &'a str,
    t: &'a [Token<'a>],
    /// The next token.
    at: usize,
    dialect: Dialect,
    out: String,
}

impl<'a> InsertEdit<'a> {
    fn is_symbol(&self, symbol: u8) -> bool {
        self.t.get(self.at).is_some_and(|w| w.is_symbol(symbol))
    }

    fn skip_words(&mut self, words: &[&str]) -> bool {
        let ahead = self.t.get(self.at..self.at + words.len());
        let are = ahead.is_some_and(|t| t.iter().zip(words).all(|(t, word)| t.is(word)));
        self.at += if are { words.len() } else { 0 };
        are
    }

    /// The text from a token to before the next one to be read, without what separates them.
    fn text_from(&self, start: usize) -> &'a str {
        let from = self.t.get(start).map_or(self.sql.len(), |w| w.at);
        let last = self.at.checked_sub(1).and_then(|i| self.t.get(i));
        let end = last.map_or(from, |w| w.at + w.text.len());
        self.sql.get(from..end).unwrap_or_default()
    }

    /// `INSERT INTO s.t (a, b) OVERRIDING SYSTEM VALUE VALUES (1, 'x') ON CONFLICT DO NOTHING;`
    fn statement(&mut self, editor: &mut dyn RowEditor) -> Result<(), ArchiveError> {
        let start = self.at;
        if !self.skip_words(&["insert", "into"]) {
            return Err(not_understood("is preceded by another statement"));
        }
        let relation = self.relation()?;
        let columns = self.columns()?;
        if self.skip_words(&["overriding"]) {
            let _ = self.skip_words(&["system", "value"]) || self.skip_words(&["user", "value"]);
        }
        editor.target(relation, columns)?;
        let rows = self.rows(start, editor)?;
        let tail = self.at;
        self.skip_words(&["on", "conflict", "do", "nothing"]);
        if self.at < self.t.len() && !self.is_symbol(b';') {
            return Err(not_understood("has a clause after its values"));
        }
        if let Some(rows) = rows {
            self.out.push_str(&rows);
            if self.at > tail {
                self.out.push(' ');
                self.out.push_str(self.text_from(tail));
            }
            self.out.push_str(";\n");
        }
        Ok(())
    }

    fn relation(&mut self) -> Result<&'a str, ArchiveError> {
        let start = self.at;
        let no_table = || not_understood("names no table");
        loop {
            self.t
                .get(self.at)
                .and_then(Token::name)
                .ok_or_else(no_table)?;
            self.at += 1;
            if !self.is_symbol(b'.') {
                return Ok(self.text_from(start));
            }
            self.at += 1;
        }
    }

    fn columns(&mut self) -> Result<Option<Vec<String>>, ArchiveError> {
        if !self.is_symbol(b'(') {
            return Ok(None);
        }
        let mut names = vec![];
        let wrong = || not_understood("has a list of columns that are not plain names");
        while !self.is_symbol(b')') {
            self.at += 1;
            names.push(
                self.t
                    .get(self.at)
                    .and_then(Token::name)
                    .ok_or_else(wrong)?,
            );
            self.at += 1;
            if !self.is_symbol(b',') && !self.is_symbol(b')') {
                return Err(wrong());
            }
        }
        self.at += 1;
        Ok(Some(names))
    }

    /// The statement up to the end of its rows; `None` if none is left.
    fn rows(
        &mut self,
        start: usize,
        editor: &mut dyn RowEditor,
    ) -> Result<Option<String>, ArchiveError> {
        if self.skip_words(&["default", "values"]) {
            let is_kept = editor.row(&mut [])?;
            return Ok(is_kept.then(|| self.text_from(start).to_owned()));
        }
        if !self.skip_words(&["values"]) {
            return Err(not_understood("has no VALUES"));
        }
        let mut text = self.text_from(start).to_owned();
        let mut kept = 0_usize;
        loop {
            let row = self.row(editor)?;
            if let Some(row) = row {
                text.push_str(if kept == 0 { " " } else { ", " });
                text.push_str(&row);
                kept += 1;
            }
            if !self.is_symbol(b',') {
                return Ok((kept > 0).then_some(text));
            }
            self.at += 1;
        }
    }

    /// A row in parentheses, changed; `None` if it is left out.
    fn row(&mut self, editor: &mut dyn RowEditor) -> Result<Option<String>, ArchiveError> {
        if !self.is_symbol(b'(') {
            return Err(not_understood("has values without parentheses"));
        }
        self.at += 1;
        let (mut before, mut spelled) = (vec![], vec![]);
        loop {
            let start = self.at;
            while self.at < self.t.len() && !self.is_symbol(b',') && !self.is_symbol(b')') {
                self.at += 1;
            }
            if self.at == self.t.len() {
                return Err(not_understood("has a row without an end"));
            }
            before.push(self.value(start)?);
            spelled.push(self.text_from(start));
            self.at += 1;
            if self.t[self.at - 1].is_symbol(b')') {
                break;
            }
        }
        let mut after = before.clone();
        if !editor.row(&mut after)? {
            return Ok(None);
        }
        let all = before.iter().zip(&after).zip(spelled);
        let written: Vec<String> = all
            .map(|((before, after), spelled)| {
                if before == after {
                    spelled.to_owned()
                } else {
                    after.spelled()
                }
            })
            .collect();
        Ok(Some(format!("({})", written.join(", "))))
    }

    /// The value from this token to before the next one to be read.
    fn value(&self, start: usize) -> Result<InsertValue, ArchiveError> {
        let t = &self.t[start..self.at];
        if let [one] = t
            && one.is("default")
        {
            return Ok(InsertValue::Default);
        }
        match value(t, self.dialect.standard_strings) {
            Some(Some(text)) => Ok(InsertValue::Text(text)),
            Some(None) => Ok(InsertValue::Null),
            None => Err(not_understood("has a value that is not a constant")),
        }
    }
}

impl InsertValue {
    /// A constant that has this value whatever `standard_conforming_strings` is.
    fn spelled(&self) -> String {
        match self {
            InsertValue::Default => "DEFAULT".to_owned(),
            InsertValue::Null => "NULL".to_owned(),
            InsertValue::Text(text) => {
                let quoted = text.replace('\'', "''");
                if quoted.contains('\\') {
                    format!("E'{}'", quoted.replace('\\', "\\\\"))
                } else {
                    format!("'{quoted}'")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replaces the second value, and leaves out rows whose first one is 0.
    #[derive(Default)]
    struct Second {
        new: String,
        targets: Vec<(String, Option<Vec<String>>)>,
        seen: Vec<Vec<InsertValue>>,
    }

    impl RowEditor for Second {
        fn target(
            &mut self,
            relation: &str,
            columns: Option<Vec<String>>,
        ) -> Result<(), ArchiveError> {
            self.targets.push((relation.to_owned(), columns));
            Ok(())
        }

        fn row(&mut self, values: &mut [InsertValue]) -> Result<bool, ArchiveError> {
            self.seen.push(values.to_vec());
            if let Some(second) = values.get_mut(1) {
                *second = InsertValue::Text(self.new.clone());
            }
            Ok(values.first() != Some(&InsertValue::Text("0".into())))
        }
    }

    fn edited(
        sql: &str,
        new: &str,
        standard_strings: bool,
    ) -> Result<(String, Second), ArchiveError> {
        let mut editor = Second {
            new: new.to_owned(),
            ..Second::default()
        };
        let dialect = Dialect {
            standard_strings,
            ..Dialect::default()
        };
        let sql = edit_inserts(sql, dialect, &mut editor)?;
        Ok((sql, editor))
    }

    #[test]
    fn changed_values_are_quoted_and_others_keep_their_spelling() {
        let sql = "INSERT INTO s.\"T t\" (a, \"B,b\", c) OVERRIDING SYSTEM VALUE VALUES (TRUE, 'old', DEFAULT);\n\n\
             INSERT INTO t VALUES\n\t(1, 'it''s', B'01'),\n\t(0, NULL, X'1f'),\n\t(2, E'a\\nb', 1.50) ON CONFLICT DO NOTHING;\n\
             INSERT INTO t VALUES (0, 'gone', true);\nINSERT INTO none DEFAULT VALUES;\n";
        let (written, editor) = edited(sql, "it's\\new", true).unwrap();
        assert_eq!(
            written,
            "INSERT INTO s.\"T t\" (a, \"B,b\", c) OVERRIDING SYSTEM VALUE VALUES (TRUE, E'it''s\\\\new', DEFAULT);\n\
             INSERT INTO t VALUES (1, E'it''s\\\\new', B'01'), (2, E'it''s\\\\new', 1.50) ON CONFLICT DO NOTHING;\n\
             INSERT INTO none DEFAULT VALUES;\n"
        );
        let columns = ["a", "B,b", "c"].map(str::to_owned).to_vec();
        assert_eq!(editor.targets[0], ("s.\"T t\"".to_owned(), Some(columns)));
        assert_eq!(editor.targets[1], ("t".to_owned(), None));
        let text = |t: &str| InsertValue::Text(t.to_owned());
        assert_eq!(
            editor.seen[0],
            [text("t"), text("old"), InsertValue::Default]
        );
        assert_eq!(editor.seen[1][1], text("it's"));
        assert_eq!(
            editor.seen[2],
            [text("0"), InsertValue::Null, text("00011111")]
        );
        assert_eq!(editor.seen[3][1], text("a\nb"));
        assert!(editor.seen[5].is_empty());
    }

    #[test]
    fn backslashes_are_read_as_the_text_means_them() {
        let sql = "INSERT INTO t VALUES (1, 'a\\\\b');";
        assert_eq!(
            edited(sql, "x", false).unwrap().1.seen[0][1],
            InsertValue::Text("a\\b".into())
        );
        let (written, editor) = edited(sql, "x", true).unwrap();
        assert_eq!(editor.seen[0][1], InsertValue::Text("a\\\\b".into()));
        assert_eq!(written, "INSERT INTO t VALUES (1, 'x');\n");
    }

    #[test]
    fn what_pg_dump_does_not_write_is_refused_without_its_values() {
        for sql in [
            "INSERT INTO t SELECT 'secret';",
            "INSERT INTO t VALUES (1, lower('secret'));",
            "INSERT INTO t VALUES (1, 'secret') RETURNING *;",
            "INSERT INTO t VALUES (1, 'secret') ON CONFLICT (a) DO UPDATE SET b = 'secret';",
            "INSERT INTO t VALUES (1, 'secret'",
            "INSERT INTO t VALUES (1, 'secret",
            "INSERT INTO t (a, lower(b)) VALUES (1, 'secret');",
            "INSERT INTO t AS x VALUES (1, 'secret');",
            "INSERT INTO VALUES (1);",
            "INSERT INTO t VALUES 1;",
            "INSERT INTO t",
            "INSERT",
            "UPDATE t SET a = 'secret';",
            "WITH x AS (SELECT 1) INSERT INTO t VALUES (1);",
        ] {
            let Err(e) = edited(sql, "x", true) else {
                panic!("{sql}");
            };
            let said = e.to_string();
            assert!(
                !said.contains("secret") && said.contains("INSERT"),
                "{said}"
            );
        }
    }
}
