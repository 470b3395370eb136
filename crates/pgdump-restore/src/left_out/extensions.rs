//! What belongs to tables, sequences and functions of an extension that is left out: their rows, values and privileges.
//! No entry defines these objects, so nothing depends on the extension in the table of contents.

use super::{LeftOut, State};
use crate::refusal::Refusal;
use crate::refusals::Named;
use crate::rewrite::schema_of_extension;
use crate::script::table_named;
use pgdump_archive::{DumpId, EntryKind, TocEntry};

/// SQLSTATEs that say that a table, a function, a type or a schema does not exist.
const ABSENT: [&str; 4] = ["42P01", "42883", "42704", "3F000"];

/// An extension that was refused or left out.
#[derive(Debug)]
pub(super) struct MissingExtension {
    name: String,
    /// The schema that it was to be created in.
    schema: Option<String>,
    refusal: Refusal,
}

impl MissingExtension {
    pub(super) fn of(entry: &TocEntry, refusal: &Refusal) -> Option<Self> {
        (entry.kind == EntryKind::Extension).then(|| MissingExtension {
            name: entry.tag.clone(),
            schema: schema_of_extension(entry).map(str::to_owned),
            refusal: refusal.clone(),
        })
    }

    pub(super) fn of_text(named: &Named, refusal: &Refusal) -> Option<Self> {
        (named.kind == "EXTENSION").then(|| MissingExtension {
            name: named.name.clone(),
            schema: None,
            refusal: refusal.clone(),
        })
    }

    /// Whether objects in this schema are probably its own.
    fn has_schema(&self, schema: &str) -> bool {
        let is_called_after = self.name == schema || self.name.strip_prefix("pg_") == Some(schema);
        is_called_after || self.schema.as_deref().is_some_and(|own| own == schema)
    }
}

impl State {
    /// The extension that an object in this schema is probably of.
    fn missing_extension(&self, schema: Option<&str>) -> Option<&MissingExtension> {
        let schema = schema?;
        self.extensions.iter().find(|e| e.has_schema(schema))
    }

    /// A refusal with its cause, if it is about what an extension that is left out would have created.
    pub(super) fn grouped(&self, entry: &TocEntry, refusal: Refusal) -> Refusal {
        let is_its_own_root = refusal.root == refusal.entry && refusal.caused_by.is_none();
        let is_absent = refusal.sqlstate.as_deref().is_some_and(is_absent);
        let may_be_of_extension = is_its_own_root
            && is_absent
            && entry.kind == EntryKind::Acl
            && self.may_be_of_extension(entry);
        if !may_be_of_extension {
            return refusal;
        }
        match self.missing_extension(entry.namespace.as_deref()) {
            Some(cause) => Refusal {
                root: cause.refusal.root.clone(),
                caused_by: Some(cause.refusal.entry.clone()),
                ..refusal
            },
            None => refusal,
        }
    }

    /// Whether an entry is about something that no entry defines, and that an extension that is left out may create.
    fn may_be_of_extension(&self, entry: &TocEntry) -> bool {
        let graph = self.graph.as_ref();
        let is_defined = |id: &DumpId| graph.is_some_and(|g| g.places.contains_key(id));
        !self.extensions.is_empty() && !entry.dependencies.iter().any(is_defined)
    }
}

/// Whether a SQLSTATE says that something does not exist.
pub(crate) fn is_absent(sqlstate: &str) -> bool {
    ABSENT.contains(&sqlstate)
}

impl LeftOut {
    /// Whether the server may lack the table of these rows, or the sequence of this value, because it is of an extension
    /// that is left out.
    pub(crate) fn may_lack_object_of(&self, data: &TocEntry) -> bool {
        let is_data = matches!(data.kind, EntryKind::TableData | EntryKind::SequenceSet);
        let may_be = self.state.lock().may_be_of_extension(data);
        is_data && may_be && !self.has(data)
    }

    /// Leaves out rows, or the value of a sequence: the server does not have what they belong to.
    pub(crate) fn leave_out_data(&self, data: &TocEntry) {
        let mut state = self.state.lock();
        let schema = data.namespace.as_deref();
        let cause = state.missing_extension(schema).or(state.extensions.first());
        let Some(cause) = cause.map(|extension| extension.refusal.clone()) else {
            return;
        };
        let root = cause.root.clone();
        let before = state.roots.insert(data.dump_id, root);
        if before.is_none() {
            self.refusals.add(cause.of_dependent(data.name()));
        }
    }

    /// The same for rows of SQL text, which are named when they are read, and dropped.
    pub(crate) fn leave_out_rows_of_text(&self, data: &TocEntry) {
        let Some(table) = table_named(&data.tag) else {
            return;
        };
        if let Some(cause) = self.missing_extension(&data.tag) {
            self.state.lock().tables.insert(table, cause);
        }
    }

    /// The refusal of the extension that an object with this name in SQL text, `schema.name`, is of.
    pub(crate) fn missing_extension(&self, name: &str) -> Option<Refusal> {
        let state = self.state.lock();
        let schema = name
            .split_once('.')
            .map(|(schema, _)| schema.trim_matches('"'));
        let found = state.missing_extension(schema).or(state.extensions.first());
        found.map(|extension| extension.refusal.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::{DatabaseError, DatabaseKind as D};
    use crate::left_out::RefusedPart;
    use crate::policy::OnError;
    use crate::refusals::Refusals;

    fn entry(id: i32, desc: &str, (schema, tag): (&str, &str), dependencies: &[i32]) -> TocEntry {
        TocEntry {
            dependencies: dependencies.iter().copied().map(DumpId).collect(),
            namespace: (desc != "EXTENSION").then(|| schema.to_owned()),
            defn: format!("CREATE {desc} {tag} WITH SCHEMA {schema};\n"),
            ..TocEntry::bare(id, desc, tag)
        }
    }

    fn refused(code: &str, message: &str) -> DatabaseError {
        let what = format!("statement: {message} [{code}]");
        DatabaseError::new(D::StatementRejected, what).with_sqlstate(code)
    }

    #[test]
    fn data_and_privileges_of_a_missing_extension_have_it_as_their_root() {
        let entries = [
            entry(1, "EXTENSION", ("vault", "supabase_vault"), &[]),
            entry(2, "EXTENSION", ("cron", "pg_cron"), &[]),
            entry(3, "TABLE", ("cron", "mine"), &[]),
            entry(4, "TABLE DATA", ("cron", "mine"), &[3]),
            entry(5, "TABLE DATA", ("cron", "job"), &[99]),
            entry(6, "SEQUENCE SET", ("cron", "jobid_seq"), &[]),
            entry(7, "ACL", ("vault", "TABLE secrets"), &[]),
            entry(8, "ACL", ("cron", "TABLE mine"), &[3]),
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
        assert_eq!(left_out.missing_extension("cron.job"), None);
        for sql in ["CREATE EXTENSION other;", "CREATE EXTENSION pg_cron;"] {
            let defined = crate::script::defined_by(sql).unwrap();
            let e = refused("0A000", "extension \"x\" is not available");
            left_out.refuse_statement(&defined, ("line 1", e));
        }
        let data = TocEntry::bare(1, "TABLE DATA", "cron.job");
        assert!(left_out.may_lack_object_of(&data) && !left_out.has_rows_of(&data));
        left_out.leave_out_rows_of_text(&data);
        assert!(left_out.has_rows_of(&data));
        let found = refusals.found();
        let last = found.last().map(|r| (r.entry.as_str(), r.root.as_str()));
        assert_eq!(last, Some(("TABLE DATA cron.job", "EXTENSION pg_cron")));
    }
}
