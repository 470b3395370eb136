//! What single statements of SQL text mean for masking: which schemas names without one are in, and which rows it brings.

use pgdump_archive::{Dialect, Token, first_tokens, tokens};

use super::row_mask::Name;

/// Tokens examined to find out what a statement does.
const LOOKED_AT: usize = 64;

/// Statements that bring no rows.
const UNDERSTOOD: [&str; 25] = [
    "alter",
    "analyze",
    "begin",
    "cluster",
    "comment",
    "commit",
    "create",
    "discard",
    "drop",
    "end",
    "grant",
    "import",
    "lock",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "set",
    "start",
    "truncate",
    "vacuum",
];

/// Key words of other statements, for messages. Any other first word may be one of a row, in text whose COPY line is lost: it is
/// not repeated.
const OTHERS: [&str; 24] = [
    "abort",
    "call",
    "checkpoint",
    "close",
    "copy",
    "deallocate",
    "declare",
    "delete",
    "do",
    "execute",
    "explain",
    "fetch",
    "insert",
    "listen",
    "load",
    "merge",
    "notify",
    "prepare",
    "reassign",
    "select",
    "table",
    "update",
    "values",
    "with",
];

/// Functions of `pg_catalog` that `pg_dump` calls, and that bring no rows.
const UNDERSTOOD_CALLS: [&str; 7] = [
    "lo_close",
    "lo_create",
    "lo_open",
    "lo_unlink",
    "set_config",
    "setval",
    "pg_extension_config_dump",
];

/// The schemas that a statement puts into the search path; those of the server's default, if there is none. `pg_catalog` has
/// no tables of the text. `None`: it is not certain which ones.
pub(super) fn path_of(setting: &str) -> Option<Vec<String>> {
    let t = tokens(setting, Dialect::default());
    let is_reset = t.first().is_none_or(|w| w.is("reset"));
    if is_reset || t.iter().rev().take(2).any(|w| w.is("default")) {
        return Some(vec![USER.to_owned(), "public".to_owned()]);
    }
    let named: Vec<String> = if t[0].is("select") {
        // SELECT pg_catalog.set_config('search_path', 'shop, public', false);
        let list = plain_string(t.get(7)?)?;
        each_at_commas(&tokens(&list, Dialect::default()), Token::name)?
    } else {
        each_at_commas(values_of_path(&t)?, |w| {
            w.name().or_else(|| plain_string(w))
        })?
    };
    let schemas = named.into_iter();
    let schemas = schemas.filter(|s| !s.is_empty() && s != "pg_catalog");
    Some(schemas.collect())
}

/// `SET SESSION search_path TO shop, public;` → `shop, public`; `SET SCHEMA 'shop';` → `'shop'`
fn values_of_path<'a, 'b>(t: &'b [Token<'a>]) -> Option<&'b [Token<'a>]> {
    let t = t.split_first().filter(|(w, _)| w.is("set"))?.1;
    let session = t.split_first().filter(|(w, _)| w.is("session"));
    let t = session.map_or(t, |(_, rest)| rest);
    let end = t.split_last().filter(|(w, _)| w.is_symbol(b';'));
    let t = end.map_or(t, |(_, rest)| rest);
    match t {
        [path, to, values @ ..] if is_path(path) && (to.is_symbol(b'=') || to.is("to")) => {
            Some(values)
        }
        [schema, values @ ..] if schema.is("schema") => Some(values),
        _ => None,
    }
}

/// What `read` makes of each token of a list, whose items have one each.
fn each_at_commas<'a>(
    t: &[Token<'a>],
    read: impl Fn(&Token<'a>) -> Option<String>,
) -> Option<Vec<String>> {
    if t.is_empty() {
        return Some(vec![]);
    }
    let items = t.split(|w| w.is_symbol(b','));
    let one = |item: &[Token<'a>]| match item {
        [only] => read(only),
        _ => None,
    };
    items.map(one).collect()
}

/// A string that means what is written, whatever `standard_conforming_strings` is.
fn plain_string(w: &Token<'_>) -> Option<String> {
    let is_plain = w.text.starts_with('\'') && !w.text.contains('\\');
    w.string().filter(|_| is_plain)
}

/// The names of settings are the same in any case, also in quotes.
fn is_path(w: &Token<'_>) -> bool {
    let name = w.name();
    name.is_some_and(|name| name.eq_ignore_ascii_case(SEARCH_PATH))
}

const SEARCH_PATH: &str = "search_path";

/// The schema of the session's role, in a search path.
pub(super) const USER: &str = "$user";

/// A statement that changes the search path for less, or for more, than the rest of the text, or may do so.
pub(super) fn sets_path_elsewhere(sql: &str) -> Option<&'static str> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let first = t.first()?;
    if first.is("set") && t.get(1)?.is("local") {
        let is_local = |w: &Token<'_>| is_path(w) || w.is("schema");
        return t
            .get(2)
            .is_some_and(is_local)
            .then_some("SET LOCAL search_path");
    }
    let is_call = first.is("select") && t.iter().any(|w| w.is("set_config"));
    (is_call && !is_plain_call(&t)).then_some("set_config('search_path', …)")
}

