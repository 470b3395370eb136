//! All metrics, with their names, labels and HELP texts, in the Prometheus text format. Counters start at
//! zero for every label value, so that `increase()` sees the first failure.

use pgdump_restore::Stage;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::error::FailureReason;

const DURATION_BUCKETS: [f64; 12] = [
    30., 60., 120., 300., 600., 900., 1800., 3600., 7200., 14400., 28800., 86400.,
];
const STAGE_BUCKETS: [f64; 9] = [1., 5., 15., 60., 300., 900., 1800., 3600., 14400.];

/// Values of the label `status` of `restore_verification_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerificationStatus {
    Success,
    Failure,
    Inconclusive,
}

impl VerificationStatus {
    pub const ALL: [VerificationStatus; 3] = [Self::Success, Self::Failure, Self::Inconclusive];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// Values of the label `status` of `restore_selftest_total`.
const SELFTEST_STATUS: [&str; 2] = ["success", "failure"];

/// Work that a restore has done so far. All values only grow.
#[derive(Debug, Clone, Copy, Default)]
pub struct Work {
    pub downloaded_bytes: u64,
    pub rows: u64,
    /// Tables loaded, and indexes, keys and other entries created after them.
    pub objects: u64,
    pub download_retries: u64,
}

impl std::ops::Add for Work {
    type Output = Work;

    fn add(self, o: Work) -> Work {
        Work {
            downloaded_bytes: self.downloaded_bytes + o.downloaded_bytes,
            rows: self.rows + o.rows,
            objects: self.objects + o.objects,
            download_retries: self.download_retries + o.download_retries,
        }
    }
}

struct MetricRun {
    id: u64,
    /// Seconds since 1970.
    started: f64,
    work: Box<dyn Fn() -> Work + Send + Sync>,
}

/// Running restores, and the work of those that have ended.
#[derive(Default)]
struct RunningWork {
    runs: Vec<MetricRun>,
    next: u64,
    ended: Work,
}

type SharedRunning = Arc<Mutex<RunningWork>>;

fn lock(running: &Mutex<RunningWork>) -> MutexGuard<'_, RunningWork> {
    running.lock()
}

/// Manages metrics collection for restore operations.
#[derive(Clone)]
pub struct RestoreMetricsManager {
    registry: Registry,
    /// Keeps the instruments alive: after its shutdown, nothing is exported.
    _provider: SdkMeterProvider,
    duration: Histogram<f64>,
    size: Gauge<u64>,
    success: Counter<u64>,
    failure: Counter<u64>,
    verification: Counter<u64>,
    selftest: Counter<u64>,
    running: SharedRunning,
    stage_duration: Histogram<f64>,
    queue_delay: Histogram<f64>,
    redeliveries: Counter<u64>,
    lease_lost: Counter<u64>,
    publish_failure: Counter<u64>,
    resumed: Counter<u64>,
    work_saved: Counter<f64>,
    last_success: Gauge<f64>,
    verification_last_success: Gauge<f64>,
    rto: Gauge<f64>,
    rto_forecast: Gauge<f64>,
    standing_last_success: Gauge<f64>,
    standing_last_failure: Gauge<f64>,
}

/// Counts a restore as in progress until it is dropped.
pub struct InProgress {
    running: SharedRunning,
    id: u64,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(at) = running.runs.iter().position(|r| r.id == self.id) {
            let run = running.runs.swap_remove(at);
            running.ended = running.ended + (run.work)();
        }
    }
}

