//! The table of contents: one entry per object of the dump, read with a limit for every count and length.

use crate::Crc32c;
use std::collections::HashSet;
use std::io::Read;

use super::{DumpId, EntryKind, Limits, TextEncoding};
use crate::error::ArchiveError;

/// The section of a restore that an entry belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TocSection {
    /// Comments and privileges of old dumps.
    None,
    /// `SECTION_PRE_DATA`: definitions that the rows need.
    PreData,
    /// `SECTION_DATA`: rows, large objects, sequence values, statistics.
    Data,
    /// `SECTION_POST_DATA`: indexes, constraints, triggers, rules.
    PostData,
}

/// Location of the entry's data. Dumps into a pipe have no offsets; directory and tar dumps have members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataOffset {
    /// `K_OFFSET_POS_NOT_SET`: there is data, and `pg_dump` could not seek back to record its offset.
    NotSet,
    /// `K_OFFSET_POS_SET`: offset of the data block in bytes from the beginning of the archive.
    At(u64),
    /// Name of the member that has the data, as `pg_dump` named it (no compression suffix).
    Member(String),
    /// `K_OFFSET_NO_DATA`: the entry has no data.
    NoData,
}

/// One object of the dump. Its texts are those that [`TextEncoding::decode`] returns.
#[derive(Debug, Clone)]
pub struct TocEntry {
    /// Dump id: number of the entry in this archive, from 1; dependencies refer to it.
    pub dump_id: DumpId,
    /// OID of the source's catalog that has the object, such as that of `pg_class`; 0 if there is none.
    pub table_oid: u32,
    /// The object's OID in the source; 0 if it has none.
    pub oid: u32,
    /// Whether the entry has a data block in this file.
    pub has_data: bool,
    /// Kind of the object.
    pub kind: EntryKind,
    /// Name of the object, unquoted; functions have their argument types, some kinds the table before the name.
    pub tag: String,
    /// Section that `pg_dump` put the object in.
    pub section: TocSection,
    /// Statements that create the object; empty if there are none.
    pub defn: String,
    /// The `DROP` statement that `pg_restore --clean` runs; empty if there is none.
    pub drop_stmt: String,
    /// `COPY … FROM stdin;`, or empty: then the data block has INSERT statements.
    pub copy_stmt: String,
    /// Schema of the object, unquoted; `None` for objects outside of schemas.
    pub namespace: Option<String>,
    /// `None`: an object without storage; empty: the default tablespace.
    pub tablespace: Option<String>,
    /// Table access method (archive version 1.14 and later); `None` for objects without one.
    pub table_am: Option<String>,
    /// `pg_class.relkind` (archive version 1.16 and later).
    pub relkind: Option<char>,
    /// Name of the owner, unquoted; empty if the object has none.
    pub owner: String,
    /// Whether the table was created `WITH OIDS`, which PostgreSQL 12 removed.
    pub with_oids: bool,
    /// Whether the data has each row's OID as its first column; the reader removes it.
    pub oids_in_data: bool,
    /// Dump ids of the entries that this one needs; some may not be in the archive.
    pub dependencies: Vec<DumpId>,
    /// Location of the data.
    pub offset: DataOffset,
}

/// Reads integers and strings as the archive encodes them.
pub(super) struct TocReader<'a, R> {
    pub input: &'a mut R,
    /// Data is in members of a directory or tar, not in blocks of this file.
    pub members: bool,
    pub int_size: u8,
    pub off_size: u8,
    pub limits: Limits,
    /// Bytes that the rest of the table of contents may have.
    budget: u64,
    /// Longer strings are skipped, and only included in the checksum.
    max_kept: usize,
    /// Memory that everything read so far takes, whether it was kept or skipped.
    memory: u64,
    /// CRC32C of what was read of an entry, without data offsets.
    sum: Crc32c,
    /// This is a table of contents after the data, which may omit definitions.
    is_repeated: bool,
}

/// Checksums of an entry, for comparison with a second copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntrySum {
    pub definition: Crc32c,
    pub rest: Crc32c,
}

/// A table of contents, and the checksums of its entries.
pub(super) struct Toc {
    pub entries: Vec<TocEntry>,
    pub encoding: TextEncoding,
    pub sums: Vec<EntrySum>,
}

