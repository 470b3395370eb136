//! Shared by the formats with members: the table of contents in `toc.dat`, the data of one table, the large
//! objects and their list.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read};

use super::chunks::{DataSink, ObjectSplitter, split_statements};
use super::filters::{self, Origin};
use super::header::read_header;
use super::peek_reader::BoxedReader;
use super::row_splitter::{WithoutOids, split_table_rows};
use super::toc::{Toc, TocReader, corrupt, read_toc};
use super::{
    Codec, DataOffset, DumpId, EntryKind, Format, Header, Limits, ReadContext, TextEncoding,
    TocEntry, dialect_of,
};
use crate::error::ArchiveError;

/// Reads `toc.dat`.
pub(super) const TOC: &str = "toc.dat";

/// A table of contents whose data is in other members.
pub(super) struct MemberToc {
    pub header: Header,
    pub entries: Vec<TocEntry>,
    pub encoding: TextEncoding,
    pub context: ReadContext,
    /// Filters around `toc.dat`; every other member has the same ones in addition to its own.
    pub toc_filters: usize,
}

pub(super) fn read_member_toc(
    toc: BoxedReader<'_>,
    format: Format,
    limits: Limits,
    origin: Option<Origin>,
) -> Result<MemberToc, ArchiveError> {
    let keys = filters::DecryptionKeys::default();
    let (filters, _, mut input) = filters::unwrap(toc, &limits, &keys, origin.as_ref())?;
    let mut f = TocReader::new(&mut input, limits);
    f.members = true;
    let header = read_header(&mut f, format)?;
    let minor = header.version.map_or(0, |v| v.1);
    let Toc {
        entries, encoding, ..
    } = read_toc(&mut f, minor)?;
    let mut rest = [0u8; 1];
    if input
        .read(&mut rest)
        .map_err(|e| ArchiveError::from_io(e, TOC))?
        > 0
    {
        return Err(corrupt("there are bytes after the end of toc.dat"));
    }
    let context = ReadContext {
        limits,
        dialect: dialect_of(&entries, &encoding),
        origin,
    };
    Ok(MemberToc {
        header,
        entries,
        encoding,
        context,
        toc_filters: filters.len(),
    })
}

/// Which entry each member's data belongs to.
pub(super) struct MemberIndex {
    /// Position of the entry by the member's name.
    by_member: HashMap<String, usize>,
    /// Position of the entry by the large object's OID; in old dumps, one entry has all of them.
    by_object: HashMap<u32, usize>,
    all_objects: Option<usize>,
    /// Position of the entry by its dump id, for lists that are named after it.
    by_id: HashMap<DumpId, usize>,
}

/// The meaning of a member's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum MemberKind {
    Toc,
    /// Data of the entry at this position.
    Data(usize),
    /// The list of large objects of the entry at this position.
    ObjectList(usize),
    LargeObject(u32),
    /// Known, but without anything to restore.
    Ignored,
    Unknown,
}

/// The name as `pg_dump` gave it, and the number of compressions that were added to it.
pub(super) fn plain_name(name: &str) -> (&str, usize) {
    let (mut name, mut suffixes) = (name, 0);
    while let Some(stem) = [".gz", ".lz4", ".zst"]
        .iter()
        .find_map(|s| name.strip_suffix(s))
    {
        name = stem;
        suffixes += 1;
    }
    (name, suffixes)
}

impl MemberIndex {
    /// # Errors
    /// `ArchiveError::Corrupt` if two entries name the same member, or one names the table of contents itself.
    pub(crate) fn new(entries: &[TocEntry]) -> Result<Self, ArchiveError> {
        let mut index = MemberIndex {
            by_member: HashMap::new(),
            by_object: HashMap::new(),
            all_objects: None,
            by_id: HashMap::new(),
        };
        for (i, e) in entries.iter().enumerate().filter(|(_, e)| e.has_data) {
            if let DataOffset::Member(name) = &e.offset {
                let other = index.by_member.insert(name.clone(), i);
                if other.is_some() || name == TOC {
                    let what = format!(
                        "the member {} cannot have the data of {}",
                        display_name(name),
                        e.name()
                    );
                    return Err(corrupt(format!(
                        "{what}: its name is used for other data, too"
                    )));
                }
            }
            if e.kind == EntryKind::Blobs {
                index.all_objects = Some(i);
                index.by_id.insert(e.dump_id, i);
            }
        }
        index.index_objects_by_group(entries);
        Ok(index)
    }

    /// Since PostgreSQL 17, a list has the objects of the groups that its entry depends on.
    fn index_objects_by_group(&mut self, entries: &[TocEntry]) {
        self.by_object.extend(objects_by_group(entries));
    }

