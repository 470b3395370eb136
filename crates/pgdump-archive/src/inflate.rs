//! Inflates zlib streams (RFC 1950) and gzip members (RFC 1952) with `fdeflate`, which is safe Rust and takes three
//! quarters of the time of `zlib-rs` for input in the pieces of 4 KiB that `pg_dump` writes (docs/speed.md). It does
//! not report where a stream has ended, so this module searches for the checksum that follows the stream, whose value
//! is known by then.

use std::io::{BufRead, Error, ErrorKind, Read};
use std::ops::Range;

use fdeflate::{DecompressionError, Decompressor};

use super::frames::skip_zeros;

/// Size of the window in bytes.
const WINDOW: usize = 32 << 10;
/// Bytes that are inflated at once.
const AHEAD: usize = 64 << 10;
/// Length of the checksum that the decompressor expects at the end of its stream.
const CHECKSUM: usize = 4;
/// Further bytes that it may have consumed: its bit buffer holds fewer than 64 bits.
const TAKEN_AHEAD: usize = 3;

/// A zlib stream. Its end must be the end of the input.
pub(super) struct Zlib<R> {
    input: Input<R>,
    stream: InflateStream,
    checksum: simd_adler32::Adler32,
}

impl<R: BufRead> Zlib<R> {
    pub(crate) fn new(input: R) -> Self {
        Zlib {
            input: Input::new(input),
            stream: InflateStream::new(),
            checksum: simd_adler32::Adler32::new(),
        }
    }
}

impl<R: BufRead> BufRead for Zlib<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        while self.stream.unread.is_empty() && !self.stream.is_done() {
            self.checksum.write(self.stream.inflate(&mut self.input)?);
            if self.stream.is_done()
                && self.input.last(CHECKSUM) != self.checksum.finish().to_be_bytes()
            {
                return Err(damaged("wrong checksum, or bytes after it"));
            }
        }
        Ok(self.stream.unread())
    }

    fn consume(&mut self, n: usize) {
        self.stream.unread.start += n;
    }
}

impl<R: BufRead> Read for Zlib<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.fill_buf()?;
        Ok(self.stream.take(buf))
    }
}

/// Consecutive gzip members, up to the end of the input.
pub(super) struct Gzip<R> {
    input: Input<R>,
    /// `None` between members.
    member: Option<GzipMember>,
    has_begun: bool,
}

struct GzipMember {
    stream: InflateStream,
    checksum: crc32fast::Hasher,
    /// Modulo 2^32.
    len: u32,
}

impl<R: BufRead> Gzip<R> {
    pub(crate) fn new(input: R) -> Self {
        Gzip {
            input: Input::new(input),
            member: None,
            has_begun: false,
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let member = match &mut self.member {
                Some(member) => member,
                None if self.input.fill_buf()?.is_empty() => return Ok(0),
                // `gzip` ignores trailing zeros, too: they pad the last block of a tape or of an encrypted file.
                None if self.has_begun && self.input.fill_buf()?.first() != Some(&0x1f) => {
                    skip_zeros(&mut self.input, "gzip")?;
                    return Ok(0);
                }
                none => {
                    self.has_begun = true;
                    skip_header(&mut self.input)?;
                    none.insert(GzipMember::new()?)
                }
            };
            if !member.stream.unread.is_empty() || buf.is_empty() {
                return Ok(member.stream.take(buf));
            }
            if member.stream.is_done() {
                self.member = None;
                continue;
            }
            let made = member.stream.inflate(&mut self.input)?;
            member.checksum.update(made);
            member.len = member.len.wrapping_add(made.len() as u32);
            if member.stream.is_done() {
                member.check_trailer(&mut self.input)?;
            }
        }
    }
}

impl GzipMember {
    fn new() -> std::io::Result<Self> {
        let mut stream = InflateStream::new();
        // The decompressor expects a zlib header, which a gzip member does not have.
        stream.inflate(&mut Input::new(&b"\x78\x9c"[..]))?;
        Ok(GzipMember {
            stream,
            checksum: crc32fast::Hasher::new(),
            len: 0,
        })
    }

    /// Leaves the input at the beginning of the next member.
    fn check_trailer<R: BufRead>(&self, input: &mut Input<R>) -> std::io::Result<()> {
        let mut trailer = [0; 8];
        trailer[..4].copy_from_slice(&self.checksum.clone().finalize().to_le_bytes());
        trailer[4..].copy_from_slice(&self.len.to_le_bytes());
        input.give_back(CHECKSUM + TAKEN_AHEAD);
        let mut behind = Vec::new();
        input
            .by_ref()
            .take((TAKEN_AHEAD + trailer.len()) as u64)
            .read_to_end(&mut behind)?;
        if behind.len() < trailer.len() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        // Backwards: the trailer of an empty member is all zeros, and a zero precedes it.
        match behind
            .windows(trailer.len())
            .rposition(|bytes| bytes == trailer)
        {
            Some(at) => input.give_back(behind.len() - at - trailer.len()),
            None => return Err(damaged("wrong checksum")),
        }
        Ok(())
    }
}