impl RestoreMetricsManager {
    /// `started`: when this process started, in seconds since 1970.
    ///
    /// # Panics
    /// Never: the registry is new, so nothing can be registered twice.
    #[allow(
        clippy::expect_used,
        reason = "registering in a new registry cannot fail"
    )]
    pub fn new(started: f64) -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_counter_suffixes()
            .without_units()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .expect("registering in a new registry");
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let m = provider.meter("pgrestored");
        let running = SharedRunning::default();
        observe_running(&m, &running, started);
        let counter = |name: &'static str, help: &'static str| {
            let c = m.u64_counter(name).with_description(help).build();
            c.add(0, &[]);
            c
        };
        let labelled = |name: &'static str, help: &'static str| {
            m.u64_counter(name).with_description(help).build()
        };
        let histogram = |name: &'static str, help: &'static str, buckets: &[f64]| {
            m.f64_histogram(name)
                .with_description(help)
                .with_boundaries(buckets.to_vec())
                .build()
        };
        let gauge = |name: &'static str, help: &'static str| {
            m.f64_gauge(name).with_description(help).build()
        };
        let metrics = RestoreMetricsManager {
            registry,
            duration: histogram(
                "restore_duration_seconds",
                "Restore duration",
                &DURATION_BUCKETS,
            ),
            size: m
                .u64_gauge("restore_size_bytes")
                .with_description("Restore size")
                .build(),
            success: counter("restore_success_total", "Successful restores"),
            failure: labelled("restore_failure_total", "Failed restores"),
            verification: labelled("restore_verification_total", "Verifications"),
            selftest: labelled("restore_selftest_total", "Self-tests of the verification"),
            running,
            stage_duration: histogram(
                "restore_stage_duration_seconds",
                "Duration of one stage of a restore",
                &STAGE_BUCKETS,
            ),
            queue_delay: histogram(
                "restore_queue_delay_seconds",
                "Time from publishing a request to its first delivery",
                &STAGE_BUCKETS,
            ),
            redeliveries: counter(
                "restore_redeliveries_total",
                "Deliveries of a request after its first",
            ),
            lease_lost: counter(
                "restore_lease_lost_total",
                "Leases lost while their request was being processed",
            ),
            publish_failure: counter(
                "restore_result_publish_failure_total",
                "Result events that could not be published",
            ),
            resumed: counter(
                "restore_resumed_total",
                "Attempts that went on where an earlier one stopped",
            ),
            work_saved: m
                .f64_counter("restore_work_saved_seconds_total")
                .with_description("Work of earlier attempts that was not repeated")
                .build(),
            last_success: gauge(
                "restore_last_success_timestamp_seconds",
                "When a restore last succeeded",
            ),
            verification_last_success: gauge(
                "restore_verification_last_success_timestamp_seconds",
                "When a backup of the set was last proven",
            ),
            rto: gauge(
                "restore_rto_seconds",
                "How long the last proven restore of the set took",
            ),
            rto_forecast: gauge(
                "restore_rto_forecast_seconds",
                "How long the next restore of the set is likely to take",
            ),
            standing_last_success: gauge(
                "restore_standing_last_success_timestamp_seconds",
                "When a run of the standing restore last succeeded",
            ),
            standing_last_failure: gauge(
                "restore_standing_last_failure_timestamp_seconds",
                "When a run of the standing restore last failed",
            ),
            _provider: provider,
        };
        metrics.zero();
        metrics
    }

    fn zero(&self) {
        self.size.record(0, &[]);
        self.work_saved.add(0.0, &[]);
        self.last_success.record(0.0, &[]);
        for reason in FailureReason::ALL {
            self.failure
                .add(0, &[KeyValue::new("failure_reason", reason.as_str())]);
        }
        for status in VerificationStatus::ALL {
            self.verification
                .add(0, &[KeyValue::new("status", status.as_str())]);
        }
        for status in SELFTEST_STATUS {
            self.selftest.add(0, &[KeyValue::new("status", status)]);
        }
    }

    /// Records the end of a restore.
    ///
    /// `duration` in seconds, `size` in bytes; `failure_reason` is for a failed restore.
    pub fn record_restore_completion(
        &self,
        duration: f64,
        size: u64,
        success: bool,
        failure_reason: Option<FailureReason>,
    ) {
        self.duration.record(duration, &[]);
        self.size.record(size, &[]);
        if success {
            self.success.add(1, &[]);
            self.last_success.record(now_seconds(), &[]);
        } else {
            let reason = failure_reason.unwrap_or(FailureReason::Internal);
            self.failure
                .add(1, &[KeyValue::new("failure_reason", reason.as_str())]);
        }
    }

    /// Records the end of a verification; a success also counts as a proof of `backup_set`, if one is given.
    pub fn record_verification(&self, status: VerificationStatus, backup_set: Option<&str>) {
        self.verification
            .add(1, &[KeyValue::new("status", status.as_str())]);
        if let (VerificationStatus::Success, Some(set)) = (status, backup_set) {
            self.record_proof(set, now_seconds());
        }
    }

    /// Records when a backup of the set was last proven, in seconds since 1970; 0 means never. Proofs by
    /// earlier processes count as well.
    pub fn record_proof(&self, backup_set: &str, at: f64) {
        let set = KeyValue::new("backup_set", backup_set.to_owned());
        self.verification_last_success.record(at, &[set]);
    }

    /// Records how long the last proven restore of the set took and the forecast for the next, in seconds.
    pub fn record_rto(&self, backup_set: &str, measured: f64, forecast: f64) {
        let set = [KeyValue::new("backup_set", backup_set.to_owned())];
        self.rto.record(measured, &set);
        self.rto_forecast.record(forecast, &set);
    }

    /// Records when a run of a standing restore last succeeded and last failed, in seconds since 1970; 0 means never. Runs by
    /// other workers count as well.
    pub fn record_standing(&self, order: &str, success: f64, failure: f64) {
        let order = [KeyValue::new("order", order.to_owned())];
        self.standing_last_success.record(success, &order);
        self.standing_last_failure.record(failure, &order);
    }

    /// Records the end of a self-test: whether every case had the expected verdict.
    pub fn record_selftest(&self, passed: bool) {
        let status = SELFTEST_STATUS[usize::from(!passed)];
        self.selftest.add(1, &[KeyValue::new("status", status)]);
    }

    /// Records the start of a restore; it is in progress until the guard is dropped. `work` returns what
    /// it has done so far, so that counters move while it runs.
    pub fn start_restore(&self, work: impl Fn() -> Work + Send + Sync + 'static) -> InProgress {
        let mut running = lock(&self.running);
        let id = running.next;
        running.next += 1;
        running.runs.push(MetricRun {
            id,
            started: now_seconds(),
            work: Box::new(work),
        });
        InProgress {
            running: self.running.clone(),
            id,
        }
    }

    pub fn record_stage(&self, stage: Stage, seconds: f64) {
        self.stage_duration
            .record(seconds, &[KeyValue::new("stage", stage.as_str())]);
    }

    pub fn record_queue_delay(&self, seconds: f64) {
        self.queue_delay.record(seconds.max(0.0), &[]);
    }

    pub fn record_redelivery(&self) {
        self.redeliveries.add(1, &[]);
    }

    pub fn record_lease_lost(&self) {
        self.lease_lost.add(1, &[]);
    }

    pub fn record_publish_failure(&self) {
        self.publish_failure.add(1, &[]);
    }

    /// Records an attempt that went on where an earlier one stopped, and how many seconds of work that saved.
    pub fn record_resumed(&self, saved_seconds: f64) {
        self.resumed.add(1, &[]);
        self.work_saved.add(saved_seconds.max(0.0), &[]);
    }

    /// An exposition with a value for every series.
    pub fn sample() -> String {
        let m = RestoreMetricsManager::new(0.0);
        m.record_restore_completion(1.0, 1, true, None);
        m.record_verification(VerificationStatus::Success, Some("default"));
        m.record_rto("default", 1.0, 1.0);
        m.record_standing("staging", 1.0, 1.0);
        m.record_stage(Stage::Data, 1.0);
        m.record_queue_delay(1.0);
        m.exposition()
    }

    /// All series in the Prometheus text format.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        if let Err(e) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %e, "failed to encode the metrics");
        }
        text
    }
}

