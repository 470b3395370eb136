//! What this process knows of the documents of evidence: its own ones, and those that it has rejected.

use std::collections::{HashMap, HashSet, VecDeque};

use parking_lot::Mutex;

use super::envelope::sha256_hex;
use crate::job::Generation;
use crate::store::StoredObject;

/// How many of its own documents a worker remembers.
const MAX_OWN: usize = 1_000;
/// How many rejected documents a worker remembers.
const MAX_REJECTED_KNOWN: usize = 20_000;

/// Name and SHA-256 of what this process wrote itself, by question. Without a key, this is the only way to
/// distinguish its own documents from those of others.
#[derive(Default)]
pub struct OwnEvidence(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    known: HashMap<String, (String, String)>,
    order: VecDeque<String>,
    /// Name and generation of rejected documents, which are not read again.
    refused: HashSet<(String, Generation)>,
}

impl OwnEvidence {
    pub(super) fn remember(&self, question: String, name: &str, json: &[u8]) {
        let mut own = self.0.lock();
        if own
            .known
            .insert(question.clone(), (name.to_owned(), sha256_hex(json)))
            .is_none()
        {
            own.order.push_back(question);
        }
        if own.order.len() > MAX_OWN
            && let Some(oldest) = own.order.pop_front()
        {
            own.known.remove(&oldest);
        }
    }

    pub(super) fn refuse(&self, o: &StoredObject) {
        let refused = &mut self.0.lock().refused;
        if refused.len() >= MAX_REJECTED_KNOWN {
            refused.clear();
        }
        refused.insert((o.name.clone(), o.generation));
    }

    pub(super) fn has_refused(&self, o: &StoredObject) -> bool {
        let own = self.0.lock();
        own.refused.contains(&(o.name.clone(), o.generation))
    }

    pub(super) fn of(&self, question: &str) -> Option<(String, String)> {
        self.0.lock().known.get(question).cloned()
    }
}
