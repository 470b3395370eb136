//! Encodes the header and the table of contents of a custom archive, as `WriteHead` and `WriteToc` of
//! `pg_backup_archiver.c` and `_WriteExtraToc` of `pg_backup_custom.c` do. Integers and offsets have the sizes that they
//! have in every archive of today's machines.

use super::toc::{limit_error, unsupported};
use super::{Codec, DumpId, Header, TextEncoding, TocEntry, TocSection};
use crate::error::ArchiveError;

/// `sizeof(int)`
const INT_SIZE: u8 = 4;
/// `sizeof(pgoff_t)`
const OFFSET_SIZE: u8 = 8;
/// `archCustom`
const CUSTOM: u8 = 1;
/// `K_OFFSET_POS_NOT_SET`: the output cannot be rewound to record where the data is.
const NOT_SET: u8 = 1;
/// `K_OFFSET_NO_DATA`
const NO_DATA: u8 = 3;
/// First minor version of archives whose header names the compression; older ones have only its level.
const WITH_CODEC: u8 = 15;

/// The version of the archive to write with this header's.
///
/// # Errors
/// [`ArchiveError::Unsupported`] for SQL text, whose statements are no entries of a table of contents, and for a
/// compression that `pg_restore` does not know in archives of this version.
pub(super) fn version_to_write(
    header: &Header,
    codec: Codec,
) -> Result<(u8, u8, u8), ArchiveError> {
    let version = header.version.ok_or_else(|| {
        unsupported("SQL text has no table of contents, which a custom archive needs")
    })?;
    if version.1 < WITH_CODEC && matches!(codec, Codec::Lz4 | Codec::Zstd) {
        let (codec, (major, minor, _)) = (codec.as_str(), version);
        return Err(unsupported(format!(
            "an archive of version {major}.{minor}, as the backup's, cannot be compressed with {codec}: choose gzip or none"
        )));
    }
    Ok(version)
}

/// A sign byte and four little-endian bytes.
pub(super) fn put_int(out: &mut Vec<u8>, n: i32) {
    out.push(u8::from(n < 0));
    out.extend_from_slice(&n.unsigned_abs().to_le_bytes());
}

/// The length of something that the archive holds.
pub(super) fn length_of(bytes: &[u8]) -> Result<i32, ArchiveError> {
    i32::try_from(bytes.len()).map_err(|_| limit_error("a text or a chunk of 2 GiB or more"))
}

/// Encodes fields into a buffer.
pub(super) struct TocEncoder<'a> {
    pub(super) bytes: Vec<u8>,
    pub(super) encoding: &'a TextEncoding,
    /// Minor version of the archive.
    pub(super) minor: u8,
}

impl TocEncoder<'_> {
    fn int(&mut self, n: i32) {
        put_int(&mut self.bytes, n);
    }

    /// A text in the encoding of the dump; `None` is the NULL of C.
    fn text(&mut self, text: Option<&str>) -> Result<(), ArchiveError> {
        let Some(text) = text else {
            self.int(-1);
            return Ok(());
        };
        let bytes = self.encoding.bytes_of(text);
        self.int(length_of(&bytes)?);
        self.bytes.extend_from_slice(&bytes);
        Ok(())
    }

    /// The header, and the number of entries that follow it.
    pub(super) fn header(
        &mut self,
        header: &Header,
        codec: Codec,
        entries: usize,
    ) -> Result<(), ArchiveError> {
        let version = version_to_write(header, codec)?;
        self.bytes.extend_from_slice(b"PGDMP");
        let fixed = [
            version.0,
            version.1,
            version.2,
            INT_SIZE,
            OFFSET_SIZE,
            CUSTOM,
        ];
        self.bytes.extend_from_slice(&fixed);
        self.codec(codec);
        self.created(header);
        // Those of the header are kept as text, not in the encoding of the entries.
        self.raw_text(header.database.as_deref().unwrap_or_default())?;
        self.raw_text(&header.server_version)?;
        self.raw_text(&header.pg_dump_version)?;
        let count =
            i32::try_from(entries).map_err(|_| limit_error(format!("{entries} entries")))?;
        self.int(count);
        Ok(())
    }

    fn raw_text(&mut self, text: &str) -> Result<(), ArchiveError> {
        self.int(length_of(text.as_bytes())?);
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn codec(&mut self, codec: Codec) {
        if self.minor < WITH_CODEC {
            // Z_DEFAULT_COMPRESSION, or no compression.
            self.int(if codec == Codec::None { 0 } else { -1 });
        } else {
            self.bytes.push(match codec {
                Codec::None => 0,
                Codec::Gzip => 1,
                Codec::Lz4 => 2,
                Codec::Zstd => 3,
            });
        }
    }

    /// A `struct tm` of the dumping machine's local time, whose daylight-saving flag is unknown.
    fn created(&mut self, header: &Header) {
        let fields = header.created.map_or([0, 0, 0, 1, 0, 70], |t| {
            [
                i32::from(t.second()),
                i32::from(t.minute()),
                i32::from(t.hour()),
                i32::from(t.day()),
                i32::from(t.month()) - 1,
                i32::from(t.year()) - 1900,
            ]
        });
        for field in fields {
            self.int(field);
        }
        self.int(-1);
    }

    /// An entry. Statements that are empty are the NULL that `pg_dump` writes where an entry has none.
    pub(super) fn entry(&mut self, e: &TocEntry) -> Result<(), ArchiveError> {
        self.int(e.dump_id.0);
        self.int(i32::from(e.has_data));
        self.text(Some(&e.table_oid.to_string()))?;
        self.text(Some(&e.oid.to_string()))?;
        self.text(Some(&e.tag))?;
        self.text(Some(e.kind.as_str()))?;
        self.int(section_number(e.section));
        self.text(or_null(&e.defn))?;
        self.text(or_null(&e.drop_stmt))?;
        self.text(or_null(&e.copy_stmt))?;
        self.text(e.namespace.as_deref())?;
        self.text(e.tablespace.as_deref())?;
        if self.minor >= 14 {
            self.text(e.table_am.as_deref())?;
        }
        if self.minor >= 16 {
            self.int(e.relkind.map_or(0, |kind| kind as i32));
        }
        self.text(Some(&e.owner))?;
        self.text(Some(if e.with_oids { "true" } else { "false" }))?;
        self.dependencies(&e.dependencies)?;
        self.bytes.push(if e.has_data { NOT_SET } else { NO_DATA });
        self.bytes.extend_from_slice(&[0; OFFSET_SIZE as usize]);
        Ok(())
    }

    fn dependencies(&mut self, ids: &[DumpId]) -> Result<(), ArchiveError> {
        for id in ids {
            self.text(Some(&id.to_string()))?;
        }
        self.text(None)
    }
}

fn or_null(text: &str) -> Option<&str> {
    Some(text).filter(|t| !t.is_empty())
}

fn section_number(section: TocSection) -> i32 {
    match section {
        TocSection::None => 1,
        TocSection::PreData => 2,
        TocSection::Data => 3,
        TocSection::PostData => 4,
    }
}
