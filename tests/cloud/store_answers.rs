//! What Cloud Storage refuses, with the answers that Google documents: what each means to a user, and what to do about it.
//! No server is needed.

use bytes::Bytes;
use pgrestored::app::App;
use pgrestored::config::{Config, RawConfig};
use pgrestored::emulator::{StorageCall as Call, StorageErrorResponse};
use pgrestored::error::{Blame, FailureReason as R, RestoreError, report};
use pgrestored::job::BackupRef;
use tokio_util::sync::CancellationToken;

use crate::test_env::{BUCKET, PubSubKind, TestEnv};

const NAME: &str = "app.dump";

fn app(env: &TestEnv, more: &[(&str, &str)]) -> App {
    let flags = env.flags();
    let mut all: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (*k, v.as_str())).collect();
    // A call that is repeated is not repeated for long.
    all.extend([("db-host", "/nowhere"), ("retry-budget", "50ms")]);
    all.extend(more);
    App::new(Config::new(&RawConfig::from_flags(&all).unwrap()).unwrap()).unwrap()
}

fn backup(text: &str) -> BackupRef {
    BackupRef::parse(text, "").unwrap()
}

/// Does something of which this call is a part.
async fn attempt(app: &App, call: Call) -> Result<(), RestoreError> {
    let catalog = app.manager.catalog();
    let store = catalog.store().await?;
    match call {
        Call::List => catalog.list_backups("").await.map(drop),
        Call::Get => catalog.pin(&backup(NAME), None, None).await.map(drop),
        Call::Read => {
            let name = backup(NAME);
            let opened = catalog.open(&name, CancellationToken::new());
            opened.await.map(drop)
        }
        Call::Delete => {
            let object = store.stat(NAME, None).await?;
            catalog.delete_backup(&object).await
        }
        Call::Create => {
            let evidence = Bytes::from_static(b"{}");
            let created = store.create("evidence.json", evidence, "application/json");
            Ok(created.await.map(drop)?)
        }
        Call::TestPermissions => {
            let asked = store.permissions(&["storage.objects.get"]);
            Ok(asked.await.map(drop)?)
        }
    }
}

fn answer(status: u16, reason: &str, message: &str) -> StorageErrorResponse {
    StorageErrorResponse::new(status, reason, message)
}

/// A name, the call and its answer; reason and blame; a part of the message, and a part of the fix.
type Case = (
    &'static str,
    (Call, StorageErrorResponse),
    (R, Blame),
    (&'static str, &'static str),
);

const DENIED: (R, Blame) = (R::AccessDenied, Blame::Infrastructure);

fn accounts_and_policies() -> Vec<Case> {
    let expired = "Request had invalid authentication credentials.";
    let forbidden = "worker@p.iam.gserviceaccount.com does not have storage.objects.list access to the Google Cloud Storage \
        bucket. Permission 'storage.objects.list' denied on resource (or it may not exist).";
    let perimeter = "Request is prohibited by organization's policy. vpcServiceControlsUniqueIdentifier: AbC-1_2";
    let closed = "The project to be billed is associated with a closed billing account.";
    vec![
        (
            "an expired token",
            (
                Call::List,
                answer(401, "authError", expired).with_error_info("ACCESS_TOKEN_EXPIRED"),
            ),
            DENIED,
            ("missing, expired or revoked", "clock"),
        ),
        (
            "an expired token, for bytes",
            (Call::Read, answer(401, "authError", "Invalid Credentials")),
            DENIED,
            ("missing, expired or revoked", "clock"),
        ),
        (
            "a bucket in another project",
            (Call::List, answer(403, "forbidden", forbidden)),
            DENIED,
            (
                "lacks storage.objects.list",
                "add-iam-policy-binding gs://test-backups",
            ),
        ),
        (
            "evidence that may not be written",
            (Call::Create, answer(403, "forbidden", "Forbidden")),
            DENIED,
            ("lacks a permission", "roles/storage.objectCreator"),
        ),
        (
            "an account that is disabled",
            (
                Call::Get,
                answer(401, "authError", expired).with_error_info("ACCOUNT_STATE_INVALID"),
            ),
            DENIED,
            ("disabled or deleted", "service-accounts enable"),
        ),
        (
            "VPC Service Controls",
            (Call::Get, answer(403, "forbidden", perimeter)),
            DENIED,
            ("VPC Service Controls", "under AbC-1_2"),
        ),
        (
            "a closed billing account",
            (Call::Read, answer(403, "UserProjectAccountProblem", closed)),
            DENIED,
            ("billing is disabled", "billing projects link"),
        ),
    ]
}

