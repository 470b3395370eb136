//! A backup that was cut into pieces by `split` (`x.dump.aa`, `x.dump.ab`, …): one backup, whose bytes are
//! those of the pieces in their order.

use std::collections::{BTreeMap, HashMap};

use crate::store::StoredObject;

/// How the pieces of a series are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Letters,
    Digits,
}

/// Pieces that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    /// The backup's name: what all pieces have before the separator or, where something else has that
    /// name, with it, or the first piece's.
    pub name: String,
    /// What all names begin with.
    pub prefix: String,
    /// In their order.
    pub pieces: Vec<StoredObject>,
    /// The name of the first one that is missing between or before the others.
    pub missing: Option<String>,
}

/// A name as that of a piece: what comes before the count, how it counts, and the count.
///
/// Only what is written by `split` and by nothing else: letters from `aa` on, at least two of them;
/// digits from 00 on (rotated files are `.1`, `.2`; days and months have other separators and begin with
/// 01), three of them also from 001 on; any number behind the word `part`.
fn parse(name: &str) -> Option<(&str, Count, &str)> {
    let letters = name.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let digits = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let (prefix, count) = match (letters.len() < name.len(), digits.len() < name.len()) {
        (true, _) => (letters, Count::Letters),
        (_, true) => (digits, Count::Digits),
        _ => return None,
    };
    let suffix = &name[prefix.len()..];
    let is_part = after_part(prefix).is_some();
    let fits = match count {
        Count::Letters => suffix.len() >= 2 && (is_part || prefix.ends_with(['.', '-', '_'])),
        Count::Digits => {
            suffix.len() <= 18 && (is_part || suffix.len() >= 2 && prefix.ends_with('.'))
        }
    };
    (fits && !stem_of(prefix).is_empty()).then_some((prefix, count, suffix))
}

/// What comes before `.part`, `.part-`, `_part.` and the like.
fn after_part(prefix: &str) -> Option<&str> {
    let stem = prefix
        .trim_end_matches(['.', '-', '_'])
        .strip_suffix("part")?;
    stem.strip_suffix(['.', '-', '_'])
}

/// The name of the whole.
fn stem_of(prefix: &str) -> &str {
    let stem = after_part(prefix)
        .or_else(|| prefix.strip_suffix(['.', '-', '_']))
        .unwrap_or(prefix);
    // A file has a name.
    if stem.ends_with('/') { "" } else { stem }
}

/// The name that the whole would have, were this object a piece.
pub fn whole_of(name: &str) -> Option<&str> {
    parse(name).map(|(prefix, _, _)| stem_of(prefix))
}

/// Whether a series of pieces may begin with this object.
pub fn is_first_piece(name: &str) -> bool {
    parse(name).is_some_and(|(prefix, _, suffix)| is_first(prefix, suffix))
}

/// What the names of all pieces begin with that `name` may mean; `None` where it is to be a piece and is none.
pub(super) fn prefix_of(name: &str, is_piece: bool) -> Option<&str> {
    match whole_of(name) {
        Some(whole) => Some(whole),
        None if is_piece => None,
        None => Some(stem_of(name)).filter(|stem| !stem.is_empty()),
    }
}

/// What `split` counts after `suffix`: one more or, where it takes more places by itself (`yz`, `zaaa`),
/// that with two places more.
fn next_of(suffix: &str, count: Count) -> (String, Option<String>) {
    let (first, last) = match count {
        Count::Letters => (b'a', b'z'),
        Count::Digits => (b'0', b'9'),
    };
    let mut next = suffix.as_bytes().to_vec();
    let is_full = next.iter().all(|b| *b == last);
    for b in next.iter_mut().rev() {
        if *b < last {
            *b += 1;
            break;
        }
        *b = first;
    }
    if is_full && count == Count::Digits {
        next.insert(0, first + 1);
    }
    let next = String::from_utf8(next).unwrap_or_default();
    let wider = next
        .starts_with(char::from(last))
        .then(|| format!("{next}{0}{0}", char::from(first)));
    (next, wider)
}

