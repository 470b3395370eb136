//! Pub/Sub by Google's client. One pump task a subscription owns the stream: the client's `next()` is
//! not cancel-safe, its flow control is the server's only, it does not notice a half-open connection,
//! and a stream that ended once is dead. So the pump forwards into a channel, is told how many
//! messages the worker can take, recycles a stream that was idle for long, and builds a new one with
//! backoff whenever one ends.

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
use super::slots::{Slot, Slots};
use super::{Delivery, Health, Lease, QueueError, RequestQueue, Resource, ResultSink};
use crate::error::report;
use crate::event::Message;
use crate::retry::Backoff;

/// Publishing is tried again for this long.
const PUBLISH_BUDGET: Duration = Duration::from_secs(60);
/// How long a stopping subscription waits for its last words to arrive.
const FLUSH_BUDGET: Duration = Duration::from_secs(5);

/// A stream that was not refused for this long is taken for a good one: it may be that nothing comes.
const WELL_AFTER: Duration = Duration::from_secs(5);

/// How to reach Pub/Sub.
#[derive(Debug, Clone)]
pub struct PubSubConfig {
    pub project: String,
    /// An emulator's endpoint, with scheme: plain HTTP, no credentials.
    pub emulator: Option<String>,
    /// Longest time that one message is held: above the longest restore.
    pub max_lease: Duration,
    /// Messages in work at once.
    pub concurrency: usize,
    /// How long a lease is asked for at a time (10 to 600 s): a dead worker's message comes back
    /// after this.
    pub lease_extension: Duration,
    /// A stream that gave nothing for this long is replaced, connection and all: it may be half open.
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

    /// What is wrong with its topics and subscriptions, as far as anybody has looked.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    pub(super) fn emulator(&self) -> Option<&String> {
        self.config.emulator.as_ref()
    }

    /// `name` alone or as `projects/…/subscriptions/…`.
    pub(super) fn resource(&self, kind: &str, name: &str) -> String {
        if name.starts_with("projects/") {
            name.to_owned()
        } else {
            format!("projects/{}/{kind}/{name}", self.config.project)
        }
    }

    /// # Errors
    /// No client could be built (no credentials).
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
        // Credentials that are missing are said now, not by silence later.
        drop(pump.client().await?);
        // One message may wait here; what the worker cannot take yet stays with the server.
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
    /// No client could be built (no credentials).
    pub async fn topic(&self, topic: &str) -> Result<impl ResultSink + use<>, QueueError> {
        let mut builder = Publisher::builder(self.resource("topics", topic));
        if let Some(endpoint) = &self.config.emulator {
            builder = builder
                .with_endpoint(endpoint)
                .with_credentials(anonymous::Builder::new().build());
        }
        let publisher = builder
            .with_retry_policy(RetryableErrors.with_time_limit(PUBLISH_BUDGET))
            // A message that is refused takes no other one along.
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

/// Whether the service says that it will never take this message.
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
            // What waits in the channel is dropped, and dropping a lease gives the message back.
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
                tracing::warn!("the last acknowledgements may not have arrived");
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

/// Why a stream is not used any further.
enum StreamEnd {
    Stopped,
    Idle,
    /// More messages could be worked on than it hands out.
    TooNarrow,
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
                StreamEnd::Idle | StreamEnd::TooNarrow => tracing::debug!("the stream is replaced"),
                StreamEnd::Permanent(what) => {
                    tracing::error!(error = what, "the subscription refuses us");
                    let _ = tx.send(Err(QueueError::Permanent(what))).await;
                    return;
                }
                StreamEnd::Broken(what) => {
                    tracing::warn!(
                        error = what,
                        "the stream of requests ended, a new one is opened"
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
        // A new client is a new connection: a stream on the old one would be as dead as the last.
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
        let is_well = tokio::time::sleep(WELL_AFTER);
        tokio::pin!(is_well);
        let mut is_settled = false;
        // One future per message, never abandoned half way: the client loses messages otherwise.
        let mut next = Box::pin(next_of(stream));
        let end = loop {
            let item = tokio::select! {
                (item, stream) = &mut next => {
                    next = Box::pin(next_of(stream));
                    item
                }
                () = self.stop.cancelled() => break StreamEnd::Stopped,
                () = &mut is_well, if !is_settled => {
                    is_settled = true;
                    self.health.found(&self.subscription, FoundBy::Stream, None);
                    continue;
                }
                () = self.slots.regained() => break StreamEnd::TooNarrow,
                () = tokio::time::sleep(self.config.idle_recycle) => match Arc::strong_count(&held) {
                    1 => break StreamEnd::Idle,
                    // While messages are worked on, silence says nothing about the connection.
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
        // Leases still held are kept alive until they are settled; the stream gives nothing more.
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
                // Nothing is held. On a half-open connection no answer would ever come, and until the
                // connection is dropped the server hands messages to it.
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
    slot: Slot,
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
