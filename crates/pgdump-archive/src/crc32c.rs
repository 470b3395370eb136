//! CRC32C checksums.

use std::fmt;

/// The CRC32C (Castagnoli) of some bytes, 0 for none.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Crc32c(pub u32);

impl Crc32c {
    /// The checksum of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Crc32c(crc32c::crc32c(bytes))
    }

    /// The checksum of the bytes of `self` followed by `bytes`.
    #[must_use]
    pub fn append(self, bytes: &[u8]) -> Self {
        Crc32c(crc32c::crc32c_append(self.0, bytes))
    }

    /// The checksum of the bytes of `self` followed by `length` bytes whose checksum is `next`.
    #[must_use]
    pub fn combine(self, next: Crc32c, length: usize) -> Self {
        Crc32c(crc32c::crc32c_combine(self.0, next.0, length))
    }
}

impl fmt::Debug for Crc32c {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc32c({:08x})", self.0)
    }
}
