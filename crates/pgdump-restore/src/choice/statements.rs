//! Which statements of SQL text `--skip` and `--only-kinds` leave out. The text has no dependencies: a statement goes with
//! what it belongs to, and with what it names.

use std::collections::{HashMap, HashSet};

use super::pattern::{is_exact, is_kind, means};
use super::subject::{
    ObjectName, RELATION, ROUTINE, SCHEMA, Subject, TYPE, named_in, rows_of, subject_of,
};
use crate::error::{RestoreError, ValidationError, ValidationKind};
use crate::policy::Selection;
use pgdump_archive::{Dialect, EntryKind, TocEntry, Token, first_tokens};

/// Tokens of a statement in which names of what is left out are searched.
const LOOKED_AT: usize = 1 << 17;

/// A pattern, and whether anything in the text had it.
struct Pattern {
    text: String,
    has_matched: bool,
}

/// Follows SQL text, statement by statement, and decides about each of them.
pub(crate) struct StatementChoice {
    skip: Vec<Pattern>,
    only_kinds: Vec<Pattern>,
    /// Whether a table that only names what was left out is kept, so that the server refuses it.
    keeps_tables: bool,
    /// The first schema of the search path.
    schema: Option<String>,
    /// What was created: `ALTER TABLE` is about views and sequences, too.
    kinds: HashMap<ObjectName, &'static str>,
    /// What was left out.
    gone: HashSet<ObjectName>,
    /// The schemas and names of those that statements name.
    gone_names: HashSet<(String, String)>,
}

fn patterns(texts: &[String]) -> Vec<Pattern> {
    let pattern = |text: &String| Pattern {
        text: text.clone(),
        has_matched: false,
    };
    texts.iter().map(pattern).collect()
}

/// Whether one of the patterns fits; all that do are marked.
fn any(patterns: &mut [Pattern], fits: impl Fn(&str) -> bool) -> bool {
    let mut is_any = false;
    for pattern in patterns.iter_mut().filter(|p| fits(&p.text)) {
        pattern.has_matched = true;
        is_any = true;
    }
    is_any
}

impl StatementChoice {
    /// `None` if the selection leaves out nothing by kind or name.
    pub(crate) fn of(selection: &Selection) -> Option<Self> {
        let is_any = !selection.skip.is_empty() || !selection.only_kinds.is_empty();
        is_any.then(|| StatementChoice {
            skip: patterns(&selection.skip),
            only_kinds: patterns(&selection.only_kinds),
            keeps_tables: false,
            schema: None,
            kinds: HashMap::new(),
            gone: HashSet::new(),
            gone_names: HashSet::new(),
        })
    }

    /// Leaves out what these patterns mean; but a table, and so its rows, only if it is meant itself, or its schema is.
    pub(crate) fn keeping_tables(skip: &[String]) -> Self {
        StatementChoice {
            skip: patterns(skip),
            only_kinds: vec![],
            keeps_tables: true,
            schema: None,
            kinds: HashMap::new(),
            gone: HashSet::new(),
            gone_names: HashSet::new(),
        }
    }

    /// Leaves out from now on what belongs to what this statement would have created.
    pub(crate) fn leave_out_created(&mut self, sql: &str) {
        let subject = subject_of(sql, self.schema.as_deref());
        if let Some(object) = subject.filter(|s| s.creates).and_then(|s| s.object) {
            self.leave_out(&object);
        }
    }

    /// The name of what this statement is about if it is left out; `None` if it is to run.
    pub(crate) fn left_out(&mut self, sql: &str) -> Option<String> {
        let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
        if is_of_session(&t) {
            self.follow(&t);
            return None;
        }
        let Some(mut subject) = subject_of(sql, self.schema.as_deref()) else {
            let is_out = !self.only_kinds.is_empty() || self.names_what_is_gone(&t);
            return is_out.then(|| first_words(&t));
        };
        self.find_key(&mut subject);
        if let Some(object) = &subject.object {
            if subject.creates {
                self.kinds.insert(object.clone(), subject.kind);
            } else if let Some(kind) = self.kinds.get(object) {
                subject.kind = *kind;
            }
        }
        let is_kept = self.keeps_tables && subject.kind == "TABLE";
        let names_gone = !is_kept && self.names_what_is_gone(&t);
        self.decide(&subject, names_gone).then(|| subject.name())
    }

