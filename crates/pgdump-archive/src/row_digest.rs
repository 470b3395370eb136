//! Digests rows: their number, their bytes and a sum of digests that does not depend on their order.

use twox_hash::xxhash3_128;

use super::timestamps::{has_non_utc, normalize_to_utc};

/// Counts of the rows so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RowDigest {
    /// Number of rows.
    pub count: u64,
    /// Bytes of COPY text.
    pub bytes: u64,
    /// Sum of the rows' XXH3-128 digests.
    pub digest: u128,
}

impl RowDigest {
    /// Counts one row, without its newline.
    pub fn add_row(&mut self, line: &[u8], scratch: &mut Vec<u8>) {
        // Text with CRLF line ends, which COPY takes as well. A carriage return of a value is always escaped.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Rows without timestamps to normalize, that is most of them, are not copied.
        let hash = if has_non_utc(line) {
            scratch.clear();
            normalize_to_utc(line, true, scratch);
            xxhash3_128::Hasher::oneshot(scratch)
        } else {
            xxhash3_128::Hasher::oneshot(line)
        };
        self.add(hash, line.len() as u64 + 1);
    }

    fn add(&mut self, hash: u128, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        self.digest = self.digest.wrapping_add(hash);
    }

    /// The sum of both.
    pub fn merge(&mut self, other: &RowDigest) {
        self.count += other.count;
        self.bytes += other.bytes;
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

/// A row that arrives in several chunks.
pub(super) struct LongRow {
    hasher: Box<xxhash3_128::Hasher>,
    /// Bytes that may be the beginning of a timestamp.
    rest: Vec<u8>,
    bytes: u64,
    /// A carriage return came last: a part of the row only if more of it follows.
    has_return: bool,
}

impl LongRow {
    pub(super) fn new() -> Self {
        LongRow {
            hasher: Box::new(xxhash3_128::Hasher::new()),
            rest: Vec::new(),
            bytes: 0,
            has_return: false,
        }
    }

    /// Adds a part that ends within the row.
    pub(super) fn feed(&mut self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        if std::mem::take(&mut self.has_return) {
            self.rest.push(b'\r');
            self.bytes += 1;
        }
        let part = match part.strip_suffix(b"\r") {
            Some(before) => {
                self.has_return = true;
                before
            }
            None => part,
        };
        self.bytes += part.len() as u64;
        self.rest.extend_from_slice(part);
        self.hash(false);
    }

    /// Counts the row, whose last part this is, without its newline.
    pub(super) fn end(mut self, part: &[u8], rows: &mut RowDigest) {
        self.feed(part);
        self.hash(true);
        rows.add(self.hasher.finish_128(), self.bytes + 1);
    }

    fn hash(&mut self, at_end: bool) {
        let mut out = Vec::with_capacity(self.rest.len());
        let done = normalize_to_utc(&self.rest, at_end, &mut out);
        self.hasher.write(&out);
        self.rest.drain(..done);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn rows(lines: &[&str]) -> RowDigest {
        let mut r = RowDigest::default();
        lines
            .iter()
            .for_each(|l| r.add_row(l.as_bytes(), &mut Vec::new()));
        r
    }

    #[test]
    fn only_the_order_of_rows_does_not_matter() {
        assert_eq!(rows(&["1\ta", "2\tb"]), rows(&["2\tb", "1\ta"]));
        for other in [["1\ta", "2\tc"], ["1\ta", "1\ta"], ["2\ta", "1\tb"]] {
            assert_ne!(
                rows(&["1\ta", "2\tb"]).digest,
                rows(&other).digest,
                "{other:?}"
            );
        }
        assert_ne!(rows(&["1\ta"]), rows(&["1\ta", "1\ta"]));
    }

    #[test]
    fn timestamps_are_equal_in_every_time_zone() {
        for (a, b) in [
            ("2026-11-24 12:00:00+00", "2026-11-24 13:00:00+01"),
            ("2026-11-24 23:30:00.25-05:30", "2026-11-25 05:00:00.25+00"),
            ("1850-01-01 00:53:28+00:53:28", "1850-01-01 00:00:00+00"),
            ("0044-03-15 01:00:00+01 BC", "0044-03-15 00:00:00+00 BC"),
            (
                "x\t{\"2026-01-01 00:00:00+02\",NULL}\ty",
                "x\t{\"2025-12-31 22:00:00+00\",NULL}\ty",
            ),
            (
                "[\"2024-02-29 23:00:00-01\",)",
                "[\"2024-03-01 00:00:00+00\",)",
            ),
            (
                "294276-12-31 22:59:59.999999+00",
                "294276-12-31 23:59:59.999999+01",
            ),
        ] {
            assert_eq!(rows(&[a]).digest, rows(&[b]).digest, "{a} and {b}");
        }
        for (a, b) in [
            ("2026-11-24 12:00:00+00", "2026-11-24 12:00:00+01"),
            ("2026-11-24 12:00:00+00", "2026-11-24 12:00:00.1+00"),
            ("2026-11-24 12:00:00", "2026-11-24 13:00:00"),
            ("a 2026-11-24 12:00:00+00", "b 2026-11-24 12:00:00+00"),
            ("2026-11-24 12:00:00+00 a", "2026-11-24 12:00:00+00 b"),
        ] {
            assert_ne!(rows(&[a]).digest, rows(&[b]).digest, "{a} and {b}");
        }
    }
}
