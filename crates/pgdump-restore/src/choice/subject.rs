//! What a statement of SQL text is about, in the words of a table of contents: `ALTER TABLE ONLY s.t ADD CONSTRAINT c
//! PRIMARY KEY (a)` is about `CONSTRAINT s.t c`, which belongs to the table `s.t`.

use pgdump_archive::{Dialect, Token, TokenKind, first_tokens, tokens};

/// Most tokens examined to find what a statement is about.
const LOOKED_AT: usize = 1 << 14;

/// An object, as statements about it name it. Tables, views, sequences and indexes share their names, and so do routines,
/// and types.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ObjectName {
    pub class: &'static str,
    pub schema: Option<String>,
    pub name: String,
}

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// As in a table of contents.
    pub kind: &'static str,
    pub schema: Option<String>,
    /// The name without the schema; for some kinds the table before it, as in a table of contents. Functions have no
    /// arguments.
    pub tag: String,
    /// The object itself, unless the statement is only about something of it.
    pub object: Option<ObjectName>,
    /// Objects that it is of no use without.
    pub belongs_to: Vec<ObjectName>,
    /// Whether it creates the object.
    pub creates: bool,
}

impl Subject {
    /// `TABLE public.t`, for display.
    pub(super) fn name(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{} {schema}.{}", self.kind, self.tag),
            None => format!("{} {}", self.kind, self.tag),
        }
    }
}

/// A kind of object: its key words, its name in a table of contents, the class of its names, whether they have a schema.
struct ObjectKind {
    words: &'static [&'static str],
    kind: &'static str,
    class: &'static str,
    has_schema: bool,
}

pub(super) const RELATION: &str = "relation";
pub(super) const ROUTINE: &str = "routine";
pub(super) const TYPE: &str = "type";
pub(super) const SCHEMA: &str = "SCHEMA";

macro_rules! kinds {
    ($($words:expr => $kind:literal, $class:expr, $has_schema:literal;)*) => {
        /// Kinds with more words come first.
        const KINDS: &[ObjectKind] = &[$(ObjectKind {
            words: &$words, kind: $kind, class: $class, has_schema: $has_schema,
        }),*];
    };
}

kinds! {
    ["text", "search", "configuration"] => "TEXT SEARCH CONFIGURATION", "TEXT SEARCH CONFIGURATION", true;
    ["text", "search", "dictionary"] => "TEXT SEARCH DICTIONARY", "TEXT SEARCH DICTIONARY", true;
    ["text", "search", "parser"] => "TEXT SEARCH PARSER", "TEXT SEARCH PARSER", true;
    ["text", "search", "template"] => "TEXT SEARCH TEMPLATE", "TEXT SEARCH TEMPLATE", true;
    ["foreign", "data", "wrapper"] => "FOREIGN DATA WRAPPER", "FOREIGN DATA WRAPPER", false;
    ["event", "trigger"] => "EVENT TRIGGER", "EVENT TRIGGER", false;
    ["constraint", "trigger"] => "TRIGGER", "TRIGGER", true;
    ["materialized", "view"] => "MATERIALIZED VIEW", RELATION, true;
    ["foreign", "table"] => "FOREIGN TABLE", RELATION, true;
    ["foreign", "server"] => "SERVER", "SERVER", false;
    ["access", "method"] => "ACCESS METHOD", "ACCESS METHOD", false;
    ["operator", "class"] => "OPERATOR CLASS", "OPERATOR CLASS", true;
    ["operator", "family"] => "OPERATOR FAMILY", "OPERATOR FAMILY", true;
    ["procedural", "language"] => "PROCEDURAL LANGUAGE", "LANGUAGE", false;
    ["large", "object"] => "BLOB", "BLOB", false;
    ["user", "mapping"] => "USER MAPPING", "USER MAPPING", false;
    ["table"] => "TABLE", RELATION, true;
    ["view"] => "VIEW", RELATION, true;
    ["sequence"] => "SEQUENCE", RELATION, true;
    ["index"] => "INDEX", RELATION, true;
    ["function"] => "FUNCTION", ROUTINE, true;
    ["procedure"] => "PROCEDURE", ROUTINE, true;
    ["aggregate"] => "AGGREGATE", ROUTINE, true;
    ["type"] => "TYPE", TYPE, true;
    ["domain"] => "DOMAIN", TYPE, true;
    ["schema"] => "SCHEMA", SCHEMA, false;
    ["extension"] => "EXTENSION", "EXTENSION", false;
    ["publication"] => "PUBLICATION", "PUBLICATION", false;
    ["subscription"] => "SUBSCRIPTION", "SUBSCRIPTION", false;
    ["server"] => "SERVER", "SERVER", false;
    ["language"] => "PROCEDURAL LANGUAGE", "LANGUAGE", false;
    ["collation"] => "COLLATION", "COLLATION", true;
    ["conversion"] => "CONVERSION", "CONVERSION", true;
    ["statistics"] => "STATISTICS", "STATISTICS", true;
    ["operator"] => "OPERATOR", "OPERATOR", true;
    ["cast"] => "CAST", "CAST", false;
    ["transform"] => "TRANSFORM", "TRANSFORM", false;
    ["trigger"] => "TRIGGER", "TRIGGER", true;
    ["rule"] => "RULE", "RULE", true;
    ["policy"] => "POLICY", "POLICY", true;
    ["constraint"] => "CONSTRAINT", "CONSTRAINT", true;
    ["column"] => "COLUMN", RELATION, true;
}

