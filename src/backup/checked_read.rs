//! Opens a backup for the archive reader, as one stream or as the members of a directory, and checks
//! afterwards that every byte read is the one in the store.

use pgdump_archive::Crc32c;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use tokio_util::sync::CancellationToken;

use super::PinnedBackup;
use super::download::{
    Download, DownloadOptions, ReadHint, Source, StreamStats, check_not_stopped,
};
use super::members::{ReadChecksums, encode_sha256, members_read};
use crate::error::{RestoreError, StorageError, StorageKind, ValidationError, ValidationKind};
use crate::progress::Progress;
use crate::proof::MembersProof;
use crate::store::StoredObject;
use pgdump_archive::{
    ArchiveError, ArchiveSource, ByteStream, DirectorySource, Extent, FIRST_TAKE, ReopenableSource,
    member_name,
};

/// Checks, after reading, that all bytes were read and have the store's checksums.
pub struct IntegrityCheck {
    streams: Arc<Mutex<Vec<CheckedStream>>>,
    /// Size of the whole backup in bytes, if known.
    size: Option<u64>,
    reading: ReadMode,
    /// The objects of a directory, or pieces.
    members: Vec<StoredObject>,
}

/// How the streams make up the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadMode {
    /// One stream is the whole backup.
    Whole,
    /// Each stream is a member of a directory.
    Members,
    /// This many pieces, one after the other, with the CRC32C of the whole if it is known.
    Pieces(usize, Option<Crc32c>),
    /// Blocks of one object, with the CRC32C of the whole.
    Blocks(Crc32c),
    /// Ranges of one object, which together are all of it, with its CRC32C if it is known.
    Ranges(Option<Crc32c>),
}

pub(super) struct CheckedStream {
    /// The offset of its first byte in the object.
    begin: u64,
    /// The name of the object, if the stream is all of it.
    name: Option<String>,
    stats: Arc<Mutex<StreamStats>>,
    size: Option<u64>,
    crc32c: Option<Crc32c>,
}

