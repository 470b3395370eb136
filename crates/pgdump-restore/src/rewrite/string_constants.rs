//! String constants of a dump with `standard_conforming_strings = off`, for a server that no longer has this setting.

use super::Rewriter;
use super::edits::name;
use super::rules::STANDARD_STRINGS;
use pgdump_archive::{Dialect, EntryKind, Statement, TocEntry, Token, TokenKind, tokens};

const SETTING: &str = "standard_conforming_strings";

impl Rewriter {
    /// Whether the server reads every string constant by the standard, whatever the dump's setting is.
    pub(super) fn forces_standard_strings(&self) -> bool {
        self.facts.version >= 190000
    }

    pub(super) fn respell_entries(&self, entries: &mut [TocEntry]) {
        let is_off =
            |e: &&mut TocEntry| e.kind == EntryKind::StdStrings && !e.defn.contains("'on'");
        let Some(setting) = entries.iter_mut().find(is_off) else {
            return;
        };
        if !self.forces_standard_strings() {
            return;
        }
        "SET standard_conforming_strings = 'on';\n".clone_into(&mut setting.defn);
        self.used(STANDARD_STRINGS, "SET standard_conforming_strings");
        self.state().marks_escapes = true;
        for e in entries.iter_mut() {
            let mut has_changed = false;
            for text in [&mut e.defn, &mut e.drop_stmt] {
                if let Some(marked) = with_marked_escapes(text) {
                    *text = marked;
                    has_changed = true;
                }
            }
            if has_changed {
                self.used(STANDARD_STRINGS, e.name());
            }
        }
    }

    /// Spells a statement of SQL text for a server that reads every string constant by the standard.
    pub(crate) fn respell(&self, statement: &mut Statement) {
        if statement.standard_strings || !self.forces_standard_strings() {
            return;
        }
        if let Some(marked) = with_marked_escapes(&statement.text) {
            statement.text = marked;
            statement.standard_strings = true;
            self.used(STANDARD_STRINGS, format!("line {}", statement.line));
        }
    }

    /// The same for INSERT statements. `standard_strings`: what they are written for; `None` for the archive's setting.
    pub(crate) fn respelled_rows(&self, sql: String, standard_strings: Option<bool>) -> String {
        let allows_escapes = standard_strings.map_or(self.state().marks_escapes, |is_on| !is_on);
        if allows_escapes && self.forces_standard_strings() {
            with_marked_escapes(&sql).unwrap_or(sql)
        } else {
            sql
        }
    }
}

/// The text with every constant that has backslashes marked as one with escapes: `E'a\\b'` is for every server what
/// `'a\\b'` was for the source. `None` if there is no such constant. Constants with a dollar quote or a prefix of their
/// own have the same value with either setting, and so has what is in double quotes.
fn with_marked_escapes(sql: &str) -> Option<String> {
    if !sql.contains('\\') {
        return None;
    }
    let dialect = Dialect {
        standard_strings: false,
        ..Dialect::default()
    };
    let (mut marked, mut copied) = (String::with_capacity(sql.len() + 16), 0);
    for constant in tokens(sql, dialect).chunk_by(|a, b| goes_on(a, b, sql)) {
        let prefix = constant.first().and_then(prefix_of);
        let has_escapes = || constant.iter().any(|part| part.text.contains('\\'));
        if let (Some(first), Some(prefix)) = (constant.first(), prefix)
            && has_escapes()
        {
            marked.push_str(&sql[copied..first.at]);
            // `N'…'` is the type's name before a constant.
            marked.push_str(if prefix.is_empty() { "E" } else { "nchar E" });
            copied = first.at + prefix.len();
        }
    }
    if marked.is_empty() {
        return None;
    }
    marked.push_str(&sql[copied..]);
    Some(marked)
}

/// What precedes the quote of a constant in which the setting decides about backslashes; `None` for other tokens.
fn prefix_of<'a>(token: &Token<'a>) -> Option<&'a str> {
    let (prefix, _) = token.text.split_once('\'')?;
    let depends = prefix.is_empty() || prefix.eq_ignore_ascii_case("n");
    (token.kind == TokenKind::StringConstant && depends).then_some(prefix)
}

