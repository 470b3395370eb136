//! Pub/Sub through Google's client. One pump task per subscription owns the stream, because the client's
//! `next()` is not cancel-safe, only the server does flow control, the client does not notice a half-open
//! connection, and a stream that has ended stays dead. The pump forwards into a channel, requests only as
//! many messages as the worker can take, replaces a stream that has been idle for long, and opens a new
//! one with backoff whenever one ends.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::RetryPolicyExt as _;
use google_cloud_pubsub::client::{Publisher, Subscriber};
use google_cloud_pubsub::error::PublishError;
use google_cloud_pubsub::model::Message as PubSubMessage;
use google_cloud_pubsub::retry_policy::RetryableErrors;
use google_cloud_pubsub::subscriber::MessageStream;
use google_cloud_pubsub::subscriber::handler::Handler;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::health::FoundBy;
use super::slots::{MessageSlot, Slots};
use super::{Delivery, Health, Lease, QueueError, RequestQueue, Resource, ResultSink};
use crate::error::report;
use crate::event::Message;
use crate::retry::Backoff;

/// How long publishing is retried.
const PUBLISH_BUDGET: Duration = Duration::from_secs(60);
/// How long a stopping subscription waits for its last acks and nacks to arrive.
const FLUSH_BUDGET: Duration = Duration::from_secs(5);

/// A stream that has not been rejected for this long counts as healthy: the subscription may simply be empty.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// How to reach Pub/Sub.
#[derive(Debug, Clone)]
pub struct PubSubConfig {
    pub project: String,
    /// An emulator's endpoint, with scheme: plain HTTP, no credentials.
    pub emulator: Option<String>,
    /// How long one message may be held; must exceed the longest restore.
    pub max_lease: Duration,
    /// How many messages may be processed at once.
    pub concurrency: usize,
    /// Length of one lease extension (10 to 600 s). A killed worker's message is redelivered after this
    /// time.
    pub lease_extension: Duration,
    /// A stream that delivered nothing for this long is replaced together with its connection, which may
    /// be half-open.
    pub idle_recycle: Duration,
}

/// Opens subscriptions and topics of one project.
#[derive(Clone)]
pub struct PubSub {
    config: PubSubConfig,
    pub(super) health: Health,
}

impl PubSub {
    pub fn new(config: PubSubConfig) -> Self {
        PubSub {
            config,
            health: Health::default(),
        }
    }

    /// Known problems of its topics and subscriptions; updated by [`PubSub::watch`] and by streams.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    pub(super) fn emulator(&self) -> Option<&String> {
        self.config.emulator.as_ref()
    }

    /// The full resource name of `name`, which may be short or already of the form
    /// `projects/…/subscriptions/…`.
    pub(super) fn resource(&self, kind: &str, name: &str) -> String {
        if name.starts_with("projects/") {
            name.to_owned()
        } else {
            format!("projects/{}/{kind}/{name}", self.config.project)
        }
    }

    /// # Errors
    /// The client could not be built, usually because credentials are missing.
    pub async fn subscribe(
        &self,
        subscription: &str,
    ) -> Result<impl RequestQueue + use<>, QueueError> {
        let pump = Pump {
            subscription: self.resource("subscriptions", subscription),
            config: self.config.clone(),
            stop: CancellationToken::new(),
            streams: TaskTracker::new(),
            slots: Slots::new(self.config.concurrency),
            health: self.health.clone(),
        };
        // Report missing credentials now; the pump would only retry.
        drop(pump.client().await?);
        // At most one message waits here; the others stay on the server until the worker can take them.
        let (tx, rx) = mpsc::channel(1);
        let (stop, streams) = (pump.stop.clone(), pump.streams.clone());
        let task = tokio::spawn(pump.run(tx));
        Ok(Subscription {
            incoming: rx,
            stop,
            task: Some(task),
            streams,
        })
    }

    /// # Errors
    /// The client could not be built, usually because credentials are missing.
    pub async fn topic(&self, topic: &str) -> Result<impl ResultSink + use<>, QueueError> {
        let mut builder = Publisher::builder(self.resource("topics", topic));
        if let Some(endpoint) = &self.config.emulator {
            builder = builder
                .with_endpoint(endpoint)
                .with_credentials(anonymous::Builder::new().build());
        }
        let publisher = builder
            .with_retry_policy(RetryableErrors.with_time_limit(PUBLISH_BUDGET))
            // No batching: a rejected message must not fail others with it.
            .set_message_count_threshold(1)
            .build()
            .await
            .map_err(|e| QueueError::Permanent(format!("Pub/Sub client: {}", report(&e))))?;
        Ok(Topic { publisher })
    }
}

