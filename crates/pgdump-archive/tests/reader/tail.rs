//! The part of a custom archive after its last data block: nothing, or the table of contents again, as `pg_dump`
//! leaves it if its output was opened for appending; anything else is reported.

use pgdump_archive::Crc32c;

use pgdump_archive::ArchiveError;
use pgdump_archive::{
    Archive, ArchiveSource, Chunk, ContentDigest, DataSink, DecryptionKeys, DigestSink, Limits,
    TocEntry,
};

use crate::offsets::RecordedRanges;
use crate::{ArchiveErrorKind, kind};

use crate::synthetic::{synthetic, synthetic_parts};

fn open(bytes: &[u8]) -> Result<Archive, ArchiveError> {
    let origin = ArchiveSource::once(std::io::Cursor::new(bytes.to_vec()));
    Archive::open(origin, Limits::default(), &DecryptionKeys::default())
}

#[derive(Default)]
struct RowSink(Vec<u8>);

impl DataSink for RowSink {
    fn begin(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        let Chunk::Rows { text, .. } = chunk else {
            panic!("{chunk:?}")
        };
        self.0.extend(text);
        Ok(())
    }
    fn end(&mut self, _: &TocEntry) -> Result<(), ArchiveError> {
        Ok(())
    }
}

fn rows(bytes: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut sink = RowSink::default();
    open(bytes)?.read_data(&mut sink)?;
    Ok(sink.0)
}

/// The table of contents after the data has its offsets, and so the size of each table.
#[test]
fn sizes_come_from_the_table_of_contents_after_the_data() {
    for (minor, int_size) in [(12, 4), (16, 4), (16, 8)] {
        let (bytes, end) = appended(minor, int_size);
        let size = Some(bytes.len() as u64);
        let mut archive = open(&bytes).unwrap();
        assert!(archive.sizes(size).is_empty());
        let needed = archive.trailer_bytes().unwrap() as usize;
        assert_eq!(needed, bytes.len() - end);
        let [head, contents, data] = synthetic_parts(minor, int_size);
        assert_eq!(end, head.len() + contents.len() + data.len());
        // More than it, and exactly it.
        for tail in [&bytes[..], &bytes[end..]] {
            let mut archive = open(&bytes).unwrap();
            archive.read_trailer(tail);
            let sizes: Vec<u64> = archive.sizes(size).into_values().collect();
            assert_eq!(sizes, [data.len() as u64], "1.{minor}");
            assert_eq!(archive.cut_off(bytes.len() as u64, &bytes), None);
        }
        archive.read_trailer(&bytes[..bytes.len() - 1]);
        assert!(archive.sizes(size).is_empty());
    }
}

/// The locations of all blocks, learned by reading the archive once.
fn learn(bytes: &[u8]) -> pgdump_archive::BlockIndex {
    let archive = open(bytes).unwrap();
    let ledger = ContentDigest::of(&archive);
    archive
        .read_data(&mut DigestSink::new(&ledger, &|_| {}))
        .unwrap();
    ledger.index()
}

/// As `pg_dump -Fc >> file` writes it, and the offset of its second table of contents.
fn appended(minor: u8, int_size: u8) -> (Vec<u8>, usize) {
    let [head, contents, data] = synthetic_parts(minor, int_size);
    let mut again = contents.clone();
    let offset = again.len() - 9;
    again[offset] = 2;
    again[offset + 1..].copy_from_slice(&((head.len() + contents.len()) as u64).to_le_bytes());
    let end = head.len() + contents.len() + data.len();
    ([head, contents, data, again].concat(), end)
}

