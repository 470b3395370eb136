//! Parallel downloads of a scripted store, on a paused clock.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use pgdump_archive::Crc32c;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::backup::PinnedBackup;
use crate::backup::read_ahead::{DownloadReceiver, DownloadSender, read_ahead};
use crate::backup::resuming_range::DownloadOptions;
use crate::error::StorageKind;
use crate::progress::Progress;
use crate::store::scripted::{ScriptedStore, StreamFault as F};

const MIB: u64 = 1 << 20;
const MB: u64 = 1_000_000;
/// A rate that limits nothing.
const FAST: u64 = 100_000 * MB;

struct Downloaded {
    ended: Result<(), StorageKind>,
    bytes: u64,
    crc32c: Crc32c,
    /// The furthest that bytes were received ahead of the reader.
    ahead: u64,
    progress: Arc<Progress>,
    seconds: f64,
}

async fn pump(
    pinned: PinnedBackup,
    range: (u64, u64),
    progress: Arc<Progress>,
    outlet: DownloadSender,
) -> Result<(), StorageKind> {
    let context = RangeContext {
        backup: &pinned,
        limits: DownloadOptions {
            stall: Duration::from_secs(5),
            budget: Duration::from_secs(60),
            sha256: false,
        },
        progress: &progress,
        outlet: &outlet,
    };
    let spare = pinned.store.spare_streams().unwrap();
    let pumped = pump_parts(context, range, spare).await;
    pumped.map_err(|e| e.kind())
}

/// Reads at most so many bytes per second.
async fn read(inlet: &mut DownloadReceiver, rate: u64, progress: &Progress) -> (u64, Crc32c, u64) {
    let (mut bytes, mut crc, mut ahead, mut busy) = (0, Crc32c::default(), 0, 0.0);
    while let Some(chunk) = inlet.next_async().await {
        let chunk = chunk.unwrap();
        crc = crc.append(&chunk);
        bytes += chunk.len() as u64;
        ahead = ahead.max(progress.object_bytes.load(Relaxed) - bytes);
        busy += chunk.len() as f64 / rate as f64;
        // The timer counts milliseconds.
        if busy > 0.02 {
            tokio::time::sleep(Duration::from_secs_f64(std::mem::take(&mut busy))).await;
        }
    }
    (bytes, crc, ahead)
}

