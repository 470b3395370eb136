//! `inspect`: shows what a backup contains and needs, from its first bytes, and whether the target has
//! what it needs.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::backup::{backup_of, hint_of};
use super::exit::{CommandResult, Exit};
use super::output::{OutputFormat, human_bytes, print_json};
use crate::app::App;
use crate::backup::Backup;
use crate::error::{StorageError, StorageKind};
use pgdump_archive::{Archive, DataOffset, EntryKind, Filter};
use pgdump_restore::{Finding, Level, Requirements};

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven, also with @TIME
    backup: String,
    /// Prefix under which `latest` and `latest-proven` search
    #[arg(long, default_value = "")]
    prefix: String,
    /// The database: latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    /// Compare with the target server (DB_HOST): what is missing, what would fail, and how to fix it
    #[arg(long)]
    against: bool,
}

/// A table of the backup.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
#[schemars(rename = "Table")]
pub(super) struct InspectedTable {
    name: String,
    /// Stored size of its rows in bytes, if the archive gives it before its data.
    stored_bytes: Option<u64>,
}

/// What `inspect` prints as JSON.
#[derive(Debug, serde::Serialize, schemars::JsonSchema)]
pub(super) struct Inspection {
    /// The object; null for standard input.
    backup: Option<Backup>,
    /// custom, directory, tar, directory in a tar, plain
    format: &'static str,
    /// Compression and encryption around the whole backup, outermost first: gzip, zstd, lz4, bzip2, xz, age.
    wrapped_in: Vec<&'static str>,
    /// Version of the archive format; null for SQL text.
    archive_version: Option<String>,
    /// Compression of the data inside the archive.
    compression: &'static str,
    database: Option<String>,
    server_version: String,
    pg_dump_version: String,
    /// In the dumping machine's local time.
    dumped_at: Option<String>,
    /// Whether the archive contains the offset of each table's data; dumps written through a pipe do not.
    has_offsets: bool,
    /// Number of entries of each kind.
    entries: BTreeMap<String, usize>,
    /// Largest first, where sizes are known.
    tables: Vec<InspectedTable>,
    needs: Requirements,
    /// With --against: findings, those that block a restore first.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<Finding>>,
}

pub(super) async fn run(app: App, args: InspectArgs, output: OutputFormat) -> CommandResult {
    let stop = CancellationToken::new();
    let database = args.database.as_deref();
    let wanted = backup_of(&app.config, &args.backup, (&args.prefix, database))?;
    let opened = app
        .manager
        .catalog()
        .open_database(&wanted, database, stop.clone())
        .await;
    let (pinned, archive) = opened.map_err(|e| match hint_of(&args.backup, e.reason()) {
        Some(hint) => StorageError::new(StorageKind::NotFound, format!("{e}; {hint}")).into(),
        None => e,
    })?;
    if let Some(note) = pinned.as_ref().and_then(|p| p.note) {
        err!("note: {note}");
    }
    let size = pinned.as_ref().map(|p| p.object.size);
    let findings = if args.against {
        Some(app.manager.preflight(&archive, pinned.as_ref()).await?)
    } else {
        None
    };
    let i = describe(pinned.map(|p| p.object.into()), &archive, size, findings);
    stop.cancel();
    let blocked = i
        .findings
        .iter()
        .flatten()
        .any(|f| f.level == Level::Blocks);
    match output {
        OutputFormat::Json => {
            print_json(&i)?;
        }
        OutputFormat::Text => print(&i),
    }
    Ok(if blocked { Exit::Failed } else { Exit::Ok })
}