/// Strings up to this length are always kept: kinds and flags determine how to read the next field.
const SHORT_STRING: usize = 64;
/// Bytes of a string that are read at once.
const STRING_PART: u64 = 32 << 10;
/// PostgreSQL allows no longer text than this.
const MAX_STRING: u64 = (1 << 30) - 1;
/// Memory of an entry besides its strings: itself, its rewritten copy, and its node in the plan of the
/// restore.
const ENTRY_MEMORY: u64 = 2 * size_of::<TocEntry>() as u64 + 512;
/// Memory of a dependency: here, in the copy, and as an edge of the plan.
const DEPENDENCY_MEMORY: u64 = 24;

/// Memory of a string: its bytes and the allocator's overhead, twice because of the rewritten copy.
fn memory_of(length: u64) -> u64 {
    if length == 0 { 0 } else { 2 * (length + 24) }
}

/// Appends a part of a string of which `left` bytes follow. The length may be false: memory grows with what has
/// been read.
fn append(text: &mut Vec<u8>, part: &[u8], left: u64) {
    if text.capacity() - text.len() < part.len() {
        let most = (text.len() as u64).max(STRING_PART);
        let more = (left + part.len() as u64).min(most);
        text.reserve_exact(more as usize);
    }
    text.extend_from_slice(part);
}

pub(super) fn corrupt(what: impl Into<String>) -> ArchiveError {
    ArchiveError::corrupt(what)
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
        (_, i64::MIN..=-1) => Err(corrupt("integer too large").into()),
        (0, v) => Ok(v),
        (1, v) => Ok(-v),
        (sign, _) => Err(corrupt(format!("{sign} is not a valid sign of an integer")).into()),
    }
}

pub(super) fn unsupported(what: impl Into<String>) -> ArchiveError {
    ArchiveError::unsupported(what)
}

/// The error for an archive that this program, as configured, cannot read, although nothing shows damage.
pub(super) fn limit_error(what: impl Into<String>) -> ArchiveError {
    ArchiveError::limit(what)
}

impl<'a, R: Read> TocReader<'a, R> {
    pub(crate) fn new(input: &'a mut R, limits: Limits) -> Self {
        TocReader {
            input,
            members: false,
            int_size: 4,
            off_size: 8,
            limits,
            budget: limits.max_toc,
            max_kept: usize::MAX,
            memory: 0,
            sum: Crc32c::default(),
            is_repeated: false,
        }
    }

    fn update_sum(&mut self, bytes: &[u8]) {
        self.sum = self.sum.append(bytes);
    }

    pub(crate) fn byte(&mut self, what: &str) -> Result<u8, ArchiveError> {
        let mut b = [0u8; 1];
        self.input
            .read_exact(&mut b)
            .map_err(|e| ArchiveError::from_io(e, what))?;
        Ok(b[0])
    }

    pub(crate) fn int(&mut self, what: &str) -> Result<i64, ArchiveError> {
        self.charge_budget(u64::from(self.int_size) + 1)?;
        let value =
            read_int(self.input, self.int_size).map_err(|e| ArchiveError::from_io(e, what))?;
        self.update_sum(&value.to_le_bytes());
        Ok(value)
    }

    fn charge_budget(&mut self, n: u64) -> Result<(), ArchiveError> {
        self.budget = self.budget.checked_sub(n).ok_or_else(|| {
            limit_error(format!(
                "the table of contents is larger than {} MiB",
                self.limits.max_toc >> 20
            ))
        })?;
        Ok(())
    }

    /// Counts memory; once the budget is exceeded, long strings are no longer kept, and the rest is read only
    /// to report how much memory is needed.
    fn count_memory(&mut self, n: u64) {
        self.memory = self.memory.saturating_add(n);
        if self.memory > self.limits.memory {
            self.max_kept = SHORT_STRING;
        }
    }

    fn is_over_memory(&self) -> bool {
        self.memory > self.limits.memory
    }

    /// A length and that many bytes; a negative length means that there is no string. Returns an empty string
    /// for one that is not kept.
    pub(crate) fn bytes(&mut self, what: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let length = self.int(what)?;
        let Ok(length) = u64::try_from(length) else {
            return Ok(None);
        };
        if length > MAX_STRING {
            return Err(corrupt(format!(
                "{what}: a string has the invalid length {length}"
            )));
        }
        self.count_memory(memory_of(length));
        let is_kept = usize::try_from(length).is_ok_and(|n| n <= self.max_kept);
        let (mut text, mut left) = (Vec::new(), length);
        let mut buffer = vec![0u8; length.min(STRING_PART) as usize];
        while left > 0 {
            let part = &mut buffer[..left.min(STRING_PART) as usize];
            self.string_part(part, what)?;
            left -= part.len() as u64;
            if is_kept {
                append(&mut text, part, left);
            }
        }
        text.shrink_to_fit();
        Ok(Some(text))
    }