struct Topic {
    publisher: Publisher,
}

impl ResultSink for Topic {
    fn publish(&self, message: Message) -> BoxFuture<'_, Result<String, QueueError>> {
        let message = PubSubMessage::new()
            .set_data(message.data)
            .set_attributes(message.attributes);
        let sent = self.publisher.publish(message);
        Box::pin(async move {
            sent.await.map_err(|e| {
                let what = format!("publishing: {}", report(&e));
                if is_refused(&e) {
                    QueueError::Refused(what)
                } else {
                    QueueError::Transient(what)
                }
            })
        })
    }
}

/// Whether the service rejects this message for good.
fn is_refused(e: &PublishError) -> bool {
    let PublishError::Rpc(e) = e else {
        return false;
    };
    let code = e.status().map(|s| s.code);
    matches!(code, Some(Code::InvalidArgument | Code::OutOfRange))
}

struct Subscription {
    incoming: mpsc::Receiver<Result<Delivery, QueueError>>,
    stop: CancellationToken,
    task: Option<tokio::task::JoinHandle<()>>,
    /// Streams that still have leases to settle.
    streams: TaskTracker,
}

impl RequestQueue for Subscription {
    fn next(&mut self) -> BoxFuture<'_, Result<Delivery, QueueError>> {
        Box::pin(async {
            let next = self.incoming.recv().await;
            next.unwrap_or_else(|| Err(QueueError::Permanent("the subscription is closed".into())))
        })
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.stop.cancel();
        Box::pin(async {
            // Dropping what waits in the channel drops its leases, which nacks the messages.
            self.incoming.close();
            while self.incoming.recv().await.is_some() {}
            if let Some(task) = self.task.take() {
                let _ = tokio::time::timeout(FLUSH_BUDGET, task).await;
            }
            self.streams.close();
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if tokio::time::timeout(FLUSH_BUDGET, self.streams.wait())
                .await
                .is_err()
            {
                tracing::warn!(
                    "the last acknowledgements may not have reached Pub/Sub: their messages may be redelivered"
                );
            }
        })
    }
}

struct Pump {
    subscription: String,
    config: PubSubConfig,
    stop: CancellationToken,
    streams: TaskTracker,
    slots: Slots,
    health: Health,
}

type DeliverySender = mpsc::Sender<Result<Delivery, QueueError>>;

/// Why the pump stopped using a stream.
enum StreamEnd {
    Stopped,
    Idle,
    /// Slots became free that the stream's limit does not cover.
    SlotsFreed,
    Broken(String),
    Permanent(String),
}

