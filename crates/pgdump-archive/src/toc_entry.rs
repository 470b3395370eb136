//! What every entry of a table of contents can say about itself.

use super::toc::{DataOffset, TocEntry, TocSection};
use super::{DumpId, EntryKind};

impl TocEntry {
    /// An entry with nothing but its kind and name.
    pub fn bare(dump_id: impl Into<DumpId>, kind: impl Into<EntryKind>, tag: &str) -> Self {
        TocEntry {
            dump_id: dump_id.into(),
            table_oid: 0,
            oid: 0,
            has_data: false,
            kind: kind.into(),
            tag: tag.to_owned(),
            section: TocSection::PreData,
            defn: String::new(),
            drop_stmt: String::new(),
            copy_stmt: String::new(),
            namespace: None,
            tablespace: None,
            table_am: None,
            relkind: None,
            owner: String::new(),
            with_oids: false,
            oids_in_data: false,
            dependencies: vec![],
            offset: DataOffset::NoData,
        }
    }

    /// All texts of the entry that may be non-ASCII.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let names = [
            &mut self.tag,
            &mut self.owner,
            &mut self.copy_stmt,
            &mut self.drop_stmt,
            &mut self.defn,
        ];
        let more = [
            &mut self.namespace,
            &mut self.tablespace,
            &mut self.table_am,
        ];
        names
            .into_iter()
            .chain(more.into_iter().filter_map(Option::as_mut))
    }

    /// The texts of the entry that have names, not definitions.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        let names = [&self.tag, &self.owner, &self.copy_stmt, &self.drop_stmt];
        names.into_iter().chain(
            [&self.namespace, &self.tablespace, &self.table_am]
                .into_iter()
                .flatten(),
        )
    }

    /// Whether the entry is about the database itself, not about something in it.
    pub fn describes_database(&self) -> bool {
        self.kind.as_str().starts_with("DATABASE") || self.tag.starts_with("DATABASE ")
    }

    /// `TABLE public.t`, for display.
    pub fn name(&self) -> String {
        format!("{} {}", self.kind, self.qualified_name())
    }

    /// The name with its schema, if it has one: `schema.name`.
    pub fn qualified_name(&self) -> String {
        match &self.namespace {
            Some(schema) => format!("{schema}.{}", self.tag),
            None => self.tag.clone(),
        }
    }
}