    /// Fills `part` with bytes of a string.
    fn string_part(&mut self, part: &mut [u8], what: &str) -> Result<(), ArchiveError> {
        let read = self.input.read_exact(part);
        read.map_err(|e| ArchiveError::from_io(e, what))?;
        if part.contains(&0) {
            return Err(corrupt(format!("{what}: a string contains a NUL byte")));
        }
        self.update_sum(part);
        self.charge_budget(part.len() as u64)
    }

    /// A short string that is not kept for long.
    fn transient_bytes(&mut self, what: &str) -> Result<Option<Vec<u8>>, ArchiveError> {
        let before = (
            self.memory,
            std::mem::replace(&mut self.max_kept, SHORT_STRING),
        );
        let text = self.bytes(what);
        (self.memory, self.max_kept) = before;
        text
    }

    fn offset(&mut self) -> Result<DataOffset, ArchiveError> {
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
            f => Err(corrupt(format!(
                "{f} is not a valid state of a data offset"
            ))),
        }
    }
}

/// An entry whose strings are still in the dump's encoding.
struct RawEntry {
    dump_id: DumpId,
    table_oid: u32,
    oid: u32,
    has_data: bool,
    strings: [Option<Vec<u8>>; 8],
    section: TocSection,
    relkind: Option<char>,
    owner: Option<Vec<u8>>,
    with_oids: bool,
    dependencies: Vec<DumpId>,
    offset: DataOffset,
    sum: EntrySum,
}

/// Reads the whole table of contents. `minor` is the archive version's second number (12 to 16).
///
/// # Errors
/// `ArchiveError::Corrupt`; `ArchiveError::Limit` if it takes more memory than allowed; or the reader's own
/// error.
pub(super) fn read_toc<R: Read>(
    fields: &mut TocReader<'_, R>,
    minor: u8,
) -> Result<Toc, ArchiveError> {
    let count = fields.int("number of entries")?;
    let count = usize::try_from(count).map_err(|_| {
        corrupt(format!(
            "the table of contents has the invalid number of {count} entries"
        ))
    })?;
    let mut toc = PartialToc::default();
    for i in 0..count {
        if i == fields.limits.max_entries {
            return Err(limit_error(format!(
                "the table of contents has {count} entries, but the limit is {i}"
            )));
        }
        let entry = read_entry(fields, minor).map_err(|e| in_entry(e, i, "table of contents"))?;
        fields.count_memory(ENTRY_MEMORY);
        if fields.is_over_memory() {
            toc = PartialToc::default();
        } else {
            toc.add(entry)?;
        }
    }
    fields
        .limits
        .check_memory("the table of contents", fields.memory)?;
    toc.finish()
}

/// The entries read so far.
#[derive(Default)]
struct PartialToc {
    ids: HashSet<DumpId>,
    /// Entries that precede the one with the encoding.
    raw: Vec<RawEntry>,
    entries: Vec<TocEntry>,
    sums: Vec<EntrySum>,
    encoding: Option<TextEncoding>,
}

impl PartialToc {
    fn add(&mut self, entry: RawEntry) -> Result<(), ArchiveError> {
        if !self.ids.insert(entry.dump_id) {
            let id = entry.dump_id;
            return Err(corrupt(format!("two entries have the dump id {id}")));
        }
        self.sums.push(entry.sum);
        if self.encoding.is_none() {
            self.encoding = entry.encoding();
        }
        self.raw.push(entry);
        // The encoding comes first in the output of every pg_dump.
        if let Some(encoding) = self.encoding.take() {
            self.decode(&encoding)?;
            self.encoding = Some(encoding);
        }
        Ok(())
    }

