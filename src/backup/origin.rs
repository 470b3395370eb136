//! A backup as the archive reader wants it: one stream, or the members of a directory; and the proof
//! afterwards that every byte was the store's.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::download::{Download, DownloadOptions, Reach, Source, Tally};
use super::{PinnedBackup, TOC};
use crate::archive::{BlockIndex, Bytes, Extent, Folder, Origin, Ranges, Reopen};
use crate::error::{FailureReason as R, RestoreError, StorageError, ValidationError};
use crate::progress::Progress;
use crate::store::StoredObject;

/// What the finished reading must have been.
pub struct Expected {
    streams: Arc<Mutex<Vec<Stream>>>,
    /// Size of the whole backup, if it is known.
    size: Option<u64>,
    is_folder: bool,
    /// Of what is read in parts: the CRC32C that they add up to.
    whole: Option<u32>,
}

struct Stream {
    tally: Arc<Mutex<Tally>>,
    size: Option<u64>,
    crc32c: Option<u32>,
}

/// Opens a backup for reading, as far as `reach` says.
pub fn open(
    source: Source,
    reach: Reach,
    limits: DownloadOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (Origin, Expected) {
    let size = match &source {
        Source::Object(b) => Some(b.object.size),
        Source::Stdin => None,
    };
    progress.object_size.store(size.unwrap_or_default(), Relaxed);
    let streams = Arc::default();
    let reader = Reader { limits, reach, progress, stop, streams: Arc::clone(&streams) };
    let expected = |is_folder| Expected { streams, size, is_folder, whole: None };
    match source {
        Source::Stdin => {
            let bytes = reader.start(Source::Stdin, None, None);
            (Origin::Stream { bytes, again: None }, expected(false))
        }
        Source::Object(b) if b.members.is_empty() => {
            let bytes = reader.start(Source::Object(b.clone()), size, b.expected_crc32c);
            let again = Again { backup: b, reader };
            (Origin::Stream { bytes, again: Some(Arc::new(again)) }, expected(false))
        }
        Source::Object(b) => (Origin::Folder(Arc::new(Members { backup: b, reader })), expected(true)),
    }
}

/// Opens one object to be read by blocks: its head as the stream, each block by the index.
///
/// The proof is the same as of the whole: every part that is read has its CRC32C, and all of them add
/// up to the object's.
pub fn open_by_blocks(
    backup: PinnedBackup,
    index: &BlockIndex,
    options: DownloadOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (Origin, Arc<dyn Ranges>, Expected) {
    let size = Some(backup.object.size);
    progress.object_size.store(backup.object.size, Relaxed);
    let streams = Arc::default();
    let reader =
        Reader { limits: options, reach: Reach::Whole, progress, stop, streams: Arc::clone(&streams) };
    let bytes = reader.start_part(backup.clone(), index.head);
    let whole = index.whole().map(|(_, crc)| crc);
    let expected = Expected { streams, size, is_folder: false, whole };
    (Origin::Stream { bytes, again: None }, Arc::new(Blocks { backup, reader }), expected)
}

/// Blocks of one object.
struct Blocks {
    backup: PinnedBackup,
    reader: Reader,
}

impl Ranges for Blocks {
    fn open(&self, extent: Extent) -> Result<Bytes, RestoreError> {
        Ok(self.reader.start_part(self.backup.clone(), extent))
    }
}

struct Reader {
    limits: DownloadOptions,
    reach: Reach,
    progress: Arc<Progress>,
    stop: CancellationToken,
    streams: Arc<Mutex<Vec<Stream>>>,
}

impl Reader {
    fn start(&self, source: Source, size: Option<u64>, crc32c: Option<u32>) -> Bytes {
        self.start_from(source, (0, self.reach), size, crc32c)
    }

    fn start_part(&self, backup: PinnedBackup, e: Extent) -> Bytes {
        let from = (e.offset, Reach::Until(e.offset + e.length));
        self.start_from(Source::Object(backup), from, Some(e.length), Some(e.crc32c))
    }

    fn start_from(
        &self,
        source: Source,
        from: (u64, Reach),
        size: Option<u64>,
        crc32c: Option<u32>,
    ) -> Bytes {
        let (download, tally) =
            Download::start(source, from, self.limits, self.progress.clone(), self.stop.clone());
        let stream = Stream { tally, size, crc32c };
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        Box::new(download)
    }
}

/// The same object once more, to look for something in it.
struct Again {
    backup: PinnedBackup,
    reader: Reader,
}

impl Reopen for Again {
    fn open(&self, offset: u64) -> Result<Bytes, RestoreError> {
        let source = Source::Object(self.backup.clone());
        let from = (offset, Reach::Beginning);
        let r = &self.reader;
        Ok(Box::new(Download::start(source, from, r.limits, Arc::default(), r.stop.clone()).0))
    }
}

/// The objects of a directory dump.
struct Members {
    backup: PinnedBackup,
    reader: Reader,
}

impl Members {
    fn name<'a>(&self, o: &'a StoredObject) -> &'a str {
        o.name.strip_prefix(&self.backup.object.name).unwrap_or(&o.name)
    }
}

