//! A backup that was cut into pieces by `split` (`x.dump.aa`, `x.dump.ab`, …): one backup, whose bytes are
//! those of the pieces in their order. Names alone only say what may be one; `rotation` looks into the files.

use crate::job::Generation;
use std::collections::HashSet;

use super::members::members_listed;
use crate::store::StoredObject;

/// How the pieces of a series are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Letters,
    Digits,
}

/// Endings of names that say what a file is. As a count, one of them is only taken where the counts before it are
/// there, and where the file is no backup of its own.
const EXTENSIONS: [&str; 60] = [
    "age", "asc", "backup", "bak", "bin", "bkp", "br", "bup", "bz", "cfg", "conf", "copy", "crc",
    "csv", "dat", "db", "dmp", "done", "dump", "enc", "err", "gpg", "gz", "html", "idx", "info",
    "ini", "json", "key", "lock", "log", "lz", "lzip", "lzma", "lzo", "md", "meta", "new", "ok",
    "old", "orig", "out", "par", "part", "pem", "pgdump", "pgp", "prev", "sha", "sig", "sql",
    "sum", "tar", "tgz", "tmp", "toc", "txt", "xml", "xz", "zst",
];

/// Counts that may be missing in a row where those behind them are still taken for pieces.
const MAX_GAP: usize = 3;

/// A name as that of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PieceName<'a> {
    /// What stands before the count.
    prefix: &'a str,
    count: Count,
    suffix: &'a str,
}

/// Files that are counted without a gap, and perhaps others behind a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Series {
    /// The backup's name: what all pieces have before the separator or, where something else has that name, with it.
    pub name: String,
    /// The common prefix of all pieces, with the separator.
    pub prefix: String,
    /// The pieces in order.
    pub pieces: Vec<StoredObject>,
    pub gap: Option<Gap>,
    /// The name behind the last piece, where the file is one of its own.
    pub behind: Option<String>,
}

/// A piece that is missing before others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// How many pieces are there before it.
    pub at: usize,
    pub name: String,
}

/// The parts of a name that may be a piece's.
///
/// Accepts only suffixes that `split` writes and other tools do not: at least two letters, from `aa` on;
/// digits from 00 on (rotated files are `.1`, `.2`; days and months have other separators and begin with
/// 01), three of them also from 001 on; any number behind the word `part`.
fn parse(name: &str) -> Option<PieceName<'_>> {
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
    let piece = PieceName {
        prefix,
        count,
        suffix,
    };
    (fits && !stem_of(prefix).is_empty()).then_some(piece)
}

/// Whether the name of a piece says that the file is something else.
pub fn has_extension(name: &str) -> bool {
    parse(name).is_some_and(|piece| EXTENSIONS.contains(&piece.suffix))
}

/// What stands before the count in a name that may be a piece's.
pub(super) fn before_count(name: &str) -> Option<&str> {
    parse(name).map(|piece| piece.prefix)
}

/// Whether one of `objects` begins a series in which `name` is counted. Of an extension, only as wide a count is one.
pub(super) fn begins_series_of(objects: &[StoredObject], name: &str) -> bool {
    let Some(piece) = parse(name) else {
        return false;
    };
    objects.iter().filter_map(|o| parse(&o.name)).any(|first| {
        (first.prefix, first.count, first.suffix.len())
            == (piece.prefix, piece.count, piece.suffix.len())
            && is_first(first.prefix, first.suffix)
    })
}

/// Whether an object is named like a piece of the file `stem`, or as the file itself may be.
pub(super) fn is_of_stem(stem: &str, name: &str) -> bool {
    let is_whole = |rest: &str| matches!(rest.trim_matches(['.', '-', '_']), "" | "part");
    name.strip_prefix(stem).is_some_and(is_whole) || whole_of(name) == Some(stem)
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

/// The name of the whole file, if this object is named as a piece may be. `x.dump.gz` may be the 182nd piece of
/// `x.dump`: only the objects beside it tell.
pub fn whole_of(name: &str) -> Option<&str> {
    parse(name).map(|piece| stem_of(piece.prefix))
}

/// Whether this object is named like the first piece of a series.
pub fn is_first_piece(name: &str) -> bool {
    parse(name).is_some_and(|piece| is_first(piece.prefix, piece.suffix))
}

/// What all names begin with that matter for what `name` means: its pieces, and what could be called as they are.
pub(super) fn prefix_of(name: &str) -> Option<&str> {
    Some(stem_of(name)).filter(|stem| !stem.is_empty())
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

/// Files that are called the same but for their counts, in the order of the counts, with their places in the listing.
struct Counted<'a> {
    files: &'a [(PieceName<'a>, usize)],
    /// Which of them are of a series.
    is_taken: Vec<bool>,
}

