//! Other digits in the same places: all digits of a value are one string, which is permuted; everything else stays.

use std::sync::Arc;

use super::hash::integer;
use crate::key::Keyed;
use crate::sql_type::IntegerWidth;
use crate::transform::{Fault, Masked, Transform};

/// What else has to hold for the result.
pub(crate) enum DigitsOf {
    Text,
    Integer(IntegerWidth),
    Numeric,
}

pub(crate) struct Digits {
    pub(crate) key: Arc<Keyed>,
    pub(crate) of: DigitsOf,
}

impl Digits {
    /// Whether the digits, in the places of `value`, are a number as PostgreSQL writes it. The values for which this holds are
    /// a subset that is the same before and after, so that permuting until it holds again is a permutation of the subset.
    fn fits(&self, value: &[u8], digits: &[u16]) -> bool {
        match &self.of {
            DigitsOf::Text => true,
            DigitsOf::Integer(width) => {
                let mut text = value.to_vec();
                put(&mut text, digits);
                // -0 is written as 0, which would be the masked value of another one.
                has_plain_form(&text) && integer(&text, *width).is_some()
            }
            DigitsOf::Numeric => {
                let mut text = value.to_vec();
                put(&mut text, digits);
                has_plain_form(&text)
            }
        }
    }
}

impl Transform for Digits {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let mut digits: Vec<u16> = value
            .iter()
            .filter(|b| b.is_ascii_digit())
            .map(|b| u16::from(b - b'0'))
            .collect();
        let start = out.len();
        out.extend_from_slice(value);
        // NaN, Infinity and texts without digits stay.
        if digits.is_empty() {
            return Ok(Masked::Value);
        }
        if !self.fits(value, &digits) {
            return Err("not a number of the column's type");
        }
        loop {
            self.key.permutations.digits(&mut digits)?;
            if self.fits(value, &digits) {
                break;
            }
        }
        put(&mut out[start..], &digits);
        Ok(Masked::Value)
    }
}

/// Writes the digits into the places of the text's digits.
fn put(text: &mut [u8], digits: &[u16]) {
    let places = text.iter_mut().filter(|b| b.is_ascii_digit());
    for (place, digit) in places.zip(digits) {
        *place = b'0' + u8::try_from(*digit).unwrap_or_default();
    }
}

/// No zero before other digits of the whole part, and no negative zero.
fn has_plain_form(text: &[u8]) -> bool {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let whole = unsigned.iter().take_while(|b| b.is_ascii_digit()).count();
    let is_zero = unsigned.iter().all(|b| [b'0', b'.'].contains(b));
    (whole == 1 || unsigned.first() != Some(&b'0')) && !(is_zero && unsigned.len() < text.len())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::key::test_key;

    fn masked(of: DigitsOf, value: &str) -> String {
        let key = test_key("a").keyed().clone();
        let mut out = Vec::new();
        Digits { key, of }
            .apply(value.as_bytes(), None, &mut out)
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn everything_but_the_digits_stays() {
        let shape = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "9");
        for value in [
            "123-45-6789",
            "4111 1111 1111 1111",
            "AB12",
            "Ü 7",
            "",
            "none",
            "000000",
        ] {
            let result = masked(DigitsOf::Text, value);
            assert_eq!(shape(&result), shape(value));
        }
        assert_ne!(masked(DigitsOf::Text, "123-45-6789"), "123-45-6789");
        assert_eq!(masked(DigitsOf::Numeric, "NaN"), "NaN");
    }

    #[test]
    fn integers_stay_unique_within_their_range() {
        let width = IntegerWidth::Small;
        let all: HashSet<_> = (-300..=300)
            .map(|v| masked(DigitsOf::Integer(width), &v.to_string()))
            .collect();
        assert_eq!(all.len(), 601);
        for value in ["32767", "-32768", "10000"] {
            let result = masked(DigitsOf::Integer(width), value);
            assert!(result.parse::<i16>().is_ok(), "{result}");
            assert_eq!(result.len(), value.len());
        }
        let result = masked(DigitsOf::Integer(IntegerWidth::Normal), "2147483647");
        assert!(result.parse::<i32>().is_ok(), "{result}");
    }

    #[test]
    fn decimals_keep_their_scale() {
        for value in ["1234.50", "0.05", "-17.3"] {
            let result = masked(DigitsOf::Numeric, value);
            assert_eq!(result.len(), value.len());
            assert!(has_plain_form(result.as_bytes()), "{result}");
            assert_eq!(result.find('.'), value.find('.'));
        }
    }
}
