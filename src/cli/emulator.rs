//! `emulator`: runs the emulator of Pub/Sub and Cloud Storage until a signal. Every uploaded object is announced on the
//! topic of notifications, as by a bucket that is set up for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::sync::mpsc::UnboundedReceiver;

use super::exit::{CommandError, CommandResult, Exit, usage};
use super::files;
use super::signals::stop_signal;
use crate::emulator::{Emulator, FinalizedObject, SubscriptionOptions};

const NOTIFICATIONS: &str = "backup-notifications";

#[derive(Debug, clap::Args)]
pub(super) struct EmulatorArgs {
    /// Address to listen on; must be a loopback address
    #[arg(long, default_value = "127.0.0.1:8085")]
    listen: SocketAddr,
    /// Project in which to create the topics and subscriptions
    #[arg(long, default_value = "demo")]
    emulated_project: String,
    /// Bucket that contains the files of --folder
    #[arg(long, default_value = "secureai-backups")]
    emulated_bucket: String,
    /// Folder whose files to offer as objects
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Limit of all downloads together, in bytes per second; 0 = no limit
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Limit of each download, in bytes per second; 0 = no limit
    #[arg(long, default_value_t = 0)]
    stream_rate: u64,
}

pub(super) async fn run(args: EmulatorArgs) -> CommandResult {
    if !args.listen.ip().is_loopback() {
        return Err(usage(
            "--listen: must be a loopback address, because the emulator has no access control",
        ));
    }
    let emulator = Emulator::start(args.listen).await?;
    emulator.storage.limit_rate(args.rate);
    emulator.storage.limit_rate_each(args.stream_rate);
    for name in ["restore-requests", "restore-completions", NOTIFICATIONS] {
        let topic = format!("projects/{}/topics/{name}", args.emulated_project);
        let subscription = format!("projects/{}/subscriptions/{name}", args.emulated_project);
        emulator
            .pubsub
            .create_subscription(&topic, &subscription, SubscriptionOptions::default());
    }
    if let Some(folder) = &args.folder {
        for path in files::in_folder(folder)? {
            if let Some(name) = path
                .file_name()
                .and_then(|n| n.to_str())
                .filter(|_| path.is_file())
            {
                let put = emulator
                    .storage
                    .put_file(&args.emulated_bucket, name, path.clone());
                put.map_err(|e| files::fault(&path, "read", &e))?;
            }
        }
    }
    // The files of the folder are in the bucket already.
    let finalized = emulator.storage.finalized();
    let host = emulator.host();
    out!(
        "export PUBSUB_EMULATOR_HOST={host} STORAGE_EMULATOR_HOST={host} GOOGLE_CLOUD_PROJECT={}",
        args.emulated_project
    );
    out!(
        "# upload: curl --data-binary @FILE 'http://{host}/upload/storage/v1/b/BUCKET/o?uploadType=media&name=NAME'"
    );
    out!("# uploads are announced: export BACKUP_NOTIFICATION_SUBSCRIPTION={NOTIFICATIONS}");
    let topic = format!("projects/{}/topics/{NOTIFICATIONS}", args.emulated_project);
    tokio::select! {
        signalled = stop_signal() => signalled.map(|_| Exit::Ok).map_err(CommandError::from),
        () = announce(&emulator, &topic, finalized) => Ok(Exit::Ok),
    }
}

/// Publishes a notification of every object that is uploaded.
async fn announce(
    emulator: &Emulator,
    topic: &str,
    mut finalized: UnboundedReceiver<FinalizedObject>,
) {
    while let Some(object) = finalized.recv().await {
        let attributes = notification_of(&object);
        emulator.pubsub.publish(topic, &[], attributes);
    }
}

/// The attributes of a notification, as Cloud Storage sends them.
fn notification_of(object: &FinalizedObject) -> HashMap<String, String> {
    let config = format!("projects/_/buckets/{}/notificationConfigs/1", object.bucket);
    [
        ("notificationConfig", config),
        ("eventType", "OBJECT_FINALIZE".to_owned()),
        ("payloadFormat", "NONE".to_owned()),
        ("bucketId", object.bucket.clone()),
        ("objectId", object.name.clone()),
        ("objectGeneration", object.generation.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::GcsNotification;

    #[tokio::test]
    async fn an_uploaded_object_is_announced() {
        let emulator = Emulator::start(([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut finalized = emulator.storage.finalized();
        let generation = emulator.storage.put("backups", "a/b.dump", "PGDMP");
        let object = finalized.recv().await.unwrap();
        let sent = GcsNotification::from_attributes(&notification_of(&object)).unwrap();
        assert_eq!(sent.event_type, "OBJECT_FINALIZE");
        assert_eq!(
            sent.request_id(),
            format!("gcs:backups/a/b.dump#{generation}")
        );
    }
}
