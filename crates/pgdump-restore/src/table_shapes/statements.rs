//! Learns from the statements that define tables, their columns and keys.

use pgdump_archive::{Dialect, Token, tokens};

use super::{Added, Column, Declared, DomainType, MAX_COLUMNS, Name, TableDefinitions};
use crate::dependence::{at_commas, outer, parenthesized};

impl TableDefinitions {
    /// Learns from one statement. `schema`: that of names without one.
    pub(crate) fn learn(&mut self, sql: &str, schema: &str) {
        let t = tokens(sql, Dialect::default());
        let Some(first) = t.first() else {
            return;
        };
        let learned = if first.is("create") {
            self.create(sql, &t[1..], schema)
        } else if first.is("alter") {
            self.alter(sql, &t[1..], schema)
        } else if first.is("security") {
            self.read_label(&t[1..], schema)
        } else {
            None
        };
        // What cannot be parsed teaches nothing: its table has unknown columns.
        let _ = learned;
    }

    /// The tokens follow `CREATE`.
    fn create(&mut self, sql: &str, t: &[Token<'_>], schema: &str) -> Option<()> {
        let adjectives = [
            "global",
            "local",
            "temporary",
            "temp",
            "unlogged",
            "foreign",
            "or",
            "replace",
            "recursive",
            "materialized",
        ];
        let t = after(t, &adjectives);
        let is_unique = t.first()?.is("unique");
        let t = after(t, &["unique"]);
        let may_exist = begins(t.get(1..)?, &["if", "not", "exists"]);
        let rest = after(t.get(1..)?, &["if", "not", "exists", "concurrently"]);
        match t.first()? {
            kind if kind.is("table") => self.create_table(sql, (rest, may_exist), schema),
            kind if kind.is("type") => self.create_type(sql, rest, schema),
            kind if kind.is("domain") => self.create_domain(sql, rest, schema),
            kind if kind.is("index") && is_unique => self.create_unique_index(rest, schema),
            kind if kind.is("view") => {
                let (name, _) = relation(rest, schema)?;
                self.note_place(&name);
                self.views.insert(name);
                Some(())
            }
            kind if kind.is("schema") => {
                let named = after(rest, &["authorization"]).first()?.name()?;
                self.schemas.insert(named);
                Some(())
            }
            kind if kind.is("extension") => {
                self.has_extensions = true;
                Some(())
            }
            _ => None,
        }
    }

    /// Notes whether the schema of a table is not known.
    fn note_place(&mut self, name: &Name) {
        self.is_unplaced |= name.0.is_empty();
    }

    fn create_table(
        &mut self,
        sql: &str,
        (t, may_exist): (&[Token<'_>], bool),
        schema: &str,
    ) -> Option<()> {
        let (name, mut rest) = relation(t, schema)?;
        self.note_place(&name);
        // Which of the two definitions holds is not known: the server may refuse the second one.
        let exists = self.knows(&name);
        if let Some(known) = self.tables.get_mut(&name).filter(|_| exists && may_exist) {
            known.is_incomplete = true;
            return Some(());
        }
        let mut declared = Declared {
            is_incomplete: exists,
            is_partitioned: t.windows(2).any(|w| w[0].is("partition") && w[1].is("by")),
            ..Declared::default()
        };
        if let [partition, of, ..] = rest
            && partition.is("partition")
            && of.is("of")
        {
            let (parent, more) = relation(&rest[2..], schema)?;
            declared.columns_of.push(parent.clone());
            declared.parents.push(parent);
            rest = more;
        } else if rest.first().is_some_and(|w| w.is("of")) {
            let (of, more) = relation(&rest[1..], schema)?;
            declared.columns_of.push(of);
            rest = more;
        }
        let has_source = !declared.columns_of.is_empty();
        let mut added = Added::default();
        match parenthesized(rest) {
            Some((body, tail)) => {
                for item in at_commas(body) {
                    add_item(sql, item, schema, &mut declared, &mut added);
                }
                if let Some(at) = outer(tail).find(|(_, w)| w.is("inherits")) {
                    // Columns of parents come before those of LIKE.
                    declared.is_incomplete |= !declared.columns_of.is_empty();
                    let (parents, _) = parenthesized(tail.get(at.0 + 1..)?)?;
                    let parents = at_commas(parents);
                    let parents = parents.iter().filter_map(|p| relation(p, schema));
                    let parents: Vec<Name> = parents.map(|(parent, _)| parent).collect();
                    declared.columns_of.extend(parents.iter().cloned());
                    declared.parents.extend(parents);
                }
                declared.is_incomplete |= outer(tail).any(|(_, w)| w.is("as"));
            }
            None => declared.is_incomplete |= !has_source,
        }
        declared.is_incomplete |= declared.columns.len() > MAX_COLUMNS;
        declared.columns.truncate(MAX_COLUMNS);
        let mut others = declared.columns_of.iter().chain(&declared.parents);
        self.is_unplaced |= others.any(|other| other.0.is_empty());
        self.with_children.extend(declared.parents.iter().cloned());
        self.tables.insert(name.clone(), declared);
        self.added.entry(name).or_default().merge(added);
        Some(())
    }

    fn create_type(&mut self, sql: &str, t: &[Token<'_>], schema: &str) -> Option<()> {
        let (name, rest) = relation(t, schema)?;
        self.note_place(&name);
        let definition = rest.get(1..).filter(|_| rest[0].is("as"))?;
        let kind = ["enum", "range"]
            .into_iter()
            .find(|kind| definition.first().is_some_and(|w| w.is(kind)));
        // What columns of the type have, in the words of the rules.
        let base = DomainType {
            base: kind.unwrap_or("composite type").to_owned(),
            base_name: None,
            not_null: false,
        };
        self.domains.insert(name.clone(), base);
        if kind.is_some() {
            return Some(());
        }
        let (body, _) = parenthesized(definition)?;
        let mut declared = Declared {
            is_type: true,
            ..Declared::default()
        };
        let items = at_commas(body).into_iter();
        declared.columns = items.filter_map(|item| column(sql, item, schema)).collect();
        self.tables.insert(name, declared);
        Some(())
    }

    fn create_domain(&mut self, sql: &str, t: &[Token<'_>], schema: &str) -> Option<()> {
        let (name, rest) = relation(t, schema)?;
        self.note_place(&name);
        let rest = after(rest, &["as"]);
        let (base, base_name) = type_of(sql, rest, schema)?;
        let domain = DomainType {
            base,
            base_name,
            not_null: rejects_null(rest),
        };
        self.domains.insert(name, domain);
        Some(())
    }

    /// `CREATE UNIQUE INDEX i ON ONLY s.t USING btree (lower(email))`: an expression makes its only column unique, too.
    fn create_unique_index(&mut self, t: &[Token<'_>], schema: &str) -> Option<()> {
        let on = t.iter().position(|w| w.is("on"))?;
        let (name, rest) = relation(after(t.get(on + 1..)?, &["only"]), schema)?;
        self.note_place(&name);
        let open = rest.iter().position(|w| w.is_symbol(b'('))?;
        let (body, _) = parenthesized(&rest[open..])?;
        let [item] = at_commas(body)[..] else {
            return None;
        };
        let known = self.columns(&name);
        let names = item.iter().filter_map(Token::name);
        let columns: Vec<String> = names
            .filter(|n| known.iter().any(|c| c.name == *n))
            .collect();
        let is_partial = outer(rest).any(|(_, w)| w.is("where"));
        let is_expression = item.iter().any(|w| w.is_symbol(b'('));
        let added = self.added.entry(name).or_default();
        if !is_partial && !is_expression {
            let column = item.first().and_then(Token::name);
            added.keys.extend(column.filter(|c| columns.contains(c)));
        }
        if is_not_distinct(rest) {
            added.one_null.extend(columns.iter().cloned());
        }
        added.unique.extend(columns);
        Some(())
    }

    /// The tokens follow `ALTER`.
    fn alter(&mut self, sql: &str, t: &[Token<'_>], schema: &str) -> Option<()> {
        if t.first()?.is("type") {
            return self.alter_type(&t[1..], schema);
        }
        let (name, actions) = altered(t, schema)?;
        self.note_place(&name);
        for action in at_commas(actions) {
            self.alter_table(sql, &name, action, schema);
        }
        Some(())
    }

    /// Attributes of a composite type are columns of the tables that are made of it.
    fn alter_type(&mut self, t: &[Token<'_>], schema: &str) -> Option<()> {
        let (name, actions) = relation(t, schema)?;
        if actions.iter().any(|w| w.is("attribute")) {
            self.note_place(&name);
            self.lose_columns(&name);
        }
        Some(())
    }

    /// A table that may have been created by something that is not followed.
    fn declared(&mut self, name: Name) -> &mut Declared {
        let unknown = || Declared {
            is_incomplete: true,
            ..Declared::default()
        };
        self.tables.entry(name).or_insert_with(unknown)
    }

    fn alter_table(
        &mut self,
        sql: &str,
        table: &Name,
        action: &[Token<'_>],
        schema: &str,
    ) -> Option<()> {
        let is = |words: &[&str]| begins(action, words);
        if is(&["attach", "partition"]) {
            let (partition, _) = relation(&action[2..], schema)?;
            self.note_place(&partition);
            let partition = self.declared(partition);
            partition.parents.push(table.clone());
            self.with_children.insert(table.clone());
        } else if is(&["inherit"]) {
            let (parent, _) = relation(&action[1..], schema)?;
            self.note_place(&parent);
            let child = self.declared(table.clone());
            child.parents.push(parent.clone());
            self.with_children.insert(parent);
        } else if is(&["add", "column"]) || is(&["add"]) && !is_constraint(&action[1..]) {
            let item = after(&action[1..], &["column", "if", "not", "exists"]);
            let known = self.columns(table);
            let name = item.first().and_then(Token::name);
            let is_known = known.iter().any(|c| Some(&c.name) == name.as_ref());
            // Children have the new column at their end, and copies of the table do not have it.
            self.lose_columns_below(table);
            let declared = self.tables.get_mut(table)?;
            declared.is_incomplete |= is_known;
            let added = self.added.entry(table.clone()).or_default();
            add_item(sql, item, schema, declared, added);
        } else if is(&["add"]) {
            let added = self.added.entry(table.clone()).or_default();
            add_constraint(&action[1..], added);
        } else if is(&["alter"]) {
            let rest = after(&action[1..], &["column"]);
            if begins(rest.get(1..)?, &["set", "not", "null"]) {
                let added = self.added.entry(table.clone()).or_default();
                added.not_null.insert(rest.first()?.name()?);
            } else if begins(rest.get(1..)?, &["type"])
                || begins(rest.get(1..)?, &["set", "data", "type"])
            {
                self.lose_columns(table);
            }
        } else if is(&["rename"]) {
            self.lose_columns(table);
            let rest = after(&action[1..], &["column"]);
            let [from, to, into] = rest.get(..3)? else {
                return None;
            };
            if to.is("to") {
                self.rename_column(table, &from.name()?, &into.name()?);
            }
        } else if is(&["drop"]) && !is(&["drop", "constraint"]) {
            // DROP [COLUMN] [IF EXISTS] a
            self.lose_columns(table);
        }
        Some(())
    }

    /// The columns of a table, and of those that have columns of it, are not known any more.
    fn lose_columns(&mut self, table: &Name) {
        if let Some(declared) = self.tables.get_mut(table) {
            declared.is_incomplete = true;
        }
        self.lose_columns_below(table);
    }

    fn lose_columns_below(&mut self, table: &Name) {
        let below = self.descendants(table);
        for (name, declared) in &mut self.tables {
            declared.is_incomplete |= below.contains(name) || declared.columns_of.contains(table);
        }
    }

    /// What is known of a column stays with it under its new name.
    fn rename_column(&mut self, table: &Name, from: &str, to: &str) {
        if let Some(declared) = self.tables.get_mut(table) {
            let mut columns = declared.columns.iter_mut();
            if let Some(column) = columns.find(|c| c.name == from) {
                to.clone_into(&mut column.name);
            }
        }
        if let Some(added) = self.added.get_mut(table) {
            if let Some(label) = added.labels.remove(from) {
                added.labels.insert(to.to_owned(), label);
            }
            let keys = [&mut added.unique, &mut added.keys, &mut added.one_null];
            for set in [&mut added.not_null].into_iter().chain(keys) {
                if set.remove(from) {
                    set.insert(to.to_owned());
                }
            }
        }
    }

    fn read_label(&mut self, t: &[Token<'_>], schema: &str) -> Option<()> {
        let ColumnLabel {
            table,
            column,
            label,
        } = column_label(t, schema)?;
        self.note_place(&table);
        let labels = &mut self.added.entry(table).or_default().labels;
        // What one provider masks is not taken back by another one.
        let known = labels.get(&column);
        if known.is_none_or(|known| !is_of_other_provider(known)) {
            labels.insert(column, label);
        }
        Some(())
    }
}

/// The table that a statement makes a partition or a child of another one; `None` for any other statement.
pub(crate) fn attached_table(sql: &str, schema: &str) -> Option<Name> {
    let t = tokens(sql, Dialect::default());
    let first = t.first().filter(|w| w.is("alter"));
    let (name, actions) = altered(first.and_then(|_| t.get(1..))?, schema)?;
    at_commas(actions).into_iter().find_map(|action| {
        if begins(action, &["attach", "partition"]) {
            Some(relation(&action[2..], schema)?.0)
        } else {
            begins(action, &["inherit"]).then(|| name.clone())
        }
    })
}

/// The table that an ALTER is about, and its actions; the tokens follow `ALTER`. `ALTER VIEW` renames columns of tables, too.
fn altered<'a, 'b>(t: &'b [Token<'a>], schema: &str) -> Option<(Name, &'b [Token<'a>])> {
    let t = after(t, &["foreign", "materialized"]);
    let is_known = t.first()?.is("table") || t[0].is("view");
    let t = after(t.get(1..).filter(|_| is_known)?, &["if", "exists", "only"]);
    // ONLY (s.t), and s.t *
    let (name, actions) = match parenthesized(t) {
        Some((named, actions)) => (relation(named, schema)?.0, actions),
        None => relation(t, schema)?,
    };
    let has_star = actions.first().is_some_and(|w| w.is_symbol(b'*'));
    Some((name, &actions[usize::from(has_star)..]))
}

/// The table that a statement labels a column of; `None` for any other statement.
pub(crate) fn labelled_table(sql: &str, schema: &str) -> Option<Name> {
    let t = tokens(sql, Dialect::default());
    let first = t.first().filter(|w| w.is("security"));
    column_label(first.and_then(|_| t.get(1..))?, schema).map(|l| l.table)
}

/// A label by which a column is masked.
struct ColumnLabel {
    table: Name,
    column: String,
    label: String,
}

/// `SECURITY LABEL FOR anon ON COLUMN s.t.c IS '…'`; the tokens follow `SECURITY`. Providers of other names may be those of
/// PostgreSQL Anonymizer, too: what they mask is labelled in a way that stands for no rule, so that one has to be written.
fn column_label(t: &[Token<'_>], schema: &str) -> Option<ColumnLabel> {
    let t = t.get(1..).filter(|_| t[0].is("label"))?;
    let (provider, t) = match t {
        [by, provider, rest @ ..] if by.is("for") => {
            (provider.name().or_else(|| provider.string())?, rest)
        }
        _ => ("anon".to_owned(), t),
    };
    let named = t.get(2..).filter(|_| begins(t, &["on", "column"]))?;
    let is = named.iter().rposition(|w| w.is("is"))?;
    let parts: Option<Vec<String>> = named[..is].iter().step_by(2).map(Token::name).collect();
    let (table, column) = match parts?.as_slice() {
        [schema, table, column] => ((schema.clone(), table.clone()), column.clone()),
        [table, column] => ((schema.to_owned(), table.clone()), column.clone()),
        _ => return None,
    };
    let value = named.get(is + 1)?;
    let text = value.string();
    let is_masked = text.as_ref().is_none_or(|text| masks(text));
    // What cannot be read stands for no rule either.
    let text = text.unwrap_or_else(|| value.text.to_owned());
    let label = if provider == "anon" {
        text
    } else if is_masked {
        format!("{OTHER_PROVIDER}{provider}: {text}")
    } else {
        return None;
    };
    Some(ColumnLabel {
        table,
        column,
        label,
    })
}

/// How the label of another provider than anon begins here.
const OTHER_PROVIDER: &str = "provider ";

fn is_of_other_provider(label: &str) -> bool {
    label.starts_with(OTHER_PROVIDER)
}

/// `MASKED WITH …`
fn masks(label: &str) -> bool {
    let mut words = label.split_whitespace();
    words
        .next()
        .is_some_and(|w| w.eq_ignore_ascii_case("masked"))
        && words.next().is_some_and(|w| w.eq_ignore_ascii_case("with"))
}

/// Adds a column or a constraint of a table.
fn add_item(
    sql: &str,
    item: &[Token<'_>],
    schema: &str,
    declared: &mut Declared,
    added: &mut Added,
) -> Option<()> {
    if item.first()?.is("like") {
        // Columns of other tables come first here.
        declared.is_incomplete |= !declared.columns.is_empty();
        declared.columns_of.push(relation(&item[1..], schema)?.0);
        return Some(());
    }
    if is_constraint(item) {
        return add_constraint(item, added);
    }
    let column = column(sql, item, schema)?;
    let has = |words: [&str; 2]| {
        let places: Vec<&Token<'_>> = outer(item).map(|(_, w)| w).collect();
        places
            .windows(2)
            .any(|w| w[0].is(words[0]) && w[1].is(words[1]))
    };
    if has(["primary", "key"]) {
        added.not_null.insert(column.name.clone());
        added.unique.insert(column.name.clone());
        added.keys.insert(column.name.clone());
    }
    if outer(item).any(|(i, w)| i > 0 && w.is("unique")) {
        added.unique.insert(column.name.clone());
        added.keys.insert(column.name.clone());
        if is_not_distinct(item) {
            added.one_null.insert(column.name.clone());
        }
    }
    declared.columns.push(column);
    Some(())
}

fn is_constraint(item: &[Token<'_>]) -> bool {
    const FIRST: [&str; 6] = ["constraint", "primary", "unique", "check", "foreign", "not"];
    // EXCLUDE is not reserved: pg_dump writes a column of this name without quotes.
    let excludes = || {
        let next = item.get(1).filter(|_| item[0].is("exclude"));
        next.is_some_and(|w| w.is("using") || w.is_symbol(b'('))
    };
    let is_first = |w: &Token<'_>| FIRST.iter().any(|f| w.is(f));
    item.first().is_some_and(|w| is_first(w) || excludes())
}

/// Keys of one column, and NOT NULL constraints of a table, which PostgreSQL 18 names.
fn add_constraint(item: &[Token<'_>], added: &mut Added) -> Option<()> {
    let body = if item.first()?.is("constraint") {
        item.get(2..)?
    } else {
        item
    };
    if begins(body, &["not", "null"]) {
        added.not_null.insert(body.get(2)?.name()?);
        return Some(());
    }
    if begins(body, &["exclude"]) {
        return add_exclusion(body, added);
    }
    let is_primary = begins(body, &["primary", "key"]);
    if !is_primary && !begins(body, &["unique"]) {
        return None;
    }
    let open = body.iter().position(|w| w.is_symbol(b'('))?;
    let (columns, _) = parenthesized(&body[open..])?;
    let columns = at_commas(columns).into_iter();
    let columns: Option<Vec<String>> = columns.map(|c| c.first()?.name()).collect();
    let columns = columns?;
    if is_primary {
        added.not_null.extend(columns.iter().cloned());
    }
    if let [only] = columns.as_slice() {
        added.unique.insert(only.clone());
        added.keys.insert(only.clone());
        if is_not_distinct(body) {
            added.one_null.insert(only.clone());
        }
    }
    Some(())
}

/// `EXCLUDE USING gist (a WITH =)` keeps the values of one column apart, as a unique index does.
fn add_exclusion(body: &[Token<'_>], added: &mut Added) -> Option<()> {
    let open = body.iter().position(|w| w.is_symbol(b'('))?;
    let (elements, _) = parenthesized(&body[open..])?;
    let [only] = at_commas(elements)[..] else {
        return None;
    };
    if let [column, between @ .., with, operator] = only
        && with.is("with")
        && operator.is_symbol(b'=')
        && !between.iter().any(|w| w.is_symbol(b'('))
    {
        added.unique.insert(column.name()?);
    }
    Some(())
}

/// `NULLS NOT DISTINCT`
fn is_not_distinct(t: &[Token<'_>]) -> bool {
    let words = ["nulls", "not", "distinct"];
    t.windows(words.len()).any(|w| begins(w, &words))
}

fn column(sql: &str, item: &[Token<'_>], schema: &str) -> Option<Column> {
    let name = item.first()?.name()?;
    let rest = item.get(1..)?;
    // A column of a partition or a typed table may have constraints only.
    let (sql_type, type_name) = type_of(sql, rest, schema).unwrap_or_default();
    Some(Column {
        name,
        sql_type,
        type_name,
        not_null: rejects_null(rest),
        is_generated: is_generated(rest),
    })
}

/// `GENERATED ALWAYS AS (…)`, unlike `GENERATED ALWAYS AS IDENTITY`.
fn is_generated(t: &[Token<'_>]) -> bool {
    let outside: Vec<&Token<'_>> = outer(t).map(|(_, w)| w).collect();
    let mut pairs = outside.windows(2);
    pairs.any(|w| w[0].is("as") && w[1].is_symbol(b'('))
}

fn rejects_null(t: &[Token<'_>]) -> bool {
    let outside: Vec<&Token<'_>> = outer(t).map(|(_, w)| w).collect();
    outside
        .windows(2)
        .any(|w| w[0].is("not") && w[1].is("null"))
}

/// Words that end a type.
const AFTER_TYPE: [&str; 15] = [
    "check",
    "collate",
    "compression",
    "constraint",
    "default",
    "exclude",
    "generated",
    "not",
    "null",
    "options",
    "primary",
    "references",
    "storage",
    "unique",
    "deferrable",
];

/// The type at the start, as it is written, and its name, if it may be that of a domain.
fn type_of(sql: &str, t: &[Token<'_>], schema: &str) -> Option<(String, Option<Name>)> {
    let ends = |(i, w): &(usize, &Token<'_>)| {
        let has_options = w.is("with") && t.get(i + 1).is_some_and(|o| o.is("options"));
        has_options || w.is_symbol(b';') || AFTER_TYPE.iter().any(|word| w.is(word))
    };
    let end = outer(t).find(ends).map_or(t.len(), |(i, _)| i);
    let (first, last) = (t.first()?, t.get(end.checked_sub(1)?)?);
    let written = sql.get(first.at..last.at + last.text.len())?;
    let name = relation(&t[..end], schema).filter(|(_, rest)| rest.is_empty());
    Some((written.to_owned(), name.map(|(name, _)| name)))
}

/// A name at the start, and the rest.
fn relation<'a, 'b>(t: &'b [Token<'a>], schema: &str) -> Option<(Name, &'b [Token<'a>])> {
    let first = t.first()?.name()?;
    match t.get(1) {
        Some(dot) if dot.is_symbol(b'.') => Some(((first, t.get(2)?.name()?), &t[3..])),
        _ => Some(((schema.to_owned(), first), &t[1..])),
    }
}

/// What follows any of these words.
fn after<'a, 'b>(t: &'b [Token<'a>], words: &[&str]) -> &'b [Token<'a>] {
    let is_skipped = |w: &Token<'_>| words.iter().any(|word| w.is(word));
    let n = t.iter().take_while(|w| is_skipped(w)).count();
    &t[n..]
}

fn begins(t: &[Token<'_>], words: &[&str]) -> bool {
    words.len() <= t.len() && words.iter().zip(t).all(|(word, w)| w.is(word))
}
