//! Custom archives that are read by the offsets of their own table of contents: all bytes are read once, and whatever
//! contradicts the offsets is found.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use pgdump_archive::{
    Archive, ArchiveError, ByteStream, BytesProven, Chunk, ContentDigest, Crc32c, DataOffset,
    DataSink, DigestSink, DumpId, Extent, IndexedBlock, RangeSource, TocEntry,
};

use crate::formats::{CORPUS, CollectedContent, bytes_of, open};
use crate::{ArchiveErrorKind, kind};

const FIXTURE: &str = "shop18.gzip.dump";

/// The bytes of an archive, and the ranges that were read or known.
#[derive(Default)]
pub struct RecordedRanges {
    bytes: Vec<u8>,
    pub opened: Mutex<Vec<Extent>>,
    known: Mutex<Vec<Extent>>,
}

impl RangeSource for RecordedRanges {
    fn open(&self, e: Extent) -> Result<ByteStream, ArchiveError> {
        let begin = (e.offset as usize).min(self.bytes.len());
        let end = ((e.offset + e.length) as usize).min(self.bytes.len());
        let part = self.bytes[begin..end].to_vec();
        let crc32c = Crc32c::of(&part);
        self.opened.lock().unwrap().push(Extent { crc32c, ..e });
        Ok(Box::new(std::io::Cursor::new(part)))
    }

    fn know(&self, extent: Extent) {
        self.known.lock().unwrap().push(extent);
    }
}

impl RecordedRanges {
    pub fn of(bytes: &[u8]) -> Arc<Self> {
        Arc::new(RecordedRanges {
            bytes: bytes.to_vec(),
            ..RecordedRanges::default()
        })
    }

    /// Whether all ranges together are the archive, each byte once.
    fn assert_whole(&self) {
        let mut ranges = self.opened.lock().unwrap().clone();
        ranges.extend(self.known.lock().unwrap().iter());
        ranges.sort_by_key(|part| part.offset);
        let (mut end, mut crc) = (0, Crc32c::default());
        for part in ranges {
            assert_eq!(part.offset, end);
            crc = crc.combine(part.crc32c, part.length as usize);
            end += part.length;
        }
        assert_eq!(end, self.bytes.len() as u64);
        assert_eq!(crc, Crc32c::of(&self.bytes));
    }
}

/// Entries with data, and their offsets.
fn offsets(archive: &Archive) -> Vec<(DumpId, u64)> {
    let offset = |e: &TocEntry| match e.offset {
        DataOffset::At(at) => Some((e.dump_id, at)),
        _ => None,
    };
    archive.entries().iter().filter_map(offset).collect()
}

/// The blocks as a reader of the whole finds them.
fn learn(bytes: &[u8]) -> Vec<IndexedBlock> {
    let archive = open(bytes).unwrap();
    let ledger = ContentDigest::of(&archive);
    let mut sink = DigestSink::new(&ledger, &|_| {});
    archive.read_data(&mut sink).unwrap();
    ledger.index().blocks
}

type Data = (
    Vec<(String, Vec<u8>)>,
    std::collections::BTreeMap<u32, Vec<u8>>,
);

fn sorted(sinks: Vec<CollectedContent>) -> Data {
    let mut all = Data::default();
    for sink in sinks {
        all.0.extend(sink.data);
        all.1.extend(sink.objects);
    }
    all.0.sort();
    all
}

fn in_order(bytes: &[u8]) -> Result<Data, ArchiveError> {
    let mut sink = CollectedContent::default();
    open(bytes)?.read_data(&mut sink)?;
    Ok(sorted(vec![sink]))
}

