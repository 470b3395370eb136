//! Pub/Sub: topics, subscriptions, publishing, streaming pull with leases.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use googleapis_tonic_google_pubsub_v1::google::pubsub::v1 as pb;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tonic::Status;

use super::grpc::{bidi, unary};

/// Delivery settings of a subscription.
#[derive(Debug, Clone, Default)]
pub struct SubscriptionOptions {
    pub exactly_once: bool,
    /// Dead-letter topic, and the number of deliveries after which a message is moved there.
    pub dead_letter: Option<(String, i32)>,
    /// Backoff before a nacked message is redelivered.
    pub retry_backoff: Duration,
    /// Filter: only messages whose attribute has this value.
    pub filter: Option<(String, String)>,
}

#[derive(Debug, Clone)]
struct QueuedMessage {
    message: pb::PubsubMessage,
    deliveries: i32,
    not_before: Instant,
}

#[derive(Debug)]
struct Leased {
    message: pb::PubsubMessage,
    deliveries: i32,
    until: Instant,
    stream: u64,
}

#[derive(Debug, Default)]
struct SubscriptionState {
    options: SubscriptionOptions,
    queue: VecDeque<QueuedMessage>,
    leased: HashMap<String, Leased>,
    acked: u64,
    deliveries: u64,
}

/// A message as a topic received it.
#[derive(Debug, Clone)]
pub struct Published {
    pub message_id: String,
    pub data: Vec<u8>,
    pub attributes: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct PubSubState {
    /// Subscriptions by topic.
    topics: HashMap<String, Vec<String>>,
    subscriptions: HashMap<String, SubscriptionState>,
    published: Vec<(String, Published)>,
    sequence: u64,
    /// Number of publish calls to reject.
    refuse_publish: u32,
    /// Limit of a publish call in bytes, if it is below that of the service.
    max_request: Option<usize>,
    /// Streams opened before this number are closed.
    cut_before: u64,
    streams: u64,
}

/// The Pub/Sub side of an emulator.
#[derive(Debug, Clone, Default)]
pub struct PubSubService {
    inner: Arc<Mutex<PubSubState>>,
    wake: Arc<Notify>,
}

/// The service's limits of one call.
const MAX_MESSAGES: usize = 1000;
const MAX_REQUEST_BYTES: usize = 10_000_000;
/// The service's limits of one message.
const MAX_ATTRIBUTES: usize = 100;
const MAX_KEY_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 1024;

/// Checks the service's limits; exceeding any of them is INVALID_ARGUMENT.
fn check_sizes(r: &pb::PublishRequest, max: usize) -> Result<(), Status> {
    let refuse = |what: &str| Err(Status::invalid_argument(format!("The value for {what}.")));
    if r.messages.is_empty() || r.messages.len() > MAX_MESSAGES {
        return refuse("message_count is out of range: from 1 to 1000");
    }
    for m in &r.messages {
        if m.data.is_empty() && m.attributes.is_empty() {
            return refuse("message is empty: it needs data or an attribute");
        }
        if m.attributes.len() > MAX_ATTRIBUTES {
            return refuse("attributes is too large: at most 100");
        }
        for (key, value) in &m.attributes {
            let is_reserved = key.starts_with("goog") && !key.starts_with("googclient_");
            if key.is_empty() || key.len() > MAX_KEY_BYTES || is_reserved {
                return refuse("an attribute key is not valid: from 1 to 256 bytes, not goog");
            }
            if value.len() > MAX_VALUE_BYTES {
                return refuse("an attribute value is too large: at most 1024 bytes");
            }
        }
    }
    if prost::Message::encoded_len(r) > max {
        refuse("request_size is too large")
    } else {
        Ok(())
    }
}

fn no_subscription() -> Status {
    Status::not_found("Subscription does not exist")
}

impl PubSubService {
    fn lock(&self) -> MutexGuard<'_, PubSubState> {
        self.inner.lock()
    }

    /// Creates a topic. Names are full: `projects/P/topics/T`.
    pub fn create_topic(&self, topic: &str) {
        self.lock().topics.entry(topic.to_owned()).or_default();
    }

