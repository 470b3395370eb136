//! Keyed permutations: of strings of digits and of integers. Different values stay different, so unique columns stay unique.
//!
//! Domains of at least a million values are permuted by FF1 (NIST SP 800-38G) with AES-256. FF1 is not defined for smaller ones:
//! strings of one to five digits and 15-bit integers are permuted by a table, shuffled (Fisher–Yates) with the key's numbers.
//! So few values can be listed by anyone who may ask for masked values; that is a property of the domain, not of the method.

use std::sync::OnceLock;

use fpe::ff1::FF1;

use crate::cipher::Cipher;
use crate::error::MaskFileError;
use crate::numerals::{MAX_NUMERALS, Numerals};
use crate::prf::Prf;

/// The shortest string of decimal digits that FF1 permutes.
const FF1_MIN_DIGITS: usize = 6;
/// Strings of twice this length or more are permuted in blocks of it, the last of which has the rest, too: the cost of FF1 grows
/// with the square.
const BLOCK: usize = 32;
const MAX_BLOCK: usize = 2 * BLOCK - 1;
const _: () = assert!(MAX_BLOCK <= MAX_NUMERALS);

const SMALL_BITS: usize = 1 << 15;

const NO_DIGITS: &str = "not a string of digits";
const NO_INTEGER: &str = "not an integer";

pub(crate) struct Permutations {
    prf: Prf,
    digits: FF1<Cipher>,
    bits: FF1<Cipher>,
    short: [OnceLock<Vec<u32>>; FF1_MIN_DIGITS],
    small: OnceLock<Vec<u32>>,
}

impl Permutations {
    pub(crate) fn new(prf: &Prf) -> Result<Self, MaskFileError> {
        let ff1 = |purpose: &[u8], radix| {
            FF1::<Cipher>::new(&prf.mac(purpose, &[]), radix)
                .map_err(|e| MaskFileError(format!("format-preserving encryption: {e}")))
        };
        Ok(Self {
            prf: prf.clone(),
            digits: ff1(b"digits", 10)?,
            bits: ff1(b"bits", 2)?,
            short: Default::default(),
            small: OnceLock::new(),
        })
    }

    /// Permutes the strings of this length. Each digit is 0 to 9.
    ///
    /// # Errors
    /// A digit is greater than 9.
    pub(crate) fn digits(&self, digits: &mut [u8]) -> Result<(), &'static str> {
        let blocks = (digits.len() / BLOCK).max(1);
        for number in 0..blocks {
            let start = number * BLOCK;
            let end = if number + 1 == blocks {
                digits.len()
            } else {
                start + BLOCK
            };
            self.block(number, &mut digits[start..end])?;
        }
        Ok(())
    }

    fn block(&self, number: usize, block: &mut [u8]) -> Result<(), &'static str> {
        if block.len() < FF1_MIN_DIGITS {
            self.short_block(block);
            return Ok(());
        }
        let plain = Numerals::of_digits(block).ok_or(NO_DIGITS)?;
        // The tweak distinguishes the blocks of a string.
        let tweak = (number as u64).to_be_bytes();
        let masked = self.digits.encrypt(&tweak, &plain);
        masked.map_err(|_| NO_DIGITS)?.write_digits(block);
        Ok(())
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
    pub(crate) fn normal(&self, value: u64) -> Result<u64, &'static str> {
        self.walk(value, 32, |masked| masked < 1 << 31)
    }

    /// Permutes 2^31 to 2^63 - 1.
    pub(crate) fn big(&self, value: u64) -> Result<u64, &'static str> {
        self.walk(value, 64, |masked| (1 << 31..1 << 63).contains(&masked))
    }

    /// Encrypts until the result is in the range of the value (cycle walking), which keeps it a permutation of that range. It ends,
    /// because the walk comes back to the value, at the latest.
    fn walk(
        &self,
        value: u64,
        bits: u32,
        in_range: impl Fn(u64) -> bool,
    ) -> Result<u64, &'static str> {
        let mut masked = value;
        loop {
            let cipher = self.bits.encrypt(&[], &Numerals::of_bits(masked, bits));
            masked = cipher.map_err(|_| NO_INTEGER)?.to_bits();
            if in_range(masked) {
                return Ok(masked);
            }
        }
    }
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
                key.keyed().permutations.digits(&mut digits).unwrap();
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
        let normal: HashSet<u64> = (0..10_000).map(|v| p.normal(v).unwrap()).collect();
        assert_eq!(normal.len(), 10_000);
        assert!(normal.iter().all(|v| *v < 1 << 31));
        let big: HashSet<u64> = (1 << 40..(1 << 40) + 1000)
            .map(|v| p.big(v).unwrap())
            .collect();
        assert_eq!(big.len(), 1000);
        assert!(big.iter().all(|v| (1 << 31..1 << 63).contains(v)));
    }

    /// A permutation, and not the same as of the key before: the table of one digit is one of 3,628,800.
    #[test]
    fn another_key_permutes_differently() {
        let permuted = |key: &str, length: usize| {
            let mut digits = vec![0; length];
            let key = test_key(key);
            key.keyed().permutations.digits(&mut digits).unwrap();
            digits
        };
        assert_eq!(permuted("a", 12), permuted("a", 12));
        assert_ne!(permuted("a", 12), permuted("b", 12));
    }
}
