//! The directory format: `toc.dat` and a file for each table and large object, read by name. Several readers
//! share the members, largest first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::chunks::{BytesProven, DataSink, ObjectSplitter};
use super::filters::Origin;
use super::input_files::InputFiles;
use super::members::{
    MemberIndex, MemberKind, MemberToc, TOC, check_objects, display_name, missing_object,
    pg_dump_filters, plain_name, read_member_toc, read_object, read_object_list, read_table,
};
use super::toc::corrupt;
use super::{
    Archive, ArchiveBody, DataOffset, DirectorySource, DumpId, EntryKind, Format, Limits,
    ReadContext, TocEntry,
};
use crate::error::ArchiveError;

/// The members of a directory, and those that remain to be read.
pub(super) struct DirectoryMembers {
    folder: Arc<dyn DirectorySource>,
    context: ReadContext,
    /// By the name that `pg_dump` gave.
    by_name: HashMap<String, Member>,
    filter_count: usize,
    /// The large objects of each entry, by the entry's position.
    objects: HashMap<usize, MemberObjects>,
    queue: Mutex<VecDeque<usize>>,
}

struct Member {
    /// The full name.
    name: String,
    /// Number of compressions that the name shows.
    filter_count: usize,
    size: u64,
}

/// The large objects of one entry.
#[derive(Default)]
struct MemberObjects {
    /// Those with a member.
    present: BTreeSet<u32>,
    /// Those in the table of contents.
    declared: BTreeSet<u32>,
}

impl MemberObjects {
    fn of(declared: BTreeSet<u32>) -> Self {
        MemberObjects {
            declared,
            ..MemberObjects::default()
        }
    }

    /// The first one without a member.
    fn missing(&self) -> Option<&u32> {
        self.declared.difference(&self.present).next()
    }
}

pub(super) fn open(
    folder: Arc<dyn DirectorySource>,
    limits: Limits,
) -> Result<Archive, ArchiveError> {
    let by_name = by_name(folder.as_ref())?;
    let Some(toc) = by_name.get(TOC) else {
        let what = "there is no toc.dat: this is not a directory of pg_dump -Fd, or its upload is incomplete";
        return Err(ArchiveError::corrupt(what));
    };
    let origin = Some(Origin::Directory(folder.clone()));
    let MemberToc {
        header,
        entries,
        encoding,
        context,
        toc_filters,
    } = read_member_toc(folder.open(&toc.name)?, Format::Directory, limits, origin)?;
    let index = MemberIndex::new(&entries)?;
    let queue = largest_first(&entries, &by_name)?;
    let members = DirectoryMembers {
        context,
        filter_count: pg_dump_filters(header.codec) + toc_filters,
        objects: objects_of(&index, &entries, by_name.keys())?,
        queue: Mutex::new(queue.into()),
        folder,
        by_name,
    };
    Ok(Archive {
        header,
        entries,
        encoding,
        body: ArchiveBody::Directory(members),
        files: InputFiles::default(),
        limits,
    })
}

/// The members by the names that `pg_dump` gave them.
fn by_name(folder: &dyn DirectorySource) -> Result<HashMap<String, Member>, ArchiveError> {
    let mut by_name: HashMap<String, Member> = HashMap::new();
    for (name, size) in folder.members() {
        let (plain, filter_count) = plain_name(&name);
        let member = Member {
            name: name.clone(),
            filter_count,
            size,
        };
        if let Some(other) = by_name.insert(plain.to_owned(), member) {
            return Err(foreign(format!(
                "{} and {} are the same member",
                display_name(&other.name),
                display_name(&name)
            )));
        }
    }
    Ok(by_name)
}

/// Positions of the entries with data, by the sizes of their members.
fn largest_first(
    entries: &[TocEntry],
    by_name: &HashMap<String, Member>,
) -> Result<Vec<usize>, ArchiveError> {
    let mut queue = Vec::new();
    for (i, e) in entries.iter().enumerate().filter(|(_, e)| e.has_data) {
        let DataOffset::Member(name) = &e.offset else {
            let entry = e.name();
            return Err(corrupt(format!("{entry} has data but names no member")));
        };
        let Some(member) = by_name.get(name) else {
            return Err(corrupt(format!(
                "the member {} with the data of {} is missing",
                display_name(name),
                e.name()
            )));
        };
        queue.push((member.size, i));
    }
    queue.sort_unstable_by(|a, b| b.cmp(a));
    Ok(queue.into_iter().map(|(_, i)| i).collect())
}

/// Rejects a file that has a name like those of `pg_dump` but was not written by it.
fn foreign(what: String) -> ArchiveError {
    ArchiveError::foreign(format!(
        "{what}: move the file that is not part of this backup out of the directory"
    ))
}

