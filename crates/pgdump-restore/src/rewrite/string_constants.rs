//! String constants of a dump with `standard_conforming_strings = off`, for a server that no longer has this setting.

use std::ops::Range;

use super::Rewriter;
use super::edits::name;
use super::rules::STANDARD_STRINGS;
use pgdump_archive::{Dialect, EntryKind, Statement, TocEntry, Token, TokenKind, tokens};

const SETTING: &str = "standard_conforming_strings";
/// It warned of backslashes, and is gone with the other one.
const WARNING: &str = "escape_string_warning";

impl Rewriter {
    /// Whether the server reads every string constant by the standard, whatever the dump's setting is.
    pub(super) fn forces_standard_strings(&self) -> bool {
        self.facts.version >= 190000
    }

    pub(super) fn respell_entries(&self, entries: &mut [TocEntry]) {
        if !self.forces_standard_strings() {
            return;
        }
        let is_off =
            |e: &&mut TocEntry| e.kind == EntryKind::StdStrings && !e.defn.contains("'on'");
        let setting = entries.iter_mut().find(is_off);
        let is_on = setting.is_none();
        if let Some(setting) = setting {
            "SET standard_conforming_strings = 'on';\n".clone_into(&mut setting.defn);
            self.used(STANDARD_STRINGS, "SET standard_conforming_strings");
            self.state().marks_escapes = true;
        }
        for e in entries.iter_mut() {
            let mut has_changed = false;
            for text in [&mut e.defn, &mut e.drop_stmt] {
                if let Some(changed) = respelled(text, is_on) {
                    *text = changed;
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
        if !self.forces_standard_strings() {
            return;
        }
        if let Some(changed) = respelled(&statement.text, statement.standard_strings) {
            statement.text = changed;
            statement.standard_strings = true;
            self.used(STANDARD_STRINGS, format!("line {}", statement.line));
        }
    }

    /// The same for INSERT statements. `standard_strings`: what they are written for; `None` for the archive's setting.
    pub(crate) fn respelled_rows(&self, sql: String, standard_strings: Option<bool>) -> String {
        let allows_escapes = standard_strings.map_or(self.state().marks_escapes, |is_on| !is_on);
        if allows_escapes && self.forces_standard_strings() {
            respelled(&sql, false).unwrap_or(sql)
        } else {
            sql
        }
    }
}

/// What replaces a part of a text.
struct TextEdit {
    at: usize,
    length: usize,
    text: &'static str,
}

/// The text as it means the same to a server that reads every constant by the standard, `None` if it does so anyway:
///
/// - Constants with backslashes are marked as ones with escapes, unless they are read by the standard. `E'a\\b'` is for
///   every server what `'a\\b'` was for the source. Constants with a dollar quote or a prefix of their own have the same
///   value with either setting, and so has what is in double quotes.
/// - So are those in the body of a routine, which is read when it is called, with the setting of the routine or, without
///   one, of the database, which is that of the dump.
/// - A routine has no such setting of its own any more.
fn respelled(sql: &str, standard_strings: bool) -> Option<String> {
    let has_setting = || [SETTING, WARNING].iter().any(|s| sql.contains(s));
    if (standard_strings || !sql.contains('\\')) && !has_setting() {
        return None;
    }
    let dialect = Dialect {
        standard_strings,
        ..Dialect::default()
    };
    let t = tokens(sql, dialect);
    let mut edits = if standard_strings {
        vec![]
    } else {
        marks(sql, &t)
    };
    edits.extend(edits_of_routine(&t, standard_strings));
    edits.sort_by_key(|e| e.at);
    let (mut changed, mut copied) = (String::with_capacity(sql.len() + edits.len()), 0);
    for e in &edits {
        // A constant in what is left out.
        if e.at < copied {
            continue;
        }
        changed.push_str(&sql[copied..e.at]);
        changed.push_str(e.text);
        copied = e.at + e.length;
    }
    changed.push_str(&sql[copied..]);
    (!edits.is_empty()).then_some(changed)
}

/// Marks the constants whose backslashes begin escapes.
fn marks(sql: &str, t: &[Token<'_>]) -> Vec<TextEdit> {
    let mut edits = Vec::new();
    for constant in t.chunk_by(|a, b| goes_on(a, b, sql)) {
        let prefix = constant.first().and_then(prefix_of);
        let has_escapes = || constant.iter().any(|part| part.text.contains('\\'));
        if let (Some(first), Some(prefix)) = (constant.first(), prefix)
            && has_escapes()
        {
            edits.push(TextEdit {
                at: first.at,
                length: prefix.len(),
                // `N'…'` is the type's name before a constant.
                text: if prefix.is_empty() { "E" } else { "nchar E" },
            });
        }
    }
    edits
}

/// What changes in a function, a procedure or a DO block besides its own constants.
fn edits_of_routine(t: &[Token<'_>], standard_strings: bool) -> Vec<TextEdit> {
    let kind = if name(t, 1) == "or" { 3 } else { 1 };
    let is_created =
        name(t, 0) == "create" && matches!(name(t, kind).as_str(), "function" | "procedure");
    if !is_created && name(t, 0) != "do" {
        return vec![];
    }
    let own = is_created.then(|| own_setting(t)).flatten();
    let (clause, has_escapes) = match own {
        Some((clause, is_off)) => (is_off.then_some(clause), is_off),
        None => (None, !standard_strings),
    };
    let warning = is_created.then(|| clause_of(t, WARNING)).flatten();
    let clauses = clause.into_iter().chain(warning.map(|(_, clause)| clause));
    let mut edits: Vec<TextEdit> = Vec::new();
    edits.extend(clauses.map(|c| TextEdit {
        at: c.start,
        length: c.len(),
        text: "",
    }));
    if has_escapes && let Some((at, body)) = body_in_sql(t) {
        let dialect = Dialect {
            standard_strings: false,
            ..Dialect::default()
        };
        let marked = marks(body, &tokens(body, dialect)).into_iter();
        edits.extend(marked.map(|e| TextEdit { at: at + e.at, ..e }));
    }
    edits
}

/// `SET setting TO 'value'` in the definition of a routine: its first token, and where it is.
fn clause_of(t: &[Token<'_>], setting: &str) -> Option<(usize, Range<usize>)> {
    let first = (0..t.len()).find(|i| t[*i].is("set") && name(t, i + 1) == setting)?;
    let value = t.get(first + 3)?;
    Some((first, t[first].at..value.at + value.text.len()))
}

/// Where the definition of a routine sets `standard_conforming_strings`, and whether to `off`.
fn own_setting(t: &[Token<'_>]) -> Option<(Range<usize>, bool)> {
    let (first, clause) = clause_of(t, SETTING)?;
    Some((clause, allows_escapes(&t[first..=first + 3])))
}

/// The body of a routine in a language that reads constants as SQL does, and where it begins. `pg_dump` puts bodies into
/// dollar quotes; one in a constant with escapes is left as it is.
fn body_in_sql<'a>(t: &[Token<'a>]) -> Option<(usize, &'a str)> {
    let is_do = name(t, 0) == "do";
    let is_in_sql = |w: &[Token<'_>]| {
        let language = w[1].name().or_else(|| w[1].string());
        let language = language.map(|l| l.to_lowercase());
        w[0].is("language") && matches!(language.as_deref(), Some("sql" | "plpgsql"))
    };
    let is_default = is_do && !t.iter().any(|w| w.is("language"));
    if !is_default && !t.windows(2).any(is_in_sql) {
        return None;
    }
    let is_body = |w: &&[Token<'_>]| {
        let is_quoted = w[1].kind == TokenKind::StringConstant && w[1].text.starts_with('$');
        (is_do || w[0].is("as")) && is_quoted
    };
    let found = t.windows(2).find(is_body)?;
    let quoted = found[1];
    let tag = quoted.text[1..].find('$')? + 2;
    let body = quoted.text.get(tag..quoted.text.len().checked_sub(tag)?)?;
    Some((quoted.at + tag, body))
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
            assert_eq!(respelled(sql, false).as_deref(), wanted, "{sql}");
            if let Some(marked) = wanted {
                assert_eq!(respelled(marked, false), None, "{marked}");
            }
        }
    }

    /// A body is read when the routine is called: with its own setting or, without one, the dump's.
    #[test]
    fn bodies_are_respelled_for_the_setting_with_which_they_are_called() {
        let create =
            |rest: &str| format!("CREATE OR REPLACE FUNCTION f(text) RETURNS text {rest};");
        let off = "SET standard_conforming_strings TO 'off'";
        let on = "SET standard_conforming_strings TO 'on'";
        for (sql, is_on, wanted) in [
            (
                create(r"LANGUAGE plpgsql AS $_$BEGIN RETURN $1 || '\\d' || E'\\' || '\''; END$_$"),
                false,
                Some(create(
                    r"LANGUAGE plpgsql AS $_$BEGIN RETURN $1 || E'\\d' || E'\\' || E'\''; END$_$",
                )),
            ),
            (create(r"LANGUAGE sql AS $$SELECT '\d'$$"), true, None),
            (
                create(&format!(r"LANGUAGE sql {off} AS $$SELECT '\\d'$$")),
                true,
                Some(create(r"LANGUAGE sql  AS $$SELECT E'\\d'$$")),
            ),
            (
                create(&format!(r"LANGUAGE sql {on} AS $$SELECT '\d'$$")),
                false,
                None,
            ),
            (
                create(r"LANGUAGE sql SET standard_conforming_strings TO 'o\ff' AS $$SELECT 1$$"),
                false,
                Some(create("LANGUAGE sql  AS $$SELECT 1$$")),
            ),
            (
                create("LANGUAGE sql SET escape_string_warning TO 'off' AS $$SELECT 1$$"),
                true,
                Some(create("LANGUAGE sql  AS $$SELECT 1$$")),
            ),
            // Other languages read no constants of SQL.
            (create(r"LANGUAGE plperl AS $$return '\\d'$$"), false, None),
            (
                r"DO $$ BEGIN RAISE NOTICE '\\'; END $$;".to_owned(),
                false,
                Some(r"DO $$ BEGIN RAISE NOTICE E'\\'; END $$;".to_owned()),
            ),
            (
                r"DO LANGUAGE plpython3u $$ x = '\\' $$;".to_owned(),
                false,
                None,
            ),
            (
                "SELECT current_setting('standard_conforming_strings');".to_owned(),
                true,
                None,
            ),
        ] {
            assert_eq!(respelled(&sql, is_on), wanted, "{sql}");
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
