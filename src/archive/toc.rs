//! The table of contents: one entry per object of the dump, read with every count and length bounded.

use std::io::Read;

use super::{Limits, TextEncoding};
use crate::error::{FailureReason, JobError, RestoreError, ValidationError};

/// Where an entry belongs in the order of a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Comments and privileges of old dumps.
    None,
    PreData,
    Data,
    PostData,
}

/// Where the entry's data stands. Piped dumps have no offsets; directory and tar dumps have members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataOffset {
    NotSet,
    At(u64),
    Member(String),
    NoData,
}

/// One object of the dump. Text is UTF-8 whatever the dump's encoding.
#[derive(Debug, Clone)]
pub struct TocEntry {
    pub dump_id: i32,
    /// The entry has a data block in this file.
    pub has_data: bool,
    /// Object kind in PostgreSQL's words: `TABLE`, `TABLE DATA`, `INDEX`, …
    pub desc: String,
    pub tag: String,
    pub section: Section,
    /// Statements that make the object; empty where there are none.
    pub defn: String,
    pub drop_stmt: String,
    /// `COPY … FROM stdin;`, or empty: then the data block holds INSERT statements.
    pub copy_stmt: String,
    pub namespace: Option<String>,
    /// `None`: not an object with storage; empty: the default tablespace.
    pub tablespace: Option<String>,
    pub table_am: Option<String>,
    /// `pg_class.relkind` (archive version 1.16 and later).
    pub relkind: Option<char>,
    pub owner: String,
    /// The table was made `WITH OIDS`, gone since PostgreSQL 12.
    pub with_oids: bool,
    /// The data had each row's oid as its first column; the reader leaves it out.
    pub oids_in_data: bool,
    pub dependencies: Vec<i32>,
    pub offset: DataOffset,
}

/// Integers and strings as the archive writes them.
pub(super) struct Fields<'a, R> {
    /// Data is in members of a directory or tar, not in blocks of this file.
    pub members: bool,
    pub input: &'a mut R,
    pub int_size: u8,
    pub off_size: u8,
    pub limits: Limits,
    /// Bytes that the table of contents may still take.
    pub budget: u64,
}

pub(super) fn corrupt(what: impl Into<String>) -> RestoreError {
    ValidationError::new(FailureReason::ArchiveCorrupt, what).into()
}

/// A sign byte and `size` little-endian bytes.
pub(super) fn read_int(input: &mut impl Read, size: u8) -> std::io::Result<i64> {
    let mut raw = [0u8; 9];
    let raw = &mut raw[..1 + usize::from(size)];
    input.read_exact(raw)?;
    let mut value = [0u8; 8];
    value[..raw.len() - 1].copy_from_slice(&raw[1..]);
    let magnitude = i64::from_le_bytes(value);
    match (raw[0], magnitude) {
        (_, i64::MIN..=-1) => {
            Err(RestoreError::from(ValidationError::new(FailureReason::ArchiveCorrupt, "integer too large"))
                .into())
        }
        (0, v) => Ok(v),
        (1, v) => Ok(-v),
        (sign, _) => Err(corrupt(format!("{sign} is no sign of an integer")).into()),
    }
}

pub(super) fn unsupported(what: impl Into<String>) -> RestoreError {
    ValidationError::new(FailureReason::ArchiveUnsupported, what).into()
}

/// Nothing is known to be wrong with the archive: this program, as it is set up, cannot read it.
pub(super) fn beyond_us(what: impl Into<String>) -> RestoreError {
    JobError::new(FailureReason::ArchiveUnsupported, what).into()
}

