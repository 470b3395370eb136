//! `inspect`: what a backup holds, from its first bytes.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::{CommandResult, Exit, Output, human_bytes, print_json};
use crate::app::App;
use crate::archive::{CustomArchive, TocEntry};
use crate::backup::{Backup, Download};
use crate::job::BackupRef;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest@TIME
    backup: String,
    /// Where `latest` looks
    #[arg(long, default_value = "")]
    prefix: String,
}

/// What `inspect` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Inspection {
    /// The object, for all but standard input.
    backup: Option<Backup>,
    format: &'static str,
    archive_version: String,
    compression: &'static str,
    database: String,
    encoding: String,
    server_version: String,
    pg_dump_version: String,
    /// In the dumping machine's local time.
    dumped_at: Option<String>,
    /// Whether the archive says where each table's data is; piped dumps do not.
    has_offsets: bool,
    /// Number of entries of each kind.
    entries: BTreeMap<String, usize>,
    tables: Vec<String>,
    extensions: Vec<String>,
    roles: Vec<String>,
}

pub(super) async fn run(app: App, args: Args, output: Output) -> CommandResult {
    let stop = CancellationToken::new();
    let wanted = BackupRef::parse(&args.backup, &args.prefix)?;
    let (pinned, archive) = app.manager.open(&wanted, stop.clone()).await?;
    let i = describe(pinned.map(|p| p.object.into()), &archive);
    stop.cancel();
    if output == Output::Json {
        return print_json(&i);
    }
    if let Some(b) = &i.backup {
        out!("{}  {}  generation {}", b.name, human_bytes(b.size), b.generation);
    }
    out!("format          {} {}, compression {}", i.format, i.archive_version, i.compression);
    out!("dumped          database {} ({}) of PostgreSQL {}", i.database, i.encoding, i.server_version);
    out!(
        "                by pg_dump {}{}",
        i.pg_dump_version,
        i.dumped_at.map(|t| format!(" at {t}")).unwrap_or_default()
    );
    out!("data offsets    {}", if i.has_offsets { "yes" } else { "no (a piped dump)" });
    out!("extensions      {}", list(&i.extensions));
    out!("roles           {}", list(&i.roles));
    out!("entries");
    for (kind, n) in &i.entries {
        out!("  {n:>7}  {kind}");
    }
    Ok(Exit::Ok)
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn describe(backup: Option<Backup>, archive: &CustomArchive<Download>) -> Inspection {
    let (h, entries) = (archive.header(), archive.entries());
    let of_kind = |kind: &str, name: fn(&TocEntry) -> String| -> Vec<String> {
        entries.iter().filter(|e| e.desc == kind).map(name).collect()
    };
    let mut kinds = BTreeMap::new();
    entries.iter().for_each(|e| *kinds.entry(e.desc.clone()).or_insert(0) += 1);
    let roles: std::collections::BTreeSet<_> =
        entries.iter().map(|e| e.owner.clone()).filter(|o| !o.is_empty()).collect();
    Inspection {
        backup,
        format: "custom",
        archive_version: format!("{}.{}.{}", h.version.0, h.version.1, h.version.2),
        compression: h.codec.as_str(),
        database: h.database.clone(),
        encoding: archive.encoding().name().to_owned(),
        server_version: h.server_version.clone(),
        pg_dump_version: h.pg_dump_version.clone(),
        dumped_at: h.created.map(|t| t.to_string()),
        has_offsets: entries.iter().any(|e| matches!(e.offset, crate::archive::DataOffset::At(_))),
        entries: kinds,
        tables: of_kind("TABLE", |e| {
            e.namespace.as_ref().map_or_else(|| e.tag.clone(), |s| format!("{s}.{}", e.tag))
        }),
        extensions: of_kind("EXTENSION", |e| e.tag.clone()),
        roles: roles.into_iter().collect(),
    }
}
