//! Tells which backups are from the same database.

/// Which database a backup is from: by the database name in the dump or, if the dump contains none (SQL text
/// without CREATE DATABASE), by the object's name without the dates in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupOrigin {
    database: Option<String>,
    pattern: String,
}

impl BackupOrigin {
    pub fn new(database: Option<String>, name: &str) -> Self {
        BackupOrigin {
            database: database.filter(|d| !d.is_empty()),
            pattern: pattern_of(name),
        }
    }

    /// Whether both are from the same database. If one of them has no database name, the patterns of their
    /// object names must be equal.
    pub fn is_same(&self, other: &BackupOrigin) -> bool {
        match (&self.database, &other.database) {
            (Some(a), Some(b)) => a == b,
            _ => self.pattern == other.pattern,
        }
    }
}

/// A name with dates and times replaced by `#`, equal for one database's backups from different times. Other
/// numbers stay: `tenant1.sql` and `tenant2.sql` are from two databases.
pub fn pattern_of(name: &str) -> String {
    let (mut pattern, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(c) = rest.chars().next() {
        let n = if c.is_ascii_digit() {
            rest.bytes().take_while(u8::is_ascii_digit).count()
        } else {
            c.len_utf8()
        };
        let timestamp = if c.is_ascii_digit() {
            timestamp_length(rest, n)
        } else {
            0
        };
        match timestamp {
            0 => pattern.push_str(&rest[..n]),
            _ if pattern.ends_with('#') => {}
            _ => pattern.push('#'),
        }
        rest = &rest[timestamp.max(n)..];
    }
    pattern
}

/// Length in bytes of the date or time that begins with these `digits` digits, 0 if they are another number.
/// Dates have at least eight digits (`20261129`, seconds since 1970), or begin with a year that is followed by
/// groups of 2, 4 or 6 digits (`2026-11-29T03.15`).
fn timestamp_length(text: &str, digits: usize) -> usize {
    let is_year = digits == 4 && (text.starts_with("19") || text.starts_with("20"));
    if digits < 8 && !is_year {
        return 0;
    }
    let (bytes, mut end) = (text.as_bytes(), digits);
    while matches!(
        bytes.get(end),
        Some(b'-' | b'_' | b'.' | b':' | b'/' | b'T')
    ) {
        let n = bytes[end + 1..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        if !matches!(n, 2 | 4 | 6) {
            break;
        }
        end += 1 + n;
    }
    // Four digits alone may be any number.
    if digits < 8 && end == digits { 0 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_replaced_and_other_numbers_stay() {
        for (name, pattern) in [
            ("shop-2026-11-22.sql", "shop-#.sql"),
            ("shop_20261122T031500.sql.gz", "shop_#.sql.gz"),
            ("shop.2026-11-22_0315.sql", "shop.#.sql"),
            ("2026/11/shop-1764385200.sql", "#/shop-#.sql"),
            ("tenant1.sql", "tenant1.sql"),
            ("v15/app2.sql", "v15/app2.sql"),
            ("audit2026.sql", "audit2026.sql"),
        ] {
            assert_eq!(pattern_of(name), pattern);
        }
        let unnamed = |name: &str| BackupOrigin::new(None, name);
        assert!(unnamed("a-2026-11-22.sql").is_same(&unnamed("a-2026-11-23.sql")));
        assert!(!unnamed("tenant1.sql").is_same(&unnamed("tenant2.sql")));
    }
}
