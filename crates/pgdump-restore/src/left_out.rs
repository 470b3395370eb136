//! The entries that a load leaves out: those that the server refused, and everything that depends on them.

mod extensions;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use self::extensions::MissingExtensions;
pub(crate) use self::extensions::is_absent;
use crate::dependents::Dependents;
use crate::error::DatabaseError;
use crate::hints;
use crate::ids::NodeId;
use crate::plan::is_skipped;
use crate::policy::OnError;
use crate::postgres::kind_of_sqlstate;
use crate::refusal::Refusal;
use crate::refusals::{
    Named, Refusals, absent_names, cause_in, is_duplicate, message_of, short_name,
};
use crate::script::{Defined, Settings, alone, is_needed, table_named};
use crate::work_record::{EntryPart, RefusedDone, Resumed, UnitId};
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// Characters of a setting in a result.
const LONGEST_SETTING: usize = 120;

/// A root cause: a right on the database that is being restored, whatever it is called meanwhile.
const RESTORED_DATABASE: &str = "RESTORED DATABASE";

/// What of an entry the server refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedPart {
    /// The entry does not exist, and nothing that depends on it can.
    Whole,
    /// Its owner: it belongs to the restoring role instead.
    Owner,
    /// The access method of a table: it is a heap instead.
    Method,
    /// One of its statements; the others had effect.
    Statement,
}

impl RefusedPart {
    /// Its name in the work record.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            RefusedPart::Whole => "whole",
            RefusedPart::Owner => "owner",
            RefusedPart::Method => "method",
            RefusedPart::Statement => "statement",
        }
    }

    /// The part of this name.
    fn parse(name: &str) -> Option<Self> {
        use RefusedPart as P;
        let all = [P::Whole, P::Owner, P::Method, P::Statement];
        all.into_iter().find(|part| part.as_str() == name)
    }
}

/// What the sessions of a load know about refusals.
#[derive(Debug)]
pub(crate) struct LeftOut {
    refusals: Arc<Refusals>,
    /// The database that is loaded. Nobody knows its name afterwards.
    database: String,
    state: Mutex<State>,
}

/// Where the entries are in the table of contents, and what depends on them.
#[derive(Debug)]
struct Graph {
    dependents: Dependents,
    places: HashMap<DumpId, usize>,
}

