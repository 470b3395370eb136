//! What one row of the record says. Stored as JSON of ASCII characters, so that the encodings of client and database do not
//! matter. Pure.

use std::fmt::Write;

use pgdump_archive::{Crc32c, Extent, TocEntry};
use pgdump_mask::MaskCounts;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::ranges::Ranges;

/// A range of an entry's uncompressed data, or of the statements of SQL text, with the checksum of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSpan {
    /// Its first byte or statement.
    pub from: u64,
    /// The one behind its last.
    pub to: u64,
    /// CRC32C of its bytes. Of statements: those of their texts, combined as if each were one byte long.
    pub crc32c: Crc32c,
}

impl DataSpan {
    /// A statement of SQL text, as it was read.
    pub fn of_statement(number: u64, text: &[u8]) -> Self {
        DataSpan {
            from: number,
            to: number + 1,
            crc32c: Crc32c::of(text),
        }
    }

    /// How long it is.
    pub fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }

    /// Whether it has nothing.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// This one and the one behind it.
    fn followed_by(self, next: DataSpan) -> Self {
        let length = usize::try_from(next.len()).unwrap_or(usize::MAX);
        DataSpan {
            to: next.to,
            crc32c: self.crc32c.combine(next.crc32c, length),
            ..self
        }
    }
}

/// Spans in the order in which they were added; those that follow each other are one. Stored as
/// `[from, to, CRC32C, from, …]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<DataSpan>);

impl Spans {
    /// Adds a span.
    pub fn push(&mut self, s: DataSpan) {
        match self.0.last_mut() {
            _ if s.is_empty() => {}
            Some(last) if last.to == s.from => *last = last.followed_by(s),
            _ => self.0.push(s),
        }
    }

    /// Adds bytes of an entry's data. Those that follow each other are summed as they come, which costs less than to combine
    /// checksums.
    pub fn push_bytes(&mut self, from: u64, bytes: &[u8]) {
        let to = from + bytes.len() as u64;
        match self.0.last_mut() {
            _ if bytes.is_empty() => {}
            Some(last) if last.to == from => {
                last.to = to;
                last.crc32c = last.crc32c.append(bytes);
            }
            _ => self.0.push(DataSpan {
                from,
                to,
                crc32c: Crc32c::of(bytes),
            }),
        }
    }

    /// What they cover.
    pub fn ranges(&self) -> Ranges {
        let mut ranges = Ranges::default();
        self.0.iter().for_each(|s| ranges.add(s.from..s.to));
        ranges
    }

    /// Each of them.
    pub fn as_slice(&self) -> &[DataSpan] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Spans {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let of_span = |s: &DataSpan| [s.from, s.to, u64::from(s.crc32c.0)];
        out.collect_seq(self.0.iter().flat_map(of_span))
    }
}

impl<'de> Deserialize<'de> for Spans {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let flat = Vec::<u64>::deserialize(input)?;
        let span = |part: &[u64]| match part {
            [from, to, crc] if from < to => Some(DataSpan {
                from: *from,
                to: *to,
                crc32c: Crc32c(u32::try_from(*crc).ok()?),
            }),
            _ => None,
        };
        let spans: Option<Vec<DataSpan>> = flat.chunks(3).map(span).collect();
        let wrong = || D::Error::custom("a span is not two places and a checksum");
        spans.map(Spans).ok_or_else(wrong)
    }
}

/// What work is counted for: the dump id of an entry, or in SQL text the number of the statement that begins the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnitId(pub i64);

impl UnitId {
    /// That of an entry of a table of contents.
    pub fn of(entry: &TocEntry) -> Self {
        UnitId(i64::from(entry.dump_id.0))
    }
}

/// What of an entry exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum EntryPart {
    /// All of it.
    Whole = 0,
    /// The index of a key.
    Index = 1,
    /// The key that was made from its index.
    Key = 2,
}

impl From<EntryPart> for u8 {
    fn from(part: EntryPart) -> Self {
        part as u8
    }
}

impl TryFrom<u8> for EntryPart {
    type Error = String;

