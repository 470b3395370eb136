//! Keyed permutations: of strings of digits and of integers. Different values stay different, so unique columns stay unique.
//!
//! Domains of at least a million values are permuted by FF1 (NIST SP 800-38G) with AES-256. FF1 is not defined for smaller ones:
//! strings of one to five digits and 15-bit integers are permuted by a table, shuffled (Fisher–Yates) with the key's numbers.
//! So few values can be listed by anyone who may ask for masked values; that is a property of the domain, not of the method.

use std::sync::OnceLock;

use crate::ff1::{Domain, Ff1, MAX_NUMERALS};
use crate::prf::Prf;

/// The shortest string of decimal digits that FF1 permutes.
const FF1_MIN_DIGITS: usize = 6;
/// Strings of twice this length or more are permuted in blocks of it, the last of which has the rest, too: the cost of FF1 grows
/// with the square.
const BLOCK: usize = 32;
const MAX_BLOCK: usize = 2 * BLOCK - 1;
const _: () = assert!(MAX_BLOCK <= MAX_NUMERALS);

const SMALL_BITS: usize = 1 << 15;

pub(crate) struct Permutations {
    prf: Prf,
    digits: Ff1,
    /// Of a string's first block, by its length, from [`FF1_MIN_DIGITS`] to [`MAX_BLOCK`].
    first_blocks: Vec<Domain>,
    bits: Ff1,
    of_32_bits: Domain,
    of_64_bits: Domain,
    short: [OnceLock<Vec<u32>>; FF1_MIN_DIGITS],
    small: OnceLock<Vec<u32>>,
}

impl Permutations {
    pub(crate) fn new(prf: &Prf) -> Self {
        let digits = Ff1::decimal(prf.mac(b"digits", &[]));
        let bits = Ff1::binary(prf.mac(b"bits", &[]));
        let lengths = FF1_MIN_DIGITS..=MAX_BLOCK;
        Self {
            prf: prf.clone(),
            first_blocks: lengths.map(|n| digits.domain(n, &tweak(0))).collect(),
            digits,
            of_32_bits: bits.domain(32, &[]),
            of_64_bits: bits.domain(64, &[]),
            bits,
            short: Default::default(),
            small: OnceLock::new(),
        }
    }

    /// Permutes the strings of this length. Each digit is 0 to 9.
    pub(crate) fn digits(&self, digits: &mut [u8]) {
        let blocks = (digits.len() / BLOCK).max(1);
        for number in 0..blocks {
            let start = number * BLOCK;
            let end = if number + 1 == blocks {
                digits.len()
            } else {
                start + BLOCK
            };
            self.block(number, &mut digits[start..end]);
        }
    }

    fn block(&self, number: usize, block: &mut [u8]) {
        let Some(longer) = block.len().checked_sub(FF1_MIN_DIGITS) else {
            self.short_block(block);
            return;
        };
        // A later block has a tweak, and so a domain, of its own.
        let known = self.first_blocks.get(longer).filter(|_| number == 0);
        match known {
            Some(domain) => self.digits.encrypt_digits(domain, block),
            None => {
                let domain = self.digits.domain(block.len(), &tweak(number));
                self.digits.encrypt_digits(&domain, block);
            }
        }
    }

    fn short_block(&self, block: &mut [u8]) {
        let Some(table) = self.short.get(block.len()) else {
            return;
        };
        let size = 10_usize.pow(u32::try_from(block.len()).unwrap_or(0));
        let table = table.get_or_init(|| shuffled(&self.prf, size));
        let value = block.iter().fold(0, |v, d| v * 10 + usize::from(*d));
        let mut masked = table.get(value).copied().unwrap_or_default();
        for digit in block.iter_mut().rev() {
            *digit = u8::try_from(masked % 10).unwrap_or_default();
            masked /= 10;
        }
    }

    /// Permutes 0 to 2^15 - 1.
    pub(crate) fn small(&self, value: u64) -> u64 {
        let table = self.small.get_or_init(|| shuffled(&self.prf, SMALL_BITS));
        let at = usize::try_from(value).unwrap_or(usize::MAX);
        table.get(at).copied().map_or(value, u64::from)
    }

    /// Permutes 0 to 2^31 - 1.
    pub(crate) fn normal(&self, value: u64) -> u64 {
        let encrypt = |value| self.bits.encrypt_bits(&self.of_32_bits, 16, value);
        walk(value, encrypt, |masked| masked < 1 << 31)
    }

    /// Permutes 2^31 to 2^63 - 1.
    pub(crate) fn big(&self, value: u64) -> u64 {
        let encrypt = |value| self.bits.encrypt_bits(&self.of_64_bits, 32, value);
        walk(value, encrypt, |masked| {
            (1 << 31..1 << 63).contains(&masked)
        })
    }
}

/// Distinguishes the blocks of a string.
fn tweak(block: usize) -> [u8; 8] {
    (block as u64).to_be_bytes()
}

/// Encrypts until the result is in the range of the value (cycle walking), which keeps it a permutation of that range. It ends,
/// because the walk comes back to the value, at the latest.
fn walk(value: u64, encrypt: impl Fn(u64) -> u64, in_range: impl Fn(u64) -> bool) -> u64 {
    let mut masked = encrypt(value);
    while !in_range(masked) {
        masked = encrypt(masked);
    }
    masked
}

fn shuffled(prf: &Prf, size: usize) -> Vec<u32> {
    let mut table: Vec<u32> = (0..).take(size).collect();
    let mut draws = prf.draws(b"table", &size.to_be_bytes());
    for last in (1..size).rev() {
        table.swap(last, draws.index(last + 1));
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::key::test_key;

    #[test]
    fn strings_of_digits_stay_different_at_every_length() {
        let key = test_key("a");
        for length in [1_u32, 2, 4, 5, 6, 9, 40] {
            let values = 10_u64.pow(length.min(4));
            let mut seen = HashSet::new();
            for value in 0..values {
                let text = format!("{value:0>width$}", width = length as usize);
                let mut digits: Vec<u8> = text.bytes().map(|b| b - b'0').collect();
                key.keyed().permutations.digits(&mut digits);
                assert!(digits.iter().all(|d| *d < 10));
                assert!(seen.insert(digits), "{length} digits: {value}");
            }
        }
    }

    #[test]
    fn integers_stay_different_and_in_their_range() {
        let key = test_key("a");
        let p = &key.keyed().permutations;
        let small: HashSet<u64> = (0..1 << 15).map(|v| p.small(v)).collect();
        assert_eq!(small.len(), 1 << 15);
        assert!(small.iter().all(|v| *v < 1 << 15));
        let normal: HashSet<u64> = (0..10_000).map(|v| p.normal(v)).collect();
        assert_eq!(normal.len(), 10_000);
        assert!(normal.iter().all(|v| *v < 1 << 31));
        let big: HashSet<u64> = (1 << 40..(1 << 40) + 1000).map(|v| p.big(v)).collect();
        assert_eq!(big.len(), 1000);
        assert!(big.iter().all(|v| (1 << 31..1 << 63).contains(v)));
    }

    /// A permutation, and not the same as of the key before: the table of one digit is one of 3,628,800.
    #[test]
    fn another_key_permutes_differently() {
        let permuted = |key: &str, length: usize| {
            let mut digits = vec![0; length];
            let key = test_key(key);
            key.keyed().permutations.digits(&mut digits);
            digits
        };
        assert_eq!(permuted("a", 12), permuted("a", 12));
        assert_ne!(permuted("a", 12), permuted("b", 12));
    }
}
