//! Values of settings as amounts, and amounts as values of settings.

const UNITS: [(&str, u64); 4] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
];

/// Bytes, or milliseconds, of a number in a unit of `pg_settings`, such as `16MB` or `min`.
pub(super) fn in_unit(number: u64, unit: &str) -> Option<u64> {
    let digits = unit.len() - unit.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (times, name) = unit.split_at(digits);
    let times: u64 = if times.is_empty() {
        1
    } else {
        times.parse().ok()?
    };
    let size = match name {
        "" | "B" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        name => UNITS.iter().find(|(unit, _)| *unit == name)?.1,
    };
    number.checked_mul(times)?.checked_mul(size)
}

/// Bytes, or milliseconds, of a value as it is written in `postgresql.conf`, such as `64MB` or `30min`; a bare number is
/// itself.
pub(super) fn amount(value: &str) -> Option<u64> {
    let digits = value.len() - value.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    in_unit(number.parse().ok()?, unit.trim())
}

/// Bytes in the largest unit of which they are a whole number.
pub(super) fn size(bytes: u64) -> String {
    let whole = UNITS
        .iter()
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Milliseconds in the largest unit of which they are a whole number.
pub(super) fn time(ms: u64) -> String {
    let units = [("h", 3_600_000), ("min", 60_000), ("s", 1_000)];
    let whole = units
        .iter()
        .find(|(_, unit)| ms >= *unit && ms.is_multiple_of(*unit));
    match whole {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// The least power of two that is at least `bytes`, within bounds.
pub(super) fn rounded_up(bytes: u64, least: u64, most: u64) -> u64 {
    let rounded = bytes.checked_next_power_of_two().unwrap_or(most);
    rounded.clamp(least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_the_settings_view_are_understood() {
        for (number, unit, wanted) in [
            (16384, "8kB", Some(128 << 20)),
            (1024, "MB", Some(1 << 30)),
            (64, "16MB", Some(1 << 30)),
            (65536, "kB", Some(64 << 20)),
            (300, "s", Some(300_000)),
            (5, "min", Some(300_000)),
            (7, "", Some(7)),
            (7, "furlongs", None),
            (u64::MAX, "kB", None),
        ] {
            assert_eq!(in_unit(number, unit), wanted, "{number} {unit}");
        }
    }

    #[test]
    fn amounts_are_written_as_they_are_read() {
        for value in ["1GB", "64MB", "1536MB", "16kB", "2TB"] {
            assert_eq!(size(amount(value).unwrap()), value);
        }
        for value in ["30s", "5min", "1h", "90s", "250ms"] {
            assert_eq!(time(amount(value).unwrap()), value);
        }
        assert_eq!(amount("on"), None);
        assert_eq!(size(rounded_up(5 << 30, 1 << 30, 64 << 30)), "8GB");
        assert_eq!(size(rounded_up(1, 1 << 30, 64 << 30)), "1GB");
        assert_eq!(size(rounded_up(u64::MAX, 1 << 30, 64 << 30)), "64GB");
    }
}
