//! Other digits in the same places: all digits of a value are one string, which is permuted; everything else stays.

use std::sync::Arc;

use super::hash::integer;
use super::noise::is_special;
use crate::key::Keyed;
use crate::sql_type::IntegerWidth;
use crate::transform::{Fault, Masked, Transform};

/// What else has to hold for the result.
pub(crate) enum DigitsOf {
    Text,
    Integer(IntegerWidth),
    Numeric {
        /// How many digits after the point have to stay 0, and with them the whole part.
        zeros: Option<usize>,
    },
}

const NO_NUMBER: Fault = "not a number of the column's type";

pub(crate) struct Digits {
    pub(crate) key: Arc<Keyed>,
    pub(crate) of: DigitsOf,
}

impl Digits {
    /// Whether a text is a number as PostgreSQL writes it. The values for which this holds are a subset that is the same before and
    /// after, so that permuting until it holds again is a permutation of the subset.
    fn fits(&self, text: &[u8]) -> bool {
        match &self.of {
            DigitsOf::Text => true,
            // -0 is written as 0, which would be the masked value of another one.
            DigitsOf::Integer(width) => has_plain_form(text) && integer(text, *width).is_some(),
            DigitsOf::Numeric { .. } => has_plain_form(text),
        }
    }
}

impl Digits {
    /// Whether only digits, a sign and a point stand where a number has to be. Anything else would stay as it is.
    fn is_of_type(&self, value: &[u8]) -> bool {
        let has_point = match self.of {
            DigitsOf::Text => return true,
            DigitsOf::Integer(_) => false,
            DigitsOf::Numeric { .. } => true,
        };
        let unsigned = value.strip_prefix(b"-").unwrap_or(value);
        let (whole, fraction) = match memchr::memchr(b'.', unsigned) {
            Some(at) if has_point => (&unsigned[..at], &unsigned[at + 1..]),
            _ => (unsigned, &b"0"[..]),
        };
        let are_digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        (are_digits(whole) && are_digits(fraction)) || (has_point && is_special(value))
    }

    /// Masks a text whose digits may be of any script, in their own scripts: "1" and its fullwidth form are different values, and
    /// stay different. Bytes that are not UTF-8 stay.
    fn apply_to_any_script(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Masked, Fault> {
        if !matches!(self.of, DigitsOf::Text) {
            return Err(NO_NUMBER);
        }
        let chars = || value.utf8_chunks().flat_map(|chunk| chunk.valid().chars());
        let mut digits: Vec<u8> = chars().filter_map(|c| Some(digit(c)?.1)).collect();
        self.key.permutations.digits(&mut digits)?;
        let mut masked = digits.iter();
        for chunk in value.utf8_chunks() {
            for c in chunk.valid().chars() {
                let new = digit(c).and_then(|(zero, _)| {
                    char::from_u32(u32::from(zero) + u32::from(*masked.next()?))
                });
                let text = &mut [0; 4];
                out.extend_from_slice(new.unwrap_or(c).encode_utf8(text).as_bytes());
            }
            out.extend_from_slice(chunk.invalid());
        }
        Ok(Masked::Value)
    }

    /// Permutes the digits of a text, and writes them into their places.
    fn permute(&self, text: &mut [u8], digits: &mut [u8]) -> Result<(), Fault> {
        // NaN, Infinity and texts without digits stay.
        if digits.is_empty() {
            return Ok(());
        }
        let fixed = self.fixed(text).min(digits.len());
        let stays = digits[..fixed].iter().all(|digit| *digit == 0);
        if !stays || !self.fits(text) {
            return Err(NO_NUMBER);
        }
        loop {
            self.key.permutations.digits(&mut digits[fixed..])?;
            put(text, digits);
            if self.fits(text) {
                return Ok(());
            }
        }
    }

    /// How many of the first digits are 0 in every value of the column.
    fn fixed(&self, value: &[u8]) -> usize {
        let DigitsOf::Numeric { zeros: Some(zeros) } = self.of else {
            return 0;
        };
        let whole = value.iter().take_while(|b| **b != b'.');
        zeros + whole.filter(|b| b.is_ascii_digit()).count()
    }
}

impl Transform for Digits {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        if !value.is_ascii() {
            return self.apply_to_any_script(value, out);
        }
        if !self.is_of_type(value) {
            return Err(NO_NUMBER);
        }
        let start = out.len();
        out.extend_from_slice(value);
        let end = out.len();
        // They are behind the value until they are permuted, so that no value needs an allocation of its own.
        let all = value.iter().filter(|b| b.is_ascii_digit());
        out.extend(all.map(|b| b - b'0'));
        let (text, digits) = out[start..].split_at_mut(end - start);
        let masked = self.permute(text, digits);
        out.truncate(if masked.is_ok() { end } else { start });
        masked.map(|()| Masked::Value)
    }
}

