//! Byte searches that read eight bytes at a time as one integer (SWAR), for texts that are mostly too short for `memchr`'s vectors
//! to pay off.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = ONES << 7;

/// Eight bytes as an integer, the first of them least significant.
pub(crate) fn word(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// The high bit of each byte less than `limit`, which is at most 128. Only the lowest bit that is set is reliable: subtracting
/// borrows from the bytes behind a match, which may set theirs.
pub(crate) fn bytes_below(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH_BITS
}

/// The high bit of each byte equal to `byte`. Only the lowest bit that is set is reliable, as with [`bytes_below`].
pub(crate) fn bytes_equal(word: u64, byte: u8) -> u64 {
    bytes_below(word ^ (ONES * u64::from(byte)), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_is_found_beside_any_other() {
        for byte in 0..=255 {
            for next in 0..=255 {
                let both = word([200, byte, next, 200, 200, 200, 200, 200]);
                let first = |found: u64| (found != 0).then(|| found.trailing_zeros() / 8);
                let wanted = |is: fn(u8) -> bool| match (is(byte), is(next)) {
                    (true, _) => Some(1),
                    (false, true) => Some(2),
                    (false, false) => None,
                };
                assert_eq!(first(bytes_below(both, b' ')), wanted(|b| b < b' '));
                assert_eq!(first(bytes_equal(both, b'\\')), wanted(|b| b == b'\\'));
            }
        }
    }
}
