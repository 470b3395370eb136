//! Sets of numbers as ranges: bytes of an entry's data, statements of a text. Pure.

use std::ops::Range;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A set of numbers: sorted ranges that neither overlap nor touch. Stored as `[from, to, from, to, …]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Adds the numbers of a range.
    pub fn add(&mut self, r: Range<u64>) {
        if r.start >= r.end {
            return;
        }
        // Those that end before the new one begins stay, and so do those that begin behind its end.
        let from = self.0.partition_point(|(_, end)| *end < r.start);
        let to = self.0.partition_point(|(start, _)| *start <= r.end);
        let merged = self.0[from..to]
            .iter()
            .fold((r.start, r.end), |(start, end), known| {
                (start.min(known.0), end.max(known.1))
            });
        self.0.splice(from..to, [merged]);
    }

    /// Whether it has every number of a range.
    pub fn covers(&self, r: Range<u64>) -> bool {
        r.start >= r.end || self.behind(r.start).is_some_and(|known| known.1 >= r.end)
    }

    /// Whether it has this number.
    pub fn contains(&self, n: u64) -> bool {
        self.behind(n).is_some()
    }

    /// The range with this number.
    fn behind(&self, n: u64) -> Option<(u64, u64)> {
        let at = self.0.partition_point(|(_, end)| *end <= n);
        self.0.get(at).copied().filter(|(start, _)| *start <= n)
    }

    /// What it lacks of a range.
    pub fn missing(&self, r: Range<u64>) -> Vec<Range<u64>> {
        let (mut missing, mut at) = (vec![], r.start);
        let first = self.0.partition_point(|(_, end)| *end <= r.start);
        for (start, end) in self.0[first..].iter().copied() {
            if at >= r.end || start >= r.end {
                break;
            }
            if at < start {
                missing.push(at..start);
            }
            at = end;
        }
        if at < r.end {
            missing.push(at..r.end);
        }
        missing
    }

    /// How many numbers it has.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|(start, end)| end - start).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.0.iter().flat_map(|(start, end)| [*start, *end]))
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let flat = Vec::<u64>::deserialize(input)?;
        let mut ranges = Ranges::default();
        for pair in flat.chunks(2) {
            match pair {
                [start, end] if start < end => ranges.add(*start..*end),
                _ => {
                    return Err(D::Error::custom(
                        "a range has no end, or ends before it begins",
                    ));
                }
            }
        }
        Ok(ranges)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(ranges: &[(u64, u64)]) -> Ranges {
        let mut all = Ranges::default();
        ranges.iter().for_each(|(from, to)| all.add(*from..*to));
        all
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        assert_eq!(of(&[(0, 5), (5, 9)]).0, [(0, 9)]);
        assert_eq!(of(&[(10, 20), (0, 5), (4, 12)]).0, [(0, 20)]);
        assert_eq!(of(&[(10, 20), (0, 5), (7, 7)]).0, [(0, 5), (10, 20)]);
        assert_eq!(of(&[(0, 100), (10, 20)]).0, [(0, 100)]);
        assert_eq!(of(&[(1, 2), (3, 4), (5, 6), (2, 5)]).0, [(1, 6)]);
    }

    #[test]
    fn what_is_missing_is_cut_out_of_a_range() {
        let some = of(&[(10, 20), (30, 40)]);
        for (asked, missing) in [
            (0..5, vec![0..5]),
            (0..10, vec![0..10]),
            (0..50, vec![0..10, 20..30, 40..50]),
            (10..20, vec![]),
            (12..18, vec![]),
            (15..35, vec![20..30]),
            (20..30, vec![20..30]),
            (39..41, vec![40..41]),
            (7..7, vec![]),
        ] {
            assert_eq!(some.missing(asked.clone()), missing, "{asked:?}");
            assert_eq!(some.covers(asked.clone()), missing.is_empty(), "{asked:?}");
        }
        assert_eq!(Ranges::default().missing(3..5), [3..5]);
    }

    #[test]
    fn ranges_are_stored_as_one_list() {
        let some = of(&[(10, 20), (0, 5)]);
        let text = serde_json::to_string(&some).unwrap();
        assert_eq!(text, "[0,5,10,20]");
        assert_eq!(serde_json::from_str::<Ranges>(&text).unwrap(), some);
        for wrong in ["[0]", "[5,5]", "[0,5,9]", "[9,5]", "[-1,5]"] {
            assert!(serde_json::from_str::<Ranges>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn ranges_are_sets_of_numbers(
            parts in proptest::collection::vec((0u64..40, 0u64..8), 0..12),
            asked in 0u64..40,
            length in 0u64..12,
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (from, n) in parts {
                ranges.add(from..from + n);
                set.extend(from..from + n);
            }
            prop_assert_eq!(ranges.len(), set.len() as u64);
            prop_assert_eq!(ranges.is_empty(), set.is_empty());
            let apart = ranges.0.windows(2).all(|pair| pair[0].1 < pair[1].0);
            prop_assert!(apart, "{:?}", ranges);
            let all: BTreeSet<u64> = ranges.iter().flatten().collect();
            prop_assert_eq!(&all, &set);
            let r = asked..asked + length;
            let lacks: BTreeSet<u64> = r.clone().filter(|n| !set.contains(n)).collect();
            prop_assert_eq!(ranges.covers(r.clone()), lacks.is_empty());
            let missing: BTreeSet<u64> = ranges.missing(r).into_iter().flatten().collect();
            prop_assert_eq!(missing, lacks);
            prop_assert_eq!(ranges.contains(asked), set.contains(&asked));
        }
    }
}
