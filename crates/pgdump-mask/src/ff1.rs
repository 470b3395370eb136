//! FF1 (NIST SP 800-38G) with AES-256, over strings of decimal digits and of bits.
//!
//! The tests compare it with the crate `fpe`, whose interface cannot keep what the strings of one length have in common: of the 12
//! or 13 blocks that it encrypts for a string, two or three are always the same. Nor can it keep from copying the cipher or from
//! passing numbers byte by byte, in each of the ten rounds. Here, a round is one block and one division.

use aes08::Aes256Enc;
use aes08::cipher::generic_array::GenericArray;
use aes08::cipher::{BlockEncrypt as _, KeyInit as _};

const ROUNDS: u128 = 10;
const BLOCK: usize = 16;
/// Decimal digits that an integer of 64 bits holds; those of 128 bits are slow to multiply and to divide.
const DIGITS_OF_WORD: usize = 16;

/// The most numerals of a string: the number of a half, times 256, fits into 128 bits also if they are decimal.
pub(crate) const MOST_NUMERALS: usize = 64;

/// FF1 under a key, for strings of one radix.
pub(crate) struct Ff1 {
    cipher: Aes256Enc,
    radix: u32,
}

/// What the encryptions of all strings of one length under one tweak have in common.
pub(crate) struct Domain {
    /// The state of CBC-MAC before its last block, and what that begins with.
    chain: u128,
    /// The bits of a round's number in the last block, whole bytes of them.
    bits: u32,
    /// How many bits of a MAC are not used.
    unused: u32,
    /// Whether a round uses 32 bits more than a MAC has.
    is_long: bool,
    /// How many numbers a half can be, of the first half and of the second.
    ends: [u128; 2],
}

impl Ff1 {
    /// Decimal digits.
    pub(crate) fn of_digits(key: [u8; 32]) -> Self {
        Self::new(key, 10)
    }

    /// Bits.
    pub(crate) fn of_bits(key: [u8; 32]) -> Self {
        Self::new(key, 2)
    }

    fn new(key: [u8; 32], radix: u32) -> Self {
        Self {
            cipher: Aes256Enc::new(&GenericArray::from(key)),
            radix,
        }
    }

    /// The strings of `length` numerals, at most [`MOST_NUMERALS`].
    pub(crate) fn domain(&self, length: usize, tweak: &[u8]) -> Domain {
        let half = length / 2;
        let end = |count| (0..count).fold(1, |end: u128, _| end * u128::from(self.radix));
        let ends = [end(half), end(length - half)];
        let bytes = (u128::BITS - (ends[1] - 1).leading_zeros()).div_ceil(8);
        let used = 4 * bytes.div_ceil(4) + 4;
        // P of the standard, and Q without its last bytes: the round and the number.
        let mut blocks = vec![1, 2, 1];
        blocks.extend_from_slice(&self.radix.to_be_bytes()[1..]);
        blocks.extend_from_slice(&[10, half.to_le_bytes()[0]]);
        blocks.extend([length, tweak.len()].into_iter().flat_map(low_word));
        blocks.extend_from_slice(tweak);
        blocks.resize(
            (blocks.len() + 1 + bytes as usize).next_multiple_of(BLOCK),
            0,
        );
        let (blocks, _) = blocks.as_chunks::<BLOCK>();
        let chain = blocks.iter().enumerate().fold(0, |chain, (at, block)| {
            let chain = if at == 0 { chain } else { self.block(chain) };
            chain ^ u128::from_be_bytes(*block)
        });
        Domain {
            chain,
            bits: 8 * bytes,
            unused: u128::BITS.saturating_sub(8 * used),
            is_long: 8 * used > u128::BITS,
            ends,
        }
    }

    /// Encrypts a string of decimal digits, each of which is 0 to 9.
    pub(crate) fn encrypt_digits(&self, domain: &Domain, digits: &mut [u8]) {
        let (front, back) = digits.split_at_mut(digits.len() / 2);
        let halves = self.encrypt(domain, [number(front), number(back)]);
        write_number(halves[0], front);
        write_number(halves[1], back);
    }

    /// Encrypts the lowest `2 * half` bits of an integer as a string that begins with the least significant one.
    pub(crate) fn encrypt_bits(&self, domain: &Domain, half: u32, bits: u64) -> u64 {
        let front = u128::from(reversed(bits, half));
        let back = u128::from(reversed(bits >> half, half));
        let [front, back] = self.encrypt(domain, [front, back]);
        let bits = |number| reversed(u64::try_from(number).unwrap_or_default(), half);
        bits(front) | (bits(back) << half)
    }

    fn encrypt(&self, domain: &Domain, halves: [u128; 2]) -> [u128; 2] {
        let [mut a, mut b] = halves;
        let [mut end, mut next_end] = domain.ends;
        for round in 0..ROUNDS {
            let sum = a + self.round(domain, round, b, end);
            (a, b) = (b, if sum < end { sum } else { sum - end });
            (end, next_end) = (next_end, end);
        }
        [a, b]
    }

    /// What a round adds, which follows from the other half.
    fn round(&self, domain: &Domain, round: u128, other: u128, end: u128) -> u128 {
        let mac = self.block(domain.chain ^ (round << domain.bits) ^ other);
        let rest = remainder(mac >> domain.unused, end);
        if !domain.is_long {
            return rest;
        }
        let more = self.block(mac ^ 1).to_be_bytes();
        let add = |rest: u128, byte: &u8| remainder((rest << 8) | u128::from(*byte), end);
        more[..4].iter().fold(rest, add)
    }