type Tokens<'a, 'b> = &'b [Token<'a>];

/// What a statement is about; `None` if that is nothing that a table of contents has. `schema`: that of names without one.
pub(super) fn subject_of(sql: &str, schema: Option<&str>) -> Option<Subject> {
    let t = first_tokens(sql, Dialect::default(), LOOKED_AT);
    let of = SubjectParser { sql, schema };
    match t.first()?.name()?.as_str() {
        "create" => of.created(&t[1..]),
        "alter" => of.altered(&t[1..]),
        "comment" => of.about(&t, "COMMENT"),
        "security" => of.about(&t, "SECURITY LABEL"),
        "grant" | "revoke" => of.privileges(&t),
        "refresh" => of.refreshed(&t),
        "select" => of.called(&t),
        _ => None,
    }
}

/// The kind and name, as in a table of contents, of what exists only because of a statement: of what it creates, or of a
/// part of something else, such as `ROW SECURITY s.t`.
pub(crate) fn part_or_creation(sql: &str) -> Option<String> {
    let subject = subject_of(sql, None)?;
    let is_one = subject.creates || subject.object.is_none();
    is_one.then(|| subject.name())
}

/// The subject of the rows of the table with this name in SQL.
pub(super) fn rows_of(table: &str, schema: Option<&str>) -> Option<Subject> {
    let of = SubjectParser { sql: table, schema };
    let t = tokens(table, Dialect::default());
    let (object, _) = of.object(&t, RELATION)?;
    Some(of.part("TABLE DATA", object.name.clone(), object))
}

/// The relation that a string constant names, such as that of `nextval`.
pub(super) fn named_in(text: &str, schema: Option<&str>) -> Option<ObjectName> {
    let of = SubjectParser { sql: text, schema };
    let t = tokens(text, Dialect::default());
    let (object, rest) = of.object(&t, RELATION)?;
    rest.is_empty().then_some(object)
}

struct SubjectParser<'a> {
    sql: &'a str,
    schema: Option<&'a str>,
}

fn is(t: Tokens<'_, '_>, words: &[&str]) -> bool {
    words.len() <= t.len() && words.iter().zip(t).all(|(w, t)| t.is(w))
}

/// What follows these words, or everything.
fn after<'a, 'b>(t: Tokens<'a, 'b>, words: &[&str]) -> Tokens<'a, 'b> {
    if is(t, words) { &t[words.len()..] } else { t }
}

/// What follows the first token that is this word.
fn behind<'a, 'b>(t: Tokens<'a, 'b>, word: &str) -> Option<Tokens<'a, 'b>> {
    let at = t.iter().position(|w| w.is(word))?;
    Some(&t[at + 1..])
}

/// The names that dots separate, and the rest.
fn path<'a, 'b>(t: Tokens<'a, 'b>) -> Option<(Vec<String>, Tokens<'a, 'b>)> {
    let mut names = vec![t.first()?.name()?];
    let mut rest = &t[1..];
    while let [dot, next, ..] = rest
        && dot.is_symbol(b'.')
        && let Some(name) = next.name()
    {
        names.push(name);
        rest = &rest[2..];
    }
    Some((names, rest))
}

fn kind_at<'a, 'b>(t: Tokens<'a, 'b>) -> Option<(&'static ObjectKind, Tokens<'a, 'b>)> {
    let kind = KINDS.iter().find(|k| is(t, k.words))?;
    Some((kind, &t[kind.words.len()..]))
}

