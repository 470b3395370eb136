//! Searches of texts that are mostly too short for a search by vectors to begin: eight bytes at a time, as one integer.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGHEST: u64 = ONES << 7;

/// The integer of the next eight bytes: its least significant byte is the first one.
pub(crate) fn word(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes)
}

/// The highest bits of the bytes that are less than `limit`, which is at most 128. Behind the first of them, there may be others.
pub(crate) fn less_than(word: u64, limit: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHEST
}

/// The highest bits of the bytes that are this one. Behind the first of them, there may be others.
pub(crate) fn equal_to(word: u64, byte: u8) -> u64 {
    less_than(word ^ (ONES * u64::from(byte)), 1)
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
                assert_eq!(first(less_than(both, b' ')), wanted(|b| b < b' '));
                assert_eq!(first(equal_to(both, b'\\')), wanted(|b| b == b'\\'));
            }
        }
    }
}
