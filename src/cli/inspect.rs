//! `inspect`: shows what a backup contains and needs, from its first bytes, and whether the target has
//! what it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use maud::{Markup, html};
use tokio_util::sync::CancellationToken;

use super::advice;
use super::backup::{backup_of, hint_of, with_generation};
use super::exit::{CommandError, CommandResult, Exit, usage};
use super::files;
use super::help;
use super::output::{OutputFormat, human_bytes, print_json};
use super::rehearse;
use crate::app::App;
use crate::backup::Backup;
use crate::error::{
    FailureReason, RestoreError, StorageError, StorageKind, ValidationError, ValidationKind,
};
use crate::event::Advice;
use crate::html::{
    TableCell, TableColumn, bytes, count, document, exact_size, pairs, stat, table, time,
};
use crate::job::Rehearsal;
use pgdump_archive::{Archive, CutOff, DataOffset, EntryKind, Filter, toc_list};
use pgdump_restore::{Finding, Level, Requirements};

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Object name, gs:// or file:// URI, path, - for standard input, latest or latest-proven
    ///
    /// latest@TIME and latest-proven@TIME choose what was the newest at that time, also an age such as 2d; NAME#GENERATION is one
    /// generation of an object.
    backup: String,
    /// Prefix under which `latest` and `latest-proven` search
    ///
    /// It is an error with a backup that is named.
    #[arg(long, default_value = "", hide_default_value = true, help_heading = help::SELECTION)]
    prefix: String,
    /// Only this database: of latest, or of a whole cluster's dump
    ///
    /// latest is its newest backup, and of a whole cluster's dump (pg_dumpall) only it is taken.
    #[arg(long, value_name = "NAME", help_heading = help::SELECTION)]
    database: Option<String>,
    /// Compare with the target server (DB_HOST): what is missing, what would fail, and how to fix it
    #[arg(long, help_heading = help::TARGET)]
    against: bool,
    /// Try all definitions on the target server, without rows, like `pgrestored rehearse`
    #[arg(long, help_heading = help::TARGET)]
    rehearse: bool,
    /// Also write an HTML page to this file
    #[arg(long, value_name = "FILE", help_heading = help::OUTPUT)]
    html: Option<PathBuf>,
    /// Print the table of contents as pg_restore --list does, for restore --use-list
    #[arg(long, conflicts_with_all = ["against", "html"], help_heading = help::OUTPUT)]
    list: bool,
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
    /// Why the backup seems to be cut off, if its end shows that.
    #[serde(skip_serializing_if = "Option::is_none")]
    cut_off: Option<String>,
    /// With --against: findings, those that block a restore first.
    #[serde(skip_serializing_if = "Option::is_none")]
    findings: Option<Vec<Finding>>,
    /// With --against: settings of the server that will make a restore slower, if it tells its settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<Vec<Advice>>,
    /// With --list: the lines of pg_restore --list.
    #[serde(skip_serializing_if = "Option::is_none")]
    list: Option<Vec<String>>,
    /// With --rehearse: what the target server refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    rehearsal: Option<Rehearsal>,
}

pub(super) async fn run(app: App, args: InspectArgs, output: OutputFormat) -> CommandResult {
    if let Some(file) = &args.html {
        files::check_writable(file)?;
    }
    check_rehearsal(&args)?;
    let stop = CancellationToken::new();
    // Ends the download of what is not read, however this ends.
    let _stop = stop.clone().drop_guard();
    let database = args.database.as_deref();
    let (named, generation) = with_generation(&app.config, &args.backup, None)?;
    let wanted = backup_of(&app.config, named, (&args.prefix, database))?;
    let opened = app
        .manager
        .catalog()
        .open_generation(&wanted, generation, database, stop.clone())
        .await;
    let (pinned, mut archive) = opened.map_err(|e| match hint_of(&args.backup, e.reason()) {
        Some(hint) => StorageError::new(StorageKind::NotFound, format!("{e}; {hint}")).into(),
        None => e,
    })?;
    for note in pinned.iter().flat_map(|p| &p.notes) {
        err!("note: {note}");
    }
    let list = args.list.then(|| list_of(&archive)).transpose()?;
    let catalog = app.manager.catalog();
    let cut_off = catalog.look_at_end(&mut archive, pinned.as_ref()).await;
    let findings = if args.against {
        let found = app.manager.preflight(&archive, &wanted, pinned.as_ref());
        let mut all: Vec<Finding> = cut_off.iter().map(finding_of).collect();
        all.extend(found.await?);
        all.sort_by_key(|f| f.level);
        Some(all)
    } else {
        None
    };
    let advice = if args.against {
        app.manager.advice(&archive, pinned.as_ref()).await
    } else {
        None
    };
    let mut i = describe(pinned.map(|p| p.object.into()), &archive, findings);
    i.cut_off = cut_off.map(|c| c.what);
    i.advice = advice;
    i.list = list;
    stop.cancel();
    if args.rehearse {
        let job = rehearse::job_of(wanted, args.database.clone());
        match rehearse::rehearse(&app, &job, (&args.backup, output)).await? {
            Ok(rehearsal) => i.rehearsal = Some(rehearsal),
            Err(signalled) => return Ok(signalled),
        }
    }
    match output {
        OutputFormat::Json => {
            print_json(&i)?;
        }
        OutputFormat::Text => {
            match &i.list {
                Some(lines) => print_list(lines, i.cut_off.as_deref()),
                None => print(&i),
            }
            i.rehearsal.iter().for_each(rehearse::print);
        }
    }
    if let Some(file) = &args.html {
        files::write(file, page(&i))?;
    }
    Ok(
        match (
            exit_of(i.findings.as_deref().unwrap_or_default()),
            &i.rehearsal,
        ) {
            (Exit::Ok, Some(rehearsal)) => rehearse::exit_of(rehearsal),
            (exit, _) => exit,
        },
    )
}

