//! Strings of decimal digits and of bits, as FF1 computes with them.
//!
//! The strings of the crate `fpe` have any length, and their big integers, made anew from the numerals in each of the ten
//! rounds, take most of the time of an encryption. Here a half of a string is one integer, and a round allocates nothing.

use fpe::ff1::{NumeralString, Operations};

/// The most numerals of a half: its number, times 256, fits into 128 bits also if they are decimal.
const MOST_OF_HALF: usize = 32;
/// Decimal digits that an integer of 64 bits holds; those of 128 bits are slow to divide.
const DIGITS_OF_WORD: usize = 16;
const WORD: u128 = 10_u128.pow(16);

/// A string of at most 64 numerals.
pub(crate) struct Numerals {
    front: Half,
    back: Half,
}

impl Numerals {
    /// A string of decimal digits; `None` if one is greater than 9, or if they are too many.
    pub(crate) fn of_digits(digits: &[u16]) -> Option<Self> {
        let (front, back) = digits.split_at(digits.len() / 2);
        Some(Self {
            front: Half::of_digits(front)?,
            back: Half::of_digits(back)?,
        })
    }

    /// Writes the string where the digits were that it was made of.
    pub(crate) fn write_digits(&self, digits: &mut [u16]) {
        let (front, back) = digits.split_at_mut(digits.len() / 2);
        self.front.write_digits(front);
        self.back.write_digits(back);
    }

    /// The lowest `count` bits of an integer: an even number of them, from the least significant one on.
    pub(crate) fn of_bits(bits: u64, count: usize) -> Self {
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
        self.front.count + self.back.count
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
    count: usize,
    radix: u32,
    /// The radix to the power of the count.
    end: u128,
}

impl Half {
    fn of_digits(digits: &[u16]) -> Option<Self> {
        if digits.len() > MOST_OF_HALF || digits.iter().any(|d| *d > 9) {
            return None;
        }
        let (mut number, mut end): (u128, u128) = (0, 1);
        for digit in digits {
            number = number * 10 + u128::from(*digit);
            end *= 10;
        }
        Some(Self {
            number,
            count: digits.len(),
            radix: 10,
            end,
        })
    }

    fn write_digits(&self, digits: &mut [u16]) {
        let mut rest = self.number;
        for part in digits.rchunks_mut(DIGITS_OF_WORD) {
            let mut word = u64::try_from(rest % WORD).unwrap_or_default();
            rest /= WORD;
            for digit in part.iter_mut().rev() {
                *digit = u16::try_from(word % 10).unwrap_or_default();
                word /= 10;
            }
        }
    }

    fn of_bits(bits: u64, count: usize) -> Self {
        let end = 1_u128 << count;
        Self {
            number: u128::from(reversed(bits, count)),
            count,
            radix: 2,
            end,
        }
    }

    fn to_bits(self) -> u64 {
        let number = u64::try_from(self.number).unwrap_or_default();
        reversed(number, self.count)
    }
}

/// The lowest `count` bits (1 to 64) in the opposite order.
fn reversed(bits: u64, count: usize) -> u64 {
    bits.reverse_bits() >> (64 - count)
}

impl Operations for Half {
    type Bytes = LastBytes;

    fn numeral_count(&self) -> usize {
        self.count
    }

    fn to_be_bytes(&self, _: u32, b: usize) -> LastBytes {
        LastBytes {
            bytes: self.number.to_be_bytes(),
            count: b,
        }
    }

    // FF1 asks for the power that belongs to the half.
    fn add_mod_exp(self, other: impl Iterator<Item = u8>, _: u32, _: usize) -> Self {
        let sum = self.number + remainder(other, self.end);
        let number = if sum < self.end { sum } else { sum - self.end };
        Self { number, ..self }
    }

