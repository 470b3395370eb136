#![warn(missing_docs, unreachable_pub)]
#![doc = include_str!("../README.md")]

mod block_encoder;
mod block_form;
pub mod bounded;
mod chunks;
mod cluster;
mod codec;
mod content_digest;
mod continuation;
mod copy_target;
mod coverage;
mod crc32c;
mod custom;
mod cut_off;
mod data_offsets;
mod digest_builder;
mod directory;
mod dump_id;
mod encoding;
mod end_marks;
mod entry_kind;
mod error;
mod field_order;
mod filters;
mod frames;
mod header;
mod index;
mod inflate;
mod input_files;
mod insert_edit;
mod insert_rows;
mod insert_values;
mod kept_memory;
mod lexer;
mod list;
mod lzma;
mod members;
mod peek_reader;
mod psql;
mod psql_session;
mod recognize;
mod row_digest;
mod row_splitter;
mod script;
mod standard_strings;
mod table_digests;
mod tail;
mod tar_archive;
mod tar_stream;
mod text;
mod text_files;
mod text_item;
mod timestamps;
mod toc;
mod toc_entry;
mod toc_writer;
mod writer;

use std::io::Read;
use std::sync::{Arc, OnceLock};

use filters::Origin;
use input_files::InputFiles;

pub use crate::crc32c::Crc32c;
pub use codec::Codec;
pub use content_digest::{ContentDigest, DigestSink};
pub use continuation::{
    Continuation, HEAD_BYTES, TAIL_BYTES, continuation, is_own_backup, shows_its_end,
};
pub use copy_target::copy_target;
pub use coverage::{BareRelation, DataCoverage};
pub use cut_off::CutOff;
pub use digest_builder::{DigestBuilder, ObjectDigest};
pub use dump_id::DumpId;
pub use encoding::{TextEncoding, has_undecoded, undecoded_byte};
pub use entry_kind::EntryKind;
pub use error::{ArchiveError, Problem};
pub use filters::{DecryptionKeys, Filter};
pub use header::{Format, Header, database_in};
pub use index::{BlockIndex, Extent, IndexedBlock, RangeSource};
pub use input_files::FIRST_TAKE;
pub use insert_edit::{InsertValue, RowEditor, edit_inserts};

pub use chunks::{BytesProven, Chunk, DataSink, Statement};
pub use lexer::{
    Dialect, Multibyte, Token, TokenKind, first_tokens, statements, tokens, unterminated,
};
pub use list::{toc_line, toc_list};
pub use row_digest::RowDigest;
pub use table_digests::TableDigest;
pub use toc::{DataOffset, TocEntry, TocSection};
pub use writer::{ArchiveWriter, check_writable};

/// A stream of bytes.
pub type ByteStream = Box<dyn Read + Send>;

/// Whether the first bytes are those of a dump, or of a supported compression or encryption.
pub fn is_recognized(head: &[u8]) -> bool {
    Format::of(head).is_some() || Filter::of(head).is_some() || frames::begins_with_skippable(head)
}

/// The same, without SQL text and what is compressed: text that this crate does not take may be anybody's.
pub fn is_archive(head: &[u8]) -> bool {
    match Filter::of(head) {
        Some(filter) => filter == Filter::Age,
        None => Format::of(head).is_some_and(|format| format != Format::Plain),
    }
}

/// Names of a directory dump's members, without their folder.
pub mod member_name {
    use super::members::{self, TOC, is_data_file, plain_name};

    /// Whether this is the table of contents, which makes a directory a dump.
    pub fn is_toc(file: &str) -> bool {
        plain_name(file).0 == TOC
    }

    /// Whether this is a name that `pg_dump` gives its files, compressed or not.
    pub fn is_pg_dump_file(file: &str) -> bool {
        is_toc(file) || is_data_file(plain_name(file).0)
    }

    /// Whether files of this kind hold data of a dump; an unknown file of this kind was not written by `pg_dump`.
    pub fn may_hold_data(file: &str) -> bool {
        members::may_hold_data(plain_name(file).0)
    }
}

