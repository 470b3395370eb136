//! Strings of decimal digits and of bits, as FF1 computes with them.
//!
//! The strings of the crate `fpe` have any length, and their big integers, made anew from the numerals in each of the ten
//! rounds, take most of the time of an encryption. Here a half of a string is one integer, and a round allocates nothing.

use fpe::ff1::{NumeralString, Operations};

/// The longest string: the number of a half, times 256, fits into 128 bits even if its numerals are decimal.
pub(crate) const MAX_NUMERALS: usize = 64;
/// Decimal digits per integer of 64 bits: those of 128 bits are slow to multiply and to divide.
const DIGITS_PER_WORD: usize = 16;

/// A string of at most [`MAX_NUMERALS`] numerals.
pub(crate) struct Numerals {
    front: Half,
    back: Half,
}

impl Numerals {
    /// A string of decimal digits; `None` if one is greater than 9, or if they are too many.
    pub(crate) fn of_digits(digits: &[u8]) -> Option<Self> {
        if digits.len() > MAX_NUMERALS || digits.iter().any(|d| *d > 9) {
            return None;
        }
        let (front, back) = digits.split_at(digits.len() / 2);
        Some(Self {
            front: Half::of_digits(front),
            back: Half::of_digits(back),
        })
    }

    /// Writes the string where the digits were that it was made of.
    pub(crate) fn write_digits(&self, digits: &mut [u8]) {
        let (front, back) = digits.split_at_mut(digits.len() / 2);
        write_number(self.front.number, front);
        write_number(self.back.number, back);
    }

    /// The lowest `count` bits of an integer: an even number of them, from the least significant one on.
    pub(crate) fn of_bits(bits: u64, count: u32) -> Self {
        let half = count / 2;
        Self {
            front: Half::of_bits(bits, half),
            back: Half::of_bits(bits >> half, half),
        }
    }

    pub(crate) fn to_bits(&self) -> u64 {
        self.front.to_bits() | (self.back.to_bits() << self.front.count)
    }
}

impl NumeralString for Numerals {
    type Ops = Half;

    fn is_valid(&self, radix: u32) -> bool {
        self.front.radix == radix && self.back.radix == radix
    }

    fn numeral_count(&self) -> usize {
        self.front.numeral_count() + self.back.numeral_count()
    }

    fn split(&self) -> (Half, Half) {
        (self.front, self.back)
    }

    fn concat(front: Half, back: Half) -> Self {
        Self { front, back }
    }
}

/// A half of a string: the number that its numerals form, the first of which is the most significant one.
#[derive(Clone, Copy)]
pub(crate) struct Half {
    number: u128,
    /// The radix to the power of the count.
    modulus: u128,
    count: u32,
    radix: u32,
}

impl Half {
    fn of_digits(digits: &[u8]) -> Self {
        let (number, modulus) = number(digits);
        Self {
            number,
            modulus,
            count: digits.len() as u32,
            radix: 10,
        }
    }

    fn of_bits(bits: u64, count: u32) -> Self {
        Self {
            number: u128::from(reversed(bits, count)),
            modulus: 1 << count,
            count,
            radix: 2,
        }
    }

    fn to_bits(self) -> u64 {
        let number = u64::try_from(self.number).unwrap_or_default();
        reversed(number, self.count)
    }
}

impl Operations for Half {
    type Bytes = LastBytes;

    fn numeral_count(&self) -> usize {
        self.count as usize
    }

    fn to_be_bytes(&self, _: u32, b: usize) -> LastBytes {
        LastBytes {
            bytes: self.number.to_be_bytes(),
            count: b,
        }
    }

    // FF1 asks for the power that belongs to the half.
    fn add_mod_exp(self, other: impl Iterator<Item = u8>, _: u32, _: usize) -> Self {
        let sum = self.number + remainder_of_bytes(other, self.modulus);
        let is_less = sum < self.modulus;
        let number = if is_less { sum } else { sum - self.modulus };
        Self { number, ..self }
    }

    fn sub_mod_exp(self, other: impl Iterator<Item = u8>, _: u32, _: usize) -> Self {
        let other = remainder_of_bytes(other, self.modulus);
        let is_less = self.number < other;
        let minuend = self.number + if is_less { self.modulus } else { 0 };
        Self {
            number: minuend - other,
            ..self
        }
    }
}

/// The remainder of a number whose most significant byte comes first.
fn remainder_of_bytes(bytes: impl Iterator<Item = u8>, modulus: u128) -> u128 {
    let number = bytes.fold(0_u128, |number, byte| {
        // Division is slow, and most numbers of FF1 have at most 16 bytes.
        let number = if number >> 120 == 0 {
            number
        } else {
            number % modulus
        };
        (number << 8) | u128::from(byte)
    });
    remainder(number, modulus)
}

/// Divides by way of 64 bits if the numbers fit, as most do: numbers of 128 bits are slow to divide.
fn remainder(number: u128, modulus: u128) -> u128 {
    match (u64::try_from(number), u64::try_from(modulus)) {
        (Ok(number), Ok(modulus)) => u128::from(number % modulus),
        _ => number % modulus,
    }
}

