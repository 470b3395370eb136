//! What a statement of SQL text defines, in the words of a table of contents. Pure.

use super::classify::table_named;
use crate::choice::part_or_creation;
use crate::refusals::Named;
use pgdump_archive::{Dialect, Token, first_tokens, tokens};

/// Tokens examined of a statement.
const LOOKED_AT: usize = 64;

/// What a statement defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defined {
    /// Kind and name, such as `EVENT TRIGGER on_ddl`.
    pub entry: String,
    /// What does not exist if the statement fails.
    pub named: Option<Named>,
    /// The table that it creates, in the form of [`table_named`].
    pub table: Option<String>,
}

impl Defined {
    fn called(entry: String) -> Self {
        Defined {
            entry,
            named: None,
            table: None,
        }
    }
}

/// The sequence that a statement sets. Its value is data: it may only be left out with the sequence.
pub(crate) fn sequence_set_by(sql: &str) -> Option<Defined> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let call: Option<String> = t.get(..5)?.iter().map(Token::short).collect();
    let is_set = call? == "selectpg_catalog.setval(";
    let name = tokens(&t.get(5)?.string()?, Dialect::default())
        .iter()
        .map(|part| part.name().or_else(|| part.short()))
        .collect::<Option<String>>()?;
    is_set.then(|| Defined::called(format!("SEQUENCE SET {name}")))
}

/// Whether statements would do something else without a setting, so that they are left out if the server refuses that.
/// Another role must not do it instead: it would own the object, or have granted the privilege. A table does without its
/// access method.
pub(crate) fn is_needed(setting: &str) -> bool {
    matches!(setting, "session_authorization" | "role")
}

/// Whether the rest of a text can be restored without a setting that the server refuses.
pub(crate) fn can_be_left_out(setting: &str) -> bool {
    matches!(
        setting,
        "session_authorization" | "role" | TABLE_ACCESS_METHOD
    )
}

/// What a refused setting names that the server lacks. It calls that a wrong value, and messages about values are dropped.
pub(crate) fn lacking(setting: &str, sql: &str) -> Option<String> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let mut words = t.iter().rev();
    let value = words.find_map(|t| t.string().or_else(|| t.name()))?;
    let kind = match setting {
        "session_authorization" | "role" => "role",
        TABLE_ACCESS_METHOD => "access method",
        _ => return None,
    };
    Some(format!("{kind} \"{value}\" does not exist"))
}

const TABLE_ACCESS_METHOD: &str = "default_table_access_method";

/// Words before the kind of what is created.
const BEFORE_KIND: [&str; 12] = [
    "or",
    "replace",
    "global",
    "local",
    "temporary",
    "temp",
    "unlogged",
    "unique",
    "constraint",
    "recursive",
    "trusted",
    "procedural",
];

/// Words between the kind and the name.
const BEFORE_NAME: [&str; 5] = ["concurrently", "if", "not", "exists", "only"];

/// Kinds of more than one word.
const KINDS: [&[&str]; 13] = [
    &["event", "trigger"],
    &["materialized", "view"],
    &["foreign", "table"],
    &["foreign", "data", "wrapper"],
    &["access", "method"],
    &["operator", "class"],
    &["operator", "family"],
    &["text", "search", "configuration"],
    &["text", "search", "dictionary"],
    &["text", "search", "parser"],
    &["text", "search", "template"],
    &["default", "conversion"],
    &["large", "object"],
];

/// Whether a statement defines something and needs no rows for it.
pub(crate) fn defines(sql: &str) -> bool {
    const WORDS: [&str; 8] = [
        "create", "alter", "grant", "revoke", "comment", "security", "drop", "import",
    ];
    let t = first_tokens(sql, Dialect::default(), 1);
    t.first()
        .is_some_and(|first| WORDS.iter().any(|word| first.is(word)))
}

/// Whether a statement only gives an object to its owner: `ALTER TABLE s.t OWNER TO me`.
pub(crate) fn sets_owner(sql: &str) -> bool {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let is_altered = t.first().is_some_and(|t| t.is("alter"));
    is_altered && t.windows(2).any(|w| w[0].is("owner") && w[1].is("to"))
}

