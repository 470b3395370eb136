//! The header of an archive: its format and version, and its origin.

use std::io::Read;

use super::filters::HEAD;
use super::toc::{TocReader, corrupt, limit_error, unsupported};
use super::{Codec, Filter, Limits, recognize};
use crate::error::ArchiveError;

/// The format in which `pg_dump` wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `pg_dump -Fc`: one file with a table of contents and data blocks (`pg_backup_custom.c`).
    Custom,
    /// `pg_dump -Fd`: `toc.dat` and one file per table and large object (`pg_backup_directory.c`).
    Directory,
    /// `pg_dump -Ft`: a tar whose first member is `toc.dat` (`pg_backup_tar.c`).
    Tar,
    /// The files of a directory dump, packed in a tar.
    DirectoryTar,
    /// SQL text.
    Plain,
}

impl Format {
    /// The name as reports show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Custom => "custom",
            Format::Directory => "directory",
            Format::Tar => "tar",
            Format::DirectoryTar => "directory in a tar",
            Format::Plain => "plain",
        }
    }

    /// The format that begins with these bytes; `None` if they are not a dump.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        if Self::is_custom(head) {
            return Some(Format::Custom);
        }
        if Self::is_tar(head) {
            return Some(Format::Tar);
        }
        recognize::is_sql(head, head.len() < HEAD).then_some(Format::Plain)
    }

    /// Whether it is an archive in one file, whatever follows these bytes.
    pub(super) fn is_archive(head: &[u8]) -> bool {
        Self::is_custom(head) || Self::is_tar(head)
    }

    fn is_custom(head: &[u8]) -> bool {
        head.starts_with(b"PGDMP") && head.len() > 5
    }

    fn is_tar(head: &[u8]) -> bool {
        head.len() >= 512 && head[257..].starts_with(b"ustar")
    }
}

/// What the first bytes of the archive say about it.
#[derive(Debug, Clone)]
pub struct Header {
    /// Format, from the file's structure: a directory's own `toc.dat` says tar.
    pub format: Format,
    /// Compression and encryption around the whole archive, outermost first.
    pub filters: Vec<Filter>,
    /// Archive version: major, minor, revision; `None` for SQL text.
    pub version: Option<(u8, u8, u8)>,
    /// Bytes of an integer in the archive; 0 for SQL text.
    pub int_size: u8,
    /// Bytes of a file offset in the archive; 0 for SQL text.
    pub off_size: u8,
    /// Compression of the data inside.
    pub codec: Codec,
    /// Start of the dump, in local time of the machine that ran `pg_dump`.
    pub created: Option<jiff::civil::DateTime>,
    /// Name of the database that was dumped; `None` for SQL text that does not name it.
    pub database: Option<String>,
    /// Version of the server that was dumped.
    pub server_version: String,
    /// Version of the `pg_dump` that wrote the archive; empty if unknown.
    pub pg_dump_version: String,
}

impl Header {
    /// Major version of the server that was dumped: 15 of `15.18`, 9 of `9.6.24`.
    pub fn server_major(&self) -> Option<u32> {
        let digits = self
            .server_version
            .split(|c: char| !c.is_ascii_digit())
            .next()?;
        digits.parse().ok()
    }
}

/// Reads the header of an archive; `format` is the format of the file around it.
pub(super) fn read_header<R: Read>(
    f: &mut TocReader<'_, R>,
    format: Format,
) -> Result<Header, ArchiveError> {
    let mut magic = [0u8; 5];
    for b in &mut magic {
        *b = f.byte("first bytes")?;
    }
    if &magic != b"PGDMP" {
        return Err(corrupt("the table of contents does not begin with PGDMP"));
    }
    let version = read_version(f)?;
    read_sizes(f)?;
    check_format(f.byte("format")?, f.members)?;
    Ok(Header {
        format,
        filters: vec![],
        version: Some(version),
        int_size: f.int_size,
        off_size: f.off_size,
        codec: read_codec(f, version.1)?,
        created: read_created(f)?,
        database: Some(read_text(f, "database name")?),
        server_version: read_text(f, "server version")?,
        pg_dump_version: read_text(f, "pg_dump version")?,
    })
}

fn read_version<R: Read>(f: &mut TocReader<'_, R>) -> Result<(u8, u8, u8), ArchiveError> {
    let version = (f.byte("version")?, f.byte("version")?, f.byte("version")?);
    if version.0 == 1 && (12..=16).contains(&version.1) {
        return Ok(version);
    }
    let is_newer = version.0 > 1 || version.1 > 16;
    let fix = if is_newer {
        "; a newer release of this program may read it"
    } else {
        ""
    };
    let what = format!(
        "archive version {}.{} is not supported: supported are 1.12 to 1.16 (PostgreSQL 9.0 to 18){fix}",
        version.0, version.1
    );
    // pg_restore reads all archives since 1.0.
    Err(if version >= (1, 0, 0) {
        limit_error(what)
    } else {
        unsupported(what)
    })
}

