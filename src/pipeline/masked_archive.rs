//! A masked copy of a backup as a new archive, without a database: one pass over the backup, whose rows are masked before
//! they are written. What is written is complete only once the whole backup was read and its checksum is right.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::job_context::Services;
use crate::backup::{IntegrityCheck, ReadHint, Source};
use crate::catalog::{WantedBackup, describe};
use crate::config::Location;
use crate::error::{
    JobError, JobKind, RestoreError, StorageError, StorageKind, ValidationError, ValidationKind,
};
use crate::job::{BackupRef, ResultBackup};
use crate::progress::Progress;
use crate::store::{BackupStore, StoredObject, object_body};
use pgdump_archive::{
    Archive, ArchiveError, ArchiveWriter, Chunk, Codec, DataSink, DumpId, TocEntry, check_writable,
};
use pgdump_mask::Masking;
use pgdump_restore::{ArchiveMasking, MaskingReport, Stage, check_masking};

const CONTENT_TYPE: &str = "application/octet-stream";

/// What is masked, how, and where the archive goes.
pub struct MaskJob {
    pub backup: BackupRef,
    /// Of a dump of a whole cluster, and of `latest`: the database.
    pub database: Option<String>,
    pub masking: Masking,
    /// The compression of the new archive.
    pub codec: Codec,
    pub to: MaskDestination,
}

/// Where the archive goes.
pub enum MaskDestination {
    /// An object that does not exist yet.
    Object { place: Location, name: String },
    /// The bytes as they are made. If the job fails, the end of the archive is missing.
    Stream(Box<dyn Write + Send>),
}

