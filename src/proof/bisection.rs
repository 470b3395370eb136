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
