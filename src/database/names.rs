//! Names that pgrestored gives to databases.

use crate::error::DatabaseError;
use crate::job::OWN_PREFIX;
use crate::postgres::{MARKED, Session, map_pg_error};

/// The form of the names that pgrestored gives.
pub(super) const PATTERN: &str = "^pgrestored_([sv]_[0-9a-f]{16}|o_[0-9a-f]{16}_[0-9a-f]+)$";

/// The databases of the server whose names have this form, in order.
pub(super) async fn named_like_ours(session: &Session) -> Result<Vec<String>, DatabaseError> {
    debug_assert!(PATTERN.contains(OWN_PREFIX));
    let sql = "SELECT datname::text FROM pg_database WHERE datname ~ $1 ORDER BY 1";
    let rows = session.client().query(sql, &[&PATTERN]).await;
    Ok(rows
        .map_err(|e| map_pg_error(&e, "listing databases"))?
        .iter()
        .map(|r| r.get(0))
        .collect())
}

/// The name under which the database that was `target` until `now` is kept. `now` is in microseconds.
pub(super) fn previous_name(target: &str, now: i64) -> String {
    format!("{}{now:x}", previous_prefix(target))
}

pub(super) fn previous_prefix(target: &str) -> String {
    format!("{}o_{}_", OWN_PREFIX, short_hash(target))
}

/// The name of a request's staging database, the same for every attempt.
pub(super) fn staging_name(request_id: &str) -> String {
    format!("{}s_{}", OWN_PREFIX, short_hash(request_id))
}

/// 16 hexadecimal digits of the hash of `text`, for use in names.
pub(super) fn short_hash(text: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(text.as_bytes())
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Prefix of the comment of a staging database.
pub(super) const LABEL: &str = MARKED;

/// The comment of the staging database of a request. That of an attempt follows.
pub(super) fn label(target: &str, request_id: &str) -> String {
    format!("{LABEL} for {target}, request {request_id}")
}

/// The comments of staging databases for `target`: from the first up to, but without, the second text under the collation C,
/// in which the server compares bytes. A comment that somebody has written from a database of another encoding can neither be
/// read nor divided into characters.
pub(super) fn labels_of(target: &str) -> [String; 2] {
    let first = label(target, "");
    let end = format!("{}!", first.trim_end());
    [first, end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_range_of_bytes() {
        let [first, end] = labels_of("a, request b");
        let is_one = |comment: &str| *comment >= *first && *comment < *end;
        for request in ["r", "", " ", "\u{10ffff}", "r, attempt 5"] {
            assert!(is_one(&label("a, request b", request)), "{request}");
        }
        for other in ["a", "a, request", "a, request c", "b"] {
            assert!(!is_one(&label(other, "r")), "{other}");
        }
        assert!(!is_one("") && !is_one(LABEL));
    }
}