fn read_sizes<R: Read>(f: &mut TocReader<'_, R>) -> Result<(), ArchiveError> {
    let (int_size, off_size) = (f.byte("integer size")?, f.byte("offset size")?);
    if !(1..=8).contains(&int_size) || !(1..=32).contains(&off_size) {
        return Err(corrupt(format!(
            "unsupported sizes: integers of {int_size} and offsets of {off_size} bytes"
        )));
    }
    (f.int_size, f.off_size) = (int_size, off_size);
    Ok(())
}

/// Directory dumps say that they are tar.
fn check_format(format: u8, members: bool) -> Result<(), ArchiveError> {
    match (format, members) {
        (1, false) | (3 | 5, true) => Ok(()),
        (3 | 5, false) => Err(unsupported(
            "this is only the toc.dat of a directory dump: name its directory, with a / at its end",
        )),
        (n, _) => Err(corrupt(format!("{n} is not a valid archive format here"))),
    }
}

fn read_text<R: Read>(f: &mut TocReader<'_, R>, what: &str) -> Result<String, ArchiveError> {
    let text = f.bytes(what)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn read_codec<R: Read>(f: &mut TocReader<'_, R>, minor: u8) -> Result<Codec, ArchiveError> {
    if minor < 15 {
        return Ok(if f.int("compression level")? == 0 {
            Codec::None
        } else {
            Codec::Gzip
        });
    }
    match f.byte("compression")? {
        0 => Ok(Codec::None),
        1 => Ok(Codec::Gzip),
        2 => Ok(Codec::Lz4),
        3 => Ok(Codec::Zstd),
        n => Err(corrupt(format!("{n} is not a valid compression"))),
    }
}

/// Seconds, minutes, hours, day, month (from 0), year (from 1900), daylight-saving flag.
fn read_created<R: Read>(
    f: &mut TocReader<'_, R>,
) -> Result<Option<jiff::civil::DateTime>, ArchiveError> {
    let mut tm = [0i64; 7];
    for field in &mut tm {
        *field = f.int("creation date")?;
    }
    let narrow = |v: i64| i8::try_from(v).ok();
    let made = (|| {
        let year = i16::try_from(tm[5].checked_add(1900)?).ok()?;
        let (month, day) = (narrow(tm[4].checked_add(1)?)?, narrow(tm[3])?);
        let second = narrow(tm[0])?.min(59);
        jiff::civil::DateTime::new(year, month, day, narrow(tm[2])?, narrow(tm[1])?, second, 0).ok()
    })();
    Ok(made)
}

/// The name of the database that the first bytes of a [`Format::Custom`] file, or of the `toc.dat` of a
/// [`Format::Directory`], give. A few hundred bytes are enough.
///
/// `None` if these bytes are of another kind, are too few, or name none.
pub fn database_in(head: &[u8], format: Format) -> Option<String> {
    let mut bytes = head;
    let mut f = TocReader::new(&mut bytes, Limits::default());
    f.members = format == Format::Directory;
    let header = read_header(&mut f, format).ok()?;
    header.database.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of an archive of version 1.14 whose database has this name.
    fn header_of(format: u8, database: &str) -> Vec<u8> {
        let int = |n: i32| [&[0u8][..], &n.to_le_bytes()].concat();
        let text = |t: &str| [int(t.len() as i32), t.as_bytes().to_vec()].concat();
        let mut bytes = b"PGDMP\x01\x0e\x00\x04\x08".to_vec();
        bytes.push(format);
        for n in [6, 1, 2, 3, 22, 10, 126, 0] {
            bytes.extend(int(n));
        }
        for t in [database, "15.4", "15.4"] {
            bytes.extend(text(t));
        }
        bytes
    }

    #[test]
    fn an_archive_of_a_later_version_is_refused_by_its_version() {
        let refused = |minor: u8| {
            let mut bytes = header_of(1, "shop");
            bytes[6] = minor;
            let mut bytes = bytes.as_slice();
            let mut f = TocReader::new(&mut bytes, Limits::default());
            read_header(&mut f, Format::Custom)
                .map(|_| ())
                .map_err(|e| e.to_string())
        };
        assert_eq!(refused(14), Ok(()));
        let newer = refused(17).unwrap_err();
        assert!(
            newer.contains("archive version 1.17 is not supported"),
            "{newer}"
        );
        assert!(newer.contains("a newer release of this program"), "{newer}");
        let older = refused(11).unwrap_err();
        assert!(
            older.contains("1.11") && !older.contains("newer"),
            "{older}"
        );
    }

    #[test]
    fn the_first_bytes_name_the_database() {
        let (file, toc) = (header_of(1, "shop"), header_of(3, "shop"));
        let shop = Some("shop".to_owned());
        assert_eq!(database_in(&file, Format::Custom), shop);
        assert_eq!(database_in(&toc, Format::Directory), shop);
        assert_eq!(database_in(&toc, Format::Custom), None);
        assert_eq!(database_in(&file[..40], Format::Custom), None);
        assert_eq!(database_in(&header_of(1, ""), Format::Custom), None);
        assert_eq!(database_in(b"CREATE TABLE t ();", Format::Custom), None);
    }
}
