//! What a backup needs of a server, as far as its entries show it.

use std::collections::BTreeSet;

use crate::database_options::DatabaseOptions;
use crate::policy::Owners;
use crate::rewrite::Rewriter;
use crate::roles::mentions;
use pgdump_archive::{Archive, Codec, Dialect, EntryKind, Filter, Header, TocEntry, statements};

/// What the entries of a backup require of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "cli", schemars(rename = "Needs"))]
pub struct Requirements {
    /// Extensions that the dump creates.
    pub extensions: BTreeSet<String>,
    /// Owners, and roles in privileges and policies.
    pub roles: BTreeSet<String>,
    /// Those of them that own something.
    pub owners: BTreeSet<String>,
    /// Those of them that appear in GRANT or REVOKE.
    pub grantees: BTreeSet<String>,
    /// Those of them in policies and user mappings.
    pub named: BTreeSet<String>,
    /// Tablespaces that objects of the dump are in, without the default one.
    pub tablespaces: BTreeSet<String>,
    /// Table access methods.
    pub access_methods: BTreeSet<String>,
    /// Encoding of the dump's text, by PostgreSQL's name.
    pub encoding: String,
    /// The options of `CREATE DATABASE` that choose the locale, if the dump has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// Number of large objects.
    pub large_objects: u64,
    /// Estimated size of the restored database in bytes, if the size of the backup is known: its rows, plus a third for
    /// indexes and page headers. Compressed rows are taken for a quarter of their size, because the backup does not say
    /// more before it is read, so formats of one database give different estimates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_bytes: Option<u64>,
    /// SQL text: only its beginning has been examined.
    pub only_the_beginning: bool,
}

impl Requirements {
    /// Collects the requirements of these entries; `stored` is the object's size in bytes, if known.
    pub fn of(archive: &Archive, entries: &[TocEntry], stored: Option<u64>) -> Self {
        let mut needs = Requirements {
            encoding: archive.encoding().name().to_owned(),
            only_the_beginning: archive.is_script(),
            estimated_bytes: stored.map(|n| estimate(archive, n)),
            locale: DatabaseOptions::of(entries).and_then(|o| o.locale_text()),
            large_objects: large_objects_in(entries),
            ..Requirements::default()
        };
        let of_content = entries.iter().filter(|e| !e.describes_database());
        of_content.for_each(|e| needs.add(e));
        needs
    }

    fn add(&mut self, e: &TocEntry) {
        let is_owned = !e.drop_stmt.is_empty() || e.defn.contains("OWNER TO");
        if !e.owner.is_empty() && is_owned && !is_plpgsql(e) {
            self.roles.insert(e.owner.clone());
            self.owners.insert(e.owner.clone());
        }
        match &e.kind {
            EntryKind::Extension => drop(self.extensions.insert(e.tag.clone())),
            EntryKind::Acl | EntryKind::DefaultAcl => self.add_roles(&e.defn, |n| &mut n.grantees),
            EntryKind::Policy | EntryKind::UserMapping => {
                self.add_roles(&e.defn, |n| &mut n.named);
            }
            _ => {}
        }
        let tablespace = e.tablespace.clone().filter(|t| !t.is_empty());
        self.tablespaces.extend(tablespace);
        self.access_methods.extend(e.table_am.clone());
    }

    /// Adds the roles that statements name, also to the set that `of_kind` returns.
    fn add_roles(&mut self, sql: &str, of_kind: impl Fn(&mut Self) -> &mut BTreeSet<String>) {
        let roles = roles_in(sql);
        of_kind(self).extend(roles.iter().cloned());
        self.roles.extend(roles);
    }

    /// The roles that the server must have under a policy, by their names on the server.
    pub(crate) fn roles_under<'a>(&'a self, rewriter: &'a Rewriter) -> BTreeSet<&'a str> {
        let owners = self
            .owners
            .iter()
            .filter(|_| rewriter.policy.owners != Owners::None);
        let grantees = self.grantees.iter().filter(|_| rewriter.policy.privileges);
        owners
            .chain(grantees)
            .chain(&self.named)
            .map(|r| rewriter.role(r))
            .collect()
    }
}

/// Whether an entry creates the language that every database has: it is skipped, with its owner.
fn is_plpgsql(e: &TocEntry) -> bool {
    e.kind == EntryKind::ProceduralLanguage && e.tag == "plpgsql"
}

/// Number of large objects that these entries create, also those without a byte, which have no data in the archive.
pub fn large_objects_in(entries: &[TocEntry]) -> u64 {
    let count = |e: &TocEntry| match e.kind {
        EntryKind::Blob => 1,
        EntryKind::BlobMetadata => {
            e.defn.lines().filter(|line| is_large_object(line)).count() as u64
        }
        _ => 0,
    };
    entries.iter().map(count).sum()
}

/// A table of contents has an OID per line, SQL text a statement, among others about the same objects.
fn is_large_object(line: &str) -> bool {
    line.starts_with(|c: char| c.is_ascii_digit()) || line.contains("lo_create(")
}

fn roles_in(sql: &str) -> BTreeSet<String> {
    let statements = statements(sql, Dialect::default()).into_iter();
    statements.flat_map(mentions).map(|m| m.role).collect()
}

/// How many times their stored size compressed rows are expected to have.
const EXPANSION: u64 = 4;

/// Uncompressed table data, plus a third for indexes and page headers.
fn estimate(archive: &Archive, stored: u64) -> u64 {
    let unpacked = if is_compressed(archive.header()) {
        stored.saturating_mul(EXPANSION)
    } else {
        stored
    };
    unpacked.saturating_add(unpacked / 3)
}

/// Whether anything in or around the backup compresses it. Encryption alone does not.
fn is_compressed(header: &Header) -> bool {
    header.codec != Codec::None || header.filters.iter().any(|f| *f != Filter::Age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_of_what_is_skipped_is_not_needed() {
        let mut needs = Requirements::default();
        for (name, owner) in [("plpgsql", "gone"), ("plperl", "there")] {
            let mut e = TocEntry::bare(1, "PROCEDURAL LANGUAGE", name);
            (e.owner, e.drop_stmt) = (owner.into(), format!("DROP LANGUAGE {name};"));
            needs.add(&e);
        }
        assert_eq!(needs.owners.iter().collect::<Vec<_>>(), ["there"]);
        assert_eq!(needs.roles, needs.owners);
    }

    #[test]
    fn every_large_object_is_counted_in_every_form() {
        let entry = |kind: &str, defn: &str| {
            let mut e = TocEntry::bare(1, kind, "1");
            e.defn = defn.to_owned();
            e
        };
        let one = entry("BLOB", "SELECT pg_catalog.lo_create('16390');");
        let of_toc = entry("BLOB METADATA", "16391\n16392\n");
        let of_text = entry(
            "BLOB METADATA",
            "SELECT pg_catalog.lo_create('16393');\nALTER LARGE OBJECT 16393 OWNER TO app;\n",
        );
        let table = entry("TABLE", "CREATE TABLE lo_create (a int)");
        assert_eq!(large_objects_in(&[one, of_toc, of_text, table]), 4);
    }
}