/// The zeros of all scripts, each of which its other digits follow (Unicode's category Nd).
const ZEROS: [char; 76] = [
    '0',
    '\u{660}',
    '\u{6f0}',
    '\u{7c0}',
    '\u{966}',
    '\u{9e6}',
    '\u{a66}',
    '\u{ae6}',
    '\u{b66}',
    '\u{be6}',
    '\u{c66}',
    '\u{ce6}',
    '\u{d66}',
    '\u{de6}',
    '\u{e50}',
    '\u{ed0}',
    '\u{f20}',
    '\u{1040}',
    '\u{1090}',
    '\u{17e0}',
    '\u{1810}',
    '\u{1946}',
    '\u{19d0}',
    '\u{1a80}',
    '\u{1a90}',
    '\u{1b50}',
    '\u{1bb0}',
    '\u{1c40}',
    '\u{1c50}',
    '\u{a620}',
    '\u{a8d0}',
    '\u{a900}',
    '\u{a9d0}',
    '\u{a9f0}',
    '\u{aa50}',
    '\u{abf0}',
    '\u{ff10}',
    '\u{104a0}',
    '\u{10d30}',
    '\u{10d40}',
    '\u{11066}',
    '\u{110f0}',
    '\u{11136}',
    '\u{111d0}',
    '\u{112f0}',
    '\u{11450}',
    '\u{114d0}',
    '\u{11650}',
    '\u{116c0}',
    '\u{116d0}',
    '\u{116da}',
    '\u{11730}',
    '\u{118e0}',
    '\u{11950}',
    '\u{11bf0}',
    '\u{11c50}',
    '\u{11d50}',
    '\u{11da0}',
    '\u{11de0}',
    '\u{11f50}',
    '\u{16a60}',
    '\u{16ac0}',
    '\u{16b50}',
    '\u{16d70}',
    '\u{1ccf0}',
    '\u{1d7ce}',
    '\u{1d7d8}',
    '\u{1d7e2}',
    '\u{1d7ec}',
    '\u{1d7f6}',
    '\u{1e140}',
    '\u{1e2f0}',
    '\u{1e4f0}',
    '\u{1e5f1}',
    '\u{1e950}',
    '\u{1fbf0}',
];

/// The zero of a digit's script, and the digit; `None` if it is no digit.
fn digit(c: char) -> Option<(char, u8)> {
    let after = ZEROS.partition_point(|zero| *zero <= c);
    let zero = *ZEROS.get(after.checked_sub(1)?)?;
    let digit = u32::from(c) - u32::from(zero);
    let digit = u8::try_from(digit).ok().filter(|digit| *digit < 10)?;
    Some((zero, digit))
}