/// Limits of what an archive can make the reader allocate.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Entries in the table of contents.
    pub max_entries: usize,
    /// Bytes of the whole table of contents.
    pub max_toc: u64,
    /// Bytes of one SQL statement.
    pub max_statement: usize,
    /// Bytes of memory that one archive's readers may keep: table of contents, lists, a statement, the window of a
    /// decompressor.
    pub memory: u64,
    /// Bytes that may come out of each layer of compression or encryption around the whole archive.
    pub max_decompressed: u64,
}

impl Limits {
    /// These limits with another memory budget in bytes.
    pub fn with_memory(self, bytes: u64) -> Self {
        Limits {
            memory: bytes,
            ..self
        }
    }

    /// Rejects what takes `needed` bytes of memory if that is more than the budget.
    ///
    /// # Errors
    /// [`ArchiveError::Limit`], which does not blame the backup.
    pub fn check_memory(&self, what: &str, needed: u64) -> Result<(), ArchiveError> {
        if needed <= self.memory {
            return Ok(());
        }
        let (needed, has) = (needed.div_ceil(1 << 20), self.memory >> 20);
        Err(toc::limit_error(format!(
            "{what} needs {needed} MiB of memory, this worker has {has} MiB for it: give it more \
             (its container's limit, or RESTORE_MEMORY_MIB)"
        )))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_entries: 20_000_000,
            max_toc: 1 << 30,
            max_statement: 1 << 30,
            memory: 256 << 20,
            max_decompressed: u64::MAX,
        }
    }
}

/// Opens the same object again, from this byte on.
pub trait ReopenableSource: Send + Sync {
    /// # Errors
    /// Errors of the store.
    fn open(&self, offset: u64) -> Result<ByteStream, ArchiveError>;

    /// Bytes that were taken of the stream itself, where they are those of several files. Its reader gives at most
    /// [`FIRST_TAKE`] bytes at once when it begins a file.
    fn taken(&self) -> u64 {
        0
    }

    /// How many of those files begin before this byte.
    fn files_before(&self, _offset: u64) -> usize {
        1
    }

    /// The name of such a file, from 0.
    fn file_name(&self, _file: usize) -> Option<String> {
        None
    }

    /// Fails once the bytes are no longer wanted. A few that were read may decompress for hours, so it is not enough that
    /// the stream fails.
    ///
    /// # Errors
    /// The source's own error.
    fn check_wanted(&self) -> Result<(), ArchiveError> {
        Ok(())
    }

    /// What is known of the object that may explain why it cannot be read.
    fn advice(&self) -> Option<String> {
        None
    }
}

/// The members of a directory dump.
pub trait DirectorySource: Send + Sync {
    /// Name and size in bytes of every member.
    fn members(&self) -> Vec<(String, u64)>;

    /// # Errors
    /// Errors of the store.
    fn open(&self, name: &str) -> Result<ByteStream, ArchiveError>;

    /// The CRC32C of a member, if all bytes of it were read since it was last opened, and the store has the same one.
    fn proven(&self, _name: &str) -> Option<Crc32c> {
        None
    }

    /// As [`ReopenableSource::check_wanted`].
    ///
    /// # Errors
    /// The source's own error.
    fn check_wanted(&self) -> Result<(), ArchiveError> {
        Ok(())
    }
}

/// The origin of an archive.
pub enum ArchiveSource {
    /// One object or standard input; `reopen` if it can be read again.
    Stream {
        /// The archive from its first byte.
        bytes: ByteStream,
        /// Opens the same bytes again, for tars whose members are not in the order of the restore.
        reopen: Option<Arc<dyn ReopenableSource>>,
    },
    /// The files of a directory dump.
    Directory(Arc<dyn DirectorySource>),
}

impl ArchiveSource {
    /// A source that cannot be read again.
    pub fn once(bytes: impl Read + Send + 'static) -> Self {
        ArchiveSource::Stream {
            bytes: Box::new(bytes),
            reopen: None,
        }
    }
}

/// An archive whose header and table of contents have been read, and whose data comes next.
pub struct Archive {
    header: Header,
    entries: Vec<TocEntry>,
    encoding: TextEncoding,
    body: ArchiveBody,
    files: InputFiles,
    limits: Limits,
}

enum ArchiveBody {
    Custom(custom::CustomBlocks),
    Tar(tar_archive::TarMembers),
    Directory(directory::DirectoryMembers),
    Script(Box<script::Script>),
}

