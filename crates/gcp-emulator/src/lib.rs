//! Pub/Sub and Cloud Storage on one loopback port, for the demo and the tests: what Google's clients
//! need of both, with flow control, filters and retry backoff as the service has them, and with
//! faults on demand. State is in memory and lost at the end. It depends on no other crate of this workspace.

mod access;
mod grpc;
mod pubsub;
mod storage;

use std::net::SocketAddr;

use tokio::net::TcpListener;

pub use access::Access;
pub use pubsub::{PubSubService, Published, SubscriptionOptions};
pub use storage::{StorageFault, StorageService};

/// A running emulator; it stops when this is dropped.
pub struct Emulator {
    pub pubsub: PubSubService,
    pub storage: StorageService,
    pub access: Access,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Emulator {
    /// Listens on `address` (port 0 for any).
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(address: SocketAddr) -> std::io::Result<Self> {
        let (pubsub, storage) = (PubSubService::default(), StorageService::default());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let access = Access::default();
        let routes = pubsub
            .router()
            .merge(storage.router())
            .merge(access.router());
        let server = tokio::spawn(async move {
            // Serving ends only with the task.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Emulator {
            pubsub,
            storage,
            access,
            address,
            server,
        })
    }

    /// `host:port`, for `PUBSUB_EMULATOR_HOST` and `STORAGE_EMULATOR_HOST`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.server.abort();
    }
}