    /// `CLUSTER ON i` is about the key whose index `i` is, if there is one.
    fn find_key(&self, subject: &mut Subject) {
        if subject.kind != "INDEX" {
            return;
        }
        let is_key = |o: &&ObjectName| o.class == "CONSTRAINT" && self.kinds.contains_key(*o);
        let key = subject.belongs_to.iter().find(is_key).cloned();
        if let Some(key) = key {
            subject.kind = "CONSTRAINT";
            subject.tag.clone_from(&key.name);
            subject.object = Some(key);
        }
    }

    /// The same for rows, and for the data of large objects.
    pub(crate) fn left_out_rows(&mut self, entry: &TocEntry) -> Option<String> {
        if entry.kind == EntryKind::TableData {
            let rows = rows_of(&entry.tag, self.schema.as_deref())?;
            return self.decide(&rows, false).then(|| rows.name());
        }
        let objects = Subject {
            kind: "BLOBS",
            schema: None,
            tag: "BLOBS".to_owned(),
            object: None,
            belongs_to: vec![],
            creates: false,
        };
        let has_none = self.has_no_large_object();
        self.decide(&objects, has_none).then(|| objects.name())
    }

    /// Whether all large objects of the text were left out.
    fn has_no_large_object(&self) -> bool {
        let all = self.kinds.iter().filter(|(_, kind)| **kind == "BLOB");
        let mut all = all.map(|(object, _)| object).peekable();
        all.peek().is_some() && all.all(|object| self.gone.contains(object))
    }

    /// `is_dependent`: it is of no use without something that was left out.
    fn decide(&mut self, subject: &Subject, is_dependent: bool) -> bool {
        let name = (subject.schema.as_deref(), subject.tag.as_str());
        let is_skipped = any(&mut self.skip, |p| means(p, subject.kind, name));
        let is_wanted =
            self.only_kinds.is_empty() || any(&mut self.only_kinds, |p| is_kind(p, subject.kind));
        let goes = is_skipped || is_dependent || self.belongs_to_what_is_gone(subject);
        if goes && let Some(object) = &subject.object {
            self.leave_out(object);
        }
        goes || !is_wanted
    }

    fn leave_out(&mut self, object: &ObjectName) {
        if let Some((_, key)) = object
            .name
            .split_once(' ')
            .filter(|_| object.class == "CONSTRAINT")
        {
            // A key has an index of its name.
            self.leave_out(&ObjectName {
                class: RELATION,
                schema: object.schema.clone(),
                name: key.to_owned(),
            });
        }
        let has_own_name = [RELATION, ROUTINE, TYPE].contains(&object.class);
        if let Some(schema) = object.schema.as_ref().filter(|_| has_own_name) {
            self.gone_names
                .insert((schema.clone(), object.name.clone()));
        }
        self.gone.insert(object.clone());
    }

    fn belongs_to_what_is_gone(&self, subject: &Subject) -> bool {
        let schema = subject.schema.as_ref().map(|name| ObjectName {
            class: SCHEMA,
            schema: None,
            name: name.clone(),
        });
        let mut all = subject
            .object
            .iter()
            .chain(&subject.belongs_to)
            .chain(&schema);
        all.any(|object| self.gone.contains(object))
    }

    /// `s.t` or `'s.t'::regclass` anywhere in a statement. The text of a function's body is not searched, as a table of
    /// contents has no dependency for it either.
    fn names_what_is_gone(&self, t: &[Token<'_>]) -> bool {
        if self.gone_names.is_empty() {
            return false;
        }
        (0..t.len()).any(|at| {
            let before = at.checked_sub(1).map(|at| &t[at]);
            let is_first = before.is_none_or(|w| !w.is_symbol(b'.'));
            is_first && self.is_gone_name(before, &t[at..])
        })
    }

    fn is_gone_name(&self, before: Option<&Token<'_>>, t: &[Token<'_>]) -> bool {
        let (classes, named) = match t {
            [schema, dot, name, rest @ ..] if dot.is_symbol(b'.') => {
                let classes = classes_at(before, rest.first());
                (classes, schema.name().zip(name.name()))
            }
            [text, first, second, cast, ..]
                if first.is_symbol(b':') && second.is_symbol(b':') && cast.is("regclass") =>
            {
                let text = text.string();
                let relation = text.and_then(|text| named_in(&text, self.schema.as_deref()));
                let named = relation.and_then(|r| Some((r.schema?, r.name)));
                (&[RELATION][..], named)
            }
            _ => return false,
        };
        let Some(named) = named.filter(|named| self.gone_names.contains(named)) else {
            return false;
        };
        let (schema, name) = named;
        classes.iter().any(|&class| {
            self.gone.contains(&ObjectName {
                class,
                schema: Some(schema.clone()),
                name: name.clone(),
            })
        })
    }