/// Opens a backup for reading. `reach` says how much of it is likely to be read.
pub fn open(
    source: Source,
    reach: ReadHint,
    limits: DownloadOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (ArchiveSource, IntegrityCheck) {
    let (size, members) = match &source {
        Source::Object(b) => (Some(b.object.size), b.members.clone()),
        Source::Stdin => (None, vec![]),
    };
    progress
        .object_size
        .store(size.unwrap_or_default(), Relaxed);
    let streams = Arc::default();
    let reader = StreamOpener {
        limits,
        reach,
        progress,
        stop,
        streams: Arc::clone(&streams),
    };
    let expected = |reading| IntegrityCheck {
        streams,
        size,
        reading,
        members,
    };
    match source {
        Source::Stdin => {
            let bytes = reader.start(Source::Stdin, None, None);
            (
                ArchiveSource::Stream {
                    bytes,
                    reopen: None,
                },
                expected(ReadMode::Whole),
            )
        }
        Source::Object(b) if b.members.is_empty() => {
            let bytes = reader.start(Source::Object(b.clone()), size, b.expected_crc32c);
            let again = ReopenObject { backup: b, reader };
            (
                ArchiveSource::Stream {
                    bytes,
                    reopen: Some(Arc::new(again)),
                },
                expected(ReadMode::Whole),
            )
        }
        Source::Object(b) if b.is_folder() => (
            ArchiveSource::Directory(Arc::new(FolderMembers::new(b, reader))),
            expected(ReadMode::Members),
        ),
        Source::Object(b) => {
            let reading = ReadMode::Pieces(b.members.len(), b.expected_crc32c);
            let reader = Arc::new(reader);
            let taken = Arc::default();
            let bytes = Box::new(PieceReader::new(&b, reader.clone(), Arc::clone(&taken)));
            let again = Arc::new(ReopenPieces {
                backup: b,
                reader,
                taken,
            });
            (
                ArchiveSource::Stream {
                    bytes,
                    reopen: Some(again),
                },
                expected(reading),
            )
        }
    }
}

/// Starts downloads that an [`IntegrityCheck`] checks.
pub(super) struct StreamOpener {
    pub(super) limits: DownloadOptions,
    pub(super) reach: ReadHint,
    pub(super) progress: Arc<Progress>,
    pub(super) stop: CancellationToken,
    pub(super) streams: Arc<Mutex<Vec<CheckedStream>>>,
}

impl StreamOpener {
    fn start(&self, source: Source, size: Option<u64>, crc32c: Option<Crc32c>) -> ByteStream {
        let name = match &source {
            Source::Object(b) => Some(b.object.name.clone()),
            Source::Stdin => None,
        };
        self.start_from(source, (0, self.reach), (name, size, crc32c))
    }

    /// Reads from `offset` on without counting; the integrity check ignores this stream.
    fn look(&self, backup: &PinnedBackup, offset: u64) -> ByteStream {
        if offset >= backup.object.size {
            return Box::new(std::io::empty());
        }
        let (source, from) = (
            Source::Object(backup.clone()),
            (offset, ReadHint::Beginning),
        );
        Box::new(Download::start(source, from, self.limits, Arc::default(), self.stop.clone()).0)
    }

    /// The CRC32C of an object, if its last stream was read to its end, and the store has the same one.
    fn proven(&self, name: &str) -> Option<Crc32c> {
        let streams = self.streams.lock();
        // It was opened lately.
        let last = streams
            .iter()
            .rev()
            .find(|stream| stream.name.as_deref() == Some(name))?;
        last.proven()
    }

    /// `from`: offset and reach; then what the stream must have.
    pub(super) fn start_from(
        &self,
        source: Source,
        from: (u64, ReadHint),
        (name, size, crc32c): (Option<String>, Option<u64>, Option<Crc32c>),
    ) -> ByteStream {
        let (download, stats) = Download::start(
            source,
            from,
            self.limits,
            self.progress.clone(),
            self.stop.clone(),
        );
        let stream = CheckedStream {
            begin: from.0,
            name,
            stats,
            size,
            crc32c,
        };
        self.streams.lock().push(stream);
        Box::new(download)
    }
}

/// Opens the same object again, to look for something in it.
struct ReopenObject {
    backup: PinnedBackup,
    reader: StreamOpener,
}

impl ReopenableSource for ReopenObject {
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError> {
        Ok(self.reader.look(&self.backup, offset))
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        Ok(check_not_stopped(&self.reader.stop)?)
    }

    fn advice(&self) -> Option<String> {
        self.backup.advice.clone()
    }
}

/// Reads the pieces of a split file, opening each when the previous one has been read.
struct PieceReader {
    todo: VecDeque<PinnedBackup>,
    current: Option<ByteStream>,
    reader: Arc<StreamOpener>,
    has_begun: bool,
    taken: Arc<AtomicU64>,
}

impl PieceReader {
    fn new(backup: &PinnedBackup, reader: Arc<StreamOpener>, taken: Arc<AtomicU64>) -> Self {
        let todo = backup.members.iter().map(|m| backup.member(m)).collect();
        PieceReader {
            todo,
            current: None,
            reader,
            has_begun: true,
            taken,
        }
    }

    /// Bytes of the current piece: few where it begins, so that what is taken ahead of the archive's end is.
    fn read_current(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let Some(current) = &mut self.current else {
            return Ok(0);
        };
        let most = if self.has_begun {
            out.len()
        } else {
            FIRST_TAKE
        };
        let most = out.len().min(most);
        let n = current.read(&mut out[..most])?;
        self.has_begun = true;
        self.taken.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

impl Read for PieceReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let n = self.read_current(out)?;
            if n > 0 || out.is_empty() {
                return Ok(n);
            }
            let Some(next) = self.todo.pop_front() else {
                return Ok(0);
            };
            // Nothing can come before the first one.
            self.has_begun = self.current.is_none();
            let (size, crc32c) = (Some(next.object.size), next.expected_crc32c);
            self.current = Some(self.reader.start(Source::Object(next), size, crc32c));
        }
    }
}

/// Opens the same pieces again.
struct ReopenPieces {
    backup: PinnedBackup,
    reader: Arc<StreamOpener>,
    /// Bytes of the first reading.
    taken: Arc<AtomicU64>,
}