    /// Creates a subscription, and its topic if it is missing. Names are full: `projects/P/subscriptions/S`.
    pub fn create_subscription(
        &self,
        topic: &str,
        subscription: &str,
        options: SubscriptionOptions,
    ) {
        let mut inner = self.lock();
        let subscribed = inner.topics.entry(topic.to_owned()).or_default();
        if !subscribed.iter().any(|s| s == subscription) {
            subscribed.push(subscription.to_owned());
        }
        let new = SubscriptionState {
            options,
            ..SubscriptionState::default()
        };
        inner
            .subscriptions
            .entry(subscription.to_owned())
            .or_insert(new);
    }

    /// Publishes a message and returns its id, or `None` if the topic is missing.
    pub fn publish(
        &self,
        topic: &str,
        data: &[u8],
        attributes: HashMap<String, String>,
    ) -> Option<String> {
        let message = pb::PubsubMessage {
            data: data.to_vec(),
            attributes,
            ..Default::default()
        };
        self.accept(topic, message).ok()
    }

    /// The same as if it had been published at `time`.
    pub fn publish_at(
        &self,
        topic: &str,
        data: &[u8],
        attributes: HashMap<String, String>,
        time: std::time::SystemTime,
    ) -> Option<String> {
        let publish_time = Some(time.into());
        let message = pb::PubsubMessage {
            data: data.to_vec(),
            attributes,
            publish_time,
            ..Default::default()
        };
        self.accept(topic, message).ok()
    }

    fn accept(&self, topic: &str, mut message: pb::PubsubMessage) -> Result<String, Status> {
        let mut inner = self.lock();
        let names = inner
            .topics
            .get(topic)
            .cloned()
            .ok_or_else(|| Status::not_found("Topic not found"))?;
        inner.sequence += 1;
        message.message_id = inner.sequence.to_string();
        message
            .publish_time
            .get_or_insert_with(|| std::time::SystemTime::now().into());
        for name in names {
            let Some(s) = inner.subscriptions.get_mut(&name) else {
                continue;
            };
            let wanted = s.options.filter.as_ref();
            if wanted.is_none_or(|(key, value)| message.attributes.get(key) == Some(value)) {
                s.queue.push_back(QueuedMessage {
                    message: message.clone(),
                    deliveries: 0,
                    not_before: Instant::now(),
                });
            }
        }
        let published = Published {
            message_id: message.message_id.clone(),
            data: message.data.to_vec(),
            attributes: message.attributes.clone(),
        };
        inner.published.push((topic.to_owned(), published));
        drop(inner);
        self.wake.notify_waiters();
        Ok(message.message_id)
    }

    /// The messages that a topic has received so far.
    pub fn published(&self, topic: &str) -> Vec<Published> {
        self.lock()
            .published
            .iter()
            .filter(|(t, _)| t == topic)
            .map(|(_, m)| m.clone())
            .collect()
    }

    /// Messages of a subscription that are neither acknowledged nor dead-lettered: (waiting, leased).
    pub fn unacked(&self, subscription: &str) -> (usize, usize) {
        let inner = self.lock();
        inner
            .subscriptions
            .get(subscription)
            .map_or((0, 0), |s| (s.queue.len(), s.leased.len()))
    }

    /// Deliveries of a subscription so far, including redeliveries, and acknowledgements.
    pub fn delivered(&self, subscription: &str) -> (u64, u64) {
        let inner = self.lock();
        inner
            .subscriptions
            .get(subscription)
            .map_or((0, 0), |s| (s.deliveries, s.acked))
    }

    /// Fault: all leases of a subscription expire now, as if nobody had extended them.
    pub fn expire_leases(&self, subscription: &str) {
        let mut inner = self.lock();
        let Some(s) = inner.subscriptions.get_mut(subscription) else {
            return;
        };
        let held: Vec<String> = s.leased.keys().cloned().collect();
        held.iter().for_each(|id| s.give_back(id, Duration::ZERO));
        drop(inner);
        self.wake.notify_waiters();
    }

    /// Fault: the next `calls` publish calls fail as unavailable.
    pub fn refuse_publish(&self, calls: u32) {
        self.lock().refuse_publish = calls;
    }

