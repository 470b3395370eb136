//! Recognizes compression and encryption around a backup, possibly several layers, by their first bytes; and
//! names inputs that are not backups.

use std::io::{BufRead, Read};
use std::sync::Arc;

use super::frames::{self, Bzip2, Lz4, Zstd};
use super::inflate::Gzip;
use super::lzma::{Lzip, LzmaAlone, Xz};
use super::peek_reader::{BoxedReader, PeekReader, buffered};
use super::toc::{corrupt, limit_error, unsupported};
use super::{DirectorySource, Format, Limits, ReopenableSource, recognize};
use crate::error::ArchiveError;

/// Most nested filters that are removed.
const MAX_FILTERS: usize = 4;
/// Bytes that are enough to recognize a format.
pub(super) const HEAD: usize = 8 << 10;

/// One layer of compression or encryption around the whole backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// gzip (RFC 1952), one or more members.
    Gzip,
    /// Zstandard (RFC 8878), with skippable frames.
    Zstd,
    /// LZ4 frames, including the legacy format.
    Lz4,
    /// bzip2, one or more streams.
    Bzip2,
    /// xz, one or more streams.
    Xz,
    /// The `.lzma` format of LZMA Utils.
    Lzma,
    /// lzip, one or more members.
    Lzip,
    /// age (`age-encryption.org/v1`), binary or armored.
    Age,
}

impl Filter {
    /// The name of the program, in lower case, as reports show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Filter::Gzip => "gzip",
            Filter::Zstd => "zstd",
            Filter::Lz4 => "lz4",
            Filter::Bzip2 => "bzip2",
            Filter::Xz => "xz",
            Filter::Lzma => "lzma",
            Filter::Lzip => "lzip",
            Filter::Age => "age",
        }
    }

    /// The filter that begins with these bytes.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Filter); 7] = [
            (b"\x1f\x8b\x08", Filter::Gzip),
            (b"\x28\xb5\x2f\xfd", Filter::Zstd),
            (b"\x04\x22\x4d\x18", Filter::Lz4),
            (b"\x02\x21\x4c\x18", Filter::Lz4),
            (b"\xfd7zXZ\0", Filter::Xz),
            (b"age-encryption.org/v1\n", Filter::Age),
            (b"-----BEGIN AGE ENCRYPTED FILE-----", Filter::Age),
        ];
        let by_magic = MAGIC
            .iter()
            .find(|(magic, _)| head.starts_with(magic))
            .map(|(_, filter)| *filter);
        by_magic.or_else(|| match head {
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Filter::Bzip2),
            _ if Lzip::matches(head) => Some(Filter::Lzip),
            _ if LzmaAlone::matches(head) => Some(Filter::Lzma),
            _ => None,
        })
    }

    fn unwrap<'a>(
        self,
        input: PeekReader<'a>,
        limits: &Limits,
        keys: &DecryptionKeys,
    ) -> Result<BoxedReader<'a>, ArchiveError> {
        let failed = |e| ArchiveError::from_io(e, "zstd");
        Ok(match self {
            Filter::Gzip => Box::new(Gzip::new(input)),
            Filter::Zstd => Box::new(Zstd::new(input, limits).map_err(failed)?),
            Filter::Lz4 => Box::new(Lz4::new(input)),
            Filter::Bzip2 => Box::new(Bzip2::new(input)),
            Filter::Xz => {
                Box::new(Xz::new(input, limits).map_err(|e| ArchiveError::from_io(e, "xz"))?)
            }
            Filter::Lzma => Box::new(LzmaAlone::new(input, limits)),
            Filter::Lzip => Box::new(Lzip::new(input, limits)),
            Filter::Age => keys.decrypt(input)?,
        })
    }
}

/// Keys that decrypt a backup. Never displayed.
#[derive(Clone, Default)]
pub struct DecryptionKeys {
    identities: Vec<std::sync::Arc<age::x25519::Identity>>,
}

impl std::fmt::Debug for DecryptionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.identities.len())
    }
}