/// `SELECT pg_catalog.set_config('search_path', 'shop', false)`, or the same of another setting.
fn is_plain_call(t: &[Token<'_>]) -> bool {
    let string = |at: usize| t.get(at).and_then(plain_string);
    let is_comma = |at: usize| t.get(at).is_some_and(|w| w.is_symbol(b','));
    let Some(name) = string(5).filter(|_| is_comma(6)) else {
        return false;
    };
    let is_for_session = || t.get(9).is_some_and(|w| w.is("false"));
    let ends = || t.get(10).is_some_and(|w| w.is_symbol(b')'));
    !name.eq_ignore_ascii_case(SEARCH_PATH)
        || (string(7).is_some() && is_comma(8) && is_for_session() && ends())
}

/// `ALTER DATABASE d SET search_path TO s`, `ALTER ROLE r SET search_path TO s`: sessions may begin with another one.
pub(super) fn changes_default_path(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let kinds = ["database", "role", "user", "system"];
    let is_of = |w: &Token<'_>| kinds.iter().any(|kind| w.is(kind));
    let is_alter = t.first().is_some_and(|w| w.is("alter")) && t.get(1).is_some_and(is_of);
    is_alter && t.iter().any(is_path)
}

/// The key word of a statement that may bring rows, or what else is said of it.
pub(super) fn not_understood(sql: &str) -> Option<String> {
    let t = tokens(sql, Dialect::default());
    let first = t.first()?;
    let word = || {
        let known = OTHERS.iter().find(|word| first.is(word));
        known.map_or_else(
            || "a statement of an unknown kind".to_owned(),
            |word| word.to_uppercase(),
        )
    };
    let is_understood = if first.is("select") {
        let is_of_catalog = t.get(1).is_some_and(|w| w.is("pg_catalog"))
            && t.get(2).is_some_and(|w| w.is_symbol(b'.'));
        let is_call = |f: &Token<'_>| UNDERSTOOD_CALLS.iter().any(|call| f.is(call));
        let is_other = |w: &Token<'_>| w.is("into") || w.is("select");
        let arguments = t.get(4..).unwrap_or_default();
        is_of_catalog
            && t.get(3).is_some_and(is_call)
            && !arguments.iter().any(is_other)
            && !calls_function(arguments)
    } else if first.is("create") {
        return creates_otherwise(&t).map(str::to_owned);
    } else if first.is("alter") {
        return moves(&t).then(|| "ALTER, which gives something another name".to_owned());
    } else if first.is("update") {
        // Old pg_dump disables triggers so.
        t.get(1).is_some_and(|w| w.is("pg_catalog"))
    } else {
        first.is_symbol(b';') || UNDERSTOOD.iter().any(|word| first.is(word))
    };
    (!is_understood).then(word)
}

/// `CREATE TABLE t AS SELECT …`
fn creates_from_query(t: &[Token<'_>]) -> bool {
    let adjectives = ["create", "global", "local", "temporary", "temp", "unlogged"];
    let mut rest = t
        .iter()
        .skip_while(|w| adjectives.iter().any(|word| w.is(word)));
    if !rest.next().is_some_and(|w| w.is("table")) {
        return false;
    }
    let mut depth = 0_usize;
    rest.any(|w| {
        depth += usize::from(w.is_symbol(b'('));
        depth = depth.saturating_sub(usize::from(w.is_symbol(b')')));
        depth == 0 && w.is("as")
    })
}

/// Whether a name is followed by a parenthesis.
fn calls_function(t: &[Token<'_>]) -> bool {
    t.windows(2)
        .any(|w| w[0].name().is_some() && w[1].is_symbol(b'('))
}

/// What creates tables in a way that is not followed.
fn creates_otherwise(t: &[Token<'_>]) -> Option<&'static str> {
    let has_elements = || {
        let is_schema = t.get(1).is_some_and(|w| w.is("schema"));
        is_schema && t.iter().skip(2).any(|w| w.is("create"))
    };
    if creates_from_query(t) {
        Some("CREATE TABLE AS")
    } else if has_elements() {
        Some("CREATE SCHEMA with what is in it")
    } else {
        None
    }
}

/// `ALTER TABLE t RENAME TO u`, `ALTER TABLE t SET SCHEMA s`: rules would be about another table than the rows. The server
/// takes the name of a table after `ALTER INDEX` and others, too.
fn moves(t: &[Token<'_>]) -> bool {
    let has = |a: &str, b: &str| t.windows(2).any(|w| w[0].is(a) && w[1].is(b));
    has("rename", "to") || has("set", "schema")
}

/// `SELECT * FROM pg_catalog.pg_restore_attribute_stats(…)`
pub(super) fn brings_statistics(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let head: Option<String> = t.iter().take(5).map(Token::short).collect();
    let is_call = |w: &Token<'_>| {
        w.short()
            .is_some_and(|name| name.starts_with("pg_restore_") && name.ends_with("_stats"))
    };
    head.as_deref() == Some("select*frompg_catalog.") && t.get(5).is_some_and(is_call)
}

pub(super) fn relation_of_statistics(sql: &str) -> Option<Name> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let strings: Vec<String> = t.iter().filter_map(Token::string).collect();
    let after = |key: &str| {
        let at = strings.iter().position(|text| text == key)?;
        strings.get(at + 1).cloned()
    };
    Some((after("schemaname")?, after("relname")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_key_words_are_repeated() {
        let said = |sql: &str| not_understood(sql).unwrap();
        assert_eq!(said("insert INTO t SELECT 1;"), "INSERT");
        assert_eq!(said("WITH x AS (SELECT 1) SELECT 1;"), "WITH");
        for sql in [
            "secret@example.org\t1\n\\.\n;",
            "'secret'\t1;",
            "\"secret\";",
            "(secret);",
        ] {
            assert_eq!(said(sql), "a statement of an unknown kind", "{sql}");
        }
    }

    #[test]
    fn statements_that_may_bring_rows_are_not_understood() {
        for sql in [
            "INSERT INTO t SELECT 1;",
            "UPDATE t SET a = 1;",
            "DELETE FROM t WHERE a = 'x';",
            "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x;",
            "SELECT f('x');",
            "SELECT 1 INTO t;",
            "SELECT pg_catalog.query_to_xml('x');",
            "SELECT pg_catalog.setval('s.q', f('x'));",
            "SELECT pg_catalog.setval('s.q', 1), public.f();",
            "SELECT pg_catalog.lo_create(1) FROM s.\"F\" ('x');",
            "SELECT pg_catalog.setval('s.q', (SELECT a FROM v));",
            "DO $$ BEGIN END $$;",
            "CALL p('x');",
            "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE;",
            "COPY t FROM PROGRAM 'x';",
            "EXECUTE x;",
            "PREPARE x AS SELECT 1;",
            "VALUES (1);",
            "TABLE t;",
            "SELECT pg_catalog.setval('q', 1) AS a, 'x' AS b INTO t;",
            "SELECT 'x', pg_catalog.pg_restore_relation_stats('relname', 't');",
            "CREATE TABLE t AS SELECT 1;",
            "CREATE UNLOGGED TABLE s.t (a, b) AS VALUES (1, 2);",
            "ALTER TABLE a RENAME TO b;",
            "ALTER TABLE IF EXISTS a SET SCHEMA b;",
            "ALTER SCHEMA a RENAME TO b;",
            "ALTER INDEX t RENAME TO u;",
            "ALTER SEQUENCE IF EXISTS t RENAME TO u;",
            "ALTER VIEW t SET SCHEMA b;",
            "CREATE SCHEMA a CREATE VIEW v AS SELECT * FROM t;",
        ] {
            assert!(not_understood(sql).is_some(), "{sql}");
        }
        for sql in [
            "SET client_encoding = 'UTF8';",
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "SELECT pg_catalog.setval('s.q', 3, true);",
            "SELECT pg_catalog.lo_create('1');",
            "SELECT pg_catalog.lo_unlink(oid) FROM pg_catalog.pg_largeobject_metadata WHERE oid = '1';",
            "CREATE TABLE s.t (a text DEFAULT (1)::text, b text GENERATED ALWAYS AS (lower(a)) STORED);",
            "CREATE VIEW v AS SELECT 1;",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT p PRIMARY KEY (a);",
            "ALTER TABLE s.t RENAME COLUMN a TO b;",
            "COMMENT ON TABLE t IS 'x';",
            "REFRESH MATERIALIZED VIEW v;",
            "UPDATE pg_catalog.pg_class SET reltriggers = 0;",
        ] {
            assert_eq!(not_understood(sql), None, "{sql}");
        }
        let columns: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
        let late = format!("CREATE TABLE t ({}) AS VALUES ('x');", columns.join(", "));
        assert!(not_understood(&late).is_some());
    }

    #[test]
    fn the_search_path_is_read_as_it_was_set() {
        for (setting, wanted) in [
            ("", &["$user", "public"][..]),
            ("RESET search_path;", &["$user", "public"]),
            ("SET search_path TO DEFAULT;", &["$user", "public"]),
            ("SET SCHEMA 'crm';", &["crm"]),
            ("SET SESSION SCHEMA 'crm';", &["crm"]),
            ("SET SESSION search_path TO crm;", &["crm"]),
            (
                "SET \"Search_Path\" TO schema, session;",
                &["schema", "session"],
            ),
            ("SET search_path = shop, pg_catalog;", &["shop"]),
            (
                "SET search_path TO '$user', \"My s\", public;",
                &["$user", "My s", "public"],
            ),
            (
                "SELECT pg_catalog.set_config('search_path', 'a, \"B\"', false);",
                &["a", "B"],
            ),
            (
                "SELECT pg_catalog.set_config('search_path', '', false);",
                &[],
            ),
        ] {
            let wanted = wanted.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(path_of(setting), Some(wanted), "{setting}");
        }
        for setting in [
            "SET search_path TO U&\"crm\", shop;",
            "SET search_path = E'c\\162m';",
            "SELECT pg_catalog.set_config('search_path', 'c\\162m', false);",
            "SELECT pg_catalog.set_config('search_path', '$user, shop', false);",
        ] {
            assert_eq!(path_of(setting), None, "{setting}");
        }
    }

    #[test]
    fn every_spelling_of_the_search_path_is_recognized() {
        for sql in [
            "SELECT pg_catalog.set_config('SEARCH_PATH', 'crm', true);",
            "SELECT pg_catalog.set_config(U&'search_path', 'crm', false);",
            "SELECT pg_catalog.set_config(E'search\\137path', 'crm', false);",
            "SELECT pg_catalog.set_config('search' || '_path', 'crm', false);",
            "SELECT pg_catalog.set_config('search_path', 'crm'::text, false);",
            "SET LOCAL \"SEARCH_PATH\" = crm;",
        ] {
            assert!(sets_path_elsewhere(sql).is_some(), "{sql}");
        }
        for sql in [
            "SELECT pg_catalog.set_config('Search_Path', 'crm', false);",
            "SELECT pg_catalog.set_config('role', 'app', true);",
            "SET LOCAL role = app;",
        ] {
            assert_eq!(sets_path_elsewhere(sql), None, "{sql}");
        }
        for (sql, expected) in [
            ("ALTER ROLE ALL SET \"Search_Path\" TO crm;", true),
            ("ALTER SYSTEM SET search_path = crm;", true),
            ("ALTER ROLE app SET work_mem = 4;", false),
        ] {
            assert_eq!(changes_default_path(sql), expected, "{sql}");
        }
    }

    #[test]
    fn statistics_are_recognized_with_their_table() {
        let sql = "SELECT * FROM pg_catalog.pg_restore_attribute_stats(\n\t'version', '180000'::integer,\n\t\
             'schemaname', 'shop',\n\t'relname', 'customer',\n\t'attname', 'email',\n\t\
             'most_common_vals', '{a@b.c}'::text\n);";
        assert!(brings_statistics(sql));
        let wanted = ("shop".to_owned(), "customer".to_owned());
        assert_eq!(relation_of_statistics(sql), Some(wanted));
        assert!(!brings_statistics(
            "SELECT pg_catalog.setval('pg_restore_x_stats', 1);"
        ));
    }
}