/// A masked archive that was written.
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct MaskedArchive {
    /// The backup that was read.
    pub backup: ResultBackup,
    /// URI of the archive; - for standard output.
    pub to: String,
    /// Generation of the archive's object; an int64 as a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// Bytes of the archive; an int64 as a string.
    pub size: String,
    /// Compression of its data: gzip, zstd, lz4 or none.
    pub compression: &'static str,
    /// What the rules changed.
    pub masking: MaskingReport,
    /// Definitions and data of the backup that the archive does not have, because they may hold original values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// Writes the archive.
///
/// # Errors
/// Before anything is written: the backup cannot be opened, the rules do not fit it, or the object exists. Afterwards: the
/// backup is damaged, a row cannot be masked, the destination fails. Then there is no object.
pub(crate) async fn run(
    services: &Services,
    job: MaskJob,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> Result<MaskedArchive, RestoreError> {
    let cancel = stop.child_token();
    // Ends the download, however this ends.
    let _guard = cancel.clone().drop_guard();
    progress.enter(Stage::Prepare);
    let output = Output::prepare(services, job.to).await?;
    let pinned = services.catalog.pin(&job.backup, None, None).await?;
    let backup = pinned.as_ref().map(describe).unwrap_or_default();
    let mut notes: Vec<String> = pinned.iter().flat_map(|p| p.notes.clone()).collect();
    let wanted = WantedBackup {
        source: pinned.map_or(Source::Stdin, Source::Object),
        database: job.database,
    };
    let (progressing, cancelled) = (progress.clone(), cancel.clone());
    let catalog = &services.catalog;
    let opened = catalog.read_database(wanted, ReadHint::Whole, progressing, cancelled);
    let (mut archive, integrity) = opened.await?;
    check_form(&archive, job.codec)?;
    notes.extend(check_masking(&archive, archive.entries(), &job.masking)?);
    let masking = ArchiveMasking::new(&archive, job.masking)?;
    archive.set_read_order(&order_of(archive.entries()));
    progress.enter(Stage::Data);
    let left_out = masking.left_out().to_vec();
    let copy = MaskedCopy {
        archive,
        masking,
        codec: job.codec,
        integrity,
        progress,
    };
    let written = output.write(copy, services.config.retry_budget, &cancel);
    let written = written.await?;
    notes.extend(written.masked.notes);
    Ok(MaskedArchive {
        backup,
        to: written.to,
        generation: written.generation,
        size: written.size.to_string(),
        compression: job.codec.as_str(),
        masking: written.masked.report,
        left_out,
        notes,
    })
}

/// Data in the order of the table of contents can be restored from a pipe.
fn order_of(entries: &[TocEntry]) -> HashMap<DumpId, usize> {
    let places = entries.iter().enumerate();
    places.map(|(place, e)| (e.dump_id, place)).collect()
}

/// Whether an archive can be made of this one.
fn check_form(archive: &Archive, codec: Codec) -> Result<(), RestoreError> {
    if archive.is_script() {
        let what = "the backup is SQL text, which cannot be written as an archive: restore it with --mask, and dump the copy; or \
                    take the backup in another format (pg_dump -Fc)";
        return Err(ValidationError::new(ValidationKind::ArchiveUnsupported, what).into());
    }
    check_writable(archive.header(), codec).map_err(|e| {
        let what = format!("--compress: {e}");
        ValidationError::new(ValidationKind::InvalidRequest, what).into()
    })
}

/// The destination, which can be written to as far as is known.
enum Output {
    Object {
        store: Arc<dyn BackupStore>,
        name: String,
    },
    Stream(Box<dyn Write + Send>),
}

/// What was written, and what was masked on the way.
struct Written {
    to: String,
    generation: Option<String>,
    size: u64,
    masked: MaskingResult,
}

/// What was masked, and what of the rules has had no effect.
struct MaskingResult {
    report: MaskingReport,
    notes: Vec<String>,
}

impl Output {
    async fn prepare(services: &Services, to: MaskDestination) -> Result<Self, RestoreError> {
        let (place, name) = match to {
            MaskDestination::Stream(out) => return Ok(Output::Stream(out)),
            MaskDestination::Object { place, name } => (place, name),
        };
        let store = services.catalog.store_at(&place).await?;
        match store.stat(&name, None).await {
            Ok(_) => Err(exists(&store.uri(&name))),
            // An account may be allowed to create objects only; creating one fails if it exists.
            Err(e) if matches!(e.kind(), StorageKind::NotFound | StorageKind::AccessDenied) => {
                Ok(Output::Object { store, name })
            }
            Err(e) => Err(e.into()),
        }
    }

    async fn write(
        self,
        copy: MaskedCopy,
        stall: Duration,
        cancel: &CancellationToken,
    ) -> Result<Written, RestoreError> {
        match self {
            Output::Object { store, name } => {
                let upload = upload(copy, store.as_ref(), &name, stall);
                let done = cancel.run_until_cancelled(upload).await;
                let (object, masked) = done.unwrap_or_else(|| Err(stopped()))?;
                Ok(Written {
                    to: store.uri(&name),
                    generation: Some(object.generation.to_string()),
                    size: object.size,
                    masked,
                })
            }
            Output::Stream(out) => {
                let writing = tokio::task::spawn_blocking(move || {
                    let (out, masked) = copy.write_to(HeldBackOutput::new(out))?;
                    Ok::<_, RestoreError>((out.finish()?, masked))
                });
                // Whoever reads the other end may have stopped reading.
                let done = cancel.run_until_cancelled(writing).await;
                let (size, masked) = done.map_or_else(|| Err(stopped()), joined)?;
                Ok(Written {
                    to: "-".to_owned(),
                    generation: None,
                    size,
                    masked,
                })
            }
        }
    }
}

fn stopped() -> RestoreError {
    RestoreError::cancelled("the masking was stopped")
}

fn exists(uri: &str) -> RestoreError {
    let what = format!("{uri} exists, and is not overwritten: choose another name");
    ValidationError::new(ValidationKind::InvalidRequest, what).into()
}

fn joined<T>(
    done: Result<Result<T, RestoreError>, tokio::task::JoinError>,
) -> Result<T, RestoreError> {
    let died = |e| RestoreError::internal(format!("the writer of the archive panicked: {e}"));
    done.map_err(died)?
}

/// Writes the archive on a thread of its own, from which the store takes its bytes.
async fn upload(
    copy: MaskedCopy,
    store: &dyn BackupStore,
    name: &str,
    stall: Duration,
) -> Result<(StoredObject, MaskingResult), RestoreError> {
    let (writer, body) = object_body(stall);
    let mut writing = tokio::task::spawn_blocking(move || {
        let (writer, masked) = copy.write_to(writer)?;
        writer.finish()?;
        Ok::<_, RestoreError>(masked)
    });
    let mut creating = store.create_of(name, body, CONTENT_TYPE);
    let (written, created) = tokio::select! {
        done = &mut writing => {
            let created = tokio::time::timeout(stall, creating).await;
            let late = |_| {
                let what = format!("{}: not complete within {stall:?}", store.uri(name));
                Err(StorageError::new(StorageKind::DownloadFailed, what))
            };
            (joined(done), created.unwrap_or_else(late))
        }
        created = &mut creating => (joined(writing.await), created),
    };
    match (written, created) {
        (Ok(masked), Ok(Some(object))) => Ok((object, masked)),
        // The writer only knows that nobody takes its bytes.
        (_, Ok(None)) => Err(exists(&store.uri(name))),
        (Err(e), Err(of_store)) if is_stopped(&e) => Err(of_store.into()),
        (Err(e), _) => Err(e),
        (Ok(_), Err(e)) => Err(e.into()),
    }
}

fn is_stopped(e: &RestoreError) -> bool {
    matches!(e, RestoreError::Storage(e) if e.kind() == StorageKind::Stopped)
}

/// A backup on its way into the new archive.
struct MaskedCopy {
    archive: Archive,
    masking: ArchiveMasking,
    codec: Codec,
    integrity: IntegrityCheck,
    progress: Arc<Progress>,
}

impl MaskedCopy {
    /// Writes all of it, and returns the output once the backup has proved to be whole.
    fn write_to<W: Write>(self, out: W) -> Result<(W, MaskingResult), RestoreError> {
        let archive = self.archive;
        let writer = {
            let entries: Vec<&TocEntry> = self.masking.entries().iter().collect();
            let (header, encoding) = (archive.header(), archive.encoding());
            ArchiveWriter::new(out, header, &entries, encoding, self.codec)?
        };
        let written = self.masking.entries().iter().map(|e| e.dump_id).collect();
        let mut data = MaskedData {
            writer,
            masking: self.masking,
            written,
            open: None,
            row: Vec::new(),
            progress: self.progress,
        };
        archive.read_data(&mut data)?;
        self.integrity.check()?;
        let out = data.writer.finish()?;
        let masked = MaskingResult {
            report: data.masking.report(),
            notes: data.masking.notes(),
        };
        Ok((out, masked))
    }
}

/// Masks data and writes it.
struct MaskedData<W> {
    writer: ArchiveWriter<W>,
    masking: ArchiveMasking,
    /// The entries that the new archive has.
    written: HashSet<DumpId>,
    /// The entry whose data is being read; `None` if it is left out.
    open: Option<DumpId>,
    /// The beginning of a row that is longer than a chunk.
    row: Vec<u8>,
    progress: Arc<Progress>,
}

/// The longest row that is masked, in bytes: all of it has to be in memory.
const MAX_ROW: usize = 64 << 20;

impl<W: Write> MaskedData<W> {
    fn rows(&mut self, id: DumpId, text: Vec<u8>, ends_row: bool) -> Result<(), ArchiveError> {
        if !self.masking.changes(id) {
            return self.writer.table_data(&text);
        }
        let is_whole = self.row.is_empty() && ends_row;
        let text = if is_whole || self.masking.leaves_out_all_rows(id) {
            text
        } else {
            self.row.extend_from_slice(&text);
            if self.row.len() > MAX_ROW {
                let what = "a row of more than 64 MiB cannot be masked";
                return Err(RestoreError::from(JobError::new(JobKind::LimitExceeded, what)).into());
            }
            if !ends_row {
                return Ok(());
            }
            std::mem::take(&mut self.row)
        };
        let masked = self.masking.rows(id, text)?;
        self.writer.table_data(&masked)
    }
}

impl<W: Write> DataSink for MaskedData<W> {
    fn should_read(&self, entry: &TocEntry) -> bool {
        self.written.contains(&entry.dump_id)
    }

    fn is_ready(&self, entry: &TocEntry) -> bool {
        !self.should_read(entry) || self.writer.is_ready(entry)
    }

    fn begin(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.open = Some(entry.dump_id).filter(|id| self.written.contains(id));
        match self.open {
            Some(_) => self.writer.begin(entry),
            None => Ok(()),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<(), ArchiveError> {
        let Some(id) = self.open else {
            return Ok(());
        };
        self.progress
            .data_bytes
            .fetch_add(chunk.len() as u64, Relaxed);
        match chunk {
            Chunk::Rows { text, ends_row } => self.rows(id, text, ends_row),
            Chunk::Statements { text, .. } if self.masking.changes(id) => {
                let masked = self.masking.statements(id, text)?;
                self.writer.table_data(&masked)
            }
            Chunk::Statements { text, .. } => self.writer.table_data(&text),
            Chunk::LargeObject { oid, bytes, .. } => self.writer.large_object(oid, &bytes),
        }
    }

    fn end(&mut self, entry: &TocEntry) -> Result<(), ArchiveError> {
        self.progress.tables_done.fetch_add(1, Relaxed);
        match self.open.take() {
            Some(id) if id == entry.dump_id => self.writer.end(),
            _ => Ok(()),
        }
    }
}

/// An output that keeps the last bytes until it is finished: what is cut short must not look complete.
struct HeldBackOutput {
    out: std::io::BufWriter<Box<dyn Write + Send>>,
    held: Vec<u8>,
    size: u64,
}

impl HeldBackOutput {
    fn new(out: Box<dyn Write + Send>) -> Self {
        HeldBackOutput {
            out: std::io::BufWriter::with_capacity(256 << 10, out),
            held: vec![],
            size: 0,
        }
    }

    fn finish(mut self) -> Result<u64, RestoreError> {
        let done = self
            .out
            .write_all(&self.held)
            .and_then(|()| self.out.flush());
        done.map_err(|e| unwritten(&e))?;
        Ok(self.size)
    }
}

fn unwritten(e: &std::io::Error) -> RestoreError {
    let what = format!("standard output cannot be written: {e}");
    StorageError::new(StorageKind::DownloadFailed, what).into()
}

impl Write for HeldBackOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write_all(&self.held);
        written.map_err(|e| ArchiveError::from(unwritten(&e)))?;
        self.held.clear();
        self.held.extend_from_slice(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Only what is complete is flushed, at the end.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Clone, Default)]
    struct SharedBuffer(Arc<Mutex<Vec<u8>>>);

    impl Write for SharedBuffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_bytes_are_written_in_the_end() {
        for (is_finished, wanted) in [(true, &b"abcd"[..]), (false, b"ab")] {
            let out = SharedBuffer::default();
            let mut held = HeldBackOutput::new(Box::new(out.clone()));
            held.write_all(b"ab").unwrap();
            held.write_all(b"cd").unwrap();
            if is_finished {
                assert_eq!(held.finish().unwrap(), 4);
            } else {
                drop(held);
            }
            assert_eq!(*out.0.lock(), wanted);
        }
    }
}
