//! Checks that the topics and subscriptions exist, may be used, and are set up well.

use super::diagnostic_result::{CheckHealth, DiagnosticResult, PATIENCE, queue_failed};
use crate::app::App;
use crate::cli::exit::Exit;
use crate::queue::{Lookup, PubSub, QueueError, SubscriptionSetup};

pub(super) async fn queues(app: &App) -> Vec<DiagnosticResult> {
    let c = &app.config;
    let Ok(pubsub) = app.pubsub() else {
        let what = "GOOGLE_CLOUD_PROJECT is not set; `worker`, `request` and `watch` need it";
        return vec![DiagnosticResult::skipped("requests", what)];
    };
    let notifications = async {
        match &c.notification_subscription {
            Some(name) => subscription("notifications", &pubsub, name).await,
            None => DiagnosticResult::skipped(
                "notifications",
                "BACKUP_NOTIFICATION_SUBSCRIPTION is not set",
            ),
        }
    };
    let (requests, results, notifications) = tokio::join!(
        in_time(
            "requests",
            subscription("requests", &pubsub, &c.request_subscription)
        ),
        in_time("results", topic("results", &pubsub, &c.completion_topic)),
        in_time("notifications", notifications),
    );
    vec![requests, results, notifications]
}

/// The check's result, or that Pub/Sub does not respond.
async fn in_time(
    check: &'static str,
    checking: impl Future<Output = DiagnosticResult>,
) -> DiagnosticResult {
    let silent = |_| {
        let what = format!("Pub/Sub did not respond within {PATIENCE:?}");
        queue_failed(check, &QueueError::Transient(what))
    };
    tokio::time::timeout(PATIENCE, checking)
        .await
        .unwrap_or_else(silent)
}

async fn subscription(check: &'static str, pubsub: &PubSub, name: &str) -> DiagnosticResult {
    let may = match pubsub
        .may("subscriptions", name, "pubsub.subscriptions.consume")
        .await
    {
        Ok(may) => may,
        Err(e) => return queue_failed(check, &e),
    };
    let set_up = match pubsub.look_at_subscription(name).await {
        Ok(set_up) => set_up,
        Err(e) => return queue_failed(check, &e),
    };
    if set_up == Lookup::Missing {
        return DiagnosticResult::failure(check, Exit::Config, format!("the subscription {name} does not exist"))
            .fix(format!("gcloud pubsub subscriptions create {name} --topic={name} --ack-deadline=60 --enable-exactly-once-delivery, or use deploy/terraform"));
    }
    if may == Some(false) {
        return DiagnosticResult::failure(check, Exit::Permission, format!("this account may not read {name}"))
            .fix(format!("gcloud pubsub subscriptions add-iam-policy-binding {name} --member=serviceAccount:WORKER --role=roles/pubsub.subscriber"));
    }
    let Lookup::Found(set_up) = set_up else {
        return DiagnosticResult::ok(
            check,
            format!("this account may read {name}, but not its settings"),
        );
    };
    if set_up.is_orphan {
        return DiagnosticResult::failure(
            check,
            Exit::Config,
            format!("the topic of {name} was deleted"),
        )
        .fix("create the topic, then delete the subscription and create it again");
    }
    let weak = weaknesses(&set_up);
    if weak.is_empty() {
        DiagnosticResult::ok(check, format!("this account may read {name}"))
    } else {
        DiagnosticResult::new(
            check,
            CheckHealth::Warning,
            format!("{name}: {}", weak.join("; ")),
        )
        .fix("deploy/terraform sets all of this up")
    }
}

fn weaknesses(s: &SubscriptionSetup) -> Vec<&'static str> {
    let mut weak = Vec::new();
    if s.dead_letter.is_none() {
        weak.push("no dead-letter topic: a message that crashes workers is redelivered forever");
    }
    if !s.has_retry_policy {
        weak.push("no retry policy: a message that is returned is redelivered at once");
    }
    if !s.exactly_once {
        weak.push("no exactly-once delivery: a lost lease is noticed late");
    }
    weak
}

async fn topic(check: &'static str, pubsub: &PubSub, name: &str) -> DiagnosticResult {
    let (found, may) = match (
        pubsub.look_at_topic(name).await,
        pubsub.may("topics", name, "pubsub.topics.publish").await,
    ) {
        (Err(e), _) | (_, Err(e)) => return queue_failed(check, &e),
        (Ok(found), Ok(may)) => (found, may),
    };
    match (found, may) {
        (Lookup::Missing, _) => DiagnosticResult::failure(check, Exit::Config, format!("the topic {name} does not exist"))
            .fix(format!("gcloud pubsub topics create {name}")),
        (_, Some(false)) => DiagnosticResult::failure(check, Exit::Permission, format!("this account may not publish to {name}"))
            .fix(format!("gcloud pubsub topics add-iam-policy-binding {name} --member=serviceAccount:WORKER --role=roles/pubsub.publisher")),
        _ => DiagnosticResult::ok(check, format!("this account may publish to {name}")),
    }
}