/// Whether a constant goes on in the next line: all its parts have the form of the first one, which alone has a prefix.
fn goes_on(a: &Token<'_>, b: &Token<'_>, sql: &str) -> bool {
    let are_constants = [a, b].iter().all(|t| t.kind == TokenKind::StringConstant);
    are_constants
        && a.text.ends_with('\'')
        && b.text.starts_with('\'')
        && sql[a.at + a.text.len()..b.at].contains(['\n', '\r'])
}

/// Whether a statement is `SET standard_conforming_strings = off`, or sets it by `set_config`.
pub(super) fn allows_escapes(t: &[Token<'_>]) -> bool {
    let value_at = |at: usize| {
        let value = t.get(at)?;
        Some(
            value
                .string()
                .unwrap_or_else(|| value.text.to_owned())
                .to_lowercase(),
        )
    };
    let is_off =
        |value: &String| !["on", "true", "yes", "1", "default", "t", "y"].contains(&value.as_str());
    if name(t, 0) == "set" {
        let at = 1 + usize::from(matches!(name(t, 1).as_str(), "session" | "local"));
        return name(t, at) == SETTING && value_at(at + 2).is_some_and(|v| is_off(&v));
    }
    let Some(call) = t.iter().position(|w| w.is("set_config")) else {
        return false;
    };
    value_at(call + 2).is_some_and(|setting| setting == SETTING)
        && value_at(call + 4).is_some_and(|v| is_off(&v))
}

#[cfg(test)]
mod tests {
    use super::super::rules::UNKNOWN_SETTING;
    use super::super::tests::rewriter;
    use super::*;

    #[test]
    fn only_constants_whose_value_depends_on_the_setting_are_marked() {
        for (sql, wanted) in [
            (r"SELECT 'a\\b''c';", Some(r"SELECT E'a\\b''c';")),
            (
                r"SELECT '\'', 'x', '\n';",
                Some(r"SELECT E'\'', 'x', E'\n';"),
            ),
            (
                r"SELECT a LIKE '50\\%' ESCAPE '\\';",
                Some(r"SELECT a LIKE E'50\\%' ESCAPE E'\\';"),
            ),
            (r"SELECT n'\t';", Some(r"SELECT nchar E'\t';")),
            (
                "SELECT 'a'\n  'b\\\\', 'c';",
                Some("SELECT E'a'\n  'b\\\\', 'c';"),
            ),
            // The second one is a constant of its own.
            (
                r"SELECT 'a' AS b, 'b\\';",
                Some(r"SELECT 'a' AS b, E'b\\';"),
            ),
            // Nor do these go on: they are in one line, or the first one has a dollar quote.
            (
                r"DO LANGUAGE 'plpgsql' 'BEGIN PERFORM ''\\''; END';",
                Some(r"DO LANGUAGE 'plpgsql' E'BEGIN PERFORM ''\\''; END';"),
            ),
            (
                "DO LANGUAGE $$plpgsql$$\n'BEGIN PERFORM ''\\\\''; END';",
                Some("DO LANGUAGE $$plpgsql$$\nE'BEGIN PERFORM ''\\\\''; END';"),
            ),
            (r"SELECT E'a\\b', e'\'';", None),
            (r"SELECT $$a\b$$, $x$'\'$x$;", None),
            (r#"SELECT U&"d\0061t", U&'\0061', "a\b";"#, None),
            (r"SELECT 1 /* '\' */ -- '\'", None),
            ("SELECT 'plain', '';", None),
            (
                r"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT ''\\\\''';",
                Some(r"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS E'SELECT ''\\\\''';"),
            ),
        ] {
            assert_eq!(with_marked_escapes(sql).as_deref(), wanted, "{sql}");
            if let Some(marked) = wanted {
                assert_eq!(with_marked_escapes(marked), None, "{marked}");
            }
        }
    }

    #[test]
    fn text_is_respelled_for_servers_without_the_setting_only() {
        let text = r"COMMENT ON VIEW v IS 'a\\b';";
        let respelled = |version, standard_strings| {
            let f = rewriter(version, |_| ());
            let mut statement = Statement {
                text: text.into(),
                line: 7,
                standard_strings,
            };
            f.respell(&mut statement);
            let rows = f.respelled_rows(
                r"INSERT INTO t VALUES ('\\');".into(),
                Some(standard_strings),
            );
            (statement.text, rows, f.report().len())
        };
        let unchanged = (
            text.to_owned(),
            r"INSERT INTO t VALUES ('\\');".to_owned(),
            0,
        );
        assert_eq!(respelled(180000, false), unchanged);
        assert_eq!(respelled(190000, true), unchanged);
        let marked = (
            r"COMMENT ON VIEW v IS E'a\\b';".to_owned(),
            r"INSERT INTO t VALUES (E'\\');".to_owned(),
            1,
        );
        assert_eq!(respelled(190000, false), marked);
    }

    #[test]
    fn the_setting_is_left_out_where_it_is_gone() {
        let (old, new) = (rewriter(180000, |_| ()), rewriter(190000, |_| ()));
        for (sql, rule) in [
            ("SET standard_conforming_strings = off;", STANDARD_STRINGS),
            (
                "SET SESSION standard_conforming_strings TO 'no';",
                STANDARD_STRINGS,
            ),
            (
                "SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);",
                STANDARD_STRINGS,
            ),
            ("SET escape_string_warning = off;", UNKNOWN_SETTING),
        ] {
            assert!(old.statement(sql, false).unwrap().is_some(), "{sql}");
            assert_eq!(new.statement(sql, false).unwrap(), None, "{sql}");
            assert!(new.report().iter().any(|r| r.rule == rule), "{sql}");
        }
        for kept in [
            "SET standard_conforming_strings = on;",
            "SELECT pg_catalog.set_config('search_path', '', false);",
        ] {
            assert!(new.statement(kept, false).unwrap().is_some(), "{kept}");
        }
    }

    #[test]
    fn an_archive_is_respelled_with_its_rows() {
        let mut setting = TocEntry::bare(1, EntryKind::StdStrings, "STDSTRINGS");
        setting.defn = "SET standard_conforming_strings = 'off';\n".into();
        let mut view = TocEntry::bare(2, EntryKind::View, "v");
        view.defn = "CREATE VIEW v AS SELECT 'a\\\\b'::text AS t;\n".into();
        let entries = vec![setting, view];
        let rows = || "INSERT INTO t VALUES ('\\\\');".to_owned();
        let (old, new) = (rewriter(180000, |_| ()), rewriter(190000, |_| ()));
        let (mut kept, mut changed) = (entries.clone(), entries.clone());
        old.entries(&mut kept).unwrap();
        assert_eq!(kept[0].defn, entries[0].defn);
        assert_eq!(kept[1].defn, entries[1].defn);
        assert_eq!(old.respelled_rows(rows(), None), rows());
        new.entries(&mut changed).unwrap();
        assert_eq!(changed[0].defn, "SET standard_conforming_strings = 'on';\n");
        assert_eq!(
            changed[1].defn,
            "CREATE VIEW v AS SELECT E'a\\\\b'::text AS t;\n"
        );
        assert_eq!(
            new.respelled_rows(rows(), None),
            "INSERT INTO t VALUES (E'\\\\');"
        );
        let report = new.report();
        assert_eq!(
            (report[0].rule.as_str(), report[0].count),
            (STANDARD_STRINGS, 2)
        );
        // What has the standard's setting is left as it is.
        let standard = rewriter(190000, |_| ());
        let mut on = entries;
        on[0].defn = "SET standard_conforming_strings = 'on';\n".into();
        standard.entries(&mut on).unwrap();
        assert!(standard.report().is_empty() && on[1].defn.contains(" 'a"));
    }
}