impl DecryptionKeys {
    /// Parses the text of an age identity file: one `AGE-SECRET-KEY-1…` per line, `#` for comments.
    ///
    /// # Errors
    /// What is wrong, without quoting the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty() && !l.starts_with('#'));
        let identities = lines
            .map(|l| l.parse().map(std::sync::Arc::new))
            .collect::<Result<Vec<_>, _>>();
        match identities {
            Ok(identities) if !identities.is_empty() => Ok(DecryptionKeys { identities }),
            _ => Err("must be age identities, one AGE-SECRET-KEY-1… per line".into()),
        }
    }

    fn decrypt<'a>(&self, input: PeekReader<'a>) -> Result<BoxedReader<'a>, ArchiveError> {
        let no = |e: &dyn std::fmt::Display| {
            if self.identities.is_empty() {
                limit_error(
                    "the backup is encrypted with age, but no key is configured: set BACKUP_AGE_IDENTITY_FILE",
                )
            } else {
                limit_error(format!(
                    "the backup is encrypted with age, but BACKUP_AGE_IDENTITY cannot decrypt it: {e}"
                ))
            }
        };
        let decryptor = match age::Decryptor::new_buffered(age::armor::ArmoredReader::new(input)) {
            Ok(d) => d,
            Err(age::DecryptError::Io(e)) => return Err(ArchiveError::from_io(e, "age header")),
            Err(e) => return Err(no(&e)),
        };
        let keys = self
            .identities
            .iter()
            .map(|i| i.as_ref() as &dyn age::Identity);
        Ok(Box::new(decryptor.decrypt(keys).map_err(|e| no(&e))?))
    }
}

/// The first bytes, up to `HEAD`, which stay in the stream.
pub(super) fn peek(mut input: PeekReader<'_>) -> Result<(Vec<u8>, PeekReader<'_>), ArchiveError> {
    let mut head = Vec::with_capacity(HEAD);
    let failed = |e| ArchiveError::from_io(e, "first bytes");
    // One filled buffer is enough if the store returns that much at once.
    let filled = input.fill_buf().map_err(failed)?;
    if filled.len() >= HEAD {
        head.extend_from_slice(&filled[..HEAD]);
        return Ok((head, input));
    }
    // No further than it takes: of several files, the archive may end in the first one.
    let mut behind = None;
    while head.len() < HEAD && !is_enough(&head) {
        let at = head.len();
        head.resize(HEAD, 0);
        let read = input.read(&mut head[at..]);
        head.truncate(at + read.as_ref().map_or(0, |n| *n));
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            // What is known by now ends in good order, or says itself where it is cut.
            Err(e) if Format::of(&head).is_some() => {
                behind = Some(e);
                break;
            }
            Err(e) => return Err(failed(e)),
        }
    }
    let again = std::io::Cursor::new(head.clone()).chain(FailOnce(behind));
    let again: BoxedReader<'_> = Box::new(again.chain(input));
    Ok((head, buffered(again)))
}

/// Whether these first bytes say what it is, whatever follows them.
fn is_enough(head: &[u8]) -> bool {
    Filter::of(head).is_some()
        || frames::begins_with_skippable(head)
        || Format::is_archive(head)
        || recognize::is_of_pg_dump(head)
}

/// An error in its place among bytes.
struct FailOnce(Option<std::io::Error>);

impl Read for FailOnce {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

/// The filter that comes next, the first bytes, and all of them.
fn next_filter(
    input: PeekReader<'_>,
) -> Result<(Option<Filter>, Vec<u8>, PeekReader<'_>), ArchiveError> {
    let (head, whole) = peek(input)?;
    if !frames::begins_with_skippable(&head) {
        return Ok((Filter::of(&head), head, whole));
    }
    let whole =
        frames::skip_frames(whole).map_err(|e| ArchiveError::from_io(e, "skippable frame"))?;
    let (head, whole) = peek(whole)?;
    match Filter::of(&head) {
        Some(filter @ (Filter::Zstd | Filter::Lz4)) => Ok((Some(filter), head, whole)),
        _ => Err(corrupt(
            "it begins like zstd or lz4, but no compressed data follows the skippable frames",
        )),
    }
}

/// Where bytes come from that can tell that they are no longer wanted.
#[derive(Clone)]
pub(super) enum Origin {
    Stream(Arc<dyn ReopenableSource>),
    Directory(Arc<dyn DirectorySource>),
}

impl Origin {
    fn check_wanted(&self) -> Result<(), ArchiveError> {
        match self {
            Origin::Stream(source) => source.check_wanted(),
            Origin::Directory(source) => source.check_wanted(),
        }
    }
}

/// What comes out of a filter. It ends with an error where it is too long, or no longer wanted.
struct FilterOutput<'a> {
    inner: BoxedReader<'a>,
    filter: Filter,
    most: u64,
    given: u64,
    origin: Option<Origin>,
}