/// The places of a series in the listing.
struct SeriesPieces {
    prefix: String,
    pieces: Vec<usize>,
    gap: Option<Gap>,
}

impl Counted<'_> {
    /// Where the file of this count is, unless it is of another series.
    fn find(&self, suffix: &str) -> Option<usize> {
        let found = self
            .files
            .binary_search_by(|(name, _)| name.suffix.cmp(suffix));
        found.ok().filter(|n| !self.is_taken[*n])
    }

    /// Takes out the series that begins with file `first`.
    fn take_series(&mut self, first: usize) -> Option<SeriesPieces> {
        if self.is_taken[first] {
            return None;
        }
        let (name, place) = &self.files[first];
        let mut series = SeriesPieces {
            prefix: name.prefix.to_owned(),
            pieces: vec![*place],
            gap: None,
        };
        self.is_taken[first] = true;
        let mut last = first;
        loop {
            let PieceName { count, suffix, .. } = self.files[last].0;
            let (next, wider) = next_of(suffix, count);
            let wider = || wider.as_deref().and_then(|w| self.find(w));
            let found = match self.find(&next).or_else(wider) {
                Some(found) => found,
                None => match self.behind_gap(&next, count) {
                    Some(found) => {
                        series.gap.get_or_insert_with(|| Gap {
                            at: series.pieces.len(),
                            name: format!("{}{next}", series.prefix),
                        });
                        found
                    }
                    None => return Some(series),
                },
            };
            self.is_taken[found] = true;
            series.pieces.push(self.files[found].1);
            last = found;
        }
    }

    /// The piece behind a few missing ones, whose count is as wide as theirs and nothing else.
    fn behind_gap(&self, missing: &str, count: Count) -> Option<usize> {
        let mut suffix = missing.to_owned();
        for _ in 0..MAX_GAP {
            suffix = next_of(&suffix, count).0;
            if suffix.len() != missing.len() {
                return None;
            }
            if let Some(found) = self.find(&suffix)
                && !EXTENSIONS.contains(&suffix.as_str())
            {
                return Some(found);
            }
        }
        None
    }
}