fn keys_and_holds() -> Vec<Case> {
    let disabled = "Cloud KMS key is disabled, destroyed, or scheduled to be destroyed.";
    let supplied = "The target object is encrypted by a customer-supplied encryption key.";
    let held = "Object 'test-backups/app.dump' is under active Temporary hold and cannot be deleted, overwritten or archived \
        until hold is removed.";
    let retained = "Object 'test-backups/app.dump' is subject to bucket's retention policy or object retention and cannot be \
        deleted or overwritten until 2099-12-30T15:58:01-07:00";
    vec![
        (
            "a disabled key of Cloud KMS",
            (Call::Read, answer(400, "cloudKmsDisabledKey", disabled)),
            DENIED,
            ("disabled, destroyed", "kms keys versions enable"),
        ),
        (
            "a disabled key of Cloud KMS, for metadata",
            (
                Call::Get,
                answer(400, "cloudKmsDisabledKey", disabled).as_precondition(),
            ),
            DENIED,
            ("disabled, destroyed", "kms keys versions enable"),
        ),
        (
            "a customer-supplied key",
            (
                Call::Read,
                answer(
                    400,
                    "resourceIsEncryptedWithCustomerEncryptionKey",
                    supplied,
                ),
            ),
            (R::ArchiveUnsupported, Blame::Infrastructure),
            ("customer-supplied key", "--decryption-keys=KEY"),
        ),
        (
            "a hold",
            (Call::Delete, answer(403, "forbidden", held)),
            DENIED,
            ("a hold keeps it", "--no-temporary-hold"),
        ),
        (
            "a retention policy",
            (Call::Delete, answer(403, "retentionPolicyNotMet", retained)),
            DENIED,
            ("until 2099-12-30T22:58:01Z", "BACKUP_RETENTION_DAYS"),
        ),
        (
            "a bucket that does not exist",
            (
                Call::List,
                answer(404, "notFound", "The specified bucket does not exist."),
            ),
            (R::BackupNotFound, Blame::Request),
            ("no such bucket; check BACKUP_BUCKET", ""),
        ),
        (
            "too many requests",
            (
                Call::Read,
                answer(429, "rateLimitExceeded", "Too many requests."),
            ),
            (R::DownloadFailed, Blame::Infrastructure),
            ("limits the rate of requests", ""),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_reason_its_blame_and_its_fix() {
    let env = TestEnv::start(PubSubKind::Emulator).await.unwrap();
    let dump: &[u8] = include_bytes!("../fixtures/v18.custom.dump");
    let (storage, errors) = (&env.emulator.storage, &env.emulator.storage_errors);
    storage.put(BUCKET, NAME, dump);
    let unbilled = app(&env, &[]);
    for (name, (call, refusal), expected, (what, fix)) in
        [accounts_and_policies(), keys_and_holds()].concat()
    {
        errors.fail(call, &refusal);
        let e = attempt(&unbilled, call).await.expect_err(name);
        errors.clear();
        let said = report(&e);
        assert_eq!((e.reason(), e.blame()), expected, "{name}: {said}");
        assert!(said.contains("gs://test-backups/"), "{name}: {said}");
        assert!(said.contains(what), "{name}: {said}");
        let found = e.fix().unwrap_or_default();
        assert!(found.contains(fix), "{name}: {said}");
        assert_eq!(found.is_empty(), fix.is_empty(), "{name}: {said}");
    }
    requester_pays(&env).await;
    soft_deleted(&env).await;
}

/// Every call to BACKUP_BUCKET names BACKUP_USER_PROJECT, and none to another bucket does.
async fn requester_pays(env: &TestEnv) {
    let errors = &env.emulator.storage_errors;
    errors.set_requester_pays(BUCKET, "payer");
    errors.set_requester_pays("elsewhere", "payer");
    let all = [
        Call::List,
        Call::Get,
        Call::Read,
        Call::TestPermissions,
        Call::Create,
        // The last: it takes the backup away.
        Call::Delete,
    ];
    for (project, fix) in [("", "set BACKUP_USER_PROJECT"), ("stranger", "stranger")] {
        let flags = [("backup-user-project", project)];
        let app = app(env, &flags);
        for call in all {
            let e = attempt(&app, call).await.unwrap_err();
            assert_eq!(e.reason(), R::AccessDenied, "{call:?}: {e}");
            assert!(e.fix().unwrap().contains(fix), "{call:?}: {}", report(&e));
        }
    }
    let app = app(env, &[("backup-user-project", "payer")]);
    for call in all {
        let done = attempt(&app, call).await;
        assert!(done.is_ok(), "{call:?}: {done:?}");
    }
    let wanted = backup("gs://elsewhere/app.dump");
    let e = app.manager.catalog().pin(&wanted, None, None).await;
    let e = e.err().unwrap();
    let found = e.fix().unwrap_or_default();
    assert!(
        found.contains("GOOGLE_CLOUD_QUOTA_PROJECT"),
        "{}",
        report(&e)
    );
}

/// What was deleted and is still kept is not found, but can be brought back.
async fn soft_deleted(env: &TestEnv) {
    let app = app(env, &[("backup-user-project", "payer")]);
    let storage = &env.emulator.storage;
    let generation = storage.put(BUCKET, "gone.dump", "PGDMP");
    storage.put(BUCKET, "dir/toc.dat", "PGDMP");
    for name in ["gone.dump", "dir/toc.dat"] {
        storage.soft_delete(BUCKET, name);
    }
    let one = format!("gs://{BUCKET}/gone.dump#{generation}");
    let folder = format!("gs://{BUCKET}/dir/**");
    for (name, kept) in [
        ("gone.dump", Some(one)),
        ("dir/", Some(folder.clone())),
        ("dir", Some(folder)),
        ("never.dump", None),
    ] {
        let e = app.manager.catalog().pin(&backup(name), None, None).await;
        let said = report(&e.err().unwrap());
        match kept {
            Some(uri) => {
                let command = format!("gcloud storage restore '{uri}'");
                assert!(said.contains("it was deleted at "), "{said}");
                assert!(said.ends_with(&command), "{command}: {said}");
            }
            None => assert!(!said.contains("deleted"), "{said}"),
        }
    }
}
