//! `emulator`: runs the emulator of Pub/Sub and Cloud Storage until a signal.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::exit::{CommandError, CommandResult, Exit};
use super::files;
use super::signals::stop_signal;
use crate::emulator::{Emulator, SubscriptionOptions};

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
}

pub(super) async fn run(args: EmulatorArgs) -> CommandResult {
    if !args.listen.ip().is_loopback() {
        return Err(CommandError::Other(
            "--listen: must be a loopback address, because the emulator has no access control"
                .into(),
        ));
    }
    let emulator = Emulator::start(args.listen).await?;
    emulator.storage.limit_rate(args.rate);
    for name in ["restore-requests", "restore-completions"] {
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
    let host = emulator.host();
    out!(
        "export PUBSUB_EMULATOR_HOST={host} STORAGE_EMULATOR_HOST={host} GOOGLE_CLOUD_PROJECT={}",
        args.emulated_project
    );
    out!(
        "# upload: curl --data-binary @FILE 'http://{host}/upload/storage/v1/b/BUCKET/o?uploadType=media&name=NAME'"
    );
    stop_signal().await?;
    Ok(Exit::Ok)
}