fn skip_header<R: BufRead>(input: &mut Input<R>) -> std::io::Result<()> {
    const CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;
    let mut fixed = [0; 10];
    input.read_exact(&mut fixed)?;
    let flags = fixed[3];
    if !fixed.starts_with(b"\x1f\x8b\x08") || flags & RESERVED != 0 {
        return Err(damaged("not a gzip member"));
    }
    let mut two = [0; 2];
    if flags & EXTRA != 0 {
        input.read_exact(&mut two)?;
        for _ in 0..u16::from_le_bytes(two) {
            input.read_exact(&mut [0])?;
        }
    }
    for _ in [NAME, COMMENT].into_iter().filter(|text| flags & text != 0) {
        let mut byte = [1];
        while byte != [0] {
            input.read_exact(&mut byte)?;
        }
    }
    if flags & CRC != 0 {
        input.read_exact(&mut two)?;
    }
    Ok(())
}

/// The inflated data of a stream.
struct InflateStream {
    decompressor: Decompressor,
    /// The window, followed by newly inflated bytes.
    out: Vec<u8>,
    /// Inflated bytes that have not been read yet.
    unread: Range<usize>,
}

impl InflateStream {
    fn new() -> Self {
        let mut decompressor = Decompressor::new();
        decompressor.ignore_adler32();
        InflateStream {
            decompressor,
            out: vec![0; WINDOW + AHEAD],
            unread: 0..0,
        }
    }

    fn is_done(&self) -> bool {
        self.decompressor.is_done()
    }

    /// Inflates more, once everything inflated has been read.
    fn inflate<R: BufRead>(&mut self, input: &mut Input<R>) -> std::io::Result<&[u8]> {
        if self.unread.end == self.out.len() {
            self.out.copy_within(AHEAD.., 0);
            self.unread = WINDOW..WINDOW;
        }
        let at = self.unread.end;
        let more = input.fill_buf()?;
        let (taken, made) = match self
            .decompressor
            .read(more, &mut self.out, at, more.is_empty())
        {
            Ok(done) => done,
            Err(DecompressionError::InsufficientInput) => {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            Err(e) => return Err(damaged(&format!("{e:?}"))),
        };
        input.consume(taken);
        self.unread = at..at + made;
        Ok(self.unread())
    }

    /// Inflated bytes that have not been read yet.
    fn unread(&self) -> &[u8] {
        &self.out[self.unread.clone()]
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let n = self.unread.len().min(buf.len());
        buf[..n].copy_from_slice(&self.out[self.unread.start..][..n]);
        self.unread.start += n;
        n
    }
}

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("deflate: {what}"))
}

/// An input that keeps its last bytes and can unread them.
struct Input<R> {
    inner: R,
    /// The last bytes that were read.
    last: [u8; CHECKSUM + TAKEN_AHEAD],
    /// How many of them are read again before new ones.
    again: usize,
}

impl<R: BufRead> Input<R> {
    fn new(inner: R) -> Self {
        Input {
            inner,
            last: Default::default(),
            again: 0,
        }
    }

    fn last(&self, n: usize) -> &[u8] {
        &self.last[self.last.len() - n..]
    }

    fn give_back(&mut self, n: usize) {
        self.again = n;
    }
}

impl<R: BufRead> BufRead for Input<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        match self.again {
            0 => self.inner.fill_buf(),
            n => Ok(&self.last[self.last.len() - n..]),
        }
    }

    fn consume(&mut self, n: usize) {
        if self.again > 0 {
            self.again -= n;
            return;
        }
        if let Ok(taken) = self.inner.fill_buf() {
            let kept = n.min(self.last.len());
            self.last.rotate_left(kept);
            let at = self.last.len() - kept;
            self.last[at..].copy_from_slice(&taken[n - kept..n]);
        }
        self.inner.consume(n);
    }
}

