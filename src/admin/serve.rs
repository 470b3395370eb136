//! Connections of the admin port: few at a time, each for a short time. Whoever opens many and says
//! nothing takes the places of others like it: the oldest goes when there is none left, so that a probe
//! gets in, and the descriptors that restores need are never touched.

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

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Until a request's head is there, from the first byte or from the answer before.
    pub head: Duration,
    /// Until the connection is closed, whatever it does.
    pub lifetime: Duration,
}

/// Connections at a time, where there are enough descriptors.
const CONNECTIONS: usize = 64;
/// The share of the descriptors of this process that connections may have: one in so many.
const SHARE: u64 = 8;
/// Connections that are being closed to make way.
const LEAVING: usize = 16;
/// How long one that has to end may still take.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Pause where no connection can be taken: without descriptors, accepting fails again at once.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// Between lines of the log that say so.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Bytes and fields of a request's head.
const MAX_HEAD: usize = 16 << 10;
const MAX_FIELDS: usize = 64;

impl Default for ServeLimits {
    fn default() -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let share = limit.map_or(CONNECTIONS, |n| {
            usize::try_from(n / SHARE).unwrap_or(CONNECTIONS)
        });
        ServeLimits {
            connections: share.clamp(4, CONNECTIONS),
            head: Duration::from_secs(5),
            lifetime: Duration::from_secs(60),
        }
    }
}

/// Open connections, oldest first; each is told to end by its token.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<VecDeque<(u64, CancellationToken)>>>);

/// One of them, until it is dropped.
struct Connection {
    open: Open,
    id: u64,
    evicted: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(u64, CancellationToken)>> {
        self.0.lock()
    }

    fn add(&self, id: u64, place: OwnedSemaphorePermit, most: usize) -> Connection {
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
            _place: place,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.lock().retain(|(id, _)| *id != self.id);
    }
}

/// Serves for as long as it is polled.
pub async fn serve(listener: TcpListener, routes: Router) {
    serve_within(listener, routes, ServeLimits::default()).await;
}

/// The same within other bounds.
pub async fn serve_within(listener: TcpListener, routes: Router, bounds: ServeLimits) {
    let open = Open::default();
    let places = Arc::new(Semaphore::new(bounds.connections + LEAVING));
    let mut said: Option<tokio::time::Instant> = None;
    for id in 0.. {
        // Those that were told to end have a descriptor until they have.
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = open.add(id, place, bounds.connections);
                tokio::spawn(one(stream, routes.clone(), bounds, connection));
            }
            Err(e) => {
                if said.is_none_or(|at| at.elapsed() > SAY_AGAIN) {
                    said = Some(tokio::time::Instant::now());
                    tracing::warn!(error = %e, "the admin port takes no connection");
                }
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

async fn one(stream: TcpStream, routes: Router, bounds: ServeLimits, connection: Connection) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    tokio::pin!(served);
    tokio::select! {
        // However it ends: nobody is to be told.
        _ = &mut served => return,
        () = connection.evicted.cancelled() => return,
        () = tokio::time::sleep(bounds.lifetime) => {}
    }
    served.as_mut().graceful_shutdown();
    tokio::select! {
        _ = served => {}
        () = connection.evicted.cancelled() => {}
        () = tokio::time::sleep(LAST_WORDS) => {}
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
    async fn those_who_say_nothing_keep_nobody_out() {
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
        // All but the newest were sent away.
        for stream in &mut silent[..300 - 8] {
            let _ = stream.read(&mut [0; 1]).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_head_that_does_not_come_is_not_waited_for() {
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
    async fn what_is_not_for_us_is_refused() {
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
