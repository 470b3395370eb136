//! The names of documents of evidence, and which backup and question a document is about.

use super::super::envelope::sha256_hex;
use crate::policy::{Depth, Trigger};
use crate::proof::{EVIDENCE_SUFFIX, VerificationReport};
use crate::store::StoredObject;

pub(super) const ENVELOPE: &str = ".dsse.json";
/// The folder of the evidence about one generation of a backup.
pub(super) fn folder_of(backup: &str, generation: &str) -> String {
    format!(
        "{}{EVIDENCE_SUFFIX}{generation}/",
        backup.trim_end_matches('/')
    )
}

/// The name of a request's evidence without its ending, the same for every attempt.
pub fn evidence_name(backup: &str, generation: &str, request_id: &str) -> String {
    format!(
        "{}{}",
        folder_of(backup, generation),
        &sha256_hex(request_id.as_bytes())[..16]
    )
}

/// Identifies a verification: which backup, for which request, why, and how deep. Evidence about another question
/// does not answer it.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub backup: &'a StoredObject,
    pub request_id: &'a str,
    pub trigger: Trigger,
    pub depth: Depth,
}

impl Question<'_> {
    pub(super) fn base(&self) -> String {
        evidence_name(
            &self.backup.name,
            &self.backup.generation.to_string(),
            self.request_id,
        )
    }

    /// A key that is different for every question.
    pub(super) fn key(&self) -> String {
        key_of(&self.base(), self.trigger, self.depth)
    }

    pub(super) fn is_answered_by(&self, r: &VerificationReport) -> bool {
        (r.request_id.as_str(), r.trigger, r.depth_requested)
            == (self.request_id, self.trigger, self.depth)
            && is_of(r, self.backup)
    }
}

pub(super) fn key_of(base: &str, trigger: Trigger, depth: Depth) -> String {
    format!("{base}\n{trigger:?}\n{}", depth.as_str())
}

/// Whether a report is about exactly these bytes, as far as the store's metadata can tell. A directory and pieces
/// have no checksum; the time of their newest object shows whether one was added or replaced since.
pub fn is_of(report: &VerificationReport, object: &StoredObject) -> bool {
    let (name, generation) = (
        Some(object.name.as_str()),
        Some(object.generation.to_string()),
    );
    if report.backup.name.as_deref() != name || report.backup.generation != generation {
        return false;
    }
    let crc32c = object.crc32c.map(crate::backup::encode_crc32c);
    let same = match (crc32c, &report.backup.crc32c) {
        (Some(of_object), Some(of_report)) => of_object == *of_report,
        // The store of a folder knows a checksum only if it was asked to compute it.
        _ => report.backup_created == Some(object.created),
    };
    same && (object.name.ends_with('/') || report.backup.size == Some(object.size.to_string()))
}

/// Whether a name has the form of a document, `BACKUP.pgrestored/GENERATION/ID.dsse.json`.
pub(super) fn is_document(name: &str) -> bool {
    let is_hex = |t: &str| t.len() == 16 && t.bytes().all(|b| b.is_ascii_hexdigit());
    let below = name
        .rsplit_once(EVIDENCE_SUFFIX)
        .and_then(|(_, below)| below.strip_suffix(ENVELOPE));
    let Some((generation, id)) = below.and_then(|b| b.split_once('/')) else {
        return false;
    };
    let (first, second) = id.split_once('-').map_or((id, None), |(a, b)| (a, Some(b)));
    generation.bytes().all(|b| b.is_ascii_digit()) && is_hex(first) && second.is_none_or(is_hex)
}