    fn try_from(n: u8) -> Result<Self, Self::Error> {
        match n {
            0 => Ok(EntryPart::Whole),
            1 => Ok(EntryPart::Index),
            2 => Ok(EntryPart::Key),
            _ => Err(format!("no part of an entry is called {n}")),
        }
    }
}

/// Rows that a transaction has brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsDone {
    /// Whose they are.
    #[serde(rename = "u")]
    pub unit: UnitId,
    /// Where they are in its data.
    #[serde(rename = "b")]
    pub spans: Spans,
    /// How many of them the server counted.
    #[serde(rename = "n")]
    pub rows: u64,
    /// Whether one COPY has filled the empty table, and may have frozen them; autovacuum is then off for the table until the load
    /// ends.
    #[serde(rename = "z", default, skip_serializing_if = "is_false")]
    pub is_frozen: bool,
    /// What masking has changed in them.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskCounts>,
}

/// Contents of large objects that a transaction has brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectsDone {
    /// Whose they are.
    #[serde(rename = "u")]
    pub unit: UnitId,
    /// Where they are in its data.
    #[serde(rename = "b")]
    pub spans: Spans,
}

/// Data that was read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataEnd {
    /// Whose it is.
    #[serde(rename = "u")]
    pub unit: UnitId,
    /// Its uncompressed bytes.
    pub bytes: u64,
    /// Its lines.
    pub lines: u64,
}

/// Stored bytes that were read to their end and have the checksum that they are to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProvenPart {
    /// A block of the archive.
    Block {
        /// Whose it is.
        unit: UnitId,
        /// Where it is.
        extent: Extent,
    },
    /// A block of an archive whose blocks are proven together: the checksum is that of the bytes that were read, and is
    /// proven by that of the whole alone.
    BlockRead {
        /// Whose it is.
        unit: UnitId,
        /// Where it is.
        extent: Extent,
    },
    /// A member of a directory.
    Member {
        /// Whose it is.
        unit: UnitId,
        /// Its name.
        name: String,
        /// CRC32C of its stored bytes.
        crc32c: Crc32c,
    },
}

impl ProvenPart {
    /// Whose bytes they are.
    pub fn unit(&self) -> UnitId {
        match self {
            ProvenPart::Block { unit, .. }
            | ProvenPart::BlockRead { unit, .. }
            | ProvenPart::Member { unit, .. } => *unit,
        }
    }
}

/// [`ProvenPart`] as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPart {
    #[serde(rename = "u")]
    unit: UnitId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    member: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    length: Option<u64>,
    crc32c: Crc32c,
    /// Whether it is a block that is only proven together with all others.
    #[serde(rename = "t", default, skip_serializing_if = "is_false")]
    is_together: bool,
}

impl StoredPart {
    fn of_block(unit: UnitId, extent: Extent, is_together: bool) -> Self {
        StoredPart {
            unit,
            member: None,
            offset: Some(extent.offset),
            length: Some(extent.length),
            crc32c: extent.crc32c,
            is_together,
        }
    }
}

impl Serialize for ProvenPart {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let stored = match self {
            ProvenPart::Block { unit, extent } => StoredPart::of_block(*unit, *extent, false),
            ProvenPart::BlockRead { unit, extent } => StoredPart::of_block(*unit, *extent, true),
            ProvenPart::Member { unit, name, crc32c } => StoredPart {
                unit: *unit,
                member: Some(name.clone()),
                offset: None,
                length: None,
                crc32c: *crc32c,
                is_together: false,
            },
        };
        stored.serialize(out)
    }
}

impl<'de> Deserialize<'de> for ProvenPart {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let StoredPart {
            unit,
            member,
            offset,
            length,
            crc32c,
            is_together,
        } = StoredPart::deserialize(input)?;
        match (member, offset, length) {
            (Some(name), None, None) if !is_together => {
                Ok(ProvenPart::Member { unit, name, crc32c })
            }
            (None, Some(offset), Some(length)) => {
                let extent = Extent {
                    offset,
                    length,
                    crc32c,
                };
                Ok(if is_together {
                    ProvenPart::BlockRead { unit, extent }
                } else {
                    ProvenPart::Block { unit, extent }
                })
            }
            _ => Err(D::Error::custom("neither a block nor a member")),
        }
    }
}

