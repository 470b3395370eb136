//! Reads every format, version and codec of the corpus, with damage in every place, without a server.

#[path = "../../../../tests/support/synthetic.rs"]
mod synthetic;

mod files;
mod formats;
mod members;
mod offsets;
mod short_reader;
mod tail;
mod text;
mod wrappings;
mod written;

use std::path::{Path, PathBuf};

use pgdump_archive::ArchiveError;

/// The variants of [`ArchiveError`], for comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArchiveErrorKind {
    Corrupt,
    Unsupported,
    Limit,
    Foreign,
    NotFound,
    Other,
}

fn kind(e: &ArchiveError) -> ArchiveErrorKind {
    match e {
        ArchiveError::Corrupt(_) => ArchiveErrorKind::Corrupt,
        ArchiveError::Unsupported(_) => ArchiveErrorKind::Unsupported,
        ArchiveError::Limit(_) => ArchiveErrorKind::Limit,
        ArchiveError::Foreign(_) => ArchiveErrorKind::Foreign,
        ArchiveError::NotFound(_) => ArchiveErrorKind::NotFound,
        _ => ArchiveErrorKind::Other,
    }
}

/// Directory of the corpus of dumps.
fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// All of these in a full campaign (`make soak`), else the first one and every `step`th after it.
fn sample<T>(all: impl IntoIterator<Item = T>, step: usize) -> impl Iterator<Item = T> {
    let step = if is_full_campaign() { 1 } else { step };
    all.into_iter().step_by(step)
}

fn is_full_campaign() -> bool {
    std::env::var("CAMPAIGN").is_ok_and(|c| c == "full")
}
