use std::io::{self, Write};

use brotli::DecompressorWriter;
use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{DParameter, InBuffer, Operation as _, OutBuffer};

use crate::Coding;

const BROTLI_BUFFER: usize = 4096;
const ZSTD_BUFFER: usize = 16 * 1024;

/// 8 MiB: how far back a frame may refer, and so what it may make us keep. RFC 9659 asks senders of the coding
/// not to use more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// Decompresses a body piece by piece, as far as [`Expansion`] lets it.
pub(crate) enum Decoder {
    Gzip(Box<MultiGzDecoder<Sink>>),
    Brotli(Box<DecompressorWriter<Sink>>),
    Zstd(Box<Zstd>),
}

pub(crate) struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    sink: Sink,
    /// A frame has begun and has not ended.
    open: bool,
}

/// How much a body may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// So many times what has come in, at most. Default 100. Envoy: `max_inflate_ratio` of gzip.
    pub max_inflate_ratio: u32,
    /// Bytes that may come out whatever the ratio. Default 64 KiB.
    pub free_bytes: u64,
    /// Bytes that may come out, all together. Default: no bound.
    pub max_bytes: Option<u64>,
}

impl Default for Expansion {
    fn default() -> Self {
        Self {
            max_inflate_ratio: 100,
            free_bytes: 64 * 1024,
            max_bytes: None,
        }
    }
}

/// What a decoder may hold back of one piece and let go with the next.
const HELD_BACK_MAX: u64 = 1 << 20;

impl Expansion {
    /// How much one piece of `bytes` may become: what earlier pieces have not used up does not count, so
    /// that no single call works or allocates without bound.
    fn piece_limit(&self, bytes: usize) -> u64 {
        (bytes as u64)
            .saturating_mul(self.max_inflate_ratio.into())
            .saturating_add(self.free_bytes.max(HELD_BACK_MAX))
    }

    fn limit(&self, came_in: u64) -> u64 {
        let by_ratio = came_in.saturating_mul(self.max_inflate_ratio.into());
        let limit = by_ratio.max(self.free_bytes);
        self.max_bytes.map_or(limit, |most| limit.min(most))
    }
}

/// Why a body cannot be decompressed.
#[derive(Debug)]
pub(crate) enum DecodeError {
    /// It would grow beyond its limit.
    Grows,
    /// It is not what it says, or is cut off.
    Malformed(io::Error),
}

/// Where decompressed bytes go: nothing beyond the limit is kept.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    out: Vec<u8>,
    came_out: u64,
    limit: u64,
    full: bool,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() as u64 > self.limit.saturating_sub(self.came_out) {
            self.full = true;
            return Err(io::Error::other("it expands too far"));
        }
        self.came_out += data.len() as u64;
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Frames whose window is larger than [`ZSTD_WINDOW_LOG_MAX`] are refused.
fn zstd_decoder() -> io::Result<zstd::stream::raw::Decoder<'static>> {
    let mut decoder = zstd::stream::raw::Decoder::new()?;
    decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX))?;
    Ok(decoder)
}

impl Decoder {
    pub(crate) fn new(coding: Coding) -> io::Result<Self> {
        let sink = Sink::default();
        Ok(match coding {
            Coding::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Coding::Brotli => Self::Brotli(Box::new(DecompressorWriter::new(sink, BROTLI_BUFFER))),
            Coding::Zstd => Self::Zstd(Box::new(Zstd {
                decoder: zstd_decoder()?,
                sink,
                open: false,
            })),
        })
    }

    /// `came_in` counts all bytes so far, these included.
    pub(crate) fn write(
        &mut self,
        data: &[u8],
        came_in: u64,
        expansion: &Expansion,
    ) -> Result<(), DecodeError> {
        let by_piece = expansion.piece_limit(data.len());
        let sink = self.sink();
        sink.limit = expansion
            .limit(came_in)
            .min(sink.came_out.saturating_add(by_piece));
        let result = match self {
            Self::Gzip(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Brotli(decoder) => decoder.write_all(data).and_then(|()| decoder.flush()),
            Self::Zstd(decoder) => decoder.write(data),
        };
        self.judge(result)
    }

    pub(crate) fn finish(&mut self) -> Result<(), DecodeError> {
        let result = match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Brotli(decoder) => decoder.close(),
            Self::Zstd(decoder) if decoder.open => Err(io::ErrorKind::UnexpectedEof.into()),
            Self::Zstd(_) => Ok(()),
        };
        self.judge(result)
    }

    pub(crate) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.sink().out).into()
    }

    pub(crate) fn ready(&mut self) -> usize {
        self.sink().out.len()
    }

    fn judge(&mut self, result: io::Result<()>) -> Result<(), DecodeError> {
        match result {
            _ if self.sink().full => Err(DecodeError::Grows),
            Ok(()) => Ok(()),
            Err(error) => Err(DecodeError::Malformed(error)),
        }
    }

    fn sink(&mut self) -> &mut Sink {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Brotli(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => &mut decoder.sink,
        }
    }
}

impl Zstd {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(data);
        let mut piece = [0; ZSTD_BUFFER];
        loop {
            let before = input.pos();
            let mut output = OutBuffer::around(&mut piece[..]);
            let hint = self.decoder.run(&mut input, &mut output)?;
            let written = output.pos();
            self.open = hint > 0;
            self.sink.write_all(&piece[..written])?;
            let all_read = input.pos() == data.len();
            // A full piece may not be all: ask again, for what is left inside.
            if all_read && written < ZSTD_BUFFER {
                return Ok(());
            }
            if written == 0 && input.pos() == before {
                return Ok(());
            }
        }
    }
}