/// A definition, or a part of one, that the server refused and that was left out. What was left out with it is not written
/// down: it follows from this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedDone {
    /// Whose it is: the entry, or the number of the statement of SQL text.
    #[serde(rename = "u")]
    pub unit: UnitId,
    /// How many things were refused or left out before it: the cause precedes what it causes.
    pub after: u64,
    /// Which part, such as `owner`.
    pub part: String,
    /// The server's code.
    pub sqlstate: String,
    /// What the server said, without the code and without values of rows.
    pub message: String,
}

/// A step of the restore that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Mark {
    /// Everything of the archive is in the database.
    Loaded,
    /// Schemas have their new names.
    Renamed,
    /// All tables are analyzed.
    Analyzed,
    /// The file of finishing SQL with this number has run.
    Finished(u32),
    /// Everything has its final owner.
    Transferred,
}

impl From<Mark> for String {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Loaded => "loaded".to_owned(),
            Mark::Renamed => "renamed".to_owned(),
            Mark::Analyzed => "analyzed".to_owned(),
            Mark::Finished(number) => format!("finish:{number}"),
            Mark::Transferred => "transferred".to_owned(),
        }
    }
}

impl TryFrom<String> for Mark {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        let finished = name.strip_prefix("finish:").and_then(|n| n.parse().ok());
        match (name.as_str(), finished) {
            ("loaded", _) => Ok(Mark::Loaded),
            ("renamed", _) => Ok(Mark::Renamed),
            ("analyzed", _) => Ok(Mark::Analyzed),
            ("transferred", _) => Ok(Mark::Transferred),
            (_, Some(number)) => Ok(Mark::Finished(number)),
            _ => Err(format!("no step is called {name}")),
        }
    }
}

/// All bytes of the backup were read, and are what they are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllProven {
    /// CRC32C of the object, if it has one.
    pub crc32c: Option<Crc32c>,
    /// Size of the object in bytes.
    pub size: u64,
    /// Whether every byte of it was read.
    #[serde(rename = "complete")]
    pub is_complete: bool,
}

/// What one transaction has done, and what was found out since the one before.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Body {
    /// Entries that exist.
    #[serde(rename = "e", skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<(UnitId, EntryPart)>,
    /// Statements of SQL text that have run, by their numbers.
    #[serde(rename = "t", skip_serializing_if = "Spans::is_empty")]
    pub statements: Spans,
    /// Rows.
    #[serde(rename = "r", skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowsDone>,
    /// Large objects.
    #[serde(rename = "o", skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<ObjectsDone>,
    /// Data that was read to its end.
    #[serde(rename = "d", skip_serializing_if = "Vec::is_empty")]
    pub ends: Vec<DataEnd>,
    /// Stored bytes that are proven.
    #[serde(rename = "p", skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<ProvenPart>,
    /// What the server refused.
    #[serde(rename = "x", skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedDone>,
    /// Steps that are over.
    #[serde(rename = "k", skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<Mark>,
    /// All bytes are proven.
    #[serde(rename = "c", skip_serializing_if = "Option::is_none")]
    pub proven: Option<AllProven>,
    /// Units whose rows of earlier attempts are lost, and have to be loaded again.
    #[serde(rename = "v", skip_serializing_if = "Vec::is_empty")]
    pub void: Vec<UnitId>,
    /// The tables of rows of SQL text, each with the statement that sets the search path, or nothing.
    #[serde(rename = "n", skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<(UnitId, String, String)>,
    /// Schemas that have new names, in the order in which they got them.
    #[serde(rename = "w", skip_serializing_if = "Vec::is_empty")]
    pub renames: Vec<(String, String)>,
    /// Why nobody can continue from here.
    #[serde(rename = "i", skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// Whether SQL text has created something that may read the catalog when a materialized view is filled.
    #[serde(rename = "q", skip_serializing_if = "is_false")]
    pub reads_catalog: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Body {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Body::default()
    }

    /// One step.
    pub fn of_mark(mark: Mark) -> Self {
        Body {
            marks: vec![mark],
            ..Body::default()
        }
    }

    /// Parts of entries that exist.
    pub(crate) fn of_entries(entries: Vec<(UnitId, EntryPart)>) -> Self {
        Body {
            entries,
            ..Body::default()
        }
    }

    /// Adds what another one says.
    pub(crate) fn add(&mut self, other: Body) {
        let Body {
            entries,
            statements,
            rows,
            objects,
            ends,
            parts,
            refused,
            marks,
            proven,
            void,
            tables,
            renames,
            incomplete,
            reads_catalog,
        } = other;
        self.entries.extend(entries);
        statements
            .0
            .into_iter()
            .for_each(|s| self.statements.push(s));
        self.rows.extend(rows);
        self.objects.extend(objects);
        self.ends.extend(ends);
        self.parts.extend(parts);
        self.refused.extend(refused);
        self.marks.extend(marks);
        self.proven = proven.or(self.proven);
        self.void.extend(void);
        self.tables.extend(tables);
        self.renames.extend(renames);
        self.incomplete = self.incomplete.take().or(incomplete);
        self.reads_catalog |= reads_catalog;
    }

    /// The bytes of rows and large objects that were brought, and the rows that the server has counted.
    pub(crate) fn amounts(&self) -> (u64, u64) {
        let of_rows = self.rows.iter().map(|rows| &rows.spans);
        let all = of_rows.chain(self.objects.iter().map(|objects| &objects.spans));
        let bytes = all.flat_map(Spans::as_slice).map(|s| s.len()).sum();
        (bytes, self.rows.iter().map(|rows| rows.rows).sum())
    }

    /// The text that is stored.
    pub(crate) fn text(&self) -> String {
        // Numbers, strings and lists of them can always be written.
        ascii(&serde_json::to_string(self).unwrap_or_default())
    }

    /// What a stored text says; an error if this program does not understand all of it.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// The same JSON, of ASCII characters: others are within its strings only.
