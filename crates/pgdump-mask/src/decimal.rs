//! Exact decimal numbers, for noise on `numeric`.

use std::io::Write;

/// `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Decimal {
    pub(crate) mantissa: i128,
    pub(crate) scale: u32,
}

/// More digits are not computed with, so that no product overflows.
const MAX_DIGITS: usize = 30;

impl Decimal {
    /// Reads a number as PostgreSQL writes `numeric` and integers: without an exponent.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut mantissa: i128 = 0;
        let (mut count, mut scale, mut after_point) = (0, 0, false);
        for b in digits {
            match b {
                b'0'..=b'9' => {
                    mantissa = mantissa * 10 + i128::from(b - b'0');
                    count += 1;
                    scale += u32::from(after_point);
                }
                b'.' if !after_point => after_point = true,
                _ => return None,
            }
            if count > MAX_DIGITS {
                return None;
            }
        }
        if count == 0 {
            return None;
        }
        let mantissa = if negative { -mantissa } else { mantissa };
        Some(Self { mantissa, scale })
    }

    /// The mantissa of the same number with another scale, cut off.
    pub(crate) fn at_scale(self, scale: u32) -> Option<i128> {
        if scale >= self.scale {
            let factor = 10_i128.checked_pow(scale - self.scale)?;
            self.mantissa.checked_mul(factor)
        } else {
            let divisor = 10_i128.checked_pow(self.scale - scale)?;
            Some(self.mantissa / divisor)
        }
    }

    /// The mantissa of the same number with another scale, rounded half away from zero, as the server does.
    pub(crate) fn rounded(self, scale: u32) -> Option<i128> {
        if scale >= self.scale {
            return self.at_scale(scale);
        }
        let one_more = self.at_scale(scale + 1)?;
        Some((one_more + 5 * one_more.signum()) / 10)
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        if self.mantissa < 0 {
            out.push(b'-');
        }
        let digits = self.mantissa.unsigned_abs();
        let scale = self.scale as usize;
        // Writing to memory does not fail.
        let _ = write!(out, "{digits:0width$}", width = scale + 1);
        if scale > 0 {
            out.insert(out.len() - scale, b'.');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_were_read() {
        for text in [
            "0",
            "-1",
            "12.50",
            "-0.05",
            "123456789012345678901234567890",
        ] {
            let mut out = Vec::new();
            Decimal::parse(text.as_bytes()).unwrap().write(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        for text in [
            "",
            "-",
            "1e5",
            "NaN",
            "1.2.3",
            "1234567890123456789012345678901",
        ] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn scales_are_converted() {
        let five = Decimal {
            mantissa: 55,
            scale: 1,
        };
        assert_eq!(five.at_scale(2), Some(550));
        assert_eq!(five.at_scale(0), Some(5));
        assert_eq!(five.rounded(0), Some(6));
        assert_eq!(five.rounded(3), Some(5500));
        let rounded = |text: &[u8]| Decimal::parse(text).and_then(|d| d.rounded(2));
        assert_eq!(rounded(b"-999.995"), Some(-100_000));
        assert_eq!(rounded(b"999.9949"), Some(99_999));
        assert_eq!(rounded(b"0.004"), Some(0));
    }
}
