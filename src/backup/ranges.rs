//! Opens one object to be read by ranges, several at once. The check is as strict as that of the whole object read in order.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::sync::CancellationToken;

use super::PinnedBackup;
use super::checked_read::{CheckedStream, IntegrityCheck, ReadMode, StreamOpener};
use super::download::{DownloadOptions, ReadHint, Source};
use crate::progress::Progress;
use pgdump_archive::{ArchiveError, ArchiveSource, BlockIndex, ByteStream, Extent, RangeSource};

/// Opens one object to be read by blocks: its head as the stream, each block through the index. Every part that is read has
/// its own CRC32C, and these combine to the object's.
pub fn open_by_blocks(
    backup: PinnedBackup,
    index: &BlockIndex,
    options: DownloadOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (ArchiveSource, Arc<dyn RangeSource>, IntegrityCheck) {
    progress.object_size.store(backup.object.size, Relaxed);
    let reading = index
        .whole()
        .map_or(ReadMode::Whole, |(_, crc)| ReadMode::Blocks(crc));
    let (mut ranges, check) = ranges_of(backup, (options, reading), progress, stop);
    ranges.has_checksums = true;
    let bytes = ranges.start(index.head);
    let source = ArchiveSource::Stream {
        bytes,
        reopen: None,
    };
    (source, Arc::new(ranges), check)
}

/// Opens one object to be read by ranges that only its own table of contents tells. They must be all of the object, and
/// their CRC32Cs combine to its own.
pub fn open_by_offsets(
    backup: PinnedBackup,
    options: DownloadOptions,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (Arc<dyn RangeSource>, IntegrityCheck) {
    let reading = ReadMode::Ranges(backup.expected_crc32c);
    let (ranges, check) = ranges_of(backup, (options, reading), progress, stop);
    (Arc::new(ranges), check)
}

fn ranges_of(
    backup: PinnedBackup,
    (limits, reading): (DownloadOptions, ReadMode),
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> (ObjectRanges, IntegrityCheck) {
    let streams = Arc::default();
    let reader = StreamOpener {
        limits,
        reach: ReadHint::Whole,
        progress,
        stop,
        streams: Arc::clone(&streams),
    };
    let check = IntegrityCheck::of_parts(streams, backup.object.size, reading);
    let ranges = ObjectRanges {
        backup,
        reader,
        has_checksums: false,
    };
    (ranges, check)
}

/// Reads ranges of one object.
struct ObjectRanges {
    backup: PinnedBackup,
    reader: StreamOpener,
    /// Whether the checksum of each is known before it is read.
    has_checksums: bool,
}

impl ObjectRanges {
    fn start(&self, e: Extent) -> ByteStream {
        let from = (e.offset, ReadHint::Until(e.offset + e.length));
        let crc32c = self.has_checksums.then_some(e.crc32c);
        let source = Source::Object(self.backup.clone());
        let expected = (None, Some(e.length), crc32c);
        self.reader.start_from(source, from, expected)
    }
}

impl RangeSource for ObjectRanges {
    fn open(&self, extent: Extent) -> Result<ByteStream, ArchiveError> {
        Ok(self.start(extent))
    }

    fn know(&self, extent: Extent) {
        // The head was downloaded.
        if extent.offset > 0 {
            let skipped = &self.reader.progress.skipped_bytes;
            skipped.fetch_add(extent.length, Relaxed);
        }
        let known = CheckedStream::known(extent);
        self.reader.streams.lock().push(known);
    }
}
