//! Which backups are of one database, by the name of the database or, where a dump does not say it, of the object.

/// Which database a backup is of: by the name in the dump; where a dump says none (SQL text without
/// CREATE DATABASE), by the name of the object without the dates in it.
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

    /// Whether both are of one database. Where one of them does not say its name, their objects' names
    /// must be alike.
    pub fn is_same(&self, other: &BackupOrigin) -> bool {
        match (&self.database, &other.database) {
            (Some(a), Some(b)) => a == b,
            _ => self.pattern == other.pattern,
        }
    }
}

/// A name without the dates and times in it: what backups of one database, made at different times, have in
/// common. Other numbers stay: `tenant1.sql` and `tenant2.sql` are of two databases.
pub fn pattern_of(name: &str) -> String {
    let (mut pattern, mut rest) = (String::with_capacity(name.len()), name);
    while let Some(c) = rest.chars().next() {
        let n = if c.is_ascii_digit() {
            rest.bytes().take_while(u8::is_ascii_digit).count()
        } else {
            c.len_utf8()
        };
        let moment = if c.is_ascii_digit() {
            moment_at(rest, n)
        } else {
            0
        };
        match moment {
            0 => pattern.push_str(&rest[..n]),
            _ if pattern.ends_with('#') => {}
            _ => pattern.push('#'),
        }
        rest = &rest[moment.max(n)..];
    }
    pattern
}

/// Length of the date or time that begins with these `digits` digits, 0 where they are another number: eight
/// digits and more (`20261129`, seconds since 1970), or a year and what follows it by twos (`2026-11-29T03.15`).
fn moment_at(text: &str, digits: usize) -> usize {
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
    // A year alone may be any number.
    if digits < 8 && end == digits { 0 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times_are_left_out_and_other_numbers_stay() {
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
