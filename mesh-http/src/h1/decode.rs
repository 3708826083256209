use bytes::BytesMut;

use super::{
    chunk::{ChunkDecoder, ChunkError, Decoded},
    framing::BodyLength,
    head::HeadLimits,
};

/// Reads a body to its end, whatever its framing.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    /// Nothing follows.
    Done,
    Length(u64),
    Chunked(Box<ChunkDecoder>),
    UntilClose,
}

impl BodyDecoder {
    pub(crate) fn new(length: BodyLength, limits: HeadLimits) -> Self {
        match length {
            BodyLength::Empty => Self::Done,
            BodyLength::Length(n) => Self::Length(n),
            BodyLength::Chunked => Self::Chunked(Box::new(ChunkDecoder::new(limits))),
            BodyLength::UntilClose => Self::UntilClose,
        }
    }

    /// Whether the body has been read to its end.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Done => true,
            Self::Chunked(chunks) => chunks.is_done(),
            Self::Length(left) => *left == 0,
            Self::UntilClose => false,
        }
    }

    /// Bytes still to come, when that is known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Done => Some(0),
            Self::Length(left) => Some(*left),
            Self::Chunked(chunks) => chunks.is_done().then_some(0),
            Self::UntilClose => None,
        }
    }

    /// Whether the peer may close now without having cut the body short. Ends a body that lasts until then.
    pub(crate) fn on_close(&mut self) -> bool {
        if matches!(self, Self::UntilClose) {
            *self = Self::Done;
        }
        self.is_done()
    }

    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, ChunkError> {
        match self {
            Self::Done | Self::Length(0) => Ok(Decoded::End),
            Self::Chunked(chunks) => chunks.decode(buf),
            _ if buf.is_empty() => Ok(Decoded::NeedMore),
            Self::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
                *left -= n as u64;
                Ok(Decoded::Data(buf.split_to(n).freeze()))
            }
            Self::UntilClose => Ok(Decoded::Data(buf.split().freeze())),
        }
    }
}
