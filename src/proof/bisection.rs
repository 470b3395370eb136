//! Since when the backups of a database are bad, as a verification found out.

use super::Verdict;
use crate::job::ResultBackup;
use crate::policy::Depth;

/// Most left-out backups that a line names.
const SHOWN: usize = 10;

/// One older backup that a bisection verified.
#[derive(
    Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Probe {
    pub backup: ResultBackup,
    pub verdict: Verdict,
    pub depth: Depth,
}

/// Which of the older backups of the same database is the first bad one.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub struct Bisection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good: Option<ResultBackup>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<ResultBackup>,
    /// Whether there is no backup between the two, and none that may be of the same database.
    pub exact: bool,
    pub probes: Vec<Probe>,
    /// Backups between the two that were not considered, because it is not known of which database they are: at most
    /// 100, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<ResultBackup>,
}

impl Bisection {
    /// What the last good and the first bad backup are called, with their generations if they have one name.
    pub fn names(&self) -> (String, String) {
        let name_of = |b: &Option<ResultBackup>| b.as_ref().and_then(|b| b.name.clone());
        let has_one_name =
            self.last_good.is_some() && name_of(&self.last_good) == name_of(&self.first_bad);
        let called = |b: &Option<ResultBackup>| {
            let generation = b.as_ref().and_then(|b| b.generation.as_deref());
            match (name_of(b), generation.filter(|_| has_one_name)) {
                (None, _) => "none found".to_owned(),
                (Some(name), None) => name,
                (Some(name), Some(generation)) => format!("{name}#{generation}"),
            }
        };
        (called(&self.last_good), called(&self.first_bad))
    }

    /// That backups between the two were not considered, if there are any.
    pub fn left_out_note(&self) -> Option<String> {
        let names = self.left_out.iter().filter_map(|b| b.name.as_deref());
        let shown: Vec<&str> = names.take(SHOWN).collect();
        let more = self.left_out.len().saturating_sub(SHOWN);
        let more = (more > 0).then(|| format!(" and {more} more"));
        let all = format!("{}{}", shown.join(", "), more.unwrap_or_default());
        (!shown.is_empty()).then(|| format!("left out, because their database is not known: {all}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_of_one_name_are_told_apart() {
        let backup = |name: &str, generation: &str| {
            Some(ResultBackup {
                name: Some(name.to_owned()),
                generation: Some(generation.to_owned()),
                ..ResultBackup::default()
            })
        };
        let names = |last_good, first_bad| {
            let found = Bisection {
                last_good,
                first_bad,
                ..Bisection::default()
            };
            found.names()
        };
        let two = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(
            names(backup("1.dump", "7"), backup("2.dump", "8")),
            two("1.dump", "2.dump")
        );
        assert_eq!(
            names(backup("app.dump", "7"), backup("app.dump", "8")),
            two("app.dump#7", "app.dump#8")
        );
        assert_eq!(
            names(None, backup("1.dump", "7")),
            two("none found", "1.dump")
        );
    }

    #[test]
    fn backups_that_were_left_out_are_named() {
        let note = |count: usize| {
            let backup = |n| ResultBackup {
                name: Some(format!("{n}.sql")),
                ..ResultBackup::default()
            };
            let found = Bisection {
                left_out: (0..count).map(backup).collect(),
                ..Bisection::default()
            };
            found.left_out_note()
        };
        assert_eq!(note(0), None);
        assert_eq!(
            note(2).unwrap(),
            "left out, because their database is not known: 0.sql, 1.sql"
        );
        assert!(note(12).unwrap().ends_with("9.sql and 2 more"));
    }
}