/// Writes the digits into the places of the text's digits.
fn put(text: &mut [u8], digits: &[u8]) {
    let places = text.iter_mut().filter(|b| b.is_ascii_digit());
    for (place, digit) in places.zip(digits) {
        *place = b'0' + *digit;
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
    fn digits_of_other_scripts_do_not_stay_and_keep_their_script() {
        assert!(ZEROS.is_sorted());
        assert_eq!(digit('٣'), Some(('\u{660}', 3)));
        assert_eq!(digit('\u{1d7d9}'), Some(('\u{1d7d8}', 1)));
        assert!("½ÜA/:²".chars().all(|c| digit(c).is_none()));
        let text = |value: &str| masked(DigitsOf::Text, value);
        let wide = text("１２3456 ü");
        let ascii: String = wide
            .chars()
            .filter_map(|c| Some(digit(c)?.1.to_string()))
            .collect();
        assert_eq!(ascii, text("123456"));
        let scripts = |text: &str| {
            text.chars()
                .map(|c| digit(c).map_or(c, |d| d.0))
                .collect::<String>()
        };
        assert_eq!(scripts(&wide), scripts("１２3456 ü"));
        // A unique column may have both.
        assert_ne!(wide, text("123456 ü"));
    }

    #[test]
    fn digits_beside_bytes_that_are_not_utf_8_are_masked() {
        let key = test_key("a").keyed().clone();
        let rule = Digits {
            key,
            of: DigitsOf::Text,
        };
        let mut out = vec![];
        rule.apply("٣٤٥٦٧٨".as_bytes(), None, &mut out).unwrap();
        let (masked, length) = (out.clone(), out.len());
        rule.apply(&["٣٤٥٦٧٨".as_bytes(), b"\xff"].concat(), None, &mut out)
            .unwrap();
        assert_eq!(out[length..], [&masked[..], b"\xff"].concat());
        assert_ne!(masked, "٣٤٥٦٧٨".as_bytes());
    }

    #[test]
    fn what_is_no_number_is_refused_in_a_column_of_numbers() {
        let key = test_key("a").keyed().clone();
        let numeric = Digits {
            key: key.clone(),
            of: DigitsOf::Numeric { zeros: None },
        };
        let whole = Digits {
            key,
            of: DigitsOf::Integer(IntegerWidth::Normal),
        };
        let fits = |rule: &Digits, value: &str| {
            let mut out = b"before".to_vec();
            let fits = rule.apply(value.as_bytes(), None, &mut out).is_ok();
            // Neither the value nor its digits stay of what is refused.
            let length = if fits { value.len() } else { 0 };
            assert_eq!(out.len(), b"before".len() + length, "{value}");
            fits
        };
        for value in ["-12.50", "7", "-Infinity", "NaN"] {
            assert!(fits(&numeric, value), "{value}");
        }
        for value in [
            "12 Ada Lovelace",
            "1x2",
            "1.2.3",
            "",
            "Ada",
            ".",
            "1.",
            "--1",
            "-0",
            "007",
        ] {
            assert!(!fits(&numeric, value), "{value}");
            assert!(!fits(&whole, value), "{value}");
        }
        assert!(fits(&whole, "-12") && !fits(&whole, "1.5") && !fits(&whole, "NaN"));
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
        assert_eq!(masked(DigitsOf::Numeric { zeros: None }, "NaN"), "NaN");
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
    fn fractions_stay_as_small_as_their_type_is() {
        let masked = |zeros, value: &str| masked(DigitsOf::Numeric { zeros: Some(zeros) }, value);
        for (zeros, value) in [(0, "0.12"), (0, "-0.5"), (0, "0.0000"), (2, "0.00123")] {
            let result = masked(zeros, value);
            let start = value.find('.').unwrap() + 1 + zeros;
            assert_eq!(result[..start], value[..start], "{value}");
            assert_eq!(result.len(), value.len());
        }
        let all: HashSet<_> = (0..1000)
            .map(|v| masked(2, &format!("0.00{v:03}")))
            .collect();
        assert_eq!(all.len(), 1000);
        let key = test_key("a").keyed().clone();
        let of = DigitsOf::Numeric { zeros: Some(0) };
        let rule = Digits { key, of };
        let mut out = Vec::new();
        assert!(rule.apply(b"7.31", None, &mut out).is_err() && out.is_empty());
    }

    #[test]
    fn decimals_keep_their_scale() {
        for value in ["1234.50", "0.05", "-17.3"] {
            let result = masked(DigitsOf::Numeric { zeros: None }, value);
            assert_eq!(result.len(), value.len());
            assert!(has_plain_form(result.as_bytes()), "{result}");
            assert_eq!(result.find('.'), value.find('.'));
        }
    }
}
