//! The formats around LZMA: xz, `.lzma` and lzip. A dictionary that exceeds this worker's memory is not
//! reported as damage.

use std::io::{BufRead, Error, ErrorKind, Read, Result};

use lzma_rust2::{LzmaReader, XzReader};

use super::Limits;
use super::filters::PeekReader;
use super::frames::{decompressing, skip_zeros, too_much_memory, trailing_bytes};

/// Bytes of a `.lzma` header: properties, dictionary size, uncompressed size.
const HEADER: usize = 13;

/// xz streams, with padding between and after them.
pub(super) struct Xz<'a> {
    reader: XzReader<PeekReader<'a>>,
    limits: Limits,
}

impl<'a> Xz<'a> {
    pub(crate) fn new(mut input: PeekReader<'a>, limits: &Limits) -> Result<Self> {
        if let Some(dictionary) = xz_dictionary_of(input.fill_buf()?) {
            limits.check_memory(&decompressing("xz"), dictionary)?;
        }
        let most = u32::try_from(limits.memory >> 10)
            .unwrap_or(u32::MAX)
            .saturating_add(OVERHEAD_KIB);
        Ok(Xz {
            reader: XzReader::new_mem_limit(input, true, most),
            limits: *limits,
        })
    }
}

/// KiB that a decoder needs in addition to its dictionary.
const OVERHEAD_KIB: u32 = 256;

/// The dictionary size of the first block: LZMA2 is the last filter in the block's header, and its size is the
/// last byte before the padding (file format 1.2, 3.1 and 5.3.1).
fn xz_dictionary_of(head: &[u8]) -> Option<u64> {
    let block = head.get(12..)?;
    let len = (usize::from(*block.first().filter(|b| **b != 0)?) + 1) * 4;
    let coded = *block.get(..len - 4)?.iter().rfind(|b| **b != 0)?;
    match coded {
        40 => Some(u64::from(u32::MAX)),
        0..40 => Some((2 | u64::from(coded & 1)) << (coded / 2 + 11)),
        _ => None,
    }
}

impl Read for Xz<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        self.reader.read(buf).map_err(|e| match e.kind() {
            ErrorKind::OutOfMemory => too_much_memory("xz", &self.limits).into(),
            ErrorKind::InvalidData if e.to_string().starts_with("invalid data after stream") => {
                trailing_bytes("xz").into()
            }
            _ => e,
        })
    }
}

/// An input that can unread bytes that a decoder has read too far.
struct PushbackReader<'a> {
    again: std::io::Cursor<Vec<u8>>,
    input: PeekReader<'a>,
}

impl Read for PushbackReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        match self.again.read(buf)? {
            0 => self.input.read(buf),
            n => Ok(n),
        }
    }
}

impl<'a> PushbackReader<'a> {
    fn new(input: PeekReader<'a>) -> Self {
        PushbackReader {
            again: Default::default(),
            input,
        }
    }

    fn give_back(&mut self, mut unused: Vec<u8>) {
        let (old, at) = (self.again.get_ref(), self.again.position() as usize);
        unused.extend_from_slice(old.get(at..).unwrap_or_default());
        self.again = std::io::Cursor::new(unused);
    }

