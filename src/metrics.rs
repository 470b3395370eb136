//! The catalogue of metrics: names, labels and HELP texts of the contract, exactly, in Prometheus'
//! text format. Counters start at zero for every label value, so that `increase()` sees a first
//! failure.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, MeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};

use crate::error::FailureReason;

const DURATION_BUCKETS: [f64; 12] =
    [30., 60., 120., 300., 600., 900., 1800., 3600., 7200., 14400., 28800., 86400.];
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

/// Start times of running restores, in seconds since 1970.
#[derive(Debug, Default)]
struct Running(Mutex<Vec<(u64, f64)>>);

/// Manages metrics collection for restore operations.
#[derive(Clone)]
pub struct RestoreMetricsManager {
    registry: Registry,
    /// Keeps the instruments alive: after its shutdown nothing is exported.
    _provider: SdkMeterProvider,
    duration: Histogram<f64>,
    size: Gauge<u64>,
    success: Counter<u64>,
    failure: Counter<u64>,
    verification: Counter<u64>,
    running: Arc<Running>,
    next_run: Arc<AtomicI64>,
    stage_duration: Histogram<f64>,
    downloaded: Counter<u64>,
    rows: Counter<u64>,
    queue_delay: Histogram<f64>,
    redeliveries: Counter<u64>,
    lease_lost: Counter<u64>,
    download_retries: Counter<u64>,
    publish_failure: Counter<u64>,
    last_success: Gauge<f64>,
    verification_last_success: Gauge<f64>,
    rto: Gauge<f64>,
    rto_forecast: Gauge<f64>,
}

/// A restore that counts as in progress until this is dropped.
pub struct InProgress {
    running: Arc<Running>,
    id: u64,
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|(id, _)| *id != self.id);
    }
}