    pub(crate) fn look_up(&self, entries: &[TocEntry], plain_name: &str) -> MemberKind {
        if plain_name == TOC {
            return MemberKind::Toc;
        }
        if let Some(i) = self.by_member.get(plain_name).copied() {
            return if entries[i].kind == EntryKind::Blobs {
                MemberKind::ObjectList(i)
            } else {
                MemberKind::Data(i)
            };
        }
        if let Some(oid) = oid_of(plain_name) {
            return MemberKind::LargeObject(oid);
        }
        // In tar dumps, the table of contents does not name the list: from 17 on the member's name has the entry's
        // dump id, and older dumps have a single list.
        let of_list = match plain_name
            .strip_prefix("blobs_")
            .and_then(|n| n.strip_suffix(".toc"))
        {
            Some(id) => id.parse().ok().and_then(|id| self.by_id.get(&id).copied()),
            None if plain_name == "blobs.toc" => self.all_objects,
            None => None,
        };
        match of_list {
            Some(at) => MemberKind::ObjectList(at),
            None if may_hold_data(plain_name) => MemberKind::Unknown,
            None => MemberKind::Ignored,
        }
    }

    pub(crate) fn entry_of_object(&self, oid: u32) -> Option<usize> {
        self.by_object.get(&oid).copied().or(self.all_objects)
    }

    /// The large objects whose data each entry must have according to the table of contents.
    pub(crate) fn objects(&self, entries: &[TocEntry]) -> HashMap<usize, BTreeSet<u32>> {
        let mut objects: HashMap<usize, BTreeSet<u32>> = HashMap::new();
        for oid in entries
            .iter()
            .filter(|e| matches!(e.kind, EntryKind::Blob | EntryKind::BlobMetadata))
            .flat_map(oids_of)
        {
            if let Some(at) = self.entry_of_object(oid) {
                objects.entry(at).or_default().insert(oid);
            }
        }
        objects
    }
}

/// The large objects of each group with the position of the last entry that depends on the group. Each group is
/// visited once, however often it is depended on.
fn objects_by_group(entries: &[TocEntry]) -> impl Iterator<Item = (u32, usize)> {
    let groups = entries
        .iter()
        .filter(|e| e.kind == EntryKind::BlobMetadata)
        .map(|e| (e.dump_id, (e, None)));
    let mut groups: HashMap<DumpId, (&TocEntry, Option<usize>)> = groups.collect();
    for (i, e) in entries.iter().enumerate() {
        if e.has_data && e.kind == EntryKind::Blobs {
            for id in &e.dependencies {
                if let Some((_, owner)) = groups.get_mut(id) {
                    *owner = Some(i);
                }
            }
        }
    }
    let owned = groups.into_values();
    let mut owned: Vec<(&TocEntry, usize)> = owned
        .filter_map(|(group, owner)| Some((group, owner?)))
        .collect();
    owned.sort_unstable_by_key(|(_, owner)| *owner);
    let objects = |(group, owner)| oids_of(group).map(move |oid| (oid, owner));
    owned.into_iter().flat_map(objects)
}

/// The OIDs of the large objects that an entry creates.
fn oids_of(entry: &TocEntry) -> impl Iterator<Item = u32> {
    let text = if entry.kind == EntryKind::Blob {
        &entry.tag
    } else {
        &entry.defn
    };
    text.lines().filter_map(|l| l.trim().parse().ok())
}

/// The OID of a large object in its member's name, as `pg_dump` writes it.
fn oid_of(plain_name: &str) -> Option<u32> {
    let digits = plain_name.strip_prefix("blob_")?.strip_suffix(".dat")?;
    digits
        .parse()
        .ok()
        .filter(|oid: &u32| oid.to_string() == digits)
}

/// Whether `pg_dump` gives such names to the data of a table, a large object or a list of them.
pub(super) fn is_data_file(plain_name: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match (
        plain_name.strip_suffix(".dat"),
        plain_name.strip_suffix(".toc"),
    ) {
        (Some(data), _) => digits(data.strip_prefix("blob_").unwrap_or(data)),
        (_, Some(list)) => list == "blobs" || list.strip_prefix("blobs_").is_some_and(digits),
        _ => false,
    }
}

/// Whether members with such names hold data. Other files are there by chance: notes, checksums, upload markers,
/// files of a file manager.
pub(super) fn may_hold_data(plain_name: &str) -> bool {
    let is_dot_file = plain_name.starts_with("._");
    let ends = [".dat", ".toc"].iter().any(|end| plain_name.ends_with(end));
    (ends || plain_name.starts_with("blob")) && !is_dot_file
}

pub(super) fn missing_object(oid: u32, why: &str) -> ArchiveError {
    corrupt(format!("the member blob_{oid}.dat is missing: {why}"))
}

/// A human-readable form of a name from an archive.
pub(super) fn display_name(name: &str) -> String {
    const MOST: usize = 200;
    let text: String = name
        .chars()
        .take(MOST)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(MOST).is_some() {
        text + "…"
    } else {
        text
    }
}

/// Compares a list of large objects with those that have members and those in the table of contents: an object
/// that is not in all three was lost.
pub(super) fn check_objects(
    list: &str,
    listed: &BTreeSet<u32>,
    present: &BTreeSet<u32>,
    declared: &BTreeSet<u32>,
) -> Result<(), ArchiveError> {
    if let Some(oid) = listed.difference(present).next() {
        return Err(missing_object(*oid, &format!("it is listed in {list}")));
    }
    if let Some(oid) = present.difference(listed).next() {
        return Err(corrupt(format!(
            "{list} is incomplete: the member blob_{oid}.dat is not listed in it"
        )));
    }
    match declared.difference(listed).next() {
        None => Ok(()),
        Some(oid) => {
            let what =
                format!("the large object {oid} of the table of contents is not listed in it");
            Err(corrupt(format!("{list} is incomplete: {what}")))
        }
    }
}

