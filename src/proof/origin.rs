//! Tells which backups are from the same database.

/// Which database a backup is from, as far as that is known. Two backups are taken for backups of the same database if
/// their origins are equal, and for nothing else: equality joins no two databases with different names, and what a dump
/// names with nothing that is known by its object's name alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BackupOrigin {
    /// The database that the dump names.
    Named(String),
    /// The dump names none (SQL text without CREATE DATABASE) or cannot be read: the object's name without the dates in it.
    CalledLike(String),
    /// A dump of a whole cluster: the object's name without the dates in it.
    Cluster(String),
}

impl BackupOrigin {
    /// The origin of a backup of this object's name, whose dump names this database or none.
    pub fn new(database: Option<String>, name: &str) -> Self {
        match database.filter(|d| !d.is_empty()) {
            Some(database) => BackupOrigin::Named(database),
            None => BackupOrigin::CalledLike(pattern_of(name)),
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
    }

    #[test]
    fn only_what_is_certainly_of_one_database_has_the_same_origin() {
        let origin = |database: Option<&str>, name: &str| {
            BackupOrigin::new(database.map(str::to_owned), name)
        };
        let (shop, blog) = (Some("shop"), Some("blog"));
        assert_eq!(origin(shop, "a.dump"), origin(shop, "b.dump"));
        assert_eq!(
            origin(None, "a-2026-11-22.sql"),
            origin(Some(""), "a-2026-11-23.sql")
        );
        assert_ne!(origin(None, "tenant1.sql"), origin(None, "tenant2.sql"));
        // One that names no database joins no two that others name.
        let (first, second) = ("backup-2026-11-01", "backup-2026-11-02");
        assert_ne!(origin(shop, first), origin(None, second));
        assert_ne!(origin(blog, first), origin(None, second));
        assert_ne!(origin(shop, first), origin(blog, first));
    }
}
