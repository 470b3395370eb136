//! The worker's HTTP server: `/metrics`, `/livez`, `/readyz`, `/status.json` and a status page at `/`.
//! It is read-only and shows nothing of the configuration but the templates of links.

mod guard;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::RestoreMetricsManager;
use crate::worker::WorkerState;
use guard::Hosts;

pub use serve::{ServeLimits, serve, serve_within};

/// Routes for the metrics and the worker's state. They answer to the host names `names`, in addition to
/// addresses, `localhost` and the machine's own name.
pub fn router(metrics: RestoreMetricsManager, state: Arc<WorkerState>, names: &[String]) -> Router {
    let (ready, hosts) = (state.clone(), Arc::new(Hosts::new(names)));
    Router::new()
        .route(
            "/",
            get(|| async {
                asset(
                    "text/html; charset=utf-8",
                    include_str!("admin/status.html"),
                )
            }),
        )
        .route(
            "/status.css",
            get(|| async { asset("text/css", include_str!("admin/status.css")) }),
        )
        .route(
            "/status.js",
            get(|| async { asset("text/javascript", include_str!("admin/status.js")) }),
        )
        .route("/metrics", get(move || async move { exposition(&metrics) }))
        .route("/livez", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move { readiness(&ready.problems()) }),
        )
        .route(
            "/status.json",
            get(move || async move { axum::Json(state.status()) }),
        )
        .layer(from_fn(move |request, next| {
            guard::check(hosts.clone(), request, next)
        }))
}

/// A static file. The page may load nothing from other hosts, and no other page may frame it.
fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    (
        [
            (header::CONTENT_TYPE, kind),
            (header::CONTENT_SECURITY_POLICY, policy),
        ],
        text,
    )
}

fn exposition(metrics: &RestoreMetricsManager) -> impl IntoResponse + use<> {
    // Prometheus 3 rejects a missing or wrong content type.
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics.exposition(),
    )
}

fn readiness(problems: &[String]) -> (StatusCode, String) {
    match problems {
        [] => (StatusCode::OK, "ready\n".to_owned()),
        _ => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready\n{}\n", problems.join("\n")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use crate::error::is_unsafe;

    /// The page's script escapes the characters that terminals and written pages escape.
    #[test]
    fn the_script_knows_the_characters_to_escape() {
        let all = ('\0'..=char::MAX).filter(|c| is_unsafe(*c) && !c.is_control());
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for c in all.map(u32::from) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == c => *last = c,
                _ => ranges.push((c, c)),
            }
        }
        let class = ranges.iter().map(|(first, last)| match last - first {
            0 => format!("\\u{first:04x}"),
            1 => format!("\\u{first:04x}\\u{last:04x}"),
            _ => format!("\\u{first:04x}-\\u{last:04x}"),
        });
        let class = format!(r"/[\p{{Cc}}{}]/gu", class.collect::<String>());
        assert!(include_str!("admin/status.js").contains(&class), "{class}");
    }
}