impl Read for FilterOutput<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if let Some(origin) = &self.origin {
            origin.check_wanted()?;
        }
        let n = self.inner.read(buf)?;
        self.given += n as u64;
        if self.given > self.most {
            let (name, most) = (self.filter.as_str(), self.most >> 20);
            let what =
                format!("the {name} data decompresses to more than the {most} MiB allowed here");
            return Err(limit_error(what).into());
        }
        Ok(n)
    }
}

/// Removes every filter; also returns the first bytes of the content. `origin`: where `input` comes from, if that is known.
pub(super) fn unwrap<'a>(
    input: BoxedReader<'a>,
    limits: &Limits,
    keys: &DecryptionKeys,
    origin: Option<&Origin>,
) -> Result<(Vec<Filter>, Vec<u8>, PeekReader<'a>), ArchiveError> {
    let (mut filters, mut input) = (Vec::new(), buffered(input));
    loop {
        let (filter, head, whole) = next_filter(input)?;
        let Some(filter) = filter else {
            return Ok((filters, head, whole));
        };
        if filters.len() == MAX_FILTERS {
            return Err(limit_error(format!(
                "the backup has more than {MAX_FILTERS} layers of compression or encryption"
            )));
        }
        filters.push(filter);
        input = buffered(Box::new(FilterOutput {
            inner: filter.unwrap(whole, limits, keys)?,
            filter,
            most: limits.max_decompressed,
            given: 0,
            origin: origin.cloned(),
        }));
    }
}

/// Removes `count` filters. `origin` as for [`unwrap`].
pub(super) fn unwrap_some<'a>(
    input: BoxedReader<'a>,
    count: usize,
    limits: &Limits,
    origin: Option<&Origin>,
) -> Result<PeekReader<'a>, ArchiveError> {
    let mut input = buffered(input);
    for _ in 0..count {
        let (filter, _, whole) = next_filter(input)?;
        let Some(filter) = filter else {
            return Ok(whole);
        };
        input = buffered(Box::new(FilterOutput {
            inner: filter.unwrap(whole, limits, &DecryptionKeys::default())?,
            filter,
            // Members are as long as their data.
            most: u64::MAX,
            given: 0,
            origin: origin.cloned(),
        }));
    }
    Ok(input)
}

/// A compression or encryption that is not supported, and how to remove it: the content may be a good backup.
fn unsupported_wrapper(head: &[u8]) -> Option<&'static str> {
    const NAMES: [(&[u8], &str); 20] = [
        (b"PK\x05\x06", "it is an empty ZIP file"),
        (
            b"PK\x07\x08",
            "it is part of a split ZIP file: unpack it with `unzip` and compress it with zstd or gzip instead",
        ),
        (
            b"PK\x03\x04",
            "it is a ZIP file: unpack it with `unzip` and compress it with zstd or gzip instead",
        ),
        (
            b"7z\xbc\xaf\x27\x1c",
            "it is a 7-Zip archive: unpack it with `7z x` first",
        ),
        (
            b"Rar!\x1a\x07",
            "it is a RAR archive: unpack it with `unrar x` first",
        ),
        (
            b"\x1f\x9d",
            "it is compressed with compress (.Z): decompress it with `uncompress` first",
        ),
        (
            b"\x1f\xa0",
            "it is compressed with LZH: decompress it with `gzip -d` first",
        ),
        (
            b"\x1f\x1e",
            "it is compressed with pack (.z): decompress it with `gzip -d` first",
        ),
        (
            b"\x89LZO\0\r\n\x1a\n",
            "it is compressed with lzop: decompress it with `lzop -d` first",
        ),
        (
            b"LRZI",
            "it is compressed with lrzip: decompress it with `lrzip -d` first",
        ),
        (
            b"LZIP\0",
            "it is compressed with an lzip from before 2009: decompress it with `lzip -d` first",
        ),
        (
            b"7kSt\xa0\x31\x83\xd3\x8c\xb2\x28\xb0\xd3zPQ",
            "it is a ZPAQ archive: unpack it with `zpaq x` first",
        ),
        (
            b"zPQ",
            "it is a ZPAQ archive: unpack it with `zpaq x` first",
        ),
        (
            b"\xff\x06\0\0sNaPpY",
            "it is compressed with snappy: decompress it with `snzip -d` first",
        ),
        (
            b"MSCF\0\0\0\0",
            "it is a Windows cabinet: unpack it with `cabextract` first",
        ),
        (
            b"Salted__",
            "it is encrypted with openssl: decrypt it first, or encrypt it with age",
        ),
        (b"-----BEGIN PGP", ENCRYPTED_BY_GNUPG),
        (b"\x85\x01", ENCRYPTED_BY_GNUPG),
        (b"\x85\x02", ENCRYPTED_BY_GNUPG),
        (b"\x8c\x0d", ENCRYPTED_BY_GNUPG),
    ];
    const ENCRYPTED_BY_GNUPG: &str =
        "it is encrypted with GnuPG: decrypt it first, or encrypt it with age";
    if head.starts_with(b"PK\x03\x04") && head.get(6).is_some_and(|flags| flags & 1 == 1) {
        return Some(
            "it is a ZIP file with a password: unpack it with `unzip` and encrypt it with age instead",
        );
    }
    if matches!(head, [0x22..=0x27, 0xb5, 0x2f, 0xfd, ..]) {
        return Some(
            "it is compressed with a zstd older than 0.8: decompress it with an old `zstd -d` first",
        );
    }
    NAMES
        .iter()
        .find(|(magic, _)| head.starts_with(magic))
        .map(|(_, what)| *what)
}

