//! Members in a tar: of `pg_dump -Ft`, whose first member is the table of contents, and of a packed directory
//! dump, whose table of contents may be anywhere. The tar is read in one forward pass; a table of contents that
//! follows the data is fetched before it if the object can be read twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::chunks::{DataSink, ObjectSplitter};
use super::filters::{self, DecryptionKeys, Origin};
use super::input_files::InputFiles;
use super::members::{
    MemberIndex, MemberKind, MemberToc, TOC, check_objects, display_name, pg_dump_filters,
    plain_name, read_member_toc, read_object, read_object_list, read_table,
};
use super::peek_reader::PeekReader;
use super::tar_stream::{Tar, TarFile};
use super::toc::{corrupt, limit_error, unsupported};
use super::{
    Archive, ArchiveBody, EntryKind, Format, Limits, ReadContext, ReopenableSource, TocEntry,
};
use crate::error::ArchiveError;

/// How to read the same tar again.
pub(super) struct TarReopener {
    pub source: Arc<dyn ReopenableSource>,
    pub filters: usize,
    pub keys: DecryptionKeys,
}

impl TarReopener {
    fn origin(&self) -> Origin {
        Origin::Stream(self.source.clone())
    }

    fn open(&self, limits: &Limits) -> Result<Tar, ArchiveError> {
        let (bytes, origin) = (self.source.open(0)?, self.origin());
        let (filters, _, input) = filters::unwrap(bytes, limits, &self.keys, Some(&origin))?;
        debug_assert_eq!(filters.len(), self.filters);
        Ok(Tar::new(input))
    }
}

/// The members, read in the order of the tar.
pub(super) struct TarMembers {
    tar: Tar,
    /// The first file, whose header has been read already.
    first: Option<TarFile>,
    context: ReadContext,
    /// Directory inside the tar that has the members, with its slash.
    folder: String,
    filter_count: usize,
    reopen: Option<TarReopener>,
    limits: Limits,
    pub files: InputFiles,
}

pub(super) fn open(
    input: PeekReader<'static>,
    reopen: Option<TarReopener>,
    limits: Limits,
) -> Result<Archive, ArchiveError> {
    let mut tar = Tar::new(input);
    let first = tar.next()?;
    if first.as_ref().is_some_and(|f| f.path == TOC) {
        let origin = reopen.as_ref().map(TarReopener::origin);
        let contents = read_member_toc(tar.member(), Format::Tar, limits, origin)?;
        return Ok(finish(contents, (tar, None), String::new(), reopen, limits));
    }
    let (folder, contents) = find_toc(reopen.as_ref(), limits)?;
    Ok(finish(contents, (tar, first), folder, reopen, limits))
}

fn finish(
    contents: MemberToc,
    (tar, first): (Tar, Option<TarFile>),
    folder: String,
    reopen: Option<TarReopener>,
    limits: Limits,
) -> Archive {
    let MemberToc {
        header,
        entries,
        encoding,
        context,
        toc_filters,
    } = contents;
    let filter_count = pg_dump_filters(header.codec) + toc_filters;
    let members = TarMembers {
        tar,
        first,
        context,
        folder,
        filter_count,
        reopen,
        limits,
        files: InputFiles::default(),
    };
    Archive {
        header,
        entries,
        encoding,
        body: ArchiveBody::Tar(members),
        files: InputFiles::default(),
        limits,
    }
}