impl<R: Read> Fields<'_, R> {
    pub fn byte(&mut self, what: &str) -> Result<u8, RestoreError> {
        let mut b = [0u8; 1];
        self.input.read_exact(&mut b).map_err(|e| RestoreError::from_archive_io(e, what))?;
        Ok(b[0])
    }

    pub fn int(&mut self, what: &str) -> Result<i64, RestoreError> {
        self.spend(u64::from(self.int_size) + 1)?;
        read_int(self.input, self.int_size).map_err(|e| RestoreError::from_archive_io(e, what))
    }

    fn spend(&mut self, n: u64) -> Result<(), RestoreError> {
        self.budget = self.budget.checked_sub(n).ok_or_else(|| {
            corrupt(format!("the table of contents is larger than {} bytes", self.limits.max_toc))
        })?;
        Ok(())
    }

    /// A length and that many bytes; a negative length means that there is no string.
    pub fn bytes(&mut self, what: &str) -> Result<Option<Vec<u8>>, RestoreError> {
        let len = self.int(what)?;
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        if len > self.limits.max_string {
            return Err(corrupt(format!("{what}: a string of {len} bytes")));
        }
        self.spend(len as u64)?;
        let mut text = Vec::with_capacity(len.min(4096));
        let read = self.input.take(len as u64).read_to_end(&mut text);
        let read = read.map_err(|e| RestoreError::from_archive_io(e, what))?;
        if read < len {
            return Err(corrupt(format!("the archive ends early: {what}")));
        }
        if text.contains(&0) {
            return Err(corrupt(format!("{what}: a string with a NUL byte")));
        }
        Ok(Some(text))
    }

    fn offset(&mut self) -> Result<DataOffset, RestoreError> {
        let what = "data offset";
        let flag = self.byte(what)?;
        let mut raw = [0u8; 8];
        for i in 0..self.off_size {
            let b = self.byte(what)?;
            match raw.get_mut(usize::from(i)) {
                Some(slot) => *slot = b,
                None if b != 0 => return Err(corrupt("data offset too large")),
                None => {}
            }
        }
        match flag {
            1 => Ok(DataOffset::NotSet),
            2 => Ok(DataOffset::At(u64::from_le_bytes(raw))),
            3 => Ok(DataOffset::NoData),
            f => Err(corrupt(format!("{f} is no state of a data offset"))),
        }
    }
}

/// An entry whose strings are still in the dump's encoding.
struct RawEntry {
    dump_id: i32,
    has_data: bool,
    strings: [Option<Vec<u8>>; 8],
    section: Section,
    relkind: Option<char>,
    owner: Option<Vec<u8>>,
    with_oids: bool,
    dependencies: Vec<i32>,
    offset: DataOffset,
}

/// Reads the whole table of contents. `minor` is the archive version's second number (12 to 16).
///
/// # Errors
/// `archive_corrupt`, or the reader's own error.
pub(super) fn read_toc<R: Read>(
    fields: &mut Fields<'_, R>,
    minor: u8,
) -> Result<(Vec<TocEntry>, TextEncoding), RestoreError> {
    let count = fields.int("number of entries")?;
    let count = usize::try_from(count)
        .ok()
        .filter(|n| *n <= fields.limits.max_entries)
        .ok_or_else(|| corrupt(format!("a table of contents with {count} entries")))?;
    let mut raw = Vec::with_capacity(count.min(4096));
    for i in 0..count {
        raw.push(read_entry(fields, minor).map_err(|e| in_entry(e, i))?);
    }
    let encoding = dump_encoding(&raw);
    let entries = raw.into_iter().map(|e| e.decode(&encoding)).collect::<Result<Vec<_>, _>>()?;
    let mut ids = std::collections::HashSet::new();
    if let Some(twice) = entries.iter().find(|e| !ids.insert(e.dump_id)) {
        return Err(corrupt(format!("two entries with the number {}", twice.dump_id)));
    }
    Ok((entries, encoding))
}

fn in_entry(e: RestoreError, index: usize) -> RestoreError {
    match e {
        RestoreError::Validation(v) => {
            ValidationError::new(v.reason(), format!("{v} (entry {} of the table of contents)", index + 1))
                .into()
        }
        other => other,
    }
}

fn read_entry<R: Read>(f: &mut Fields<'_, R>, minor: u8) -> Result<RawEntry, RestoreError> {
    let dump_id = f.int("dump id")?;
    let dump_id = i32::try_from(dump_id)
        .ok()
        .filter(|id| *id > 0)
        .ok_or_else(|| corrupt(format!("{dump_id} is no dump id")))?;
    let has_data = f.int("data flag")? != 0;
    f.bytes("table oid")?;
    f.bytes("object oid")?;
    let tag = f.bytes("tag")?;
    let desc = f.bytes("kind")?;
    let section = match f.int("section")? {
        1 => Section::None,
        2 => Section::PreData,
        3 => Section::Data,
        4 => Section::PostData,
        n => return Err(corrupt(format!("{n} is no section"))),
    };
    let defn = f.bytes("definition")?;
    let drop_stmt = f.bytes("drop statement")?;
    let copy_stmt = f.bytes("copy statement")?;
    let namespace = f.bytes("schema")?;
    let tablespace = f.bytes("tablespace")?;
    let table_am = if minor >= 14 { f.bytes("access method")? } else { None };
    let relkind = if minor >= 16 {
        u8::try_from(f.int("relation kind")?).ok().filter(u8::is_ascii_alphabetic).map(char::from)
    } else {
        None
    };
    let owner = f.bytes("owner")?;
    let with_oids = f.bytes("oids flag")?.as_deref() == Some(b"true");
    let dependencies = read_dependencies(f)?;
    let offset = match f.members {
        false => f.offset()?,
        true => match f.bytes("member name")? {
            Some(name) if !name.is_empty() => DataOffset::Member(
                String::from_utf8(name).map_err(|_| corrupt("a member's name is no text"))?,
            ),
            _ => DataOffset::NoData,
        },
    };
    let strings = [tag, desc, defn, drop_stmt, copy_stmt, namespace, tablespace, table_am];
    Ok(RawEntry { dump_id, has_data, strings, section, relkind, owner, with_oids, dependencies, offset })
}

