//! Where the data blocks of a custom archive lie, learned by reading it once: with that, several
//! readers can read it at the same time, though the archive itself (as one that came through a pipe)
//! does not say. Each block has its CRC32C, so that reading by blocks proves as much as reading the
//! whole.

use std::collections::VecDeque;
use std::io::{BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use super::Bytes;
use crate::error::RestoreError;

/// Some bytes of an archive.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
    pub crc32c: u32,
}

/// One entry's data block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct IndexedBlock {
    pub dump_id: i32,
    #[serde(flatten)]
    pub extent: Extent,
    pub rows: u64,
    /// Bytes of its data, uncompressed.
    pub bytes: u64,
}

/// The header with the table of contents, and every block, in the order of the archive.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct BlockIndex {
    pub head: Extent,
    pub blocks: Vec<IndexedBlock>,
}

impl BlockIndex {
    /// Size and CRC32C of the whole archive; `None` where the parts leave gaps.
    pub fn whole(&self) -> Option<(u64, u32)> {
        let (mut end, mut crc) = (self.head.length, self.head.crc32c);
        for b in &self.blocks {
            if self.head.offset != 0 || b.extent.offset != end {
                return None;
            }
            crc = crc32c::crc32c_combine(crc, b.extent.crc32c, usize::try_from(b.extent.length).ok()?);
            end += b.extent.length;
        }
        Some((end, crc))
    }
}

/// Opens parts of an archive.
pub trait Ranges: Send + Sync {
    /// # Errors
    /// The store's own.
    fn open(&self, extent: Extent) -> Result<Bytes, RestoreError>;
}

/// The blocks that are still to be read, largest first, for several readers.
#[derive(Clone)]
pub(super) struct Todo {
    blocks: Arc<Mutex<VecDeque<IndexedBlock>>>,
    ranges: Arc<dyn Ranges>,
}

impl Todo {
    pub fn new(index: &BlockIndex, ranges: Arc<dyn Ranges>) -> Self {
        let mut blocks = index.blocks.clone();
        blocks.sort_by_key(|b| std::cmp::Reverse(b.bytes));
        Todo { blocks: Arc::new(Mutex::new(blocks.into())), ranges }
    }

    pub fn next(&self) -> Option<IndexedBlock> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    pub fn open(&self, block: &IndexedBlock) -> Result<Bytes, RestoreError> {
        self.ranges.open(block.extent)
    }
}

/// Input whose parts are measured as they are read.
pub(super) struct Metered<R> {
    input: R,
    current: Extent,
}

impl<R> Metered<R> {
    pub fn new(input: R) -> Self {
        Metered { input, current: Extent::default() }
    }

    /// What was read since the last cut.
    pub fn cut(&mut self) -> Extent {
        let offset = self.current.offset + self.current.length;
        std::mem::replace(&mut self.current, Extent { offset, ..Extent::default() })
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        // What is consumed is in the buffer already, so that this reads nothing.
        if let Ok(buf) = self.input.fill_buf() {
            let part = &buf[..n.min(buf.len())];
            self.current.crc32c = crc32c::crc32c_append(self.current.crc32c, part);
            self.current.length += part.len() as u64;
        }
        self.input.consume(n);
    }
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let buf = self.fill_buf()?;
        let n = buf.len().min(out.len());
        out[..n].copy_from_slice(&buf[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole() {
        let data: Vec<u8> = (0..1000u32).map(|i| (i * 7) as u8).collect();
        let mut input = Metered::new(&data[..]);
        let mut index = BlockIndex::default();
        for (i, n) in [100usize, 1, 399, 500].into_iter().enumerate() {
            let mut part = vec![0; n];
            input.read_exact(&mut part).unwrap();
            match i {
                0 => index.head = input.cut(),
                _ => index.blocks.push(IndexedBlock { dump_id: 1, extent: input.cut(), rows: 0, bytes: 0 }),
            }
        }
        assert_eq!(index.whole(), Some((1000, crc32c::crc32c(&data))));
        index.blocks.remove(1);
        assert_eq!(index.whole(), None);
    }
}