/// What is read from standard input cannot be read again.
fn check_rehearsal(args: &InspectArgs) -> Result<(), CommandError> {
    if args.rehearse && args.backup == "-" {
        return Err(usage(
            "--rehearse: reads the backup once more, which standard input cannot be: use pgrestored rehearse -",
        ));
    }
    Ok(())
}

/// The lines of the table of contents.
fn list_of(archive: &Archive) -> Result<Vec<String>, RestoreError> {
    if archive.is_script() {
        let what = "SQL text has no table of contents to list: choose its statements with restore --skip or --only-kinds";
        return Err(ValidationError::new(ValidationKind::InvalidRequest, what).into());
    }
    Ok(toc_list(archive.header(), archive.entries()))
}

/// Standard output has the list alone, because it may become a file.
fn print_list(lines: &[String], cut_off: Option<&str>) {
    if let Some(cut_off) = cut_off {
        err!("warning: {cut_off}");
    }
    lines.iter().for_each(|line| out!("{line}"));
}

/// What the end of a backup says about a restore of it.
fn finding_of(cut_off: &CutOff) -> Finding {
    let (level, consequence) = if cut_off.is_certain {
        (
            Level::Blocks,
            "a restore fails where the bytes end, and leaves the target as it was",
        )
    } else {
        (
            Level::Warns,
            "if it is, a restore fails where the bytes end, and leaves the target as it was",
        )
    };
    let fix = "copy the backup again if the original is longer, otherwise make a new backup; `pgrestored verify` reads it to its end";
    Finding::damaged(level, cut_off.what.clone(), consequence, fix)
}

/// A backup that seems to be damaged is not one to rely on, even if it may turn out to be whole.
fn exit_of(findings: &[Finding]) -> Exit {
    let is_damaged = |f: &Finding| f.reason == Some(FailureReason::ArchiveCorrupt);
    if findings.iter().any(is_damaged) {
        Exit::BadData
    } else if findings.iter().any(|f| f.level == Level::Blocks) {
        Exit::Failed
    } else {
        Exit::Ok
    }
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
        out!("space needed    {}", space(i, n));
    }
    if let Some(cut_off) = &i.cut_off {
        out!("WARNING         {cut_off}");
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
    let advice = advice::lines(i.advice.as_deref().unwrap_or_default());
    if !advice.is_empty() {
        out!("settings        of the server that make a restore slower:");
        advice.iter().for_each(|line| out!("  {line}"));
    }
}

/// The estimated size of the restored database, and what the estimate rests on: other formats of the same database
/// give another one.
fn space(i: &Inspection, estimated: u64) -> String {
    let about = human_bytes(estimated);
    if i.compression != "none" || i.wrapped_in.iter().any(|w| *w != "age") {
        format!("about {about}, if its compressed data expands to 4 times its size")
    } else {
        format!("about {about}")
    }
}

/// What is shown, as an HTML page.
fn page(i: &Inspection) -> String {
    let name = i.backup.as_ref().map_or("standard input", |b| &b.name);
    let entries: usize = i.entries.values().sum();
    let body = html! {
        h1 { (name) }
        p.soft { "What this backup contains and needs, from its first bytes. It was neither read to its end nor restored." }
        div.facts {
            (stat("format", i.format))
            @if let Some(b) = &i.backup { (stat("size", &bytes(b.size))) }
            (stat("tables", &count(i.tables.len() as u64)))
            (stat("entries", &count(entries as u64)))
            @if let Some(n) = i.needs.estimated_bytes { (stat("space needed, about", &bytes(n))) }
        }
        @if let Some(cut_off) = &i.cut_off { p.warn { (cut_off) } }
        (findings_table(i))
        (advice::table_of(i.advice.as_deref().unwrap_or_default()))
        (pairs(("backup", "Backup"), &properties(i)))
        (tables_table(i))
        (pairs(("entries", "Entries"), &i.entries.iter().map(|(kind, n)| (kind.as_str(), count(*n as u64))).collect::<Vec<_>>()))
    };
    document(&format!("Backup {name}"), "", &body)
}

