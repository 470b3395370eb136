//! How the work of an attempt begins to be recorded: in memory first, and in its database once the attempt has run for as
//! long as makes it worth keeping (RESTORE_RESUME_FROM), so that a restore that is over before that costs nothing.
//!
//! The journal gets the key of the record last. An attempt that is killed before that has left nothing to continue, whatever
//! its database has, and the next one drops it.

use std::sync::Arc;
use std::time::Duration;

use pgdump_restore::{RecordKey, WorkRecord};
use tokio::time::{Instant, sleep_until};

use super::confinement::Loader;
use super::staging::{Staging, mark_attempt};
use super::target_lock::TargetLock;
use super::work::{BegunWork, NewRecord, ResumeTerms, WorkDone, reason_of};
use super::work_rows::NewWork;
use super::work_session::place_of;
use crate::error::{RestoreError, report};
use crate::steps::reached;

/// How long to wait after a record that could not be stored.
const PAUSE: Duration = Duration::from_secs(10);

/// What begins work that can be continued.
pub struct BeginWork<'a> {
    /// What it belongs to, in canonical form.
    pub pins: &'a str,
    pub terms: ResumeTerms,
    /// It is kept for a person, not for a redelivery.
    pub by_command: bool,
    pub loader: Option<&'a Loader>,
}

impl TargetLock {
    /// Records from now on what is loaded into an empty database, so that another attempt can go on. If the server does
    /// not allow that, the record is off, and a note says why.
    ///
    /// # Errors
    /// `target_unavailable`.
    pub async fn begin_work(
        &self,
        staging: &mut Staging,
        begin: BeginWork<'_>,
    ) -> Result<Arc<WorkRecord>, RestoreError> {
        if !self.journal.works() {
            return Ok(WorkRecord::off());
        }
        // From the first session on: what is continued later must not be reached by one that this attempt opens too late.
        let made_for = (self.target.as_str(), self.request_id.as_str());
        let mark = mark_attempt(&self.lock, staging, made_for, self.attempt).await?;
        staging.mark = Some(mark);
        let key = RecordKey::random();
        let record = WorkRecord::held(key.clone(), self.attempt);
        let role = begin.loader.and_then(Loader::temporary_role);
        let new = NewRecord {
            pins: begin.pins.to_owned(),
            key,
            by_command: begin.by_command,
            from: begin.terms.from,
        };
        let work = (record.clone(), WorkDone::default());
        let begun = BegunWork::new(place_of(staging), 1, work, role).beginning(new);
        self.set_begun(begun);
        if begin.terms.from.is_zero()
            && let Some(begun) = self.begun_work()
            && !self.store_work(&begun).await?
        {
            staging.notes.extend(record.why_not_begun());
        }
        Ok(record)
    }

    /// Stores the record of this attempt's work once it is due. Never returns, unless that fails: run it beside the restore, and
    /// stop it with that.
    ///
    /// # Errors
    /// `target_unavailable`, if the session with the lock does not answer. Whatever else keeps the record from beginning only
    /// means that nothing is kept.
    pub async fn store_when_due(&self) -> RestoreError {
        let mut waiting: Option<Arc<BegunWork>> = None;
        let mut not_before = Instant::now();
        loop {
            tokio::select! {
                () = self.work_begun.notified() => {}
                () = due(waiting.as_deref(), not_before) => {
                    if let Some(begun) = &waiting
                        && let Err(e) = self.store_work(begun).await
                    {
                        return e;
                    }
                    not_before = Instant::now() + PAUSE;
                }
            }
            waiting = self.begun_work().filter(|begun| begun.is_to_be_stored());
        }
    }

    /// Stores the record of this attempt's work now, if it is in memory, before what cannot be recorded there. If that is not
    /// possible, nothing is recorded any more.
    ///
    /// # Errors
    /// As [`TargetLock::store_when_due`].
    pub async fn store_now(&self) -> Result<(), RestoreError> {
        if let Some(begun) = self.begun_work()
            && !self.store_work(&begun).await?
        {
            let why = "its record could not be stored before what finishes the restore";
            begun.record.end_held(why).await;
        }
        Ok(())
    }

    /// Why the work of this attempt cannot be kept, if it was to be recorded.
    pub fn why_not_kept(&self) -> Option<String> {
        self.begun_work()?.why_not_kept()
    }

