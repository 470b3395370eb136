//! Whether the topics and subscriptions are there and answer: said at once, and shown by readiness.
//! Google's client tries for ever in silence what has no credentials or does not answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

use super::{Lookup, PubSub, QueueError};

/// How long the first look may take, and any other.
const PATIENCE: Duration = Duration::from_secs(4);
/// Between looks, while something is wrong and while nothing is.
const SOON: Duration = Duration::from_secs(2);
const SELDOM: Duration = Duration::from_secs(60);

/// What a worker needs of Pub/Sub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    Subscription,
    Topic,
}

/// Who found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FoundBy {
    Asking,
    Stream,
}

/// What is wrong at the moment, by resource.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<(String, FoundBy), String>>>);

impl Health {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, FoundBy), String>> {
        self.0.lock()
    }

    /// What is wrong, a sentence each; nothing where all is well.
    pub fn problems(&self) -> Vec<String> {
        let mut all: Vec<String> = self.lock().values().cloned().collect();
        all.dedup();
        all
    }

    /// Remembers what was found, and says what is new.
    pub(super) fn found(&self, resource: &str, by: FoundBy, problem: Option<String>) {
        let key = (resource.to_owned(), by);
        let mut known = self.lock();
        match problem {
            Some(problem) => {
                let is_new = !known.values().any(|other| *other == problem);
                if is_new {
                    tracing::error!(resource, problem, "not ready");
                }
                known.insert(key, problem);
            }
            None => {
                if known.remove(&key).is_some() && !known.keys().any(|(other, _)| other == resource)
                {
                    tracing::info!(resource, "there and answering again");
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

    /// What is said of one that is missing.
    pub(super) fn missing(self, resource: &str) -> String {
        let name = resource.rsplit('/').next().unwrap_or(resource);
        match self {
            Resource::Subscription => format!(
                "subscription {resource} does not exist: gcloud pubsub subscriptions create {name} --topic=TOPIC, or deploy/terraform"
            ),
            Resource::Topic => {
                format!(
                    "topic {resource} does not exist: gcloud pubsub topics create {name}, or deploy/terraform"
                )
            }
        }
    }
}

impl PubSub {
    /// What is wrong with one resource, as far as that can be seen.
    async fn problem_of(&self, kind: Resource, resource: &str) -> Option<String> {
        let asked = async {
            match kind {
                Resource::Topic => self.look_at_topic(resource).await,
                Resource::Subscription => Ok(match self.look_at_subscription(resource).await? {
                    Lookup::Found(s) if s.is_orphan => {
                        return Ok(Some("its topic was deleted: create both anew"));
                    }
                    Lookup::Found(_) => Lookup::Found(()),
                    Lookup::Missing => Lookup::Missing,
                    Lookup::Hidden => Lookup::Hidden,
                }),
            }
            .map(|look| (look == Lookup::Missing).then_some(""))
        };
        let silent = || QueueError::Transient(format!("no answer within {PATIENCE:?}"));
        let answer = tokio::time::timeout(PATIENCE, asked)
            .await
            .unwrap_or_else(|_| Err(silent()));
        match answer {
            Ok(None) => None,
            Ok(Some("")) => Some(kind.missing(resource)),
            Ok(Some(why)) => Some(format!("{resource}: {why}")),
            Err(e) => Some(format!(
                "{resource} cannot be reached: {e}; are there credentials, and does Pub/Sub answer from here \
                 (network, PUBSUB_EMULATOR_HOST)? pgrestored doctor asks everything"
            )),
        }
    }

    async fn look(&self, wanted: &[(Resource, String)]) -> bool {
        let looks = wanted.iter().map(|(kind, name)| async {
            let resource = self.resource(kind.kind(), name);
            let problem = self.problem_of(*kind, &resource).await;
            let is_well = problem.is_none();
            self.health.found(&resource, FoundBy::Asking, problem);
            is_well
        });
        futures::future::join_all(looks)
            .await
            .into_iter()
            .all(|is_well| is_well)
    }

    /// Looks at what is wanted, then goes on looking for as long as the answer is polled.
    pub async fn watch(
        self,
        wanted: Vec<(Resource, String)>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut is_well = self.look(&wanted).await;
        async move {
            loop {
                tokio::time::sleep(if is_well { SELDOM } else { SOON }).await;
                is_well = self.look(&wanted).await;
            }
        }
    }
}
