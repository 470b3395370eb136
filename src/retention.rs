//! Which backups may go. Pure: the newest proven backup of a set never goes, nor does anything while
//! nothing is proven, nor what is needed to keep a floor.

use std::collections::HashSet;

use crate::store::StoredObject;

/// What is to become of one backup, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub object: StoredObject,
    pub proven: bool,
    pub delete: bool,
    pub why: String,
}

/// The rules of a set.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Backups younger than this stay, in days.
    pub days: u32,
    /// So many of the newest stay, however old.
    pub floor: usize,
}

/// Decides over all backups of a set, newest first. `proven` has name and generation of those that
/// were restored for proof.
pub fn decide(
    backups: Vec<StoredObject>,
    proven: &HashSet<(String, String)>,
    now: jiff::Timestamp,
    rules: Rules,
) -> Vec<Decision> {
    let is_proven = |o: &StoredObject| proven.contains(&(o.name.clone(), o.generation.to_string()));
    let newest_proven = backups.iter().position(is_proven);
    let limit = jiff::SignedDuration::from_hours(24 * i64::from(rules.days));
    let judge = |(i, o): (usize, StoredObject)| {
        let proven = is_proven(&o);
        let keep = |why: String| (false, why);
        let age = now.duration_since(o.created);
        let (delete, why) = match newest_proven {
            _ if age < limit => keep(format!("younger than {} days", rules.days)),
            _ if i < rules.floor => keep(format!("one of the newest {}", rules.floor)),
            None => keep("no backup of the set is proven: nothing goes".into()),
            Some(newest) if newest == i => keep("the newest proven backup of the set".into()),
            Some(newest) if i < newest => keep("newer than the newest proven backup of the set".into()),
            Some(_) if proven => (true, format!("older than {} days", rules.days)),
            Some(_) => (true, format!("older than {} days, and never proven", rules.days)),
        };
        Decision { object: o, proven, delete, why }
    };
    backups.into_iter().enumerate().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;

    fn decisions(ages: &[i64], proven: &[usize], floor: usize) -> Vec<bool> {
        let now = jiff::Timestamp::from_second(1_000 * DAY).unwrap();
        let object = |(i, age): (usize, &i64)| StoredObject {
            name: format!("b{i}"),
            size: 1,
            created: jiff::Timestamp::from_second((1_000 - age) * DAY).unwrap(),
            crc32c: None,
            generation: i as i64,
        };
        let backups = ages.iter().enumerate().map(object).collect();
        let proven = proven.iter().map(|i| (format!("b{i}"), i.to_string())).collect();
        decide(backups, &proven, now, Rules { days: 7, floor }).into_iter().map(|d| d.delete).collect()
    }

    #[test]
    fn old_backups_go_and_the_newest_proven_one_never_does() {
        assert_eq!(decisions(&[1, 6, 7, 9], &[0], 0), [false, false, true, true]);
        assert_eq!(decisions(&[10, 11, 12, 13], &[1, 3], 0), [false, false, true, true]);
        // Nothing is proven: nothing goes.
        assert_eq!(decisions(&[10, 11, 12], &[], 0), [false; 3]);
        assert_eq!(decisions(&[10, 11, 12], &[0], 3), [false; 3]);
        assert_eq!(decisions(&[10, 11, 12], &[0], 2), [false, false, true]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_there_is_the_newest_proven_one_and_the_floor_stay(
            mut ages in proptest::collection::vec(0i64..100, 0..20),
            proven in proptest::collection::hash_set(0usize..20, 0..20),
            floor in 0usize..6,
        ) {
            ages.sort_unstable();
            let proven: Vec<usize> = proven.into_iter().filter(|i| *i < ages.len()).collect();
            let gone = decisions(&ages, &proven, floor);
            let newest = proven.iter().min();
            proptest::prop_assert!(newest.is_none_or(|n| !gone[*n]));
            proptest::prop_assert!(newest.is_some() || gone.iter().all(|g| !g));
            proptest::prop_assert!(gone.iter().filter(|g| !**g).count() >= floor.min(ages.len()));
            proptest::prop_assert!(gone.iter().zip(&ages).all(|(g, age)| !*g || *age >= 7));
        }
    }
}