/// Searches another reading of the tar for the table of contents.
fn find_toc(
    reopen: Option<&TarReopener>,
    limits: Limits,
) -> Result<(String, MemberToc), ArchiveError> {
    let reopen = reopen.ok_or_else(|| {
        limit_error(
            "toc.dat is not the first member of this tar, which therefore cannot be read from standard input: \
             name a file or an object",
        )
    })?;
    let mut tar = reopen.open(&limits)?;
    while let Some(file) = tar.next()? {
        let (folder, name) = split(&file.path);
        if matches!(name, "backup_label" | "PG_VERSION") {
            return Err(unsupported(
                "this is not a dump: it is a base backup of a whole server (pg_basebackup), which only a \
                 server of its own version can start from",
            ));
        }
        if plain_name(name).0 == TOC {
            let (member, origin) = (tar.member(), Some(reopen.origin()));
            return Ok((
                folder.to_owned(),
                read_member_toc(member, Format::DirectoryTar, limits, origin)?,
            ));
        }
        if reopen.filters == 0 {
            tar.skip_by_reopening(reopen.source.as_ref())?;
        }
    }
    Err(unsupported("this tar is not a dump: it has no toc.dat"))
}

fn unlisted(path: &str) -> ArchiveError {
    let name = display_name(path);
    corrupt(format!(
        "the table of contents does not list the member {name}"
    ))
}

fn out_of_order(member: &str) -> ArchiveError {
    limit_error(format!(
        "the member {} of this tar must be restored after members that follow it, because its table \
         calls functions that may read them, which is impossible from standard input: name a file \
         or an object",
        display_name(member)
    ))
}

fn split(path: &str) -> (&str, &str) {
    path.split_at(path.rfind('/').map_or(0, |n| n + 1))
}

/// What is known about the large objects of one entry.
#[derive(Default, Clone)]
struct TarObjects {
    seen: BTreeSet<u32>,
    listed: Option<BTreeSet<u32>>,
    ended: bool,
}

/// Progress of reading the members.
struct TarReading<'a> {
    entries: &'a [TocEntry],
    index: MemberIndex,
    seen: Vec<bool>,
    objects: Vec<TarObjects>,
    splitter: ObjectSplitter,
}

impl TarReading<'_> {
    /// The entry that a member belongs to.
    fn entry_of(&self, member: MemberKind) -> Option<usize> {
        match member {
            MemberKind::Data(at) | MemberKind::ObjectList(at) => Some(at),
            MemberKind::LargeObject(oid) => self.index.entry_of_object(oid),
            MemberKind::Toc | MemberKind::Ignored | MemberKind::Unknown => None,
        }
    }

    fn has_read(&self, member: MemberKind, at: usize) -> bool {
        match member {
            MemberKind::LargeObject(oid) => self.objects[at].seen.contains(&oid),
            _ => self.seen[at],
        }
    }

    /// Ends the large objects of an entry, which must match its list.
    fn end_objects(&mut self, at: usize, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        let of_entry = &mut self.objects[at];
        if !of_entry.ended && of_entry.listed.as_ref() == Some(&of_entry.seen) {
            of_entry.ended = true;
            sink.begin(&self.entries[at])?;
            sink.end(&self.entries[at])?;
        }
        Ok(())
    }

    /// Checks that nothing is missing.
    fn finish(mut self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        let is_missing = |(e, seen): &(&TocEntry, &bool)| e.has_data && !**seen;
        if let Some((e, _)) = self.entries.iter().zip(&self.seen).find(is_missing) {
            let name = e.name();
            return Err(corrupt(format!(
                "the archive ends early: the data of {name} is missing"
            )));
        }
        let declared = self.index.objects(self.entries);
        let none = BTreeSet::new();
        for (at, e) in self.entries.iter().enumerate() {
            if e.has_data && e.kind == EntryKind::Blobs {
                self.check_objects(at, declared.get(&at).unwrap_or(&none))?;
                self.end_objects(at, sink)?;
            }
        }
        Ok(())
    }

    fn check_objects(&self, at: usize, declared: &BTreeSet<u32>) -> Result<(), ArchiveError> {
        let (of_entry, none) = (&self.objects[at], BTreeSet::new());
        let listed = of_entry.listed.as_ref().unwrap_or(&none);
        let what = "the list of large objects";
        check_objects(what, listed, &of_entry.seen, declared)
    }
}