    /// Fault: publish calls larger than this are rejected as invalid.
    pub fn limit_messages(&self, bytes: usize) {
        self.lock().max_request = Some(bytes);
    }

    /// Fault: closes all open streams; clients must open new ones.
    pub fn cut_streams(&self) {
        let mut inner = self.lock();
        inner.cut_before = inner.streams + 1;
        drop(inner);
        self.wake.notify_waiters();
    }

    /// Waits until `done` returns true for this service; it is evaluated after every change.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        loop {
            let changed = self.wake.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done(self) {
                return;
            }
            changed.await;
        }
    }

    fn settle(
        &self,
        subscription: &str,
        ids: &[String],
        mut each: impl FnMut(&mut SubscriptionState, &str),
    ) -> Result<(), Status> {
        let mut inner = self.lock();
        let s = inner
            .subscriptions
            .get_mut(subscription)
            .ok_or_else(no_subscription)?;
        ids.iter().for_each(|id| each(s, id));
        drop(inner);
        self.wake.notify_waiters();
        Ok(())
    }

    fn acknowledge(&self, r: &pb::AcknowledgeRequest) -> Result<(), Status> {
        self.settle(&r.subscription, &r.ack_ids, |s, id| {
            if s.leased.remove(id).is_some() {
                s.acked += 1;
            }
        })
    }

    fn modify_deadline(&self, r: &pb::ModifyAckDeadlineRequest) -> Result<(), Status> {
        self.settle(&r.subscription, &r.ack_ids, |s, id| {
            match r.ack_deadline_seconds {
                0 => s.give_back(id, s.options.retry_backoff),
                seconds => {
                    if let Some(l) = s.leased.get_mut(id) {
                        l.until = Instant::now()
                            + Duration::from_secs(u64::try_from(seconds).unwrap_or(10));
                    }
                }
            }
        })
    }

    /// Messages for a stream with capacity for `max` (0: unlimited).
    fn take(
        &self,
        r: &pb::StreamingPullRequest,
        stream: u64,
    ) -> Result<Vec<pb::ReceivedMessage>, Status> {
        let mut inner = self.lock();
        let s = inner
            .subscriptions
            .get_mut(&r.subscription)
            .ok_or_else(no_subscription)?;
        let now = Instant::now();
        let expired: Vec<String> = s
            .leased
            .iter()
            .filter(|(_, l)| l.until < now)
            .map(|(id, _)| id.clone())
            .collect();
        expired
            .iter()
            .for_each(|id| s.give_back(id, Duration::ZERO));
        let held = s.leased.values().filter(|l| l.stream == stream).count();
        let room = match usize::try_from(r.max_outstanding_messages) {
            Ok(max @ 1..) => max.saturating_sub(held),
            _ => usize::MAX,
        };
        let deadline = Duration::from_secs(
            u64::try_from(r.stream_ack_deadline_seconds)
                .unwrap_or(0)
                .max(10),
        );
        let (mut out, mut dead) = (Vec::new(), Vec::new());
        let mut later = VecDeque::new();
        while let Some(mut q) = s.queue.pop_front() {
            if out.len() >= room || q.not_before > now {
                later.push_back(q);
                continue;
            }
            q.deliveries += 1;
            if let Some((topic, max)) = &s.options.dead_letter
                && q.deliveries > *max
            {
                dead.push((topic.clone(), q.message));
                continue;
            }
            s.deliveries += 1;
            let ack_id = format!("{}-{}-{stream}", q.message.message_id, s.deliveries);
            let lease = Leased {
                message: q.message.clone(),
                deliveries: q.deliveries,
                until: now + deadline,
                stream,
            };
            s.leased.insert(ack_id.clone(), lease);
            let counted = s.options.dead_letter.is_some();
            out.push(pb::ReceivedMessage {
                ack_id,
                message: Some(q.message),
                delivery_attempt: if counted { q.deliveries } else { 0 },
            });
        }
        s.queue = later;
        drop(inner);
        for (topic, message) in dead {
            // A dead-letter topic without a subscription loses the message, as the service does.
            let _ = self.accept(&topic, message);
        }
        Ok(out)
    }

    fn open_stream(&self) -> u64 {
        let mut inner = self.lock();
        inner.streams += 1;
        inner.streams
    }

    async fn serve_stream(
        self,
        first: pb::StreamingPullRequest,
        tx: mpsc::Sender<Result<pb::StreamingPullResponse, Status>>,
    ) {
        let stream = self.open_stream();
        let mut heartbeat = tokio::time::interval(Duration::from_secs(30));
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            let changed = self.wake.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.lock().cut_before > stream {
                let _ = tx
                    .send(Err(Status::unavailable("the stream was closed")))
                    .await;
                return;
            }
            let answer = self.take(&first, stream);
            let wanted = answer.as_ref().map_or(true, |m| !m.is_empty());
            let message = answer.map(|m| self.response(&first.subscription, m));
            let failed = message.is_err();
            if wanted && (tx.send(message).await.is_err() || failed) {
                break;
            }
            if wanted {
                self.wake.notify_waiters();
            }
            tokio::select! {
                () = changed => {}
                _ = tick.tick() => {}
                _ = heartbeat.tick() => {
                    let empty = self.response(&first.subscription, vec![]);
                    if tx.send(Ok(empty)).await.is_err() {
                        break;
                    }
                }
                () = tx.closed() => break,
            }
        }
    }

    fn response(
        &self,
        subscription: &str,
        received: Vec<pb::ReceivedMessage>,
    ) -> pb::StreamingPullResponse {
        let exactly_once = self
            .lock()
            .subscriptions
            .get(subscription)
            .is_some_and(|s| s.options.exactly_once);
        pb::StreamingPullResponse {
            received_messages: received,
            subscription_properties: Some(pb::streaming_pull_response::SubscriptionProperties {
                exactly_once_delivery_enabled: exactly_once,
                message_ordering_enabled: false,
            }),
            ..Default::default()
        }
    }

    fn publish_all(&self, r: pb::PublishRequest) -> Result<pb::PublishResponse, Status> {
        {
            let mut inner = self.lock();
            if inner.refuse_publish > 0 {
                inner.refuse_publish -= 1;
                return Err(Status::unavailable("publishing is unavailable"));
            }
        }
        check_sizes(&r, self.lock().max_request.unwrap_or(MAX_REQUEST_BYTES))?;
        // The server sets the publish time.
        let stamped = |m| pb::PubsubMessage {
            publish_time: None,
            ..m
        };
        let ids: Result<Vec<_>, _> = r
            .messages
            .into_iter()
            .map(|m| self.accept(&r.topic, stamped(m)))
            .collect();
        Ok(pb::PublishResponse { message_ids: ids? })
    }

    pub(super) fn router(&self) -> Router {
        let (publish, ack, modify, pull) = (self.clone(), self.clone(), self.clone(), self.clone());
        Router::new()
            .route(
                "/google.pubsub.v1.Publisher/Publish",
                unary(move |r: pb::PublishRequest| std::future::ready(publish.publish_all(r))),
            )
            .route(
                "/google.pubsub.v1.Subscriber/Acknowledge",
                unary(move |r: pb::AcknowledgeRequest| std::future::ready(ack.acknowledge(&r))),
            )
            .route(
                "/google.pubsub.v1.Subscriber/ModifyAckDeadline",
                unary(move |r: pb::ModifyAckDeadlineRequest| {
                    std::future::ready(modify.modify_deadline(&r))
                }),
            )
            .route(
                "/google.pubsub.v1.Subscriber/StreamingPull",
                bidi(
                    move |mut requests: tonic::Streaming<pb::StreamingPullRequest>| {
                        let service = pull.clone();
                        async move {
                            let first = requests.message().await?;
                            let first = first
                                .ok_or_else(|| Status::invalid_argument("no initial request"))?;
                            let (tx, rx) = mpsc::channel(16);
                            tokio::spawn(service.serve_stream(first, tx));
                            Ok(tokio_stream::wrappers::ReceiverStream::new(rx))
                        }
                    },
                ),
            )
            .merge(self.admin_router())
    }

    /// The resource in its REST form; `None` if it does not exist.
    fn describe_topic(&self, name: &str) -> Option<serde_json::Value> {
        self.lock()
            .topics
            .contains_key(name)
            .then(|| serde_json::json!({ "name": name }))
    }

    fn describe_subscription(&self, name: &str) -> Option<serde_json::Value> {
        let inner = self.lock();
        let options = &inner.subscriptions.get(name)?.options;
        let topic = inner
            .topics
            .iter()
            .find(|(_, subscribed)| subscribed.iter().any(|s| s == name));
        let dead_letter = options.dead_letter.as_ref().map(|(topic, attempts)| {
            serde_json::json!({ "deadLetterTopic": topic, "maxDeliveryAttempts": attempts })
        });
        Some(serde_json::json!({
            "name": name,
            "topic": topic.map_or("_deleted-topic_", |(topic, _)| topic),
            "ackDeadlineSeconds": 10,
            "enableExactlyOnceDelivery": options.exactly_once,
            "deadLetterPolicy": dead_letter,
        }))
    }

    /// The REST calls that create and describe topics and subscriptions.
    fn admin_router(&self) -> Router {
        Router::new()
            .route(
                "/v1/projects/{project}/topics/{topic}",
                put(create_topic).get(get_topic),
            )
            .route(
                "/v1/projects/{project}/subscriptions/{subscription}",
                put(create_subscription).get(get_subscription),
            )
            .with_state(self.clone())
    }
}

