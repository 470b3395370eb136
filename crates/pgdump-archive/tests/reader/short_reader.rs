//! Input that comes in small reads, for the tests and for a fuzz target.

use std::io::{Cursor, Read};

/// Returns at most this many bytes at a time.
pub struct ShortReader(pub Cursor<Vec<u8>>, pub usize);

impl Read for ShortReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let most = out.len().min(self.1);
        self.0.read(&mut out[..most])
    }
}
