//! The pseudorandom function under the key: HMAC-SHA-256 of values, separated by purpose.

use hmac::KeyInit as _;
use hmac::block_api::HmacCore;
use sha2::Sha256;
use sha2::digest::block_api::{Buffer, FixedOutputCore as _, UpdateCore as _};

use crate::error::MaskFileError;

const DIGITS_OF_NUMBER: usize = 9;

/// The pseudorandom function under the key.
///
/// Messages are short. For these, the block interface of the crate `hmac` takes a fifth less time than the usual one, which copies
/// a buffer with each hasher.
#[derive(Clone)]
pub(crate) struct Prf(HmacCore<Sha256>);

impl Prf {
    pub(crate) fn new(secret: &[u8]) -> Result<Self, MaskFileError> {
        let core = HmacCore::new_from_slice(secret);
        core.map(Self)
            .map_err(|_| MaskFileError("the masking key is not usable".to_owned()))
    }

    /// The HMAC of a value for a purpose. Purposes contain no NUL, so that no two pairs are the same message.
    pub(crate) fn mac(&self, purpose: &[u8], value: &[u8]) -> [u8; 32] {
        self.mac_of([purpose, b"\0", value])
    }

    /// The HMAC of a message in parts.
    fn mac_of<const PARTS: usize>(&self, message: [&[u8]; PARTS]) -> [u8; 32] {
        let mut core = self.0.clone();
        let mut buffer = Buffer::<HmacCore<Sha256>>::default();
        for part in message {
            buffer.digest_blocks(part, |blocks| core.update_blocks(blocks));
        }
        let mut mac = Default::default();
        core.finalize_fixed_core(&mut buffer, &mut mac);
        mac.into()
    }

    /// Draws that follow from a value.
    pub(crate) fn draws(&self, purpose: &[u8], value: &[u8]) -> Draws<'_> {
        Draws {
            prf: self,
            block: self.mac(purpose, value),
            used: 0,
        }
    }
}

/// Pseudorandom numbers that follow from the key and a value.
pub(crate) struct Draws<'k> {
    prf: &'k Prf,
    block: [u8; 32],
    used: usize,
}

impl Draws<'_> {
    pub(crate) fn number(&mut self) -> u64 {
        if self.used + 8 > self.block.len() {
            self.block = self.prf.mac(b"next block", &self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_be_bytes(bytes)
    }

    /// A number below `limit`. The probabilities of two numbers differ by a factor of at most 1 + `limit` / 2^63: by less than 2^-32
    /// for lists and counts, and by 6 % for the 18 digits of a hash, two of which are equal hardly more often by that.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(limit);
        (wide >> 64) as u64
    }

    /// A number from 0 to `limit`, inclusive; 0 for a negative limit.
    pub(crate) fn up_to(&mut self, limit: i128) -> i128 {
        let wide = (u128::from(self.number()) << 64) | u128::from(self.number());
        match u128::try_from(limit) {
            Ok(limit) => i128::try_from(wide % (limit + 1)).unwrap_or(0),
            Err(_) => 0,
        }
    }

    /// Decimal digits, at most nine of which are of one number.
    pub(crate) fn digits<const N: usize>(&mut self) -> [u8; N] {
        let mut digits = [b'0'; N];
        for part in digits.chunks_mut(DIGITS_OF_NUMBER) {
            let mut rest = self.below(part.iter().fold(1, |limit, _| limit * 10));
            for digit in part.iter_mut().rev() {
                *digit += u8::try_from(rest % 10).unwrap_or_default();
                rest /= 10;
            }
        }
        digits
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(self.below(length)).unwrap_or(0)
    }

    pub(crate) fn pick<'t>(&mut self, table: &[&'t str]) -> &'t str {
        let at = self.index(table.len());
        table.get(at).copied().unwrap_or_default()
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Appends bytes as hexadecimal digits.
pub(crate) fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    let pairs = out[start..].as_chunks_mut().0.iter_mut();
    for (pair, b) in pairs.zip(bytes) {
        *pair = [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The HMAC is the standard one: test case 2 of RFC 4231, whose key is too short for a mask, and whose message has no purpose.
    #[test]
    fn the_function_is_hmac_sha_256() {
        let mac = Prf::new(b"Jefe")
            .unwrap()
            .mac_of([b"what do ya want for nothing?"]);
        let mut hex = Vec::new();
        push_hex(&mac, &mut hex);
        assert_eq!(
            String::from_utf8(hex).unwrap(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn draws_are_below_their_limit_and_repeat() {
        let prf = Prf::new(b"key").unwrap();
        let numbers = || {
            let mut draws = prf.draws(b"test", b"v");
            (0..100).map(move |_| draws.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(numbers(), numbers());
        assert!(numbers().iter().all(|n| *n < 7));
        assert!((0..7).all(|n| numbers().contains(&n)));
    }

    #[test]
    fn digits_are_drawn_evenly() {
        let prf = Prf::new(b"key").unwrap();
        let mut counts = [[0_u32; 10]; 18];
        for value in 0..10_000_u32 {
            let digits: [u8; 18] = prf.draws(b"test", &value.to_be_bytes()).digits();
            for (of_place, digit) in counts.iter_mut().zip(digits) {
                of_place[usize::from(digit - b'0')] += 1;
            }
        }
        // Six standard deviations of 30.
        let is_even = |count: &u32| count.abs_diff(1000) < 180;
        assert!(counts.iter().flatten().all(is_even), "{counts:?}");
    }

    /// Keys and values of any length.
    #[test]
    fn a_mac_is_the_hmac_of_purpose_nul_and_value() {
        use hmac::{Hmac, KeyInit, Mac as _};
        let bytes: Vec<u8> = (0..=200).collect();
        for length in 0..=bytes.len() {
            for (key, value) in [
                (&b"key"[..], &bytes[..length]),
                (&bytes[..length], b"value"),
            ] {
                let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
                mac.update(&[b"purpose\0", value].concat());
                let whole: [u8; 32] = mac.finalize().into_bytes().into();
                let prf = Prf::new(key).unwrap();
                assert_eq!(prf.mac(b"purpose", value), whole, "{length}");
            }
        }
    }
}
