//! What this process knows of the documents of evidence: its own ones, and those that it has rejected.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::envelope::{MAX_ENVELOPE, sha256_hex};
use crate::error::line_of;
use crate::job::Generation;
use crate::store::StoredObject;

/// How many of its own documents a worker remembers.
const MAX_OWN: usize = 1_000;
/// How many rejected documents a worker remembers.
const MAX_REJECTED_KNOWN: usize = 20_000;
/// Longest reason that is remembered of each, in bytes.
const MAX_UNSAID: usize = 200;

/// Bytes of documents that this process reads at the same time: one of the longest, or many short ones.
const MAX_READING: u32 = MAX_ENVELOPE as u32;

/// Name and SHA-256 of what this process wrote itself, by question. Without a key, this is the only way to
/// distinguish its own documents from those of others.
pub struct OwnEvidence {
    remembered: Mutex<Remembered>,
    reading: Semaphore,
}

impl Default for OwnEvidence {
    fn default() -> Self {
        OwnEvidence {
            remembered: Mutex::default(),
            reading: Semaphore::new(MAX_READING as usize),
        }
    }
}

#[derive(Default)]
struct Remembered {
    known: HashMap<String, (String, String)>,
    order: VecDeque<String>,
    /// URI and generation of rejected documents, which are not read again, each with the reason while no warning has
    /// said it.
    rejected: HashMap<(String, Generation), Option<String>>,
}

impl OwnEvidence {
    pub(super) fn remember(&self, question: String, name: &str, json: &[u8]) {
        let mut own = self.remembered.lock();
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

    /// Waits until a document of this many bytes may be read and parsed, which takes a multiple of them.
    pub(super) async fn reading(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(MAX_READING).min(MAX_READING);
        self.reading.acquire_many(bytes).await.ok()
    }

    /// Remembers a rejected document; `unsaid` is the reason if no warning has said it.
    pub(super) fn reject(&self, uri: String, o: &StoredObject, unsaid: Option<&str>) {
        let rejected = &mut self.remembered.lock().rejected;
        if rejected.len() >= MAX_REJECTED_KNOWN {
            rejected.clear();
        }
        let unsaid = unsaid.map(|why| line_of(why, MAX_UNSAID));
        rejected.insert((uri, o.generation), unsaid);
    }

    pub(super) fn has_rejected(&self, uri: String, o: &StoredObject) -> bool {
        let own = self.remembered.lock();
        own.rejected.contains_key(&(uri, o.generation))
    }

    /// Why a document was rejected, if no warning has said it; the caller does now.
    pub(super) fn take_unsaid(&self, uri: String, o: &StoredObject) -> Option<String> {
        let rejected = &mut self.remembered.lock().rejected;
        rejected.get_mut(&(uri, o.generation))?.take()
    }

    pub(super) fn of(&self, question: &str) -> Option<(String, String)> {
        self.remembered.lock().known.get(question).cloned()
    }
}