impl SubscriptionState {
    fn give_back(&mut self, ack_id: &str, pause: Duration) {
        if let Some(l) = self.leased.remove(ack_id) {
            let not_before = Instant::now() + pause;
            self.queue.push_front(QueuedMessage {
                message: l.message,
                deliveries: l.deliveries,
                not_before,
            });
        }
    }
}

type Json = axum::Json<serde_json::Value>;

/// The resource, or Google's error for a missing one.
fn found(described: Option<serde_json::Value>) -> (StatusCode, Json) {
    let error =
        serde_json::json!({ "code": 404, "status": "NOT_FOUND", "message": "Resource not found" });
    match described {
        Some(it) => (StatusCode::OK, axum::Json(it)),
        None => (
            StatusCode::NOT_FOUND,
            axum::Json(serde_json::json!({ "error": error })),
        ),
    }
}

async fn get_topic(
    State(s): State<PubSubService>,
    Path((project, topic)): Path<(String, String)>,
) -> (StatusCode, Json) {
    found(s.describe_topic(&format!("projects/{project}/topics/{topic}")))
}

async fn get_subscription(
    State(s): State<PubSubService>,
    Path((project, subscription)): Path<(String, String)>,
) -> (StatusCode, Json) {
    found(s.describe_subscription(&format!("projects/{project}/subscriptions/{subscription}")))
}

