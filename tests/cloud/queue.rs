//! The Pub/Sub adapter by itself: dead streams, half-open connections, flow control, exactly-once delivery.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pgrestored::emulator::{Emulator, SubscriptionOptions};
use pgrestored::queue::{PubSub, PubSubConfig, RequestQueue};

const TOPIC: &str = "projects/test/topics/requests";
const SUBSCRIPTION: &str = "projects/test/subscriptions/requests";

async fn emulator(options: SubscriptionOptions) -> Emulator {
    let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    emulator
        .pubsub
        .create_subscription(TOPIC, SUBSCRIPTION, options);
    emulator
}

fn pubsub(host: &str, concurrency: usize, idle_recycle: Duration) -> PubSub {
    PubSub::new(PubSubConfig {
        project: "test".into(),
        emulator: Some(format!("http://{host}")),
        max_lease: Duration::from_secs(600),
        concurrency,
        lease_extension: Duration::from_secs(10),
        idle_recycle,
    })
}

const LONG: Duration = Duration::from_secs(300);

async fn next(queue: &mut impl RequestQueue) -> pgrestored::queue::Delivery {
    tokio::time::timeout(Duration::from_secs(60), queue.next())
        .await
        .expect("no message arrived in time")
        .unwrap()
}

fn publish(emulator: &Emulator, text: &str) {
    emulator
        .pubsub
        .publish(TOPIC, text.as_bytes(), Default::default())
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_stream_is_reopened() {
    let e = emulator(SubscriptionOptions::default()).await;
    let mut queue = pubsub(&e.host(), 1, LONG)
        .subscribe("requests")
        .await
        .unwrap();
    for i in 0..4 {
        publish(&e, &format!("m{i}"));
        let delivery = next(&mut queue).await;
        assert_eq!(delivery.data, format!("m{i}").into_bytes());
        delivery.lease.ack().await.unwrap();
        e.pubsub.until(|p| p.unacked(SUBSCRIPTION) == (0, 0)).await;
        e.pubsub.cut_streams();
    }
    assert_eq!(e.pubsub.delivered(SUBSCRIPTION), (4, 4));
}

/// A proxy lets a connection go silent without closing it, which only a timeout can detect.
#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_replaced() {
    // With exactly-once delivery acks are confirmed, so no call is in progress when the connection goes silent.
    let options = SubscriptionOptions {
        exactly_once: true,
        ..Default::default()
    };
    let e = emulator(options).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (host, upstream) = (listener.local_addr().unwrap().to_string(), e.host());
    let first_is_dead = Arc::new(AtomicBool::new(false));
    let (first_is_closed, mut closed) = tokio::sync::watch::channel(false);
    let (dead, first_is_closed) = (first_is_dead.clone(), Arc::new(first_is_closed));
    tokio::spawn(async move {
        let mut number = 0;
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (upstream, dead, is_first) = (upstream.clone(), dead.clone(), number == 0);
            let first_is_closed = first_is_closed.clone();
            number += 1;
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut server = tokio::net::TcpStream::connect(upstream).await.unwrap();
                let (mut up, mut down) = (vec![0; 65536], vec![0; 65536]);
                loop {
                    let (n, to_server) = tokio::select! {
                        n = client.read(&mut up) => (n, true),
                        n = server.read(&mut down) => (n, false),
                    };
                    let Ok(n @ 1..) = n else {
                        if is_first {
                            first_is_closed.send_replace(true);
                        }
                        return;
                    };
                    if is_first && dead.load(Ordering::SeqCst) {
                        continue; // Dropped: neither side notices.
                    }
                    let sent = if to_server {
                        server.write_all(&up[..n]).await
                    } else {
                        client.write_all(&down[..n]).await
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut queue = pubsub(&host, 1, Duration::from_secs(2))
        .subscribe("requests")
        .await
        .unwrap();
    publish(&e, "before");
    next(&mut queue).await.lease.ack().await.unwrap();
    first_is_dead.store(true, Ordering::SeqCst);
    publish(&e, "after");
    // The client closes the dead connection, so the server cannot send messages to it any more.
    let given_up = closed.wait_for(|is_closed| *is_closed);
    tokio::time::timeout(Duration::from_secs(60), given_up)
        .await
        .expect("the dead connection was not closed in time")
        .unwrap();
    assert_eq!(next(&mut queue).await.data, b"after");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_are_pulled_than_can_be_processed() {
    let e = emulator(SubscriptionOptions::default()).await;
    for i in 0..5 {
        publish(&e, &format!("m{i}"));
    }
    let mut queue = pubsub(&e.host(), 2, LONG)
        .subscribe("requests")
        .await
        .unwrap();
    let held = (next(&mut queue).await, next(&mut queue).await);
    assert_eq!(e.pubsub.unacked(SUBSCRIPTION), (3, 2));
    held.0.lease.nack();
    drop(held.1); // Equivalent to a nack.
    e.pubsub.until(|p| p.delivered(SUBSCRIPTION).0 >= 4).await;
    queue.close().await;
    queue.flush().await;
    // Messages that were pulled but not settled are redelivered to the next subscriber.
    let mut other = pubsub(&e.host(), 5, LONG)
        .subscribe("requests")
        .await
        .unwrap();
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 5 {
        let delivery = next(&mut other).await;
        seen.insert(delivery.data);
        delivery.lease.ack().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_once_and_delivery_attempts() {
    let dead = "projects/test/topics/dead";
    let options = SubscriptionOptions {
        exactly_once: true,
        dead_letter: Some((dead.into(), 5)),
        ..Default::default()
    };
    let e = emulator(options).await;
    e.pubsub.create_topic(dead);
    publish(&e, "m");
    let mut queue = pubsub(&e.host(), 1, LONG)
        .subscribe("requests")
        .await
        .unwrap();
    for attempt in 1..=3 {
        let delivery = next(&mut queue).await;
        assert_eq!(delivery.attempt, Some(attempt));
        if attempt == 3 {
            delivery.lease.ack().await.unwrap();
        } else {
            delivery.lease.nack();
        }
    }
    assert_eq!(e.pubsub.delivered(SUBSCRIPTION), (3, 1));
    assert!(e.pubsub.published(dead).is_empty());
}

/// Features that Google's emulator lacks: filters, and a backoff before a redelivery.
#[tokio::test(flavor = "multi_thread")]
async fn filters_and_retry_backoff() {
    let pause = Duration::from_secs(2);
    let filter = Some(("eventType".to_owned(), "OBJECT_FINALIZE".to_owned()));
    let e = emulator(SubscriptionOptions {
        filter,
        retry_backoff: pause,
        ..Default::default()
    })
    .await;
    for kind in ["OBJECT_DELETE", "OBJECT_FINALIZE"] {
        let attributes = [("eventType".to_owned(), kind.to_owned())].into();
        e.pubsub
            .publish(TOPIC, kind.as_bytes(), attributes)
            .unwrap();
    }
    let mut queue = pubsub(&e.host(), 5, LONG)
        .subscribe("requests")
        .await
        .unwrap();
    let first = next(&mut queue).await;
    assert_eq!(first.data, b"OBJECT_FINALIZE");
    first.lease.nack();
    e.pubsub.until(|p| p.unacked(SUBSCRIPTION) == (1, 0)).await;
    let given_back = tokio::time::Instant::now();
    let again = next(&mut queue).await;
    assert_eq!(again.data, b"OBJECT_FINALIZE");
    assert!(
        given_back.elapsed() > pause.mul_f64(0.7),
        "{:?}",
        given_back.elapsed()
    );
    again.lease.ack().await.unwrap();
    e.pubsub
        .until(|p| p.delivered(SUBSCRIPTION) == (2, 1))
        .await;
}
