//! Interfaces that others rely on: metrics exposition, schemas, examples, events.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pgrestored::error::{
    DatabaseError, DatabaseKind, FailureReason, JobError, JobKind, RestoreError, StorageError,
    StorageKind, ValidationError, ValidationKind,
};
use pgrestored::event::{GcsNotification, RestoreRequest, RestoreResult};
use pgrestored::metrics::{RestoreMetricsManager, VerificationStatus, Work};

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

/// The exposition at the start and after known events, with times masked.
#[test]
fn the_exposition_matches_its_snapshot() {
    let m = RestoreMetricsManager::new(1.0);
    let fresh = m.exposition();
    let work = Work {
        downloaded_bytes: 1000,
        rows: 20,
        objects: 5,
        download_retries: 3,
    };
    let running = m.start_restore(move || work);
    m.record_restore_completion(45.0, 1234, true, None);
    m.record_restore_completion(7.0, 99, false, Some(FailureReason::ChecksumMismatch));
    m.record_verification(VerificationStatus::Success, Some("orders"));
    m.record_rto("orders", 12.5, 13.0);
    m.record_stage(pgdump_restore::Stage::Data, 12.5);
    m.record_selftest(true);
    m.record_queue_delay(2.0);
    m.record_redelivery();
    m.record_lease_lost();
    m.record_publish_failure();
    let used = m.exposition();
    drop(running);
    let idle = m.exposition();
    assert!(
        idle.contains("\nrestore_in_progress 0\n")
            && idle.contains("\nrestore_oldest_start_timestamp_seconds 0\n")
    );
    // The work of restores that ended stays counted.
    drop(m.start_restore(move || work));
    assert!(idle.contains("\nrestore_rows_total 20\n"), "{idle}");
    assert!(m.exposition().contains("\nrestore_rows_total 40\n"));
    let masked = |text: &str| -> String {
        let lines = text.lines().map(|l| match l.split_once(' ') {
            Some((name, value)) if name.contains("timestamp_seconds") && value.len() > 8 => {
                format!("{name} TIME\n")
            }
            _ => format!("{l}\n"),
        });
        lines
            .collect::<String>()
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    };
    let now = format!(
        "# at the start\n{}\n# after some events\n{}",
        masked(&fresh),
        masked(&used)
    );
    insta::assert_snapshot!("exposition", now);
}

/// The documented series exist, with exactly their labels, from the first scrape.
#[test]
fn documented_series_exist_from_the_start() {
    let text = RestoreMetricsManager::new(1.0).exposition();
    for line in [
        "restore_success_total 0",
        "restore_in_progress 0",
        "restore_size_bytes 0",
        "restore_lease_lost_total 0",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}");
    }
    for reason in FailureReason::ALL {
        assert!(
            text.contains(&format!(
                "\nrestore_failure_total{{failure_reason=\"{reason}\"}} 0\n"
            )),
            "{reason}"
        );
    }
    for status in VerificationStatus::ALL {
        assert!(text.contains(&format!(
            "\nrestore_verification_total{{status=\"{}\"}} 0\n",
            status.as_str()
        )));
    }
    for unwanted in [
        "otel_scope",
        "target_info",
        "_total_total",
        "_seconds_seconds",
        "_bytes_bytes",
    ] {
        assert!(!text.contains(unwanted), "{unwanted}");
    }
}

#[test]
fn schemas_match_the_types() {
    for (name, schema) in pgrestored::cli::schemas() {
        let file = schemas().join(format!("{name}.v1.json"));
        let written = std::fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}: {e}; run make schemas", file.display()));
        let now = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        assert!(written == now, "{name}: run make schemas");
    }
    let files = std::fs::read_dir(schemas()).unwrap().filter(|e| {
        e.as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|x| x == "json")
    });
    assert_eq!(files.count(), pgrestored::cli::schemas().len());
}

/// Name and content of every file in a folder.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let files = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    let text =
        |f: &Path| std::fs::read_to_string(f).unwrap_or_else(|e| panic!("{}: {e}", f.display()));
    files
        .map(|f| (f.file_name().into_string().unwrap(), text(&f.path())))
        .collect()
}

#[test]
fn the_reference_pages_match_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_pgrestored"))
        .arg("reference")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let (mut now, written) = (
        texts(folder.path()),
        texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference")),
    );
    assert!(
        now.keys().eq(written.keys()),
        "{:?}: run make reference",
        written.keys()
    );
    now.retain(|name, text| written[name] != *text);
    assert!(now.is_empty(), "{:?}: run make reference", now.keys());
}

