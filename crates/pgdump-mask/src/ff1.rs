//! FF1 (NIST SP 800-38G) with AES-256, over strings of decimal digits and of bits.
//!
//! A column has millions of strings, but few lengths. What a length and a tweak determine, [`Domain`] keeps: two or three of the 12
//! or 13 blocks that a string takes. The crate `fpe` has no place for that, and in each of the ten rounds it copies the cipher and
//! passes numbers byte by byte. So only the block cipher is a crate's, and `fpe` is the reference that the tests compare every
//! length with.

use aes08::Aes256Enc;
use aes08::cipher::generic_array::GenericArray;
use aes08::cipher::{BlockEncrypt as _, KeyInit as _};

const ROUNDS: u128 = 10;
const BLOCK: usize = 16;
/// Decimal digits per integer of 64 bits: those of 128 bits are slow to multiply and to divide.
const DIGITS_PER_WORD: usize = 16;

/// The longest string: the number of a half, times 256, fits into 128 bits even if its numerals are decimal.
pub(crate) const MAX_NUMERALS: usize = 64;

/// FF1 under a key, for strings of one radix.
pub(crate) struct Ff1 {
    cipher: Aes256Enc,
    radix: u32,
}

/// What all strings of one length have in common under one key, radix and tweak.
pub(crate) struct Domain {
    /// What the last block of a CBC-MAC is XORed with: the MAC of the blocks before it, and the bytes of the tweak in it.
    mac_state: u128,
    /// The bits of the last block that are for the number of a half. The number of the round is the byte before them.
    number_bits: u32,
    /// The lowest bits of a MAC, which are not used.
    unused_bits: u32,
    /// Whether a round uses 32 bits more than a MAC has.
    is_long: bool,
    /// The radix to the power of the length of each half.
    moduli: [u128; 2],
}

impl Ff1 {
    pub(crate) fn decimal(key: [u8; 32]) -> Self {
        Self::new(key, 10)
    }

    pub(crate) fn binary(key: [u8; 32]) -> Self {
        Self::new(key, 2)
    }

    fn new(key: [u8; 32], radix: u32) -> Self {
        Self {
            cipher: Aes256Enc::new(&GenericArray::from(key)),
            radix,
        }
    }

    /// The strings of `length` numerals, at most [`MAX_NUMERALS`].
    pub(crate) fn domain(&self, length: usize, tweak: &[u8]) -> Domain {
        let half = length / 2;
        let power = |count| (0..count).fold(1, |power: u128, _| power * u128::from(self.radix));
        let moduli = [power(half), power(length - half)];
        let bytes = (u128::BITS - (moduli[1] - 1).leading_zeros()).div_ceil(8);
        let used = 4 * bytes.div_ceil(4) + 4;
        // P of the standard, and Q with zeros for the round and the number, which are its last bytes.
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
        let mac_state = blocks.iter().enumerate().fold(0, |state, (at, block)| {
            let state = if at == 0 { state } else { self.block(state) };
            state ^ u128::from_be_bytes(*block)
        });
        Domain {
            mac_state,
            number_bits: 8 * bytes,
            unused_bits: u128::BITS.saturating_sub(8 * used),
            is_long: 8 * used > u128::BITS,
            moduli,
        }
    }

    /// Encrypts a string of decimal digits of the domain's length. Each is 0 to 9.
    pub(crate) fn encrypt_digits(&self, domain: &Domain, digits: &mut [u8]) {
        let (front, back) = digits.split_at_mut(digits.len() / 2);
        let halves = self.encrypt(domain, [number(front), number(back)]);
        write_number(halves[0], front);
        write_number(halves[1], back);
    }

    /// Encrypts the lowest `2 * half` bits of an integer, the domain's length, as a string that begins with the least significant one.
    pub(crate) fn encrypt_bits(&self, domain: &Domain, half: u32, bits: u64) -> u64 {
        let front = u128::from(reversed(bits, half));
        let back = u128::from(reversed(bits >> half, half));
        let [front, back] = self.encrypt(domain, [front, back]);
        let bits = |number| reversed(u64::try_from(number).unwrap_or_default(), half);
        bits(front) | (bits(back) << half)
    }

    fn encrypt(&self, domain: &Domain, halves: [u128; 2]) -> [u128; 2] {
        let [mut a, mut b] = halves;
        let [mut modulus, mut next_modulus] = domain.moduli;
        for round in 0..ROUNDS {
            let sum = a + self.round(domain, round, b, modulus);
            (a, b) = (b, if sum < modulus { sum } else { sum - modulus });
            (modulus, next_modulus) = (next_modulus, modulus);
        }
        [a, b]
    }

    /// What a round adds to a half, less than `modulus`. It follows from the other half.
    fn round(&self, domain: &Domain, round: u128, other: u128, modulus: u128) -> u128 {
        let mac = self.block(domain.mac_state ^ (round << domain.number_bits) ^ other);
        let rest = remainder(mac >> domain.unused_bits, modulus);
        if !domain.is_long {
            return rest;
        }
        let more = self.block(mac ^ 1).to_be_bytes();
        let add = |rest: u128, byte: &u8| remainder((rest << 8) | u128::from(*byte), modulus);
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

/// Divides by way of 64 bits if the numbers fit, as most do: numbers of 128 bits are slow to divide.
fn remainder(number: u128, modulus: u128) -> u128 {
    match (u64::try_from(number), u64::try_from(modulus)) {
        (Ok(number), Ok(modulus)) => u128::from(number % modulus),
        _ => number % modulus,
    }
}

/// The number that decimal digits form.
fn number(digits: &[u8]) -> u128 {
    let word = |part: &[u8]| part.iter().fold(0, |n: u64, d| n * 10 + u64::from(*d));
    let mut parts = digits.chunks(DIGITS_PER_WORD);
    let first = parts.next().map_or(0, |part| u128::from(word(part)));
    parts.fold(first, |number, part| {
        let factor = part.iter().fold(1_u64, |factor, _| factor * 10);
        number * u128::from(factor) + u128::from(word(part))
    })
}

/// Writes a number as decimal digits, with zeros before it.
fn write_number(number: u128, digits: &mut [u8]) {
    const WORD: u128 = 10_u128.pow(DIGITS_PER_WORD as u32);
    let mut rest = number;
    for part in digits.rchunks_mut(DIGITS_PER_WORD) {
        let mut word = u64::try_from(remainder(rest, WORD)).unwrap_or_default();
        rest = if rest < WORD { 0 } else { rest / WORD };
        for digit in part.iter_mut().rev() {
            *digit = (word % 10) as u8;
            word /= 10;
        }
    }
}

/// The lowest `count` bits (1 to 64), in reverse order.
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
        let ff1 = Ff1::decimal(key);
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
        for length in 6..=MAX_NUMERALS {
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
            digits in prop::collection::vec(0_u8..10, 6..=MAX_NUMERALS),
        ) {
            let wanted = by_reference(key, &tweak, &digits);
            prop_assert_eq!(encrypted(key, &tweak, &digits), wanted);
        }

        #[test]
        fn any_bits_become_what_the_reference_gives(key in any::<[u8; 32]>(), value in any::<u64>()) {
            let (ff1, reference) = (Ff1::binary(key), FF1::<Aes256>::new(&key, 2).unwrap());
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