/// Kinds whose objects are named with their table: `TRIGGER x ON t`.
fn is_of_table(kind: &ObjectKind) -> bool {
    matches!(kind.kind, "TRIGGER" | "RULE" | "POLICY" | "CONSTRAINT")
}

impl SubjectParser<'_> {
    fn named(&self, names: &[String], class: &'static str) -> Option<ObjectName> {
        let (name, before) = names.split_last()?;
        let schema = before.last().map(String::as_str).or(self.schema);
        Some(ObjectName {
            class,
            schema: schema.map(str::to_owned),
            name: name.clone(),
        })
    }

    /// The object with a schema that is named here, and the rest.
    fn object<'a, 'b>(
        &self,
        t: Tokens<'a, 'b>,
        class: &'static str,
    ) -> Option<(ObjectName, Tokens<'a, 'b>)> {
        let t = after(after(t, &["only"]), &["if", "exists"]);
        let (names, rest) = path(after(t, &["only"]))?;
        Some((self.named(&names, class)?, rest))
    }

    /// Something of an object that has no name by which others know it.
    fn part(&self, kind: &'static str, tag: String, of: ObjectName) -> Subject {
        Subject {
            kind,
            schema: of.schema.clone(),
            tag,
            object: None,
            belongs_to: vec![of],
            creates: false,
        }
    }

    /// `x ON t`: something of a table that others know by both names.
    fn of_table(&self, kind: &ObjectKind, t: Tokens<'_, '_>, on: &str) -> Option<Subject> {
        let name = t.first()?.name()?;
        let (table, _) = self.object(behind(&t[1..], on)?, RELATION)?;
        let tag = format!("{} {name}", table.name);
        Some(Subject {
            object: Some(ObjectName {
                class: kind.class,
                schema: table.schema.clone(),
                name: tag.clone(),
            }),
            ..self.part(kind.kind, tag, table)
        })
    }

    /// An object of this kind, named at the start of `t`.
    fn whole(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let (schema, tag) = match kind.kind {
            "CAST" | "TRANSFORM" | "USER MAPPING" => {
                let mapping = kind.kind == "USER MAPPING";
                let t = if mapping { after(t, &["for"]) } else { t };
                // The functions of a transform follow in parentheses, in which a cast has its types.
                let open = t.iter().position(|w| w.is_symbol(b'('));
                let open = open.filter(|_| kind.kind == "TRANSFORM");
                let t = &t[..open.unwrap_or(t.len())];
                (None, format!("{} {}", kind.kind, self.phrase(t)))
            }
            "OPERATOR" => self.operator(t)?,
            "BLOB" => (None, t.first()?.text.trim_matches('\'').to_owned()),
            _ => {
                let (mut names, _) = path(t)?;
                let tag = names.pop()?;
                (names.pop(), tag)
            }
        };
        let schema = schema
            .or(self.schema.map(str::to_owned))
            .filter(|_| kind.has_schema);
        Some(Subject {
            kind: kind.kind,
            object: Some(ObjectName {
                class: kind.class,
                schema: schema.clone(),
                name: tag.clone(),
            }),
            schema,
            tag,
            belongs_to: vec![],
            creates: false,
        })
    }

    /// `(integer AS text)`, `FOR a SERVER b`: the text up to what follows the name.
    fn phrase(&self, t: Tokens<'_, '_>) -> String {
        let ends = |w: &Token<'_>| {
            w.is_symbol(b';')
                || ["is", "with", "without", "options", "owner"]
                    .iter()
                    .any(|e| w.is(e))
        };
        let end = t.iter().position(ends).unwrap_or(t.len());
        match (t.first(), t[..end].last()) {
            (Some(first), Some(last)) => self.sql[first.at..last.at + last.text.len()].to_owned(),
            _ => String::new(),
        }
    }

    /// `s.+` or `+`.
    fn operator(&self, t: Tokens<'_, '_>) -> Option<(Option<String>, String)> {
        let schema = t.first().and_then(Token::name);
        let t = if schema.is_some() { t.get(2..)? } else { t };
        let signs = t.iter().map_while(|w| match w.kind {
            TokenKind::Symbol(b'(') => None,
            TokenKind::Symbol(sign) => Some(char::from(sign)),
            _ => None,
        });
        Some((schema, signs.collect()))
    }

    fn created(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        let mut t = after(t, &["or", "replace"]);
        for word in [
            "global",
            "local",
            "temporary",
            "temp",
            "unlogged",
            "unique",
            "recursive",
            "trusted",
        ] {
            t = after(t, &[word]);
        }
        let (kind, t) = kind_at(t)?;
        let t = after(after(t, &["concurrently"]), &["if", "not", "exists"]);
        let subject = match kind.kind {
            "INDEX" => self.index(kind, t)?,
            "RULE" => self.of_table(kind, t, "to")?,
            "COLUMN" | "CONSTRAINT" => return None,
            _ if is_of_table(kind) => self.of_table(kind, t, "on")?,
            "FOREIGN TABLE" | "USER MAPPING" => self.on_server(kind, t)?,
            _ => self.whole(kind, t)?,
        };
        Some(Subject {
            kind: if is_shell(kind, t) {
                "SHELL TYPE"
            } else {
                subject.kind
            },
            creates: true,
            ..subject
        })
    }

    /// `… SERVER s …`, which follows the columns of a table.
    fn on_server(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let subject = self.whole(kind, t)?;
        let mut depth = 0_usize;
        let at = t.iter().position(|w| {
            if w.is_symbol(b'(') {
                depth += 1;
            } else if w.is_symbol(b')') {
                depth = depth.saturating_sub(1);
            }
            depth == 0 && w.is("server")
        });
        let name = at.and_then(|at| t.get(at + 1)?.name());
        let server = name.map(|name| ObjectName {
            class: "SERVER",
            schema: None,
            name,
        });
        Some(Subject {
            belongs_to: server.into_iter().collect(),
            ..subject
        })
    }

    /// An index has the schema of its table.
    fn index(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let (table, _) = self.object(behind(t, "on")?, RELATION)?;
        let of = SubjectParser {
            sql: self.sql,
            schema: table.schema.as_deref(),
        };
        Some(Subject {
            belongs_to: vec![table.clone()],
            ..of.whole(kind, t)?
        })
    }

    fn altered(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        if is(t, &["default", "privileges"]) {
            return self.default_privileges(t);
        }
        let (kind, t) = kind_at(t)?;
        match kind.kind {
            "TABLE" | "FOREIGN TABLE" => self.altered_table(kind, t),
            "INDEX" => self
                .attached("INDEX ATTACH", t)
                .or_else(|| self.whole(kind, t)),
            "SEQUENCE" => self.owned_sequence(kind, t),
            "PUBLICATION" => self.altered_publication(kind, t),
            "COLUMN" | "CONSTRAINT" => None,
            _ if is_of_table(kind) => self.of_table(kind, t, "on"),
            _ => self.whole(kind, after(t, &["if", "exists"])),
        }
    }

    fn altered_table(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let (table, action) = self.object(t, RELATION)?;
        if is(action, &["add", "constraint"]) {
            return self.constraint(table, &action[2..]);
        }
        if is(action, &["attach", "partition"]) {
            return self.attached("TABLE ATTACH", t);
        }
        // FORCE is a part of the table's own entry.
        if is(action, &["enable", "row", "level", "security"]) {
            return Some(self.part("ROW SECURITY", table.name.clone(), table));
        }
        if let Some(used) = self.used_by_table(&table, action) {
            return Some(used);
        }
        if is(action, &["alter", "column"]) {
            let column = action.get(2)?.name()?;
            let rest = &action[3..];
            if is(rest, &["set", "default"]) {
                return Some(self.part("DEFAULT", format!("{} {column}", table.name), table));
            }
            if is(rest, &["add", "generated"]) {
                return self.identity(table, rest);
            }
        }
        Some(Subject {
            kind: kind.kind,
            schema: table.schema.clone(),
            tag: table.name.clone(),
            object: Some(table),
            belongs_to: vec![],
            creates: false,
        })
    }

    /// `DISABLE TRIGGER x`, `DISABLE RULE r`, `CLUSTER ON i`, `REPLICA IDENTITY USING INDEX i`: they belong to the trigger,
    /// rule or index.
    fn used_by_table(&self, table: &ObjectName, action: Tokens<'_, '_>) -> Option<Subject> {
        let start = &action[..action.len().min(5)];
        let named_after = |word: &str| behind(start, word)?.first()?.name();
        let of_table = |class, name: &str| ObjectName {
            class,
            schema: table.schema.clone(),
            name: format!("{} {name}", table.name),
        };
        if is(action, &["enable"]) || is(action, &["disable"]) {
            let mut kinds = [("TRIGGER", "trigger"), ("RULE", "rule")].into_iter();
            let (kind, name) = kinds.find_map(|(kind, word)| Some((kind, named_after(word)?)))?;
            let used = of_table(kind, &name);
            return Some(Subject {
                object: Some(used.clone()),
                ..self.part(kind, used.name, table.clone())
            });
        }
        let index = if is(action, &["cluster", "on"]) {
            named_after("on")?
        } else if is(action, &["replica", "identity", "using", "index"]) {
            named_after("index")?
        } else {
            return None;
        };
        let mut subject = self.part("INDEX", index.clone(), table.clone());
        // It may be that of a key.
        subject.belongs_to.push(of_table("CONSTRAINT", &index));
        subject.object = self.named(&[index], RELATION).map(|index| ObjectName {
            schema: table.schema.clone(),
            ..index
        });
        Some(subject)
    }

    /// `c PRIMARY KEY (a)`. A key has an index of its name.
    fn constraint(&self, table: ObjectName, t: Tokens<'_, '_>) -> Option<Subject> {
        let name = t.first()?.name()?;
        let kind = match () {
            () if is(&t[1..], &["foreign", "key"]) => "FK CONSTRAINT",
            () if is(&t[1..], &["check"]) || is(&t[1..], &["not", "null"]) => "CHECK CONSTRAINT",
            () => "CONSTRAINT",
        };
        let tag = format!("{} {name}", table.name);
        Some(Subject {
            object: Some(ObjectName {
                class: "CONSTRAINT",
                schema: table.schema.clone(),
                name: tag.clone(),
            }),
            creates: true,
            ..self.part(kind, tag, table)
        })
    }

    /// `ALTER TABLE p ATTACH PARTITION c`, `ALTER INDEX p ATTACH PARTITION c`: named after the partition.
    fn attached(&self, kind: &'static str, t: Tokens<'_, '_>) -> Option<Subject> {
        let (parent, action) = self.object(t, RELATION)?;
        if !is(action, &["attach", "partition"]) {
            return None;
        }
        let (child, _) = self.object(&action[2..], RELATION)?;
        Some(Subject {
            belongs_to: vec![parent, child.clone()],
            ..self.part(kind, child.name.clone(), child)
        })
    }

    /// `ADD GENERATED … AS IDENTITY (SEQUENCE NAME s …)` creates the sequence.
    fn identity(&self, table: ObjectName, t: Tokens<'_, '_>) -> Option<Subject> {
        let options = behind(t, "sequence")?;
        let (sequence, _) = self.object(after(options, &["name"]), RELATION)?;
        Some(Subject {
            kind: "SEQUENCE",
            schema: sequence.schema.clone(),
            tag: sequence.name.clone(),
            object: Some(sequence),
            belongs_to: vec![table],
            creates: true,
        })
    }

    fn owned_sequence(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let (sequence, action) = self.object(t, RELATION)?;
        if !is(action, &["owned", "by"]) {
            return self.whole(kind, after(t, &["if", "exists"]));
        }
        let (mut column, _) = path(&action[2..])?;
        column.pop();
        let table = self.named(&column, RELATION);
        let mut subject = self.part("SEQUENCE OWNED BY", sequence.name.clone(), sequence);
        subject.belongs_to.extend(table);
        Some(subject)
    }

    fn altered_publication(&self, kind: &ObjectKind, t: Tokens<'_, '_>) -> Option<Subject> {
        let publication = self.whole(kind, t)?;
        let Some(added) = t.get(2..).filter(|_| is(&t[1..], &["add"])) else {
            return Some(publication);
        };
        let belongs_to: Vec<ObjectName> = publication.object.iter().cloned().collect();
        let mut subject = match () {
            () if is(added, &["tables", "in", "schema"]) => {
                let schema = added.get(3)?.name()?;
                let of = ObjectName {
                    class: SCHEMA,
                    schema: None,
                    name: schema,
                };
                let tag = format!("{} {}", publication.tag, of.name);
                self.part("PUBLICATION TABLES IN SCHEMA", tag, of)
            }
            () => {
                let (table, _) = self.object(after(added, &["table"]), RELATION)?;
                let tag = format!("{} {}", publication.tag, table.name);
                self.part("PUBLICATION TABLE", tag, table)
            }
        };
        subject.belongs_to.extend(belongs_to);
        Some(subject)
    }

    fn default_privileges(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        let what = behind(t, "on")?.first()?.text.to_uppercase();
        let t = &t[..t.iter().position(|w| w.is("grant") || w.is("revoke"))?];
        let schema = behind(t, "schema").and_then(|t| t.first()?.name());
        Some(Subject {
            kind: "DEFAULT ACL",
            schema,
            tag: format!("DEFAULT PRIVILEGES FOR {what}"),
            object: None,
            belongs_to: vec![],
            creates: false,
        })
    }

    /// `COMMENT ON …`, `SECURITY LABEL … ON …`.
    fn about(&self, t: Tokens<'_, '_>, kind: &'static str) -> Option<Subject> {
        self.about_object(kind, behind(t, "on")?, None)
    }

    fn privileges(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        // The privileges of columns are in parentheses. A grant of a role has no ON.
        self.about_object("ACL", behind(t, "on")?, Some(("TABLE", RELATION)))
    }

    /// `default`: the kind of what is named without one.
    fn about_object(
        &self,
        kind: &'static str,
        t: Tokens<'_, '_>,
        default: Option<(&'static str, &'static str)>,
    ) -> Option<Subject> {
        let (of, t) = match (kind_at(t), default) {
            (Some(found), _) => found,
            (None, Some((kind, class))) => {
                let of = KINDS.iter().find(|k| k.kind == kind && k.class == class)?;
                (of, t)
            }
            (None, None) => return None,
        };
        let object = match of.kind {
            "COLUMN" => return self.about_column(kind, t),
            _ if is_of_table(of) => self.of_table(of, t, "on")?,
            _ => self.whole(of, t)?,
        };
        let tag = match of.kind {
            // `TRIGGER x ON t`
            _ if is_of_table(of) => {
                let (table, name) = object.tag.split_once(' ').unwrap_or_default();
                format!("{} {name} ON {table}", of.kind)
            }
            "BLOB" => format!("LARGE OBJECT {}", object.tag),
            // The kind is a part of the name.
            "CAST" | "TRANSFORM" | "USER MAPPING" => object.tag.clone(),
            _ => format!("{} {}", of.kind, object.tag),
        };
        Some(Subject {
            kind,
            schema: object.schema,
            tag,
            object: None,
            belongs_to: object.object.into_iter().chain(object.belongs_to).collect(),
            creates: false,
        })
    }

    fn about_column(&self, kind: &'static str, t: Tokens<'_, '_>) -> Option<Subject> {
        let (mut names, _) = path(t)?;
        let column = names.pop()?;
        let table = self.named(&names, RELATION)?;
        Some(self.part(kind, format!("COLUMN {}.{column}", table.name), table))
    }

    fn refreshed(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        let t = t
            .get(3..)
            .filter(|_| is(t, &["refresh", "materialized", "view"]))?;
        let (view, _) = self.object(after(t, &["concurrently"]), RELATION)?;
        Some(self.part("MATERIALIZED VIEW DATA", view.name.clone(), view))
    }

    /// `SELECT pg_catalog.f(…)` as `pg_dump` writes it for what has no statement of its own.
    fn called(&self, t: Tokens<'_, '_>) -> Option<Subject> {
        let open = t.iter().position(|w| w.is_symbol(b'('))?;
        let arguments = &t[open + 1..];
        let text = |at: usize| arguments.get(at).and_then(Token::string);
        match t.get(open.checked_sub(1)?)?.name()?.as_str() {
            "setval" => {
                let sequence = named_in(&text(0)?, self.schema)?;
                Some(self.part("SEQUENCE SET", sequence.name.clone(), sequence))
            }
            "lo_create" => {
                let blob = KINDS.iter().find(|k| k.kind == "BLOB")?;
                let subject = self.whole(blob, arguments)?;
                Some(Subject {
                    creates: true,
                    ..subject
                })
            }
            "pg_restore_relation_stats"
            | "pg_restore_attribute_stats"
            | "pg_restore_extended_stats" => {
                let value = |name: &str| {
                    let at = (0..arguments.len()).find(|at| text(*at).as_deref() == Some(name))?;
                    text(at + 2)
                };
                let names = [value("schemaname")?, value("relname")?];
                let relation = self.named(&names, RELATION)?;
                Some(self.part("STATISTICS DATA", relation.name.clone(), relation))
            }
            _ => None,
        }
    }
}

/// `CREATE TYPE s.t;`, which the definition follows.
fn is_shell(kind: &ObjectKind, t: Tokens<'_, '_>) -> bool {
    kind.kind == "TYPE" && path(t).is_some_and(|(_, rest)| rest.iter().all(|w| w.is_symbol(b';')))
}