/// Reads by offsets with three threads; `apart`: each block by itself.
fn by_offsets(mut archive: Archive, apart: bool) -> Result<Data, ArchiveError> {
    if apart {
        let ids = archive.entries().iter().map(|e| e.dump_id).enumerate();
        let turns: HashMap<DumpId, usize> = ids.map(|(n, id)| (id, n)).collect();
        archive.set_read_order(&turns);
    }
    let streams = archive.into_streams(3);
    assert_eq!(streams.len(), 3);
    let read = |stream: pgdump_archive::DataStream| {
        let mut sink = CollectedContent::default();
        stream.read(&mut sink).map(|()| sink)
    };
    let read: Result<Vec<CollectedContent>, _> = std::thread::scope(|scope| {
        let threads: Vec<_> = streams
            .into_iter()
            .map(|s| scope.spawn(|| read(s)))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    read.map(sorted)
}

#[test]
fn several_readers_read_all_bytes_once_by_their_offsets() {
    for (name, _, has_offsets) in CORPUS {
        let bytes = bytes_of(name);
        let expected = in_order(&bytes).unwrap();
        for apart in [false, true] {
            let mut archive = open(&bytes).unwrap();
            let ranges = RecordedRanges::of(&bytes);
            let located = archive.read_by_offsets(bytes.len() as u64, ranges.clone());
            assert_eq!(located.is_ok(), has_offsets, "{name}");
            assert_eq!(archive.is_read_by_offsets(), has_offsets, "{name}");
            if has_offsets {
                assert!(by_offsets(archive, apart).unwrap() == expected, "{name}");
                let blocks = learn(&bytes).len();
                let opened = ranges.opened.lock().unwrap().len();
                assert_eq!(opened, if apart { blocks } else { 1 }, "{name}");
                ranges.assert_whole();
            }
        }
    }
}

/// Compressed as a whole, it has no byte at an offset.
#[test]
fn a_compressed_archive_has_no_offsets() {
    let wrapped = std::fs::read(crate::fixtures().join("shop18.none.dump.gz")).unwrap();
    let mut archive = open(&wrapped).unwrap();
    let ranges = RecordedRanges::of(&wrapped);
    assert!(
        archive
            .read_by_offsets(wrapped.len() as u64, ranges)
            .is_err()
    );
    assert!(in_order(&wrapped).is_ok());
}

/// The place of an offset in the table of contents, behind its state.
fn field(bytes: &[u8], offset: u64) -> Range<usize> {
    let mut stored = vec![2];
    stored.extend(offset.to_le_bytes());
    let at = bytes.windows(9).position(|w| w == stored).unwrap();
    at + 1..at + 9
}

fn set(bytes: &mut [u8], field: Range<usize>, offset: u64) {
    bytes[field].copy_from_slice(&offset.to_le_bytes());
}

/// Makes the table of contents say another offset for the block at this one.
fn move_offset(bytes: &mut [u8], from: u64, to: u64) {
    let field = field(bytes, from);
    set(bytes, field, to);
}

/// How a reader of the offsets finds out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detection {
    /// Before anything is read: the stream can be read instead.
    AtOnce,
    Reading,
}

/// What is wrong, how, when that is found, and whether one stream can be read.
type WrongOffset = (&'static str, fn(&mut Vec<u8>, &[u64]), Detection, bool);

/// The offsets come in ascending order.
const WRONG: [WrongOffset; 11] = [
    (
        "a block is said to begin early",
        |b, at| move_offset(b, at[1], at[1] - 10),
        Detection::Reading,
        true,
    ),
    (
        "a block is said to begin late",
        |b, at| move_offset(b, at[1], at[1] + 10),
        Detection::Reading,
        true,
    ),
    (
        "two offsets are swapped",
        |b, at| {
            let (one, two) = (field(b, at[0]), field(b, at[1]));
            set(b, one, at[1]);
            set(b, two, at[0]);
        },
        Detection::Reading,
        true,
    ),
    (
        "two blocks are said to begin at one byte",
        |b, at| move_offset(b, at[1], at[2]),
        Detection::AtOnce,
        true,
    ),
    (
        "the first block is said to begin late",
        |b, at| move_offset(b, at[0], at[0] + 1),
        Detection::AtOnce,
        true,
    ),
    (
        "a block is said to begin behind the end",
        |b, at| move_offset(b, at[1], u64::MAX),
        Detection::AtOnce,
        true,
    ),
    (
        "an entry has no offset",
        |b, at| {
            let state = field(b, at[1]).start - 1;
            b[state] = 1;
        },
        Detection::AtOnce,
        true,
    ),
    (
        "a block is another entry's",
        |b, at| b[at[1] as usize + 2] ^= 1,
        Detection::Reading,
        false,
    ),
    (
        "bytes between two blocks",
        |b, at| {
            b.splice(at[2] as usize..at[2] as usize, [0; 5]);
            for at in &at[2..] {
                move_offset(b, *at, at + 5);
            }
        },
        Detection::Reading,
        false,
    ),
    (
        "the end is missing",
        |b, _| b.truncate(b.len() - 3),
        Detection::Reading,
        false,
    ),
    (
        "bytes behind the end",
        |b, _| b.extend(b"done\n"),
        Detection::Reading,
        false,
    ),
];

#[test]
fn whatever_contradicts_the_offsets_is_found() {
    let good = bytes_of(FIXTURE);
    let expected = in_order(&good).unwrap();
    let mut begins: Vec<u64> = offsets(&open(&good).unwrap()).iter().map(|o| o.1).collect();
    begins.sort_unstable();
    assert!(begins.len() > 3);
    for (what, forge, found, is_readable) in WRONG {
        let mut bytes = good.clone();
        forge(&mut bytes, &begins);
        for apart in [false, true] {
            let mut archive = open(&bytes).unwrap();
            let size = bytes.len() as u64;
            let located = archive.read_by_offsets(size, RecordedRanges::of(&bytes));
            assert_eq!(
                located.is_err(),
                found == Detection::AtOnce,
                "{what}: {located:?}"
            );
            if located.is_ok() {
                let e = by_offsets(archive, apart).expect_err(what);
                assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{what}: {e}");
            } else if !apart {
                // The same archive, whose input was not touched.
                let mut sink = CollectedContent::default();
                archive.read_data(&mut sink).unwrap();
                assert!(sorted(vec![sink]) == expected, "{what}");
            }
        }
        match in_order(&bytes) {
            Ok(data) => assert!(is_readable && data == expected, "{what}"),
            Err(e) => assert!(
                !is_readable && kind(&e) == ArchiveErrorKind::Corrupt,
                "{what}: {e}"
            ),
        }
    }
}

/// If the output of `pg_dump` was opened for appending, the offsets are in the table of contents behind the data, which is
/// read, too.
#[test]
fn the_table_of_contents_behind_the_data_is_a_part() {
    let good = bytes_of(FIXTURE);
    let expected = in_order(&good).unwrap();
    let mut bytes = good.clone();
    for (_, at) in offsets(&open(&good).unwrap()) {
        let field = field(&bytes, at);
        bytes[field.start - 1] = 1;
        set(&mut bytes, field, 0);
    }
    let head = learn(&good).first().unwrap().extent.offset as usize;
    let contents = open(&bytes).unwrap().trailer_bytes().unwrap() as usize;
    bytes.extend(&good[head - contents..head]);
    assert!(in_order(&bytes).unwrap() == expected);
    let size = bytes.len() as u64;
    let opened = || {
        let mut archive = open(&bytes).unwrap();
        assert!(
            archive
                .read_by_offsets(size, RecordedRanges::of(&bytes))
                .is_err()
        );
        archive.read_trailer(&bytes[bytes.len() - contents..]);
        archive
    };
    let (mut archive, ranges) = (opened(), RecordedRanges::of(&bytes));
    archive.read_by_offsets(size, ranges.clone()).unwrap();
    assert!(by_offsets(archive, true).unwrap() == expected);
    ranges.assert_whole();
    // Damaged since it was looked at: a name in it.
    let mut damaged = bytes.clone();
    let name = damaged.windows(4).rposition(|w| w == b"shop").unwrap();
    damaged[name] ^= 1;
    assert!(
        opened()
            .read_by_offsets(size, RecordedRanges::of(&damaged))
            .is_err()
    );
}

/// Wants nothing that it knows.
struct ContinuingSink {
    known: HashMap<DumpId, Extent>,
    read: Vec<(DumpId, Extent)>,
}

impl DataSink for ContinuingSink {
    fn should_read(&self, entry: &TocEntry) -> bool {
        !self.known.contains_key(&entry.dump_id)
    }
    fn known_block(&self, entry: &TocEntry) -> Option<Extent> {
        self.known.get(&entry.dump_id).copied()
    }
    fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn chunk(&mut self, _: Chunk) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn proven(&mut self, entry: &TocEntry, bytes: BytesProven) {
        let BytesProven::BlockRead(extent) = bytes else {
            panic!("{bytes:?} is more than was shown");
        };
        self.read.push((entry.dump_id, extent));
    }
}

/// What an earlier attempt has loaded is not read again, and its checksum counts.
#[test]
fn blocks_that_were_read_before_are_known() {
    let bytes = bytes_of(FIXTURE);
    let all: Vec<(DumpId, Extent)> = learn(&bytes)
        .iter()
        .map(|b| (b.dump_id, b.extent))
        .collect();
    let read = |known: &[(DumpId, Extent)]| {
        let (mut archive, ranges) = (open(&bytes).unwrap(), RecordedRanges::of(&bytes));
        let size = bytes.len() as u64;
        archive.read_by_offsets(size, ranges.clone()).unwrap();
        let mut sink = ContinuingSink {
            known: known.iter().copied().collect(),
            read: vec![],
        };
        archive.read_data(&mut sink).map(|()| (sink.read, ranges))
    };
    let (found, ranges) = read(&[]).unwrap();
    assert_eq!(found, all);
    ranges.assert_whole();
    let known = [all[0], all[2]];
    let (found, ranges) = read(&known).unwrap();
    assert_eq!(found.len(), all.len() - 2);
    ranges.assert_whole();
    let opened = ranges.opened.lock().unwrap().clone();
    let begins: Vec<u64> = opened.iter().map(|e| e.offset).collect();
    assert_eq!(begins, [all[1].1.offset, all[3].1.offset]);
    // A block that is not where it was.
    let (id, extent) = all[1];
    let elsewhere = Extent {
        length: extent.length - 1,
        ..extent
    };
    let e = read(&[(id, elsewhere)]).map(|_| ()).unwrap_err();
    assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{e}");
}
