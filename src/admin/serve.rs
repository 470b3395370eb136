//! Connections of the admin port: their number and lifetime are limited. A new connection beyond the
//! limit replaces the oldest, so a probe gets through however many idle connections are held open, and
//! restores keep the descriptors that they need.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Most concurrent connections.
    pub connections: usize,
    /// Time limit for receiving a request's head, from its first byte or from the previous response.
    pub head: Duration,
    /// Time after which a connection is closed, even if it is in use.
    pub lifetime: Duration,
}

/// Most concurrent connections, if the process has enough descriptors.
const MAX_CONNECTIONS: usize = 64;
/// Connections may use one in this many of the process's descriptors.
const DESCRIPTOR_SHARE: u64 = 8;
/// Replaced connections that may be closing at the same time.
const MAX_CLOSING: usize = 16;
/// How long a connection may take to finish its current response when its lifetime is over.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a failed accept: without free descriptors it would fail again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);
/// Pause between log lines about failed accepts.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Most header fields of a request.
const MAX_FIELDS: usize = 64;

impl Default for ServeLimits {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = limit.map_or(MAX_CONNECTIONS, |n| {
            usize::try_from(n / DESCRIPTOR_SHARE).unwrap_or(MAX_CONNECTIONS)
        });
        ServeLimits {
            connections: share.clamp(4, MAX_CONNECTIONS),
            head: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
        }
    }
}

/// Open connections, oldest first; cancelling a connection's token closes it.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<VecDeque<(u64, CancellationToken)>>>);

/// An open connection; dropping it removes it from the list.
struct Connection {
    open: Open,
    id: u64,
    evicted: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, CancellationToken)>> {
        self.0.lock()
    }

    fn add(&self, id: u64, permit: OwnedSemaphorePermit, most: usize) -> Connection {
        let evicted = CancellationToken::new();
        let mut all = self.lock();
        while all.len() >= most {
            if let Some((_, oldest)) = all.pop_front() {
                oldest.cancel();
            }
        }
        all.push_back((id, evicted.clone()));
        Connection {
            open: self.clone(),
            id,
            evicted,
            _permit: permit,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.lock().retain(|(id, _)| *id != self.id);
    }
}

/// Serves `routes` within the default limits for as long as it is polled.
pub async fn serve(listener: TcpListener, routes: Router) {
    serve_within(listener, routes, ServeLimits::default()).await;
}

/// Serves `routes` within the given limits for as long as it is polled.
pub async fn serve_within(listener: TcpListener, routes: Router, limits: ServeLimits) {
    let open = Open::default();
    let permits = Arc::new(Semaphore::new(limits.connections + MAX_CLOSING));
    let mut logged: Option<tokio::time::Instant> = None;
    for id in 0.. {
        // Replaced connections hold a descriptor, and therefore a permit, until they are closed.
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = open.add(id, permit, limits.connections);
                tokio::spawn(serve_one(stream, routes.clone(), limits, connection));
            }
            Err(e) => {
                if logged.is_none_or(|at| at.elapsed() > LOG_INTERVAL) {
                    logged = Some(tokio::time::Instant::now());
                    tracing::warn!(error = %e, "the admin port cannot accept connections");
                }
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, routes: Router, limits: ServeLimits, connection: Connection) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(served);
    tokio::select! {
        // An error concerns only the client.
        _ = &mut served => return,
        () = connection.evicted.cancelled() => return,
        () = tokio::time::sleep(limits.lifetime) => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = connection.evicted.cancelled() => {}
        () = tokio::time::sleep(CLOSE_TIMEOUT) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const ASK: &[u8] = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    async fn server(bounds: ServeLimits) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<crate::worker::WorkerState>::default();
        let metrics = crate::metrics::RestoreMetricsManager::new(0.0);
        tokio::spawn(serve_within(
            listener,
            crate::admin::router(metrics, state, &[]),
            bounds,
        ));
        address
    }

    async fn ask(address: std::net::SocketAddr, what: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(what).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn idle_connections_do_not_keep_others_out() {
        let hour = Duration::from_secs(3600);
        let address = server(ServeLimits {
            connections: 8,
            head: hour,
            lifetime: hour,
        })
        .await;
        let mut silent = Vec::new();
        for _ in 0..300 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-a: ")
                .await
                .unwrap();
            silent.push(stream);
        }
        let answer = ask(address, ASK).await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"),
            "{answer}"
        );
        // All but the newest were closed.
        for stream in &mut silent[..300 - 8] {
            let _ = stream.read(&mut [0; 1]).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn connections_without_a_complete_request_are_closed() {
        let short = Duration::from_millis(100);
        for bounds in [
            ServeLimits {
                connections: 8,
                head: short,
                lifetime: Duration::from_secs(3600),
            },
            ServeLimits {
                connections: 8,
                head: Duration::from_secs(3600),
                lifetime: short,
            },
        ] {
            let address = server(bounds).await;
            let answer = ask(address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-a: ").await;
            assert!(!answer.contains("200"), "{answer}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn foreign_hosts_bodies_and_large_heads_are_refused() {
        let address = server(ServeLimits::default()).await;
        for (head, code) in [
            ("GET /livez HTTP/1.1\r\nHost: 10.1.2.3:9464\r\n", "200"),
            ("GET /livez HTTP/1.0\r\n", "200"),
            ("GET /livez HTTP/1.1\r\n", "421"),
            ("GET /status.json HTTP/1.1\r\nHost: evil.example\r\n", "421"),
            (
                "GET http://evil.example/metrics HTTP/1.1\r\nHost: localhost\r\n",
                "421",
            ),
            (
                "GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n",
                "421",
            ),
            (
                "GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n",
                "413",
            ),
            (
                "POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n",
                "413",
            ),
            ("POST /livez HTTP/1.1\r\nHost: localhost\r\n", "405"),
        ] {
            let answer = ask(
                address,
                format!("{head}Connection: close\r\n\r\n").as_bytes(),
            )
            .await;
            assert!(answer.split(' ').nth(1) == Some(code), "{head}: {answer}");
        }
        let huge = format!(
            "GET /livez HTTP/1.1\r\nHost: localhost\r\nX-a: {}\r\n\r\n",
            "x".repeat(MAX_HEAD)
        );
        assert!(!ask(address, huge.as_bytes()).await.contains("200"));
    }
}