impl Graph {
    fn of(entries: &[TocEntry]) -> Self {
        let places = entries.iter().enumerate();
        Graph {
            dependents: Dependents::of(entries),
            places: places.map(|(place, e)| (e.dump_id, place)).collect(),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// Made for the first refusal, because most loads have none.
    graph: Option<Graph>,
    /// The root cause of each entry that is left out.
    roots: HashMap<DumpId, String>,
    /// The entries that were refused because there is such an object. What depends on them is tried with that one.
    existing: HashMap<DumpId, (Named, Refusal)>,
    /// The root causes by the names that messages have, without schemas.
    by_name: HashMap<String, Vec<(Named, String)>>,
    /// The first refusal, as an error of the load.
    first: Option<DatabaseError>,
    /// Number of refusals that are no consequences of others.
    refused: usize,
    /// The tables that are kept although what they depend on was refused, and that refusal.
    kept: HashMap<DumpId, Refusal>,
    /// The refused tables of SQL text, and those whose rows were left out: the search path if the name needs one, and the
    /// name.
    tables: HashMap<String, Refusal>,
    /// The search paths under which they were refused.
    refused_under: HashMap<String, HashSet<String>>,
    without_rows: HashSet<(String, String)>,
    /// Whether the rows of a node are left out, as the first session that came to it has found.
    decided: HashMap<NodeId, bool>,
    /// The refused settings of SQL text, by their statements.
    settings: HashMap<String, Refusal>,
    /// Extensions that were refused or left out.
    extensions: MissingExtensions,
}

impl State {
    /// Counts a refusal. `error`: the load's, if this is the first one.
    fn count(&mut self, refusal: &Refusal, error: impl FnOnce() -> DatabaseError) {
        self.refused += usize::from(refusal.caused_by.is_none());
        self.first.get_or_insert_with(error);
    }

    /// A refusal with its cause, if it is about what an extension that is left out would have created: nothing in the table
    /// of contents says that, or the name of an access method does not.
    fn grouped(&self, (entry, part): (&TocEntry, RefusedPart), refusal: Refusal) -> Refusal {
        let is_its_own_root = refusal.root == refusal.entry && refusal.caused_by.is_none();
        let is_absent = refusal.sqlstate.as_deref().is_some_and(is_absent);
        if let Some(cause) = self.kept.get(&entry.dump_id)
            && is_absent
            && refusal.caused_by.is_none()
            && matches!(part, RefusedPart::Method | RefusedPart::Whole)
        {
            return Refusal {
                root: cause.root.clone(),
                caused_by: Some(cause.entry.clone()),
                ..refusal
            };
        }
        let may_be_of_extension = is_its_own_root
            && is_absent
            && entry.kind == EntryKind::Acl
            && self.may_be_of_extension(entry);
        let schema = entry.namespace.as_deref().filter(|_| may_be_of_extension);
        match self.extensions.of_schema(schema) {
            Some(cause) => Refusal {
                root: cause.root.clone(),
                caused_by: Some(cause.entry.clone()),
                ..refusal
            },
            None => refusal,
        }
    }

    /// The refusal of the table of these rows, if there was one of its name.
    fn of_existing_table(&self, data: &TocEntry) -> Option<&Refusal> {
        let is_table =
            |named: &Named| named.schema == data.namespace && named.name == short_name(&data.tag);
        let mut existing = self.existing.values();
        let of_toc = existing.find_map(|(named, refusal)| is_table(named).then_some(refusal));
        let of_text = || {
            if self.tables.is_empty() {
                return None;
            }
            let refusal = self.tables.get(&table_named(&data.tag)?)?;
            is_there(("TABLE", refusal)).then_some(refusal)
        };
        of_toc.or_else(of_text)
    }

    /// Whether an entry is about something that no entry defines, and that an extension that is left out may create.
    fn may_be_of_extension(&self, entry: &TocEntry) -> bool {
        let graph = self.graph.as_ref();
        let is_defined = |id: &DumpId| graph.is_some_and(|g| g.places.contains_key(id));
        !self.extensions.is_empty() && !entry.dependencies.iter().any(is_defined)
    }

    fn name(&mut self, named: Named, root: &str) {
        let all = self.by_name.entry(named.name.clone()).or_default();
        all.push((named, root.to_owned()));
    }
}

impl LeftOut {
    pub(crate) fn new(refusals: Arc<Refusals>, database: &str) -> Self {
        LeftOut {
            refusals,
            database: database.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Whether an entry, or the rest of it, is not to be restored.
    pub(crate) fn has(&self, entry: &TocEntry) -> bool {
        let state = self.state.lock();
        let id = &entry.dump_id;
        state.roots.contains_key(id) || state.existing.contains_key(id)
    }

    /// Whether the backup's table of these rows was refused because there is one of its name: they are for that one, which
    /// may have rows already.
    pub(crate) fn are_for_existing(&self, data: &TocEntry) -> bool {
        self.state.lock().of_existing_table(data).is_some()
    }

    /// Whether the load is about to fail, because a definition was refused.
    pub(crate) fn is_stopping(&self) -> bool {
        self.refusals.on_error() == OnError::Stop && self.state.lock().refused > 0
    }

    /// Whether refusals do not end the load.
    pub(crate) fn skips(&self) -> bool {
        self.refusals.on_error() == OnError::Skip
    }

    /// The names of everything that was refused or left out so far.
    pub(crate) fn named(&self) -> HashSet<String> {
        self.refusals.found().into_iter().map(|r| r.entry).collect()
    }

    /// Number of tables whose rows are left out, among these entries or in SQL text.
    pub(crate) fn tables(&self, entries: &[TocEntry]) -> u64 {
        let rows = entries.iter().filter(|e| e.kind == EntryKind::TableData);
        let of_text = self.state.lock().without_rows.len();
        (rows.filter(|e| self.has(e)).count() + of_text) as u64
    }

    /// Whether a table of SQL text with the name of these rows' table was refused.
    pub(crate) fn may_have_rows_of(&self, data: &TocEntry) -> bool {
        let state = self.state.lock();
        if state.tables.is_empty() {
            return false;
        }
        let table = table_named(&data.tag);
        table.is_some_and(|table| state.tables.contains_key(&table))
    }

    /// Whether it was refused under this search path, so that these rows are of no other table.
    pub(crate) fn is_refused_under(&self, data: &TocEntry, path: &str) -> bool {
        let state = self.state.lock();
        let under = table_named(&data.tag).and_then(|table| state.refused_under.get(&table));
        under.is_some_and(|under| under.contains(path))
    }

    /// Whether the rows of a node are left out, if that has been decided.
    pub(crate) fn decided(&self, node: NodeId) -> Option<bool> {
        self.state.lock().decided.get(&node).copied()
    }

    /// Decides whether the rows of a node are left out. All sessions do the same with them: a table whose rows some of them
    /// have loaded would be incomplete. Returns what holds, and whether it was decided now.
    pub(crate) fn decide(&self, node: NodeId, is_left_out: bool) -> (bool, bool) {
        match self.state.lock().decided.entry(node) {
            Entry::Occupied(decided) => (*decided.get(), false),
            Entry::Vacant(place) => (*place.insert(is_left_out), true),
        }
    }

    /// The server refused a statement of SQL text, which is called `name` in the error of a load that stops.
    /// `path`: its statement that sets the search path, or nothing.
    pub(crate) fn refuse_statement(
        &self,
        (defined, path): (&Defined, &str),
        (name, e): (&str, DatabaseError),
    ) {
        let refusal = self.refusal_of(defined.entry.clone(), &e);
        self.state
            .lock()
            .count(&refusal, || hints::with_hint(e, None).context(name));
        self.add_statement((defined, path), refusal);
    }

    fn add_statement(&self, (defined, path): (&Defined, &str), refusal: Refusal) {
        let mut state = self.state.lock();
        let kind = defined.named.as_ref().map(|named| named.kind.as_str());
        let exists = is_there((kind.unwrap_or_default(), &refusal));
        if let Some(named) = &defined.named {
            state.name(named.clone(), &refusal.root);
            if !exists {
                state.extensions.add_of_text(named, &refusal);
            }
        }
        if let Some(table) = &defined.table {
            state.tables.insert(table.clone(), refusal.clone());
            let under = state.refused_under.entry(table.clone()).or_default();
            if exists {
                under.remove(path);
            } else {
                under.insert(path.to_owned());
            }
        }
        self.refusals.add(refusal);
    }

    /// The server refused a setting of SQL text.
    pub(crate) fn refuse_setting(&self, statement: &str, e: DatabaseError) {
        let name: String = alone(statement).replace('\'', "");
        let refusal = self.refusal_of(name.chars().take(LONGEST_SETTING).collect(), &e);
        let mut state = self.state.lock();
        let before = state.settings.insert(statement.to_owned(), refusal.clone());
        if before.is_none() {
            let name = refusal.entry.clone();
            state.count(&refusal, || hints::with_hint(e, None).context(&name));
            self.refusals.add(refusal);
        }
    }

    /// The same settings without those that the server refused; `None` if it refused none of them.
    pub(crate) fn accepted(&self, wanted: &Settings) -> Option<Settings> {
        let state = self.state.lock();
        let refused = &state.settings;
        let is_one = |sql: &str| refused.contains_key(sql);
        let has_one = !refused.is_empty() && wanted.iter().any(|(_, sql)| is_one(sql));
        has_one.then(|| wanted.only(|sql| !is_one(sql)))
    }

    /// The refused setting that statements of SQL text need, out of those that they have in the text.
    pub(crate) fn refused_setting(&self, of: &Settings) -> Option<Refusal> {
        let state = self.state.lock();
        let refused = &state.settings;
        if refused.is_empty() {
            return None;
        }
        let mut needed = of.iter().filter(|(name, _)| is_needed(name));
        needed.find_map(|(_, setting)| refused.get(setting).cloned())
    }

    /// Leaves out a statement of SQL text with what was refused before.
    pub(crate) fn leave_out_statement(&self, (defined, path): (&Defined, &str), cause: &Refusal) {
        self.add_statement((defined, path), cause.of_dependent(defined.entry.clone()));
    }

    /// Leaves out the value of a sequence in SQL text, by this refusal.
    pub(crate) fn leave_out_value(&self, defined: &Defined, refusal: Refusal) {
        self.add_statement((defined, ""), refusal);
    }

    /// What the record says of a refusal; of a statement of SQL text if `unit` is its number.
    pub(crate) fn to_record(
        &self,
        unit: UnitId,
        part: RefusedPart,
        e: &DatabaseError,
    ) -> RefusedDone {
        RefusedDone {
            unit,
            after: self.refusals.count(),
            part: part.as_str().to_owned(),
            sqlstate: e.sqlstate().unwrap_or_default().to_owned(),
            message: message_of(e),
        }
    }

    /// The server refused entries, or parts of them, in earlier attempts, which is not tried again.
    pub(crate) fn remember(&self, entries: &[TocEntry], resumed: &Resumed) {
        let refused = resumed.refused();
        if refused.is_empty() {
            return;
        }
        let by_unit = entries.iter().map(|e| (UnitId::of(e), e));
        let by_unit: HashMap<UnitId, &TocEntry> = by_unit.collect();
        for one in refused {
            let entry = by_unit.get(&one.unit).copied();
            let Some((entry, part)) = entry.zip(RefusedPart::parse(&one.part)) else {
                continue;
            };
            // An entry of which the rest does not exist is tried again.
            if part == RefusedPart::Whole || resumed.is_done(one.unit, EntryPart::Whole) {
                self.refuse(entries, (entry, part), error_of(one));
            }
        }
    }

    /// The server refused `part` of an entry with the error `e`.
    pub(crate) fn refuse(
        &self,
        entries: &[TocEntry],
        (entry, part): (&TocEntry, RefusedPart),
        e: DatabaseError,
    ) {
        let name = match part {
            RefusedPart::Whole | RefusedPart::Statement => entry.name(),
            RefusedPart::Owner => owner_of(&entry.name()),
            RefusedPart::Method => format!("ACCESS METHOD OF {}", entry.name()),
        };
        let refusal = self.refusal_of(name, &e);
        let mut state = self.state.lock();
        let refusal = state.grouped((entry, part), refusal);
        let is_new = self.refusals.add(refusal.clone());
        state.refused += usize::from(is_new && refusal.caused_by.is_none());
        if state.first.is_none() {
            let error = hints::with_hint(e, Some(entry)).context(&entry.name());
            state.first = Some(error);
        }
        if part != RefusedPart::Whole {
            return;
        }
        if is_there((entry.kind.as_str(), &refusal)) {
            let named = Named::of(entry);
            state.name(named.clone(), &refusal.root);
            state.existing.insert(entry.dump_id, (named, refusal));
        } else {
            self.leave_out(entries, (entry, &refusal), &mut state);
        }
    }

    fn refusal_of(&self, name: String, e: &DatabaseError) -> Refusal {
        let message = message_of(e);
        let (message, cause) = match self.denied_here(&message) {
            Some(denied) => (denied, Some(RESTORED_DATABASE.to_owned())),
            None => {
                let cause = cause_in(&message);
                (message, cause)
            }
        };
        let followed = self.followed(e.sqlstate().unwrap_or_default(), &message);
        let root = followed.clone().or(cause);
        Refusal {
            root: root.unwrap_or_else(|| name.clone()),
            entry: name,
            sqlstate: e.sqlstate().map(str::to_owned),
            message,
            caused_by: followed,
        }
    }

    /// The message without the name of the database if it denies a right on it.
    fn denied_here(&self, message: &str) -> Option<String> {
        let before = message.strip_suffix(self.database.as_str())?;
        let is_denied = before == "permission denied for database ";
        is_denied.then(|| "permission denied for the restored database".to_owned())
    }

    /// The root cause of an error that says that something does not exist, if that was left out. An old archive does not
    /// list every dependency.
    fn followed(&self, sqlstate: &str, message: &str) -> Option<String> {
        let state = self.state.lock();
        let names = absent_names(sqlstate, message);
        names.iter().find_map(|absent| {
            let mut known = state.by_name.get(absent.name)?.iter();
            let (_, root) = known.find(|(named, _)| absent.is(named))?;
            Some(root.clone())
        })
    }

    /// Whether an error says that something does not exist that was left out.
    pub(crate) fn is_consequence(&self, e: &DatabaseError) -> bool {
        let code = e.sqlstate().unwrap_or_default();
        self.followed(code, &message_of(e)).is_some()
    }

    /// Leaves out an entry and everything that depends on it.
    fn leave_out(
        &self,
        entries: &[TocEntry],
        (entry, refusal): (&TocEntry, &Refusal),
        state: &mut State,
    ) {
        let root = &refusal.root;
        let (roots, kept) = (&mut state.roots, &mut state.kept);
        roots.insert(entry.dump_id, root.clone());
        let graph = &*state.graph.get_or_insert_with(|| Graph::of(entries));
        // A table goes without its access method, which its extension may bring. It is tried: it may need more of it.
        let brings_methods = matches!(entry.kind, EntryKind::AccessMethod | EntryKind::Extension);
        let is_kept = |id: DumpId| {
            let dependent = graph.places.get(&id).and_then(|place| entries.get(*place));
            brings_methods && dependent.is_some_and(is_stored)
        };
        let new = graph
            .dependents
            .of_entry(entry.dump_id, |id| match roots.entry(id) {
                Entry::Vacant(_) if is_kept(id) => {
                    kept.entry(id).or_insert_with(|| refusal.clone());
                    false
                }
                Entry::Vacant(place) => {
                    place.insert(root.clone());
                    true
                }
                Entry::Occupied(_) => false,
            });
        let places = new.iter().filter_map(|id| graph.places.get(id).copied());
        let mut places: Vec<usize> = places.collect();
        places.sort_unstable();
        state.name(Named::of(entry), root);
        state.extensions.add(entry, refusal);
        for e in places.into_iter().filter_map(|place| entries.get(place)) {
            state.name(Named::of(e), root);
            let with_it = refusal.of_dependent(e.name());
            state.extensions.add(e, &with_it);
            if is_named(e) {
                self.refusals.add(with_it);
            }
        }
    }

    /// Whether the server may lack the table of these rows, or the sequence of this value, because it is of an extension
    /// that is left out.
    pub(crate) fn may_lack_object_of(&self, data: &TocEntry) -> bool {
        let is_data = matches!(data.kind, EntryKind::TableData | EntryKind::SequenceSet);
        let may_be = self.state.lock().may_be_of_extension(data);
        is_data && may_be && !self.has(data)
    }

    /// Leaves out rows, or the value of a sequence: the server does not have what they belong to, or something else by its
    /// name.
    pub(crate) fn leave_out_data(&self, data: &TocEntry) {
        let mut state = self.state.lock();
        let schema = data.namespace.as_deref();
        let of_table = state.of_existing_table(data);
        let of_table = of_table.map(|table| table.of_dependent(data.name()));
        let of_extension = || state.extensions.refusal_of(schema, data.name());
        let Some(refusal) = of_table.or_else(of_extension) else {
            return;
        };
        let before = state.roots.insert(data.dump_id, refusal.root.clone());
        if before.is_none() {
            self.refusals.add(refusal);
        }
    }

    /// Leaves out rows of SQL text whose table was refused, or is of an extension that is left out. They are named once
    /// for each table. `path`: the search path that the name needs.
    pub(crate) fn leave_out_rows_of_text(&self, data: &TocEntry, path: &str) {
        let mut state = self.state.lock();
        let name = format!("TABLE DATA {}", data.tag);
        let refused = table_named(&data.tag).and_then(|table| state.tables.get(&table));
        let refusal = match refused {
            Some(table) => Some(table.of_dependent(name)),
            None => state.extensions.refusal_of(schema_in(&data.tag), name),
        };
        let table = (path.to_owned(), data.tag.clone());
        if let Some(refusal) = refusal
            && state.without_rows.insert(table)
        {
            self.refusals.add(refusal);
        }
    }

    /// The refusal of what belongs to an object with this name in SQL text, `schema.name`, that an extension would have
    /// created; `None` if no extension is missing.
    pub(crate) fn of_missing_extension(&self, name: &str, entry: String) -> Option<Refusal> {
        let state = self.state.lock();
        state.extensions.refusal_of(schema_in(name), entry)
    }

    /// The error of a load that stops at what the server refuses, with everything that was refused so far.
    pub(crate) fn take_error(&self) -> Option<DatabaseError> {
        if self.skips() {
            return None;
        }
        let mut state = self.state.lock();
        let first = state.first.take()?;
        let error = match state.refused.saturating_sub(1) {
            0 => first,
            more => first.followed_by(&format!("; and {more} more refused")),
        };
        Some(error.with_refusals(self.refusals.found()))
    }
}

/// Whether the server refused an object of this kind because there is one, so that what depends on it may go in. The script
/// of an extension may be what creates an object that is there: the extension itself is missing then.
fn is_there((kind, refusal): (&str, &Refusal)) -> bool {
    let is_duplicate = refusal.sqlstate.as_deref().is_some_and(is_duplicate);
    let is_about_it = kind != "EXTENSION" || refusal.message.starts_with("extension ");
    is_duplicate && is_about_it && refusal.caused_by.is_none()
}

/// The server's answer, as it was recorded.
pub(crate) fn error_of(refused: &RefusedDone) -> DatabaseError {
    let RefusedDone {
        sqlstate, message, ..
    } = refused;
    let kind = kind_of_sqlstate(sqlstate, message);
    DatabaseError::new(kind, message.clone()).with_sqlstate(sqlstate)
}

/// What the owner of an entry with this name is called.
pub(crate) fn owner_of(name: &str) -> String {
    format!("OWNER OF {name}")
}

/// The schema in the name of an object in SQL text.
fn schema_in(name: &str) -> Option<&str> {
    let (schema, _) = name.split_once('.')?;
    Some(schema.trim_matches('"'))
}

/// Whether an entry is stored by a table access method that it can do without.
pub(crate) fn is_stored(e: &TocEntry) -> bool {
    let method = e.table_am.as_deref().unwrap_or_default();
    !matches!(method, "" | "heap")
}

/// Whether a result names an entry that was left out with another one. A rehearsal has no rows to load, but those of a
/// table would be left out with it.
fn is_named(e: &TocEntry) -> bool {
    let has_rows = matches!(
        e.kind,
        EntryKind::TableData | EntryKind::MaterializedViewData
    );
    has_rows || !is_skipped(e)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::DatabaseKind as D;
    use crate::work_record::Body;

    fn entry(id: i32, desc: &str, tag: &str, dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.iter().copied().map(DumpId).collect(),
            defn: "CREATE".into(),
            ..TocEntry::bare(id, desc, tag)
        }
    }

    fn refused(code: &str, message: &str) -> DatabaseError {
        let text = format!("statement: {message} [{code}]");
        DatabaseError::new(D::StatementRejected, text).with_sqlstate(code)
    }

    fn told(refusals: &Refusals) -> Vec<(String, String, Option<String>)> {
        let found = refusals.found().into_iter();
        found.map(|r| (r.entry, r.root, r.caused_by)).collect()
    }

    #[test]
    fn what_depends_on_a_refused_entry_is_left_out_with_it() {
        let entries = [
            entry(1, "EXTENSION", "postgis", &[]),
            entry(2, "TABLE", "t", &[1]),
            entry(3, "TABLE DATA", "t", &[2]),
            entry(4, "TABLE", "u", &[]),
            entry(5, "VIEW", "v", &[4, 2]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let e = refused("0A000", "extension \"postgis\" is not available");
        left_out.refuse(&entries, (&entries[0], RefusedPart::Whole), e);
        let (root, cause) = ("EXTENSION postgis", Some("EXTENSION postgis".to_owned()));
        let wanted = ["EXTENSION postgis", "TABLE t", "TABLE DATA t", "VIEW v"];
        let wanted: Vec<_> = wanted
            .into_iter()
            .map(|e| {
                let caused_by = cause.clone().filter(|_| e != root);
                (e.to_owned(), root.to_owned(), caused_by)
            })
            .collect();
        assert_eq!(told(&refusals), wanted);
        assert!(left_out.has(&entries[4]) && !left_out.has(&entries[3]));
        assert_eq!(left_out.tables(&entries), 1);
        assert!(!left_out.is_stopping() && left_out.take_error().is_none());
        let first = &refusals.found()[0];
        assert_eq!(first.message, "extension \"postgis\" is not available");
        assert_eq!(first.sqlstate.as_deref(), Some("0A000"));
    }

    /// Also if the archive does not list the dependency.
    #[test]
    fn an_error_about_what_was_refused_has_its_root() {
        let entries = [
            entry(1, "FUNCTION", "f(integer)", &[]),
            entry(2, "TABLE", "t", &[]),
            entry(3, "TRIGGER", "t x", &[]),
            entry(4, "RULE", "t y", &[]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let language = refused("42704", "language \"plv8\" does not exist");
        left_out.refuse(&entries, (&entries[0], RefusedPart::Whole), language);
        let function = refused("42883", "function public.f(integer) does not exist");
        left_out.refuse(&entries, (&entries[1], RefusedPart::Whole), function);
        let other = refused("42P01", "relation \"public.other\" does not exist");
        left_out.refuse(&entries, (&entries[2], RefusedPart::Whole), other);
        // Another kind of object with the name of the function.
        let relation = refused("42P01", "relation \"public.f\" does not exist");
        left_out.refuse(&entries, (&entries[3], RefusedPart::Whole), relation);
        let roots: Vec<String> = refusals.found().into_iter().map(|r| r.root).collect();
        assert_eq!(
            roots,
            ["LANGUAGE plv8", "LANGUAGE plv8", "TRIGGER t x", "RULE t y"]
        );
    }

    /// What depends on it is tried with the one that is there, and the refusal is reported once.
    #[test]
    fn an_object_that_is_there_leaves_nothing_out() {
        let entries = [
            of_schema(1, "TABLE", ("s", "t"), &[]),
            of_schema(2, "TABLE DATA", ("s", "t"), &[1]),
            of_schema(3, "INDEX", ("s", "i"), &[1]),
            of_schema(4, "TABLE DATA", ("s", "u"), &[]),
            of_schema(5, "EXTENSION", ("s", "x"), &[]),
            of_schema(6, "VIEW", ("s", "v"), &[5]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let e = refused("42P07", "relation \"t\" already exists");
        left_out.refuse(&entries, (&entries[0], RefusedPart::Whole), e);
        assert_eq!(told(&refusals).len(), 1);
        // Its other steps would be refused, too.
        let left: Vec<bool> = entries.iter().map(|e| left_out.has(e)).collect();
        assert_eq!(left, [true, false, false, false, false, false]);
        assert!(left_out.are_for_existing(&entries[1]));
        assert!(!left_out.are_for_existing(&entries[3]));
        // The one that is there is not a table, or has other columns.
        left_out.leave_out_data(&entries[1]);
        left_out.leave_out_data(&entries[1]);
        let wanted = [
            ("TABLE s.t", "TABLE s.t", None),
            ("TABLE DATA s.t", "TABLE s.t", Some("TABLE s.t")),
        ];
        let wanted = wanted.map(|(entry, root, by)| {
            let caused_by = by.map(str::to_owned);
            (entry.to_owned(), root.to_owned(), caused_by)
        });
        assert_eq!(told(&refusals), wanted);
        // The extension's script creates what is there: the extension is missing.
        let e = refused(
            "42723",
            "function \"f\" already exists with same argument types",
        );
        left_out.refuse(&entries, (&entries[4], RefusedPart::Whole), e);
        assert!(left_out.has(&entries[5]));
    }

    #[test]
    fn rows_of_text_are_for_the_table_that_is_there() {
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let rows = |table: &str| TocEntry::bare(1, "TABLE DATA", table);
        for (sql, code, message) in [
            (
                "CREATE TABLE shop.t (a int);",
                "42P07",
                "relation \"t\" already exists",
            ),
            (
                "CREATE TABLE shop.u (a poinx);",
                "42704",
                "type \"poinx\" does not exist",
            ),
            (
                "CREATE EXTENSION x;",
                "42710",
                "extension \"x\" already exists",
            ),
        ] {
            let defined = crate::script::defined_by(sql).unwrap();
            left_out.refuse_statement((&defined, "p"), ("line 1", refused(code, message)));
        }
        assert!(left_out.are_for_existing(&rows("shop.t")));
        assert!(!left_out.are_for_existing(&rows("shop.u")));
        assert!(!left_out.is_refused_under(&rows("shop.t"), "p"));
        assert!(left_out.is_refused_under(&rows("shop.u"), "p"));
        // The extension is not missing.
        assert!(!left_out.may_lack_object_of(&rows("x.job")));
        assert_eq!(refusals.found().len(), 3, "each once");
    }

    /// The result of a restore that goes on lists what the attempts before it were refused, as these would have.
    #[test]
    fn what_was_refused_before_is_left_out_again() {
        let entries = [
            of_schema(1, "EXTENSION", ("gis", "postgis"), &[]),
            entry(2, "TABLE", "t", &[1]),
            entry(3, "TABLE DATA", "t", &[2]),
            entry(4, "TABLE", "u", &[]),
            entry(5, "VIEW", "v", &[]),
        ];
        let refusals = || Arc::new(Refusals::new(OnError::Skip));
        let (first, second) = (refusals(), refusals());
        let left_out = LeftOut::new(first.clone(), "staging");
        let mut recorded = vec![];
        let said = [
            (
                0,
                RefusedPart::Whole,
                "0A000",
                "extension \"postgis\" is not available",
            ),
            (
                3,
                RefusedPart::Owner,
                "42704",
                "role \"app\" does not exist",
            ),
            // As an old archive, which does not list the dependency.
            (
                4,
                RefusedPart::Whole,
                "42P01",
                "relation \"public.t\" does not exist",
            ),
            (
                3,
                RefusedPart::Whole,
                "42P07",
                "relation \"u\" already exists",
            ),
        ];
        for (i, part, code, message) in said {
            let e = refused(code, message);
            recorded.push(left_out.to_record(UnitId::of(&entries[i]), part, &e));
            left_out.refuse(&entries, (&entries[i], part), e);
        }
        let again = LeftOut::new(second.clone(), "staging");
        assert_eq!(recorded[2].after, 4);
        let body = Body {
            refused: recorded,
            ..Body::of_entries(vec![(UnitId(4), EntryPart::Whole)])
        };
        again.remember(&entries, &Resumed::of(body));
        assert_eq!(second.found(), first.found());
        assert!(second.found().len() > said.len(), "{:?}", second.found());
        for e in &entries {
            assert_eq!(again.has(e), left_out.has(e), "{}", e.name());
        }
        assert!(again.are_for_existing(&entry(9, "TABLE DATA", "u", &[])));
    }

    /// Privileges that another role grants are not granted by the restoring role.
    #[test]
    fn what_needs_a_refused_setting_is_left_out() {
        const SET: &str = "SET SESSION AUTHORIZATION 'gone';";
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let settings = Settings::default()
            .with("x".to_owned(), "SET x = 1;".to_owned())
            .with("session_authorization".to_owned(), SET.to_owned());
        let grant = "GRANT SELECT ON TABLE public.t TO a;";
        assert_eq!(left_out.accepted(&settings), None);
        assert_eq!(left_out.refused_setting(&settings), None);
        for _ in 0..2 {
            let e = refused("42704", "role \"gone\" does not exist");
            left_out.refuse_setting(SET, e);
        }
        let kept = left_out.accepted(&settings).unwrap();
        assert_eq!(
            (kept.get("x"), kept.get("session_authorization")),
            (Some("SET x = 1;"), None)
        );
        let cause = left_out.refused_setting(&settings).unwrap();
        let defined = crate::script::defined_by(grant).unwrap();
        left_out.leave_out_statement((&defined, ""), &cause);
        let set = "SET SESSION AUTHORIZATION gone".to_owned();
        let wanted = [
            (set.clone(), "ROLE gone".to_owned(), None),
            (grant.to_owned(), "ROLE gone".to_owned(), Some(set)),
        ];
        assert_eq!(told(&refusals), wanted);
        assert_eq!(left_out.refused_setting(&Settings::default()), None);
    }

    #[test]
    fn text_stops_with_all_that_was_refused_of_it() {
        let refusals = Arc::new(Refusals::new(OnError::Stop));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        for (sql, code, message) in [
            (
                "CREATE EXTENSION a;",
                "0A000",
                "extension \"a\" is not available",
            ),
            (
                "CREATE TABLE t (a b);",
                "42704",
                "type \"b\" does not exist",
            ),
            (
                "ALTER TABLE t OWNER TO x;",
                "42P01",
                "relation \"t\" does not exist",
            ),
        ] {
            let defined = crate::script::defined_by(sql).unwrap();
            left_out.refuse_statement((&defined, ""), ("line 1", refused(code, message)));
        }
        assert!(left_out.is_stopping());
        let error = left_out.take_error().unwrap();
        assert_eq!(
            error.to_string(),
            "line 1: statement: extension \"a\" is not available [0A000]; and 1 more refused"
        );
        assert_eq!(crate::error::RestoreError::from(error).refusals().len(), 3);
        assert!(left_out.take_error().is_none());
    }

    /// Its rows are worth more than the way in which they are stored.
    #[test]
    fn a_table_is_kept_without_its_access_method() {
        let columnar = TocEntry {
            table_am: Some("columnar".to_owned()),
            ..entry(2, "TABLE", "t", &[1])
        };
        let entries = [
            entry(1, "ACCESS METHOD", "columnar", &[]),
            columnar,
            entry(3, "TABLE DATA", "t", &[2]),
            entry(4, "OPERATOR CLASS", "c", &[1]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let e = refused(
            "42501",
            "permission denied to create access method \"columnar\"",
        );
        left_out.refuse(&entries, (&entries[0], RefusedPart::Whole), e);
        let e = refused("42704", "access method \"columnar\" does not exist");
        left_out.refuse(&entries, (&entries[1], RefusedPart::Method), e);
        let found: Vec<String> = refusals.found().into_iter().map(|r| r.entry).collect();
        let table = "ACCESS METHOD OF TABLE t";
        assert_eq!(found, ["ACCESS METHOD columnar", "OPERATOR CLASS c", table]);
        let root = "ACCESS METHOD columnar";
        assert!(refusals.found().iter().all(|r| r.root == root));
        assert!(!left_out.has(&entries[1]) && !left_out.has(&entries[2]));
    }

    /// Whatever it is called while it is loaded: a rehearsal has another name for it.
    #[test]
    fn a_right_on_the_restored_database_is_one_cause() {
        let entries = [entry(1, "PUBLICATION", "p", &[])];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        for database in ["staging", "other"] {
            let e = refused(
                "42501",
                &format!("permission denied for database {database}"),
            );
            left_out.refuse(&entries, (&entries[0], RefusedPart::Owner), e);
        }
        let found = refusals.found();
        let said = |i: usize| (found[i].message.as_str(), found[i].root.as_str());
        let ours = "permission denied for the restored database";
        assert_eq!(said(0), (ours, RESTORED_DATABASE));
        let other = "permission denied for database other";
        assert_eq!(said(1), (other, "DATABASE other"));
    }

    #[test]
    fn an_owner_is_refused_without_its_table() {
        let entries = [
            entry(1, "TABLE", "t", &[]),
            entry(2, "TABLE DATA", "t", &[1]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Stop));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        for _ in 0..2 {
            let e = refused("42704", "role \"app\" does not exist");
            left_out.refuse(&entries, (&entries[0], RefusedPart::Owner), e);
        }
        let wanted = ("OWNER OF TABLE t".to_owned(), "ROLE app".to_owned(), None);
        assert_eq!(told(&refusals), [wanted], "each once");
        assert!(!left_out.has(&entries[0]) && left_out.is_stopping());
        let error = left_out.take_error().unwrap();
        let text = error.to_string();
        assert!(
            text.starts_with("TABLE t: statement: role \"app\" does not exist [42704]"),
            "{text}"
        );
        assert!(!text.contains(" more refused"), "{text}");
        let error = crate::error::RestoreError::from(error);
        assert_eq!(error.refusals().len(), 1);
    }

    fn of_schema(
        id: i32,
        desc: &str,
        (schema, tag): (&str, &str),
        dependencies: &[i32],
    ) -> TocEntry {
        TocEntry {
            namespace: (desc != "EXTENSION").then(|| schema.to_owned()),
            defn: format!("CREATE {desc} {tag} WITH SCHEMA {schema};\n"),
            ..entry(id, desc, tag, dependencies)
        }
    }

    #[test]
    fn data_and_privileges_of_a_missing_extension_have_it_as_their_root() {
        let entries = [
            of_schema(1, "EXTENSION", ("vault", "supabase_vault"), &[]),
            of_schema(2, "EXTENSION", ("cron", "pg_cron"), &[]),
            of_schema(3, "TABLE", ("cron", "mine"), &[]),
            of_schema(4, "TABLE DATA", ("cron", "mine"), &[3]),
            of_schema(5, "TABLE DATA", ("cron", "job"), &[99]),
            of_schema(6, "SEQUENCE SET", ("cron", "jobid_seq"), &[]),
            of_schema(7, "ACL", ("vault", "TABLE secrets"), &[]),
            of_schema(8, "ACL", ("cron", "TABLE mine"), &[3]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        assert!(!left_out.may_lack_object_of(&entries[4]));
        for extension in &entries[..2] {
            let e = refused("0A000", "extension \"x\" is not available");
            left_out.refuse(&entries, (extension, RefusedPart::Whole), e);
        }
        let may_lack = entries.iter().filter(|e| left_out.may_lack_object_of(e));
        let may_lack: Vec<String> = may_lack.map(TocEntry::name).collect();
        assert_eq!(
            may_lack,
            ["TABLE DATA cron.job", "SEQUENCE SET cron.jobid_seq"]
        );
        for data in &entries[4..6] {
            left_out.leave_out_data(data);
            left_out.leave_out_data(data);
        }
        assert!(left_out.has(&entries[4]) && !left_out.may_lack_object_of(&entries[4]));
        assert_eq!(left_out.tables(&entries), 1);
        for acl in &entries[6..] {
            let e = refused("42P01", "relation \"x\" does not exist");
            left_out.refuse(&entries, (acl, RefusedPart::Statement), e);
        }
        let role = refused("42704", "role \"app\" does not exist");
        left_out.refuse(&entries, (&entries[6], RefusedPart::Statement), role);
        let found = refusals.found();
        let roots = found[2..]
            .iter()
            .map(|r| (r.entry.as_str(), r.root.as_str()));
        let wanted = [
            ("TABLE DATA cron.job", "EXTENSION pg_cron"),
            ("SEQUENCE SET cron.jobid_seq", "EXTENSION pg_cron"),
            ("ACL vault.TABLE secrets", "EXTENSION supabase_vault"),
            ("ACL cron.TABLE mine", "ACL cron.TABLE mine"),
            ("ACL vault.TABLE secrets", "ROLE app"),
        ];
        assert_eq!(roots.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn rows_of_text_go_with_the_extension_of_their_schema() {
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        assert_eq!(
            left_out.of_missing_extension("cron.job", String::new()),
            None
        );
        let rows = |table: &str| TocEntry::bare(1, "TABLE DATA", table);
        let root_of = |table: &str| {
            for _ in 0..2 {
                left_out.leave_out_rows_of_text(&rows(table), "");
            }
            let last = refusals.found().pop().unwrap();
            assert_eq!(last.entry, format!("TABLE DATA {table}"));
            last.root
        };
        for (i, sql) in [
            "CREATE EXTENSION IF NOT EXISTS other WITH SCHEMA gis;",
            "CREATE EXTENSION pg_cron WITH SCHEMA pg_catalog;",
            "CREATE EXTENSION postgis WITH SCHEMA public;",
        ]
        .into_iter()
        .enumerate()
        {
            let defined = crate::script::defined_by(sql).unwrap();
            let e = refused("0A000", "extension \"x\" is not available");
            left_out.refuse_statement((&defined, ""), ("line 1", e));
            if i == 0 {
                assert_eq!(root_of("apart"), "EXTENSION other", "there is no other one");
            }
        }
        assert!(left_out.may_lack_object_of(&rows("cron.job")));
        assert!(!left_out.may_have_rows_of(&rows("cron.job")));
        assert_eq!(root_of("cron.job"), "EXTENSION pg_cron");
        assert_eq!(root_of("public.spatial_ref_sys"), "EXTENSION postgis");
        // Nothing says which one it is of.
        assert_eq!(root_of("ours.t"), "TABLE DATA ours.t");
        assert_eq!(left_out.tables(&[]), 4);
    }

    /// Some of its rows would be in the table, and it would count as loaded.
    #[test]
    fn all_sessions_do_the_same_with_the_rows_of_a_node() {
        let left_out = LeftOut::new(Arc::new(Refusals::new(OnError::Skip)), "staging");
        let (loaded, dropped) = (NodeId(1), NodeId(2));
        assert_eq!(left_out.decided(loaded), None);
        assert_eq!(left_out.decide(loaded, false), (false, true));
        assert_eq!(left_out.decide(loaded, true), (false, false));
        assert_eq!(left_out.decide(dropped, true), (true, true));
        assert_eq!(left_out.decide(dropped, false), (true, false));
        assert_eq!(left_out.decided(dropped), Some(true));
    }

    /// `pg_dump` lets such a table depend on the extension, and not on its access method.
    #[test]
    fn a_table_is_kept_without_the_extension_of_its_access_method() {
        let stored = |id: i32, tag: &str| TocEntry {
            table_am: Some("columnar".to_owned()),
            ..entry(id, "TABLE", tag, &[1])
        };
        let entries = [
            entry(1, "EXTENSION", "citus_columnar", &[]),
            stored(2, "t"),
            entry(3, "TABLE DATA", "t", &[2]),
            stored(4, "u"),
            entry(5, "TABLE DATA", "u", &[4]),
        ];
        let refusals = Arc::new(Refusals::new(OnError::Skip));
        let left_out = LeftOut::new(refusals.clone(), "staging");
        let e = refused("0A000", "extension \"citus_columnar\" is not available");
        left_out.refuse(&entries, (&entries[0], RefusedPart::Whole), e);
        let e = refused("42704", "access method \"columnar\" does not exist");
        left_out.refuse(&entries, (&entries[1], RefusedPart::Method), e);
        assert!(!left_out.has(&entries[1]) && !left_out.has(&entries[2]));
        // It needs more of the extension.
        let e = refused("42704", "type \"public.vector\" does not exist");
        left_out.refuse(&entries, (&entries[3], RefusedPart::Whole), e);
        assert!(left_out.has(&entries[3]) && left_out.has(&entries[4]));
        let root = "EXTENSION citus_columnar";
        let wanted = [root, "ACCESS METHOD OF TABLE t", "TABLE u", "TABLE DATA u"];
        let told = told(&refusals);
        assert!(told.iter().all(|(_, r, _)| r == root), "{told:?}");
        assert!(told.iter().map(|(entry, ..)| entry.as_str()).eq(wanted));
    }
}