/// What the readers of members need to know about their archive.
#[derive(Clone)]
struct ReadContext {
    limits: Limits,
    dialect: Dialect,
    /// Where members come from.
    origin: Option<Origin>,
}

impl Archive {
    /// Reads the header and the table of contents, or the first statements of SQL text.
    ///
    /// # Errors
    /// [`ArchiveError::Unsupported`] for input that is not a dump, [`ArchiveError::Corrupt`] for damaged bytes, or the
    /// source's own [`ArchiveError`].
    pub fn open(
        origin: ArchiveSource,
        limits: Limits,
        keys: &DecryptionKeys,
    ) -> Result<Self, ArchiveError> {
        Self::open_database(origin, limits, keys, None)
    }

    /// The same for one database: of the text of `pg_dumpall`, only its part is read.
    ///
    /// # Errors
    /// As [`Archive::open`], and [`ArchiveError::NotFound`] if the archive is of another database.
    pub fn open_database(
        origin: ArchiveSource,
        limits: Limits,
        keys: &DecryptionKeys,
        database: Option<&str>,
    ) -> Result<Self, ArchiveError> {
        let archive = Self::open_any(origin, limits, keys, database)?;
        let own = archive.header.database.as_deref();
        if let Some(wanted) = database.filter(|d| own != Some(*d)) {
            let what = match own {
                Some(own) => format!("the backup is of database {own}, not of {wanted}"),
                None => format!(
                    "the backup does not name its database, so it may be a different one than {wanted}: restore it by its name, without --database"
                ),
            };
            return Err(ArchiveError::not_found(what));
        }
        Ok(archive)
    }

    fn open_any(
        origin: ArchiveSource,
        limits: Limits,
        keys: &DecryptionKeys,
        database: Option<&str>,
    ) -> Result<Self, ArchiveError> {
        let (bytes, reopen) = match origin {
            ArchiveSource::Directory(folder) => return directory::open(folder, limits),
            ArchiveSource::Stream { bytes, reopen } => (bytes, reopen),
        };
        let files = InputFiles::new(reopen.clone(), false);
        let (filters, head, input) = filters::unwrap(
            bytes,
            &limits,
            keys,
            reopen.clone().map(Origin::Stream).as_ref(),
        )
        .map_err(|e| files.explain(e))?;
        let files = InputFiles::new(reopen.clone(), !filters.is_empty());
        let reopen = reopen.map(|source| tar_archive::TarReopener {
            source,
            filters: filters.len(),
            keys: keys.clone(),
        });
        let opened = match Format::of(&head) {
            Some(Format::Custom) => custom::open(input, limits),
            Some(Format::Tar) => tar_archive::open(input, reopen, limits),
            Some(Format::Plain) => script::open(input, limits, database, files.clone()),
            Some(Format::Directory | Format::DirectoryTar) | None => {
                Err(filters::diagnose_input(&head))
            }
        };
        let mut archive = opened.map_err(|e| files.explain(e))?;
        archive.header.filters = filters;
        match &mut archive.body {
            ArchiveBody::Custom(blocks) => blocks.files = files.clone(),
            ArchiveBody::Tar(members) => members.files = files.clone(),
            ArchiveBody::Directory(_) | ArchiveBody::Script(_) => {}
        }
        archive.files = files;
        Ok(archive)
    }

    /// What the first bytes of the archive say about it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The table of contents; for SQL text, what its first statements create.
    pub fn entries(&self) -> &[TocEntry] {
        &self.entries
    }

    /// Adds entries that are known from elsewhere to those of SQL text, which are used for its requirements only.
    pub fn add_expected_entries(&mut self, later: Vec<TocEntry>) {
        if self.is_script() {
            self.entries.extend(later);
        }
    }

    /// The encoding of the dump's statements and COPY data.
    pub fn encoding(&self) -> &TextEncoding {
        &self.encoding
    }

    /// Texts of the table of contents that are still the dump's own bytes.
    pub fn undecoded_texts(&mut self) -> Vec<String> {
        let encoding = &self.encoding;
        let texts = self
            .entries
            .iter_mut()
            .flat_map(TocEntry::texts_mut)
            .filter(|t| encoding.has_undecoded(t));
        let distinct: std::collections::BTreeSet<String> = texts.map(|t| t.clone()).collect();
        distinct.into_iter().collect()
    }