    fn sub_mod_exp(self, other: impl Iterator<Item = u8>, _: u32, _: usize) -> Self {
        let other = remainder(other, self.end);
        let number = if self.number < other {
            self.number + self.end - other
        } else {
            self.number - other
        };
        Self { number, ..self }
    }
}

/// The remainder of a number whose most significant byte comes first.
fn remainder(bytes: impl Iterator<Item = u8>, divisor: u128) -> u128 {
    let number = bytes.fold(0_u128, |number, byte| {
        // Division is slow, and most numbers of FF1 have at most 16 bytes.
        let number = if number >> 120 == 0 {
            number
        } else {
            number % divisor
        };
        (number << 8) | u128::from(byte)
    });
    match (u64::try_from(number), u64::try_from(divisor)) {
        (Ok(number), Ok(divisor)) => u128::from(number % divisor),
        _ => number % divisor,
    }
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
    use aes::{Aes256, Aes256Enc};
    use fpe::ff1::{BinaryNumeralString, FF1, FlexibleNumeralString};

    use super::*;

    /// The key of NIST's examples with AES-256.
    const KEY: [u8; 32] = [
        0x2b, 0x7e, 0x15, 0x16, 0x28, 0xae, 0xd2, 0xa6, 0xab, 0xf7, 0x15, 0x88, 0x09, 0xcf, 0x4f,
        0x3c, 0xef, 0x43, 0x59, 0xd8, 0xd5, 0x80, 0xaa, 0x4f, 0x7f, 0x03, 0x6d, 0x6f, 0x04, 0xfc,
        0x6a, 0x94,
    ];

    fn ff1(radix: u32) -> FF1<Aes256Enc> {
        FF1::new(&KEY, radix).unwrap()
    }

    fn encrypted(tweak: &[u8], digits: &[u16]) -> Vec<u16> {
        let cipher = ff1(10).encrypt(tweak, &Numerals::of_digits(digits).unwrap());
        let mut out = digits.to_vec();
        cipher.unwrap().write_digits(&mut out);
        out
    }

    #[test]
    fn examples_of_nist_are_computed() {
        let digits: Vec<u16> = (0..10).collect();
        assert_eq!(encrypted(&[], &digits), [6, 6, 5, 7, 6, 6, 7, 0, 0, 9]);
        assert_eq!(
            encrypted(b"9876543210", &digits),
            [1, 0, 0, 1, 6, 2, 3, 4, 6, 3]
        );
    }

    #[test]
    fn digits_of_every_length_become_what_big_integers_give() {
        let reference = FF1::<Aes256>::new(&KEY, 10).unwrap();
        for length in 6..=64_usize {
            let mixed = (0..length).map(|at| u16::try_from((at * 7 + length) % 10).unwrap());
            let strings: [Vec<u16>; 3] = [mixed.collect(), vec![0; length], vec![9; length]];
            for digits in strings {
                let tweak = length.to_be_bytes();
                let plain = FlexibleNumeralString::from(digits.clone());
                let wanted: Vec<u16> = reference.encrypt(&tweak, &plain).unwrap().into();
                assert_eq!(encrypted(&tweak, &digits), wanted, "{length} digits");
                let cipher = Numerals::of_digits(&wanted).unwrap();
                let mut back = wanted;
                let plain = ff1(10).decrypt(&tweak, &cipher).unwrap();
                plain.write_digits(&mut back);
                assert_eq!(back, digits);
            }
        }
    }

    #[test]
    fn bits_become_what_big_integers_give() {
        let reference = FF1::<Aes256>::new(&KEY, 2).unwrap();
        for value in [
            0,
            1,
            0x8000_0000,
            0x0123_4567,
            u64::MAX,
            0x0123_4567_89ab_cdef,
        ] {
            for bytes in [4, 8] {
                let plain = &value.to_le_bytes()[..bytes];
                let wanted = reference.encrypt(&[], &BinaryNumeralString::from_bytes_le(plain));
                let mut le = [0; 8];
                le[..bytes].copy_from_slice(&wanted.unwrap().to_bytes_le());
                let cipher = ff1(2).encrypt(&[], &Numerals::of_bits(value, bytes * 8));
                let cipher = cipher.unwrap();
                assert_eq!(cipher.to_bits(), u64::from_le_bytes(le), "{value:x}");
                let plain = ff1(2).decrypt(&[], &cipher).unwrap().to_bits();
                assert_eq!(plain.to_le_bytes()[..bytes], value.to_le_bytes()[..bytes]);
            }
        }
    }

    #[test]
    fn what_is_no_string_of_digits_is_not_taken() {
        assert!(Numerals::of_digits(&[1, 2, 3, 4, 5, 10]).is_none());
        assert!(Numerals::of_digits(&[0; 66]).is_none());
        assert!(!Numerals::of_bits(5, 32).is_valid(10));
    }
}