impl<R: BufRead> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let more = self.fill_buf()?;
        let n = more.len().min(buf.len());
        buf[..n].copy_from_slice(&more[..n]);
        self.consume(n);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, GzBuilder, write};

    use super::*;

    /// Repeats itself near and far, and has incompressible parts.
    fn data(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut out = Vec::new();
        while out.len() < len {
            match random.u8(..4) {
                0 => out.extend((0..random.usize(..3000)).map(|_| random.u8(..))),
                1 => out.extend(std::iter::repeat_n(random.u8(..), random.usize(..1000))),
                2 => out.extend(
                    format!("{}\t{}\n", random.u16(..), random.u8(..))
                        .repeat(9)
                        .into_bytes(),
                ),
                _ => {
                    let from = out.len() - random.usize(..=out.len().min(WINDOW));
                    out.extend_from_within(from..(from + random.usize(..400)).min(out.len()));
                }
            }
        }
        out.truncate(len);
        out
    }

    fn zlib(data: &[u8], level: u32) -> Vec<u8> {
        let mut w = write::ZlibEncoder::new(Vec::new(), Compression::new(level));
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    fn gzip(data: &[u8], level: u32) -> Vec<u8> {
        let header = GzBuilder::new()
            .filename("a.sql")
            .comment("c")
            .extra(&b"\x41\0\x02\0hi"[..]);
        let header = if level > 5 { header } else { GzBuilder::new() };
        let mut w = header.write(Vec::new(), Compression::new(level));
        w.write_all(data).unwrap();
        w.finish().unwrap()
    }

    type InflateReader = fn(&[u8], usize) -> std::io::Result<Vec<u8>>;

    /// Reads everything, from an input that returns this many bytes at once.
    fn read_zlib(packed: &[u8], step: usize) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Zlib::new(BufReader::with_capacity(step, packed))
            .read_to_end(&mut out)
            .map(|_| out)
    }

    fn read_gzip(packed: &[u8], step: usize) -> std::io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Gzip::new(BufReader::with_capacity(step, packed))
            .read_to_end(&mut out)
            .map(|_| out)
    }

    #[test]
    fn streams_round_trip() {
        for len in [0, 1, 300, AHEAD, WINDOW + AHEAD + 1, 400_000] {
            let data = data(len);
            for level in [0, 1, 6, 9] {
                for step in [1, 7, 4096, 1 << 20] {
                    // Of much data, single bytes are one case.
                    if step == 1 && len > AHEAD && level != 6 {
                        continue;
                    }
                    assert_eq!(
                        read_zlib(&zlib(&data, level), step).unwrap(),
                        data,
                        "{len} {level} {step}"
                    );
                    assert_eq!(
                        read_gzip(&gzip(&data, level), step).unwrap(),
                        data,
                        "{len} {level} {step}"
                    );
                }
            }
        }
    }

    #[test]
    fn consecutive_members_are_read() {
        let parts: Vec<Vec<u8>> = [0, 1, 2, 300, 5, 0, 200_000].map(data).into();
        let packed: Vec<u8> = parts
            .iter()
            .zip(1..)
            .flat_map(|(p, level)| gzip(p, level))
            .collect();
        for step in [1, 2, 13, 1 << 20] {
            assert_eq!(read_gzip(&packed, step).unwrap(), parts.concat());
        }
        assert_eq!(read_gzip(b"", 9).unwrap(), b"");
    }

    #[test]
    fn truncation_is_an_unexpected_end() {
        let data = data(2_000);
        let read: [(Vec<u8>, InflateReader); 2] =
            [(zlib(&data, 6), read_zlib), (gzip(&data, 6), read_gzip)];
        for (packed, read) in read {
            for cut in 1..packed.len() {
                let e = read(&packed[..cut], 100).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::UnexpectedEof, "{cut}: {e}");
            }
        }
    }

    #[test]
    fn flipped_bits_never_change_the_output() {
        let data = data(1_000);
        let read: [(Vec<u8>, InflateReader); 2] =
            [(zlib(&data, 6), read_zlib), (gzip(&data, 3), read_gzip)];
        for (packed, read) in read {
            let mut found = 0;
            for bit in 0..packed.len() * 8 {
                let mut flipped = packed.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                match read(&flipped, 100) {
                    Ok(same) => assert_eq!(same, data, "bit {bit}"),
                    Err(_) => found += 1,
                }
            }
            // A gzip header has a time and an operating system, a zlib header a level.
            assert!(found > packed.len() * 8 - 80, "{found}");
        }
    }

    #[test]
    fn trailing_bytes_are_not_part_of_the_stream() {
        for n in 1..20 {
            let more = vec![0; n];
            assert!(
                read_zlib(&[zlib(b"rows", 6), more.clone()].concat(), 100)
                    .is_err_and(|e| { e.kind() == ErrorKind::InvalidData })
            );
            assert_eq!(
                read_gzip(&[gzip(b"rows", 6), more].concat(), 100).unwrap(),
                b"rows"
            );
            let other = [gzip(b"rows", 6), vec![0; n], b"x".to_vec()].concat();
            let e = read_gzip(&other, 100).unwrap_err().to_string();
            assert!(e.contains("other bytes follow"), "{e}");
        }
    }
}