/// Whether a series begins with this piece.
fn is_first(prefix: &str, suffix: &str) -> bool {
    let number = suffix.parse::<u64>();
    let from_one = after_part(prefix).is_some() || suffix.len() >= 3;
    number == Ok(0) || (number == Ok(1) && from_one) || suffix.bytes().all(|b| b == b'a')
}

/// The count before the first piece that is there, where that is the second one of a series.
fn missing_first(prefix: &str, count: Count, suffix: &str) -> Option<String> {
    let number = u64::from(count == Count::Digits);
    let first = match count {
        Count::Letters => "a".repeat(suffix.len()),
        Count::Digits => format!("{number:0width$}", width = suffix.len()),
    };
    (is_first(prefix, &first) && next_of(&first, count).0 == suffix).then_some(first)
}

/// Pieces in the order of their counts: those of one series, the others, and which is missing.
struct PieceRun {
    pieces: Vec<StoredObject>,
    others: Vec<StoredObject>,
    missing: Option<String>,
}

impl PieceRun {
    fn of(prefix: &str, count: Count, sorted: Vec<StoredObject>) -> Self {
        let mut run = PieceRun {
            pieces: vec![],
            others: vec![],
            missing: None,
        };
        let suffix = |o: &StoredObject| o.name[prefix.len()..].to_owned();
        let Some(first) = sorted.first().map(suffix) else {
            return run;
        };
        run.missing = missing_first(prefix, count, &first);
        if run.missing.is_none() && !is_first(prefix, &first) {
            return PieceRun {
                others: sorted,
                ..run
            };
        }
        let mut last: Option<String> = None;
        for piece in sorted {
            if run.is_over() {
                run.others.push(piece);
                continue;
            }
            let is = suffix(&piece);
            if let Some(last) = &last {
                let (next, wider) = next_of(last, count);
                let follows = is == next || Some(&is) == wider.as_ref();
                if !follows && !is_near(last, &is, count, run.pieces.len()) {
                    run.others.push(piece);
                    continue;
                }
                if !follows {
                    run.missing.get_or_insert(next);
                }
            }
            last = Some(is);
            run.pieces.push(piece);
        }
        // One piece is a file whose name happens to end so.
        if run.pieces.len() < 2 {
            run.others.append(&mut run.pieces);
            run.missing = None;
        }
        run
    }
}

impl PieceRun {
    /// Whether the last piece so far is the file's last: `split -b` makes all others of one size.
    fn is_over(&self) -> bool {
        let [first, second, .., last] = self.pieces.as_slice() else {
            return false;
        };
        first.size == second.size && last.size < first.size
    }
}

/// Whether a count is so near to the last one that those between are missing. `x.aa` and `x.gz` have
/// nothing to do with each other.
fn is_near(last: &str, is: &str, count: Count, seen: usize) -> bool {
    let value = |text: &str| match count {
        Count::Digits => text.parse().unwrap_or(u64::MAX),
        Count::Letters => text.bytes().fold(0u64, |n, b| {
            n.saturating_mul(26).saturating_add(u64::from(b - b'a'))
        }),
    };
    let may_be = last.len() == is.len() || !last.starts_with('0') && count == Count::Digits;
    may_be && value(is).saturating_sub(value(last)) <= seen.max(3) as u64 + 1
}

