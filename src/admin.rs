//! The worker's HTTP side: `/metrics`, `/livez`, `/readyz`, `/status.json`. Read-only; nothing of the
//! configuration is shown.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::RestoreMetricsManager;
use crate::worker::WorkerState;

/// Routes over the metrics and the worker's state.
pub fn router(metrics: RestoreMetricsManager, state: Arc<WorkerState>) -> Router {
    let ready = state.clone();
    Router::new()
        .route("/metrics", get(move || async move { exposition(&metrics) }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || async move { readiness(ready.is_ready()) }))
        .route("/status.json", get(move || async move { axum::Json(state.status()) }))
}

fn exposition(metrics: &RestoreMetricsManager) -> impl IntoResponse + use<> {
    // Prometheus 3 refuses a missing or wrong content type.
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.exposition())
}

fn readiness(ready: bool) -> (StatusCode, &'static str) {
    match ready {
        true => (StatusCode::OK, "ready\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    }
}