    /// Replaces such texts of the table of contents by their converted form.
    pub fn replace_texts(&mut self, meaning: impl Fn(&str) -> Option<String>) {
        let encoding = &self.encoding;
        for text in self
            .entries
            .iter_mut()
            .flat_map(TocEntry::texts_mut)
            .filter(|t| encoding.has_undecoded(t))
        {
            if let Some(converted) = meaning(text) {
                *text = converted;
            }
        }
    }

    /// The same without a server, for display only.
    pub fn decode_texts_for_display(&mut self) {
        let encoding = self.encoding.clone();
        self.replace_texts(|text| Some(encoding.for_display(text)));
    }

    /// Whether it is SQL text: it has no table of contents, and its statements arrive one by one.
    pub fn is_script(&self) -> bool {
        matches!(self.body, ArchiveBody::Script(_))
    }

    /// Whether it is SQL text that is not known to be `pg_dump`'s: its statements run in their own order.
    pub fn is_generic_sql(&self) -> bool {
        matches!(&self.body, ArchiveBody::Script(s) if s.is_generic_sql)
    }

    /// Whether it is the text of a whole cluster (`pg_dumpall`), of which one database is read.
    pub fn is_of_cluster(&self) -> bool {
        matches!(&self.body, ArchiveBody::Script(s) if s.is_of_cluster)
    }

    /// Whether it is SQL text whose rows come before any statement that could create their tables.
    pub fn has_rows_only(&self) -> bool {
        matches!(&self.body, ArchiveBody::Script(s) if s.has_rows_only)
    }

    /// Whether it is SQL text, and rows, or their announcement, are among what was read ahead of it.
    pub fn shows_rows(&self) -> bool {
        matches!(&self.body, ArchiveBody::Script(s) if s.shows_rows)
    }

    /// Whether the archive has the data of what it defines. Of SQL text, this is set once all of it was read, if the
    /// comments of `pg_dump` say it.
    pub fn coverage(&self) -> Arc<OnceLock<DataCoverage>> {
        match &self.body {
            ArchiveBody::Script(s) => s.coverage.clone(),
            _ => Arc::new(OnceLock::from(DataCoverage::of_entries(
                &self.entries,
                &self.encoding,
            ))),
        }
    }

    /// Whether the archive shows that it is complete; set once all of it was read.
    pub fn completeness(&self) -> Arc<OnceLock<bool>> {
        match &self.body {
            ArchiveBody::Script(s) => s.completeness.clone(),
            _ => Arc::new(OnceLock::from(true)),
        }
    }

    /// The line of the first statement of SQL text that may change rows and that `pg_dump` did not write, if there is one;
    /// known once all of it was read.
    pub fn foreign_statement(&self) -> Arc<OnceLock<u64>> {
        match &self.body {
            ArchiveBody::Script(s) => s.foreign_statement(),
            _ => Arc::default(),
        }
    }

    /// Reads the data by blocks from here on, with as many readers as requested. Only the archive's head is
    /// read from its own input.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`] if the index does not match the archive.
    pub fn read_by_blocks(
        &mut self,
        index: &BlockIndex,
        ranges: Arc<dyn RangeSource>,
    ) -> Result<(), ArchiveError> {
        match &mut self.body {
            ArchiveBody::Custom(blocks) => blocks.by_index(&self.entries, index, ranges),
            _ => Err(toc::corrupt("the restore index belongs to another archive")),
        }
    }

    /// Reads the data by the offsets of the table of contents from here on, with as many readers as requested, in an archive
    /// of `size` bytes. Its own input is closed; what was read of it is told to `ranges`, as is every part that is not
    /// opened. The offsets are only what the archive says: each block must begin with its own entry and end where the next
    /// one begins, and all bytes are read. Nothing else is proven until the checksums of all parts combine to that of the
    /// whole.
    ///
    /// # Errors
    /// Why this cannot be: another format, compressed or encrypted as a whole, entries without offsets, fewer than two
    /// blocks, offsets that contradict each other. The archive can then be read as before.
    pub fn read_by_offsets(
        &mut self,
        size: u64,
        ranges: Arc<dyn RangeSource>,
    ) -> Result<(), ArchiveError> {
        match &mut self.body {
            ArchiveBody::Custom(blocks) if self.header.filters.is_empty() => {
                blocks.by_offsets(&self.entries, size, ranges)
            }
            _ => Err(toc::corrupt("only a custom archive has data at an offset")),
        }
    }