fn read_dependencies<R: Read>(f: &mut Fields<'_, R>) -> Result<Vec<i32>, RestoreError> {
    let mut ids = Vec::new();
    while let Some(text) = f.bytes("dependency")? {
        let id = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
        ids.push(id.ok_or_else(|| corrupt("a dependency that is no number"))?);
    }
    Ok(ids)
}

fn dump_encoding(raw: &[RawEntry]) -> TextEncoding {
    let defn = raw.iter().find(|e| e.strings[1].as_deref() == Some(b"ENCODING"));
    let text = defn.and_then(|e| e.strings[2].as_deref()).map(String::from_utf8_lossy);
    TextEncoding::new(text.as_deref().and_then(|t| t.split('\'').nth(1)).unwrap_or("UTF8"))
}

impl RawEntry {
    fn decode(self, encoding: &TextEncoding) -> Result<TocEntry, RestoreError> {
        let text = |s: Option<Vec<u8>>| s.map(|b| encoding.decode(b)).transpose();
        let [tag, desc, defn, drop_stmt, copy_stmt, namespace, tablespace, table_am] = self.strings;
        let (copy_stmt, oids_in_data) = without_oids(text(copy_stmt)?.unwrap_or_default());
        Ok(TocEntry {
            dump_id: self.dump_id,
            has_data: self.has_data,
            tag: text(tag)?.unwrap_or_default(),
            desc: text(desc)?.unwrap_or_default(),
            section: self.section,
            defn: text(defn)?.unwrap_or_default(),
            drop_stmt: text(drop_stmt)?.unwrap_or_default(),
            copy_stmt,
            namespace: text(namespace)?.filter(|n| !n.is_empty()),
            tablespace: text(tablespace)?,
            table_am: text(table_am)?.filter(|n| !n.is_empty()),
            relkind: self.relkind,
            owner: text(self.owner)?.unwrap_or_default(),
            with_oids: self.with_oids,
            oids_in_data,
            dependencies: self.dependencies,
            offset: self.offset,
        })
    }
}

/// `COPY t (a) WITH OIDS FROM stdin;` as every server since version 12 takes it.
pub(super) fn without_oids(copy: String) -> (String, bool) {
    match copy.contains(" WITH OIDS FROM stdin") {
        true => (copy.replacen(" WITH OIDS FROM stdin", " FROM stdin", 1), true),
        false => (copy, false),
    }
}

impl TocEntry {
    /// An entry with nothing but its kind and name.
    pub fn bare(dump_id: i32, desc: &str, tag: &str) -> Self {
        TocEntry {
            dump_id,
            has_data: false,
            desc: desc.to_owned(),
            tag: tag.to_owned(),
            section: Section::PreData,
            defn: String::new(),
            drop_stmt: String::new(),
            copy_stmt: String::new(),
            namespace: None,
            tablespace: None,
            table_am: None,
            relkind: None,
            owner: String::new(),
            with_oids: false,
            oids_in_data: false,
            dependencies: vec![],
            offset: DataOffset::NoData,
        }
    }

    /// `TABLE public.t`, for people.
    pub fn name(&self) -> String {
        match &self.namespace {
            Some(schema) => format!("{} {schema}.{}", self.desc, self.tag),
            None => format!("{} {}", self.desc, self.tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_a_sign_byte_and_little_endian_bytes() {
        assert_eq!(read_int(&mut &[0, 0x39, 0x30, 0, 0][..], 4).unwrap(), 12345);
        assert_eq!(read_int(&mut &[1, 1, 0, 0, 0][..], 4).unwrap(), -1);
        assert!(read_int(&mut &[7, 1, 0, 0, 0][..], 4).is_err());
        assert!(read_int(&mut &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], 8).is_err());
    }

    #[test]
    fn a_string_cannot_claim_more_than_its_limit() {
        let limits = Limits { max_string: 10, ..Limits::default() };
        let mut data: &[u8] = &[0, 11, 0, 0, 0, b'x'];
        let mut f =
            Fields { members: false, input: &mut data, int_size: 4, off_size: 8, limits, budget: 1 << 20 };
        let e = f.bytes("tag").unwrap_err();
        assert_eq!(e.reason(), FailureReason::ArchiveCorrupt);
    }
}