fn print(i: &Inspection) {
    if let Some(b) = &i.backup {
        out!(
            "{}  {}  generation {}",
            b.name,
            human_bytes(b.size),
            b.generation
        );
    }
    let version = i
        .archive_version
        .as_ref()
        .map(|v| format!(" {v}"))
        .unwrap_or_default();
    let wrapped = if i.wrapped_in.is_empty() {
        String::new()
    } else {
        format!(", in {}", i.wrapped_in.join(" in "))
    };
    out!(
        "format          {}{version}, compression {}{wrapped}",
        i.format,
        i.compression
    );
    let of = i
        .database
        .as_ref()
        .map(|d| format!("database {d} "))
        .unwrap_or_default();
    out!(
        "dumped          {of}({}) of PostgreSQL {}",
        i.needs.encoding,
        i.server_version
    );
    let at = i
        .dumped_at
        .as_ref()
        .map(|t| format!(" at {t}"))
        .unwrap_or_default();
    out!("                by pg_dump {}{at}", i.pg_dump_version);
    if i.format == "custom" {
        out!(
            "data offsets    {}",
            if i.has_offsets {
                "yes"
            } else {
                "no (written through a pipe)"
            }
        );
    }
    out!("extensions      {}", list(i.needs.extensions.iter()));
    out!("roles           {}", list(i.needs.roles.iter()));
    out!("tablespaces     {}", list(i.needs.tablespaces.iter()));
    if let Some(l) = &i.needs.locale {
        out!("locale          {l}");
    }
    out!("large objects   {}", i.needs.large_objects);
    if let Some(n) = i.needs.estimated_bytes {
        out!("space needed    about {}", human_bytes(n));
    }
    out!(
        "entries{}",
        if i.needs.only_the_beginning {
            " before the data"
        } else {
            ""
        }
    );
    for (kind, n) in &i.entries {
        out!("  {n:>7}  {kind}");
    }
    let largest: Vec<_> = i
        .tables
        .iter()
        .filter(|t| t.stored_bytes.is_some())
        .take(10)
        .collect();
    if !largest.is_empty() {
        out!("largest tables, by stored size");
        largest.iter().for_each(|t| {
            out!(
                "  {:>12}  {}",
                human_bytes(t.stored_bytes.unwrap_or_default()),
                t.name
            )
        });
    }
    let Some(findings) = &i.findings else { return };
    out!(
        "target          {}",
        if findings.is_empty() {
            "has everything the backup needs"
        } else {
            "findings:"
        }
    );
    for f in findings {
        let level = match f.level {
            Level::Blocks => "BLOCKS",
            Level::Warns => "warns",
            Level::Notes => "notes",
        };
        out!("  {level:<7} {}", f.what);
        out!("          {}", f.consequence);
        out!("          fix: {}", f.fix);
    }
}

fn list<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = names.map(String::as_str).collect();
    if all.is_empty() {
        "none".into()
    } else {
        all.join(", ")
    }
}

fn describe(
    backup: Option<Backup>,
    archive: &Archive,
    size: Option<u64>,
    findings: Option<Vec<Finding>>,
) -> Inspection {
    let (h, entries, sizes) = (archive.header(), archive.entries(), archive.sizes());
    let mut kinds = BTreeMap::new();
    // Entries about the end of SQL text have no dump id and are not counted.
    let numbered = entries
        .iter()
        .filter(|e| e.dump_id != pgdump_archive::DumpId::NONE);
    numbered.for_each(|e| *kinds.entry(e.kind.to_string()).or_insert(0) += 1);
    let name = |schema: &Option<String>, tag: &str| {
        schema
            .as_ref()
            .map_or_else(|| tag.to_owned(), |s| format!("{s}.{tag}"))
    };
    let stored: BTreeMap<String, u64> = entries
        .iter()
        .filter(|e| e.kind == EntryKind::TableData)
        .filter_map(|e| Some((name(&e.namespace, &e.tag), *sizes.get(&e.dump_id)?)))
        .collect();
    let tables = entries
        .iter()
        .filter(|e| e.kind == EntryKind::Table)
        .map(|e| name(&e.namespace, &e.tag));
    let mut tables: Vec<InspectedTable> = tables
        .map(|name| InspectedTable {
            stored_bytes: stored.get(&name).copied(),
            name,
        })
        .collect();
    tables.sort_by_key(|t| std::cmp::Reverse(t.stored_bytes));
    Inspection {
        backup,
        format: h.format.as_str(),
        wrapped_in: h.filters.iter().map(|l: &Filter| l.as_str()).collect(),
        archive_version: h.version.map(|v| format!("{}.{}.{}", v.0, v.1, v.2)),
        compression: h.codec.as_str(),
        database: h.database.clone(),
        server_version: h.server_version.clone(),
        pg_dump_version: h.pg_dump_version.clone(),
        dumped_at: h.created.map(|t| t.to_string()),
        has_offsets: entries
            .iter()
            .any(|e| matches!(e.offset, DataOffset::At(_))),
        entries: kinds,
        tables,
        needs: Requirements::of(archive, entries, size),
        findings,
    }
}