impl ReopenableSource for ReopenPieces {
    fn open(&self, mut offset: u64) -> Result<ByteStream, ArchiveError> {
        let mut bytes: ByteStream = Box::new(std::io::empty());
        for piece in &self.backup.members {
            let skipped = offset.min(piece.size);
            offset -= skipped;
            if skipped < piece.size {
                bytes = Box::new(bytes.chain(LazyPiece {
                    backup: self.backup.member(piece),
                    offset: skipped,
                    reader: self.reader.clone(),
                    opened: None,
                }));
            }
        }
        Ok(bytes)
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        Ok(check_not_stopped(&self.reader.stop)?)
    }

    fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    fn files_before(&self, offset: u64) -> usize {
        let begins = self.backup.members.iter().scan(0, |at, piece| {
            let begin = *at;
            *at += piece.size;
            Some(begin)
        });
        begins.take_while(|begin| *begin < offset).count()
    }

    fn file_name(&self, file: usize) -> Option<String> {
        let piece = self.backup.members.get(file)?;
        Some(piece.name.clone())
    }

    fn advice(&self) -> Option<String> {
        self.backup.advice.clone()
    }
}

/// A piece that is opened on its first read.
struct LazyPiece {
    backup: PinnedBackup,
    offset: u64,
    reader: Arc<StreamOpener>,
    opened: Option<ByteStream>,
}

impl Read for LazyPiece {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let open = || self.reader.look(&self.backup, self.offset);
        self.opened.get_or_insert_with(open).read(out)
    }
}

/// The objects of a directory dump.
struct FolderMembers {
    backup: PinnedBackup,
    by_name: HashMap<String, StoredObject>,
    reader: StreamOpener,
}

impl FolderMembers {
    fn new(backup: PinnedBackup, reader: StreamOpener) -> Self {
        let name = |o: &StoredObject| {
            o.name
                .strip_prefix(&backup.object.name)
                .unwrap_or(&o.name)
                .to_owned()
        };
        let by_name = backup
            .members
            .iter()
            .map(|o| (name(o), o.clone()))
            .collect();
        FolderMembers {
            backup,
            by_name,
            reader,
        }
    }
}

impl DirectorySource for FolderMembers {
    fn members(&self) -> Vec<(String, u64)> {
        self.by_name
            .iter()
            .map(|(name, o)| (name.clone(), o.size))
            .collect()
    }

    fn open(&self, name: &str) -> Result<ByteStream, ArchiveError> {
        let object = self.by_name.get(name).ok_or_else(|| {
            let what = format!(
                "{}{name}: not a member of the directory dump",
                self.backup.uri()
            );
            RestoreError::from(StorageError::new(StorageKind::NotFound, what))
        })?;
        let (size, crc32c) = (object.size, object.crc32c);
        Ok(self.reader.start(
            Source::Object(self.backup.member(object)),
            Some(size),
            crc32c,
        ))
    }

    fn proven(&self, name: &str) -> Option<Crc32c> {
        self.reader.proven(&self.by_name.get(name)?.name)
    }

    fn check_wanted(&self) -> Result<(), ArchiveError> {
        Ok(check_not_stopped(&self.reader.stop)?)
    }
}

/// Proof that every byte of a backup was read and matches the store: by [`IntegrityCheck::check`], or by an earlier attempt.
#[derive(Debug, Clone, Copy)]
pub struct ProvenBytes {
    crc32c: Option<Crc32c>,
    size: u64,
}

impl ProvenBytes {
    /// CRC32C of a single object or of all pieces together; `None` for a directory dump.
    pub fn crc32c(&self) -> Option<Crc32c> {
        self.crc32c
    }

    /// Size of the whole backup in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl IntegrityCheck {
    /// A check of parts of one object, of `size` bytes.
    pub(super) fn of_parts(
        streams: Arc<Mutex<Vec<CheckedStream>>>,
        size: u64,
        reading: ReadMode,
    ) -> Self {
        IntegrityCheck {
            streams,
            size: Some(size),
            reading,
            members: vec![],
        }
    }

