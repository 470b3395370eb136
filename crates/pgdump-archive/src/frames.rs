//! Compressed data that consists of several streams: zstd and lz4 frames with skippable frames between them,
//! lz4's legacy format, bzip2 streams. Other bytes after the last stream are reported.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use super::Limits;
use super::filters::{BoxedReader, PeekReader};
use super::toc::{corrupt, limit_error};
use crate::error::ArchiveError;

const LZ4: u32 = 0x184d_2204;
const LZ4_LEGACY: u32 = 0x184c_2102;
/// Decompressed size in bytes of a block of the legacy format; only the last block of a stream is smaller.
const LEGACY_BLOCK: usize = 8 << 20;
/// Largest compressed size of such a block.
const MAX_LEGACY_BLOCK: usize = LEGACY_BLOCK + LEGACY_BLOCK / 255 + 16;

/// The error for bytes after the compressed data.
pub(super) fn trailing_bytes(format: &str) -> ArchiveError {
    corrupt(format!(
        "the {format} data has ended and other bytes follow: the file is damaged, or something was appended to it"
    ))
}

/// Magic of skippable frames (RFC 8878, 3.1.2); zstd and lz4 share it.
fn is_skippable(magic: u32) -> bool {
    magic & 0xffff_fff0 == 0x184d_2a50
}

