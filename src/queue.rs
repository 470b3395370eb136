//! Where requests come from and results go: the ports, and the Pub/Sub adapter.

mod health;
mod pubsub;
mod setup;
mod slots;

use std::collections::HashMap;

use futures::future::BoxFuture;

pub use health::{Health, Resource};
pub use pubsub::{PubSub, PubSubConfig};
pub use setup::{Lookup, SubscriptionSetup, check_credentials};

use crate::event::Message;

/// What went wrong with the queue; the message says it for a person.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The subscription or topic is missing or refused: a retry changes nothing.
    #[error("{0}")]
    Permanent(String),
    /// This message cannot be published as it is (INVALID_ARGUMENT); another one can.
    #[error("{0}")]
    Refused(String),
    #[error("{0}")]
    Transient(String),
}

/// A message of a subscription.
pub struct Delivery {
    pub message_id: String,
    pub data: Vec<u8>,
    pub attributes: HashMap<String, String>,
    /// When the message was published, in microseconds since 1970; the server's clock.
    pub published: i64,
    /// Which delivery of the message this is, from 1, where the subscription counts them.
    pub attempt: Option<u32>,
    pub lease: Box<dyn Lease>,
}

/// The right to work on a message. It is kept until it is given back; dropping it gives it back
/// unfinished.
pub trait Lease: Send {
    /// The message is done.
    ///
    /// # Errors
    /// The lease had ended: the message will be delivered again.
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>>;

    /// Nobody works on the message any more, though it is not given back yet: another one may come in
    /// its place.
    fn rest(&mut self);

    /// The message is to be delivered again.
    fn nack(self: Box<Self>);
}

/// A subscription with requests.
pub trait RequestQueue: Send {
    /// The next message. Waits for ever; reconnects by itself. Not to be called again after `Permanent`.
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, QueueError>>;

    /// Stops taking messages; those not handed out go back. Leases that are held stay held.
    fn close(&mut self) -> BoxFuture<'_, ()>;

    /// Waits, once all leases are settled, until the server has been told.
    fn flush(&mut self) -> BoxFuture<'_, ()>;
}

/// A topic for results or requests.
pub trait ResultSink: Send + Sync {
    /// Publishes and waits until the message is stored; returns its id.
    ///
    /// # Errors
    /// After the configured time of trying.
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<String, QueueError>>;
}
