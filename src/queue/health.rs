//! Checks that the topics and subscriptions exist and respond, at start and from then on; readiness shows
//! the result. Google's client would retry forever, without a log line, if credentials are missing or the
//! service does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

use super::{Lookup, PubSub, QueueError};
use crate::credentials;

/// How long one check may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// Pauses between checks, while something is wrong and while nothing is.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
const HEALTHY_PAUSE: Duration = Duration::from_secs(60);

/// A kind of Pub/Sub resource that a worker needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Subscription,
    Topic,
}

/// Where a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FoundBy {
    Lookup,
    Stream,
}

/// Current problems, by resource.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<(String, FoundBy), String>>>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, FoundBy), String>> {
        self.0.lock()
    }

    /// Current problems, one sentence each; empty if everything is healthy.
    pub fn problems(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lock().values().cloned().collect();
        all.dedup();
        all
    }

    /// Stores a finding, and logs it if it is new.
    pub(super) fn found(&self, resource: &str, by: FoundBy, problem: Option<String>) {
        let key = (resource.to_owned(), by);
        let mut known = self.lock();
        match problem {
            Some(problem) => {
                let is_new = !known.values().any(|other| *other == problem);
                if is_new {
                    tracing::error!(resource, problem, "Pub/Sub resource unavailable: not ready");
                }
                known.insert(key, problem);
            }
            None => {
                if known.remove(&key).is_some() && !known.keys().any(|(other, _)| other == resource)
                {
                    tracing::info!(resource, "Pub/Sub resource available again");
                }
            }
        }
    }
}

impl Resource {
    fn kind(self) -> &'static str {
        match self {
            Resource::Subscription => "subscriptions",
            Resource::Topic => "topics",
        }
    }

    /// The message about a missing resource, with how to create it.
    pub(super) fn missing(self, resource: &str) -> String {
        let name = resource.rsplit('/').next().unwrap_or(resource);
        match self {
            Resource::Subscription => format!(
                "subscription {resource} does not exist: create it with gcloud pubsub subscriptions create {name} \
                 --topic=TOPIC, or with deploy/terraform"
            ),
            Resource::Topic => {
                format!(
                    "topic {resource} does not exist: create it with gcloud pubsub topics create {name}, or with \
                     deploy/terraform"
                )
            }
        }
    }
}

impl PubSub {
    /// Checks that a topic or subscription exists and responds, and that there are credentials for it. For a person
    /// who waits: `setting` is the variable of its name.
    ///
    /// # Errors
    /// `Missing`, `Permanent` without usable credentials, `Transient` if Pub/Sub does not respond within the time.
    pub async fn reach(
        &self,
        kind: Resource,
        name: &str,
        setting: &str,
        within: Duration,
    ) -> Result<(), QueueError> {
        let resource = self.resource(kind.kind(), name);
        let has_credentials = async {
            if self.emulator().is_some() {
                return Ok(());
            }
            // A little earlier, because the lookup then fails for the same reason.
            let checked = credentials::check(within.mul_f64(0.9)).await;
            checked.map_err(|what| {
                let advice = credentials::ADVICE;
                QueueError::Permanent(format!("{resource} cannot be reached: {what}; {advice}"))
            })
        };
        let reached = tokio::try_join!(has_credentials, self.find(kind, &resource, within));
        reached.map(drop).map_err(|e| match e {
            QueueError::Missing(what) => {
                QueueError::Missing(format!("{what}, or correct {setting}"))
            }
            other => other,
        })
    }

    /// Checks that a resource exists.
    async fn find(
        &self,
        kind: Resource,
        resource: &str,
        within: Duration,
    ) -> Result<(), QueueError> {
        let mut is_orphan = false;
        let asked = async {
            match kind {
                Resource::Topic => self.look_at_topic(resource).await,
                Resource::Subscription => Ok(match self.look_at_subscription(resource).await? {
                    Lookup::Found(s) => {
                        is_orphan = s.is_orphan;
                        Lookup::Found(())
                    }
                    Lookup::Missing => Lookup::Missing,
                    Lookup::Hidden => Lookup::Hidden,
                }),
            }
        };
        let silent = |_| {
            Err(QueueError::Transient(format!(
                "no answer within {within:?}"
            )))
        };
        let answer = tokio::time::timeout(within, asked)
            .await
            .unwrap_or_else(silent);
        let unreached = |e: String| {
            format!(
                "{resource} cannot be reached: {e}; check the credentials and whether this machine can reach Pub/Sub \
                 (network, PUBSUB_EMULATOR_HOST), or run pgrestored doctor"
            )
        };
        match answer.map_err(|e| e.reworded(unreached))? {
            Lookup::Missing => Err(QueueError::Missing(kind.missing(resource))),
            _ if is_orphan => Err(QueueError::Missing(format!(
                "{resource}: the subscription's topic was deleted: create both again"
            ))),
            Lookup::Found(()) | Lookup::Hidden => Ok(()),
        }
    }

    async fn look(&self, wanted: &[(Resource, String)]) -> bool {
        let looks = wanted.iter().map(|(kind, name)| async {
            let resource = self.resource(kind.kind(), name);
            let found = self.find(*kind, &resource, LOOKUP_TIMEOUT).await;
            let problem = found.err().map(|e| e.to_string());
            let is_healthy = problem.is_none();
            self.health.found(&resource, FoundBy::Lookup, problem);
            is_healthy
        });
        futures::future::join_all(looks)
            .await
            .into_iter()
            .all(|is_healthy| is_healthy)
    }

    /// Checks the given resources once, then returns a future that keeps checking them while it is polled.
    pub async fn watch(
        self,
        wanted: Vec<(Resource, String)>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut is_healthy = self.look(&wanted).await;
        async move {
            loop {
                tokio::time::sleep(if is_healthy {
                    HEALTHY_PAUSE
                } else {
                    RETRY_PAUSE
                })
                .await;
                is_healthy = self.look(&wanted).await;
            }
        }
    }
}
