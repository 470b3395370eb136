//! Keyed hashes: the same value gives the same result in every table.

use std::sync::Arc;

use crate::key::Keyed;
use crate::prf::push_hex;
use crate::sql_type::{IntegerWidth, SqlType};
use crate::transform::{Fault, Masked, Transform};

const PURPOSE: &[u8] = b"hash";
/// Hexadecimal digits of a hash where the column does not limit it: 128 bits.
pub(crate) const TEXT_DIGITS: usize = 32;

/// A hash as hexadecimal digits.
pub(crate) struct HashText {
    pub(crate) key: Arc<Keyed>,
    pub(crate) ty: SqlType,
}

impl Transform for HashText {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let mac = self.key.prf.mac(PURPOSE, &self.ty.canonical(value));
        let start = out.len();
        push_hex(&mac[..TEXT_DIGITS / 2], out);
        let digits = self.ty.max_characters().unwrap_or(TEXT_DIGITS);
        out.truncate(start + digits.min(TEXT_DIGITS));
        Ok(Masked::Value)
    }
}

/// A hash as a UUID, marked as version 4.
pub(crate) struct HashUuid {
    pub(crate) key: Arc<Keyed>,
}

impl Transform for HashUuid {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let mac = self.key.prf.mac(PURPOSE, &value.to_ascii_lowercase());
        let mut id = [0; 16];
        id.copy_from_slice(&mac[..16]);
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        for (at, part) in [&id[..4], &id[4..6], &id[6..8], &id[8..10], &id[10..]]
            .into_iter()
            .enumerate()
        {
            if at > 0 {
                out.push(b'-');
            }
            push_hex(part, out);
        }
        Ok(Masked::Value)
    }
}

/// An integer by a keyed permutation of its range, so that keys stay unique. Values that fit an integer become the same in
/// bigint columns, and the sign stays. smallint has a permutation of its own.
pub(crate) struct HashInteger {
    pub(crate) key: Arc<Keyed>,
    pub(crate) width: IntegerWidth,
}

impl HashInteger {
    fn permute(&self, magnitude: u64) -> Result<u64, Fault> {
        let permutations = &self.key.permutations;
        match self.width {
            IntegerWidth::Small => Ok(permutations.small(magnitude)),
            _ if magnitude < 1 << 31 => permutations.normal(magnitude),
            _ => permutations.big(magnitude),
        }
    }
}

impl Transform for HashInteger {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let value = integer(value, self.width).ok_or("not an integer of the column's type")?;
        // -1 - value maps the negative integers to 0 and up; `!` computes it without overflow.
        let (magnitude, is_negative) = if value < 0 {
            (!value, true)
        } else {
            (value, false)
        };
        let masked = self.permute(magnitude.unsigned_abs())?;
        let masked = i64::try_from(masked).map_err(|_| "not an integer of the column's type")?;
        let masked = if is_negative { !masked } else { masked };
        out.extend_from_slice(masked.to_string().as_bytes());
        Ok(Masked::Value)
    }
}

/// A hash as a whole number of at most `digits` digits.
pub(crate) struct HashNumeric {
    pub(crate) key: Arc<Keyed>,
    pub(crate) digits: u32,
}

impl Transform for HashNumeric {
    fn apply(&self, value: &[u8], _: Option<&[u8]>, out: &mut Vec<u8>) -> Result<Masked, Fault> {
        let canonical = SqlType::Numeric(None).canonical(value);
        let mut draws = self.key.prf.draws(PURPOSE, &canonical);
        let masked = draws.below(10_u64.pow(self.digits.min(18)));
        out.extend_from_slice(masked.to_string().as_bytes());
        Ok(Masked::Value)
    }
}

/// An integer within the range of its type.
pub(crate) fn integer(text: &[u8], width: IntegerWidth) -> Option<i64> {
    let value: i64 = std::str::from_utf8(text).ok()?.trim().parse().ok()?;
    (width.min()..=width.max())
        .contains(&value)
        .then_some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::key::test_key;

    fn text(rule: &dyn Transform, value: &str) -> String {
        let mut out = Vec::new();
        assert_eq!(
            rule.apply(value.as_bytes(), None, &mut out),
            Ok(Masked::Value)
        );
        String::from_utf8(out).unwrap()
    }

    fn hashed(ty: &str, value: &str) -> String {
        let key = test_key("a").keyed().clone();
        let ty = SqlType::parse(ty);
        text(&HashText { key, ty }, value)
    }

    #[test]
    fn texts_become_digits_that_fit() {
        assert_eq!(hashed("text", "a").len(), 32);
        assert_eq!(hashed("text", "a"), hashed("character varying(60)", "a"));
        assert_eq!(
            hashed("text", "a")[..20],
            hashed("character varying(20)", "a")
        );
        assert_eq!(hashed("character(40)", "a    "), hashed("text", "a"));
        assert_ne!(hashed("text", "a"), hashed("text", "b"));
    }

    #[test]
    fn integers_are_equal_in_every_width_that_joins_use() {
        let masked = |width, value: &str| {
            let key = test_key("a").keyed().clone();
            text(&HashInteger { key, width }, value)
        };
        for value in ["0", "17", "-5", "2147483647", "-2147483648"] {
            let normal = masked(IntegerWidth::Normal, value);
            assert_eq!(normal, masked(IntegerWidth::Big, value));
            assert!(normal.parse::<i32>().is_ok(), "{normal}");
            assert_eq!(normal.starts_with('-'), value.starts_with('-'));
        }
        let big = masked(IntegerWidth::Big, "9223372036854775807");
        assert!(big.parse::<i64>().is_ok_and(|v| v >= 1 << 31), "{big}");
        assert!(masked(IntegerWidth::Small, "-32768").parse::<i16>().is_ok());
    }

    #[test]
    fn ten_thousand_keys_stay_unique() {
        let key = test_key("a").keyed().clone();
        let rule = HashInteger {
            key: key.clone(),
            width: IntegerWidth::Normal,
        };
        let masked: HashSet<_> = (0..10_000).map(|v| text(&rule, &v.to_string())).collect();
        assert_eq!(masked.len(), 10_000);
        let rule = HashUuid { key };
        let masked: HashSet<_> = (0..10_000).map(|v| text(&rule, &v.to_string())).collect();
        assert_eq!(masked.len(), 10_000);
    }

    #[test]
    fn uuids_are_version_4() {
        let key = test_key("a").keyed().clone();
        let masked = text(&HashUuid { key }, "0B6F1A6E-6C2C-4F0C-8F0B-0B2D3A4C5D6E");
        let parts: Vec<usize> = masked.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(masked.as_bytes()[14], b'4');
    }

    #[test]
    fn an_integer_out_of_range_is_refused() {
        let key = test_key("a").keyed().clone();
        let width = IntegerWidth::Small;
        let rule = HashInteger { key, width };
        assert!(rule.apply(b"40000", None, &mut Vec::new()).is_err());
        assert!(rule.apply(b"x", None, &mut Vec::new()).is_err());
    }
}
