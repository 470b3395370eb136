//! Floating-point numbers as the server writes them since version 12: the fewest digits that identify the number.

/// Exponents from which on the server writes one, of `float4` and of `float8`.
const FLOAT4_FIXED: i32 = 6;
const FLOAT8_FIXED: i32 = 15;
/// The least exponent that is not written.
const LEAST_FIXED: i32 = -4;
/// Bits of a mantissa that are stored.
const FLOAT4_MANTISSA: u32 = 23;
const FLOAT8_MANTISSA: u32 = 52;

/// Appends a `float4`; `None` if it is not certain which digits the server chooses.
pub(super) fn float4(number: f32, out: &mut Vec<u8>) -> Option<()> {
    if special(number.into(), out) {
        return Some(());
    }
    let bits = number.to_bits();
    let parts = Binary::of(
        u64::from(bits & ((1 << FLOAT4_MANTISSA) - 1)),
        (bits >> FLOAT4_MANTISSA).cast_signed() & 0xFF,
        FLOAT4_MANTISSA,
    );
    let mut buffer = ryu::Buffer::new();
    let decimal = Decimal::of(buffer.format_finite(number.abs()))?;
    decimal.is_certain(&parts).then_some(())?;
    decimal.write(FLOAT4_FIXED, out);
    Some(())
}

/// Appends a `float8`; `None` if it is not certain which digits the server chooses.
pub(super) fn float8(number: f64, out: &mut Vec<u8>) -> Option<()> {
    if special(number, out) {
        return Some(());
    }
    let bits = number.to_bits();
    let exponent = i32::try_from(bits >> FLOAT8_MANTISSA & 0x7FF).ok()?;
    let mantissa = bits & ((1 << FLOAT8_MANTISSA) - 1);
    let parts = Binary::of(mantissa, exponent, FLOAT8_MANTISSA);
    let mut buffer = ryu::Buffer::new();
    let decimal = Decimal::of(buffer.format_finite(number.abs()))?;
    decimal.is_certain(&parts).then_some(())?;
    decimal.write(FLOAT8_FIXED, out);
    Some(())
}

/// Appends what has no digits to choose. Of every other number it appends the sign alone, and the result is false.
fn special(number: f64, out: &mut Vec<u8>) -> bool {
    if number.is_nan() {
        out.extend_from_slice(b"NaN");
        return true;
    }
    if number.is_sign_negative() {
        out.push(b'-');
    }
    if number == 0.0 {
        out.push(b'0');
    } else if number.is_infinite() {
        out.extend_from_slice(b"Infinity");
    }
    number == 0.0 || number.is_infinite()
}

/// A finite number that is not zero, as `mantissa * 2^exponent`.
struct Binary {
    mantissa: u64,
    exponent: i32,
    /// The next smaller number is only half as far away as the next larger one.
    is_power: bool,
}

impl Binary {
    /// Of the stored bits. An exponent of 0 says that the mantissa has no implicit leading bit.
    fn of(mantissa: u64, exponent: i32, bits: u32) -> Self {
        let bias = match bits {
            FLOAT4_MANTISSA => 127 + 23,
            _ => 1023 + 52,
        };
        match exponent {
            0 => Binary {
                mantissa,
                exponent: 1 - bias,
                is_power: false,
            },
            _ => Binary {
                mantissa: mantissa | 1 << bits,
                exponent: exponent - bias,
                is_power: mantissa == 0 && exponent > 1,
            },
        }
    }
}

/// `digits * 10^exponent`; the last digit is not 0.
struct Decimal {
    digits: u64,
    exponent: i32,
}

impl Decimal {
    /// Of a positive number as `ryu` writes it: `1.5`, `100.0` or `1.5e-7`.
    fn of(text: &str) -> Option<Self> {
        let (number, exponent) = match text.split_once('e') {
            Some((number, exponent)) => (number, exponent.parse().ok()?),
            None => (text, 0),
        };
        let mut decimal = Decimal {
            digits: 0,
            exponent,
        };
        let mut is_fraction = false;
        for byte in number.bytes() {
            match byte {
                b'.' => is_fraction = true,
                digit => {
                    let digit = u64::from(digit.checked_sub(b'0')?);
                    decimal.digits = decimal.digits.checked_mul(10)?.checked_add(digit)?;
                    decimal.exponent -= i32::from(is_fraction);
                }
            }
        }
        while decimal.digits != 0 && decimal.digits.is_multiple_of(10) {
            decimal.digits /= 10;
            decimal.exponent += 1;
        }
        Some(decimal)
    }

