//! Queues of requests and results: the ports, and the Pub/Sub adapter.

mod health;
mod pubsub;
mod setup;
mod slots;

use std::collections::HashMap;

use futures::future::BoxFuture;

pub use health::{Health, Resource};
pub use pubsub::{PubSub, PubSubConfig};
pub use setup::{Lookup, SubscriptionSetup};

use crate::event::Message;

/// A failed queue operation; the message is human-readable.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Access is denied: retrying does not help.
    #[error("{0}")]
    Permanent(String),
    /// The subscription or topic does not exist.
    #[error("{0}")]
    Missing(String),
    /// The service rejects this message (INVALID_ARGUMENT); others can still be published.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Transient(String),
}

impl QueueError {
    /// The same error with another message, made of this one's.
    fn reworded(self, message: impl FnOnce(String) -> String) -> Self {
        match self {
            QueueError::Permanent(what) => QueueError::Permanent(message(what)),
            QueueError::Missing(what) => QueueError::Missing(message(what)),
            QueueError::Refused(what) => QueueError::Refused(message(what)),
            QueueError::Transient(what) => QueueError::Transient(message(what)),
        }
    }
}

/// A message of a subscription.
pub struct Delivery {
    pub message_id: String,
    pub data: Vec<u8>,
    pub attributes: HashMap<String, String>,
    /// When the message was published, in microseconds since 1970, by the server's clock.
    pub published: i64,
    /// Which delivery of the message this is, from 1, if the subscription counts them.
    pub attempt: Option<u32>,
    pub lease: Box<dyn Lease>,
}

/// The lease of a message. It is extended until the message is acked or nacked; dropping it nacks the
/// message.
pub trait Lease: Send {
    /// Acknowledges the message.
    ///
    /// # Errors
    /// The lease had expired: the message will be redelivered.
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>>;

    /// Keeps the lease, but frees the message's slot in flow control, so that another message may be
    /// delivered meanwhile.
    fn rest(&mut self);

    /// Requests redelivery of the message.
    fn nack(self: Box<Self>);
}

/// A subscription that delivers requests or notifications.
pub trait RequestQueue: Send {
    /// The next message. Waits without limit and reconnects by itself. Do not call it again after
    /// `Permanent`.
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, QueueError>>;

    /// Stops pulling. Messages that have not been handed out are nacked; held leases stay held.
    fn close(&mut self) -> BoxFuture<'_, ()>;

    /// Once all leases are settled, waits until the server has received the acks and nacks.
    fn flush(&mut self) -> BoxFuture<'_, ()>;
}

/// A topic for results or requests.
pub trait ResultSink: Send + Sync {
    /// Publishes, retrying for a limited time, and waits until the message is stored; returns its id.
    ///
    /// # Errors
    /// `Refused` if the service rejects the message; `Transient` if the time limit was reached.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<String, QueueError>>;
}