/// The series among `objects`, and what is left of them.
pub(super) fn series_of(objects: Vec<StoredObject>) -> (Vec<Series>, Vec<StoredObject>) {
    let mut groups: BTreeMap<(String, Count), Vec<StoredObject>> = BTreeMap::new();
    let mut others = Vec::new();
    for o in objects {
        match parse(&o.name).map(|(prefix, count, _)| (prefix.to_owned(), count)) {
            Some(key) => groups.entry(key).or_default().push(o),
            None => others.push(o),
        }
    }
    let mut runs = Vec::new();
    for ((prefix, count), mut sorted) in groups {
        // Letters are in the order of their text, digits in that of their value.
        let number = |o: &StoredObject| o.name[prefix.len()..].parse::<u64>().unwrap_or_default();
        sorted.sort_by(|a, b| number(a).cmp(&number(b)).then_with(|| a.name.cmp(&b.name)));
        let mut run = PieceRun::of(&prefix, count, sorted);
        others.append(&mut run.others);
        if !run.pieces.is_empty() {
            runs.push((prefix, run));
        }
    }
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let names = others.iter().map(|o| o.name.as_str());
    names
        .chain(runs.iter().map(|(prefix, _)| stem_of(prefix)))
        .for_each(|n| *taken.entry(n).or_default() += 1);
    let name_of = |prefix: &str, run: &PieceRun| match stem_of(prefix) {
        stem if taken.get(stem) == Some(&1) => stem.to_owned(),
        // Letters and digits may follow the same text.
        _ if runs.iter().filter(|(other, _)| other == prefix).count() > 1 => run
            .pieces
            .first()
            .map(|p| p.name.clone())
            .unwrap_or_default(),
        _ => prefix.to_owned(),
    };
    let names: Vec<String> = runs
        .iter()
        .map(|(prefix, run)| name_of(prefix, run))
        .collect();
    let series = names.into_iter().zip(runs).map(|(name, (prefix, run))| {
        let missing = run.missing.map(|suffix| format!("{prefix}{suffix}"));
        Series {
            name,
            prefix,
            pieces: run.pieces,
            missing,
        }
    });
    (series.collect(), others)
}

impl Series {
    /// All pieces as one object. Its generation is the newest one's: it is another where a piece is
    /// overwritten or added.
    pub fn whole(&self) -> StoredObject {
        StoredObject {
            name: self.name.clone(),
            size: self.pieces.iter().map(|p| p.size).sum(),
            created: self
                .pieces
                .iter()
                .map(|p| p.created)
                .max()
                .unwrap_or_default(),
            crc32c: None,
            generation: self
                .pieces
                .iter()
                .map(|p| p.generation)
                .max()
                .unwrap_or_default(),
        }
    }