    /// Reads up to `N` bytes; fewer only at the end of the input.
    fn read_up_to<const N: usize>(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(N);
        self.take(N as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Whether only zeros are left.
    fn finish(self, format: &str) -> Result<()> {
        let mut rest = std::io::BufReader::new(self);
        skip_zeros(&mut rest, format)
    }
}

/// State of a reader of one format.
enum LzmaState<'a> {
    Between(PushbackReader<'a>),
    Member(Box<LzmaReader<PushbackReader<'a>>>),
    Ended,
}

fn check_dictionary(format: &str, bytes: u32, limits: &Limits) -> Result<()> {
    Ok(limits.check_memory(&decompressing(format), u64::from(bytes))?)
}

/// A file of `xz --format=lzma`, or of the older `lzma`.
pub(super) struct LzmaAlone<'a> {
    state: LzmaState<'a>,
    limits: Limits,
}

impl<'a> LzmaAlone<'a> {
    /// Whether a file begins like this format. It has no magic, but the values of its fields exclude text
    /// (the rule is that of liblzma's `lzma_alone_decoder`).
    pub(crate) fn matches(head: &[u8]) -> bool {
        let Some((header, [0, ..])) = head.split_at_checked(HEADER) else {
            return false;
        };
        let dictionary = u32_at(header, 1);
        let size = u64_at(header, 5);
        let is_usual = |d: u32| {
            d == u32::MAX || d.is_power_of_two() || d.is_multiple_of(3) && (d / 3).is_power_of_two()
        };
        header[0] < 225
            && dictionary >= 4096
            && is_usual(dictionary)
            && (size == u64::MAX || size < 1 << 38)
    }

    pub(crate) fn new(input: PeekReader<'a>, limits: &Limits) -> Self {
        LzmaAlone {
            state: LzmaState::Between(PushbackReader::new(input)),
            limits: *limits,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}

impl Read for LzmaAlone<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, LzmaState::Ended) {
                LzmaState::Ended => return Ok(0),
                LzmaState::Between(mut input) => {
                    let header = input.read_up_to::<HEADER>()?;
                    if header.len() < HEADER {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                    check_dictionary("lzma", u32_at(&header, 1), &self.limits)?;
                    let (dictionary, size) = (
                        u32_at(&header, 1).min(lzma_rust2::DICT_SIZE_MAX),
                        u64_at(&header, 5),
                    );
                    let mut member =
                        LzmaReader::new_with_props(input, size, header[0], dictionary, None)?;
                    member.set_relaxed_end_condition(false);
                    self.state = LzmaState::Member(Box::new(member));
                }
                LzmaState::Member(mut member) => {
                    let n = member.read(buf)?;
                    if n > 0 || buf.is_empty() {
                        self.state = LzmaState::Member(member);
                        return Ok(n);
                    }
                    let (mut input, unused) = member.into_parts();
                    input.give_back(unused);
                    input.finish("lzma")?;
                }
            }
        }
    }
}

/// Consecutive lzip members (lzip manual, chapter "File format").
pub(super) struct Lzip<'a> {
    state: LzmaState<'a>,
    limits: Limits,
    checksum: crc32fast::Hasher,
    len: u64,
}

impl<'a> Lzip<'a> {
    const MAGIC: &'static [u8] = b"LZIP\x01";

    pub(crate) fn matches(head: &[u8]) -> bool {
        head.starts_with(Self::MAGIC) && head.get(5).is_some_and(|d| dictionary_of(*d).is_some())
    }

    pub(crate) fn new(input: PeekReader<'a>, limits: &Limits) -> Self {
        let state = LzmaState::Between(PushbackReader::new(input));
        Lzip {
            state,
            limits: *limits,
            checksum: crc32fast::Hasher::new(),
            len: 0,
        }
    }

    fn begin(&mut self, mut input: PushbackReader<'a>) -> Result<LzmaState<'a>> {
        let header = input.read_up_to::<6>()?;
        if !Self::matches(&header) {
            input.give_back(header);
            input.finish("lzip")?;
            return Ok(LzmaState::Ended);
        }
        let dictionary = dictionary_of(header[5]).unwrap_or_default();
        check_dictionary("lzip", dictionary, &self.limits)?;
        (self.checksum, self.len) = (crc32fast::Hasher::new(), 0);
        // The properties are fixed, and the member ends with an end marker.
        Ok(LzmaState::Member(Box::new(LzmaReader::new(
            input,
            u64::MAX,
            3,
            0,
            2,
            dictionary,
            None,
        )?)))
    }

    /// Checks the trailer of a member.
    fn end(&self, member: LzmaReader<PushbackReader<'a>>) -> Result<PushbackReader<'a>> {
        let (mut input, unused) = member.into_parts();
        input.give_back(unused);
        let trailer = input.read_up_to::<20>()?;
        if trailer.len() < 20 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if (u32_at(&trailer, 0), u64_at(&trailer, 4))
            == (self.checksum.clone().finalize(), self.len)
        {
            Ok(input)
        } else {
            Err(Error::new(ErrorKind::InvalidData, "lzip: wrong checksum"))
        }
    }
}

/// The dictionary size of a member: a power of two minus a number of sixteenths of it.
fn dictionary_of(coded: u8) -> Option<u32> {
    let (log, sixteenths) = (u32::from(coded & 31), u32::from(coded >> 5));
    let base = (12..=29).contains(&log).then_some(1u32 << log)?;
    Some(base - base / 16 * sixteenths)
}

impl Read for Lzip<'_> {
    fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        loop {
            self.state = match std::mem::replace(&mut self.state, LzmaState::Ended) {
                LzmaState::Ended => return Ok(0),
                LzmaState::Between(input) => self.begin(input)?,
                LzmaState::Member(mut member) => match member.read(buf)? {
                    0 if !buf.is_empty() => LzmaState::Between(self.end(*member)?),
                    n => {
                        self.checksum.update(&buf[..n]);
                        self.len += n as u64;
                        self.state = LzmaState::Member(member);
                        return Ok(n);
                    }
                },
            }
        }
    }
}