    /// Whether the data is read by the offsets of the table of contents ([`Archive::read_by_offsets`]).
    pub fn is_read_by_offsets(&self) -> bool {
        match &self.body {
            ArchiveBody::Custom(blocks) => blocks.is_by_offsets(),
            _ => false,
        }
    }

    /// Hands the data of one entry of a custom archive to `sink`. `bytes` begin at its offset ([`DataOffset::At`]). Nothing
    /// else is read, so nothing shows that the archive is complete: for samples.
    ///
    /// # Errors
    /// [`ArchiveError::Corrupt`] if the data is not there, or damaged; the errors of the reader and of the sink.
    pub fn read_entry(
        &self,
        entry: &TocEntry,
        bytes: ByteStream,
        sink: &mut dyn DataSink,
    ) -> Result<(), ArchiveError> {
        match &self.body {
            ArchiveBody::Custom(blocks) => blocks.read_entry(entry, bytes, sink),
            _ => Err(toc::corrupt("only a custom archive has data at an offset")),
        }
    }

    /// Stored bytes of each entry's data, by dump id, if the archive has them before its data. `stored`: bytes of the
    /// whole input, if known; the last block of a custom archive ends there.
    pub fn sizes(&self, stored: Option<u64>) -> std::collections::HashMap<DumpId, u64> {
        match &self.body {
            ArchiveBody::Custom(blocks) => {
                blocks.sizes(&self.entries, stored.filter(|_| !self.is_wrapped()))
            }
            ArchiveBody::Directory(members) => members.sizes(&self.entries),
            ArchiveBody::Tar(_) | ArchiveBody::Script(_) => Default::default(),
        }
    }

    /// Whether the last bytes of the input, `tail`, show that it is cut off; it has `size` bytes. `None` if they do not,
    /// or if only reading all of it can show that.
    pub fn cut_off(&self, size: u64, tail: &[u8]) -> Option<CutOff> {
        match &self.body {
            _ if self.is_wrapped() => None,
            ArchiveBody::Custom(blocks) => blocks.cut_off(&self.entries, size, tail),
            ArchiveBody::Tar(_) => cut_off::of_tar(tail),
            ArchiveBody::Script(script) if !script.is_generic_sql => cut_off::of_text(tail),
            ArchiveBody::Directory(_) | ArchiveBody::Script(_) => None,
        }
    }

    /// How many of the last bytes of the input [`Archive::read_trailer`] needs; `None` if it does not apply.
    pub fn trailer_bytes(&self) -> Option<u64> {
        let lacks_offset = |e: &TocEntry| e.has_data && matches!(e.offset, DataOffset::NotSet);
        match &self.body {
            ArchiveBody::Custom(blocks) if !self.is_wrapped() => {
                let applies = self.entries.iter().any(lacks_offset);
                applies.then(|| blocks.most_trailer())
            }
            _ => None,
        }
    }

    /// Takes the offsets of the data from the table of contents behind it, if `tail`, the last bytes of the input, ends
    /// with one: `pg_dump` leaves it there if its output was opened for appending.
    pub fn read_trailer(&mut self, tail: &[u8]) {
        if let ArchiveBody::Custom(blocks) = &mut self.body {
            blocks.read_trailer(&mut self.entries, tail);
        }
    }

    /// Whether the whole archive is compressed or encrypted.
    fn is_wrapped(&self) -> bool {
        !self.header.filters.is_empty()
    }

    /// Data of entries (by dump id) with a lower turn is read before data of a higher turn.
    pub fn set_read_order(&mut self, turns: &std::collections::HashMap<DumpId, usize>) {
        match &mut self.body {
            ArchiveBody::Custom(blocks) => blocks.set_read_order(turns),
            ArchiveBody::Directory(members) => members.set_read_order(&self.entries, turns),
            // These ask for each member whether it is due; text is read in its own order.
            ArchiveBody::Tar(_) | ArchiveBody::Script(_) => {}
        }
    }