/// Reads the data of a table's member, which is compressed `filters` times. This is not detected from content,
/// because rows may begin like a compressed file.
pub(super) fn read_table(
    member: BoxedReader<'_>,
    context: &ReadContext,
    entry: &TocEntry,
    filter_count: usize,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let origin = context.origin.as_ref();
    let input = filters::unwrap_some(member, filter_count, &context.limits, origin)?;
    split_table_data(input, context, entry, sink)
}

pub(super) fn split_table_data(
    mut input: impl BufRead,
    context: &ReadContext,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let what = format!("data of {}", entry.tag);
    match (entry.copy_stmt.is_empty(), entry.oids_in_data) {
        (true, _) => split_statements(&mut input, context, &what, sink),
        (false, false) => split_table_rows(&mut input, &what, sink),
        (false, true) => {
            split_table_rows(&mut BufReader::new(WithoutOids::new(input)), &what, sink)
        }
    }
}

/// Reads one large object from a member that is compressed `filters` times.
pub(super) fn read_object(
    member: BoxedReader<'_>,
    context: &ReadContext,
    oid: u32,
    filter_count: usize,
    splitter: &mut ObjectSplitter,
    sink: &mut dyn DataSink,
) -> Result<(), ArchiveError> {
    let origin = context.origin.as_ref();
    let mut input = filters::unwrap_some(member, filter_count, &context.limits, origin)?;
    splitter.split(&mut input, oid, sink)
}

/// Bytes of the longest line of a list: two numbers of ten digits and a member's name.
const MAX_LIST_LINE: u64 = 64;

/// Reads lines with a number and the name of its member; each number may occur once.
pub(super) fn read_object_list(
    member: BoxedReader<'_>,
    context: &ReadContext,
) -> Result<BTreeSet<u32>, ArchiveError> {
    let what = "list of large objects";
    let (_, _, mut input) = filters::unwrap(
        member,
        &context.limits,
        &filters::DecryptionKeys::default(),
        context.origin.as_ref(),
    )?;
    let (mut oids, mut line) = (BTreeSet::new(), Vec::new());
    loop {
        line.clear();
        let read = (&mut input)
            .take(MAX_LIST_LINE)
            .read_until(b'\n', &mut line);
        if read.map_err(|e| ArchiveError::from_io(e, what))? == 0 {
            return Ok(oids);
        }
        let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
        let oid = text.split_once(' ').filter(|(oid, name)| {
            oid_of(plain_name(name).0).is_some_and(|named| named.to_string() == *oid)
        });
        let oid = oid.and_then(|(oid, _)| oid.parse().ok());
        let oid =
            oid.ok_or_else(|| corrupt(format!("{what}: {text:?} does not name a large object")))?;
        if !oids.insert(oid) {
            return Err(corrupt(format!("{what}: {oid} is listed twice")));
        }
    }
}

/// Compressions that `pg_dump` itself applied to each large object.
pub(super) fn pg_dump_filters(codec: Codec) -> usize {
    usize::from(codec != Codec::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(id: i32, oids: impl Iterator<Item = u32>) -> TocEntry {
        let defn = oids.map(|oid| format!("{oid}\n")).collect();
        TocEntry {
            defn,
            ..TocEntry::bare(id, "BLOB METADATA", "1..2")
        }
    }

    fn blobs(id: i32, dependencies: Vec<i32>) -> TocEntry {
        TocEntry {
            has_data: true,
            dependencies: dependencies.into_iter().map(DumpId).collect(),
            ..TocEntry::bare(id, "BLOBS", "1..2")
        }
    }

    #[test]
    fn each_large_object_is_data_of_the_entry_that_depends_on_its_group() {
        let entries = [
            group(1, [7, 8].into_iter()),
            group(2, [9].into_iter()),
            group(5, [10].into_iter()),
            blobs(3, vec![1, 99]),
            blobs(4, vec![2, 1]),
        ];
        let mut found: Vec<_> = objects_by_group(&entries).collect();
        found.sort_unstable();
        assert_eq!(found, [(7, 4), (8, 4), (9, 4)]);
    }

    /// A dependency that is listed again and again costs no other look at its group.
    #[test]
    fn the_steps_for_large_objects_grow_with_the_table_of_contents_only() {
        for n in [10, 100, 1000, 10_000] {
            let objects = group(1, 0..n);
            let again = blobs(2, vec![1; n as usize]);
            let more = (3..).take(n as usize / 10).map(|id| blobs(id, vec![1]));
            let entries: Vec<TocEntry> = [objects, again].into_iter().chain(more).collect();
            assert_eq!(objects_by_group(&entries).count(), n as usize);
        }
    }
}