    /// Checks all streams and returns the proof.
    ///
    /// # Errors
    /// `checksum_mismatch`; `download_failed` if a stream was not read to its end.
    pub fn check(&self) -> Result<ProvenBytes, RestoreError> {
        let mut streams = self.streams.lock();
        if let ReadMode::Ranges(_) = self.reading {
            streams.sort_by_key(|stream| stream.begin);
        }
        let (mut last, mut together) = (StreamStats::default(), Crc32c::default());
        // Of ranges: each must begin where the one before it ends.
        let (mut end, mut has_gap) = (0, false);
        for stream in streams.iter() {
            last = stream.check()?;
            together = together.combine(last.crc32c, last.bytes as usize);
            has_gap |= stream.begin != end;
            end += last.bytes;
        }
        if streams.is_empty() {
            return Err(RestoreError::internal(
                "integrity check without any stream: neither an object nor toc.dat was read",
            ));
        }
        let size = self.size.unwrap_or_default();
        match self.reading {
            ReadMode::Members => Ok(ProvenBytes { crc32c: None, size }),
            ReadMode::Blocks(whole) => Ok(ProvenBytes {
                crc32c: Some(whole),
                size,
            }),
            ReadMode::Whole => Ok(ProvenBytes {
                crc32c: Some(last.crc32c),
                size: last.bytes,
            }),
            ReadMode::Ranges(_) if has_gap || end != size => {
                let what = format!(
                    "the ranges that were read of the backup are not all of its {size} bytes"
                );
                Err(StorageError::new(StorageKind::DownloadFailed, what).into())
            }
            ReadMode::Pieces(count, _) if streams.len() < count => {
                let what = format!(
                    "only {} of {count} pieces of the backup were read",
                    streams.len()
                );
                Err(StorageError::new(StorageKind::DownloadFailed, what).into())
            }
            ReadMode::Pieces(_, Some(wanted)) | ReadMode::Ranges(Some(wanted))
                if wanted != together =>
            {
                Err(checksum_mismatch())
            }
            ReadMode::Pieces(..) | ReadMode::Ranges(_) => Ok(ProvenBytes {
                crc32c: Some(together),
                size,
            }),
        }
    }
}

impl IntegrityCheck {
    /// SHA-256, in hexadecimal, of the object, or of a directory's `toc.dat`. `None` for pieces, if it was not requested, or
    /// if the stream was not read to its end.
    pub fn sha256(&self) -> Option<String> {
        let is_toc = |s: &&CheckedStream| {
            let file = s.name.as_deref().and_then(|name| name.rsplit('/').next());
            file.is_some_and(member_name::is_toc)
        };
        let streams = self.streams.lock();
        let stream = match self.reading {
            ReadMode::Pieces(..) | ReadMode::Ranges(_) => None,
            ReadMode::Members => streams.iter().find(is_toc),
            ReadMode::Whole | ReadMode::Blocks(_) => streams.first(),
        };
        let stats = *stream?.stats.lock();
        stats.sha256.map(encode_sha256)
    }

    /// The objects of a directory or the pieces of a file, with the checksums of those that were read to their end. `None`
    /// for a single object.
    pub fn members(&self) -> Option<MembersProof> {
        if self.members.is_empty() {
            return None;
        }
        let streams = self.streams.lock();
        let mut read: HashMap<&str, ReadChecksums> = HashMap::with_capacity(streams.len());
        for stream in streams.iter() {
            let stats = *stream.stats.lock();
            if let Some(name) = stream.name.as_deref().filter(|_| stats.ended) {
                let (crc32c, sha256) = (stats.crc32c, stats.sha256);
                read.insert(name, ReadChecksums { crc32c, sha256 });
            }
        }
        Some(members_read(&self.members, |name| read.get(name).copied()))
    }
}

impl CheckedStream {
    /// A part that was read otherwise.
    pub(super) fn known(extent: Extent) -> Self {
        let stats = StreamStats {
            bytes: extent.length,
            crc32c: extent.crc32c,
            ended: true,
            sha256: None,
        };
        CheckedStream {
            begin: extent.offset,
            name: None,
            stats: Arc::new(Mutex::new(stats)),
            size: None,
            crc32c: None,
        }
    }

    /// The CRC32C, if the stream was read to its end, and the store has the same one.
    fn proven(&self) -> Option<Crc32c> {
        self.crc32c.filter(|_| self.check().is_ok())
    }

