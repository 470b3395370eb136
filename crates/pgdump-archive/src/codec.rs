//! The compression of an archive's data blocks.

use std::io::{BufRead, BufReader, Read};

use super::Limits;
use super::frames::Zstd;
use super::inflate::Zlib;

/// Bytes that zstd decompresses at once: it returns at most a block (RFC 8878, 3.1.1.2.4).
const ZSTD_BUFFER: usize = 128 << 10;

/// Compression of the data blocks according to the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// `PG_COMPRESSION_NONE`: blocks have the data as it is.
    None,
    /// `PG_COMPRESSION_GZIP`: each block is a zlib stream (RFC 1950); the only codec before archive version 1.15.
    Gzip,
    /// `PG_COMPRESSION_LZ4`: each block is an LZ4 frame.
    Lz4,
    /// `PG_COMPRESSION_ZSTD`: each block is a Zstandard frame.
    Zstd,
}

impl Codec {
    /// The name that `pg_dump --compress` takes.
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// A streaming decompressor for the body of one block. An empty body is an empty stream with every codec:
    /// `pg_dump` writes nothing for an empty large object.
    pub(super) fn decoder<'a, R: BufRead>(
        self,
        body: &'a mut R,
        limits: &Limits,
    ) -> std::io::Result<Decoder<'a, R>> {
        if body.fill_buf()?.is_empty() {
            return Ok(Decoder::Plain(body));
        }
        Ok(match self {
            Codec::None => Decoder::Plain(body),
            Codec::Gzip => Decoder::Gzip(Box::new(Zlib::new(body))),
            Codec::Lz4 => Decoder::Lz4(Box::new(lz4_flex::frame::FrameDecoder::new(body))),
            Codec::Zstd => {
                let zstd = Zstd::new(body, limits)?;
                Decoder::Zstd(Box::new(BufReader::with_capacity(ZSTD_BUFFER, zstd)))
            }
        })
    }
}

pub(super) enum Decoder<'a, R: BufRead> {
    Plain(&'a mut R),
    Gzip(Box<Zlib<&'a mut R>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a mut R>>),
    Zstd(Box<BufReader<Zstd<&'a mut R>>>),
}

impl<R: BufRead> BufRead for Decoder<'_, R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        match self {
            Decoder::Plain(r) => r.fill_buf(),
            Decoder::Gzip(r) => r.fill_buf(),
            Decoder::Lz4(r) => r.fill_buf(),
            Decoder::Zstd(r) => r.fill_buf(),
        }
    }

    fn consume(&mut self, n: usize) {
        match self {
            Decoder::Plain(r) => r.consume(n),
            Decoder::Gzip(r) => r.consume(n),
            Decoder::Lz4(r) => r.consume(n),
            Decoder::Zstd(r) => r.consume(n),
        }
    }
}

impl<R: BufRead> Read for Decoder<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Decoder::Plain(r) => r.read(buf),
            Decoder::Gzip(r) => r.read(buf),
            Decoder::Lz4(r) => r.read(buf),
            Decoder::Zstd(r) => r.read(buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block_encoder::BlockEncoder;
    use super::super::chunks::fill;
    use super::*;
    use crate::error::ArchiveError;

    /// The output of `zstd --long=31` from a pipe.
    const LONG: &[u8] = include_bytes!("../../../tests/fixtures/wrapped/long31.zst");

    #[test]
    fn a_window_that_is_too_large_is_not_damage() {
        let read = |memory: u64| {
            let (mut body, mut out) = (LONG, Vec::new());
            let mut decoder =
                Codec::Zstd.decoder(&mut body, &Limits::default().with_memory(memory))?;
            decoder.read_to_end(&mut out).map(|_| out)
        };
        assert!(read(4 << 30).unwrap().ends_with(b"dump complete\n--\n\n"));
        let e = ArchiveError::from_io(read(1 << 30).unwrap_err(), "data of t");
        assert!(
            matches!(e, ArchiveError::Limit(_)) && e.to_string().contains("2048 MiB"),
            "{e}"
        );
    }

    #[test]
    fn buffers_and_reads_have_the_same_bytes() {
        let data: Vec<u8> = (0..300_000_u32)
            .flat_map(|n| n.wrapping_mul(n).to_le_bytes())
            .collect();
        for codec in [Codec::None, Codec::Gzip, Codec::Lz4, Codec::Zstd] {
            let mut encoder = BlockEncoder::new(codec).unwrap();
            encoder.write(&data).unwrap();
            let packed = [
                std::mem::take(encoder.compressed()),
                encoder.finish().unwrap(),
            ]
            .concat();
            let (mut body, limits) = (&packed[..], Limits::default());
            let mut decoder = codec.decoder(&mut body, &limits).unwrap();
            let mut read = vec![0; 1000];
            decoder.read_exact(&mut read).unwrap();
            // Of each buffer, something is left.
            for want in (2000..).step_by(77_777) {
                if fill(&mut decoder, &mut read, want).unwrap() {
                    break;
                }
                assert_eq!(read.len(), want);
            }
            assert!(read == data, "{codec:?}");
        }
    }
}
