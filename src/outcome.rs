//! The table of outcomes: whether a result is published and how the message is settled. It is one
//! exhaustive match.

use crate::error::RetryClass;

/// How a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settle {
    Ack,
    Nack,
    /// Nack after a pause in this process, so that retries do not overload a failing target.
    NackAfterBackoff,
    /// Keep the lease and retry: `Worker::run_deduplicated` does; `settle` returns what still gets there.
    Hold,
}

/// What to do after an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disposition {
    /// Publish a result event before settling.
    pub publish: bool,
    pub settle: Settle,
    /// Whether this worker stays ready for further requests.
    pub ready: bool,
}

/// The disposition of a delivery. `failure` is `None` after a success; `attempt` counts deliveries from 1.
pub fn disposition(failure: Option<RetryClass>, attempt: u32, max_attempts: u32) -> Disposition {
    let of = |publish, settle, ready| Disposition {
        publish,
        settle,
        ready,
    };
    let Some(class) = failure else {
        return of(true, Settle::Ack, true);
    };
    match class {
        RetryClass::Permanent => of(true, Settle::Ack, true),
        RetryClass::Transient if attempt >= max_attempts => of(true, Settle::Ack, true),
        RetryClass::Transient => of(false, Settle::NackAfterBackoff, true),
        RetryClass::Environment => of(false, Settle::NackAfterBackoff, false),
        RetryClass::Busy => of(false, Settle::Hold, true),
        RetryClass::Interrupted => of(false, Settle::Nack, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::FailureReason as R;

    #[test]
    fn dispositions_match_the_documented_table() {
        let row = |f: Option<R>, attempt| {
            let d = disposition(f.map(R::retry_class), attempt, 4);
            (d.publish, d.settle, d.ready)
        };
        assert_eq!(row(None, 1), (true, Settle::Ack, true), "done");
        assert_eq!(
            row(Some(R::ArchiveCorrupt), 1),
            (true, Settle::Ack, true),
            "rejected"
        );
        assert_eq!(
            row(Some(R::DownloadFailed), 3),
            (false, Settle::NackAfterBackoff, true),
            "transient"
        );
        assert_eq!(
            row(Some(R::DownloadFailed), 4),
            (true, Settle::Ack, true),
            "exhausted"
        );
        assert_eq!(
            row(Some(R::AccessDenied), 9),
            (false, Settle::NackAfterBackoff, false),
            "environment"
        );
        assert_eq!(
            row(Some(R::TargetBusy), 9),
            (false, Settle::Hold, true),
            "busy"
        );
        assert_eq!(
            row(Some(R::Cancelled), 9),
            (false, Settle::Nack, true),
            "shutdown"
        );
    }

    #[test]
    fn a_message_is_acked_exactly_if_a_result_is_published() {
        for reason in R::ALL {
            for attempt in [1, 4, 100] {
                let d = disposition(Some(reason.retry_class()), attempt, 4);
                assert_eq!(d.settle == Settle::Ack, d.publish, "{reason}");
            }
        }
    }
}
