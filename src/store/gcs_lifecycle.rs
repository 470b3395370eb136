//! How long the service keeps an object of Cloud Storage: whether a generation is live, former or deleted, and what keeps it from
//! being deleted.

use google_cloud_storage::model::Object;

use super::backup_store::{GenerationState, Hold};

/// What became of a generation that a listing has.
pub(super) fn state_of(o: &Object) -> GenerationState {
    // One that was non-current first ended then.
    let ended = o.delete_time.as_ref();
    let ended = ended.and_then(|t| time_of(t.seconds(), t.nanos()));
    let deleted = o.soft_delete_time.as_ref();
    let until = o.hard_delete_time.as_ref();
    match deleted.and_then(|t| time_of(t.seconds(), t.nanos())) {
        Some(deleted) => GenerationState::SoftDeleted {
            since: ended.unwrap_or(deleted),
            until: until.and_then(|t| whole_second(t.seconds())),
        },
        None => ended.map_or(GenerationState::Live, |since| GenerationState::NonCurrent {
            since,
        }),
    }
}

/// What keeps an object from being deleted: a hold, and the end of its retention if that is later than `now`.
pub(super) fn lock_of(o: &Object, now: jiff::Timestamp) -> (Option<Hold>, Option<jiff::Timestamp>) {
    let hold = if o.temporary_hold {
        Some(Hold::Temporary)
    } else {
        (o.event_based_hold == Some(true)).then_some(Hold::EventBased)
    };
    let own = o.retention.as_ref();
    let own = own.and_then(|r| r.retain_until_time.as_ref());
    let own = own.and_then(|t| whole_second(t.seconds()));
    let by_policy = o.retention_expire_time.as_ref();
    let by_policy = by_policy.and_then(|t| whole_second(t.seconds()));
    (hold, by_policy.max(own).filter(|until| *until > now))
}

pub(super) fn time_of(seconds: i64, nanos: i32) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(seconds, nanos).ok()
}

/// A time of the service, without the fraction of its second.
pub(super) fn whole_second(seconds: i64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_second(seconds).ok()
}
