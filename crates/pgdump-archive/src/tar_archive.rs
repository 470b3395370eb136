//! Members in a tar: of `pg_dump -Ft`, whose first member is the table of contents, and of a packed directory
//! dump, whose table of contents may be anywhere. The tar is read in one forward pass; a table of contents that
//! follows the data is fetched before it if the object can be read twice.

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;

use super::chunks::{DataSink, ObjectSplitter};
use super::filters::{self, BoxedReader, DecryptionKeys, PeekReader};
use super::input_files::InputFiles;
use super::members::{
    MemberIndex, MemberKind, MemberToc, TOC, check_objects, display_name, pg_dump_filters,
    plain_name, read_member_toc, read_object, read_object_list, read_table,
};
use super::toc::{corrupt, limit_error, unsupported};
use super::{
    Archive, ArchiveBody, EntryKind, Format, Limits, ReadContext, ReopenableSource, TocEntry,
};
use crate::error::ArchiveError;

const BLOCK: usize = 512;
/// Most bytes of a member's name or of its extended header.
const MAX_NAME: u64 = 1 << 20;
/// Most bytes of a member: no file is larger.
const MAX_SIZE: u64 = i64::MAX as u64 - BLOCK as u64;
/// A member of more bytes than this is skipped by reopening the object after it.
const MIN_JUMP: u64 = 1 << 20;

/// How to read the same tar again.
pub(super) struct TarReopener {
    pub source: Arc<dyn ReopenableSource>,
    pub filters: usize,
    pub keys: DecryptionKeys,
}

/// The error for sparse members: they omit holes, so their bytes are not those of the file.
fn sparse() -> ArchiveError {
    limit_error("the tar has sparse members: pack the directory again, without --sparse")
}

impl TarReopener {
    fn open(&self, limits: &Limits) -> Result<Tar, ArchiveError> {
        let (filters, _, input) = filters::unwrap(self.source.open(0)?, limits, &self.keys)?;
        debug_assert_eq!(filters.len(), self.filters);
        Ok(Tar::new(input))
    }
}

fn tar_error(e: std::io::Error) -> ArchiveError {
    ArchiveError::from_io(e, "tar")
}

/// A tar, read forward.
struct Tar {
    input: PeekReader<'static>,
    /// Bytes read so far.
    position: u64,
    /// Bytes left in the current member, and its padding.
    left: u64,
    padding: u64,
}

/// A regular file in a tar.
struct File {
    path: String,
    size: u64,
}