async fn download(store: &Arc<ScriptedStore>, range: (u64, u64), reader: u64) -> Downloaded {
    let pinned = PinnedBackup::single(store.clone(), store.object());
    let progress = Arc::new(Progress::default());
    let (outlet, mut inlet) = read_ahead(32, CancellationToken::new());
    let begun = Instant::now();
    let pumped = pump(pinned, range, progress.clone(), outlet);
    let (ended, (bytes, crc32c, ahead)) = tokio::join!(pumped, read(&mut inlet, reader, &progress));
    Downloaded {
        ended,
        bytes,
        crc32c,
        ahead,
        progress,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

#[tokio::test(start_paused = true)]
async fn parts_are_put_back_in_order_whatever_happens_to_their_streams() {
    let size = 400 * MIB + 12_345;
    let store = Arc::new(ScriptedStore::new(size, 50 * MB, FAST));
    // In the beginning, where there is one stream, and later, where there are several.
    for (at, fault) in [
        (0, F::Cut),
        (1, F::Cut),
        (3 * MIB + 7, F::Stall),
        (200 * MIB + 1, F::Cut),
        (210 * MIB, F::Error(StorageKind::DownloadFailed)),
        (230 * MIB + 5, F::Short),
        (250 * MIB + 99, F::Stall),
        (300 * MIB, F::Cut),
        (size - 1, F::Cut),
    ] {
        store.fail(at, fault, 1);
    }
    let all = download(&store, (0, size), FAST).await;
    assert_eq!(all.ended, Ok(()));
    assert_eq!((all.bytes, Some(all.crc32c)), (size, store.object().crc32c));
    // Each byte counts once, and each fault is one retry.
    assert_eq!(all.progress.object_bytes.load(Relaxed), size);
    assert_eq!(store.faults_left(), 0);
    assert_eq!(all.progress.download_retries.load(Relaxed), 9);
    assert_eq!(store.streams().0, 0);
    assert!(store.streams().1 > 2);
    // All streams went on while one of them stalled, and waited then: no part is far ahead of the one before it.
    assert!(all.ahead <= window(MAX_STREAMS) + MIB, "{}", all.ahead);
    // Beside two stalls of five seconds each; one stream would take 8.4.
    assert!(all.seconds < 10.0 + 6.4, "{}", all.seconds);
    assert_eq!(store.spare_left(), 14);
}

#[tokio::test(start_paused = true)]
async fn a_range_is_read_from_its_beginning_to_its_end() {
    let store = Arc::new(ScriptedStore::new(300 * MIB, 50 * MB, FAST));
    let (begin, end) = (3 * MIB + 11, 250 * MIB + 5);
    let part = download(&store, (begin, end), FAST).await;
    assert_eq!((part.ended, part.bytes), (Ok(()), end - begin));
    let reads = store.reads();
    assert_eq!(reads[0], (begin, Some(end - begin)));
    let ends = reads.iter().map(|(at, n)| at + n.unwrap());
    assert!(ends.max() == Some(end) && store.streams().1 > 2);
}

#[tokio::test(start_paused = true)]
async fn more_streams_are_opened_only_where_they_help() {
    let size = 300 * MIB;
    for (link, reader, wanted) in [
        (FAST, 45 * MB, 1..=1),
        // The next try may begin while the last part of the one before is still being read.
        (50 * MB, FAST, 2..=3),
        (FAST, 140 * MB, 3..=5),
    ] {
        let store = Arc::new(ScriptedStore::new(size, 50 * MB, link));
        let all = download(&store, (0, size), reader).await;
        assert_eq!((all.ended, all.bytes), (Ok(()), size));
        let (_, most) = store.streams();
        assert!(wanted.contains(&most), "{link} {reader}: {most}");
        // One stream is one request, as long as there is only one.
        assert_eq!(store.reads().len() == 1, most == 1);
        let floor = size as f64 / link.min(reader) as f64;
        assert!(all.seconds < floor * 1.15 + 1.5, "{link} {reader}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_part_that_fails_ends_the_download_and_all_streams() {
    let size = 300 * MIB;
    for (fault, times, wanted) in [
        (F::Error(StorageKind::Changed), 1, StorageKind::Changed),
        (
            F::Error(StorageKind::AccessDenied),
            1,
            StorageKind::AccessDenied,
        ),
        (F::Stall, usize::MAX, StorageKind::DownloadFailed),
        (F::Cut, usize::MAX, StorageKind::DownloadFailed),
    ] {
        let store = Arc::new(ScriptedStore::new(size, 50 * MB, FAST));
        store.fail(200 * MIB + 3, fault, times);
        let part = download(&store, (0, size), FAST).await;
        assert_eq!(part.ended, Err(wanted));
        assert!(part.bytes <= 200 * MIB + 3);
        assert!(store.streams().1 > 2);
        assert_eq!((store.streams().0, store.spare_left()), (0, 14));
        // It is given up after the budget and the last pause.
        assert!(part.seconds < 110.0, "{fault:?}: {}", part.seconds);
    }
}

/// A command that is over drops the future.
#[tokio::test(start_paused = true)]
async fn no_stream_is_left_once_nobody_wants_the_bytes() {
    let size = 300 * MIB;
    for is_reader_gone in [true, false] {
        let store = Arc::new(ScriptedStore::new(size, 50 * MB, FAST));
        let pinned = PinnedBackup::single(store.clone(), store.object());
        let progress = Arc::new(Progress::default());
        let (outlet, mut inlet) = read_ahead(32, CancellationToken::new());
        let pumped = tokio::spawn(pump(pinned, (0, size), progress.clone(), outlet));
        while store.streams().0 < 3 {
            inlet.next_async().await.unwrap().unwrap();
        }
        // The reader has stopped to read, so all streams wait for it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        if is_reader_gone {
            drop(inlet);
            assert_eq!(pumped.await.unwrap(), Err(StorageKind::Stopped));
        } else {
            pumped.abort();
            assert!(pumped.await.unwrap_err().is_cancelled());
        }
        assert_eq!((store.streams().0, store.spare_left()), (0, 14));
    }
}

/// The budget is for a store that does not answer: a part that has waited for the reader is retried like any other.
#[tokio::test(start_paused = true)]
async fn the_time_that_a_reader_takes_is_not_the_stores() {
    let size = 300 * MIB;
    let store = Arc::new(ScriptedStore::new(size, 50 * MB, FAST));
    let pinned = PinnedBackup::single(store.clone(), store.object());
    let progress = Arc::new(Progress::default());
    let (outlet, mut inlet) = read_ahead(32, CancellationToken::new());
    let pumped = tokio::spawn(pump(pinned, (0, size), progress.clone(), outlet));
    while store.streams().0 < 3 {
        inlet.next_async().await.unwrap().unwrap();
    }
    // Longer than the budget.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let ends = store
        .reads()
        .into_iter()
        .filter_map(|(at, n)| Some(at + n?));
    let waiting = ends.max().unwrap();
    store.fail(waiting, F::Cut, 1);
    while let Some(chunk) = inlet.next_async().await {
        chunk.unwrap();
    }
    assert_eq!(pumped.await.unwrap(), Ok(()));
    assert_eq!(store.faults_left(), 0);
}
