//! Numbers that move a little. Equal values move equally.

use std::sync::Arc;

use crate::decimal::Decimal;
use crate::key::Keyed;
use crate::prf::Draws;
use crate::rule_spec::Noise;
use crate::sql_type::{IntegerWidth, NumericLimits};
use crate::transform::{Fault, Masked, Transform};

const PURPOSE: &[u8] = b"noise";

/// Noise on integers and `numeric`, which keep their scale.
pub(crate) struct NumberNoise {
    pub(crate) key: Arc<Keyed>,
    pub(crate) noise: Noise,
    pub(crate) width: Option<IntegerWidth>,
    pub(crate) limits: Option<NumericLimits>,
}

impl NumberNoise {
    /// How far the value may move, in units of its last digit: at least one.
    fn span(&self, value: Decimal) -> Option<i128> {
        let span = match self.noise {
            Noise::Absolute(most) => most.at_scale(value.scale)?,
            Noise::Percent(percent) => {
                let divisor = 100 * 10_i128.checked_pow(percent.scale)?;
                let product = value.mantissa.checked_mul(percent.mantissa);
                // A product that overflows belongs to a number so large that dividing first loses nothing.
                product
                    .map(|p| p / divisor)
                    .or_else(|| (value.mantissa / divisor).checked_mul(percent.mantissa))?
                    .abs()
            }
        };
        Some(span.max(1))
    }

    /// The least and the greatest mantissa of a value of this scale.
    fn range(&self, scale: u32) -> (i128, i128) {
        if let Some(width) = self.width {
            return (i128::from(width.min()), i128::from(width.max()));
        }
        let digits = self.limits.and_then(|l| {
            let digits = i64::from(l.precision) - i64::from(l.scale) + i64::from(scale);
            u32::try_from(digits).ok()
        });
        let most = digits.and_then(|d| 10_i128.checked_pow(d)).map(|m| m - 1);
        let most = most.unwrap_or(i128::MAX);
        (-most, most)
    }
}

impl Transform for NumberNoise {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        if is_special(value) {
            out.extend_from_slice(value);
            return Ok(Masked::Value);
        }
        let number = Decimal::parse(value).ok_or("not a number of at most 30 digits")?;
        let span = self
            .span(number)
            .ok_or("the noise is too large for the value")?;
        let delta = distance(&mut self.key.prf.draws(PURPOSE, value), span);
        let (least, most) = self.range(number.scale);
        // At the ends of the range, the other direction is left.
        let there = number.mantissa.saturating_add(delta);
        let moved = if (least..=most).contains(&there) {
            there
        } else {
            number.mantissa.saturating_sub(delta).clamp(least, most)
        };
        let moved = Decimal {
            mantissa: moved,
            scale: number.scale,
        };
        moved.write(out);
        Ok(Masked::Value)
    }
}

/// A number from -span to span, except 0.
fn distance(draws: &mut Draws<'_>, span: i128) -> i128 {
    let size = 1 + draws.up_to(span - 1);
    if draws.below(2) == 0 { size } else { -size }
}

/// Noise on `real` and `double precision`.
pub(crate) struct FloatNoise {
    pub(crate) key: Arc<Keyed>,
    pub(crate) noise: Noise,
    pub(crate) is_double: bool,
}

impl Transform for FloatNoise {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        if is_special(value) {
            out.extend_from_slice(value);
            return Ok(Masked::Value);
        }
        let text = std::str::from_utf8(value).map_err(|_| "not a number")?;
        let number: f64 = text.parse().map_err(|_| "not a number")?;
        let span = match self.noise {
            Noise::Absolute(most) => float(most),
            Noise::Percent(percent) => number.abs() * (float(percent) / 100.0),
        };
        let span = span.min(f64::MAX);
        let mut draws = self.key.prf.draws(PURPOSE, value);
        // 53 bits are what a double holds exactly.
        let share = (draws.number() >> 11) as f64 / (1_u64 << 53) as f64;
        let delta = span * (2.0 * share - 1.0);
        let most = if self.is_double {
            f64::MAX
        } else {
            f64::from(f32::MAX)
        };
        let moved = (number + delta).clamp(-most, most);
        let moved = if self.is_double {
            moved.to_string()
        } else {
            (moved as f32).to_string()
        };
        out.extend_from_slice(moved.as_bytes());
        Ok(Masked::Value)
    }
}

fn float(decimal: Decimal) -> f64 {
    decimal.mantissa as f64 / 10_f64.powi(i32::try_from(decimal.scale).unwrap_or(0))
}

/// What has no digits that could move.
pub(super) fn is_special(value: &[u8]) -> bool {
    [&b"NaN"[..], b"Infinity", b"-Infinity"].contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::test_key;

    fn noisy(noise: &str, width: Option<IntegerWidth>, value: &str) -> String {
        let rule = NumberNoise {
            key: test_key("a").keyed().clone(),
            noise: Noise::parse(noise).unwrap(),
            width,
            limits: Some(NumericLimits {
                precision: 8,
                scale: 2,
            }),
        };
        let mut out = Vec::new();
        rule.apply(value.as_bytes(), None, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_move_within_the_noise_and_keep_their_scale() {
        for value in ["100.00", "-250.50", "999999.99", "1234.10"] {
            let moved = noisy("10%", None, value);
            let (old, new): (f64, f64) = (value.parse().unwrap(), moved.parse().unwrap());
            assert!(
                (old - new).abs() <= old.abs() * 0.1 && old != new,
                "{value}: {moved}"
            );
            assert_eq!(moved.split_once('.').unwrap().1.len(), 2);
            assert!(new.abs() < 1e6);
        }
        let small = Some(IntegerWidth::Small);
        for value in ["32767", "-32768", "0", "5"] {
            let moved: i16 = noisy("3", small, value).parse().unwrap();
            let old: i16 = value.parse().unwrap();
            assert!((i32::from(moved) - i32::from(old)).abs() <= 3);
        }
        assert_eq!(noisy("10%", None, "NaN"), "NaN");
    }

    #[test]
    fn floats_stay_finite() {
        for (is_double, value) in [
            (true, "1.7976931348623157e+308"),
            (false, "3.4028235e+38"),
            (true, "0.1"),
        ] {
            let rule = FloatNoise {
                key: test_key("a").keyed().clone(),
                noise: Noise::parse("50%").unwrap(),
                is_double,
            };
            let mut out = Vec::new();
            rule.apply(value.as_bytes(), None, &mut out).unwrap();
            let moved: f64 = String::from_utf8(out).unwrap().parse().unwrap();
            assert!(moved.is_finite());
        }
    }
}