fn validator(name: &str) -> jsonschema::Validator {
    let (_, schema) = pgrestored::cli::schemas()
        .into_iter()
        .find(|(n, _)| *n == name)
        .unwrap();
    jsonschema::draft202012::new(schema.as_value()).unwrap()
}

fn example(name: &str) -> serde_json::Value {
    serde_json::from_str(&std::fs::read_to_string(schemas().join("examples").join(name)).unwrap())
        .unwrap()
}

#[test]
fn every_example_matches_its_schema_and_its_type() {
    for entry in std::fs::read_dir(schemas().join("examples")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let name = file.split('.').next().unwrap();
        let value = example(&file);
        let v = validator(name);
        let errors: Vec<_> = v.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{file}: {errors:?}");
        match name {
            "restore-request" => {
                let request: RestoreRequest = serde_json::from_value(value).unwrap();
                request.into_job(Some("app")).unwrap();
            }
            "restore-result" => {
                let result: RestoreResult = serde_json::from_value(value.clone()).unwrap();
                assert_eq!(
                    serde_json::to_value(&result).unwrap()["request_id"],
                    value["request_id"]
                );
            }
            "gcs-notification" => {
                let attributes = serde_json::from_value(value).unwrap();
                assert!(GcsNotification::from_attributes(&attributes).is_some());
            }
            other => panic!("no check for examples of {other}"),
        }
    }
}

/// A publisher that always sends the same body leaves the id out.
#[test]
fn the_request_schema_needs_no_id() {
    let mut request = example("restore-request.json");
    request.as_object_mut().unwrap().remove("request_id");
    assert!(validator("restore-request").is_valid(&request));
    let request: RestoreRequest = serde_json::from_value(request).unwrap();
    let job = request.into_job_of_message("7", Some("app")).unwrap();
    assert_eq!(job.request_id(), "message:7");
}

/// The schema rejects what the type rejects.
#[test]
fn the_request_schema_is_as_strict_as_the_type() {
    let v = validator("restore-request");
    let good = example("restore-request.json");
    assert!(v.is_valid(&good));
    for (pointer, value) in [
        ("surprise", serde_json::json!(1)),
        ("on_existing", serde_json::json!("drop")),
        ("backup", serde_json::json!({})),
        (
            "backup",
            serde_json::json!({ "name": "a", "uri": "gs://bkt/a" }),
        ),
        ("backup", serde_json::json!({ "name": "a", "dsn": "x" })),
        ("request_id", serde_json::json!("")),
        ("jobs", serde_json::json!(0)),
    ] {
        let mut bad = good.clone();
        bad[pointer] = value;
        assert!(!v.is_valid(&bad), "{bad}");
        let parsed =
            serde_json::from_value::<RestoreRequest>(bad.clone()).map_err(|e| e.to_string());
        assert!(
            parsed.is_err() || parsed.unwrap().into_job(None).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn published_results_match_the_schema() {
    let t = jiff::Timestamp::UNIX_EPOCH;
    let invalid = ValidationKind::ALL
        .iter()
        .map(|k| ValidationError::new(*k, "a message").into());
    let of_server = DatabaseKind::ALL
        .iter()
        .map(|k| DatabaseError::new(*k, "a message").into());
    let of_store = StorageKind::ALL
        .iter()
        .map(|k| StorageError::new(*k, "a message").into());
    let of_job = JobKind::ALL
        .iter()
        .map(|k| JobError::new(*k, "a message").into());
    let all: Vec<RestoreError> = invalid
        .chain(of_server)
        .chain(of_store)
        .chain(of_job)
        .collect();
    for reason in FailureReason::ALL {
        assert!(all.iter().any(|e| e.reason() == reason), "{reason}");
    }
    for error in all {
        let result = RestoreResult::failure("r", &error, pgdump_restore::Stage::Data, (t, t));
        let value: serde_json::Value =
            serde_json::from_slice(&result.to_message().unwrap().data).unwrap();
        let v = validator("restore-result");
        let errors: Vec<_> = v.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(errors.is_empty(), "{error:?}: {errors:?}");
    }
}

/// `docs/rules.md` lists the rules of the code. `UPDATE_GOLDEN=1` writes it.
#[test]
fn every_rule_is_documented() {
    let mut text = String::from(
        "# Rewrites\n\n\
         A dump of one server is restored into another one. Every change to what the dump says is a rule of this table, and each use of a rule is\n\
         in the result (`rewrites`: rule, count, examples). Everything else is sent to the server unchanged. If the server rejects it, the error\n\
         names its line or its entry.\n\
         \n| rule | what |\n|---|---|\n",
    );
    for rule in pgdump_restore::RULES {
        text.push_str(&format!("| `{}` | {} |\n", rule.name, rule.what));
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == text,
        "run with UPDATE_GOLDEN=1"
    );
}