fn magic_of(head: &[u8]) -> Option<u32> {
    head.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// Whether these bytes begin a skippable frame of zstd or lz4.
pub(super) fn begins_with_skippable(head: &[u8]) -> bool {
    magic_of(head).is_some_and(is_skippable)
}

/// Skips skippable frames, which `pzstd` writes before each of its own.
pub(super) fn skip_frames(mut input: PeekReader<'_>) -> Result<PeekReader<'_>> {
    loop {
        // A filled buffer has the whole magic, except at the end of the input.
        let mut magic = [0; 4];
        let n = read_up_to(&mut input, &mut magic)?;
        if n < 4 || !is_skippable(u32::from_le_bytes(magic)) {
            let again: BoxedReader<'_> =
                Box::new(std::io::Cursor::new(magic).take(n as u64).chain(input));
            return Ok(super::filters::buffered(again));
        }
        skip_frame(&mut input)?;
    }
}

/// Skips what follows the magic of such a frame.
fn skip_frame(input: &mut impl Read) -> Result<()> {
    let mut size = [0; 4];
    input.read_exact(&mut size)?;
    let size = u64::from(u32::from_le_bytes(size));
    if std::io::copy(&mut input.take(size), &mut std::io::sink())? == size {
        Ok(())
    } else {
        Err(ErrorKind::UnexpectedEof.into())
    }
}

/// Reads up to the length of `out`; returns fewer bytes only at the end of the input.
fn read_up_to(input: &mut impl Read, out: &mut [u8]) -> Result<usize> {
    let mut n = 0;
    while n < out.len() {
        match input.read(&mut out[n..])? {
            0 => break,
            read => n += read,
        }
    }
    Ok(n)
}

/// zstd frames. A window that exceeds this worker's memory is not reported as damage.
pub(super) struct Zstd<R: BufRead> {
    decoder: zstd::stream::read::Decoder<'static, R>,
    limits: Limits,
    has_begun: bool,
}

impl<R: BufRead> Zstd<R> {
    pub(crate) fn new(mut input: R, limits: &Limits) -> Result<Self> {
        if let Some(window) = window_of(input.fill_buf()?) {
            limits.check_memory(&decompressing("zstd"), window)?;
        }
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
        // A later frame may have a larger window; zstd accepts powers of two only.
        let log = limits
            .memory
            .checked_next_power_of_two()
            .map_or(31, u64::ilog2);
        decoder.window_log_max(log.clamp(10, 31))?;
        Ok(Zstd {
            decoder,
            limits: *limits,
            has_begun: false,
        })
    }

    fn explain(&self, e: Error) -> Error {
        use zstd::zstd_safe::zstd_sys::ZSTD_ErrorCode as Code;
        let Some(code) = e
            .get_ref()
            .and_then(|e| e.downcast_ref::<zstd::Error>())
            .copied()
        else {
            return e;
        };
        if code.is(Code::ZSTD_error_frameParameter_windowTooLarge) {
            return too_much_memory("zstd", &self.limits).into();
        }
        if code.is(Code::ZSTD_error_memory_allocation) {
            return limit_error(
                "this worker has too little memory for the window of the zstd data",
            )
            .into();
        }
        if code.is(Code::ZSTD_error_dictionary_wrong) {
            let what = "the zstd data was compressed with a dictionary, which it does not contain";
            return limit_error(format!(
                "{what}: decompress it with `zstd -d -D DICTIONARY` first"
            ))
            .into();
        }
        if code.is(Code::ZSTD_error_prefix_unknown) && self.has_begun {
            trailing_bytes("zstd").into()
        } else {
            e
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let n = self.decoder.read(buf).map_err(|e| self.explain(e))?;
        self.has_begun |= n > 0;
        Ok(n)
    }
}

pub(super) fn decompressing(format: &str) -> String {
    format!("decompressing the {format} data")
}

/// Part of the data needs more memory than there is; how much is unknown.
pub(super) fn too_much_memory(format: &str, limits: &Limits) -> ArchiveError {
    let has = limits.memory >> 20;
    limit_error(format!(
        "{} needs more than the {has} MiB of memory that this worker has for it: give it more (its \
         container's limit, or RESTORE_MEMORY_MIB)",
        decompressing(format)
    ))
}

/// The window of a zstd frame (RFC 8878, 3.1.1.1), which a decoder must keep in memory.
fn window_of(head: &[u8]) -> Option<u64> {
    let descriptor = *head.get(4)?;
    if descriptor & 0x20 == 0 {
        let (exponent, mantissa) = (head.get(5)? >> 3, u64::from(head.get(5)? & 7));
        let base = 1u64 << (10 + exponent);
        return Some(base + base / 8 * mantissa);
    }
    // In a single segment, the window is the whole content.
    let at = 5 + [0, 1, 2, 4][usize::from(descriptor & 3)];
    let len = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let mut size = [0; 8];
    size[..len].copy_from_slice(head.get(at..at + len)?);
    let size = u64::from_le_bytes(size);
    Some(if len == 2 { size + 256 } else { size })
}

/// lz4 frames, current and legacy. `lz4_flex` accepts data that is cut between blocks as complete, and stops
/// after one frame.
pub(super) struct Lz4<'a> {
    decoder: lz4_flex::frame::FrameDecoder<FrameInput<'a>>,
    state: FrameState,
    /// Whether a frame was read.
    has_begun: bool,
}

enum FrameState {
    Between,
    Frame,
    Legacy(LegacyBlocks),
}

/// The rest of a decompressed block of the legacy format.
#[derive(Default)]
struct LegacyBlocks {
    block: Vec<u8>,
    at: usize,
}

impl<'a> Lz4<'a> {
    pub(crate) fn new(input: PeekReader<'a>) -> Self {
        let input = FrameInput {
            input,
            again: None,
            ended: false,
        };
        let decoder = lz4_flex::frame::FrameDecoder::new(input);
        Lz4 {
            decoder,
            state: FrameState::Between,
            has_begun: false,
        }
    }

    /// The kind of data that comes next; `None` at the end.
    fn next_frame(&mut self) -> Result<Option<FrameState>> {
        let input = self.decoder.get_mut();
        loop {
            let mut magic = [0; 4];
            let next = match read_up_to(input, &mut magic)? {
                0 => return Ok(None),
                4 => u32::from_le_bytes(magic),
                _ if self.has_begun => return Err(trailing_bytes("lz4").into()),
                _ => return Err(ErrorKind::UnexpectedEof.into()),
            };
            match next {
                LZ4 => {
                    input.again = Some(magic);
                    input.ended = false;
                    return Ok(Some(FrameState::Frame));
                }
                LZ4_LEGACY => return Ok(Some(FrameState::Legacy(LegacyBlocks::default()))),
                skippable if is_skippable(skippable) => skip_frame(input)?,
                _ => return Err(trailing_bytes("lz4").into()),
            }
        }
    }
}

impl Read for Lz4<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            let n = match &mut self.state {
                FrameState::Between => match self.next_frame()? {
                    None => return Ok(0),
                    Some(next) => {
                        (self.state, self.has_begun) = (next, true);
                        continue;
                    }
                },
                FrameState::Frame => self.decoder.read(buf).map_err(without_dictionary)?,
                FrameState::Legacy(legacy) => legacy.read(self.decoder.get_mut(), buf)?,
            };
            if n > 0 {
                return Ok(n);
            }
            // A frame's own end mark comes before the decoder reads more input.
            if matches!(self.state, FrameState::Frame) && self.decoder.get_ref().ended {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.state = FrameState::Between;
        }
    }
}

