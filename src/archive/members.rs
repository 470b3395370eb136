//! What the formats with members share: the table of contents in `toc.dat`, the data of one table,
//! the large objects and their list.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;

use super::header::read_header;
use super::layers::{self, Lent};
use super::pieces::{DataSink, ObjectCutter, WithoutOids, cut_rows, cut_statements};
use super::toc::{Fields, corrupt, read_toc};
use super::{Codec, Context, DataOffset, Format, Header, Limits, TextEncoding, TocEntry, dialect_of};
use crate::error::RestoreError;

/// `toc.dat`, wherever it is kept.
pub(super) const TOC: &str = "toc.dat";

/// A table of contents whose data is in members beside it.
pub(super) struct Contents {
    pub header: Header,
    pub entries: Vec<TocEntry>,
    pub encoding: TextEncoding,
    pub context: Context,
    /// Wrappings around `toc.dat`; every other member has as many more than its own.
    pub wrapped: usize,
}

pub(super) fn read_contents(toc: Lent<'_>, format: Format, limits: Limits) -> Result<Contents, RestoreError> {
    let (layers, _, mut input) = layers::unwrap(toc, &limits, &layers::Keys::default())?;
    let mut f =
        Fields { members: true, input: &mut input, int_size: 4, off_size: 8, limits, budget: limits.max_toc };
    let header = read_header(&mut f, format)?;
    let minor = header.version.map_or(0, |v| v.1);
    let (entries, encoding) = read_toc(&mut f, minor)?;
    let mut rest = [0u8; 1];
    if input.read(&mut rest).map_err(|e| RestoreError::from_archive_io(e, TOC))? > 0 {
        return Err(corrupt("bytes after the end of toc.dat"));
    }
    let context = Context { limits, dialect: dialect_of(&entries, &encoding) };
    Ok(Contents { header, entries, encoding, context, wrapped: layers.len() })
}

/// Which entry each member's data belongs to.
pub(super) struct Index {
    /// Position of the entry by the member's name.
    by_member: HashMap<String, usize>,
    /// Position of the entry by the large object's number; of old dumps, there is one for all.
    by_object: HashMap<u32, usize>,
    all_objects: Option<usize>,
}

/// What a member's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Member {
    Toc,
    /// Data of the entry at this position.
    Data(usize),
    /// The list of large objects of the entry at this position.
    ObjectList(usize),
    LargeObject(u32),
    /// Known, and nothing to restore.
    Ignored,
    Unknown,
}

/// The name as `pg_dump` gave it, and the compressions that were added to it.
pub(super) fn plain_name(name: &str) -> (&str, usize) {
    let (mut name, mut suffixes) = (name, 0);
    while let Some(stem) = [".gz", ".lz4", ".zst"].iter().find_map(|s| name.strip_suffix(s)) {
        name = stem;
        suffixes += 1;
    }
    (name, suffixes)
}

impl Index {
    pub fn new(entries: &[TocEntry]) -> Self {
        let (mut by_member, mut by_object, mut all_objects) = (HashMap::new(), HashMap::new(), None);
        for (i, e) in entries.iter().enumerate().filter(|(_, e)| e.has_data) {
            if let DataOffset::Member(name) = &e.offset {
                by_member.insert(name.clone(), i);
            }
            if e.desc == "BLOBS" {
                all_objects = Some(i);
                let groups = entries
                    .iter()
                    .filter(|g| g.desc == "BLOB METADATA" && e.dependencies.contains(&g.dump_id));
                for oid in groups.flat_map(|g| g.defn.lines()).filter_map(|l| l.trim().parse().ok()) {
                    by_object.insert(oid, i);
                }
            }
        }
        Index { by_member, by_object, all_objects }
    }

    pub fn look_up(&self, entries: &[TocEntry], plain_name: &str) -> Member {
        if plain_name == TOC {
            return Member::Toc;
        }
        if let Some(i) = self.by_member.get(plain_name).copied() {
            return if entries[i].desc == "BLOBS" { Member::ObjectList(i) } else { Member::Data(i) };
        }
        let oid = plain_name.strip_prefix("blob_").and_then(|n| n.strip_suffix(".dat"));
        match oid.and_then(|n| n.parse().ok()) {
            Some(oid) => Member::LargeObject(oid),
            // Tar dumps give their lists no name in the table of contents: since 17 the entry's number is
            // in the member's, before there is one list. Finders leave files of their own.
            None if plain_name.starts_with("blobs_") => {
                let id = plain_name.strip_prefix("blobs_").and_then(|n| n.strip_suffix(".toc"));
                let id = id.and_then(|n| n.parse::<i32>().ok());
                let at = entries.iter().position(|e| e.desc == "BLOBS" && Some(e.dump_id) == id);
                at.map_or(Member::Unknown, Member::ObjectList)
            }
            None if plain_name == "blobs.toc" => self.all_objects.map_or(Member::Ignored, Member::ObjectList),
            None if plain_name == "restore.sql"
                || plain_name.starts_with("._")
                || plain_name == ".DS_Store" =>
            {
                Member::Ignored
            }
            None => Member::Unknown,
        }
    }

    pub fn entry_of_object(&self, oid: u32) -> Option<usize> {
        self.by_object.get(&oid).copied().or(self.all_objects)
    }
}

/// Reads the data of a table's member.
pub(super) fn read_table(
    member: Lent<'_>,
    context: &Context,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    // A table's text never begins like a compressed file, so all wrappings can be told by content.
    let (_, _, input) = layers::unwrap(member, &context.limits, &layers::Keys::default())?;
    cut_table(input, context, entry, sink)
}

pub(super) fn cut_table(
    mut input: impl Read,
    context: &Context,
    entry: &TocEntry,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let what = format!("data of {}", entry.tag);
    match (entry.copy_stmt.is_empty(), entry.oids_in_data) {
        (true, _) => cut_statements(&mut input, context, &what, sink),
        (false, false) => cut_rows(&mut input, &what, sink),
        (false, true) => cut_rows(&mut WithoutOids::new(input), &what, sink),
    }
}

/// Reads one large object, of a member that is compressed `wrappings` times.
pub(super) fn read_object(
    member: Lent<'_>,
    context: &Context,
    oid: u32,
    wrappings: usize,
    cutter: &mut ObjectCutter,
    sink: &mut dyn DataSink,
) -> Result<(), RestoreError> {
    let mut input = layers::unwrap_some(member, wrappings, &context.limits)?;
    cutter.cut(&mut input, oid, sink)
}

/// Lines of a number and the name of a member.
pub(super) fn read_object_list(member: Lent<'_>, context: &Context) -> Result<BTreeSet<u32>, RestoreError> {
    let what = "list of large objects";
    let (_, _, input) = layers::unwrap(member, &context.limits, &layers::Keys::default())?;
    let mut text = String::new();
    let most = context.limits.max_toc;
    input.take(most).read_to_string(&mut text).map_err(|e| RestoreError::from_archive_io(e, what))?;
    let oids = text.lines().filter(|l| !l.is_empty()).map(|line| {
        let (oid, _) = line.split_once(' ').ok_or_else(|| corrupt(format!("{what}: {line:?}")))?;
        oid.parse().map_err(|_| corrupt(format!("{what}: {oid:?} is no large object")))
    });
    oids.collect()
}

/// Compressions that `pg_dump` itself gave to each large object.
pub(super) fn own_wrappings(codec: Codec) -> usize {
    usize::from(codec != Codec::None)
}
