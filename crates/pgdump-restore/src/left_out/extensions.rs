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
    fn is_namesake_of(&self, schema: &str) -> bool {
        self.name == schema || self.name.strip_prefix("pg_") == Some(schema)
    }

    fn is_in(&self, schema: &str) -> bool {
        self.schema.as_deref().is_some_and(|own| own == schema)
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
                schema: named.schema.clone(),
                refusal: refusal.clone(),
            });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The refusal of the one that an object in this schema is probably of; `None` if several share the schema.
    pub(super) fn of_schema(&self, schema: Option<&str>) -> Option<&Refusal> {
        let schema = schema?;
        let namesake = self.0.iter().find(|e| e.is_namesake_of(schema));
        let shares_it = || only(self.0.iter().filter(|e| e.is_in(schema)));
        let found = namesake.or_else(shares_it);
        found.map(|extension| &extension.refusal)
    }

    /// The refusal of rows or of the value of a sequence in this schema, which are left out because an extension that
    /// creates their table is missing; `None` if none is.
    pub(super) fn refusal_of(&self, schema: Option<&str>, entry: String) -> Option<Refusal> {
        let the_only_one = || only(self.0.iter()).map(|extension| &extension.refusal);
        match self.of_schema(schema).or_else(the_only_one) {
            Some(cause) => Some(cause.of_dependent(entry)),
            None if self.is_empty() => None,
            None => Some(Refusal {
                sqlstate: Some("42P01".to_owned()),
                message: OF_AN_EXTENSION.to_owned(),
                root: entry.clone(),
                entry,
                caused_by: None,
            }),
        }
    }
}

/// Why rows are left out if several extensions are missing, and nothing says which of them the rows are of.
const OF_AN_EXTENSION: &str = "what it belongs to does not exist: it probably belongs to one of the extensions that were refused";

/// The item, unless there are several.
fn only<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}