/// The series of at least `fewest` files. A listing may be long, and most names could be those of pieces (`x.dump`): only
/// what is called like a first piece that is there takes memory.
fn places_of_series(objects: &[StoredObject], fewest: usize) -> Vec<SeriesPieces> {
    let all = || {
        let named = objects.iter().enumerate();
        named.filter_map(|(place, o)| Some((parse(&o.name)?, place)))
    };
    let is_first = |name: &PieceName<'_>| is_first(name.prefix, name.suffix);
    let mut begun: Vec<(&str, Count)> = all()
        .filter(|(name, _)| is_first(name))
        .map(|(name, _)| (name.prefix, name.count))
        .collect();
    begun.sort_unstable();
    let mut files: Vec<(PieceName<'_>, usize)> = all()
        .filter(|(name, _)| begun.binary_search(&(name.prefix, name.count)).is_ok())
        .collect();
    files.sort_unstable_by_key(|(name, _)| (name.prefix, name.count, name.suffix));
    let mut found = Vec::new();
    for files in files.chunk_by(|(a, _), (b, _)| (a.prefix, a.count) == (b.prefix, b.count)) {
        let mut group = Counted {
            files,
            is_taken: vec![false; files.len()],
        };
        let firsts = (0..files.len()).filter(|n| is_first(&files[*n].0));
        let series = firsts.filter_map(|first| group.take_series(first));
        found.extend(series.filter(|s| s.pieces.len() >= fewest));
    }
    found
}

/// The series of at least `fewest` files among `objects`, by their names, and what is left of them.
fn series_of(objects: Vec<StoredObject>, fewest: usize) -> (Vec<Series>, Vec<StoredObject>) {
    let found = places_of_series(&objects, fewest);
    let mut objects: Vec<Option<StoredObject>> = objects.into_iter().map(Some).collect();
    let mut series = Vec::with_capacity(found.len());
    for places in found {
        let pieces = places.pieces.into_iter();
        series.push(Series {
            name: stem_of(&places.prefix).to_owned(),
            pieces: pieces.filter_map(|place| objects[place].take()).collect(),
            prefix: places.prefix,
            gap: places.gap,
            behind: None,
        });
    }
    (series, objects.into_iter().flatten().collect())
}

/// What may be series among `objects` by their names, and what is left of them.
pub(super) fn candidates(objects: Vec<StoredObject>) -> (Vec<Series>, Vec<StoredObject>) {
    series_of(objects, 2)
}

/// Those of the names of `objects` that a series could be given.
pub(super) fn names_in_use(objects: &[StoredObject]) -> HashSet<String> {
    let firsts = objects.iter().filter(|o| is_first_piece(&o.name));
    let given: HashSet<&str> = firsts
        .filter_map(|o| parse(&o.name))
        .flat_map(|piece| [stem_of(piece.prefix), piece.prefix])
        .collect();
    let in_use = objects.iter().filter(|o| given.contains(o.name.as_str()));
    in_use.map(|o| o.name.clone()).collect()
}

/// Gives each series a name that nothing else has; of two that would have the same one, the older keeps it. Those for
/// which there is none left are no series. `taken`: the names of objects, as far as a series could be given them.
pub(super) fn named(
    mut series: Vec<Series>,
    mut taken: HashSet<String>,
) -> (Vec<Series>, Vec<StoredObject>) {
    let key = |s: &Series| s.pieces.first().map(|p| (p.created, p.name.clone()));
    series.sort_by_key(key);
    let (mut named, mut nameless) = (Vec::new(), Vec::new());
    for mut s in series {
        let free = [stem_of(&s.prefix), s.prefix.as_str()]
            .into_iter()
            .find(|name| !taken.contains(*name))
            .map(str::to_owned);
        match free {
            Some(name) => {
                taken.insert(name.clone());
                s.name = name;
                named.push(s);
            }
            None => nameless.extend(s.pieces),
        }
    }
    (named, nameless)
}

/// What `name` means where no object is called so: the series of that name, or whose names begin with it. The oldest
/// one, should there be several.
pub(super) fn meant_by(name: &str, objects: Vec<StoredObject>) -> Option<Series> {
    // Also of one piece: somebody says that it is.
    let (found, _) = series_of(objects, 1);
    let meant = found
        .into_iter()
        .filter(|s| name == stem_of(&s.prefix) || name == s.prefix);
    let oldest = meant.min_by_key(|s| s.pieces.first().map(|p| (p.created, p.name.clone())))?;
    Some(Series {
        name: name.to_owned(),
        ..oldest
    })
}

/// Says of an object that it is one of several pieces, where others of them are there.
pub(super) fn advice_for(name: &str, objects: Vec<StoredObject>) -> Option<String> {
    let names: HashSet<String> = objects.iter().map(|o| o.name.clone()).collect();
    let (found, _) = candidates(objects);
    let series = found
        .into_iter()
        .find(|s| s.pieces.len() > 1 && s.pieces.iter().any(|p| p.name == name))?;
    let whole = if names.contains(&series.name) {
        &series.prefix
    } else {
        &series.name
    };
    Some(format!("{name} is one piece of {whole}: restore {whole}"))
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
            members: Some(Box::new(members_listed(&self.pieces))),
            is_unlisted: false,
            obstacle: None,
        }
    }

    /// Whether `name` means this backup: its own name, or what all pieces begin with.
    pub fn is_meant_by(&self, name: &str) -> bool {
        name == self.name || name == self.prefix
    }

    /// The first `count` pieces, and the others.
    pub fn split_at(mut self, count: usize) -> (Self, Vec<StoredObject>) {
        let others = self.pieces.split_off(count.min(self.pieces.len()));
        self.behind = others.first().map(|o| o.name.clone());
        self.gap = self.gap.filter(|gap| gap.at < self.pieces.len());
        (self, others)
    }

    /// The series as it was when its newest piece was `generation`: without those that came behind it since.
    pub fn pinned_at(self, generation: Generation) -> Option<Self> {
        let newer = |p: &&StoredObject| p.generation > generation;
        let added = self.pieces.iter().rev().take_while(newer).count();
        let count = self.pieces.len() - added;
        let (series, _) = self.split_at(count);
        let series = Series {
            behind: None,
            ..series
        };
        (series.whole().generation == generation).then_some(series)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_archive::Crc32c;

    fn object(name: &str) -> StoredObject {
        StoredObject {
            crc32c: Some(Crc32c(7)),
            ..StoredObject::named(name)
        }
    }

    /// A series as its name, the suffixes of its pieces and the missing piece.
    type Seen = (String, Vec<String>, Option<String>);

    fn seen(s: &Series) -> Seen {
        let counts = s.pieces.iter().map(|p| p.name[s.prefix.len()..].to_owned());
        let missing = s.gap.as_ref().map(|gap| gap.name.clone());
        (s.name.clone(), counts.collect(), missing)
    }

    fn objects(names: &[&str]) -> Vec<StoredObject> {
        names.iter().rev().map(|n| object(n)).collect()
    }

    /// The series of more than one piece, and the others.
    fn found(names: &[&str]) -> (Vec<Seen>, Vec<String>) {
        let (series, others) = candidates(objects(names));
        let (series, single): (Vec<_>, Vec<_>) =
            series.into_iter().partition(|s| s.pieces.len() > 1);
        let single = single.into_iter().flat_map(|s| s.pieces);
        let mut others: Vec<_> = others.into_iter().chain(single).map(|o| o.name).collect();
        others.sort();
        (series.iter().map(seen).collect(), others)
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
    fn extensions_are_no_counts() {
        for name in [
            "x.sql.gz", "x.dump", "x.tar", "x.sql", "x.zst", "x.bak", "x-old", "x.part",
        ] {
            assert!(has_extension(name) || whole_of(name).is_none(), "{name}");
            assert!(!is_first_piece(name), "{name}");
        }
        assert!(!has_extension("x.sql.gy"));
        // One of them is only looked into where there is a first piece, as wide.
        assert_eq!(whole_of("x.sql.gz"), Some("x.sql"));
        for (first, name, is) in [
            ("x.sql.aa", "x.sql.gz", true),
            ("x.sql.aa", "x.sql.asc", false),
            ("x.sql.aa", "y.sql.gz", false),
            ("x.sql.00", "x.sql.gz", false),
            ("x.sql.ab", "x.sql.gz", false),
            ("x.sql.aaa", "x.sql.zst", true),
        ] {
            assert_eq!(
                begins_series_of(&objects(&[first, name]), name),
                is,
                "{first} {name}"
            );
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

    /// Of `split -n` the first pieces are longer, of `split -l` each is as large as it happens to be.
    #[test]
    fn sizes_do_not_end_a_series() {
        for sizes in [[9, 9, 8, 8], [9, 9, 4, 7], [9, 7, 8, 3], [9, 9, 10, 1]] {
            let names = ["x.aa", "x.ab", "x.ac", "x.ad"];
            let objects = names
                .iter()
                .zip(sizes)
                .map(|(n, size)| StoredObject { size, ..object(n) });
            let (series, others) = candidates(objects.collect());
            assert_eq!(
                (series.len(), series[0].pieces.len(), others.len()),
                (1, 4, 0)
            );
        }
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
            (&["x.aa", "x.ae"], "x.ab"),
            (&["x.00", "x.01", "x.03"], "x.02"),
            (&["x.part1", "x.part3"], "x.part2"),
        ] {
            let (series, others) = found(names);
            assert_eq!((series.len(), others.len()), (1, 0), "{names:?}");
            assert_eq!(series[0].2.as_deref(), Some(missing), "{names:?}");
        }
        // What is too far away, as wide as no piece or called like something else is none.
        for other in ["x.af", "x.adaa", "x.0003", "x.gz"] {
            let (series, others) = found(&["x.aa", "x.00", other]);
            assert_eq!((series.len(), others.len()), (0, 3), "{other}");
        }
        // However many there are before it.
        let mut names: Vec<String> = (0..80).map(|n| format!("x.{n:02}")).collect();
        names.push("x.89".into());
        let (series, others) = found(&names.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(
            (series[0].2.as_ref(), others),
            (None, vec!["x.89".to_owned()])
        );
    }

    #[test]
    fn other_files_are_not_taken_for_pieces() {
        for names in [
            &["x.dump.aa"][..],
            &["x.dump", "x.sql", "x.gz", "x.zst"],
            &["x.aa", "x.gz"],
            // The first one is not there.
            &["x.ab", "x.ac"],
            &["x.02", "x.03"],
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

    /// Nothing is kept of a name where no first piece of it is there.
    #[test]
    fn only_what_follows_a_first_piece_is_counted() {
        let all = objects(&[
            "a.dump", "b.dump", "c.sql", "d.ab", "e.part2", "x.aa", "x.gz", "y.00", "y.01",
        ]);
        let places = |fewest| -> Vec<(String, usize)> {
            let found = places_of_series(&all, fewest).into_iter();
            found.map(|s| (s.prefix, s.pieces.len())).collect()
        };
        assert_eq!(places(2), [("y.".to_owned(), 2)]);
        assert_eq!(places(1), [("x.".to_owned(), 1), ("y.".to_owned(), 2)]);
        let in_use = ["x", "y.", "z"].map(object);
        let all = [&all[..], &in_use].concat();
        let mut names: Vec<String> = names_in_use(&all).into_iter().collect();
        names.sort();
        assert_eq!(names, ["x", "y."]);
    }

    /// A name that is taken is not given again: it would mean something else.
    #[test]
    fn every_series_has_a_name_of_its_own() {
        let named_of = |names: &[&str], newer: &str| {
            let mut all = objects(names);
            for o in all.iter_mut().filter(|o| o.name.starts_with(newer)) {
                o.created = jiff::Timestamp::from_second(9).unwrap();
            }
            let taken = names_in_use(&all);
            let (series, others) = candidates(all);
            let (series, nameless) = named(series, taken);
            let mut names: Vec<_> = series
                .into_iter()
                .map(|s| (s.name, s.pieces.len()))
                .collect();
            names.sort();
            (names, others.len(), nameless.len())
        };
        let x = |name: &str| (name.to_owned(), 2);
        let pieces = ["x.dump", "x.dump.aa", "x.dump.ab", "x.dump.gz"];
        assert_eq!(named_of(&pieces, "-"), (vec![x("x.dump.")], 2, 0));
        let taken = ["x.dump", "x.dump.", "x.dump.aa", "x.dump.ab"];
        assert_eq!(named_of(&taken, "-"), (vec![], 2, 2));
        // The older one keeps it, whatever is added.
        let two = ["x.aa", "x.ab", "x-00", "x.00", "x.01"];
        for (newer, older) in [("x.0", "x.aa"), ("x.a", "x.00")] {
            let mut all = objects(&two);
            for o in all.iter_mut().filter(|o| o.name.starts_with(newer)) {
                o.created = jiff::Timestamp::from_second(9).unwrap();
            }
            let first = meant_by("x", all).unwrap().pieces.remove(0);
            assert_eq!(first.name, older);
            assert_eq!(named_of(&two, newer), (vec![x("x"), x("x.")], 1, 0));
        }
    }

    #[test]
    fn a_name_means_what_begins_with_it() {
        let all = || objects(&["n/x.dump.aa", "n/x.dump.ab", "n/y.part1", "n/z"]);
        let pieces = |name: &str| meant_by(name, all()).map(|s| seen(&s));
        for name in ["n/x.dump", "n/x.dump."] {
            let wanted = (
                name.to_owned(),
                vec!["aa".to_owned(), "ab".to_owned()],
                None,
            );
            assert_eq!(pieces(name), Some(wanted));
        }
        // One piece, where somebody says that it is.
        assert_eq!(pieces("n/y").unwrap().1, ["1"]);
        for name in ["n/x.dump.aa", "n/x.dump.ab", "n/x", "n/z", "n/"] {
            assert_eq!(pieces(name), None, "{name}");
        }
        let advice = "n/x.dump.ab is one piece of n/x.dump: restore n/x.dump";
        assert_eq!(advice_for("n/x.dump.ab", all()).as_deref(), Some(advice));
        assert_eq!(advice_for("n/y.part1", all()), None);
    }

    /// What was added behind the pieces since does not change what they were.
    #[test]
    fn a_generation_is_that_of_its_time() {
        let series = |generations: [i64; 3]| {
            let names = ["x.aa", "x.ab", "x.ac"];
            let objects = names
                .iter()
                .zip(generations)
                .map(|(n, generation)| StoredObject {
                    generation: Generation(generation),
                    ..object(n)
                });
            meant_by("x", objects.collect()).unwrap()
        };
        let count = |generations, at| {
            series(generations)
                .pinned_at(Generation(at))
                .map(|s| s.pieces.len())
        };
        assert_eq!(count([5, 7, 6], 7), Some(3));
        assert_eq!(count([5, 6, 9], 6), Some(2));
        assert_eq!(count([5, 6, 9], 9), Some(3));
        // One that was overwritten, or one that is gone.
        assert_eq!(count([5, 9, 6], 6), None);
        assert_eq!(count([5, 6, 7], 8), None);
    }
}
