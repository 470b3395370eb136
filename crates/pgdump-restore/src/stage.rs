//! Stages of a job.

use std::fmt;

/// A stage of a job, as results, metrics, traces and progress name it. [`load()`](crate::load()) goes through `Schema`,
/// `Data` and `Indexes`; the others belong to the programs around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// The request is read and checked.
    Request,
    /// The job waits for its first stage.
    Queued,
    /// The backup is opened, and the target is claimed.
    Prepare,
    /// The object is read without being restored.
    Download,
    /// A throwaway server is started.
    Sandbox,
    /// Definitions that the data needs are created.
    Schema,
    /// Table data and large objects are loaded.
    Data,
    /// Indexes, constraints, triggers and privileges are created.
    Indexes,
    /// Statistics are collected.
    Analyze,
    /// The loaded database is checked.
    Check,
    /// The team's own SQL and checks run in the loaded database.
    Finish,
    /// The loaded database is swapped into place.
    Swap,
    /// The report of a verification is stored.
    Evidence,
    /// The newest backup that can be restored is searched.
    Bisect,
    /// The worker ended before the job did.
    Abandoned,
}

impl Stage {
    /// Every stage, in the order in which a job goes through them.
    pub const ALL: [Stage; 15] = [
        Stage::Request,
        Stage::Queued,
        Stage::Prepare,
        Stage::Download,
        Stage::Sandbox,
        Stage::Schema,
        Stage::Data,
        Stage::Indexes,
        Stage::Analyze,
        Stage::Check,
        Stage::Finish,
        Stage::Swap,
        Stage::Evidence,
        Stage::Bisect,
        Stage::Abandoned,
    ];

    /// The name in documents, metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Request => "request",
            Stage::Queued => "queued",
            Stage::Prepare => "prepare",
            Stage::Download => "download",
            Stage::Sandbox => "sandbox",
            Stage::Schema => "schema",
            Stage::Data => "data",
            Stage::Indexes => "indexes",
            Stage::Analyze => "analyze",
            Stage::Check => "check",
            Stage::Finish => "finish",
            Stage::Swap => "swap",
            Stage::Evidence => "evidence",
            Stage::Bisect => "bisect",
            Stage::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
