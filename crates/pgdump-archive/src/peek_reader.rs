//! Streams whose beginning can be examined before they are read.

use std::io::{BufReader, Read};

/// A stream of bytes, possibly part of a larger one.
pub(super) type BoxedReader<'a> = Box<dyn Read + Send + 'a>;
/// A stream whose beginning can be examined before it is read.
pub(super) type PeekReader<'a> = BufReader<BoxedReader<'a>>;

pub(super) fn buffered(input: BoxedReader<'_>) -> PeekReader<'_> {
    BufReader::with_capacity(256 << 10, input)
}