    fn decode(&mut self, encoding: &TextEncoding) -> Result<(), ArchiveError> {
        for entry in self.raw.drain(..) {
            self.entries.push(entry.decode(encoding)?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Toc, ArchiveError> {
        let encoding = self.encoding.take();
        let encoding = encoding.unwrap_or_else(|| TextEncoding::new("UTF8"));
        self.decode(&encoding)?;
        Ok(Toc {
            entries: self.entries,
            encoding,
            sums: self.sums,
        })
    }
}

/// Reads a copy of the table of contents that follows the data: it must be identical except for data offsets and
/// the definitions that `pg_dump` omits there. Nothing of it is kept.
///
/// # Errors
/// `ArchiveError::Corrupt` if it differs or ends early.
pub(super) fn compare_toc<R: Read>(
    fields: &mut TocReader<'_, R>,
    minor: u8,
    entries: &[TocEntry],
    sums: &[EntrySum],
) -> Result<Vec<DataOffset>, ArchiveError> {
    (fields.max_kept, fields.is_repeated) = (SHORT_STRING, true);
    let differs = |what: String| {
        corrupt(format!(
            "the table of contents after the data differs from the one at the beginning: {what}"
        ))
    };
    let count = fields.int(REPEATED)?;
    if usize::try_from(count) != Ok(entries.len()) {
        return Err(differs(format!(
            "it has {count} entries, not {}",
            entries.len()
        )));
    }
    let mut offsets = Vec::new();
    for (i, (entry, sum)) in entries.iter().zip(sums).enumerate() {
        let again = read_entry(fields, minor).map_err(|e| in_entry(e, i, REPEATED))?;
        let is_omitted = may_be_omitted(again.desc()) && again.strings[DEFINITION].is_none();
        if again.sum.rest != sum.rest || !(is_omitted || again.sum.definition == sum.definition) {
            return Err(differs(entry.name()));
        }
        if entry.has_data {
            offsets.push(again.offset);
        }
    }
    Ok(offsets)
}

/// Name of the part that is read, for errors.
const REPEATED: &str = "table of contents after the data";

/// `pg_dump` 18 writes statistics once: it omits them when it writes its table of contents again.
fn may_be_omitted(desc: &[u8]) -> bool {
    desc == b"STATISTICS DATA"
}

fn in_entry(e: ArchiveError, index: usize, of: &str) -> ArchiveError {
    e.map_message(|message| format!("{message} (entry {} of the {of})", index + 1))
}

/// Positions in `RawEntry::strings`.
const DESC: usize = 1;
const DEFINITION: usize = 2;

fn read_entry<R: Read>(f: &mut TocReader<'_, R>, minor: u8) -> Result<RawEntry, ArchiveError> {
    f.sum = Crc32c::default();
    let dump_id = read_dump_id(f)?;
    let has_data = f.int("data flag")? != 0;
    let table_oid = read_oid(f, "table oid")?;
    let oid = read_oid(f, "object oid")?;
    let tag = f.bytes("tag")?;
    let desc = f.bytes("kind")?;
    let section = read_section(f)?;
    let (defn, drop_stmt, definition) = read_statements(f, desc.as_deref().unwrap_or_default())?;
    let copy_stmt = f.bytes("copy statement")?;
    let namespace = f.bytes("schema")?;
    let tablespace = f.bytes("tablespace")?;
    let table_am = match minor {
        14.. => f.bytes("access method")?,
        _ => None,
    };
    let relkind = match minor {
        16.. => read_relkind(f)?,
        _ => None,
    };
    let owner = f.bytes("owner")?;
    let with_oids = f.transient_bytes("oids flag")?.as_deref() == Some(b"true");
    let dependencies = read_dependencies(f)?;
    let offset = if f.members {
        read_member_name(f)?
    } else {
        f.offset()?
    };
    let strings = [
        tag, desc, defn, drop_stmt, copy_stmt, namespace, tablespace, table_am,
    ];
    let rest = f.sum;
    Ok(RawEntry {
        dump_id,
        table_oid,
        oid,
        has_data,
        strings,
        section,
        relkind,
        owner,
        with_oids,
        dependencies,
        offset,
        sum: EntrySum { definition, rest },
    })
}

fn read_dump_id<R: Read>(f: &mut TocReader<'_, R>) -> Result<DumpId, ArchiveError> {
    let number = f.int("dump id")?;
    let id = i32::try_from(number).ok().filter(|id| *id > 0);
    id.map(DumpId)
        .ok_or_else(|| corrupt(format!("{number} is not a valid dump id")))
}

/// An OID, which is text. What is no number is 0, as for `pg_restore`.
fn read_oid<R: Read>(f: &mut TocReader<'_, R>, what: &str) -> Result<u32, ArchiveError> {
    let text = f.transient_bytes(what)?.unwrap_or_default();
    let digits = std::str::from_utf8(&text).unwrap_or_default();
    Ok(digits.parse().unwrap_or_default())
}

fn read_section<R: Read>(f: &mut TocReader<'_, R>) -> Result<TocSection, ArchiveError> {
    match f.int("section")? {
        1 => Ok(TocSection::None),
        2 => Ok(TocSection::PreData),
        3 => Ok(TocSection::Data),
        4 => Ok(TocSection::PostData),
        n => Err(corrupt(format!("{n} is not a valid section"))),
    }
}

fn read_relkind<R: Read>(f: &mut TocReader<'_, R>) -> Result<Option<char>, ArchiveError> {
    let kind = u8::try_from(f.int("relation kind")?).ok();
    Ok(kind.filter(u8::is_ascii_alphabetic).map(char::from))
}

fn read_member_name<R: Read>(f: &mut TocReader<'_, R>) -> Result<DataOffset, ArchiveError> {
    match f.bytes("member name")? {
        Some(name) if !name.is_empty() => String::from_utf8(name)
            .map(DataOffset::Member)
            .map_err(|_| corrupt("a member's name is not valid UTF-8")),
        _ => Ok(DataOffset::NoData),
    }
}

type TocText = Option<Vec<u8>>;

/// Definition and drop statement, and the checksum of the definition, which that of the entry excludes.
fn read_statements<R: Read>(
    f: &mut TocReader<'_, R>,
    desc: &[u8],
) -> Result<(TocText, TocText, Crc32c), ArchiveError> {
    let before = std::mem::take(&mut f.sum);
    let memory = f.memory;
    let first = f.bytes("definition")?;
    let sum = std::mem::replace(&mut f.sum, before);
    if f.is_repeated && may_be_omitted(desc) && f.memory == memory {
        // The definition was omitted, so this is already the drop statement.
        f.update_sum(&sum.0.to_le_bytes());
        return Ok((None, first, Crc32c::default()));
    }
    let outer = std::mem::take(&mut f.sum);
    let drop_stmt = f.bytes("drop statement")?;
    let of_drop = std::mem::replace(&mut f.sum, outer);
    f.update_sum(&of_drop.0.to_le_bytes());
    Ok((first, drop_stmt, sum))
}

fn read_dependencies<R: Read>(f: &mut TocReader<'_, R>) -> Result<Vec<DumpId>, ArchiveError> {
    let mut ids = Vec::new();
    while let Some(text) = f.transient_bytes("dependency")? {
        let id = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok());
        let id = id.ok_or_else(|| corrupt("a dependency is not a number"))?;
        f.count_memory(DEPENDENCY_MEMORY);
        if !f.is_over_memory() {
            ids.push(id);
        }
    }
    Ok(ids)
}

impl RawEntry {
    fn desc(&self) -> &[u8] {
        self.strings[DESC].as_deref().unwrap_or_default()
    }

    /// What this entry says about the dump's encoding.
    fn encoding(&self) -> Option<TextEncoding> {
        if self.desc() != b"ENCODING" {
            return None;
        }
        let text = self.strings[DEFINITION]
            .as_deref()
            .map(String::from_utf8_lossy);
        Some(TextEncoding::new(
            text.as_deref()
                .and_then(|t| t.split('\'').nth(1))
                .unwrap_or("UTF8"),
        ))
    }

    fn decode(self, encoding: &TextEncoding) -> Result<TocEntry, ArchiveError> {
        let text = |s: Option<Vec<u8>>| s.map(|b| encoding.decode(b)).transpose();
        let [
            tag,
            desc,
            defn,
            drop_stmt,
            copy_stmt,
            namespace,
            tablespace,
            table_am,
        ] = self.strings;
        let (copy_stmt, oids_in_data) = without_oids(text(copy_stmt)?.unwrap_or_default());
        Ok(TocEntry {
            dump_id: self.dump_id,
            table_oid: self.table_oid,
            oid: self.oid,
            has_data: self.has_data,
            tag: text(tag)?.unwrap_or_default(),
            kind: EntryKind::from(text(desc)?.unwrap_or_default().as_str()),
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

/// `COPY t (a) WITH OIDS FROM stdin;` as every server since version 12 accepts it.
pub(super) fn without_oids(copy: String) -> (String, bool) {
    if copy.contains(" WITH OIDS FROM stdin") {
        (
            copy.replacen(" WITH OIDS FROM stdin", " FROM stdin", 1),
            true,
        )
    } else {
        (copy, false)
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
        assert!(
            read_int(
                &mut &[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
                8
            )
            .is_err()
        );
    }

    #[test]
    fn string_lengths_are_checked() {
        let claimed: &[u8] = &[0, 11, 0, 0, 0, b'x'];
        for (limits, is_limit) in [
            (Limits::default(), false),
            (
                Limits {
                    max_toc: 10,
                    ..Limits::default()
                },
                true,
            ),
        ] {
            let text = if limits.max_toc == 10 {
                b"\0\x0b\0\0\0twelve bytes".as_slice()
            } else {
                claimed
            };
            let e = TocReader::new(&mut &text[..], limits)
                .bytes("tag")
                .unwrap_err();
            assert_eq!(matches!(e, ArchiveError::Limit(_)), is_limit, "{e}");
        }
    }
}