    fn block(&self, block: u128) -> u128 {
        let mut bytes = GenericArray::from(block.to_be_bytes());
        self.cipher.encrypt_block(&mut bytes);
        u128::from_be_bytes(bytes.into())
    }
}

/// The lowest 32 bits.
fn low_word(number: usize) -> [u8; 4] {
    let [.., a, b, c, d] = (number as u64).to_be_bytes();
    [a, b, c, d]
}

/// Numbers of 128 bits are slow to divide, and most of these have 64.
fn remainder(number: u128, end: u128) -> u128 {
    match (u64::try_from(number), u64::try_from(end)) {
        (Ok(number), Ok(end)) => u128::from(number % end),
        _ => number % end,
    }
}

/// The number that decimal digits form.
fn number(digits: &[u8]) -> u128 {
    let word = |part: &[u8]| part.iter().fold(0, |n: u64, d| n * 10 + u64::from(*d));
    let mut parts = digits.chunks(DIGITS_OF_WORD);
    let first = parts.next().map_or(0, |part| u128::from(word(part)));
    parts.fold(first, |number, part| {
        let factor = part.iter().fold(1_u64, |factor, _| factor * 10);
        number * u128::from(factor) + u128::from(word(part))
    })
}

/// Writes a number as decimal digits, with zeros before it.
fn write_number(number: u128, digits: &mut [u8]) {
    const WORD: u128 = 10_u128.pow(DIGITS_OF_WORD as u32);
    let mut rest = number;
    for part in digits.rchunks_mut(DIGITS_OF_WORD) {
        let mut word = u64::try_from(remainder(rest, WORD)).unwrap_or_default();
        rest = if rest < WORD { 0 } else { rest / WORD };
        for digit in part.iter_mut().rev() {
            *digit = (word % 10) as u8;
            word /= 10;
        }
    }
}

/// The lowest `count` bits (1 to 64) in the opposite order.
fn reversed(bits: u64, count: u32) -> u64 {
    bits.reverse_bits() >> (u64::BITS - count)
}

#[cfg(test)]
mod tests {
    use aes::Aes256;
    use fpe::ff1::{BinaryNumeralString, FF1, FlexibleNumeralString};
    use proptest::prelude::*;

    use super::*;

    /// The key of NIST's examples with AES-256.
    const KEY: [u8; 32] = [
        0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f,
        0x3c, 0xef, 0x43, 0x59, 0xd8, 0xd5, 0x80, 0xaa, 0x4f, 0x7f, 0x03, 0x6d, 0x6f, 0x04, 0xfc,
        0x6a, 0x94,
    ];

    fn encrypted(key: [u8; 32], tweak: &[u8], digits: &[u8]) -> Vec<u8> {
        let ff1 = Ff1::of_digits(key);
        let mut out = digits.to_vec();
        ff1.encrypt_digits(&ff1.domain(digits.len(), tweak), &mut out);
        out
    }

    fn by_reference(key: [u8; 32], tweak: &[u8], digits: &[u8]) -> Vec<u8> {
        let plain: Vec<u16> = digits.iter().copied().map(u16::from).collect();
        let reference = FF1::<Aes256>::new(&key, 10).unwrap();
        let cipher = reference.encrypt(tweak, &FlexibleNumeralString::from(plain));
        let cipher: Vec<u16> = cipher.unwrap().into();
        cipher.into_iter().map(|d| d as u8).collect()
    }

    #[test]
    fn examples_of_nist_are_computed() {
        let digits: Vec<u8> = (0..10).collect();
        assert_eq!(encrypted(KEY, &[], &digits), [6, 6, 5, 7, 6, 6, 7, 0, 0, 9]);
        assert_eq!(
            encrypted(KEY, b"9876543210", &digits),
            [1, 0, 0, 1, 6, 2, 3, 4, 6, 3]
        );
    }

    #[test]
    fn digits_of_every_length_become_what_the_reference_gives() {
        for length in 6..=MOST_NUMERALS {
            let mixed = (0..length).map(|at| ((at * 7 + length) % 10) as u8);
            for digits in [mixed.collect(), vec![0; length], vec![9; length]] {
                let tweak = length.to_be_bytes();
                let wanted = by_reference(KEY, &tweak, &digits);
                assert_eq!(encrypted(KEY, &tweak, &digits), wanted, "{length} digits");
            }
        }
    }

    proptest! {
        #[test]
        fn any_digits_become_what_the_reference_gives(
            key in any::<[u8; 32]>(),
            tweak in prop::collection::vec(any::<u8>(), 0..40),
            digits in prop::collection::vec(0_u8..10, 6..=MOST_NUMERALS),
        ) {
            let wanted = by_reference(key, &tweak, &digits);
            prop_assert_eq!(encrypted(key, &tweak, &digits), wanted);
        }

        #[test]
        fn any_bits_become_what_the_reference_gives(key in any::<[u8; 32]>(), value in any::<u64>()) {
            let (ff1, reference) = (Ff1::of_bits(key), FF1::<Aes256>::new(&key, 2).unwrap());
            for bytes in [4_u32, 8] {
                let plain = &value.to_le_bytes()[..bytes as usize];
                let wanted = reference.encrypt(&[], &BinaryNumeralString::from_bytes_le(plain));
                let mut le = [0; 8];
                le[..plain.len()].copy_from_slice(&wanted.unwrap().to_bytes_le());
                let domain = ff1.domain(8 * plain.len(), &[]);
                let cipher = ff1.encrypt_bits(&domain, 4 * bytes, value);
                prop_assert_eq!(cipher, u64::from_le_bytes(le));
            }
        }
    }
}
