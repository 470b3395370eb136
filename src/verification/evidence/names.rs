//! The names of documents of evidence, and which backup and question a document is about.

use std::collections::HashSet;

use super::super::envelope::{Keyring, short_digest};
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
        short_digest(request_id)
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

/// The keys of all questions of one request.
fn keys_of(base: &str) -> impl Iterator<Item = String> {
    let all = Trigger::ALL
        .into_iter()
        .flat_map(|t| Depth::ALL.map(|d| (t, d)));
    all.map(move |(trigger, depth)| key_of(base, trigger, depth))
}

/// Names for answers of one request, if its first name and that of the question are both taken by what cannot be read.
const SPARE_NAMES: [&str; 2] = ["spare 1", "spare 2"];

/// What follows the hyphen in the names of the documents about one request: only holders of the signing key can compute
/// it. One signature is enough for all of them, so that a name is recognized whatever else is there.
pub(super) struct SecretNames {
    base: String,
    /// Never stored: the names are digests of it.
    secret: String,
}

impl SecretNames {
    /// `None` without a signing key.
    pub(super) fn of(keys: &Keyring, base: &str) -> Option<Self> {
        let secret = keys.secret_of(base)?;
        let base = base.to_owned();
        Some(SecretNames { base, secret })
    }

    fn derived(&self, of: &str) -> String {
        short_digest(&format!("{}\n{of}", self.secret))
    }

    /// Those for the answer to a question, in the order in which they are tried.
    pub(super) fn for_question(&self, question: &Question<'_>) -> [String; 4] {
        let [spare, last] = SPARE_NAMES.map(|of| self.derived(of));
        let first = short_digest(&self.secret);
        [first, self.derived(&question.key()), spare, last]
    }

    /// Whether it is one of them, for whichever question.
    pub(super) fn contain(&self, name: &str) -> bool {
        short_digest(&self.secret) == name
            || SPARE_NAMES.iter().any(|of| self.derived(of) == name)
            || keys_of(&self.base).any(|key| self.derived(&key) == name)
    }
}

/// The name of a document without what follows the request, and the secret that follows it.
pub(super) fn parts_of(name: &str) -> Option<(&str, &str)> {
    name.strip_suffix(ENVELOPE)?.rsplit_once('-')
}

/// Whether only a worker with the signing key can have chosen this name of a document.
pub(super) fn is_own_name(keys: &Keyring, name: &str) -> bool {
    let names = parts_of(name).and_then(|(base, second)| {
        let names = SecretNames::of(keys, base)?;
        Some(names.contain(second))
    });
    names == Some(true)
}

/// The names that versions up to 0.1 took if the first one was taken: a signature each.
pub(super) fn older_names(keys: &Keyring, base: &str) -> HashSet<String> {
    keys_of(base)
        .filter_map(|key| keys.secret_name(&key))
        .collect()
}

/// Whether a report is about this backup, whatever its bytes are by now.
pub(super) fn is_of_generation(report: &VerificationReport, object: &StoredObject) -> bool {
    let generation = object.generation.to_string();
    report.subject() == Some((object.name.as_str(), generation.as_str()))
}

/// Whether a report is about exactly these bytes, as far as the store's metadata can tell. A directory and pieces
/// have no checksum; the time of their newest object shows whether one was added or replaced since, and their names and
/// sizes whether one was removed, renamed or cut off. The checksums that the store knows of them count, too.
pub fn is_of(report: &VerificationReport, object: &StoredObject) -> bool {
    if !is_of_generation(report, object) || report.backup.size != Some(object.size.to_string()) {
        return false;
    }
    // Older evidence does not tell the objects of a backup.
    if let (Some(then), Some(now)) = (&report.members, &object.members)
        && then.has_same_bytes(now) == Some(false)
    {
        return false;
    }
    let crc32c = object.crc32c.map(crate::backup::encode_crc32c);
    match (crc32c, &report.backup.crc32c) {
        (Some(of_object), Some(of_report)) => of_object == *of_report,
        // The store of a folder knows a checksum only if it was asked to compute it.
        _ => report.backup_created == Some(object.created),
    }
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
