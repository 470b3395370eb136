//! The compression of a data block that is written.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use lz4_flex::frame::FrameEncoder;

use super::Codec;

/// Compresses the body of one block; what it has compressed is taken from it as it grows.
pub(super) enum BlockEncoder {
    Plain(Vec<u8>),
    Gzip(Box<ZlibEncoder<Vec<u8>>>),
    Lz4(Box<FrameEncoder<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
}

impl BlockEncoder {
    /// With the levels that `pg_dump` uses unless it is told another one.
    pub(super) fn new(codec: Codec) -> std::io::Result<Self> {
        Ok(match codec {
            Codec::None => BlockEncoder::Plain(Vec::new()),
            Codec::Gzip => BlockEncoder::Gzip(Box::new(ZlibEncoder::new(
                Vec::new(),
                Compression::default(),
            ))),
            Codec::Lz4 => BlockEncoder::Lz4(Box::new(FrameEncoder::new(Vec::new()))),
            Codec::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), level)?;
                BlockEncoder::Zstd(Box::new(encoder))
            }
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            BlockEncoder::Plain(out) => out.write_all(bytes),
            BlockEncoder::Gzip(encoder) => encoder.write_all(bytes),
            BlockEncoder::Lz4(encoder) => encoder.write_all(bytes),
            BlockEncoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    /// What has been compressed and not been taken; the caller clears it.
    pub(super) fn compressed(&mut self) -> &mut Vec<u8> {
        match self {
            BlockEncoder::Plain(out) => out,
            BlockEncoder::Gzip(encoder) => encoder.get_mut(),
            BlockEncoder::Lz4(encoder) => encoder.get_mut(),
            BlockEncoder::Zstd(encoder) => encoder.get_mut(),
        }
    }

    /// The rest, with the end of the compressed stream.
    pub(super) fn finish(self) -> std::io::Result<Vec<u8>> {
        match self {
            BlockEncoder::Plain(out) => Ok(out),
            BlockEncoder::Gzip(encoder) => encoder.finish(),
            BlockEncoder::Lz4(encoder) => Ok(encoder.finish()?),
            BlockEncoder::Zstd(encoder) => encoder.finish(),
        }
    }
}