#[test]
fn every_reader_accepts_a_table_of_contents_after_the_data() {
    for minor in 12..=16 {
        for int_size in [4, 8] {
            let (bytes, end) = appended(minor, int_size);
            assert_eq!(rows(&bytes).unwrap(), b"1\n2\n", "1.{minor}");
            let index = learn(&bytes);
            assert_eq!(index.tail.unwrap().offset, end as u64);
            assert_eq!(
                index.whole(),
                Some((bytes.len() as u64, Crc32c::of(&bytes)))
            );
            let mut archive = open(&bytes[..index.head.length as usize]).unwrap();
            let ranges = RecordedRanges::of(&bytes);
            archive.read_by_blocks(&index, ranges.clone()).unwrap();
            let mut sink = RowSink::default();
            archive
                .into_streams(3)
                .into_iter()
                .for_each(|s| s.read(&mut sink).unwrap());
            assert_eq!(sink.0, b"1\n2\n");
            // Each once, with the checksum that the index has.
            let mut opened = ranges.opened.lock().unwrap().clone();
            opened.sort_by_key(|e| e.offset);
            assert_eq!(opened, [index.blocks[0].extent, index.tail.unwrap()]);
        }
    }
    // Also for an archive without data.
    let [head, mut contents, _] = synthetic_parts(16, 4);
    let has_data = contents.len() - 9;
    contents[has_data] = 3;
    let flag = contents
        .windows(10)
        .rposition(|w| w == [0, 2, 0, 0, 0, 0, 1, 0, 0, 0])
        .unwrap()
        + 6;
    contents[flag] = 0;
    assert_eq!(
        rows(&[&head[..], &contents, &contents].concat()).unwrap(),
        b""
    );
}

#[test]
fn an_incomplete_or_different_second_table_of_contents_is_an_error() {
    for minor in [13, 16] {
        let (bytes, end) = appended(minor, 4);
        for cut in end + 1..bytes.len() {
            let e = rows(&bytes[..cut]).expect_err("a truncated table of contents");
            assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{cut}: {e}");
        }
        let mut taken = vec![];
        for at in end..bytes.len() - 8 {
            let mut bad = bytes.clone();
            bad[at] ^= 4;
            match rows(&bad) {
                Ok(_) => taken.push(at),
                Err(e) => assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{at}: {e}"),
            }
        }
        // The offset of the first entry.
        assert!(taken.len() == 8 && taken[7] - taken[0] == 7, "{taken:?}");
        let other = bytes[end..]
            .iter()
            .map(|b| if *b == b'm' { b'n' } else { *b });
        let e = rows(
            &bytes[..end]
                .iter()
                .copied()
                .chain(other)
                .collect::<Vec<_>>(),
        )
        .unwrap_err()
        .to_string();
        assert!(
            e.contains("after the data differs from the one at the beginning: TABLE public.t"),
            "{e}"
        );
    }
}

#[test]
fn other_bytes_after_the_end_are_reported() {
    let whole = synthetic(16, 4);
    let (appended, end) = appended(16, 4);
    let again = &appended[end..];
    for (before, behind, said) in [
        (&whole, &b"done\n"[..], "other bytes (\"done\\n\")"),
        (&whole, b"\0", "(\"\\x00\")"),
        (&whole, &[0; 9000], "\\x00\\x00"),
        (&whole, &[1; 3], "(\"\\x01\\x01\\x01\")"),
        (&whole, &[3; 9000], "\\x03\\x03"),
        (&whole, b"\x01\x00\x07\0\0\0junk", "other bytes"),
        (
            &whole,
            b"pg_dump: warning: \x1b[31mcircular",
            "pg_dump: warning: \\x1b[31m",
        ),
        (&whole, &whole, "another archive begins"),
        (&appended, b"\0", "other bytes"),
        (&appended, again, "other bytes"),
        (&appended, &whole, "another archive begins"),
    ] {
        let e = rows(&[&before[..], behind].concat()).expect_err(said);
        let text = e.to_string();
        assert_eq!(kind(&e), ArchiveErrorKind::Corrupt, "{text}");
        assert!(
            text.contains("ends early") || text.contains(said),
            "{said}: {text}"
        );
        if !text.contains("ends early") {
            let size = before.len();
            assert!(
                text.contains(&format!("at byte {size}"))
                    && text.contains(&format!("head -c {size}")),
                "{text}"
            );
        }
    }
    // Two archives in one file, the second written over the first one's data.
    let [head, contents, _] = synthetic_parts(16, 4);
    let e = rows(&[&head[..], &contents, &whole].concat())
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("another archive begins, before the data of TABLE DATA public.t"),
        "{e}"
    );
    let e = rows(&[&head[..], &contents, b"\nDETAIL: x"].concat())
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("no data block begins at byte") && e.contains("(\"\\nDETAIL: x\")"),
        "{e}"
    );
    // A block that occurs twice.
    let [head, contents, data] = synthetic_parts(16, 4);
    let e = rows(&[head, contents, data.clone(), data].concat())
        .unwrap_err()
        .to_string();
    assert!(
        e.contains("the data of TABLE DATA public.t occurs twice"),
        "{e}"
    );
}
