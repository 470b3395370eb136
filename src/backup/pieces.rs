//! Recognises files that `split` cut into pieces (`x.dump.aa`, `x.dump.ab`, …). Together they are one backup,
//! whose bytes are those of the pieces in order.

use std::collections::{BTreeMap, HashMap};

use crate::store::StoredObject;

/// How the pieces of a series are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Letters,
    Digits,
}

/// Pieces that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    /// The backup's name: the pieces' common prefix without the separator. If another object has that name,
    /// the prefix with the separator, or else the name of the first piece.
    pub name: String,
    /// The common prefix of all pieces, with the separator.
    pub prefix: String,
    /// The pieces in order.
    pub pieces: Vec<StoredObject>,
    /// The name of the first missing piece, if there is a gap before or between the others.
    pub missing: Option<String>,
}

/// Parses a name as that of a piece: the prefix, the kind of suffix, and the suffix.
///
/// Accepts only suffixes that `split` writes and other tools do not: at least two letters, from `aa` on;
/// digits from 00 on (rotated files are `.1`, `.2`; days and months have other separators and begin with
/// 01), with three digits also from 001 on; and any number after the word `part`.
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

/// The part of the name before `.part`, `.part-`, `_part.` and the like.
fn after_part(prefix: &str) -> Option<&str> {
    let stem = prefix
        .trim_end_matches(['.', '-', '_'])
        .strip_suffix("part")?;
    stem.strip_suffix(['.', '-', '_'])
}

/// The name of the whole file.
fn stem_of(prefix: &str) -> &str {
    let stem = after_part(prefix)
        .or_else(|| prefix.strip_suffix(['.', '-', '_']))
        .unwrap_or(prefix);
    // A stem that ends in a slash leaves no file name.
    if stem.ends_with('/') { "" } else { stem }
}

/// The name of the whole file, if this object is named like a piece.
pub fn whole_of(name: &str) -> Option<&str> {
    parse(name).map(|(prefix, _, _)| stem_of(prefix))
}

/// Whether this object is named like the first piece of a series.
pub fn is_first_piece(name: &str) -> bool {
    parse(name).is_some_and(|(prefix, _, suffix)| is_first(prefix, suffix))
}

/// The common prefix of all pieces that `name` may refer to; `None` if `is_piece` and the name is not that of one.
pub(super) fn prefix_of(name: &str, is_piece: bool) -> Option<&str> {
    match whole_of(name) {
        Some(whole) => Some(whole),
        None if is_piece => None,
        None => Some(stem_of(name)).filter(|stem| !stem.is_empty()),
    }
}

/// The suffix that `split` writes after `suffix`. Where it widens the suffix by itself (`yz`, then `zaaa`), also
/// the one that is two characters longer.
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

/// Whether a series may begin with this suffix.
fn is_first(prefix: &str, suffix: &str) -> bool {
    let number = suffix.parse::<u64>();
    let from_one = after_part(prefix).is_some() || suffix.len() >= 3;
    number == Ok(0) || (number == Ok(1) && from_one) || suffix.bytes().all(|b| b == b'a')
}

/// The suffix of the missing first piece, if the first one found is the second of a series.
fn missing_first(prefix: &str, count: Count, suffix: &str) -> Option<String> {
    let number = u64::from(count == Count::Digits);
    let first = match count {
        Count::Letters => "a".repeat(suffix.len()),
        Count::Digits => format!("{number:0width$}", width = suffix.len()),
    };
    (is_first(prefix, &first) && next_of(&first, count).0 == suffix).then_some(first)
}

/// Candidates in order of their suffixes, divided into the pieces of one series and the others.
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
        // A single piece is a file whose name happens to end like one.
        if run.pieces.len() < 2 {
            run.others.append(&mut run.pieces);
            run.missing = None;
        }
        run
    }
}

impl PieceRun {
    /// Whether the last piece so far is the file's last: `split -b` gives all others the same size.
    fn is_over(&self) -> bool {
        let [first, second, .., last] = self.pieces.as_slice() else {
            return false;
        };
        first.size == second.size && last.size < first.size
    }
}

/// Whether a suffix is so close to the previous one that the pieces in between must be missing. `x.aa` and
/// `x.gz`, in contrast, are unrelated.
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

/// Divides `objects` into series of pieces and the rest.
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
        // Letters sort by text, digits by value.
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
        // A series with letters and one with digits may have the same prefix.
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
    /// All pieces as one object. Its generation is the newest piece's, so it changes when a piece is
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

    /// Whether `name` refers to this backup: its name, the common prefix, or the name of a piece.
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

    /// A series as its name, the suffixes of its pieces and the missing piece.
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

    /// Only a first piece makes a verification wait for the rest of an upload.
    #[test]
    fn only_first_pieces_begin_a_series() {
        for name in ["x.dump.aa", "x.dump.00", "x.dump.001", "x.dump.part1"] {
            assert!(is_first_piece(name), "{name}");
        }
        for name in ["x.dump", "x.sql.gz", "x.dump.ab", "x.dump.01", "x.backup"] {
            assert!(!is_first_piece(name), "{name}");
        }
    }

    #[test]
    fn pieces_written_by_split_are_one_backup() {
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

    /// A foreign file named like a further piece must not spoil a good backup.
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
        // `split -l`: pieces differ in size.
        assert_eq!(sized(&[9, 7, 8, 3]), (vec![4], 0));
        assert_eq!(sized(&[9, 9, 10]), (vec![3], 0));
    }

    /// `split` widens its suffixes by itself.
    #[test]
    fn the_suffixes_of_a_series_may_become_longer() {
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
    fn a_missing_piece_is_named() {
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
    fn other_files_are_not_taken_for_pieces() {
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
    fn a_series_never_takes_the_name_of_another_object() {
        let (series, others) = found(&["x.dump", "x.dump.aa", "x.dump.ab", "x.dump.gz"]);
        assert_eq!((series[0].0.as_str(), others.len()), ("x.dump.", 2));
        let (series, _) = found(&["x.aa", "x.ab", "x.00", "x.01"]);
        let names: Vec<_> = series.iter().map(|s| s.0.as_str()).collect();
        assert_eq!(names, ["x.aa", "x.00"]);
    }
}