impl TarMembers {
    pub(crate) fn read(
        mut self,
        entries: &[TocEntry],
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let mut progress = TarReading {
            entries,
            index: MemberIndex::new(entries)?,
            seen: vec![false; entries.len()],
            objects: vec![TarObjects::default(); entries.len()],
            splitter: ObjectSplitter::default(),
        };
        let mut left = self.read_once(&mut progress, sink)?;
        self.files.mark_end();
        self.tar.check_end()?;
        self.files.set_end(0);
        while let Some(member) = left {
            // A packed tar need not have the order in which rows are to be restored.
            let reopen = self.reopen.as_ref().ok_or_else(|| out_of_order(&member))?;
            self.tar = reopen.open(&self.limits)?;
            left = self.read_once(&mut progress, sink)?;
        }
        progress.finish(sink)
    }

    /// Reads all unread members that are due; returns one that is not due yet.
    fn read_once(
        &mut self,
        progress: &mut TarReading<'_>,
        sink: &mut dyn DataSink,
    ) -> Result<Option<String>, ArchiveError> {
        let mut met_members = HashSet::new();
        // If the tar began with it, it was read already.
        let has_read_toc = self.tar.position > 0 && self.first.is_none();
        met_members.extend(has_read_toc.then_some(MemberKind::Toc));
        let (mut left, mut has_read) = (None, false);
        while let Some(file) = self.next()? {
            let (member, suffixes) = self.look_up(progress, &file.path)?;
            if member != MemberKind::Ignored && !met_members.insert(member) {
                let name = display_name(&file.path);
                return Err(corrupt(format!("the member {name} occurs twice")));
            }
            tracing::trace!(member = file.path, size = file.size, "member of the tar");
            let at = progress.entry_of(member);
            let Some(at) = at.filter(|at| !progress.has_read(member, *at)) else {
                continue;
            };
            if sink.is_ready(&progress.entries[at]) {
                self.member(progress, member, (at, suffixes), sink)?;
                has_read = true;
            } else {
                left.get_or_insert(file.path);
            }
        }
        match left {
            Some(path) if !has_read => Err(corrupt(format!(
                "the data before the member {} is missing",
                display_name(&path)
            ))),
            left => Ok(left),
        }
    }

    fn next(&mut self) -> Result<Option<TarFile>, ArchiveError> {
        match self.first.take() {
            Some(file) => Ok(Some(file)),
            None => self.tar.next(),
        }
    }

    /// What a member is, which the table of contents must list, and how many times it is compressed.
    fn look_up(
        &self,
        progress: &TarReading<'_>,
        path: &str,
    ) -> Result<(MemberKind, usize), ArchiveError> {
        let (folder, name) = split(path);
        let (plain, suffixes) = plain_name(name);
        let member = if folder == self.folder {
            progress.index.look_up(progress.entries, plain)
        } else {
            MemberKind::Unknown
        };
        let has_entry = progress.entry_of(member).is_some();
        match member {
            MemberKind::Unknown => Err(unlisted(path)),
            MemberKind::LargeObject(_) if !has_entry => Err(unlisted(path)),
            _ => Ok((member, suffixes)),
        }
    }

    fn member(
        &mut self,
        progress: &mut TarReading<'_>,
        member: MemberKind,
        (at, suffixes): (usize, usize),
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let (entry, context) = (&progress.entries[at], &self.context);
        let filter_count = self.filter_count.max(suffixes);
        let bytes = self.tar.member();
        match member {
            MemberKind::Data(_) => {
                progress.seen[at] = true;
                sink.begin(entry)?;
                read_table(bytes, context, entry, filter_count, sink)?;
                sink.end(entry)
            }
            MemberKind::LargeObject(oid) => {
                progress.objects[at].seen.insert(oid);
                sink.begin(entry)?;
                let splitter = &mut progress.splitter;
                read_object(bytes, context, oid, filter_count, splitter, sink)?;
                progress.end_objects(at, sink)
            }
            _ => {
                progress.seen[at] = true;
                progress.objects[at].listed = Some(read_object_list(bytes, context)?);
                progress.end_objects(at, sink)
            }
        }
    }
}
