use std::io::{self, Write};

use brotli::CompressorWriter;
use bytes::Bytes;
use flate2::write::GzEncoder;

use crate::{Coding, Compression};

/// Bytes that brotli writes at a time.
const BROTLI_BUFFER: usize = 4096;
/// Envoy's default: 256 KiB.
const BROTLI_WINDOW_BITS: u32 = 18;

/// Compresses a body piece by piece.
pub(crate) enum Encoder {
    Gzip(GzEncoder<Vec<u8>>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    /// All of it was handed over.
    Done,
}

impl Encoder {
    pub(crate) fn new(compression: Compression) -> io::Result<Self> {
        let level = u32::from(compression.level());
        Ok(match compression.coding() {
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), flate2::Compression::new(level))),
            Coding::Brotli => Self::Brotli(Box::new(CompressorWriter::new(
                Vec::new(),
                BROTLI_BUFFER,
                level,
                BROTLI_WINDOW_BITS,
            ))),
            Coding::Zstd => {
                let level = i32::from(compression.level());
                Self::Zstd(zstd::stream::write::Encoder::new(Vec::new(), level)?)
            }
        })
    }

    pub(crate) fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(data),
            Self::Brotli(encoder) => encoder.write_all(data),
            Self::Zstd(encoder) => encoder.write_all(data),
            Self::Done => Ok(()),
        }
    }

    /// Lets out all that was written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.flush(),
            Self::Brotli(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
            Self::Done => Ok(()),
        }
    }

    /// What has come out since the last time.
    pub(crate) fn take(&mut self) -> Bytes {
        match self {
            Self::Gzip(encoder) => std::mem::take(encoder.get_mut()).into(),
            Self::Brotli(encoder) => std::mem::take(encoder.get_mut()).into(),
            Self::Zstd(encoder) => std::mem::take(encoder.get_mut()).into(),
            Self::Done => Bytes::new(),
        }
    }

    pub(crate) fn ready(&self) -> usize {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().len(),
            Self::Brotli(encoder) => encoder.get_ref().len(),
            Self::Zstd(encoder) => encoder.get_ref().len(),
            Self::Done => 0,
        }
    }

    /// The rest.
    pub(crate) fn finish(&mut self) -> io::Result<Bytes> {
        let rest = match std::mem::replace(self, Self::Done) {
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Done => Vec::new(),
        };
        Ok(rest.into())
    }
}