    /// Follows the search path, for names without a schema.
    fn follow(&mut self, t: &[Token<'_>]) {
        let is_path = |w: &Token<'_>| {
            w.is("search_path") || w.string().is_some_and(|text| text == "search_path")
        };
        if let Some(at) = t.iter().position(is_path) {
            // `=`, `TO` or a comma
            let value = t.get(at + 2).and_then(|w| w.name().or_else(|| w.string()));
            self.schema = value.filter(|schema| !schema.is_empty());
        }
    }

    /// Notes about patterns that nothing in the text has, once all of it was read.
    pub(crate) fn unused(&self) -> Vec<String> {
        let unused = |option: &str, patterns: &[Pattern]| -> Vec<String> {
            let unused = patterns.iter().filter(|p| !p.has_matched);
            let note = |p: &Pattern| {
                let text = &p.text;
                format!("{option} '{text}': no statement of the SQL text is about this")
            };
            unused.map(note).collect()
        };
        let skip = unused("--skip", &self.skip);
        [skip, unused("--only-kinds", &self.only_kinds)].concat()
    }

    /// Refuses names that nothing in the text has, once all of it was read.
    ///
    /// # Errors
    /// `invalid_request`.
    pub(crate) fn check(&self) -> Result<(), RestoreError> {
        let unused = |patterns: &[Pattern]| {
            let mut unused = patterns
                .iter()
                .filter(|p| !p.has_matched && is_exact(&p.text));
            unused.next().map(|p| p.text.clone())
        };
        let what = match (unused(&self.skip), unused(&self.only_kinds)) {
            (Some(pattern), _) => format!(
                "--skip '{pattern}': no statement of the SQL text is about this kind and name (names of functions are without their arguments there)"
            ),
            (None, Some(kind)) => {
                format!("--only-kinds {kind}: no statement of the SQL text is about this kind")
            }
            (None, None) => return Ok(()),
        };
        Err(ValidationError::new(ValidationKind::InvalidRequest, what).into())
    }
}

/// What a name may mean between these tokens. A function may have the name of a table: `s.f(` is a function, except
/// where only a table has something in parentheses.
fn classes_at(before: Option<&Token<'_>>, next: Option<&Token<'_>>) -> &'static [&'static str] {
    const OF_ROUTINES: [&str; 8] = [
        "function",
        "procedure",
        "aggregate",
        "routine",
        "handler",
        "inline",
        "validator",
        "support",
    ];
    const OF_TABLES: [&str; 8] = [
        "exists",
        "into",
        "of",
        "on",
        "only",
        "references",
        "table",
        "view",
    ];
    let follows = |words: &[&str]| before.is_some_and(|w| words.iter().any(|word| w.is(word)));
    // `SFUNC = s.f, STYPE = s.t`
    let is_assigned = before.is_some_and(|w| w.is_symbol(b'='));
    let has_arguments = next.is_some_and(|w| w.is_symbol(b'(')) && !follows(&OF_TABLES);
    if follows(&OF_ROUTINES) {
        &[ROUTINE]
    } else if is_assigned || has_arguments {
        &[ROUTINE, TYPE]
    } else {
        &[RELATION, TYPE]
    }
}