impl Tar {
    fn new(input: PeekReader<'static>) -> Self {
        Tar {
            input,
            position: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next regular file; `None` at the tar's end mark.
    fn next(&mut self) -> Result<Option<File>, ArchiveError> {
        let (mut long_name, mut long_size) = (None, None);
        loop {
            self.skip()?;
            let mut block = [0u8; BLOCK];
            self.input.read_exact(&mut block).map_err(tar_error)?;
            self.position += BLOCK as u64;
            if block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            let header = tar::Header::from_byte_slice(&block);
            let stored: u32 = block[148..156].iter().map(|b| u32::from(*b)).sum();
            let sum =
                block.iter().map(|b| u32::from(*b)).sum::<u32>() - stored + 8 * u32::from(b' ');
            if header.cksum().ok() != Some(sum) {
                return Err(corrupt("the archive is damaged: tar header"));
            }
            let size = long_size
                .take()
                .unwrap_or(header.entry_size().map_err(tar_error)?);
            if size > MAX_SIZE {
                return Err(corrupt(format!(
                    "a member of the tar has the invalid size of {size} bytes"
                )));
            }
            self.left = size;
            self.padding = size.next_multiple_of(BLOCK as u64) - size;
            let kind = header.entry_type();
            if kind.is_gnu_sparse() {
                return Err(sparse());
            }
            if kind.is_gnu_longname() {
                long_name = Some(self.small()?);
            } else if kind.is_pax_local_extensions() {
                let bytes = self.small()?;
                for extension in tar::PaxExtensions::new(&bytes) {
                    let extension = extension.map_err(tar_error)?;
                    match extension.key_bytes() {
                        b"path" => long_name = Some(extension.value_bytes().to_vec()),
                        b"size" => {
                            let text = std::str::from_utf8(extension.value_bytes()).ok();
                            let size = text.and_then(|t| t.parse().ok());
                            long_size = Some(
                                size.ok_or_else(|| corrupt("a size in the tar is not a number"))?,
                            );
                        }
                        key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
                        _ => {}
                    }
                }
            } else {
                let path = long_name
                    .take()
                    .unwrap_or_else(|| header.path_bytes().into_owned());
                if kind.is_file() || kind.is_contiguous() {
                    let path = String::from_utf8_lossy(&path)
                        .trim_end_matches('\0')
                        .to_owned();
                    return Ok(Some(File { path, size }));
                }
            }
        }
    }

    /// The bytes of the current member.
    fn member(&mut self) -> BoxedReader<'_> {
        Box::new(MemberBytes(self))
    }

    fn small(&mut self) -> Result<Vec<u8>, ArchiveError> {
        if self.left > MAX_NAME {
            return Err(corrupt(format!(
                "a name in the tar has {} bytes, which is too long",
                self.left
            )));
        }
        let mut bytes = Vec::new();
        self.member().read_to_end(&mut bytes).map_err(tar_error)?;
        Ok(bytes)
    }

    /// Skips the rest of the current member.
    fn skip(&mut self) -> Result<(), ArchiveError> {
        let amount = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let passed = std::io::copy(&mut (&mut self.input).take(amount), &mut std::io::sink())
            .map_err(tar_error)?;
        self.position += passed;
        if passed == amount {
            Ok(())
        } else {
            Err(corrupt("the archive ends early: a member of the tar"))
        }
    }

    /// The same by reopening the object after the member.
    fn skip_by_reopening(&mut self, source: &dyn ReopenableSource) -> Result<(), ArchiveError> {
        if self.left > MIN_JUMP {
            let behind = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
            self.position = self.position.saturating_add(behind);
            self.input = filters::buffered(source.open(self.position)?);
        }
        Ok(())
    }

    /// Reads the end mark, which must be complete.
    fn check_end(&mut self) -> Result<(), ArchiveError> {
        let mut rest = [0u8; BLOCK];
        let mut read = 0;
        loop {
            match self.input.read(&mut rest).map_err(tar_error)? {
                0 if read >= BLOCK => return Ok(()),
                0 => return Err(corrupt("the archive ends early: the end of the tar")),
                n if rest[..n].iter().all(|b| *b == 0) => read += n,
                _ => return Err(corrupt("there are bytes after the end of the tar")),
            }
        }
    }
}

struct MemberBytes<'a>(&'a mut Tar);

impl Read for MemberBytes<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let tar = &mut *self.0;
        let most = out
            .len()
            .min(usize::try_from(tar.left).unwrap_or(usize::MAX));
        let n = tar.input.read(&mut out[..most])?;
        if n == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        tar.left -= n as u64;
        tar.position += n as u64;
        Ok(n)
    }
}

/// The members, read in the order of the tar.
pub(super) struct TarMembers {
    tar: Tar,
    /// The first file, whose header has been read already.
    first: Option<File>,
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
        let contents = read_member_toc(tar.member(), Format::Tar, limits)?;
        return Ok(finish(contents, (tar, None), String::new(), reopen, limits));
    }
    let (folder, contents) = find_toc(reopen.as_ref(), limits)?;
    Ok(finish(contents, (tar, first), folder, reopen, limits))
}

fn finish(
    contents: MemberToc,
    (tar, first): (Tar, Option<File>),
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
    }
}