impl Folder for Members {
    fn members(&self) -> Vec<(String, u64)> {
        self.backup.members.iter().map(|o| (self.name(o).to_owned(), o.size)).collect()
    }

    fn open(&self, name: &str) -> Result<Bytes, RestoreError> {
        let object = self.backup.members.iter().find(|o| self.name(o) == name).cloned();
        let object = object.ok_or_else(|| {
            StorageError::new(R::BackupNotFound, format!("{}{name}: not a member", self.backup.uri()))
        })?;
        let (size, expected_crc32c) = (object.size, object.crc32c);
        let member =
            PinnedBackup { store: self.backup.store.clone(), object, members: vec![], expected_crc32c };
        Ok(self.reader.start(Source::Object(member), Some(size), expected_crc32c))
    }
}

impl Expected {
    /// Size of the backup and, of a single object, its CRC32C, once every byte that was read is proven
    /// to be the store's.
    ///
    /// # Errors
    /// `checksum_mismatch`; `download_failed` where an end was not reached.
    pub fn check(&self) -> Result<(Option<u32>, u64), RestoreError> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = Tally::default();
        for stream in streams.iter() {
            last = stream.check()?;
        }
        if streams.is_empty() {
            return Err(RestoreError::internal(format!("neither an object nor {TOC} was read")));
        }
        match (self.is_folder, self.whole) {
            (true, _) => Ok((None, self.size.unwrap_or_default())),
            (false, Some(whole)) => Ok((Some(whole), self.size.unwrap_or_default())),
            (false, None) => Ok((Some(last.crc32c), last.bytes)),
        }
    }
}

impl Expected {
    /// SHA-256, in hexadecimal, of what was read first: the object, or a directory's `toc.dat`; `None`
    /// where it was not asked for or not read to its end.
    pub fn sha256(&self) -> Option<String> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = *streams.first()?.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.sha256.map(|h| h.iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl Stream {
    fn check(&self) -> Result<Tally, RestoreError> {
        let t = *self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if !t.ended || self.size.is_some_and(|s| s != t.bytes) {
            let what = format!("{} bytes of the backup were read, not all", t.bytes);
            return Err(StorageError::new(R::DownloadFailed, what).into());
        }
        match self.crc32c {
            Some(wanted) if wanted != t.crc32c => {
                let what = "the bytes of the backup do not have the CRC32C that the store has for them";
                Err(ValidationError::new(R::ChecksumMismatch, what).into())
            }
            _ => Ok(t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: u64, crc32c: u32, ended: bool) -> Arc<Mutex<Tally>> {
        Arc::new(Mutex::new(Tally { bytes, crc32c, ended, ..Tally::default() }))
    }

    fn expected(streams: Vec<Stream>) -> Expected {
        Expected { streams: Arc::new(Mutex::new(streams)), size: Some(99), is_folder: false, whole: None }
    }

    #[test]
    fn what_was_read_must_be_all_of_it_and_what_the_store_has() {
        let check = |bytes, crc, ended, size, crc32c| {
            let tally = read(bytes, crc, ended);
            expected(vec![Stream { tally, size, crc32c }]).check().map_err(|e| e.reason())
        };
        for (checked, wanted) in [
            (check(10, 7, true, Some(10), Some(7)), Ok((Some(7), 10))),
            (check(10, 7, true, None, None), Ok((Some(7), 10))),
            (check(10, 7, false, Some(10), Some(7)), Err(R::DownloadFailed)),
            (check(10, 7, false, None, None), Err(R::DownloadFailed)),
            (check(9, 7, true, Some(10), Some(7)), Err(R::DownloadFailed)),
            (check(10, 8, true, Some(10), Some(7)), Err(R::ChecksumMismatch)),
        ] {
            assert_eq!(checked, wanted);
        }
        assert_eq!(expected(vec![]).check().unwrap_err().reason(), R::Internal);
    }

    #[test]
    fn one_bad_part_is_enough_and_the_whole_has_its_own_checksum() {
        let part = |crc32c| Stream { tally: read(10, 7, true), size: Some(10), crc32c: Some(crc32c) };
        for bad in 0..3 {
            let parts = (0..3).map(|i| part(if i == bad { 8 } else { 7 })).collect();
            assert_eq!(expected(parts).check().unwrap_err().reason(), R::ChecksumMismatch);
        }
        let whole = Expected { whole: Some(3), ..expected(vec![part(7), part(7)]) };
        assert_eq!(whole.check().unwrap(), (Some(3), 99));
        let folder = Expected { is_folder: true, ..expected(vec![part(7)]) };
        assert_eq!(folder.check().unwrap(), (None, 99));
    }

    #[test]
    fn the_sha256_is_that_of_what_was_read_first() {
        let tally = |sha256| Arc::new(Mutex::new(Tally { sha256, ..Tally::default() }));
        let stream = |sha256| Stream { tally: tally(sha256), size: None, crc32c: None };
        let two = expected(vec![stream(Some([0xab; 32])), stream(Some([0; 32]))]);
        assert_eq!(two.sha256(), Some("ab".repeat(32)));
        assert_eq!(expected(vec![stream(None)]).sha256(), None);
        assert_eq!(expected(vec![]).sha256(), None);
    }
}