fn observe_running(m: &Meter, running: &SharedRunning, started: f64) {
    let r = running.clone();
    m.i64_observable_gauge("restore_in_progress")
        .with_description("Current restores")
        .with_callback(move |o| o.observe(lock(&r).runs.len() as i64, &[]))
        .build();
    let r = running.clone();
    m.f64_observable_gauge("restore_oldest_start_timestamp_seconds")
        .with_description("When the oldest running restore started, 0 when idle")
        .with_callback(move |o| {
            let oldest = lock(&r).runs.iter().map(|run| run.started).reduce(f64::min);
            o.observe(oldest.unwrap_or(0.0), &[]);
        })
        .build();
    let counter = |name: &'static str, help: &'static str, part: fn(Work) -> u64| {
        let r = running.clone();
        let done = move || {
            let r = lock(&r);
            r.runs
                .iter()
                .map(|run| (run.work)())
                .fold(r.ended, std::ops::Add::add)
        };
        let m = m.u64_observable_counter(name).with_description(help);
        m.with_callback(move |o| o.observe(part(done()), &[]))
            .build();
    };
    counter(
        "restore_downloaded_bytes_total",
        "Bytes of backups read for restores",
        |w| w.downloaded_bytes,
    );
    counter("restore_rows_total", "Rows restored", |w| w.rows);
    let objects = "Tables loaded, and indexes, keys and other objects created after them";
    counter("restore_objects_restored_total", objects, |w| w.objects);
    counter(
        "restore_download_retries_total",
        "Downloads resumed after a disconnect or a stall",
        |w| w.download_retries,
    );
    m.f64_observable_gauge("process_start_time_seconds")
        .with_description("When this process started")
        .with_callback(move |o| o.observe(started, &[]))
        .build();
    m.u64_observable_gauge("restore_build_info")
        .with_description("Version of this worker")
        .with_callback(|o| o.observe(1, &[KeyValue::new("version", env!("CARGO_PKG_VERSION"))]))
        .build();
}

/// Seconds since 1970.
pub fn now_seconds() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_was_not_repeated_is_counted() {
        let metrics = RestoreMetricsManager::new(0.0);
        let value = |name: &str| {
            let text = metrics.exposition();
            let mut lines = text.lines().filter_map(|l| l.split_once(' '));
            let found = lines.find(|(series, _)| *series == name);
            found.map(|(_, value)| value.parse::<f64>().unwrap())
        };
        let both = || ["restore_resumed_total", "restore_work_saved_seconds_total"].map(value);
        assert_eq!(both(), [Some(0.0), Some(0.0)]);
        metrics.record_resumed(90.5);
        metrics.record_resumed(0.0);
        assert_eq!(both(), [Some(2.0), Some(90.5)]);
    }
}