fn without_dictionary(e: Error) -> Error {
    let inner = e
        .get_ref()
        .and_then(|e| e.downcast_ref::<lz4_flex::frame::Error>());
    match inner {
        Some(lz4_flex::frame::Error::DictionaryNotSupported) => {
            let what = "the lz4 data was compressed with a dictionary, which it does not contain";
            limit_error(format!(
                "{what}: decompress it with `lz4 -d -D DICTIONARY` first"
            ))
            .into()
        }
        _ => e,
    }
}

impl LegacyBlocks {
    /// Reads blocks up to the next frame or the end.
    fn read(&mut self, input: &mut FrameInput<'_>, buf: &mut [u8]) -> Result<usize> {
        let is_last = !self.block.is_empty() && self.block.len() < LEGACY_BLOCK;
        if self.at == self.block.len() && !self.next_block(input, is_last)? {
            return Ok(0);
        }
        let n = buf.len().min(self.block.len() - self.at);
        buf[..n].copy_from_slice(&self.block[self.at..][..n]);
        self.at += n;
        Ok(n)
    }

    fn next_block(&mut self, input: &mut FrameInput<'_>, was_last: bool) -> Result<bool> {
        let mut size = [0; 4];
        match read_up_to(input, &mut size)? {
            0 => return Ok(false),
            4 => {}
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
        // A length that no block can have is the magic of the next frame.
        let len = u32::from_le_bytes(size) as usize;
        if was_last || len > MAX_LEGACY_BLOCK {
            input.again = Some(size);
            return Ok(false);
        }
        let mut packed = vec![0; len];
        input.read_exact(&mut packed)?;
        self.block.resize(LEGACY_BLOCK, 0);
        let made = lz4_flex::block::decompress_into(&packed, &mut self.block);
        let made = made.map_err(|e| Error::new(ErrorKind::InvalidData, format!("lz4: {e}")))?;
        if made == 0 {
            return Err(Error::new(ErrorKind::InvalidData, "lz4: a block is empty"));
        }
        self.block.truncate(made);
        self.at = 0;
        Ok(true)
    }
}

/// Remembers whether the end was reached, and can unread four bytes.
struct FrameInput<'a> {
    input: PeekReader<'a>,
    again: Option<[u8; 4]>,
    ended: bool,
}

impl Read for FrameInput<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        // Readers after an unread magic have a buffer that is large enough for all of it.
        if let Some((again, out)) = self.again.zip(buf.first_chunk_mut()) {
            *out = again;
            self.again = None;
            return Ok(again.len());
        }
        let n = self.input.read(buf)?;
        self.ended |= n == 0 && !buf.is_empty();
        Ok(n)
    }
}

/// bzip2 streams; zeros may follow them, as in a copy from tape.
pub(super) struct Bzip2<'a>(Option<bzip2::bufread::BzDecoder<PeekReader<'a>>>);

impl<'a> Bzip2<'a> {
    pub(crate) fn new(input: PeekReader<'a>) -> Self {
        Bzip2(Some(bzip2::bufread::BzDecoder::new(input)))
    }
}

impl Read for Bzip2<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let n = decoder.read(buf)?;
            if n > 0 || buf.is_empty() {
                return Ok(n);
            }
            let Some(mut input) = self.0.take().map(|d| d.into_inner()) else {
                break;
            };
            match input.fill_buf()?.first() {
                Some(b'B') => self.0 = Some(bzip2::bufread::BzDecoder::new(input)),
                _ => skip_zeros(&mut input, "bzip2")?,
            }
        }
        Ok(0)
    }
}

/// Reads to the end of the input, which must have zeros only.
pub(super) fn skip_zeros(input: &mut impl BufRead, format: &str) -> Result<()> {
    loop {
        let rest = input.fill_buf()?;
        if rest.iter().any(|b| *b != 0) {
            return Err(trailing_bytes(format).into());
        }
        let n = rest.len();
        if n == 0 {
            return Ok(());
        }
        input.consume(n);
    }
}
