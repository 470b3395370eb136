//! A row of the record on its way to the server, in the transaction whose work it says.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_postgres::types::{ToSql, Type};

use super::body::Body;
use super::held::HeldCommit;
use super::mac::Secret;

/// Adds a row. The server adds it only if the secret is that of the attempt that may write.
pub(crate) const NOTE: &str = "SELECT pgrestored_work.note($1, $2, $3, $4, $5, $6)";

/// The types of [`NOTE`]'s parameters, which the server therefore need not be asked for.
pub(crate) const NOTE_TYPES: [Type; 6] = [
    Type::BYTEA,
    Type::INT4,
    Type::INT4,
    Type::INT4,
    Type::TEXT,
    Type::BYTEA,
];

/// The values of [`NOTE`]'s parameters.
pub(crate) struct NoteParams {
    pub(crate) secret: Secret,
    pub(crate) attempt: i32,
    pub(crate) lane: i32,
    pub(crate) n: i32,
    pub(crate) body: String,
    pub(crate) mac: Vec<u8>,
}

impl NoteParams {
    /// The values in the statement's order.
    pub(crate) fn values(&self) -> [&(dyn ToSql + Sync); 6] {
        [
            &self.secret,
            &self.attempt,
            &self.lane,
            &self.n,
            &self.body,
            &self.mac,
        ]
    }
}

/// A row of the record. Tell the record what has become of its transaction: `ended`.
#[must_use]
pub struct Note {
    pub(crate) params: NoteParams,
    pub(crate) carried: CarriedFacts,
    /// The bytes and rows of data that its transaction brings.
    pub(crate) amounts: (u64, u64),
    /// The turn to commit in, if the row is kept in memory instead of being written in the transaction.
    pub(crate) turn: Option<HeldCommit>,
}

/// What was found out since the row before. The next row says it unless this one is committed, also if whoever was to say
/// what has become of it was stopped: to say it twice changes nothing.
pub(crate) struct CarriedFacts {
    facts: Body,
    later: Arc<Mutex<Body>>,
}

impl CarriedFacts {
    /// Takes all facts that wait for the next row.
    pub(crate) fn take(later: &Arc<Mutex<Body>>) -> Self {
        CarriedFacts {
            facts: std::mem::take(&mut *later.lock()),
            later: later.clone(),
        }
    }

    /// What this row says of them.
    pub(crate) fn facts(&mut self) -> &mut Body {
        &mut self.facts
    }

    /// The row is in the record.
    pub(crate) fn committed(&mut self) {
        self.facts = Body::default();
    }
}

impl Drop for CarriedFacts {
    fn drop(&mut self) {
        if !self.facts.is_empty() {
            self.later.lock().add(std::mem::take(&mut self.facts));
        }
    }
}
