//! The table of contents as `pg_restore --list` prints it (`PrintTOCSummary` of `pg_backup_archiver.c`).

use super::{EntryKind, Format, Header, TocEntry};

/// The lines that `pg_restore --list` prints for an archive, without options. Those of the entries are the same, byte for
/// byte; the comments above them are those of PostgreSQL 16 and later, with the time of the dump as the dumping machine's
/// clock showed it.
pub fn toc_list(header: &Header, entries: &[TocEntry]) -> Vec<String> {
    let listed = entries.iter().filter(|e| is_listed(e));
    comments(header, entries.len())
        .into_iter()
        .chain(listed.map(toc_line))
        .collect()
}

fn comments(header: &Header, entries: usize) -> Vec<String> {
    let created = header.created.map(|t| t.to_string().replace('T', " "));
    let (major, minor, revision) = header.version.unwrap_or_default();
    let mut lines = vec![
        ";".to_owned(),
        format!(
            "; Archive created at {}",
            created.as_deref().unwrap_or("[unknown]")
        ),
        format!(
            ";     dbname: {}",
            one_line(header.database.as_deref().unwrap_or_default())
        ),
        format!(";     TOC Entries: {entries}"),
        format!(";     Compression: {}", header.codec.as_str()),
        format!(";     Dump Version: {major}.{minor}-{revision}"),
        format!(";     Format: {}", format_name(header.format)),
        format!(";     Integer: {} bytes", header.int_size),
        format!(";     Offset: {} bytes", header.off_size),
    ];
    let versions = [
        ("Dumped from database version", &header.server_version),
        ("Dumped by pg_dump version", &header.pg_dump_version),
    ];
    for (what, version) in versions.iter().filter(|(_, version)| !version.is_empty()) {
        lines.push(format!(";     {what}: {}", one_line(version)));
    }
    lines.extend([";", ";", "; Selected TOC Entries:", ";"].map(str::to_owned));
    lines
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Custom => "CUSTOM",
        Format::Directory | Format::DirectoryTar => "DIRECTORY",
        Format::Tar => "TAR",
        Format::Plain => "PLAIN",
    }
}

/// The line of one entry.
pub fn toc_line(e: &TocEntry) -> String {
    let schema = e.namespace.as_deref().unwrap_or("-");
    let names = [schema, &e.tag, &e.owner].map(one_line);
    format!(
        "{}; {} {} {} {}",
        e.dump_id,
        e.table_oid,
        e.oid,
        e.kind,
        names.join(" ")
    )
}

/// A name may contain line ends.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

/// Whether `pg_restore` would restore the entry without options (`_tocEntryRequired`), and so lists it.
fn is_listed(e: &TocEntry) -> bool {
    let is_about_another = matches!(
        e.kind,
        EntryKind::Acl | EntryKind::Comment | EntryKind::SecurityLabel
    );
    match &e.kind {
        EntryKind::Encoding
        | EntryKind::StdStrings
        | EntryKind::SearchPath
        | EntryKind::Database
        | EntryKind::DatabaseProperties => false,
        _ if is_about_another && e.tag.starts_with("DATABASE ") => false,
        EntryKind::SequenceSet | EntryKind::Blob | EntryKind::StatisticsData => true,
        _ if is_about_another && e.tag.starts_with("LARGE OBJECT") => true,
        _ if e.has_data => true,
        _ => !e.defn.is_empty() && !e.defn.starts_with("-- load via partition root "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Codec, TocSection};

    #[test]
    fn entries_are_listed_as_by_pg_restore() {
        let mut table = TocEntry::bare(215, "TABLE", "two\nlines");
        (table.table_oid, table.oid) = (1259, 16385);
        table.namespace = Some("public".into());
        table.owner = "me".into();
        table.defn = "CREATE TABLE x ();".into();
        let mut data = TocEntry::bare(3309, "TABLE DATA", "t");
        data.has_data = true;
        data.section = TocSection::Data;
        let mut comment = TocEntry::bare(3, "COMMENT", "DATABASE shop");
        comment.defn = "COMMENT ON DATABASE shop IS 'x';".into();
        let mut encoding = TocEntry::bare(1, "ENCODING", "ENCODING");
        encoding.defn = "SET client_encoding = 'UTF8';".into();
        let root = TocEntry {
            defn: "-- load via partition root p".into(),
            ..TocEntry::bare(5, "TABLE DATA", "p1")
        };
        let empty = TocEntry::bare(6, "ACL", "t");
        let header = Header {
            format: Format::Custom,
            filters: vec![],
            version: Some((1, 14, 0)),
            int_size: 4,
            off_size: 8,
            codec: Codec::Gzip,
            created: Some(jiff::civil::date(2026, 11, 20).at(1, 2, 3, 0)),
            database: Some("shop".into()),
            server_version: "15.18".into(),
            pg_dump_version: "15.18".into(),
        };
        let list = toc_list(&header, &[encoding, comment, table, data, root, empty]);
        assert_eq!(
            list,
            [
                ";",
                "; Archive created at 2026-11-20 01:02:03",
                ";     dbname: shop",
                ";     TOC Entries: 6",
                ";     Compression: gzip",
                ";     Dump Version: 1.14-0",
                ";     Format: CUSTOM",
                ";     Integer: 4 bytes",
                ";     Offset: 8 bytes",
                ";     Dumped from database version: 15.18",
                ";     Dumped by pg_dump version: 15.18",
                ";",
                ";",
                "; Selected TOC Entries:",
                ";",
                "215; 1259 16385 TABLE public two lines me",
                "3309; 0 0 TABLE DATA - t ",
            ]
        );
    }
}