/// What the bytes are, if they are something that is often mistaken for a dump.
pub(super) fn diagnose_input(head: &[u8]) -> ArchiveError {
    if head.is_empty() {
        return corrupt("the backup is empty");
    }
    if b"PGDMP".starts_with(head) {
        return corrupt("the archive ends early: first bytes");
    }
    if let Some(what) = unsupported_wrapper(head) {
        return limit_error(format!("the backup cannot be read: {what}"));
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text
        .get(..text.len().min(400))
        .unwrap_or(text)
        .to_lowercase();
    let starts = |magic: &[u8]| head.starts_with(magic);
    let what = if starts(b"\xff\xfe") || starts(b"\xfe\xff") {
        "it is UTF-16 text, as PowerShell's > writes it: use pg_dump --file"
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "it is an HTML page, perhaps a login or error page that was saved under the dump's name"
    } else if lower.starts_with("<?xml") {
        "it is an XML document, perhaps the storage service's error message"
    } else if lower.starts_with("{\"error") || lower.starts_with("{\n  \"error") {
        "it is a JSON error message, perhaps the storage service's"
    } else if lower.contains("mysql dump")
        || lower.contains("mariadb dump")
        || lower.starts_with("/*!4")
    {
        "it is a dump of MySQL or MariaDB"
    } else if starts(b"SQLite format 3") || lower.starts_with("pragma foreign_keys") {
        "it is an SQLite database"
    } else if let Some(program) = recognize::program_of_message(head.trim_ascii_start()) {
        let what = format!("it is a message of {program}: the command that wrote the file failed");
        return unsupported(format!("this is not a PostgreSQL dump: {what}"));
    } else if starts(b"TAPE") {
        "it is a backup of SQL Server"
    } else if starts(b"\x6d\xe2\x99\x81") {
        "it is a dump of MongoDB"
    } else {
        "it is neither an archive of pg_dump (-Fc, -Ft, -Fd) nor SQL text"
    };
    unsupported(format!("this is not a PostgreSQL dump: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_inputs_are_named() {
        for (head, word) in [
            (&b"PK\x03\x04\x14\x00\x01\x00"[..], "password"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"-- MySQL dump 10.13", "MySQL"),
            (b"\xff\xfe-\0-\0", "UTF-16"),
            (b"Salted__12345678", "openssl"),
            (b"pg_dump: error: connection to server failed\n", "pg_dump"),
            (b"hello", "neither"),
            (b"", "empty"),
        ] {
            let e = diagnose_input(head).to_string();
            assert!(e.contains(word), "{e}");
        }
    }

    #[test]
    fn keys_are_never_displayed() {
        assert!(DecryptionKeys::parse("x").is_err());
        assert!(DecryptionKeys::parse("# only a comment\n").is_err());
        assert_eq!(format!("{:?}", DecryptionKeys::default()), "0 keys");
    }
}