fn properties(i: &Inspection) -> Vec<(&'static str, String)> {
    let backup = i.backup.as_ref();
    let compression = match i.wrapped_in.as_slice() {
        [] => i.compression.to_owned(),
        around => format!("{}, in {}", i.compression, around.join(" in ")),
    };
    let all = [
        ("Generation", backup.map(|b| b.generation.clone())),
        ("Created", backup.map(|b| time(b.created))),
        ("Size", backup.map(|b| exact_size(b.size))),
        ("CRC32C", backup.and_then(|b| b.checksum.clone())),
        ("Archive version", i.archive_version.clone()),
        ("Compression", Some(compression)),
        ("Database", i.database.clone()),
        ("Encoding", Some(i.needs.encoding.to_string())),
        ("Locale", i.needs.locale.as_ref().map(ToString::to_string)),
        ("PostgreSQL", Some(i.server_version.clone())),
        ("pg_dump", Some(i.pg_dump_version.clone())),
        ("Dumped", i.dumped_at.clone()),
        ("Extensions", Some(list(i.needs.extensions.iter()))),
        ("Roles", Some(list(i.needs.roles.iter()))),
        ("Tablespaces", Some(list(i.needs.tablespaces.iter()))),
        ("Large objects", Some(i.needs.large_objects.to_string())),
        ("Space needed", i.needs.estimated_bytes.map(|n| space(i, n))),
    ];
    let known = all
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    known.filter(|(_, value)| !value.is_empty()).collect()
}

fn tables_table(i: &Inspection) -> Markup {
    if i.tables.is_empty() {
        return html! {};
    }
    let columns = [
        TableColumn::text("Table"),
        TableColumn::number("Stored size"),
    ];
    let rows = i.tables.iter().map(|t| {
        let size = t
            .stored_bytes
            .map_or("not known before the data".into(), bytes);
        vec![TableCell::new(&t.name), TableCell::new(size)].into()
    });
    table(("tables", "Tables"), &html! {}, &columns, rows.collect())
}

fn findings_table(i: &Inspection) -> Markup {
    let Some(findings) = &i.findings else {
        return html! {};
    };
    if findings.is_empty() {
        return html! { h2 { "Target server" } p.good { "It has everything that the backup needs." } };
    }
    let columns = [
        TableColumn::text("Level"),
        TableColumn::text("Finding"),
        TableColumn::text("Consequence"),
        TableColumn::text("What to do"),
    ];
    let rows = findings.iter().map(|f| {
        let (class, level) = match f.level {
            Level::Blocks => ("bad", "blocks a restore"),
            Level::Warns => ("warn", "warning"),
            Level::Notes => ("soft", "note"),
        };
        vec![
            TableCell::new(level).styled(class),
            TableCell::new(&f.what),
            TableCell::new(&f.consequence),
            TableCell::new(&f.fix),
        ]
        .into()
    });
    table(
        ("target", "Target server"),
        &html! {},
        &columns,
        rows.collect(),
    )
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
    findings: Option<Vec<Finding>>,
) -> Inspection {
    let size = backup.as_ref().map(|b| b.size);
    let (h, entries, sizes) = (archive.header(), archive.entries(), archive.sizes(size));
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
        cut_off: None,
        findings,
        advice: None,
        list: None,
        rehearsal: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdump_restore::error::DatabaseKind;

    #[test]
    fn a_cut_backup_is_a_finding_with_the_exit_code_of_a_bad_archive() {
        let cut = |is_certain| CutOff {
            what: "the archive is cut off".into(),
            is_certain,
        };
        let found = [cut(true), cut(false)].map(|c| finding_of(&c));
        assert_eq!(found[0].what, "the archive is cut off");
        assert_eq!(
            [found[0].level, found[1].level],
            [Level::Blocks, Level::Warns]
        );
        let blocks = Finding::blocks(DatabaseKind::RoleMissing, "x".into(), "y", "z");
        let warns = Finding::warns("x".into(), "y", "z");
        let [certain, possible] = found;
        for (findings, exit) in [
            (vec![], Exit::Ok),
            (vec![warns.clone()], Exit::Ok),
            (vec![blocks.clone()], Exit::Failed),
            (vec![certain, blocks], Exit::BadData),
            (vec![possible, warns], Exit::BadData),
        ] {
            assert_eq!(exit_of(&findings), exit, "{findings:?}");
        }
    }
}