pub(crate) fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: u64, text: &[u8]) -> DataSpan {
        DataSpan {
            from,
            to: from + text.len() as u64,
            crc32c: Crc32c::of(text),
        }
    }

    fn spans(all: &[DataSpan]) -> Spans {
        let mut spans = Spans::default();
        all.iter().for_each(|s| spans.push(*s));
        spans
    }

    #[test]
    fn neighbours_of_one_transaction_are_one_span() {
        let all = spans(&[
            span(0, b"ab\n"),
            span(3, b"c\n"),
            span(9, b"d\n"),
            span(11, b""),
        ]);
        assert_eq!(all.as_slice(), [span(0, b"ab\nc\n"), span(9, b"d\n")]);
        let mut ranges = Ranges::default();
        ranges.add(0..5);
        ranges.add(9..11);
        assert_eq!(all.ranges(), ranges);
        // An earlier range after a later one.
        let all = spans(&[span(5, b"x"), span(0, b"12345")]);
        assert_eq!(all.as_slice(), [span(5, b"x"), span(0, b"12345")]);
    }

    #[test]
    fn bytes_are_summed_as_they_come_as_if_they_had_come_together() {
        let mut come = Spans::default();
        for (from, bytes) in [
            (0, &b"ab\n"[..]),
            (3, b"c\n"),
            (9, b"d\n"),
            (11, b""),
            (4, b"x"),
        ] {
            come.push_bytes(from, bytes);
        }
        let wanted = [span(0, b"ab\nc\n"), span(9, b"d\n"), span(4, b"x")];
        assert_eq!(come.as_slice(), wanted);
    }

    #[test]
    fn statements_are_combined_in_the_same_way_whatever_the_transactions() {
        let one = |n, text: &str| DataSpan::of_statement(n, text.as_bytes());
        let all = [one(0, "a"), one(1, "bb"), one(2, ""), one(3, "c")];
        let together = spans(&all);
        let [only] = together.as_slice() else {
            panic!("{together:?}")
        };
        let first = spans(&all[..2]).as_slice()[0];
        let rest = spans(&all[2..]).as_slice()[0];
        assert_eq!(spans(&[first, rest]), together);
        assert_eq!((only.from, only.to), (0, 4));
        let changed = spans(&[all[0], one(1, "bc"), all[2], all[3]]);
        assert_ne!(changed, together);
    }

    fn full() -> Body {
        Body {
            entries: vec![(UnitId(5), EntryPart::Whole), (UnitId(6), EntryPart::Index)],
            statements: spans(&[DataSpan::of_statement(3, b"CREATE")]),
            rows: vec![RowsDone {
                unit: UnitId(7),
                spans: spans(&[span(0, b"1\n")]),
                rows: 1,
                is_frozen: true,
                mask: Some(MaskCounts {
                    rows: 2,
                    rows_kept: 1,
                    changed: vec![0, 1],
                }),
            }],
            objects: vec![ObjectsDone {
                unit: UnitId(8),
                spans: spans(&[span(16, b"lo")]),
            }],
            ends: vec![DataEnd {
                unit: UnitId(7),
                bytes: 2,
                lines: 1,
            }],
            parts: vec![
                ProvenPart::Block {
                    unit: UnitId(7),
                    extent: Extent {
                        offset: 9,
                        length: 8,
                        crc32c: Crc32c(7),
                    },
                },
                ProvenPart::BlockRead {
                    unit: UnitId(7),
                    extent: Extent::default(),
                },
                ProvenPart::Member {
                    unit: UnitId(8),
                    name: "3142.dat \u{e9}\u{1f600}\"\\".into(),
                    crc32c: Crc32c(u32::MAX),
                },
            ],
            refused: vec![RefusedDone {
                unit: UnitId(9),
                after: 3,
                part: "owner".into(),
                sqlstate: "42704".into(),
                message: "role \"\u{fc}\" does not exist".into(),
            }],
            marks: vec![Mark::Loaded, Mark::Finished(2)],
            proven: Some(AllProven {
                crc32c: Some(Crc32c(1)),
                size: 100,
                is_complete: true,
            }),
            void: vec![UnitId(10)],
            tables: vec![(UnitId(7), "public.t".into(), String::new())],
            renames: vec![("a".into(), "b".into())],
            incomplete: Some("x".into()),
            reads_catalog: true,
        }
    }

    #[test]
    fn a_body_is_stored_as_ascii_and_read_again() {
        let text = full().text();
        assert!(text.is_ascii() && !text.contains('\n'), "{text}");
        assert_eq!(Body::parse(&text).unwrap(), full());
        assert!(
            text.starts_with(r#"{"e":[[5,0],[6,1]],"t":[3,4,"#),
            "{text}"
        );
        assert!(
            text.contains(r#""z":true,"m":{"rows":2,"kept":1,"changed":[0,1]}"#),
            "{text}"
        );
        assert!(text.contains(r#""k":["loaded","finish:2"]"#), "{text}");
        assert!(text.contains(r"\u00e9\ud83d\ude00"), "{text}");
        assert_eq!(Body::default().text(), "{}");
        assert_eq!(Body::parse("{}").unwrap(), Body::default());
        assert!(Body::default().is_empty() && !full().is_empty());
    }

    /// What a later version adds may be what must not be missed.
    #[test]
    fn what_is_not_understood_is_an_error() {
        for text in [
            "",
            r#"{"y":1}"#,
            r#"{"e":[[1,3]]}"#,
            r#"{"e":[[1,0,0]]}"#,
            r#"{"t":[1,2]}"#,
            r#"{"t":[2,2,0]}"#,
            r#"{"t":[1,2,4294967296]}"#,
            r#"{"k":["finish:x"]}"#,
            r#"{"p":[{"u":1,"crc32c":0}]}"#,
            r#"{"p":[{"u":1,"member":"a","crc32c":0,"t":true}]}"#,
            r#"{"p":[{"u":1,"member":"a","offset":1,"length":1,"crc32c":0}]}"#,
            r#"{"r":[{"u":1,"b":[],"n":1,"q":0}]}"#,
        ] {
            assert!(Body::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bodies_add_up() {
        let mut sum = Body::of_mark(Mark::Loaded);
        sum.add(full());
        sum.add(Body::of_entries(vec![(UnitId(1), EntryPart::Key)]));
        assert_eq!(sum.marks, [Mark::Loaded, Mark::Loaded, Mark::Finished(2)]);
        assert_eq!(sum.entries.len(), 3);
        assert_eq!(sum.proven, full().proven);
        let mut same = Body::default();
        same.add(full());
        assert_eq!(same, full());
    }
}