impl RestoreMetricsManager {
    /// `started`: seconds since 1970 at which this process started.
    ///
    /// # Panics
    /// Never: the registry is new, so nothing can be registered twice.
    #[allow(clippy::expect_used, reason = "a fresh registry refuses nothing")]
    pub fn new(started: f64) -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .without_counter_suffixes()
            .without_units()
            .without_target_info()
            .scope_info_enabled(false)
            .build()
            .expect("a fresh registry");
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let m = provider.meter("pgrestored");
        let running = Arc::new(Running::default());
        observe_running(&m, &running, started);
        let counter = |name: &'static str, help: &'static str| {
            let c = m.u64_counter(name).with_description(help).build();
            c.add(0, &[]);
            c
        };
        let labelled =
            |name: &'static str, help: &'static str| m.u64_counter(name).with_description(help).build();
        let histogram = |name: &'static str, help: &'static str, buckets: &[f64]| {
            m.f64_histogram(name).with_description(help).with_boundaries(buckets.to_vec()).build()
        };
        let gauge = |name: &'static str, help: &'static str| m.f64_gauge(name).with_description(help).build();
        let metrics = RestoreMetricsManager {
            registry,
            duration: histogram("restore_duration_seconds", "Restore duration", &DURATION_BUCKETS),
            size: m.u64_gauge("restore_size_bytes").with_description("Restore size").build(),
            success: counter("restore_success_total", "Successful restores"),
            failure: labelled("restore_failure_total", "Failed restores"),
            verification: labelled("restore_verification_total", "Verifications"),
            running,
            next_run: Arc::default(),
            stage_duration: histogram(
                "restore_stage_duration_seconds",
                "Duration of one stage of a restore",
                &STAGE_BUCKETS,
            ),
            downloaded: counter("restore_downloaded_bytes_total", "Bytes of backups read from the store"),
            rows: counter("restore_rows_total", "Rows restored"),
            queue_delay: histogram(
                "restore_queue_delay_seconds",
                "Time from publishing a request to its first delivery",
                &STAGE_BUCKETS,
            ),
            redeliveries: counter("restore_redeliveries_total", "Deliveries of a request after its first"),
            lease_lost: counter(
                "restore_lease_lost_total",
                "Leases that ended while their request was worked on",
            ),
            download_retries: counter(
                "restore_download_retries_total",
                "Downloads resumed after a cut or a stall",
            ),
            publish_failure: counter(
                "restore_result_publish_failure_total",
                "Result events that could not be published",
            ),
            last_success: gauge("restore_last_success_timestamp_seconds", "When a restore last succeeded"),
            verification_last_success: gauge(
                "restore_verification_last_success_timestamp_seconds",
                "When a backup of the set was last proven restorable",
            ),
            rto: gauge("restore_rto_seconds", "How long the last proven restore of the set took"),
            rto_forecast: gauge(
                "restore_rto_forecast_seconds",
                "How long the next restore of the set is likely to take",
            ),
            _provider: provider,
        };
        metrics.zero();
        metrics
    }

    fn zero(&self) {
        self.size.record(0, &[]);
        self.last_success.record(0.0, &[]);
        for reason in FailureReason::ALL {
            self.failure.add(0, &[KeyValue::new("failure_reason", reason.as_str())]);
        }
        for status in VerificationStatus::ALL {
            self.verification.add(0, &[KeyValue::new("status", status.as_str())]);
        }
    }

    /// Record restore completion metrics.
    ///
    /// `duration` in seconds, `size` in bytes; `failure_reason` of a failed restore.
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
            self.failure.add(1, &[KeyValue::new("failure_reason", reason.as_str())]);
        }
    }

    /// Records the end of a verification; a success is also remembered for `backup_set`, if one is given.
    pub fn record_verification(&self, status: VerificationStatus, backup_set: Option<&str>) {
        self.verification.add(1, &[KeyValue::new("status", status.as_str())]);
        if let (VerificationStatus::Success, Some(set)) = (status, backup_set) {
            self.record_proof(set, now_seconds());
        }
    }

    /// When a backup of the set was last proven, in seconds since 1970; 0 for never. A proof of an
    /// earlier process counts as well.
    pub fn record_proof(&self, backup_set: &str, at: f64) {
        let set = KeyValue::new("backup_set", backup_set.to_owned());
        self.verification_last_success.record(at, &[set]);
    }

    /// How long restores of the set take, in seconds.
    pub fn record_rto(&self, backup_set: &str, measured: f64, forecast: f64) {
        let set = [KeyValue::new("backup_set", backup_set.to_owned())];
        self.rto.record(measured, &set);
        self.rto_forecast.record(forecast, &set);
    }

    /// A restore starts now; it counts as in progress while the guard lives.
    pub fn start_restore(&self) -> InProgress {
        let id = self.next_run.fetch_add(1, Relaxed).unsigned_abs();
        let mut running = self.running.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.push((id, now_seconds()));
        InProgress { running: self.running.clone(), id }
    }

    pub fn record_stage(&self, stage: &'static str, seconds: f64) {
        self.stage_duration.record(seconds, &[KeyValue::new("stage", stage)]);
    }

    pub fn record_work(&self, downloaded_bytes: u64, rows: u64, download_retries: u64) {
        self.downloaded.add(downloaded_bytes, &[]);
        self.rows.add(rows, &[]);
        self.download_retries.add(download_retries, &[]);
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

    /// All series in Prometheus' text format.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        if let Err(e) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(error = %e, "metrics cannot be written");
        }
        text
    }
}

fn observe_running(m: &Meter, running: &Arc<Running>, started: f64) {
    let r = running.clone();
    m.i64_observable_gauge("restore_in_progress")
        .with_description("Current restores")
        .with_callback(move |o| {
            let count = r.0.lock().unwrap_or_else(PoisonError::into_inner).len();
            o.observe(count as i64, &[]);
        })
        .build();
    let r = running.clone();
    m.f64_observable_gauge("restore_oldest_start_timestamp_seconds")
        .with_description("When the oldest running restore started, 0 when idle")
        .with_callback(move |o| {
            let running = r.0.lock().unwrap_or_else(PoisonError::into_inner);
            let oldest = running.iter().map(|(_, t)| *t).reduce(f64::min);
            o.observe(oldest.unwrap_or(0.0), &[]);
        })
        .build();
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
