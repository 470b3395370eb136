//! Looks up topics and subscriptions, and this account's permissions on them.

use std::time::Duration;

use google_cloud_auth::credentials::anonymous;
use google_cloud_gax::error::Error;
use google_cloud_gax::error::rpc::Code;
use google_cloud_gax::retry_policy::{NeverRetry, RetryPolicyExt as _};
use google_cloud_pubsub::client::{SchemaService, SubscriptionAdmin, TopicAdmin};

use super::{PubSub, QueueError};
use crate::error::report;

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Pub/Sub's answer about one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    Found(T),
    Missing,
    /// May exist or not: this account may not read it.
    Hidden,
}

/// Settings of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionSetup {
    /// The dead-letter topic, and the number of delivery attempts after which messages go there.
    pub dead_letter: Option<(String, i32)>,
    pub has_retry_policy: bool,
    pub exactly_once: bool,
    /// Its topic was deleted: it will never deliver anything.
    pub is_orphan: bool,
}

fn look<T>(answer: Result<T, Error>) -> Result<Lookup<T>, QueueError> {
    match answer {
        Ok(found) => Ok(Lookup::Found(found)),
        Err(e) => match e.status().map(|s| s.code) {
            Some(Code::NotFound) => Ok(Lookup::Missing),
            Some(Code::PermissionDenied) => Ok(Lookup::Hidden),
            Some(Code::Unauthenticated) => Err(QueueError::Permanent(report(&e))),
            _ if e.is_authentication() => Err(QueueError::Permanent(report(&e))),
            _ => Err(QueueError::Transient(report(&e))),
        },
    }
}

/// Builds a client of the given type, for the emulator or with this machine's credentials.
macro_rules! client {
    ($self:ident, $client:ident) => {{
        let mut builder =
            $client::builder().with_retry_policy(NeverRetry.with_time_limit(REQUEST_TIMEOUT));
        if let Some(endpoint) = $self.emulator() {
            builder = builder
                .with_endpoint(endpoint)
                .with_credentials(anonymous::Builder::new().build());
        }
        builder
            .build()
            .await
            .map_err(|e| QueueError::Permanent(format!("Pub/Sub client: {}", report(&e))))?
    }};
}

impl PubSub {
    /// # Errors
    /// Pub/Sub does not answer, or rejects the credentials.
    pub async fn look_at_subscription(
        &self,
        name: &str,
    ) -> Result<Lookup<SubscriptionSetup>, QueueError> {
        let client = client!(self, SubscriptionAdmin);
        let ask = client
            .get_subscription()
            .set_subscription(self.resource("subscriptions", name))
            .send();
        let set_up = |s: google_cloud_pubsub::model::Subscription| SubscriptionSetup {
            dead_letter: s
                .dead_letter_policy
                .map(|d| (d.dead_letter_topic, d.max_delivery_attempts)),
            has_retry_policy: s.retry_policy.is_some(),
            exactly_once: s.enable_exactly_once_delivery,
            is_orphan: s.topic == "_deleted-topic_",
        };
        look(ask.await.map(set_up))
    }

    /// # Errors
    /// Pub/Sub does not answer, or rejects the credentials.
    pub async fn look_at_topic(&self, name: &str) -> Result<Lookup<()>, QueueError> {
        let client = client!(self, TopicAdmin);
        look(
            client
                .get_topic()
                .set_topic(self.resource("topics", name))
                .send()
                .await
                .map(drop),
        )
    }

    /// Whether this account has a permission (`pubsub.topics.publish`, …) on a resource of `kind`
    /// (`topics`, `subscriptions`); `None` if Pub/Sub does not implement the query, as Google's emulator.
    ///
    /// # Errors
    /// Pub/Sub does not answer, or rejects the credentials.
    pub async fn may(
        &self,
        kind: &str,
        name: &str,
        permission: &str,
    ) -> Result<Option<bool>, QueueError> {
        let client = client!(self, SchemaService);
        let ask = client
            .test_iam_permissions()
            .set_resource(self.resource(kind, name));
        match ask.set_permissions([permission]).send().await {
            Ok(answer) => Ok(Some(answer.permissions.iter().any(|p| p == permission))),
            Err(e) if e.status().is_some_and(|s| s.code == Code::Unimplemented) => Ok(None),
            Err(e) => Ok(match look::<()>(Err(e))? {
                Lookup::Found(()) => None,
                Lookup::Missing | Lookup::Hidden => Some(false),
            }),
        }
    }
}
