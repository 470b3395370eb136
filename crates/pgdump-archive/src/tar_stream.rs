//! The files of a tar, read forward: headers with their checksums, long names and sizes, and the end mark.

use std::io::Read;

use super::ReopenableSource;
use super::peek_reader::{BoxedReader, PeekReader, buffered};
use super::toc::{corrupt, limit_error};
use crate::error::ArchiveError;

const BLOCK: usize = 512;
/// Most bytes of a member's name or of its extended header.
const MAX_NAME: u64 = 1 << 20;
/// Most bytes of a member: no file is larger.
const MAX_SIZE: u64 = i64::MAX as u64 - BLOCK as u64;
/// A member of more bytes than this is skipped by reopening the object after it.
const MIN_JUMP: u64 = 1 << 20;

/// The error for sparse members: they omit holes, so their bytes are not those of the file.
fn sparse() -> ArchiveError {
    limit_error("the tar has sparse members: pack the directory again, without --sparse")
}

fn tar_error(e: std::io::Error) -> ArchiveError {
    ArchiveError::from_io(e, "tar")
}

/// A tar, read forward.
pub(super) struct Tar {
    input: PeekReader<'static>,
    /// Bytes read so far.
    pub position: u64,
    /// Bytes left in the current member, and its padding.
    left: u64,
    padding: u64,
}

/// A regular file in a tar.
pub(super) struct TarFile {
    pub path: String,
    pub size: u64,
}

/// What extended headers say about the next member.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extended {
    fn add(&mut self, records: &[u8]) -> Result<(), ArchiveError> {
        for record in tar::PaxExtensions::new(records) {
            let record = record.map_err(tar_error)?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"size" => self.size = Some(number(record.value_bytes())?),
                key if key.starts_with(b"GNU.sparse.") => return Err(sparse()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(digits: &[u8]) -> Result<u64, ArchiveError> {
    let text = std::str::from_utf8(digits).ok();
    let number = text.and_then(|t| t.parse().ok());
    number.ok_or_else(|| corrupt("a size in the tar is not a number"))
}

/// The sum of a header's bytes, with spaces instead of the stored sum.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|b| u32::from(*b)).sum::<u32>();
    sum(block) - sum(&block[148..156]) + 8 * u32::from(b' ')
}

impl Tar {
    pub(super) fn new(input: PeekReader<'static>) -> Self {
        Tar {
            input,
            position: 0,
            left: 0,
            padding: 0,
        }
    }

    /// The next regular file; `None` at the tar's end mark.
    pub(super) fn next(&mut self) -> Result<Option<TarFile>, ArchiveError> {
        let mut extended = Extended::default();
        while let Some(header) = self.header()? {
            let size = extended.size.take();
            let size = size.unwrap_or(header.entry_size().map_err(tar_error)?);
            self.begin_member(size)?;
            let kind = header.entry_type();
            if kind.is_gnu_sparse() {
                return Err(sparse());
            }
            if kind.is_gnu_longname() {
                extended.path = Some(self.small()?);
            } else if kind.is_pax_local_extensions() {
                extended.add(&self.small()?)?;
            } else {
                let path = extended.path.take();
                if kind.is_file() || kind.is_contiguous() {
                    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
                    let path = String::from_utf8_lossy(&path);
                    let path = path.trim_end_matches('\0').to_owned();
                    return Ok(Some(TarFile { path, size }));
                }
            }
        }
        Ok(None)
    }

    /// Skips the rest of the current member and reads the next header; `None` at the end mark.
    fn header(&mut self) -> Result<Option<tar::Header>, ArchiveError> {
        self.skip()?;
        let mut block = [0u8; BLOCK];
        self.input.read_exact(&mut block).map_err(tar_error)?;
        self.position += BLOCK as u64;
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        let header = tar::Header::from_byte_slice(&block);
        if header.cksum().ok() != Some(checksum(&block)) {
            return Err(corrupt("the archive is damaged: tar header"));
        }
        Ok(Some(header.clone()))
    }

    fn begin_member(&mut self, size: u64) -> Result<(), ArchiveError> {
        if size > MAX_SIZE {
            return Err(corrupt(format!(
                "a member of the tar has the invalid size of {size} bytes"
            )));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The bytes of the current member.
    pub(super) fn member(&mut self) -> BoxedReader<'_> {
        Box::new(MemberBytes(self))
    }

    fn small(&mut self) -> Result<Vec<u8>, ArchiveError> {
        if self.left > MAX_NAME {
            return Err(corrupt(format!(
                "a name in the tar has {} bytes, which is too long",
                self.left
            )));
        }
        let mut bytes = Vec::new();
        self.member().read_to_end(&mut bytes).map_err(tar_error)?;
        Ok(bytes)
    }

    /// Skips the rest of the current member.
    fn skip(&mut self) -> Result<(), ArchiveError> {
        let amount = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
        let passed = std::io::copy(&mut (&mut self.input).take(amount), &mut std::io::sink())
            .map_err(tar_error)?;
        self.position += passed;
        if passed == amount {
            Ok(())
        } else {
            Err(corrupt("the archive ends early: a member of the tar"))
        }
    }

    /// The same by reopening the object after the member.
    pub(super) fn skip_by_reopening(
        &mut self,
        source: &dyn ReopenableSource,
    ) -> Result<(), ArchiveError> {
        if self.left > MIN_JUMP {
            let behind = std::mem::take(&mut self.left) + std::mem::take(&mut self.padding);
            self.position = self.position.saturating_add(behind);
            self.input = buffered(source.open(self.position)?);
        }
        Ok(())
    }

    /// Reads the end mark, which must be complete.
    pub(super) fn check_end(&mut self) -> Result<(), ArchiveError> {
        let mut rest = [0u8; BLOCK];
        let mut read = 0;
        loop {
            match self.input.read(&mut rest).map_err(tar_error)? {
                0 if read >= BLOCK => return Ok(()),
                0 => return Err(corrupt("the archive ends early: the end of the tar")),
                n if rest[..n].iter().all(|b| *b == 0) => read += n,
                _ => return Err(corrupt("there are bytes after the end of the tar")),
            }
        }
    }
}

struct MemberBytes<'a>(&'a mut Tar);

impl Read for MemberBytes<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let tar = &mut *self.0;
        let most = out
            .len()
            .min(usize::try_from(tar.left).unwrap_or(usize::MAX));
        let n = tar.input.read(&mut out[..most])?;
        if n == 0 && most > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        tar.left -= n as u64;
        tar.position += n as u64;
        Ok(n)
    }
}
