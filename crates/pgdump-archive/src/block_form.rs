//! How the blocks of a custom archive are encoded.

use std::sync::Arc;

use super::toc::EntrySum;
use super::{Codec, ReadContext};

/// How the blocks of one archive are encoded.
#[derive(Clone)]
pub(super) struct BlockForm {
    pub codec: Codec,
    pub int_size: u8,
    pub off_size: u8,
    /// Minor version of the archive.
    pub minor: u8,
    pub context: ReadContext,
    /// The entries, for comparison with a table of contents that follows the data.
    pub sums: Arc<[EntrySum]>,
}