/// Assigns large objects to entries; every member must belong to an entry.
fn objects_of<'a>(
    index: &MemberIndex,
    entries: &[TocEntry],
    names: impl Iterator<Item = &'a String>,
) -> Result<HashMap<usize, MemberObjects>, ArchiveError> {
    let declared = index.objects(entries).into_iter();
    let mut objects: HashMap<usize, MemberObjects> = declared
        .map(|(at, declared)| (at, MemberObjects::of(declared)))
        .collect();
    let knows_objects = objects.values().any(|o| !o.declared.is_empty());
    for name in names {
        let (at, oid) = match index.look_up(entries, name) {
            MemberKind::LargeObject(oid) => (index.entry_of_object(oid), oid),
            MemberKind::Unknown => return Err(unlisted(name)),
            MemberKind::Toc
            | MemberKind::Data(_)
            | MemberKind::ObjectList(_)
            | MemberKind::Ignored => continue,
        };
        let declares = |at: &usize| objects.get(at).is_some_and(|o| o.declared.contains(&oid));
        let at = at.filter(|at| !knows_objects || declares(at));
        let at = at.ok_or_else(|| unlisted(name))?;
        objects.entry(at).or_default().present.insert(oid);
    }
    // This is known before any list is read, and also if none will be read.
    match objects.values().find_map(MemberObjects::missing) {
        Some(oid) => Err(missing_object(*oid, "the table of contents lists it")),
        None => Ok(objects),
    }
}

fn unlisted(name: &str) -> ArchiveError {
    let name = display_name(name);
    foreign(format!("the table of contents does not have {name}"))
}

impl DirectoryMembers {
    /// Bytes of each entry's member, by dump id.
    pub(crate) fn sizes(&self, entries: &[TocEntry]) -> HashMap<DumpId, u64> {
        let size = |e: &TocEntry| match &e.offset {
            DataOffset::Member(name) => Some((e.dump_id, self.by_name.get(name)?.size)),
            _ => None,
        };
        entries.iter().filter_map(size).collect()
    }

    /// Members of a lower turn are read first; within a turn, the largest first.
    pub(crate) fn set_read_order(&mut self, entries: &[TocEntry], turns: &HashMap<DumpId, usize>) {
        let turn = |at: &usize| {
            turns
                .get(&entries[*at].dump_id)
                .copied()
                .unwrap_or_default()
        };
        let queue = self.queue.get_mut();
        queue.make_contiguous().sort_by_key(turn);
    }

    /// Reads members until none is left; other readers share them.
    pub(crate) fn read(
        &self,
        entries: &[TocEntry],
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        loop {
            let next = self.queue.lock().pop_front();
            let Some(at) = next else { return Ok(()) };
            let entry = &entries[at];
            let DataOffset::Member(name) = &entry.offset else {
                continue;
            };
            if !sink.should_read(entry) {
                continue;
            }
            sink.begin(entry)?;
            let proven = match &entry.kind {
                EntryKind::Blobs => self.read_objects(at, name, sink)?,
                _ => {
                    let (bytes, suffixes) = self.open(name)?;
                    read_table(
                        bytes,
                        &self.context,
                        entry,
                        self.filter_count.max(suffixes),
                        sink,
                    )?;
                    self.proven(name)
                }
            };
            sink.end(entry)?;
            if let Some(proven) = proven {
                sink.proven(entry, proven);
            }
        }
    }

    /// What is proven of a member that was just read.
    fn proven(&self, name: &str) -> Option<BytesProven> {
        let name = &self.by_name.get(name)?.name;
        Some(BytesProven::Member {
            name: name.clone(),
            crc32c: self.folder.proven(name)?,
        })
    }

    fn open(&self, name: &str) -> Result<(super::ByteStream, usize), ArchiveError> {
        let member = self.by_name.get(name);
        let member = member.ok_or_else(|| corrupt(format!("the member {name} is missing")))?;
        Ok((self.folder.open(&member.name)?, member.filter_count))
    }

    /// Reads the large objects of an entry; returns their list as what is proven if all of their members are.
    fn read_objects(
        &self,
        at: usize,
        list: &str,
        sink: &mut dyn DataSink,
    ) -> Result<Option<BytesProven>, ArchiveError> {
        let listed = read_object_list(self.open(list)?.0, &self.context)?;
        let mut proven = self.proven(list);
        let (none, objects) = (MemberObjects::default(), self.objects.get(&at));
        let MemberObjects { present, declared } = objects.unwrap_or(&none);
        check_objects(list, &listed, present, declared)?;
        let mut splitter = ObjectSplitter::default();
        for oid in listed {
            let member = format!("blob_{oid}.dat");
            let (bytes, suffixes) = self.open(&member)?;
            read_object(
                bytes,
                &self.context,
                oid,
                self.filter_count.max(suffixes),
                &mut splitter,
                sink,
            )?;
            proven = proven.filter(|_| self.proven(&member).is_some());
        }
        Ok(proven)
    }
}
