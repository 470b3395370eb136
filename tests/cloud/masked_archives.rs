//! Masked archives in Cloud Storage: an upload that fails leaves no object, and none is overwritten.

use std::path::Path;
use std::process::Output;

use pgrestored::emulator::{Emulator, StorageFault};
use tokio::process::Command;

const BUCKET: &str = "my-backups";
const RULES: &str =
    "version: 1\nlarge_objects: keep\ntables:\n  s.parent: { columns: { note: { set: \"x\" } } }\n";

async fn mask(emulator: &Emulator, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgrestored"));
    command.arg("mask").args(args).env_clear();
    command
        .env("BACKUP_BUCKET", format!("gs://{BUCKET}"))
        .env("STORAGE_EMULATOR_HOST", emulator.host())
        .env("RETRY_BUDGET", "5s");
    let Output { status, stderr, .. } = command.output().await.unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_exists_once_all_of_it_was_written() {
    let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let storage = &emulator.storage;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let dump = std::fs::read(fixtures.join("v16.custom.dump")).unwrap();
    storage.put(BUCKET, "cut.dump", dump[..dump.len() - 2000].to_vec());
    storage.put(BUCKET, "app.dump", dump);
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let rules = rules.to_str().unwrap();
    let to = "gs://for-vendor/copies/app.dump";
    let args = |backup| ["--mask", rules, "--to", to, backup];
    let objects = || storage.objects("for-vendor").len();

    let (code, said) = mask(&emulator, &args("cut.dump")).await;
    assert_eq!((code, objects()), (Some(65), 0), "{said}");
    let unfit = folder.path().join("unfit.yaml");
    std::fs::write(&unfit, RULES.replace("s.parent", "s.person")).unwrap();
    let flags = ["--mask", unfit.to_str().unwrap(), "--to", to, "app.dump"];
    let (code, said) = mask(&emulator, &flags).await;
    assert_eq!((code, objects()), (Some(65), 0), "{said}");

    // The download is resumed, whatever has been written already.
    storage.fail_next_reads([StorageFault::CutAfter(10_000)]);
    let (code, said) = mask(&emulator, &args("app.dump")).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("s.parent: 120 rows"), "{said}");
    let written = storage.get("for-vendor", "copies/app.dump").unwrap();
    assert!(written.starts_with(b"PGDMP"));
    let (code, said) = mask(&emulator, &args("app.dump")).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("{to} exists")), "{said}");
    assert_eq!(
        storage.get("for-vendor", "copies/app.dump").unwrap(),
        written
    );
}

/// More than one request of an upload, each of which has 8 MiB.
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_any_size_is_uploaded() {
    use std::io::Write;
    let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
    let place = pgrestored::config::Location::parse("gs://for-vendor").unwrap();
    let host = format!("http://{}", emulator.host());
    let endpoints = pgrestored::config::StorageEmulator {
        json: host.clone(),
        grpc: host,
    };
    let stores = pgrestored::store::Stores::new(Some(endpoints));
    let store = stores.at(&place).await.unwrap();
    let wanted: Vec<u8> = (0..20 << 20).map(|i: u32| (i * 7 / 3) as u8).collect();
    for (name, is_finished) in [("whole", true), ("cut", false)] {
        let stall = std::time::Duration::from_secs(60);
        let (mut writer, body) = pgrestored::store::object_body(stall);
        let bytes = wanted.clone();
        let written = tokio::task::spawn_blocking(move || {
            writer.write_all(&bytes).unwrap();
            if is_finished {
                writer.finish().unwrap();
            }
        });
        let created = store
            .create_of(name, body, "application/octet-stream")
            .await;
        written.await.unwrap();
        let object = emulator.storage.get("for-vendor", name);
        if is_finished {
            assert_eq!(created.unwrap().unwrap().size, wanted.len() as u64);
            assert!(object.is_some_and(|bytes| bytes == wanted));
        } else {
            assert!(created.is_err() && object.is_none());
        }
    }
    // The upload that was given up was never completed.
    assert_eq!(emulator.storage.open_uploads(), 1);
}
