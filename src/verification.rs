//! Checks that a restored database matches its archive, and writes the evidence. What could not be checked
//! never counts as passed.
//!
//! `row_comparison` compares every row, `restored_entries` every entry, `amcheck` checks heaps and indexes,
//! `data_checks` runs the checks file, `generated_columns` recomputes generated columns, and `drift` compares with the
//! last proven backups. `backup_contents` says whether data is missing. `server_version` and `text_forms` tell what another
//! version or other settings explain. `evidence` stores documents and decides which of them count, `envelope` is their
//! format, `html_report` and `junit` are its renderings for people and for CI. `changed_bytes` tells whether the bytes of a
//! backup that was proven before still are the same.

mod amcheck;
mod backup_contents;
mod changed_bytes;
mod data_checks;
mod drift;
mod envelope;
mod evidence;
mod float_digits;
mod generated_columns;
mod html_report;
mod junit;
mod large_objects;
mod masked_spans;
mod own_evidence;
mod restore_index;
mod restored_database;
mod restored_entries;
mod row_checks;
mod row_comparison;
mod server_version;
mod text_forms;
pub mod verdict;
mod verdict_label;

use std::collections::BTreeMap;

use crate::error::{RestoreError, report};
use crate::proof::{Check, CheckStatus, Drift, TableProof};
use pgdump_archive::{ContentDigest, TocEntry};

pub use backup_contents::{
    SeenData, comparable, contents_beside, contents_of, note_of, without_data,
};
pub(crate) use changed_bytes::{
    changed_since, fail_as_damaged, have_same_bytes, lacks_members, note_unknown_change,
};
pub(crate) use data_checks::{AskedDatabase, ask_all};
pub use data_checks::{Checks, ChecksFile};
pub(crate) use drift::IGNORE_TABLES;
pub use drift::{DriftPolicy, History};
pub use envelope::{Envelope, Keyring, Signature, SigningKey, verify_envelope};
pub use evidence::{
    DocumentFolders, Evidence, EvidenceLimits, Found, GenerationEvidence, Question, SearchLimit,
    StoredEvidence, evidence_name, is_of,
};
pub use html_report::{DocumentLink, page};
pub use junit::junit;
pub use own_evidence::OwnEvidence;
pub use restore_index::RestoreIndex;
pub use restored_database::RestoredDatabase;
pub(crate) use server_version::mind_the_version;
pub(crate) use verdict_label::{class_of, headline};

/// A key that tests sign evidence with.
#[cfg(test)]
pub(crate) use envelope::tests::PRIVATE as TEST_SIGNING_KEY;

/// The results of all checks.
#[derive(Debug, Default)]
pub struct CheckResults {
    pub tables: Vec<TableProof>,
    pub checks: Vec<Check>,
    pub drift: Option<Drift>,
}

/// Runs and times a check. If it fails to run, the result is a check with the status `NotChecked`.
async fn timed(
    name: &str,
    required: bool,
    work: impl Future<Output = Result<Vec<Check>, RestoreError>>,
) -> Result<Vec<Check>, RestoreError> {
    let clock = tokio::time::Instant::now();
    // On the heap: together, the futures of all checks are large.
    let mut checks = match Box::pin(work).await {
        Ok(checks) => checks,
        Err(e) => {
            let check = Check::new(name, CheckStatus::NotChecked, report(&e)).because(e.reason());
            vec![if required { check } else { check.optional() }]
        }
    };
    let seconds = clock.elapsed().as_secs_f64();
    if let Some(first) = checks.first_mut() {
        first.seconds = seconds;
    }
    Ok(checks)
}

/// The tables of an archive that was read but not restored.
pub fn tables_of(content_digest: &ContentDigest) -> Vec<TableProof> {
    content_digest
        .tables()
        .iter()
        .map(|(name, data)| row_comparison::proof_of(name, data))
        .collect()
}

/// Runs all checks of depth `data`.
///
/// # Errors
/// `target_unavailable`: the server is gone.
pub async fn examine(
    subject: &RestoredDatabase<'_>,
    checks: &Checks,
    history: &History,
) -> Result<CheckResults, RestoreError> {
    // If rows cannot be read back, the tables are those of the archive.
    let mut e = CheckResults {
        tables: tables_of(subject.content_digest),
        ..CheckResults::default()
    };
    let mut are_read_back = false;
    let ours = async {
        let (mut tables, found) = row_comparison::compare(subject).await?;
        if let Some(masking) = &subject.masking {
            masked_spans::remove(&mut tables, subject.entries, masking);
        }
        (e.tables, are_read_back) = (tables, true);
        Ok(found)
    };
    let (rows, damage) = (
        timed("rows", true, ours),
        timed("amcheck", false, amcheck::check(subject)),
    );
    // Concurrently, so that no core is idle at the end of either. But `amcheck` may create its extension, and
    // the dump's own event triggers could record that in a table while its rows are compared.
    let (rows, damage) = if restored_entries::has_event_triggers(subject)
        .await
        .unwrap_or(true)
    {
        (rows.await?, damage.await?)
    } else {
        let (rows, damage) = tokio::join!(rows, damage);
        (rows?, damage?)
    };
    e.checks.extend(rows);
    e.checks
        .extend(timed("large objects", true, large_objects::compare(subject)).await?);
    e.checks
        .extend(timed("entries", true, restored_entries::compare(subject)).await?);
    e.checks
        .extend(timed("validity", true, restored_entries::validity(subject)).await?);
    e.checks.extend(damage);
    let asked = async {
        let _step = subject.progress.long_step();
        let asked = AskedDatabase {
            server: subject.server,
            database: subject.database,
            backup_created: subject.backup_created,
        };
        data_checks::ask_all(&asked, checks).await
    };
    e.checks.extend(timed("asked", true, asked).await?);
    // Last, because it calls functions of the dump, which may crash the server.
    e.checks.extend(
        timed(
            "generated columns",
            false,
            generated_columns::check(subject),
        )
        .await?,
    );
    // Where rows cannot be counted, nothing can be missed.
    if are_read_back && subject.content_digest.counts_rows() {
        let seen = SeenData {
            tables: &e.tables,
            large_objects: pgdump_restore::large_objects_in(subject.entries)
                .max(subject.content_digest.objects().len() as u64),
            coverage: subject.coverage,
        };
        let (drift, found) = backup_contents::compare(&seen, history, &checks.drift);
        e.drift = drift;
        e.checks.extend(found);
    }
    Ok(e)
}

/// The number of entries of each kind in a table of contents.
pub fn kinds(entries: &[TocEntry]) -> BTreeMap<String, u64> {
    let mut kinds = BTreeMap::new();
    entries
        .iter()
        .for_each(|e| *kinds.entry(e.kind.to_string()).or_insert(0) += 1);
    kinds
}