impl Pump {
    async fn run(self, tx: DeliverySender) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let (end, received) = self.one_stream(&tx).await;
            if received > 0 {
                backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
            }
            match end {
                StreamEnd::Stopped => return,
                StreamEnd::Idle | StreamEnd::SlotsFreed => {
                    tracing::debug!("the stream is replaced")
                }
                StreamEnd::Permanent(what) => {
                    tracing::error!(error = what, "the subscription rejects this worker");
                    let _ = tx.send(Err(QueueError::Permanent(what))).await;
                    return;
                }
                StreamEnd::Broken(what) => {
                    tracing::warn!(
                        error = what,
                        "the subscription's stream ended: opening a new one"
                    );
                    let pause = tokio::time::sleep(backoff.next_delay());
                    if self.stop.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    async fn client(&self) -> Result<Subscriber, QueueError> {
        let mut builder = Subscriber::builder();
        if let Some(endpoint) = &self.config.emulator {
            builder = builder
                .with_endpoint(endpoint)
                .with_credentials(anonymous::Builder::new().build());
        }
        builder
            .build()
            .await
            .map_err(|e| QueueError::Permanent(format!("Pub/Sub client: {}", report(&e))))
    }

    async fn one_stream(&self, tx: &DeliverySender) -> (StreamEnd, u64) {
        // A new client means a new connection; another stream on the old connection would fail the same way.
        let client = match self.client().await {
            Ok(client) => client,
            Err(e) => return (StreamEnd::Broken(e.to_string()), 0),
        };
        let Some((number, free)) = self.stop.run_until_cancelled(self.slots.open()).await else {
            return (StreamEnd::Stopped, 0);
        };
        let outstanding = i64::try_from(free).unwrap_or(i64::MAX);
        let stream = client
            .subscribe(&self.subscription)
            .set_max_outstanding_messages(outstanding)
            .set_max_lease(self.config.max_lease)
            .set_max_lease_extension(self.config.lease_extension)
            .build();
        let shutdown = stream.shutdown_token();
        let held = Arc::new(());
        let mut received = 0;
        let is_healthy = tokio::time::sleep(HEALTHY_AFTER);
        tokio::pin!(is_healthy);
        let mut reported_healthy = false;
        // One future per message, always polled to completion: the client would lose messages otherwise.
        let mut next = Box::pin(next_of(stream));
        let end = loop {
            let item = tokio::select! {
                (item, stream) = &mut next => {
                    next = Box::pin(next_of(stream));
                    item
                }
                () = self.stop.cancelled() => break StreamEnd::Stopped,
                () = &mut is_healthy, if !reported_healthy => {
                    reported_healthy = true;
                    self.health.found(&self.subscription, FoundBy::Stream, None);
                    continue;
                }
                () = self.slots.regained() => break StreamEnd::SlotsFreed,
                () = tokio::time::sleep(self.config.idle_recycle) => match Arc::strong_count(&held) {
                    1 => break StreamEnd::Idle,
                    // While messages are held, silence says nothing about the connection.
                    _ => continue,
                },
            };
            let delivery = match item {
                None => break StreamEnd::Broken("the stream was closed".into()),
                Some(Err(e)) if is_permanent(&e) => {
                    break StreamEnd::Permanent(format!("{}: {}", self.subscription, report(&e)));
                }
                Some(Err(e)) => {
                    if e.status().is_some_and(|s| s.code == Code::NotFound) {
                        let problem = Resource::Subscription.missing(&self.subscription);
                        self.health
                            .found(&self.subscription, FoundBy::Stream, Some(problem));
                    }
                    break StreamEnd::Broken(report(&e));
                }
                Some(Ok((message, handler))) => {
                    let held = HeldLease {
                        handler,
                        slot: self.slots.take(number),
                        _held: held.clone(),
                    };
                    delivery(message, held)
                }
            };
            received += 1;
            self.health.found(&self.subscription, FoundBy::Stream, None);
            let sent = tokio::select! {
                sent = tx.send(Ok(delivery)) => sent.is_ok(),
                () = self.stop.cancelled() => false,
            };
            if !sent {
                break StreamEnd::Stopped;
            }
        };
        let is_idle = matches!(end, StreamEnd::Idle);
        // The old stream keeps extending the leases that are still held, until they are settled.
        self.streams.spawn(async move {
            let rest = async {
                let (mut item, mut stream) = next.await;
                while item.is_some() {
                    drop(item);
                    (item, stream) = next_of(stream).await;
                }
            };
            let closing = async { tokio::join!(shutdown.shutdown(), rest) };
            if is_idle {
                // No lease is held. A half-open connection would never answer, and the server keeps sending
                // messages to it until it is dropped.
                let _ = tokio::time::timeout(FLUSH_BUDGET, closing).await;
            } else {
                closing.await;
            }
        });
        (end, received)
    }
}

type StreamItem = Option<Result<(PubSubMessage, Handler), google_cloud_pubsub::Error>>;

async fn next_of(mut stream: MessageStream) -> (StreamItem, MessageStream) {
    let item = stream.next().await;
    (item, stream)
}

fn is_permanent(e: &google_cloud_pubsub::Error) -> bool {
    let code = e.status().map(|s| s.code);
    matches!(
        code,
        Some(Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument)
    )
}

fn delivery(message: PubSubMessage, held: HeldLease) -> Delivery {
    let published = message
        .publish_time
        .map(|t| t.seconds() * 1_000_000 + i64::from(t.nanos()) / 1000);
    let attempt = held
        .handler
        .delivery_attempt()
        .and_then(|n| u32::try_from(n).ok());
    Delivery {
        message_id: message.message_id,
        data: message.data.to_vec(),
        attributes: message.attributes.into_iter().collect(),
        published: published.unwrap_or_default(),
        attempt: attempt.filter(|n| *n > 0),
        lease: Box::new(held),
    }
}

struct HeldLease {
    handler: Handler,
    slot: MessageSlot,
    _held: Arc<()>,
}

impl Lease for HeldLease {
    fn ack(self: Box<Self>) -> BoxFuture<'static, Result<(), QueueError>> {
        Box::pin(async move {
            match self.handler {
                Handler::ExactlyOnce(h) => h
                    .confirmed_ack()
                    .await
                    .map_err(|e| QueueError::Transient(format!("acknowledging: {e}"))),
                h => {
                    h.ack();
                    Ok(())
                }
            }
        })
    }

    fn rest(&mut self) {
        self.slot.rest();
    }

    fn nack(self: Box<Self>) {
        self.handler.nack();
    }
}