/// Settings and transactions, which create nothing; and the statements of `--clean`, which a rule leaves out.
fn is_of_session(t: &[Token<'_>]) -> bool {
    const WORDS: [&str; 13] = [
        "set",
        "reset",
        "discard",
        "begin",
        "start",
        "commit",
        "end",
        "savepoint",
        "release",
        "rollback",
        "abort",
        "show",
        "drop",
    ];
    let Some(first) = t.first() else { return true };
    let sets = first.is("select") && t.iter().take(4).any(|w| w.is("set_config"));
    sets || WORDS.iter().any(|word| first.is(word))
}

/// For a report: key words alone, because the rest may be data.
fn first_words(t: &[Token<'_>]) -> String {
    let words = t.iter().take(2).filter_map(Token::name);
    words.collect::<Vec<_>>().join(" ").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason;

    fn choice(skip: &[&str], only_kinds: &[&str]) -> StatementChoice {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let selection = Selection {
            skip: owned(skip),
            only_kinds: owned(only_kinds),
            ..Selection::default()
        };
        StatementChoice::of(&selection).unwrap()
    }

    /// The kind and name of each statement, as an archive of the same database lists it.
    #[test]
    fn statements_have_the_kinds_and_names_of_a_table_of_contents() {
        for (sql, wanted) in [
            ("CREATE SCHEMA shop;", "SCHEMA shop"),
            ("ALTER SCHEMA shop OWNER TO me;", "SCHEMA shop"),
            (
                "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;",
                "EXTENSION hstore",
            ),
            (
                "COMMENT ON EXTENSION hstore IS 'x';",
                "COMMENT EXTENSION hstore",
            ),
            ("CREATE TYPE shop.mood AS ENUM ('ok');", "TYPE shop.mood"),
            ("CREATE TYPE shop.shell;", "SHELL TYPE shop.shell"),
            ("CREATE DOMAIN shop.d AS text;", "DOMAIN shop.d"),
            (
                "CREATE FUNCTION shop.f(a integer) RETURNS integer LANGUAGE sql AS $$SELECT 1$$;",
                "FUNCTION shop.f",
            ),
            (
                "CREATE PROCEDURE shop.p() LANGUAGE sql AS $$SELECT 1$$;",
                "PROCEDURE shop.p",
            ),
            (
                "ALTER FUNCTION shop.f(a integer) OWNER TO me;",
                "FUNCTION shop.f",
            ),
            (
                "CREATE AGGREGATE shop.agg(integer) (SFUNC = f, STYPE = integer);",
                "AGGREGATE shop.agg",
            ),
            (
                "CREATE OPERATOR shop.=== (FUNCTION = shop.f);",
                "OPERATOR shop.===",
            ),
            (
                "CREATE CAST (text AS shop.mood) WITH INOUT;",
                "CAST CAST (text AS shop.mood)",
            ),
            (
                "CREATE UNLOGGED TABLE shop.\"Odd name\" (a integer);",
                "TABLE shop.Odd name",
            ),
            ("ALTER TABLE shop.t OWNER TO me;", "TABLE shop.t"),
            (
                "CREATE FOREIGN TABLE shop.ft (a integer) SERVER s;",
                "FOREIGN TABLE shop.ft",
            ),
            ("CREATE VIEW shop.v AS SELECT 1;", "VIEW shop.v"),
            (
                "CREATE MATERIALIZED VIEW shop.mv AS SELECT 1 WITH NO DATA;",
                "MATERIALIZED VIEW shop.mv",
            ),
            (
                "REFRESH MATERIALIZED VIEW shop.mv;",
                "MATERIALIZED VIEW DATA shop.mv",
            ),
            ("CREATE SEQUENCE shop.s START WITH 1;", "SEQUENCE shop.s"),
            (
                "ALTER SEQUENCE shop.s OWNED BY shop.t.id;",
                "SEQUENCE OWNED BY shop.s",
            ),
            (
                "ALTER TABLE shop.t ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (\n SEQUENCE NAME shop.t_id_seq\n START WITH 1);",
                "SEQUENCE shop.t_id_seq",
            ),
            (
                "SELECT pg_catalog.setval('shop.s', 3, true);",
                "SEQUENCE SET shop.s",
            ),
            (
                "ALTER TABLE ONLY shop.t ALTER COLUMN id SET DEFAULT nextval('shop.s'::regclass);",
                "DEFAULT shop.t id",
            ),
            (
                "ALTER TABLE ONLY shop.p ATTACH PARTITION shop.c FOR VALUES IN (1);",
                "TABLE ATTACH shop.c",
            ),
            (
                "ALTER TABLE ONLY shop.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (id);",
                "CONSTRAINT shop.t t_pkey",
            ),
            (
                "ALTER TABLE ONLY shop.t ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES shop.u(id);",
                "FK CONSTRAINT shop.t fk",
            ),
            (
                "ALTER TABLE shop.t ADD CONSTRAINT c CHECK (a > 0) NOT VALID;",
                "CHECK CONSTRAINT shop.t c",
            ),
            (
                "CREATE UNIQUE INDEX i ON ONLY shop.t USING btree (a);",
                "INDEX shop.i",
            ),
            (
                "ALTER INDEX shop.i ATTACH PARTITION shop.j;",
                "INDEX ATTACH shop.j",
            ),
            ("ALTER TABLE shop.t CLUSTER ON i;", "INDEX shop.i"),
            (
                "CREATE STATISTICS shop.st ON a, b FROM shop.t;",
                "STATISTICS shop.st",
            ),
            (
                "CREATE TRIGGER tr AFTER INSERT OR UPDATE OF a ON shop.t FOR EACH ROW EXECUTE FUNCTION shop.f();",
                "TRIGGER shop.t tr",
            ),
            (
                "ALTER TABLE shop.t DISABLE TRIGGER tr;",
                "TRIGGER shop.t tr",
            ),
            (
                "CREATE RULE r AS ON INSERT TO shop.v DO INSTEAD NOTHING;",
                "RULE shop.v r",
            ),
            (
                "CREATE POLICY mine ON shop.t FOR SELECT USING (true);",
                "POLICY shop.t mine",
            ),
            (
                "ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY;",
                "ROW SECURITY shop.t",
            ),
            (
                "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION shop.f();",
                "EVENT TRIGGER watch",
            ),
            (
                "ALTER EVENT TRIGGER watch OWNER TO me;",
                "EVENT TRIGGER watch",
            ),
            (
                "CREATE PUBLICATION pub WITH (publish = 'insert');",
                "PUBLICATION pub",
            ),
            (
                "ALTER PUBLICATION pub ADD TABLE ONLY shop.t;",
                "PUBLICATION TABLE shop.pub t",
            ),
            (
                "ALTER PUBLICATION pub ADD TABLES IN SCHEMA shop;",
                "PUBLICATION TABLES IN SCHEMA pub shop",
            ),
            (
                "CREATE SUBSCRIPTION sub CONNECTION 'x' PUBLICATION pub WITH (connect = false);",
                "SUBSCRIPTION sub",
            ),
            ("CREATE SERVER s FOREIGN DATA WRAPPER w;", "SERVER s"),
            (
                "CREATE USER MAPPING FOR me SERVER s OPTIONS (a 'b');",
                "USER MAPPING USER MAPPING me SERVER s",
            ),
            (
                "COMMENT ON COLUMN shop.t.a IS 'x';",
                "COMMENT shop.COLUMN t.a",
            ),
            ("COMMENT ON TABLE shop.t IS 'x';", "COMMENT shop.TABLE t"),
            (
                "COMMENT ON TRIGGER tr ON shop.t IS 'x';",
                "COMMENT shop.TRIGGER tr ON t",
            ),
            (
                "SECURITY LABEL FOR x ON TABLE shop.t IS 'y';",
                "SECURITY LABEL shop.TABLE t",
            ),
            (
                "GRANT SELECT(a),INSERT ON TABLE shop.t TO me;",
                "ACL shop.TABLE t",
            ),
            ("REVOKE ALL ON SCHEMA shop FROM PUBLIC;", "ACL SCHEMA shop"),
            (
                "GRANT ALL ON FUNCTION shop.f(a integer) TO me;",
                "ACL shop.FUNCTION f",
            ),
            (
                "ALTER DEFAULT PRIVILEGES FOR ROLE me IN SCHEMA shop GRANT SELECT ON TABLES TO you;",
                "DEFAULT ACL shop.DEFAULT PRIVILEGES FOR TABLES",
            ),
            ("SELECT pg_catalog.lo_create('42');", "BLOB 42"),
            ("ALTER LARGE OBJECT 42 OWNER TO me;", "BLOB 42"),
            (
                "SELECT * FROM pg_catalog.pg_restore_relation_stats('version', '180000'::integer, 'schemaname', 'shop', 'relname', 't');",
                "STATISTICS DATA shop.t",
            ),
        ] {
            let subject = subject_of(sql, None).unwrap_or_else(|| panic!("{sql}"));
            assert_eq!(subject.name(), wanted, "{sql}");
        }
        for none in [
            "SELECT 1;",
            "DO $$ BEGIN END $$;",
            "GRANT role_a TO role_b;",
            "CREATE DATABASE shop;",
            "UPDATE t SET a = 1;",
            "CREATE",
            "ALTER TABLE",
            "COMMENT ON",
            "GRANT SELECT ON",
        ] {
            assert_eq!(subject_of(none, None), None, "{none}");
        }
    }

    /// What is left out of a text, with its rows.
    fn left_out(c: &mut StatementChoice, text: &[&str]) -> Vec<String> {
        let mut gone = vec![];
        for sql in text {
            gone.extend(match sql.strip_prefix("rows of ") {
                Some(table) => c.left_out_rows(&TocEntry::bare(1, "TABLE DATA", table)),
                None => c.left_out(sql),
            });
        }
        gone
    }

    const TEXT: [&str; 22] = [
        "SET search_path = '';",
        "SELECT pg_catalog.set_config('search_path', '', false);",
        "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$;",
        "CREATE TABLE public.log (id integer, what text);",
        "ALTER TABLE public.log OWNER TO me;",
        "CREATE TABLE public.t (id integer);",
        "CREATE SEQUENCE public.log_id_seq;",
        "ALTER SEQUENCE public.log_id_seq OWNED BY public.log.id;",
        "CREATE VIEW public.recent AS SELECT log.id FROM public.log;",
        "ALTER TABLE public.recent OWNER TO me;",
        "ALTER TABLE ONLY public.log ALTER COLUMN id SET DEFAULT nextval('public.log_id_seq'::regclass);",
        "rows of public.log",
        "rows of public.t",
        "SELECT pg_catalog.setval('public.log_id_seq', 3, true);",
        "ALTER TABLE ONLY public.log ADD CONSTRAINT log_pkey PRIMARY KEY (id);",
        "ALTER TABLE ONLY public.t ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES public.log(id);",
        "CREATE INDEX t_id ON public.t USING btree (id);",
        "CREATE TRIGGER tr AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();",
        "COMMENT ON INDEX public.log_pkey IS 'x';",
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.f();",
        "ALTER EVENT TRIGGER watch OWNER TO me;",
        "GRANT SELECT ON TABLE public.recent TO me;",
    ];

    #[test]
    fn what_is_skipped_takes_along_what_names_it() {
        let mut c = choice(&["TABLE public.log"], &[]);
        let gone = left_out(&mut c, &TEXT);
        let wanted = [
            "TABLE public.log",
            "TABLE public.log",
            "SEQUENCE OWNED BY public.log_id_seq",
            "VIEW public.recent",
            "VIEW public.recent",
            "DEFAULT public.log id",
            "TABLE DATA public.log",
            "CONSTRAINT public.log log_pkey",
            "FK CONSTRAINT public.t fk",
            "COMMENT public.INDEX log_pkey",
            "ACL public.TABLE recent",
        ];
        assert_eq!(gone, wanted);
        assert!(c.check().is_ok());
    }

    #[test]
    fn an_event_trigger_goes_alone_and_a_function_with_its_triggers() {
        let gone = left_out(&mut choice(&["EVENT TRIGGER *"], &[]), &TEXT);
        assert_eq!(gone, ["EVENT TRIGGER watch", "EVENT TRIGGER watch"]);
        let gone = left_out(&mut choice(&["FUNCTION public.f"], &[]), &TEXT);
        let wanted = [
            "FUNCTION public.f",
            "TRIGGER public.t tr",
            "EVENT TRIGGER watch",
            "EVENT TRIGGER watch",
        ];
        assert_eq!(gone, wanted);
        let gone = left_out(&mut choice(&["SEQUENCE public.*"], &[]), &TEXT);
        let wanted = [
            "SEQUENCE public.log_id_seq",
            "SEQUENCE OWNED BY public.log_id_seq",
            "DEFAULT public.log id",
            "SEQUENCE SET public.log_id_seq",
        ];
        assert_eq!(gone, wanted);
        let gone = left_out(&mut choice(&["TABLE DATA *"], &[]), &TEXT);
        assert_eq!(gone, ["TABLE DATA public.log", "TABLE DATA public.t"]);
        let text = [
            "CREATE SCHEMA a;",
            "CREATE TABLE a.t (i integer);",
            "rows of a.t",
            "CREATE TABLE b.t (i integer);",
        ];
        let gone = left_out(&mut choice(&["SCHEMA a"], &[]), &text);
        assert_eq!(gone, ["SCHEMA a", "TABLE a.t", "TABLE DATA a.t"]);
    }

    #[test]
    fn a_function_may_have_the_name_of_a_table() {
        let text = [
            "CREATE FUNCTION s.audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN END $$;",
            "CREATE TABLE s.audit (a integer);",
            "rows of s.audit",
            "CREATE TABLE s.t (a integer DEFAULT s.audit(1));",
            "CREATE VIEW s.v AS SELECT a FROM s.audit;",
            "CREATE VIEW s.w AS SELECT a FROM s.audit() f(a);",
            "ALTER TABLE ONLY s.u ADD CONSTRAINT fk FOREIGN KEY (a) REFERENCES s.audit(a);",
            "CREATE AGGREGATE s.agg(integer) (SFUNC = s.audit, STYPE = integer);",
            "CREATE TRIGGER tr AFTER INSERT ON s.audit FOR EACH ROW EXECUTE FUNCTION s.audit();",
            "GRANT ALL ON FUNCTION s.audit() TO me;",
        ];
        let gone = left_out(&mut choice(&["FUNCTION s.audit"], &[]), &text);
        let wanted = [
            "FUNCTION s.audit",
            "TABLE s.t",
            "VIEW s.w",
            "AGGREGATE s.agg",
            "TRIGGER s.audit tr",
            "ACL s.FUNCTION audit",
        ];
        assert_eq!(gone, wanted);
        let gone = left_out(&mut choice(&["TABLE s.audit"], &[]), &text);
        let wanted = [
            "TABLE s.audit",
            "TABLE DATA s.audit",
            "VIEW s.v",
            "FK CONSTRAINT s.u fk",
            "TRIGGER s.audit tr",
        ];
        assert_eq!(gone, wanted);
    }

    #[test]
    fn what_belongs_to_keys_rules_and_servers_goes_with_them() {
        let text = [
            "CREATE SERVER srv FOREIGN DATA WRAPPER w;",
            "CREATE USER MAPPING FOR me SERVER srv OPTIONS (a 'b');",
            "CREATE FOREIGN TABLE s.ft (a integer) SERVER srv OPTIONS (server 'x');",
            "ALTER TABLE ONLY s.t ADD CONSTRAINT t_pkey PRIMARY KEY (a);",
            "CREATE INDEX i ON s.t USING btree (a);",
            "ALTER TABLE s.t CLUSTER ON t_pkey;",
            "ALTER TABLE ONLY s.t REPLICA IDENTITY USING INDEX i;",
            "CREATE RULE r AS ON INSERT TO s.t DO INSTEAD NOTHING;",
            "ALTER TABLE s.t DISABLE RULE r;",
            "ALTER TABLE s.t ENABLE ROW LEVEL SECURITY;",
            "ALTER TABLE ONLY s.t FORCE ROW LEVEL SECURITY;",
            "CREATE TRANSFORM FOR s.x LANGUAGE sql (FROM SQL WITH FUNCTION f(internal));",
            "COMMENT ON TRANSFORM FOR s.x LANGUAGE sql IS 'x';",
        ];
        for (skip, wanted) in [
            (
                "SERVER *",
                &[
                    "SERVER srv",
                    "USER MAPPING USER MAPPING me SERVER srv",
                    "FOREIGN TABLE s.ft",
                ][..],
            ),
            ("FOREIGN DATA WRAPPER *", &[][..]),
            ("INDEX *", &["INDEX s.i", "INDEX s.i"]),
            (
                "CONSTRAINT *",
                &["CONSTRAINT s.t t_pkey", "CONSTRAINT s.t t_pkey"],
            ),
            ("RULE *", &["RULE s.t r", "RULE s.t r"]),
            ("ROW SECURITY *", &["ROW SECURITY s.t"]),
            (
                "TRANSFORM *",
                &[
                    "TRANSFORM TRANSFORM FOR s.x LANGUAGE sql",
                    "COMMENT TRANSFORM FOR s.x LANGUAGE sql",
                ],
            ),
        ] {
            let gone = left_out(&mut choice(&[skip], &[]), &text);
            assert_eq!(gone, wanted, "{skip}");
        }
    }

    #[test]
    fn a_table_that_names_what_is_gone_may_be_kept() {
        let text = [
            "CREATE SCHEMA a;",
            "CREATE FUNCTION a.f() RETURNS integer LANGUAGE sql AS 'SELECT 1';",
            "CREATE TABLE b.t (i integer DEFAULT a.f());",
            "rows of b.t",
            "CREATE VIEW b.v AS SELECT a.f();",
        ];
        let mut c = StatementChoice::keeping_tables(&["SCHEMA a".to_owned()]);
        let gone = left_out(&mut c, &text);
        assert_eq!(gone, ["SCHEMA a", "FUNCTION a.f", "VIEW b.v"]);
        c.leave_out_created("CREATE POLICY p ON b.t TO x USING (true);");
        c.leave_out_created("ALTER TABLE b.t OWNER TO x;");
        assert!(c.left_out("COMMENT ON POLICY p ON b.t IS 'x';").is_some());
        assert_eq!(c.left_out("COMMENT ON TABLE b.t IS 'x';"), None);
    }

    /// Old versions of `pg_dump` wrote names without their schema.
    #[test]
    fn names_without_a_schema_have_that_of_the_search_path() {
        let text = [
            "SET search_path = shop, pg_catalog;",
            "CREATE TABLE t (a integer);",
            "rows of t",
            "CREATE INDEX i ON t USING btree (a);",
            "SET search_path = other, pg_catalog;",
            "CREATE TABLE t (a integer);",
        ];
        let gone = left_out(&mut choice(&["TABLE shop.*"], &[]), &text);
        assert_eq!(gone, ["TABLE shop.t", "TABLE DATA shop.t", "INDEX shop.i"]);
    }

    #[test]
    fn only_some_kinds_are_kept() {
        let mut c = choice(
            &["TABLE DATA public.log"],
            &["TABLE", "table data", "SEQUENCE*"],
        );
        let gone = left_out(&mut c, &TEXT);
        assert!(gone.contains(&"VIEW public.recent".to_owned()), "{gone:?}");
        assert!(
            gone.contains(&"TABLE DATA public.log".to_owned()),
            "{gone:?}"
        );
        assert_eq!(gone.len(), TEXT.len() - 9, "{gone:?}");
        assert_eq!(c.left_out("DO $$ BEGIN END $$;").as_deref(), Some("DO"));
        assert_eq!(c.left_out("RESET ALL;"), None);
        assert!(c.check().is_ok());
    }

    #[test]
    fn a_name_that_nothing_has_is_refused_at_the_end() {
        for (skip, kinds, said) in [
            (
                &["TABLE public.none"][..],
                &[][..],
                "--skip 'TABLE public.none'",
            ),
            (&["TABLE no*"], &["DOMAIN"], "--only-kinds DOMAIN"),
        ] {
            let mut c = choice(skip, kinds);
            left_out(&mut c, &TEXT);
            let e = c.check().unwrap_err();
            assert!(e.to_string().contains(said), "{e}");
            assert_eq!(e.reason(), FailureReason::InvalidRequest);
        }
        let mut c = choice(&["TABLE no*", "VIEW *"], &["DOM*", "TABLE"]);
        left_out(&mut c, &TEXT);
        assert!(c.check().is_ok());
        assert_eq!(
            c.unused(),
            [
                "--skip 'TABLE no*': no statement of the SQL text is about this",
                "--only-kinds 'DOM*': no statement of the SQL text is about this"
            ]
        );
    }
}