    fn check(&self) -> Result<StreamStats, RestoreError> {
        let t = *self.stats.lock();
        if !t.ended || self.size.is_some_and(|s| s != t.bytes) {
            let what = match self.size {
                Some(size) => format!(
                    "the backup was not read to its end: {} of {size} bytes were read",
                    t.bytes
                ),
                None => format!(
                    "the backup was not read to its end: {} bytes were read",
                    t.bytes
                ),
            };
            return Err(StorageError::new(StorageKind::DownloadFailed, what).into());
        }
        match self.crc32c {
            Some(wanted) if wanted != t.crc32c => Err(checksum_mismatch()),
            _ => Ok(t),
        }
    }
}

fn checksum_mismatch() -> RestoreError {
    let what = "the CRC32C of the bytes read from the backup differs from the one in the store";
    ValidationError::new(ValidationKind::ChecksumMismatch, what).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason as R;

    /// CRC32C and size of proven bytes.
    fn seen(bytes: ProvenBytes) -> (Option<u32>, u64) {
        (bytes.crc32c().map(|crc| crc.0), bytes.size())
    }

    fn read(bytes: u64, crc32c: u32, ended: bool) -> Arc<Mutex<StreamStats>> {
        Arc::new(Mutex::new(StreamStats {
            bytes,
            crc32c: Crc32c(crc32c),
            ended,
            ..StreamStats::default()
        }))
    }

    fn expected(streams: Vec<CheckedStream>) -> IntegrityCheck {
        IntegrityCheck {
            streams: Arc::new(Mutex::new(streams)),
            size: Some(99),
            reading: ReadMode::Whole,
            members: vec![],
        }
    }

    #[test]
    fn every_byte_must_be_read_and_match_the_stores_checksum() {
        let check = |bytes, crc, ended, size, crc32c: Option<u32>| {
            let stats = read(bytes, crc, ended);
            expected(vec![CheckedStream {
                begin: 0,
                name: None,
                stats,
                size,
                crc32c: crc32c.map(Crc32c),
            }])
            .check()
            .map_err(|e| e.reason())
        };
        for (checked, wanted) in [
            (check(10, 7, true, Some(10), Some(7)), Ok((Some(7), 10))),
            (check(10, 7, true, None, None), Ok((Some(7), 10))),
            (
                check(10, 7, false, Some(10), Some(7)),
                Err(R::DownloadFailed),
            ),
            (check(10, 7, false, None, None), Err(R::DownloadFailed)),
            (check(9, 7, true, Some(10), Some(7)), Err(R::DownloadFailed)),
            (
                check(10, 8, true, Some(10), Some(7)),
                Err(R::ChecksumMismatch),
            ),
        ] {
            assert_eq!(checked.map(seen), wanted);
        }
        assert_eq!(expected(vec![]).check().unwrap_err().reason(), R::Internal);
    }

    /// What an attempt that continues need not read again.
    #[test]
    fn a_stream_is_proven_by_its_end_and_the_stores_checksum() {
        let proven = |bytes, ended, crc32c: Option<u32>| {
            let stream = CheckedStream {
                begin: 0,
                name: None,
                stats: read(bytes, 7, ended),
                size: Some(10),
                crc32c: crc32c.map(Crc32c),
            };
            stream.proven()
        };
        assert_eq!(proven(10, true, Some(7)), Some(Crc32c(7)));
        assert_eq!(proven(10, true, Some(8)), None);
        assert_eq!(proven(10, false, Some(7)), None);
        assert_eq!(proven(9, true, Some(7)), None);
        // The store of a folder knows no checksums.
        assert_eq!(proven(10, true, None), None);
    }

    #[test]
    fn one_bad_part_fails_and_the_whole_has_its_own_checksum() {
        let part = |crc32c| CheckedStream {
            begin: 0,
            name: None,
            stats: read(10, 7, true),
            size: Some(10),
            crc32c: Some(Crc32c(crc32c)),
        };
        for bad in 0..3 {
            let parts = (0..3).map(|i| part(if i == bad { 8 } else { 7 })).collect();
            assert_eq!(
                expected(parts).check().unwrap_err().reason(),
                R::ChecksumMismatch
            );
        }
        let whole = IntegrityCheck {
            reading: ReadMode::Blocks(Crc32c(3)),
            ..expected(vec![part(7), part(7)])
        };
        assert_eq!(seen(whole.check().unwrap()), (Some(3), 99));
        let folder = IntegrityCheck {
            reading: ReadMode::Members,
            ..expected(vec![part(7)])
        };
        assert_eq!(seen(folder.check().unwrap()), (None, 99));
    }

    #[test]
    fn all_pieces_are_read_and_combine_to_the_whole_checksum() {
        let whole = b"one backup in three pieces";
        let piece = |bytes: &[u8]| {
            let crc = Crc32c::of(bytes);
            CheckedStream {
                begin: 0,
                name: None,
                stats: read(bytes.len() as u64, crc.0, true),
                size: None,
                crc32c: Some(crc),
            }
        };
        let pieces = || whole.chunks(9).map(piece).collect::<Vec<_>>();
        let of = |streams, crc| IntegrityCheck {
            reading: ReadMode::Pieces(3, crc),
            ..expected(streams)
        };
        let crc = Crc32c::of(whole);
        assert_eq!(seen(of(pieces(), None).check().unwrap()), (Some(crc.0), 99));
        assert_eq!(
            seen(of(pieces(), Some(crc)).check().unwrap()),
            (Some(crc.0), 99)
        );
        assert_eq!(
            of(pieces(), Some(Crc32c(crc.0 ^ 1)))
                .check()
                .unwrap_err()
                .reason(),
            R::ChecksumMismatch
        );
        let mut two = pieces();
        two.pop();
        assert_eq!(
            of(two, None).check().unwrap_err().reason(),
            R::DownloadFailed
        );
    }

    /// However they are read, ranges must be the whole, each byte once.
    #[test]
    fn ranges_of_an_object_are_all_of_it_and_combine_to_its_checksum() {
        let whole = b"one backup that several readers read";
        let range = |begin: usize, end: usize| CheckedStream {
            begin: begin as u64,
            name: None,
            stats: read((end - begin) as u64, Crc32c::of(&whole[begin..end]).0, true),
            size: Some((end - begin) as u64),
            crc32c: None,
        };
        let crc = Crc32c::of(whole);
        let check = |ranges: &[(usize, usize)], crc| {
            let check = IntegrityCheck {
                reading: ReadMode::Ranges(crc),
                size: Some(whole.len() as u64),
                ..expected(ranges.iter().map(|(a, b)| range(*a, *b)).collect())
            };
            check.check().map(seen).map_err(|e| e.reason())
        };
        let (all, size) = ([(20, 36), (0, 7), (7, 20)], whole.len() as u64);
        assert_eq!(check(&all, Some(crc)), Ok((Some(crc.0), size)));
        assert_eq!(check(&all, None), Ok((Some(crc.0), size)));
        let other = Some(Crc32c(crc.0 ^ 1));
        assert_eq!(check(&all, other), Err(R::ChecksumMismatch));
        for lacking in [
            &all[..2],
            &all[1..],
            &[(0, 7), (8, 36)],
            &[(0, 20), (7, 36)],
            &[(0, 36), (20, 36)],
        ] {
            assert_eq!(check(lacking, None), Err(R::DownloadFailed), "{lacking:?}");
        }
    }

    /// What was received before the stop is not read either, and nothing passes for the end of the object.
    #[tokio::test]
    async fn a_stopped_download_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.dump"), "0123456789").unwrap();
        let store = Arc::new(crate::store::faulty::FaultyStore::at(folder.path()));
        let pinned = crate::backup::pin(store, "x.dump", None, None).await;
        let options = DownloadOptions {
            stall: std::time::Duration::from_secs(60),
            budget: std::time::Duration::from_secs(60),
            sha256: false,
        };
        let (progress, stop) = (Arc::new(Progress::default()), CancellationToken::new());
        let (origin, _) = open(
            Source::Object(pinned.unwrap()),
            ReadHint::Beginning,
            options,
            progress.clone(),
            stop.clone(),
        );
        let ArchiveSource::Stream {
            mut bytes,
            reopen: Some(reopen),
        } = origin
        else {
            panic!("it is one object");
        };
        assert!(reopen.check_wanted().is_ok());
        while progress.object_bytes.load(Relaxed) < 10 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        assert!(reopen.check_wanted().is_err());
        let read = tokio::task::spawn_blocking(move || bytes.read(&mut [0; 16]));
        let e = ArchiveError::from_io(read.await.unwrap().unwrap_err(), "x");
        assert_eq!(RestoreError::from(e).reason(), R::Cancelled);
    }

    /// What was received of a directory's members is not decompressed further.
    #[tokio::test]
    async fn a_directory_is_not_wanted_after_a_stop() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("night")).unwrap();
        std::fs::write(folder.path().join("night/toc.dat"), "PGDMP").unwrap();
        let store = Arc::new(crate::store::faulty::FaultyStore::at(folder.path()));
        let pinned = crate::backup::pin(store, "night/", None, None).await;
        let options = DownloadOptions {
            stall: std::time::Duration::from_secs(60),
            budget: std::time::Duration::from_secs(60),
            sha256: false,
        };
        let stop = CancellationToken::new();
        let (origin, _) = open(
            Source::Object(pinned.unwrap()),
            ReadHint::Beginning,
            options,
            Arc::default(),
            stop.clone(),
        );
        let ArchiveSource::Directory(members) = origin else {
            panic!("it is a directory");
        };
        assert!(members.check_wanted().is_ok());
        stop.cancel();
        let e = RestoreError::from(members.check_wanted().unwrap_err());
        assert_eq!(e.reason(), R::Cancelled);
    }

    /// What was read of a directory is told apart from every other one, and what was not read is not said to be known.
    #[tokio::test]
    async fn the_members_of_a_directory_are_known_by_their_bytes() {
        use sha2::Digest;
        let read = async |files: &[(&str, &str)], unread: &str| {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("n")).unwrap();
            for (name, text) in files {
                std::fs::write(folder.path().join("n").join(name), text).unwrap();
            }
            let store = Arc::new(crate::store::faulty::FaultyStore::at(folder.path()));
            let pinned = crate::backup::pin(store, "n/", None, None).await.unwrap();
            let listed = pinned.object.members.clone().unwrap();
            let options = DownloadOptions {
                stall: std::time::Duration::from_secs(60),
                budget: std::time::Duration::from_secs(60),
                sha256: true,
            };
            let (origin, check) = open(
                Source::Object(pinned),
                ReadHint::Whole,
                options,
                Arc::default(),
                CancellationToken::new(),
            );
            let ArchiveSource::Directory(members) = origin else {
                panic!("it is a directory");
            };
            let unread = unread.to_owned();
            let all = tokio::task::spawn_blocking(move || {
                let names = members.members().into_iter().map(|(name, _)| name);
                for name in names.filter(|name| *name != unread) {
                    std::io::copy(&mut members.open(&name).unwrap(), &mut std::io::sink()).unwrap();
                }
            });
            all.await.unwrap();
            check.check().unwrap();
            // Whichever was read first.
            let toc: [u8; 32] = sha2::Sha256::digest(b"PGDMP").into();
            assert_eq!(check.sha256(), Some(encode_sha256(toc)));
            (check.members().unwrap(), *listed)
        };
        let files = [("1.dat", "one"), ("toc.dat", "PGDMP")];
        let (then, listed) = read(&files, "").await;
        assert_eq!(then.count, 2);
        // The store of a folder knows no checksums.
        assert_eq!(then.has_same_bytes(&listed), None);
        let other = [("1.dat", "two"), files[1]];
        type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, Option<bool>);
        let cases: [Case<'_>; 4] = [
            (&files, "", Some(true)),
            (&files, "1.dat", None),
            (&other, "", Some(false)),
            (&files[1..], "", Some(false)),
        ];
        for (files, unread, same) in cases {
            let (now, _) = read(files, unread).await;
            assert_eq!(then.has_same_bytes(&now), same, "{files:?} {unread}");
        }
    }

    #[test]
    fn the_sha256_is_that_of_the_first_stream() {
        let stats = |sha256| {
            Arc::new(Mutex::new(StreamStats {
                sha256,
                ..StreamStats::default()
            }))
        };
        let stream = |sha256| CheckedStream {
            begin: 0,
            name: None,
            stats: stats(sha256),
            size: None,
            crc32c: None,
        };
        let two = expected(vec![stream(Some([0xab; 32])), stream(Some([0; 32]))]);
        assert_eq!(two.sha256(), Some("ab".repeat(32)));
        assert_eq!(expected(vec![stream(None)]).sha256(), None);
        assert_eq!(expected(vec![]).sha256(), None);
    }
}