async fn create_topic(
    State(s): State<PubSubService>,
    Path((project, topic)): Path<(String, String)>,
) -> Json {
    let name = format!("projects/{project}/topics/{topic}");
    s.create_topic(&name);
    axum::Json(serde_json::json!({ "name": name }))
}

async fn create_subscription(
    State(s): State<PubSubService>,
    Path((project, subscription)): Path<(String, String)>,
    axum::Json(body): Json,
) -> Result<Json, StatusCode> {
    let name = format!("projects/{project}/subscriptions/{subscription}");
    let topic = body["topic"].as_str().ok_or(StatusCode::BAD_REQUEST)?;
    let dead = &body["deadLetterPolicy"];
    let options = SubscriptionOptions {
        exactly_once: body["enableExactlyOnceDelivery"].as_bool().unwrap_or(false),
        dead_letter: dead["deadLetterTopic"].as_str().map(|t| {
            (
                t.to_owned(),
                dead["maxDeliveryAttempts"]
                    .as_i64()
                    .and_then(|n| i32::try_from(n).ok())
                    .unwrap_or(5),
            )
        }),
        ..SubscriptionOptions::default()
    };
    s.create_subscription(topic, &name, options);
    Ok(axum::Json(
        serde_json::json!({ "name": name, "topic": topic }),
    ))
}
