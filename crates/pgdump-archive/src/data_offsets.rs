//! Where the data blocks of a custom archive are by the offsets in its table of contents. They are what the archive says of
//! itself: reading the blocks shows whether it is true.

use std::ops::Range;

use super::index::{Extent, IndexedBlock};
use super::toc::corrupt;
use super::{DataOffset, TocEntry};
use crate::error::ArchiveError;

/// The blocks in the order of the archive, one for each entry with data, which together are the bytes of `data`. Their
/// checksums and rows are not known.
///
/// # Errors
/// Entries without offset; offsets that cannot be those of blocks that follow each other; fewer than two blocks, which one
/// reader reads as fast.
pub(super) fn blocks_at_offsets(
    entries: &[TocEntry],
    data: Range<u64>,
) -> Result<Vec<IndexedBlock>, ArchiveError> {
    let mut starts = starts(entries)?;
    starts.sort_unstable_by_key(|(at, _)| *at);
    let [(first, _), _, ..] = starts[..] else {
        return Err(corrupt("fewer than two data blocks have offsets"));
    };
    if first != data.start {
        return Err(corrupt(format!(
            "the first data block cannot be at byte {first}: the table of contents ends at byte {}",
            data.start
        )));
    }
    let ends = starts.iter().skip(1).map(|(at, _)| *at);
    let ends = ends.chain(std::iter::once(data.end));
    let blocks = starts.iter().zip(ends).map(|((at, entry), end)| {
        let length = end.checked_sub(*at).filter(|length| *length > 0);
        let length = length.ok_or_else(|| {
            let name = entry.name();
            corrupt(format!(
                "the data of {name} cannot be from byte {at} to byte {end}"
            ))
        })?;
        let extent = Extent {
            offset: *at,
            length,
            ..Extent::default()
        };
        Ok(IndexedBlock {
            dump_id: entry.dump_id,
            extent,
            rows: 0,
            // The order of reading follows it; how much comes out is not known.
            bytes: length,
        })
    });
    blocks.collect()
}

/// Where the data of each entry with data begins.
fn starts(entries: &[TocEntry]) -> Result<Vec<(u64, &TocEntry)>, ArchiveError> {
    let start = |e: &'_ TocEntry| match e.offset {
        DataOffset::At(at) if e.has_data => Ok(Some(at)),
        DataOffset::NoData | DataOffset::NotSet if !e.has_data => Ok(None),
        _ => Err(corrupt(format!(
            "{} has data without an offset, or an offset without data",
            e.name()
        ))),
    };
    let starts = entries.iter().map(|e| Ok(start(e)?.map(|at| (at, e))));
    starts.filter_map(Result::transpose).collect()
}
