//! What the first bytes of backups say about their databases, and the answers so far.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::job::Generation;
use crate::proof::{BackupOrigin, pattern_of};
use crate::store::StoredObject;

/// Answers that are kept; a few MiB.
const KEPT: usize = 20_000;
/// Archives that are opened at the same time: this worker's memory has [`NAME_BUDGET`] for one.
///
/// [`NAME_BUDGET`]: crate::config::NAME_BUDGET
const OPENED_AT_ONCE: usize = 1;
/// How long it may take to open one archive as far as its database's name.
const OPEN_LIMIT: Duration = Duration::from_secs(60);

/// Which database a backup is of, as its own first bytes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArchivedDatabase {
    Named(String),
    /// SQL text without CREATE DATABASE.
    Unnamed,
    /// Text of `pg_dumpall`: any database may be in it.
    Cluster,
    /// Roles and settings of a cluster, without a database.
    Globals,
    /// It is no dump; the reason.
    NoDump(String),
    /// It is damaged, or encrypted with a key that is not here; the reason.
    Unreadable(String),
    /// Nobody has looked, or the store did not answer in time.
    NotLookedInto,
}

impl ArchivedDatabase {
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            ArchivedDatabase::Named(name) => Some(name),
            _ => None,
        }
    }

    /// Whether it may be of one database, and does not say of which.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(
            self,
            ArchivedDatabase::Unnamed
                | ArchivedDatabase::NoDump(_)
                | ArchivedDatabase::Unreadable(_)
                | ArchivedDatabase::NotLookedInto
        )
    }

    /// Whether it may be a backup of a database: it is not certainly something else.
    pub(super) fn may_be_backup(&self) -> bool {
        !matches!(
            self,
            ArchivedDatabase::Globals | ArchivedDatabase::NoDump(_)
        )
    }

    /// The origin of a backup of this name, or why it cannot be told.
    pub(super) fn one_origin(self, backup: &str) -> Result<BackupOrigin, String> {
        match self {
            ArchivedDatabase::Named(_) | ArchivedDatabase::Unnamed => Ok(self.origin(backup)),
            ArchivedDatabase::Cluster => Err("it is a dump of a whole cluster (pg_dumpall)".into()),
            ArchivedDatabase::Globals => Err("it has roles and no database".into()),
            ArchivedDatabase::NoDump(why) | ArchivedDatabase::Unreadable(why) => Err(why),
            ArchivedDatabase::NotLookedInto => Err("it was not looked into".into()),
        }
    }

    /// The origin of a backup of this name, as far as it can be told.
    pub(crate) fn origin(&self, backup: &str) -> BackupOrigin {
        match self {
            ArchivedDatabase::Cluster => BackupOrigin::Cluster(pattern_of(backup)),
            _ => BackupOrigin::new(self.name().map(str::to_owned), backup),
        }
    }
}

/// The answers so far, by name and generation of the backup.
pub(super) struct KnownDatabases {
    answers: Mutex<HashMap<(String, Generation), ArchivedDatabase>>,
    /// Permits to open an archive.
    pub(super) opening: Arc<Semaphore>,
    /// How long that may take.
    pub(super) open_limit: Duration,
}

impl Default for KnownDatabases {
    fn default() -> Self {
        Self::new(OPEN_LIMIT)
    }
}

impl KnownDatabases {
    pub(super) fn new(open_limit: Duration) -> Self {
        KnownDatabases {
            answers: Mutex::default(),
            opening: Arc::new(Semaphore::new(OPENED_AT_ONCE)),
            open_limit,
        }
    }

    pub(super) fn of(&self, backup: &StoredObject) -> Option<ArchivedDatabase> {
        let key = (backup.name.clone(), backup.generation);
        self.answers.lock().get(&key).cloned()
    }

    pub(super) fn keep(&self, backup: &StoredObject, database: ArchivedDatabase) {
        let mut answers = self.answers.lock();
        if answers.len() >= KEPT {
            answers.clear();
        }
        answers.insert((backup.name.clone(), backup.generation), database);
    }
}
