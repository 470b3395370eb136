//! Bad inputs, each sent to a worker: it publishes one result with the right reason, acknowledges the message, and
//! changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use pgrestored::event::{RestoreResult, Status};

use crate::support::Cluster;
use crate::test_env::{BUCKET, PubSubKind, TestEnv};

const REQUESTS: &str = "projects/test/topics/restore-requests";
const RESULTS: &str = "projects/test/topics/restore-completions";
const SUBSCRIPTION: &str = "projects/test/subscriptions/restore-requests";

/// What may have been accessed before the rejection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Touches {
    Nothing,
    /// The object may have been read, and a staging database created and dropped.
    Object,
}
use Touches::{Nothing, Object};

struct Bad {
    name: String,
    data: Vec<u8>,
    attributes: Vec<(&'static str, String)>,
    reason: &'static str,
    touches: Touches,
}

fn bad(name: &str, data: impl Into<Vec<u8>>, reason: &'static str, touches: Touches) -> Bad {
    Bad {
        name: name.to_owned(),
        data: data.into(),
        attributes: vec![],
        reason,
        touches,
    }
}

/// A valid request with one field replaced.
fn with(field: &str, value: serde_json::Value) -> String {
    let mut body = serde_json::json!({ "request_id": format!("bad-{field}-{value}").chars().take(150).collect::<String>(),
        "backup": { "name": "good.dump" }, "target_db": "app" });
    let (head, tail) = field.split_once('.').unwrap_or((field, ""));
    match tail {
        "" => body[head] = value,
        _ => body[head][tail] = value,
    }
    body.to_string()
}

/// Messages that are not requests at all.
fn envelopes() -> Vec<Bad> {
    let mut all = Vec::new();
    for (name, data) in [
        ("empty", ""),
        ("white space", "  \n"),
        ("no JSON", "restore latest please"),
        ("half JSON", r#"{"request_id":"x","#),
        (
            "two documents",
            r#"{"request_id":"x","backup":{"name":"a"}} {}"#,
        ),
        ("null", "null"),
        ("true", "true"),
        ("a number", "17"),
        ("a string", "\"x\""),
        ("an array", "[]"),
        ("an empty object", "{}"),
        ("neither id nor backup", r#"{"target_db":"app"}"#),
        (
            "no backup",
            r#"{"request_id":"no-backup","target_db":"app"}"#,
        ),
        (
            "an empty id",
            r#"{"request_id":"","backup":{"name":"good.dump"},"target_db":"app"}"#,
        ),
        (
            "a number as id",
            r#"{"request_id":1,"backup":{"name":"good.dump"},"target_db":"app"}"#,
        ),
        (
            "a field twice",
            r#"{"request_id":"twice","request_id":"twice2","backup":{"name":"a"},"target_db":"app"}"#,
        ),
        (
            "a connection string",
            r#"{"request_id":"dsn","backup":{"name":"good.dump"},"target_db":"app","dsn":"host=evil"}"#,
        ),
        (
            "a NUL",
            "{\"request_id\":\"nul\\u0000\",\"backup\":{\"name\":\"good\\u0000.dump\"},\"target_db\":\"app\"}",
        ),
        (
            "a NUL in the id",
            "{\"request_id\":\"nul\\u0000\",\"backup\":{\"name\":\"good.dump\"},\"target_db\":\"app\"}",
        ),
        ("comments", r#"{"request_id":"c" /* x */}"#),
        (
            "NaN",
            r#"{"request_id":"nan","backup":{"name":"good.dump"},"target_db":"app","jobs":NaN}"#,
        ),
    ] {
        all.push(bad(name, data, "invalid_request", Nothing));
    }
    all.push(bad(
        "not UTF-8",
        b"{\"request_id\":\"\xff\xfe\"}".to_vec(),
        "invalid_request",
        Nothing,
    ));
    all.push(bad("deep", "[".repeat(20_000), "invalid_request", Nothing));
    let huge = format!(
        r#"{{"request_id":"huge","backup":{{"name":"{}"}},"target_db":"app"}}"#,
        "x".repeat(70_000)
    );
    all.push(bad("huge", huge, "invalid_request", Nothing));
    let long_id = format!(
        r#"{{"request_id":"{}","backup":{{"name":"good.dump"}},"target_db":"app"}}"#,
        "i".repeat(201)
    );
    all.push(bad("a long id", long_id, "invalid_request", Nothing));
    for (name, attributes) in [
        (
            "an old event",
            vec![
                ("ce-specversion", "0.3"),
                ("ce-type", "io.pgrestored.restore.requested.v1"),
            ],
        ),
        (
            "another event",
            vec![
                ("ce-specversion", "1.0"),
                ("ce-type", "io.pgrestored.restore.requested.v2"),
            ],
        ),
        ("an event without a type", vec![("ce-specversion", "1.0")]),
        (
            "structured without data",
            vec![("content-type", "application/cloudevents+json")],
        ),
    ] {
        let mut b = bad(
            name,
            with("labels", serde_json::json!({ "case": name })),
            "invalid_request",
            Nothing,
        );
        b.attributes = attributes
            .into_iter()
            .map(|(k, v)| (k, v.to_owned()))
            .collect();
        all.push(b);
    }
    all
}

/// Requests with an invalid field.
fn fields() -> Vec<Bad> {
    use serde_json::json;
    let long = "x".repeat(64);
    let cases = [
        ("unknown", json!(1), "invalid_request"),
        ("backup", json!({}), "invalid_request"),
        (
            "backup",
            json!({ "name": "a", "uri": "gs://b/a" }),
            "invalid_request",
        ),
        ("backup", json!("good.dump"), "invalid_request"),
        (
            "backup",
            json!({ "name": "good.dump", "password": "x" }),
            "invalid_request",
        ),
        ("backup.name", json!(""), "invalid_request"),
        ("backup.name", json!("../good.dump"), "invalid_request"),
        ("backup.name", json!("a/../../b"), "invalid_request"),
        ("backup.name", json!("a\nb"), "invalid_request"),
        ("backup.name", json!("latest@tomorrow"), "invalid_request"),
        ("backup.name", json!("n".repeat(1025)), "invalid_request"),
        ("backup.name", json!(null), "invalid_request"),
        ("backup.generation", json!("x"), "invalid_request"),
        (
            "backup.generation",
            json!("99999999999999999999"),
            "invalid_request",
        ),
        ("backup.generation", json!(17), "invalid_request"),
        ("backup.crc32c", json!(5), "invalid_request"),
        ("target_db", json!(""), "invalid_request"),
        ("target_db", json!(long), "invalid_request"),
        ("target_db", json!("a\u{0}b"), "invalid_request"),
        ("target_db", json!(["app"]), "invalid_request"),
        ("on_existing", json!("destroy"), "invalid_request"),
        ("mode", json!("delete"), "invalid_request"),
        ("mode", json!("verify"), "invalid_request"),
        ("depth", json!("data"), "invalid_request"),
        ("jobs", json!(0), "invalid_request"),
        ("jobs", json!(257), "invalid_request"),
        ("jobs", json!(-1), "invalid_request"),
        ("jobs", json!("many"), "invalid_request"),
        ("deadline", json!("soon"), "invalid_request"),
        ("labels", json!(["a"]), "invalid_request"),
        ("labels", json!({ "a": 1 }), "invalid_request"),
        ("select", json!({ "tabels": ["t"] }), "invalid_request"),
        ("select", json!({ "data_only": true }), "invalid_request"),
        ("target_db", json!("postgres"), "target_not_allowed"),
        ("target_db", json!("template0"), "target_not_allowed"),
        ("target_db", json!("template1"), "target_not_allowed"),
        ("target_db", json!("cloudsqladmin"), "target_not_allowed"),
        ("target_db", json!("rdsadmin"), "target_not_allowed"),
        (
            "target_db",
            json!("azure_maintenance"),
            "target_not_allowed",
        ),
        (
            "target_db",
            json!("pgrestored_s_0123456789abcdef"),
            "target_not_allowed",
        ),
        ("target_db", json!("payroll"), "target_not_allowed"),
        ("target_db", json!("elsewhere"), "target_not_allowed"),
        (
            "backup",
            json!({ "uri": "gs://another-bucket/x.dump" }),
            "source_not_allowed",
        ),
        (
            "backup",
            json!({ "uri": "gs://test-backups-2/x.dump" }),
            "source_not_allowed",
        ),
        (
            "backup",
            json!({ "uri": "file:///etc/passwd" }),
            "source_not_allowed",
        ),
        (
            "backup",
            json!({ "uri": "http://169.254.169.254/x" }),
            "invalid_request",
        ),
        ("backup", json!({ "uri": "gs://" }), "invalid_request"),
        (
            "backup",
            json!({ "uri": "gs://UPPER CASE/x" }),
            "invalid_request",
        ),
        (
            "backup",
            json!({ "uri": "s3://bucket/x" }),
            "invalid_request",
        ),
    ];
    let bad_of = |(field, value, reason): (&str, serde_json::Value, &'static str)| {
        bad(
            &format!("{field} {value}")
                .chars()
                .take(80)
                .collect::<String>(),
            with(field, value),
            reason,
            Nothing,
        )
    };
    cases.into_iter().map(bad_of).collect()
}

/// Objects that do not exist or are not backups, and targets that already exist.
fn objects(env: &TestEnv, good: &[u8]) -> Vec<Bad> {
    use serde_json::json;
    let mut all = vec![
        bad(
            "no such object",
            with("backup.name", json!("nothing.dump")),
            "backup_not_found",
            Object,
        ),
        bad(
            "no such generation",
            with("backup.generation", json!("1")),
            "backup_not_found",
            Object,
        ),
        bad(
            "another checksum",
            with("backup.crc32c", json!("AAAAAA==")),
            "checksum_mismatch",
            Object,
        ),
        bad(
            "no checksum",
            with("backup.crc32c", json!("!")),
            "invalid_request",
            Object,
        ),
        bad(
            "the target exists",
            with("target_db", json!("app_taken")),
            "target_exists",
            Object,
        ),
        bad(
            "a template",
            r#"{"request_id":"tmpl","backup":{"name":"good.dump"},"target_db":"app_template","on_existing":"replace"}"#,
            "target_not_allowed",
            Object,
        ),
        bad(
            "a part in place of the whole",
            r#"{"request_id":"part","backup":{"name":"good.dump"},"target_db":"app_taken","on_existing":"replace","select":{"tables":["t"]}}"#,
            "target_not_allowed",
            Object,
        ),
        bad(
            "a table that is not there",
            with("select", json!({ "tables": ["nowhere"] })),
            "invalid_request",
            Object,
        ),
    ];
    let mut newer = good.to_vec();
    newer[6] = 99;
    let cut = good[..good.len() / 2].to_vec();
    let mut flipped = good.to_vec();
    flipped[good.len() / 2] ^= 1;
    for (name, data, reason) in [
        ("empty", vec![], "archive_corrupt"),
        ("cut", cut, "archive_corrupt"),
        ("newer", newer, "archive_unsupported"),
        ("more", [good, b"more"].concat(), "archive_corrupt"),
        ("noise", vec![0xa7; 9000], "archive_unsupported"),
        (
            "html",
            b"<!DOCTYPE html><html></html>".to_vec(),
            "archive_unsupported",
        ),
        ("json", b"{\"error\":404}".to_vec(), "archive_unsupported"),
        (
            "zip",
            b"PK\x03\x04\x14\x00\x01\x00\x08\x00aaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec(),
            "archive_unsupported",
        ),
        (
            "sqlite",
            b"SQLite format 3\0abc".to_vec(),
            "archive_unsupported",
        ),
        (
            "mysql",
            b"-- MySQL dump 10.13\nCREATE TABLE `t` (a int);\n".to_vec(),
            "archive_unsupported",
        ),
        (
            "shell",
            b"--\n-- PostgreSQL database dump\n--\n\n\\! touch /tmp/x\n".to_vec(),
            "archive_unsupported",
        ),
        (
            "pgp",
            b"-----BEGIN PGP MESSAGE-----\n".to_vec(),
            "archive_unsupported",
        ),
    ] {
        let object = format!("{name}.dump");
        env.emulator.storage.put(BUCKET, &object, data);
        all.push(bad(
            &object,
            with("backup.name", json!(object)),
            reason,
            Object,
        ));
    }
    // The store's checksum is that of the intact bytes.
    env.emulator
        .storage
        .put(BUCKET, "rotten.dump", good.to_vec());
    env.emulator.storage.set_crc32c(BUCKET, "rotten.dump", 1);
    all.push(bad(
        "rotten",
        with("backup.name", json!("rotten.dump")),
        "checksum_mismatch",
        Object,
    ));
    all
}

/// All global objects of the server, and the identity of each database.
const CATALOGS: &str = "SELECT string_agg(x, E'\\n' ORDER BY x) FROM (
    SELECT format('role %s %s %s', rolname, rolsuper, shobj_description(oid, 'pg_authid')) FROM pg_roles
    UNION ALL SELECT format('database %s %s %s %s %s', oid, datname, datdba, datacl, shobj_description(oid, 'pg_database')) FROM pg_database
    UNION ALL SELECT format('setting %s %s', setdatabase, setconfig) FROM pg_db_role_setting
    UNION ALL SELECT format('owned %s', name) FROM pgrestored.owned_database) t(x)";

#[tokio::test(flavor = "multi_thread")]
async fn bad_inputs_are_answered_and_change_nothing() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let c = Cluster::start();
    c.create("src", "CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 200) i");
    c.create("app_taken", "CREATE TABLE precious ()");
    c.create(
        "app_template",
        "CREATE TABLE precious (); ALTER DATABASE app_template IS_TEMPLATE true",
    );
    let good = std::fs::read(c.dump_to_file("src", &[])).unwrap();
    env.emulator.storage.put(BUCKET, "good.dump", good.clone());
    let flags = [
        ("allowed-targets", "app*,payroll"),
        ("protected-databases", "payroll,hr"),
    ];
    let running = env.worker(&c, &flags).await;
    // Create the journal first.
    env.publish(r#"{"request_id":"first","backup":{"name":"good.dump"},"target_db":"app_first"}"#)
        .await;
    assert_eq!(env.result().await.status, Status::Success);
    // One session for all the looks: a `psql` for each would take longer than the inputs.
    let config = format!("host={} user=postgres dbname=postgres", c.sandbox.host());
    let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let catalogs = async || {
        let row = client.query_one(CATALOGS, &[]).await.unwrap();
        row.get::<_, String>(0)
    };
    let before = catalogs().await;

    let all: Vec<Bad> = envelopes()
        .into_iter()
        .chain(fields())
        .chain(objects(&env, &good))
        .collect();
    let count = all.len();
    assert!(count >= 80, "{count}");
    for (i, b) in all.into_iter().enumerate() {
        let reads = env.emulator.storage.reads();
        let attributes: HashMap<String, String> = b
            .attributes
            .iter()
            .map(|(k, v)| (k.to_string(), v.clone()))
            .collect();
        env.emulator
            .pubsub
            .publish(REQUESTS, &b.data, attributes)
            .unwrap();
        let answered = env
            .emulator
            .pubsub
            .until(|p| p.published(RESULTS).len() == i + 2 && p.unacked(SUBSCRIPTION) == (0, 0));
        let answered = tokio::time::timeout(Duration::from_secs(30), answered).await;
        answered.unwrap_or_else(|_| panic!("{}: no answer", b.name));
        let answer = env.emulator.pubsub.published(RESULTS).pop().unwrap();
        let result: RestoreResult = serde_json::from_slice(&answer.data).unwrap();
        let error = result
            .error
            .unwrap_or_else(|| panic!("{}: was not rejected", b.name));
        assert_eq!(
            error.reason.as_str(),
            b.reason,
            "{}: {}",
            b.name,
            error.message
        );
        assert!(!error.retryable && !error.message.is_empty(), "{}", b.name);
        assert_eq!(answer.attributes["failure_reason"], b.reason, "{}", b.name);
        if b.touches == Nothing {
            assert_eq!(
                env.emulator.storage.reads(),
                reads,
                "{}: an object was read",
                b.name
            );
        }
        assert_eq!(catalogs().await, before, "{}", b.name);
    }
    assert_eq!(c.psql("app_taken", "SELECT count(*) FROM precious"), "0");
    eprintln!("CAMPAIGN bad inputs: {count}, each with its reason, acknowledged, nothing changed");
    running.stop().await;
}
