//! What a preflight reports.

use crate::error::{DatabaseKind, FailureReason};

/// What a finding means for the restore.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The restore cannot succeed.
    Blocks,
    /// The restore may fail, or its result may differ from the source.
    Warns,
    /// For information: the restore can succeed without a change.
    Notes,
}

/// One difference between what a backup needs and what a server has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Finding {
    /// How serious it is.
    pub level: Level,
    /// Failure reason that the restore would end with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<FailureReason>,
    /// The error that it would end with; not part of what is written.
    #[serde(skip)]
    pub(crate) kind: Option<DatabaseKind>,
    /// What the server lacks, or does not allow.
    pub what: String,
    /// What that does to the restore.
    pub consequence: String,
    /// What to change, on the server or in the command.
    pub fix: String,
}

impl Finding {
    /// The restore cannot succeed and would end with an error of this `kind`.
    pub fn blocks(kind: DatabaseKind, what: String, consequence: &str, fix: &str) -> Self {
        Finding {
            reason: Some(kind.reason()),
            kind: Some(kind),
            ..Finding::new(Level::Blocks, what, consequence, fix)
        }
    }

    /// The backup itself seems to be damaged, whatever the server has.
    pub fn damaged(level: Level, what: String, consequence: &str, fix: &str) -> Self {
        Finding {
            reason: Some(FailureReason::ArchiveCorrupt),
            ..Finding::new(level, what, consequence, fix)
        }
    }

    /// The restore may fail, or its result may differ from the source.
    pub fn warns(what: String, consequence: &str, fix: &str) -> Self {
        Finding::new(Level::Warns, what, consequence, fix)
    }

    /// The restore can succeed without a change.
    pub fn notes(what: String, consequence: &str, fix: &str) -> Self {
        Finding::new(Level::Notes, what, consequence, fix)
    }

    fn new(level: Level, what: String, consequence: &str, fix: &str) -> Self {
        Finding {
            level,
            reason: None,
            kind: None,
            what,
            consequence: consequence.into(),
            fix: fix.into(),
        }
    }
}

/// The first names of a list, and how many more there are.
pub(super) fn names(all: &[&str]) -> String {
    let shown = &all[..all.len().min(10)];
    match all.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
