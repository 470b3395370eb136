//! Whether the topics and subscriptions exist, and what could be wrong with them.

use super::{CheckHealth, DiagnosticResult, Exit, queue_failed};
use crate::app::App;
use crate::queue::{Lookup, PubSub, SubscriptionSetup};

pub(super) async fn queues(app: &App) -> Vec<DiagnosticResult> {
    let c = &app.config;
    let Ok(pubsub) = app.pubsub() else {
        let what = "GOOGLE_CLOUD_PROJECT is not set: `worker`, `request` and `watch` need it";
        return vec![DiagnosticResult::skipped("requests", what)];
    };
    let mut all = vec![
        subscription("requests", &pubsub, &c.request_subscription).await,
        topic("results", &pubsub, &c.completion_topic).await,
    ];
    all.push(match &c.notification_subscription {
        Some(name) => subscription("notifications", &pubsub, name).await,
        None => DiagnosticResult::skipped(
            "notifications",
            "BACKUP_NOTIFICATION_SUBSCRIPTION is not set",
        ),
    });
    all
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
        return DiagnosticResult::failure(check, Exit::Config, format!("there is no subscription {name}"))
            .fix(format!("gcloud pubsub subscriptions create {name} --topic={name} --ack-deadline=60 --enable-exactly-once-delivery, or deploy/terraform"));
    }
    if may == Some(false) {
        return DiagnosticResult::failure(check, Exit::Permission, format!("{name} may not be read"))
            .fix(format!("gcloud pubsub subscriptions add-iam-policy-binding {name} --member=serviceAccount:WORKER --role=roles/pubsub.subscriber"));
    }
    let Lookup::Found(set_up) = set_up else {
        return DiagnosticResult::ok(
            check,
            format!("{name} may be read; its settings may not be looked at"),
        );
    };
    if set_up.is_orphan {
        return DiagnosticResult::failure(
            check,
            Exit::Config,
            format!("the topic of {name} was deleted"),
        )
        .fix("delete the subscription and create it on the topic anew");
    }
    let weak = weaknesses(&set_up);
    if weak.is_empty() {
        DiagnosticResult::ok(check, format!("{name} may be read"))
    } else {
        DiagnosticResult::new(
            check,
            CheckHealth::Warning,
            format!("{name}: {}", weak.join("; ")),
        )
        .fix("deploy/terraform has all of it")
    }
}

fn weaknesses(s: &SubscriptionSetup) -> Vec<&'static str> {
    let mut weak = Vec::new();
    if s.dead_letter.is_none() {
        weak.push("no dead letter: a message that kills workers comes for ever");
    }
    if !s.has_retry_policy {
        weak.push("no retry policy: what is given back comes again at once");
    }
    if !s.exactly_once {
        weak.push("not exactly-once: a lost lease is noticed late");
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
        (Lookup::Missing, _) => DiagnosticResult::failure(check, Exit::Config, format!("there is no topic {name}"))
            .fix(format!("gcloud pubsub topics create {name}")),
        (_, Some(false)) => DiagnosticResult::failure(check, Exit::Permission, format!("nothing may be published to {name}"))
            .fix(format!("gcloud pubsub topics add-iam-policy-binding {name} --member=serviceAccount:WORKER --role=roles/pubsub.publisher")),
        _ => DiagnosticResult::ok(check, format!("{name} may be published to")),
    }
}
