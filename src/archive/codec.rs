//! The compression of an archive's data blocks.

use std::io::{BufRead, Read};

use super::Limits;
use super::inflate::Zlib;

/// Compression of the data blocks, as the header names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    None,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }

    /// A streaming decompressor over one block body. A body without a byte is an empty stream
    /// whatever the codec: `pg_dump` writes nothing for an empty large object.
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
                let mut d = zstd::stream::read::Decoder::with_buffer(body)?;
                d.window_log_max(limits.zstd_window_log)?;
                Decoder::Zstd(Box::new(d))
            }
        })
    }
}

pub(super) enum Decoder<'a, R: BufRead> {
    Plain(&'a mut R),
    Gzip(Box<Zlib<&'a mut R>>),
    Lz4(Box<lz4_flex::frame::FrameDecoder<&'a mut R>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a mut R>>),
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