/// The number that decimal digits form, and ten to the power of their count.
fn number(digits: &[u8]) -> (u128, u128) {
    digits.chunks(DIGITS_PER_WORD).fold((0, 1), |whole, part| {
        let word = part.iter().fold((0, 1), |(number, power): (u64, u64), d| {
            (number * 10 + u64::from(*d), power * 10)
        });
        let (number, power) = (u128::from(word.0), u128::from(word.1));
        (whole.0 * power + number, whole.1 * power)
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

/// The last bytes of a number.
pub(crate) struct LastBytes {
    bytes: [u8; 16],
    count: usize,
}

impl AsRef<[u8]> for LastBytes {
    fn as_ref(&self) -> &[u8] {
        let start = self.bytes.len().saturating_sub(self.count);
        &self.bytes[start..]
    }
}

#[cfg(test)]
mod tests {
    use aes::Aes256;
    use fpe::ff1::{BinaryNumeralString, FF1, FlexibleNumeralString};
    use proptest::prelude::*;

    use super::*;
    use crate::cipher::Cipher;

    /// The key of NIST's examples with AES-256.
    const KEY: [u8; 32] = [
        0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f,
        0x3c, 0xef, 0x43, 0x59, 0xd8, 0xd5, 0x80, 0xaa, 0x4f, 0x7f, 0x03, 0x6d, 0x6f, 0x04, 0xfc,
        0x6a, 0x94,
    ];

    fn ff1(radix: u32) -> FF1<Cipher> {
        FF1::new(&KEY, radix).unwrap()
    }

    fn encrypted(tweak: &[u8], digits: &[u8]) -> Vec<u8> {
        let cipher = ff1(10).encrypt(tweak, &Numerals::of_digits(digits).unwrap());
        let mut out = digits.to_vec();
        cipher.unwrap().write_digits(&mut out);
        out
    }

    fn by_reference(tweak: &[u8], digits: &[u8]) -> Vec<u8> {
        let plain: Vec<u16> = digits.iter().copied().map(u16::from).collect();
        let reference = FF1::<Aes256>::new(&KEY, 10).unwrap();
        let cipher = reference.encrypt(tweak, &FlexibleNumeralString::from(plain));
        let cipher: Vec<u16> = cipher.unwrap().into();
        cipher.into_iter().map(|d| d as u8).collect()
    }

    #[test]
    fn examples_of_nist_are_computed() {
        let digits: Vec<u8> = (0..10).collect();
        assert_eq!(encrypted(&[], &digits), [6, 6, 5, 7, 6, 6, 7, 0, 0, 9]);
        assert_eq!(
            encrypted(b"9876543210", &digits),
            [1, 0, 0, 1, 6, 2, 3, 4, 6, 3]
        );
    }

    #[test]
    fn digits_of_every_length_become_what_big_integers_give() {
        for length in 6..=MAX_NUMERALS {
            let mixed = (0..length).map(|at| ((at * 7 + length) % 10) as u8);
            for digits in [mixed.collect(), vec![0; length], vec![9; length]] {
                let tweak = length.to_be_bytes();
                let wanted = by_reference(&tweak, &digits);
                assert_eq!(encrypted(&tweak, &digits), wanted, "{length} digits");
                let cipher = Numerals::of_digits(&wanted).unwrap();
                let mut back = wanted;
                let plain = ff1(10).decrypt(&tweak, &cipher).unwrap();
                plain.write_digits(&mut back);
                assert_eq!(back, digits);
            }
        }
    }

    proptest! {
        #[test]
        fn any_digits_become_what_big_integers_give(
            tweak in prop::collection::vec(any::<u8>(), 0..40),
            digits in prop::collection::vec(0_u8..10, 6..=MAX_NUMERALS),
        ) {
            let wanted = by_reference(&tweak, &digits);
            prop_assert_eq!(encrypted(&tweak, &digits), wanted);
        }

        #[test]
        fn any_bits_become_what_big_integers_give(value in any::<u64>()) {
            let reference = FF1::<Aes256>::new(&KEY, 2).unwrap();
            for bytes in [4_usize, 8] {
                let plain = &value.to_le_bytes()[..bytes];
                let wanted = reference.encrypt(&[], &BinaryNumeralString::from_bytes_le(plain));
                let mut le = [0; 8];
                le[..bytes].copy_from_slice(&wanted.unwrap().to_bytes_le());
                let cipher = ff1(2).encrypt(&[], &Numerals::of_bits(value, 8 * bytes as u32));
                let cipher = cipher.unwrap();
                prop_assert_eq!(cipher.to_bits(), u64::from_le_bytes(le));
                let plain = ff1(2).decrypt(&[], &cipher).unwrap().to_bits();
                prop_assert_eq!(&plain.to_le_bytes()[..bytes], &value.to_le_bytes()[..bytes]);
            }
        }
    }

    #[test]
    fn what_is_no_string_of_digits_is_not_taken() {
        assert!(Numerals::of_digits(&[1, 2, 3, 4, 5, 10]).is_none());
        assert!(Numerals::of_digits(&[0; MAX_NUMERALS + 1]).is_none());
        assert!(!Numerals::of_bits(5, 32).is_valid(10));
    }
}
