//! Emulates Pub/Sub and Cloud Storage on one loopback port, for the demo and the tests: what Google's clients
//! use of both, with the flow control, filters and retry backoff of the services, and with scripted faults.
//! State is kept in memory only. The crate depends on no other crate of this workspace.

mod access;
mod grpc;
mod object_versions;
mod pubsub;
mod resumable;
mod storage;
mod storage_errors;
mod uploads;

use std::net::SocketAddr;

use tokio::net::TcpListener;

pub use access::Access;
pub use object_versions::{BucketOptions, ObjectHolds};
pub use pubsub::{PubSubService, Published, SubscriptionOptions};
pub use storage::{FinalizedObject, StorageFault, StorageService};
pub use storage_errors::{StorageCall, StorageErrorResponse, StorageErrors};

/// A running emulator; dropping it stops it.
pub struct Emulator {
    pub pubsub: PubSubService,
    pub storage: StorageService,
    pub access: Access,
    pub storage_errors: StorageErrors,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
}

impl Emulator {
    /// Listens on `address` (port 0: any free port).
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn start(address: SocketAddr) -> std::io::Result<Self> {
        let (pubsub, storage) = (PubSubService::default(), StorageService::default());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (access, storage_errors) = (Access::default(), StorageErrors::default());
        let of_storage = storage.router().merge(access.storage_router());
        let of_storage = of_storage.merge(uploads::router(storage.clone(), address.port()));
        let routes = pubsub
            .router()
            .merge(storage_errors.guard(of_storage))
            .merge(access.pubsub_router());
        let server = tokio::spawn(async move {
            // Serving ends only with the task.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Emulator {
            pubsub,
            storage,
            access,
            storage_errors,
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