    /// The data as one stream or (for a directory, or by blocks) up to `most` streams that can be read concurrently.
    pub fn into_streams(self, most: usize) -> Vec<DataStream> {
        let (entries, files): (Arc<[TocEntry]>, _) = (self.entries.into(), self.files);
        let sources = match self.body {
            ArchiveBody::Custom(blocks) => blocks
                .into_streams(&entries, most)
                .into_iter()
                .map(|s| StreamSource::Custom(s, entries.clone()))
                .collect(),
            ArchiveBody::Tar(members) => vec![StreamSource::Tar(members, entries)],
            ArchiveBody::Script(script) => vec![StreamSource::Script(script)],
            ArchiveBody::Directory(members) => {
                let members = Arc::new(members);
                (0..most.max(1))
                    .map(|_| StreamSource::Directory(members.clone(), entries.clone()))
                    .collect()
            }
        };
        let stream = |source| DataStream {
            source,
            files: files.clone(),
        };
        sources.into_iter().map(stream).collect()
    }

    /// Hands all data to one sink.
    ///
    /// # Errors
    /// As [`DataStream::read`].
    pub fn read_data(self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        self.into_streams(1)
            .into_iter()
            .try_for_each(|s| s.read(sink))
    }
}

/// Reads a text of at most `most` bytes, whatever its compression or encryption.
///
/// # Errors
/// [`ArchiveError::Corrupt`] if it is damaged, longer, or not UTF-8, and the source's own errors.
pub fn read_text(
    origin: ArchiveSource,
    most: u64,
    keys: &DecryptionKeys,
) -> Result<String, ArchiveError> {
    let ArchiveSource::Stream { bytes, reopen } = origin else {
        return Err(toc::corrupt("expected a file, found a directory"));
    };
    let origin = reopen.map(Origin::Stream);
    let (_, _, input) = filters::unwrap(bytes, &Limits::default(), keys, origin.as_ref())?;
    let mut text = Vec::new();
    let failed = |e| ArchiveError::from_io(e, "text");
    let mut input = input;
    (&mut input)
        .take(most + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    // For a whole cluster, only the part before its first database.
    let databases = memchr::memmem::find(&text, b"\n\\connect ");
    if let Some(n) = databases {
        text.truncate(n + 1);
        std::io::copy(&mut input, &mut std::io::sink()).map_err(failed)?;
    }
    if text.len() as u64 > most {
        return Err(toc::corrupt(format!("the text has more than {most} bytes")));
    }
    String::from_utf8(text).map_err(|_| toc::corrupt("the text is not valid UTF-8"))
}

/// A part of an archive's data that one thread reads.
pub struct DataStream {
    source: StreamSource,
    files: InputFiles,
}

enum StreamSource {
    Custom(custom::BlockStream, Arc<[TocEntry]>),
    Tar(tar_archive::TarMembers, Arc<[TocEntry]>),
    Directory(Arc<directory::DirectoryMembers>, Arc<[TocEntry]>),
    Script(Box<script::Script>),
}

impl DataStream {
    /// Hands the data to `sink`, in the order of the input, and reads to the end of the input.
    ///
    /// # Errors
    /// `archive_corrupt` where data is damaged, unknown, there twice or missing; [`ArchiveError::Foreign`] where another
    /// file follows the one that the archive ends in; the errors of the reader and of the sink.
    pub fn read(self, sink: &mut dyn DataSink) -> Result<(), ArchiveError> {
        let read = match self.source {
            StreamSource::Custom(stream, entries) => stream.read(&entries, sink),
            StreamSource::Tar(members, entries) => members.read(&entries, sink),
            StreamSource::Directory(members, entries) => members.read(&entries, sink),
            StreamSource::Script(script) => script.read(sink),
        };
        read.map_err(|e| self.files.explain(e))
    }
}

/// How to lex the statements of an archive with these entries.
fn dialect_of(entries: &[TocEntry], encoding: &TextEncoding) -> Dialect {
    let setting = entries.iter().find(|e| e.kind == EntryKind::StdStrings);
    Dialect {
        standard_strings: setting.is_none_or(|e| e.defn.contains("'on'")),
        multibyte: encoding.multibyte(),
    }
}
