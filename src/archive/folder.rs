//! The directory format: `toc.dat` and a file for each table and large object, read by name. Several
//! readers take the members between them, largest first.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use super::members::{
    Contents, Index, Member, TOC, own_wrappings, plain_name, read_contents, read_object, read_object_list,
    read_table,
};
use super::pieces::{DataSink, ObjectCutter};
use super::toc::corrupt;
use super::{Archive, Body, Context, DataOffset, Folder, Format, Limits, TocEntry};
use crate::error::{FailureReason, RestoreError, ValidationError};

/// The members of a directory, and which are still to be read.
pub(super) struct Members {
    folder: Arc<dyn Folder>,
    context: Context,
    /// By the name that `pg_dump` gave: the whole name, how often it is compressed, its size.
    by_name: HashMap<String, (String, usize, u64)>,
    wrappings: usize,
    todo: Mutex<VecDeque<usize>>,
}

pub(super) fn open(folder: Arc<dyn Folder>, limits: Limits) -> Result<Archive, RestoreError> {
    let mut by_name: HashMap<String, (String, usize, u64)> = HashMap::new();
    for (name, size) in folder.members() {
        let (plain, suffixes) = plain_name(&name);
        if let Some((other, _, _)) = by_name.insert(plain.to_owned(), (name.clone(), suffixes, size)) {
            return Err(corrupt(format!("two members of the same name: {other} and {name}")));
        }
    }
    let Some((toc, _, _)) = by_name.get(TOC) else {
        let what = "there is no toc.dat: this is no directory of pg_dump -Fd, or its upload is not finished";
        return Err(ValidationError::new(FailureReason::ArchiveCorrupt, what).into());
    };
    let Contents { header, entries, encoding, context, wrapped } =
        read_contents(folder.open(toc)?, Format::Directory, limits)?;
    let index = Index::new(&entries);
    let (mut todo, mut known) = (Vec::new(), BTreeSet::new());
    for (i, e) in entries.iter().enumerate().filter(|(_, e)| e.has_data) {
        let DataOffset::Member(name) = &e.offset else {
            return Err(corrupt(format!("{} has data and names no member", e.name())));
        };
        let Some((_, _, size)) = by_name.get(name) else {
            return Err(corrupt(format!("the member {name} is missing: it has the data of {}", e.name())));
        };
        known.insert(name);
        todo.push((*size, i));
    }
    let unknown = by_name.keys().find(|n| index.look_up(&entries, n) == Member::Unknown);
    if let Some(name) = unknown {
        return Err(corrupt(format!("the member {name} is in no table of contents")));
    }
    todo.sort_unstable_by(|a, b| b.cmp(a));
    let todo = Mutex::new(todo.into_iter().map(|(_, i)| i).collect());
    let wrappings = own_wrappings(header.codec) + wrapped;
    let members = Members { folder, context, by_name, wrappings, todo };
    Ok(Archive { header, entries, encoding, body: Body::Folder(members) })
}

impl Members {
    /// Bytes of each entry's member, by dump id.
    pub fn sizes(&self, entries: &[TocEntry]) -> HashMap<i32, u64> {
        let size = |e: &TocEntry| match &e.offset {
            DataOffset::Member(name) => Some((e.dump_id, self.by_name.get(name)?.2)),
            _ => None,
        };
        entries.iter().filter_map(size).collect()
    }

    /// Reads members until none is left; other readers take their share.
    pub fn read(&self, entries: &[TocEntry], sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        loop {
            let next = self.todo.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(at) = next else { return Ok(()) };
            let entry = &entries[at];
            let DataOffset::Member(name) = &entry.offset else { continue };
            if !sink.wants(entry) {
                continue;
            }
            sink.begin(entry)?;
            match entry.desc.as_str() {
                "BLOBS" => self.read_objects(name, sink)?,
                _ => read_table(self.open(name)?.0, &self.context, entry, sink)?,
            }
            sink.end(entry)?;
        }
    }

    fn open(&self, name: &str) -> Result<(super::Bytes, usize), RestoreError> {
        let (whole, suffixes, _) =
            self.by_name.get(name).ok_or_else(|| corrupt(format!("the member {name} is missing")))?;
        Ok((self.folder.open(whole)?, *suffixes))
    }

    fn read_objects(&self, list: &str, sink: &mut dyn DataSink) -> Result<(), RestoreError> {
        let mut cutter = ObjectCutter::default();
        for oid in read_object_list(self.open(list)?.0, &self.context)? {
            let (bytes, suffixes) = self.open(&format!("blob_{oid}.dat"))?;
            read_object(bytes, &self.context, oid, self.wrappings.max(suffixes), &mut cutter, sink)?;
        }
        Ok(())
    }
}
