//! Extensions that a load leaves out, and what may be of them.

use crate::refusal::Refusal;
use crate::refusals::Named;
use crate::rewrite::schema_of_extension;
use pgdump_archive::{EntryKind, TocEntry};

/// SQLSTATEs that say that a table, a function, a type or a schema does not exist.
const ABSENT: [&str; 4] = ["42P01", "42883", "42704", "3F000"];

/// Whether a SQLSTATE says that something does not exist.
pub(crate) fn is_absent(sqlstate: &str) -> bool {
    ABSENT.contains(&sqlstate)
}

/// Extensions that were refused or left out.
#[derive(Debug, Default)]
pub(super) struct MissingExtensions(Vec<MissingExtension>);

#[derive(Debug)]
struct MissingExtension {
    name: String,
    /// The schema that it was to be created in.
    schema: Option<String>,
    refusal: Refusal,
}

impl MissingExtension {
    /// Whether objects in this schema are probably its own.
    fn has_schema(&self, schema: &str) -> bool {
        let is_called_after = self.name == schema || self.name.strip_prefix("pg_") == Some(schema);
        is_called_after || self.schema.as_deref().is_some_and(|own| own == schema)
    }
}

impl MissingExtensions {
    /// Adds an entry that is left out if it is an extension.
    pub(super) fn add(&mut self, entry: &TocEntry, refusal: &Refusal) {
        if entry.kind == EntryKind::Extension {
            self.0.push(MissingExtension {
                name: entry.tag.clone(),
                schema: schema_of_extension(entry).map(str::to_owned),
                refusal: refusal.clone(),
            });
        }
    }

    /// The same of SQL text.
    pub(super) fn add_of_text(&mut self, named: &Named, refusal: &Refusal) {
        if named.kind == "EXTENSION" {
            self.0.push(MissingExtension {
                name: named.name.clone(),
                schema: None,
                refusal: refusal.clone(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal of the one that an object in this schema is probably of.
    pub(super) fn of_schema(&self, schema: Option<&str>) -> Option<&Refusal> {
        let schema = schema?;
        let found = self.0.iter().find(|e| e.has_schema(schema));
        found.map(|extension| &extension.refusal)
    }

    /// The same, or the first one.
    pub(super) fn of_schema_or_any(&self, schema: Option<&str>) -> Option<&Refusal> {
        let first = || self.0.first().map(|extension| &extension.refusal);
        self.of_schema(schema).or_else(first)
    }
}