    /// Whether the server chooses these digits. It writes more of them where they spell the middle between two numbers,
    /// although reading rounds that to the number whose mantissa is even.
    fn is_certain(&self, number: &Binary) -> bool {
        let Binary {
            mantissa, exponent, ..
        } = *number;
        if mantissa % 2 == 1 {
            return true;
        }
        let above = (2 * mantissa + 1, exponent - 1);
        let below = if number.is_power {
            (4 * mantissa - 1, exponent - 2)
        } else {
            (2 * mantissa - 1, exponent - 1)
        };
        !self.is_equal(above) && !self.is_equal(below)
    }

    /// Whether this is `odd * 2^exponent`.
    fn is_equal(&self, (odd, exponent): (u64, i32)) -> bool {
        // More powers of five than either number can have: 5^25 > 2^55.
        if !(-24..=24).contains(&self.exponent) {
            return false;
        }
        let fives = 5_u128.pow(self.exponent.unsigned_abs());
        let (mut ours, mut theirs) = (u128::from(self.digits), u128::from(odd));
        if self.exponent < 0 {
            theirs *= fives;
        } else {
            ours *= fives;
        }
        let twos = ours.trailing_zeros();
        ours >> twos == theirs && self.exponent + twos.cast_signed() == exponent
    }

    /// Appends it with an exponent if that of its first digit is not between `LEAST_FIXED` and `fixed`.
    fn write(&self, fixed: i32, out: &mut Vec<u8>) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(self.digits).as_bytes();
        let length = i32::try_from(digits.len()).unwrap_or_default();
        let exponent = self.exponent + length - 1;
        let zeros = |out: &mut Vec<u8>, n: i32| {
            out.resize(out.len() + usize::try_from(n).unwrap_or_default(), b'0');
        };
        let pointed = |out: &mut Vec<u8>, before: usize| {
            let (whole, fraction) = digits.split_at(before.min(digits.len()));
            out.extend_from_slice(whole);
            if !fraction.is_empty() {
                out.push(b'.');
                out.extend_from_slice(fraction);
            }
        };
        if !(LEAST_FIXED..fixed).contains(&exponent) {
            pointed(out, 1);
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            if exponent.abs() < 10 {
                out.push(b'0');
            }
            out.extend_from_slice(itoa::Buffer::new().format(exponent.abs()).as_bytes());
        } else if exponent < 0 {
            out.extend_from_slice(b"0.");
            zeros(out, -exponent - 1);
            out.extend_from_slice(digits);
        } else {
            pointed(out, usize::try_from(exponent + 1).unwrap_or_default());
            zeros(out, self.exponent);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written<T>(write: fn(T, &mut Vec<u8>) -> Option<()>, number: T) -> Option<String> {
        let mut out = Vec::new();
        write(number, &mut out)?;
        Some(String::from_utf8(out).unwrap())
    }

    /// As PostgreSQL 15 writes them.
    #[test]
    fn numbers_are_written_as_the_server_does() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-1.5, "-1.5"),
            (100.0, "100"),
            (1e14, "100000000000000"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e15, "1e+15"),
            (1_234_567_890_123_456.0, "1.234567890123456e+15"),
            (0.0001, "0.0001"),
            (0.000_123_4, "0.0001234"),
            (0.000_01, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (0.1 + 0.2, "0.30000000000000004"),
            (5e-324, "5e-324"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(written(float8, number).as_deref(), Some(text));
        }
        for (number, text) in [
            (0.1_f32, "0.1"),
            (999_999.0, "999999"),
            (1e6, "1e+06"),
            (16_777_216.0, "1.6777216e+07"),
            (1e-45, "1e-45"),
            (f32::MAX, "3.4028235e+38"),
        ] {
            assert_eq!(written(float4, number).as_deref(), Some(text));
        }
    }

    /// The server writes these with more digits.
    #[test]
    fn the_middle_between_two_numbers_is_not_written() {
        for number in [1e23, -1e23] {
            assert_eq!(written(float8, number), None);
        }
        assert_eq!(written(float8, 1e22).as_deref(), Some("1e+22"));
        assert_eq!(
            written(float8, 9_007_199_254_740_992.0).as_deref(),
            Some("9.007199254740992e+15")
        );
    }

    proptest! {
        /// What is written is the number, and no other one.
        #[test]
        fn numbers_can_be_read_back(double: u64, single: u32) {
            let (double, single) = (f64::from_bits(double), f32::from_bits(single));
            if let Some(text) = written(float8, double) {
                let read: f64 = text.parse().unwrap();
                prop_assert!(read.to_bits() == double.to_bits() || double.is_nan() && read.is_nan(), "{}", text);
            }
            if let Some(text) = written(float4, single) {
                let read: f32 = text.parse().unwrap();
                prop_assert!(read.to_bits() == single.to_bits() || single.is_nan() && read.is_nan(), "{}", text);
            }
        }
    }
}
