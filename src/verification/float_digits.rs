//! `pg_dump --extra-float-digits` with a negative number rounds floating-point numbers, and writes an exponent where the
//! server usually writes all digits. An archive does not say so, but the restored numbers show which of these settings write
//! them without loss, and differently from the usual one. Pure.

use std::ops::RangeInclusive;

/// Digits of which `extra_float_digits` takes some away, of `float4` and of `float8`.
pub(super) const FLOAT4_DIGITS: i32 = 6;
pub(super) const FLOAT8_DIGITS: i32 = 15;
/// The least setting.
const LEAST: i32 = -15;

/// What the numbers of a table say about the setting with which they were dumped.
#[derive(Debug, Default)]
pub(super) struct FloatDigits {
    /// The least setting that takes away no digit of any.
    least: Option<i32>,
    /// The greatest one that writes one of them with an exponent, where there usually is none.
    greatest: Option<i32>,
}

impl FloatDigits {
    /// Takes the numbers in the text of a value into account, of which so many digits are written by default.
    pub fn add(&mut self, text: &[u8], digits: i32) {
        let mut rest = text;
        while let Some(start) = rest.iter().position(u8::is_ascii_digit) {
            let number = &rest[start..];
            let is_inside = |b: &&u8| b.is_ascii_digit() || **b == b'.';
            let (mantissa, after) = number.split_at(number.iter().take_while(is_inside).count());
            let exponent = after_exponent(after);
            self.add_number(mantissa, exponent.is_some(), digits);
            rest = exponent.unwrap_or(after);
        }
    }

    fn add_number(&mut self, mantissa: &[u8], has_exponent: bool, digits: i32) {
        let is_significant = |b: &u8| matches!(b, b'1'..=b'9');
        let first = mantissa.iter().position(is_significant);
        let last = mantissa.iter().rposition(is_significant);
        let (Some(first), Some(last)) = (first, last) else {
            return;
        };
        let point = mantissa.iter().position(|b| *b == b'.');
        let point = point.unwrap_or(mantissa.len());
        let significant = last + 1 - first - usize::from(first < point && point < last);
        let above = |n: usize| i32::try_from(n).unwrap_or(i32::MAX).saturating_sub(digits);
        self.least = self.least.max(Some(above(significant)));
        if !has_exponent && first < point {
            // The exponent would be one less than the digits before the point.
            self.greatest = self.greatest.max(Some(above(point - first - 1)));
        }
    }

    /// The settings that may explain other text; usually none.
    pub fn settings(&self) -> RangeInclusive<i32> {
        let least = self.least.unwrap_or_default().max(LEAST);
        let greatest = self.greatest.unwrap_or(LEAST - 1).min(-1);
        least..=greatest
    }
}

/// What follows an exponent, if one begins here.
fn after_exponent(text: &[u8]) -> Option<&[u8]> {
    let signed = text.strip_prefix(b"e")?;
    let digits = signed
        .strip_prefix(b"+")
        .or_else(|| signed.strip_prefix(b"-"))?;
    let count = digits.iter().take_while(|b| b.is_ascii_digit()).count();
    (count > 0).then(|| &digits[count..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_which_settings_may_have_written_them() {
        let of = |values: &[&str], digits: i32| -> Vec<i32> {
            let mut found = FloatDigits::default();
            values.iter().for_each(|v| found.add(v.as_bytes(), digits));
            found.settings().collect()
        };
        let none: [i32; 0] = [];
        // Ten digits: with -4, it would have no exponent; with -6, nine digits would be left.
        assert_eq!(of(&["12345678910", "0.5"], FLOAT8_DIGITS), [-5]);
        assert_eq!(of(&["-123456789100"], FLOAT8_DIGITS), [-5, -4]);
        assert_eq!(of(&["12345678900"], FLOAT8_DIGITS), [-6, -5]);
        // All digits, none before the point that could be taken away, an exponent as usual, no number.
        assert_eq!(
            of(&["0.1234567890123456", "12345678910"], FLOAT8_DIGITS),
            none
        );
        assert_eq!(of(&["1.5", "20.25", "0"], FLOAT8_DIGITS), none);
        assert_eq!(
            of(
                &["1e+20", "1.5e-07", "NaN", "-Infinity", "\\N"],
                FLOAT8_DIGITS
            ),
            none
        );
        assert_eq!(of(&[], FLOAT8_DIGITS), none);
        // Of all numbers in a value: 1e+05 with one digit, as float4 has it from -5 on.
        assert_eq!(of(&["{1.5e+20,100000}"], FLOAT4_DIGITS), [-4, -3, -2, -1]);
        assert_eq!(of(&["(100000,7)"], FLOAT4_DIGITS), [-5, -4, -3, -2, -1]);
    }
}