    /// Stores a record that is in memory, and tells the journal of it; returns whether both is done. If not, it may still be to
    /// be done: no session was to be had, or the journal has refused.
    ///
    /// # Errors
    /// As [`TargetLock::store_when_due`].
    pub(super) async fn store_work(&self, begun: &BegunWork) -> Result<bool, RestoreError> {
        let _one_at_a_time = begun.storing.lock().await;
        let Some(new) = begun.new.as_ref().filter(|_| begun.is_to_be_stored()) else {
            return Ok(begun.is_stored());
        };
        if begun.is_held() {
            reached("work.due");
            if !self.write_record(begun, new).await? {
                return Ok(false);
            }
        }
        if !self.tell_journal(begun, new).await? {
            return Ok(false);
        }
        reached("work.begun");
        Ok(true)
    }

    /// Writes the record into the database; returns whether it has begun.
    async fn write_record(&self, begun: &BegunWork, new: &NewRecord) -> Result<bool, RestoreError> {
        // The restore goes on without, but for one that is to be recorded from its beginning.
        let is_at_once = new.from.is_zero();
        let server = self.server.pinned_to(&begun.name, begun.oid, begun.mark);
        let server = if is_at_once {
            server
        } else {
            server.without_retry()
        };
        let stored = match server.connect(&begun.name, "record").await {
            Ok(session) => begun.record.store(&session, &new.pins).await,
            Err(e) => Err(e),
        };
        let error = match stored {
            Ok(true) => {
                reached("work.stored");
                return Ok(true);
            }
            Ok(false) => None,
            Err(e) if is_at_once => {
                let _what_it_says = reason_of(e)?;
                None
            }
            // The connection that was lost may have been this one alone.
            Err(e) => Some(e),
        };
        match (begun.record.why_not_begun(), error) {
            (None, Some(e)) => {
                tracing::debug!(error = %e, "the record of the work is stored later");
            }
            (why, _) => tracing::warn!(
                why = why.unwrap_or_default().as_str(),
                "the work of this attempt is not recorded"
            ),
        }
        Ok(false)
    }

    /// Tells the journal of a record, and its key; returns whether that is done. Whatever the journal says against it, the
    /// restore goes on.
    async fn tell_journal(&self, begun: &BegunWork, new: &NewRecord) -> Result<bool, RestoreError> {
        let work = NewWork {
            name: &begun.name,
            oid: begun.oid,
            request_id: &self.request_id,
            target: &self.target,
            key: new.key.bytes(),
            by_command: new.by_command,
            pins: &new.pins,
        };
        match self.journal.own_work(&self.lock, &work).await {
            Ok(()) => {
                begun.set_told(Ok(()));
            }
            // It may have ended before that is noticed.
            Err(e) if self.lock.run("SELECT 1").await.is_err() => return Err(e.into()),
            Err(e) => {
                let why = format!(
                    "its record could not be entered in the journal: {}",
                    report(&e)
                );
                if begun.set_told(Err(why.clone())) {
                    tracing::warn!(
                        why = why.as_str(),
                        "the work of this attempt is not kept until the journal knows of it"
                    );
                }
            }
        }
        Ok(begun.is_stored())
    }

    /// Stores a record that is in memory if the work is worth sealing: what the rows are compared with later is read from it.
    ///
    /// # Errors
    /// As [`TargetLock::store_when_due`].
    pub(super) async fn store_before_seal(&self, begun: &BegunWork) -> Result<(), RestoreError> {
        if begun.is_untold() || begun.is_held() && self.is_worth_sealing(begun) {
            self.store_work(begun).await?;
        }
        Ok(())
    }

    /// Whether the load was long, or the swap may have to wait for long.
    fn is_worth_sealing(&self, begun: &BegunWork) -> bool {
        let is_long = |new: &NewRecord| begun.began.elapsed() >= new.from;
        self.policy.swap_when_idle.is_some() || begun.new.as_ref().is_none_or(is_long)
    }
}

/// Returns once the record of this work is due; never, if there is none.
async fn due(waiting: Option<&BegunWork>, not_before: Instant) {
    let Some((begun, new)) = waiting.and_then(|begun| Some((begun, begun.new.as_ref()?))) else {
        return std::future::pending().await;
    };
    let worth_it = async {
        if begun.is_untold() {
            return;
        }
        tokio::select! {
            () = sleep_until(begun.began + new.from) => {}
            () = begun.record.filled() => {}
        }
    };
    tokio::join!(worth_it, sleep_until(not_before));
}