/// Whether a statement creates a large object, as `pg_dump` writes it.
pub(crate) fn creates_large_object(sql: &str) -> bool {
    alone(sql).starts_with("SELECT pg_catalog.lo_create(")
}

/// What a statement defines; `None` if it may do anything else, such as bring rows.
pub(crate) fn defined_by(sql: &str) -> Option<Defined> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let first = t.first()?.name()?;
    match first.as_str() {
        "create" => Some(created(&t[1..], sql)),
        "alter" => Some(altered(&t[1..], sql)),
        "grant" | "revoke" | "comment" | "security" | "refresh" | "drop" | "import" => {
            Some(Defined::called(first_words(sql)))
        }
        _ => None,
    }
}

fn created(t: &[Token<'_>], sql: &str) -> Defined {
    if let Some(mapping) = user_mapping(t) {
        return Defined::called(mapping);
    }
    let entry = part_or_creation(sql);
    let Some(object) = DefinedObject::find(after(t, &BEFORE_KIND)) else {
        return Defined::called(entry.unwrap_or_else(|| first_words(sql)));
    };
    let is_table = matches!(object.kind.as_str(), "TABLE" | "FOREIGN TABLE");
    let mut named = object.named(&object.kind);
    if object.kind == "EXTENSION" {
        named.schema = schema_of_extension(t);
    }
    Defined {
        entry: entry.unwrap_or_else(|| format!("{} {}", object.kind, object.name)),
        named: Some(named),
        table: is_table.then(|| table_named(object.text(sql))).flatten(),
    }
}

/// `EXTENSION postgis WITH SCHEMA gis`
fn schema_of_extension(t: &[Token<'_>]) -> Option<String> {
    let place = t.iter().rposition(|w| w.is("schema"))?;
    t.get(place + 1)?.name()
}

/// `USER MAPPING FOR role SERVER server`
fn user_mapping(t: &[Token<'_>]) -> Option<String> {
    let [user, mapping, _, role, _, server, ..] = t else {
        return None;
    };
    let is_mapping = user.is("user") && mapping.is("mapping");
    let (role, server) = (role.name()?, server.name()?);
    is_mapping.then(|| format!("USER MAPPING {role} SERVER {server}"))
}

fn altered(t: &[Token<'_>], sql: &str) -> Defined {
    let is_default = t.first().is_some_and(|t| t.is("default"));
    let Some(object) = DefinedObject::find(t).filter(|_| !is_default) else {
        return Defined::called(part_or_creation(sql).unwrap_or_else(|| first_words(sql)));
    };
    let has = |words: [&str; 2]| {
        t.windows(2)
            .position(|w| w[0].is(words[0]) && w[1].is(words[1]))
    };
    let of = format!("{} {}", object.kind, object.name);
    let constraint = || {
        let name = t.get(has(["add", "constraint"])? + 2)?.name()?;
        let kind = match has(["foreign", "key"]) {
            Some(_) => "FK CONSTRAINT",
            None => "CONSTRAINT",
        };
        Some((format!("{kind} {} {name}", object.name), name))
    };
    match (has(["owner", "to"]), constraint()) {
        (Some(_), _) => Defined::called(format!("OWNER OF {of}")),
        (None, Some((entry, name))) => Defined {
            named: Some(Named {
                kind: "CONSTRAINT".to_owned(),
                schema: None,
                name,
            }),
            ..Defined::called(entry)
        },
        (None, None) => Defined {
            // That of an identity column, which is created with it.
            named: has(["sequence", "name"])
                .and_then(|place| DefinedObject::find(&t[place + 1..]))
                .map(|sequence| sequence.named("SEQUENCE")),
            ..Defined::called(part_or_creation(sql).unwrap_or_else(|| format!("ALTER {of}")))
        },
    }
}

fn after<'a, 'b>(t: &'a [Token<'b>], words: &[&str]) -> &'a [Token<'b>] {
    let is_one = |t: &&Token<'_>| words.iter().any(|w| t.is(w));
    &t[t.iter().take_while(is_one).count()..]
}

/// The object that a statement names.
struct DefinedObject {
    kind: String,
    /// With its schema.
    name: String,
    last: String,
    /// Where the name is in the statement.
    place: (usize, usize),
}

impl DefinedObject {
    /// `TABLE ONLY s.t …`
    fn find(t: &[Token<'_>]) -> Option<DefinedObject> {
        let is_kind = |words: &&&[&str]| {
            let has = |(i, word): (usize, &&str)| t.get(i).is_some_and(|t| t.is(word));
            words.iter().enumerate().all(has)
        };
        let words = KINDS.iter().find(is_kind).map_or(1, |words| words.len());
        let kind: Vec<String> = t.get(..words)?.iter().filter_map(Token::short).collect();
        let names = after(&t[words..], &BEFORE_NAME);
        let first = names.first()?;
        let parts = 1 + names[1..]
            .chunks_exact(2)
            .take_while(|pair| pair[0].is_symbol(b'.') && pair[1].name().is_some())
            .count();
        let named: Vec<String> = names
            .iter()
            .step_by(2)
            .take(parts)
            .filter_map(Token::name)
            .collect();
        let last = &names[2 * (parts - 1)];
        Some(DefinedObject {
            kind: kind.join(" ").to_uppercase(),
            name: named.join("."),
            last: named.last()?.clone(),
            place: (first.at, last.at + last.text.len()),
        })
    }

    fn named(&self, kind: &str) -> Named {
        let schema = self.name.strip_suffix(self.last.as_str());
        let schema = schema.and_then(|s| s.strip_suffix('.'));
        Named {
            kind: kind.to_owned(),
            schema: schema.map(str::to_owned),
            name: self.last.clone(),
        }
    }

    fn text<'a>(&self, sql: &'a str) -> &'a str {
        let (from, to) = self.place;
        sql.get(from..to).unwrap_or_default()
    }
}

/// A statement without the comments before it and its semicolon.
pub(crate) fn alone(sql: &str) -> &str {
    let mut rest = sql.trim();
    while rest.starts_with("--") {
        rest = rest
            .split_once('\n')
            .map_or("", |(_, rest)| rest.trim_start());
    }
    rest.trim_end_matches(';')
}

/// The first words of a statement, without any value.
pub(crate) fn first_words(sql: &str) -> String {
    let line = sql.lines().next().unwrap_or_default();
    line.split('\'')
        .next()
        .unwrap_or_default()
        .chars()
        .take(80)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_have_the_names_of_entries() {
        for (sql, entry, name) in [
            (
                "CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION public.f();",
                "EVENT TRIGGER e",
                Some("e"),
            ),
            (
                "CREATE UNLOGGED TABLE \"S\".\"T t\" (\n    a integer\n);",
                "TABLE S.T t",
                Some("T t"),
            ),
            (
                "CREATE EXTENSION IF NOT EXISTS postgis WITH SCHEMA public;",
                "EXTENSION postgis",
                Some("postgis"),
            ),
            (
                "CREATE OR REPLACE PROCEDURAL LANGUAGE plpython3u;",
                "PROCEDURAL LANGUAGE plpython3u",
                Some("plpython3u"),
            ),
            (
                "CREATE UNIQUE INDEX i ON public.t USING btree (a);",
                "INDEX public.i",
                Some("i"),
            ),
            (
                "CREATE POLICY \"P p\" ON public.t FOR SELECT TO app USING (true);",
                "POLICY public.t P p",
                Some("P p"),
            ),
            (
                "CREATE TRIGGER x AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();",
                "TRIGGER public.t x",
                Some("x"),
            ),
            (
                "CREATE RULE r AS ON INSERT TO public.t DO INSTEAD NOTHING;",
                "RULE public.t r",
                Some("r"),
            ),
            (
                "ALTER TABLE public.t OWNER TO app;",
                "OWNER OF TABLE public.t",
                None,
            ),
            (
                "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_fk FOREIGN KEY (a) REFERENCES public.u(a);",
                "FK CONSTRAINT public.t t_fk",
                Some("t_fk"),
            ),
            (
                "ALTER TABLE public.t ENABLE ROW LEVEL SECURITY;",
                "ROW SECURITY public.t",
                None,
            ),
            (
                "ALTER TABLE public.t REPLICA IDENTITY FULL;",
                "ALTER TABLE public.t",
                None,
            ),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE app IN SCHEMA s GRANT SELECT ON TABLES TO app;",
                "DEFAULT ACL s.DEFAULT PRIVILEGES FOR TABLES",
                None,
            ),
            (
                "GRANT SELECT ON TABLE public.t TO app;",
                "GRANT SELECT ON TABLE public.t TO app;",
                None,
            ),
            (
                "CREATE USER MAPPING FOR app SERVER s OPTIONS (\n    \"user\" 'x'\n);",
                "USER MAPPING app SERVER s",
                None,
            ),
        ] {
            let defined = defined_by(sql).unwrap();
            let named = defined.named.as_ref().map(|n| n.name.as_str());
            assert_eq!((defined.entry.as_str(), named), (entry, name));
        }
    }

    #[test]
    fn the_sequence_of_an_identity_column_is_named() {
        let column = "ALTER TABLE public.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n    SEQUENCE NAME public.\"T_id_seq\"\n    START WITH 1\n);";
        let defined = defined_by(column).unwrap();
        assert_eq!(defined.entry, "SEQUENCE public.T_id_seq");
        let wanted = Named {
            kind: "SEQUENCE".to_owned(),
            schema: Some("public".to_owned()),
            name: "T_id_seq".to_owned(),
        };
        assert_eq!(defined.named, Some(wanted));
        let set = "SELECT pg_catalog.setval('public.\"T_id_seq\"', 7, true);";
        assert_eq!(
            sequence_set_by(set).unwrap().entry,
            "SEQUENCE SET public.T_id_seq"
        );
        assert_eq!(sequence_set_by("SELECT public.setval('s', 7);"), None);
    }

    #[test]
    fn settings_that_statements_need_are_known() {
        assert!(is_needed("session_authorization") && is_needed("role"));
        assert!(!is_needed(TABLE_ACCESS_METHOD) && !is_needed("search_path"));
        assert_eq!(
            lacking("session_authorization", "SET SESSION AUTHORIZATION 'app';").as_deref(),
            Some("role \"app\" does not exist")
        );
        assert_eq!(
            lacking(TABLE_ACCESS_METHOD, "SET default_table_access_method = h;").as_deref(),
            Some("access method \"h\" does not exist")
        );
        assert_eq!(lacking("search_path", "SET search_path = s;"), None);
        assert_eq!(alone("--\n-- Name: t\n--\n\nSET x = 1;\n"), "SET x = 1");
        assert_eq!(alone("-- x"), "");
    }

    #[test]
    fn definitions_that_need_no_rows_are_known() {
        let (owner, refresh) = (
            "ALTER TABLE public.t OWNER TO app;",
            "REFRESH MATERIALIZED VIEW public.v;",
        );
        for (sql, wanted) in [
            ("--\n-- Name: i\n--\n\nCREATE INDEX i ON t (a);", true),
            ("GRANT SELECT ON TABLE t TO app;", true),
            (owner, true),
            (refresh, false),
            ("SELECT pg_catalog.setval('public.s', 7, true);", false),
            ("DO $$ BEGIN END $$;", false),
        ] {
            assert_eq!(defines(sql), wanted, "{sql}");
        }
        assert!(sets_owner(owner) && !sets_owner("CREATE INDEX i ON t (a);"));
        assert!(creates_large_object("\nSELECT pg_catalog.lo_create('42');"));
        assert!(!creates_large_object(
            "SELECT pg_catalog.lo_open('42', 131072);"
        ));
    }

    #[test]
    fn what_may_bring_rows_defines_nothing() {
        for sql in [
            "INSERT INTO t VALUES (1);",
            "SELECT pg_catalog.setval('public.s', 7, true);",
            "DO $$ BEGIN END $$;",
            "",
        ] {
            assert_eq!(defined_by(sql), None, "{sql}");
        }
    }

    #[test]
    fn a_table_is_named_as_its_rows_name_it() {
        let defined = defined_by("CREATE TABLE public.\"T\" (a int);").unwrap();
        assert_eq!(defined.table, table_named("public.\"T\""));
        assert!(defined.table.is_some());
        assert_eq!(
            defined_by("CREATE VIEW v AS SELECT 1;").unwrap().table,
            None
        );
    }
}