    /// Whether `name` means this backup: its own name, what all pieces begin with, or one of them.
    pub fn is_meant_by(&self, name: &str) -> bool {
        name == self.name || name == self.prefix || self.pieces.iter().any(|p| p.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str) -> StoredObject {
        let created = jiff::Timestamp::UNIX_EPOCH;
        StoredObject {
            name: name.into(),
            size: 1,
            created,
            crc32c: Some(7),
            generation: 1,
        }
    }

    /// A series as its name, the counts of its pieces and what is missing.
    type Seen = (String, Vec<String>, Option<String>);

    /// The series, and the others.
    fn found(names: &[&str]) -> (Vec<Seen>, Vec<String>) {
        let (series, others) = series_of(names.iter().rev().map(|n| object(n)).collect());
        let counts = |s: &Series| {
            s.pieces
                .iter()
                .map(|p| p.name[s.prefix.len()..].to_owned())
                .collect()
        };
        let series = series
            .iter()
            .map(|s| (s.name.clone(), counts(s), s.missing.clone()))
            .collect();
        let mut others: Vec<_> = others.into_iter().map(|o| o.name).collect();
        others.sort();
        (series, others)
    }

    /// An upload is waited for only where more may come.
    #[test]
    fn a_series_begins_with_its_first_piece() {
        for name in ["x.dump.aa", "x.dump.00", "x.dump.001", "x.dump.part1"] {
            assert!(is_first_piece(name), "{name}");
        }
        for name in ["x.dump", "x.sql.gz", "x.dump.ab", "x.dump.01", "x.backup"] {
            assert!(!is_first_piece(name), "{name}");
        }
    }

    #[test]
    fn what_split_writes_is_one_backup() {
        for (prefix, name, counts) in [
            ("x.dump.", "x.dump", &["aa", "ab", "ac"][..]),
            ("n/x-", "n/x", &["aa", "ab"]),
            ("x.", "x", &["aaa", "aab"]),
            ("x.dump.", "x.dump", &["00", "01", "02"]),
            ("x.dump.", "x.dump", &["000", "001"]),
            ("x.dump.", "x.dump", &["001", "002", "003"]),
            ("x.dump.part-", "x.dump", &["0001", "0002"]),
            (
                "x.dump.part",
                "x.dump",
                &["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"],
            ),
            ("x.dump_part_", "x.dump", &["0", "1"]),
            ("x.part-", "x", &["aa", "ab"]),
        ] {
            let names: Vec<String> = counts.iter().map(|c| format!("{prefix}{c}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let (series, others) = found(&names);
            assert_eq!(
                series,
                [(
                    name.to_owned(),
                    counts.iter().map(|c| (*c).to_owned()).collect(),
                    None
                )]
            );
            assert!(others.is_empty(), "{others:?}");
            assert!(names.iter().all(|n| whole_of(n) == Some(name)));
        }
    }

    /// Nobody makes a good backup a bad one by another file behind it.
    #[test]
    fn a_series_ends_with_its_short_piece() {
        let sized = |sizes: &[u64]| {
            let names = ["x.aa", "x.ab", "x.ac", "x.ad"];
            let objects = names.iter().zip(sizes).map(|(n, size)| StoredObject {
                size: *size,
                ..object(n)
            });
            let (series, others) = series_of(objects.collect());
            (
                series.iter().map(|s| s.pieces.len()).collect::<Vec<_>>(),
                others.len(),
            )
        };
        assert_eq!(sized(&[9, 9, 4, 7]), (vec![3], 1));
        assert_eq!(sized(&[9, 9, 9, 7]), (vec![4], 0));
        // By lines: each as large as it happens to be.
        assert_eq!(sized(&[9, 7, 8, 3]), (vec![4], 0));
        assert_eq!(sized(&[9, 9, 10]), (vec![3], 0));
    }

    /// `split` takes more places by itself.
    #[test]
    fn a_series_may_become_wider() {
        let mut names = Vec::new();
        let all = "abcdefghijklmnopqrstuvwxyz";
        for a in all[..25].chars() {
            names.extend(all.chars().map(|b| format!("x.{a}{b}")));
        }
        names.extend(["x.zaaa", "x.zaab"].map(String::from));
        let (series, others) = found(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            (series.len(), series[0].1.len(), &series[0].2, others.len()),
            (1, 652, &None, 0)
        );
        let mut names: Vec<String> = (0..90).map(|n| format!("x.{n:02}")).collect();
        names.extend(["x.9000", "x.9001"].map(String::from));
        let (series, others) = found(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            (series.len(), series[0].1.len(), &series[0].2, others.len()),
            (1, 92, &None, 0)
        );
    }

    #[test]
    fn a_gap_is_named() {
        for (names, missing) in [
            (&["x.aa", "x.ac"][..], "x.ab"),
            (&["x.ab", "x.ac"], "x.aa"),
            (&["x.00", "x.01", "x.03"], "x.02"),
            (&["x.part1", "x.part3"], "x.part2"),
            (&["x.part-0002", "x.part-0003"], "x.part-0001"),
            (&["x.002", "x.003"], "x.001"),
        ] {
            let (series, others) = found(names);
            assert_eq!((series.len(), others.len()), (1, 0), "{names:?}");
            assert_eq!(series[0].2.as_deref(), Some(missing), "{names:?}");
        }
    }

    #[test]
    fn other_files_are_left_alone() {
        for names in [
            &["x.dump.aa"][..],
            &["x.dump", "x.sql", "x.gz", "x.zst"],
            &["x.aa", "x.gz"],
            // Rotated files, days, months, years.
            &["x.dump.0", "x.dump.1", "x.dump.2"],
            &["x.01", "x.02"],
            &["x-2026-11-01", "x-2026-11-02"],
            &["x.2025", "x.2026"],
            &["x.20261101", "x.20261102"],
            &["aa", "ab", "n/aa", "n/ab", ".aa", ".ab"],
            &["x1", "x2", "xaa", "xab"],
        ] {
            let (series, others) = found(names);
            assert!(series.is_empty(), "{series:?}");
            let mut all: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
            all.sort();
            assert_eq!(others, all);
        }
    }

    #[test]
    fn a_name_that_is_taken_is_not_given_again() {
        let (series, others) = found(&["x.dump", "x.dump.aa", "x.dump.ab", "x.dump.gz"]);
        assert_eq!((series[0].0.as_str(), others.len()), ("x.dump.", 2));
        let (series, _) = found(&["x.aa", "x.ab", "x.00", "x.01"]);
        let names: Vec<_> = series.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(names, ["x.aa", "x.00"]);
    }
}