/// Searches another reading of the tar for the table of contents.
fn find_toc(
    reopen: Option<&TarReopener>,
    limits: Limits,
) -> Result<(String, MemberToc), ArchiveError> {
    let reopen = reopen.ok_or_else(|| {
        unsupported(
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
            return Ok((
                folder.to_owned(),
                read_member_toc(tar.member(), Format::DirectoryTar, limits)?,
            ));
        }
        if reopen.filters == 0 {
            tar.skip_by_reopening(reopen.source.as_ref())?;
        }
    }
    Err(unsupported("this tar is not a dump: it has no toc.dat"))
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
        let missing = self
            .entries
            .iter()
            .zip(&self.seen)
            .find(|(e, seen)| e.has_data && !**seen);
        if let Some((e, _)) = missing {
            return Err(corrupt(format!(
                "the archive ends early: the data of {} is missing",
                e.name()
            )));
        }
        let declared = self.index.objects(self.entries);
        let lists = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, e)| e.has_data && e.kind == EntryKind::Blobs);
        for at in lists.map(|(at, _)| at).collect::<Vec<_>>() {
            let (of_entry, none) = (&self.objects[at], BTreeSet::new());
            let (listed, declared) = (
                of_entry.listed.as_ref().unwrap_or(&none),
                declared.get(&at).unwrap_or(&none),
            );
            check_objects(
                "the list of large objects",
                listed,
                &of_entry.seen,
                declared,
            )?;
            self.end_objects(at, sink)?;
        }
        Ok(())
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
            let Some(reopen) = &self.reopen else {
                return Err(limit_error(format!(
                    "the member {} of this tar must be restored after members that follow it, because its table \
                     calls functions that may read them, which is impossible from standard input: name a file \
                     or an object",
                    display_name(&member)
                )));
            };
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
        let (mut left, mut has_read) = (None, false);
        // If the tar began with it, it was read already.
        met_members
            .extend((self.tar.position > 0 && self.first.is_none()).then_some(MemberKind::Toc));
        while let Some(file) = match self.first.take() {
            Some(file) => Some(file),
            None => self.tar.next()?,
        } {
            let (folder, name) = split(&file.path);
            let (plain, suffixes) = plain_name(name);
            let member = if folder == self.folder {
                progress.index.look_up(progress.entries, plain)
            } else {
                MemberKind::Unknown
            };
            let at = progress.entry_of(member);
            if member == MemberKind::Unknown
                || (at.is_none() && matches!(member, MemberKind::LargeObject(_)))
            {
                return Err(corrupt(format!(
                    "the table of contents does not list the member {}",
                    display_name(&file.path)
                )));
            }
            if member != MemberKind::Ignored && !met_members.insert(member) {
                return Err(corrupt(format!(
                    "the member {} occurs twice",
                    display_name(&file.path)
                )));
            }
            tracing::trace!(member = file.path, size = file.size, "member of the tar");
            let Some(at) = at.filter(|at| !progress.has_read(member, *at)) else {
                continue;
            };
            if sink.is_ready(&progress.entries[at]) {
                self.member(progress, member, (at, suffixes), sink)?;
                has_read = true;
            } else if left.is_none() {
                left = Some(file.path);
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

    fn member(
        &mut self,
        progress: &mut TarReading<'_>,
        member: MemberKind,
        (at, suffixes): (usize, usize),
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        let entry = &progress.entries[at];
        let bytes = self.tar.member();
        match member {
            MemberKind::Data(_) => {
                progress.seen[at] = true;
                sink.begin(entry)?;
                read_table(
                    bytes,
                    &self.context,
                    entry,
                    self.filter_count.max(suffixes),
                    sink,
                )?;
                sink.end(entry)
            }
            MemberKind::LargeObject(oid) => {
                progress.objects[at].seen.insert(oid);
                let filter_count = self.filter_count.max(suffixes);
                sink.begin(entry)?;
                read_object(
                    bytes,
                    &self.context,
                    oid,
                    filter_count,
                    &mut progress.splitter,
                    sink,
                )?;
                progress.end_objects(at, sink)
            }
            _ => {
                progress.seen[at] = true;
                progress.objects[at].listed = Some(read_object_list(bytes, &self.context)?);
                progress.end_objects(at, sink)
            }
        }
    }
}
