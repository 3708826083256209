use std::fmt;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::head::HeadLimits;

/// The longest line with a chunk's size and extensions; a longer one is refused.
const CHUNK_LINE_MAX: usize = 1024;
/// All chunk extensions of one body together; more is refused.
const EXTENSIONS_MAX: usize = 16 * 1024;

/// Why a chunked body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChunkError {
    /// The size is not one to sixteen hexadecimal digits.
    Size,
    /// The line of a size is too long, or the extensions together are.
    TooLong,
    /// A line does not end in exactly CR LF, or data runs on beyond its chunk.
    LineEnd,
    /// The trailers are malformed.
    Trailers,
    /// The trailers are larger than heads may be.
    TrailersTooLarge,
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size => "invalid chunk size",
            Self::TooLong => "chunk extensions are too long",
            Self::LineEnd => "a chunk does not end in CR LF",
            Self::Trailers => "malformed trailers",
            Self::TrailersTooLarge => "trailers are too large",
        })
    }
}

impl std::error::Error for ChunkError {}

/// What the next bytes of a body are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded {
    /// Some of the data.
    Data(Bytes),
    /// The trailers; nothing follows.
    Trailers(HeaderMap),
    /// Nothing follows.
    End,
    /// More bytes are needed.
    NeedMore,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

/// Reads `chunked`. A bare LF, white space around the size, a sign or a `0x` are refused: each of them
/// has split somebody's requests.
#[derive(Debug)]
pub(crate) struct ChunkDecoder {
    state: State,
    extensions: usize,
    limits: HeadLimits,
}

impl ChunkDecoder {
    pub(crate) const fn new(limits: HeadLimits) -> Self {
        Self {
            state: State::Size,
            extensions: 0,
            limits,
        }
    }

    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, ChunkError> {
        loop {
            match self.state {
                State::Size => match self.size(buf)? {
                    None => return Ok(Decoded::NeedMore),
                    Some(0) => self.state = State::Trailers,
                    Some(size) => self.state = State::Data(size),
                },
                State::Data(_) if buf.is_empty() => return Ok(Decoded::NeedMore),
                State::Data(left) => {
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
                    let left = left - n as u64;
                    self.state = if left == 0 {
                        State::DataEnd
                    } else {
                        State::Data(left)
                    };
                    return Ok(Decoded::Data(buf.split_to(n).freeze()));
                }
                State::DataEnd => match buf.get(..2) {
                    Some(b"\r\n") => {
                        buf.advance(2);
                        self.state = State::Size;
                    }
                    None if buf.is_empty() || buf[..] == b"\r"[..] => return Ok(Decoded::NeedMore),
                    _ => return Err(ChunkError::LineEnd),
                },
                State::Trailers => return self.trailers(buf),
                State::Done => return Ok(Decoded::End),
            }
        }
    }

    /// Reads a line `size [ ";" extensions ] CR LF`.
    fn size(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, ChunkError> {
        let window = &buf[..buf.len().min(CHUNK_LINE_MAX)];
        let Some(end) = memchr::memchr(b'\n', window) else {
            let digits = window.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let bad = window
                .get(digits)
                .is_some_and(|b| !matches!(b, b';' | b'\r'));
            return match () {
                () if bad || digits > 16 => Err(ChunkError::Size),
                () if window.len() == CHUNK_LINE_MAX => Err(ChunkError::TooLong),
                () => Ok(None),
            };
        };
        let Some(line) = window[..end].strip_suffix(b"\r") else {
            return Err(ChunkError::LineEnd);
        };
        let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
        let extensions = &line[digits..];
        if digits == 0 || digits > 16 || extensions.first().is_some_and(|&b| b != b';') {
            return Err(ChunkError::Size);
        }
        if extensions
            .iter()
            .any(|&b| (b < b' ' && b != b'\t') || b == 0x7f)
        {
            return Err(ChunkError::LineEnd);
        }
        self.extensions += extensions.len();
        if self.extensions > EXTENSIONS_MAX {
            return Err(ChunkError::TooLong);
        }
        let size = line[..digits].iter().fold(0u64, |n, b| {
            (n << 4) | u64::from((*b as char).to_digit(16).unwrap_or_default())
        });
        buf.advance(end + 1);
        Ok(Some(size))
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, ChunkError> {
        if buf.starts_with(b"\r\n") {
            buf.advance(2);
            self.state = State::Done;
            return Ok(Decoded::End);
        }
        if buf.is_empty() || buf[..] == b"\r"[..] {
            return Ok(Decoded::NeedMore);
        }
        let window = &buf[..buf.len().min(self.limits.bytes)];
        let Some(end) = memchr::memmem::find(window, b"\r\n\r\n") else {
            if window.len() == self.limits.bytes {
                return Err(ChunkError::TrailersTooLarge);
            }
            return Ok(Decoded::NeedMore);
        };
        let block = buf.split_to(end + 4);
        // A lone LF would end a line for some readers and not for others.
        if memchr::memchr_iter(b'\n', &block).any(|at| at == 0 || block[at - 1] != b'\r') {
            return Err(ChunkError::LineEnd);
        }
        let mut parsed = vec![httparse::EMPTY_HEADER; self.limits.count];
        let headers = match httparse::parse_headers(&block, &mut parsed) {
            Ok(httparse::Status::Complete((_, headers))) => headers,
            Ok(httparse::Status::Partial) => return Err(ChunkError::Trailers),
            Err(httparse::Error::TooManyHeaders) => return Err(ChunkError::TrailersTooLarge),
            Err(_) => return Err(ChunkError::Trailers),
        };
        let mut trailers = HeaderMap::with_capacity(headers.len());
        for header in headers {
            let name =
                HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| ChunkError::Trailers)?;
            let value = HeaderValue::from_bytes(header.value).map_err(|_| ChunkError::Trailers)?;
            if !forbidden_in_trailers(&name) {
                trailers.append(name, value);
            }
        }
        self.state = State::Done;
        Ok(Decoded::Trailers(trailers))
    }
}

/// Fields that change framing or routing must not come late; they are dropped.
fn forbidden_in_trailers(name: &HeaderName) -> bool {
    [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TRAILER,
        header::TE,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
    ]
    .contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str().starts_with("x-envoy-")
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::{ChunkDecoder, ChunkError, Decoded};
    use crate::h1::HeadLimits;

    type Read = (Vec<u8>, Vec<(String, String)>, Vec<u8>);

    /// Feeds `input` in pieces of `step` bytes; the data, the trailers and what is left over.
    fn run(input: &[u8], step: usize) -> Result<Read, ChunkError> {
        let mut decoder = ChunkDecoder::new(HeadLimits::default());
        let (mut data, mut trailers, mut buf) = (Vec::new(), Vec::new(), BytesMut::new());
        let mut pieces = input.chunks(step);
        loop {
            match decoder.decode(&mut buf)? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::Trailers(map) => {
                    trailers = map
                        .iter()
                        .map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned()))
                        .collect();
                }
                Decoded::End => break,
                Decoded::NeedMore => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return Ok((data, trailers, b"incomplete".to_vec())),
                },
            }
        }
        pieces.for_each(|piece| buf.extend_from_slice(piece));
        Ok((data, trailers, buf.to_vec()))
    }

    #[test]
    fn reads_chunks_extensions_and_trailers_whatever_the_pieces() {
        let input =
            b"5;a=b\r\nhello\r\n06\r\n world\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\nNEXT";
        for step in 1..input.len() {
            let (data, trailers, rest) = run(input, step).unwrap();
            assert_eq!(data, b"hello world");
            assert_eq!(trailers, [("x-sum".to_owned(), "1".to_owned())]);
            assert_eq!(rest, b"NEXT");
        }
    }

    #[test]
    fn refuses_what_has_split_requests_elsewhere() {
        for (input, expected) in [
            (&b"5\nhello\r\n0\r\n\r\n"[..], ChunkError::LineEnd),
            (b"5\r\nhello!\r\n0\r\n\r\n", ChunkError::LineEnd),
            (b"5\r\nhello\n0\r\n\r\n", ChunkError::LineEnd),
            (b"5 \r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b" 5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"0x5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"+5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"-1\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"10000000000000005\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"5;a\rb\r\nhello\r\n0\r\n\r\n", ChunkError::LineEnd),
            (b"5;a\nhello\r\n0\r\n\r\n", ChunkError::LineEnd),
            (b"0\r\nX : y\r\n\r\n", ChunkError::Trailers),
            (b"0\r\nX: y\nZ: 1\r\n\r\n", ChunkError::LineEnd),
        ] {
            for step in [1, input.len()] {
                assert_eq!(
                    run(input, step),
                    Err(expected),
                    "{}",
                    String::from_utf8_lossy(input)
                );
            }
        }
        let mut long = b"5;".to_vec();
        long.resize(4000, b'a');
        assert_eq!(run(&long, 100), Err(ChunkError::TooLong));
    }

    proptest! {
        #[test]
        fn any_split_of_any_body_reads_back(body in proptest::collection::vec(any::<u8>(), 0..300), size in 1usize..50, step in 1usize..60) {
            let mut wire = Vec::new();
            for chunk in body.chunks(size) {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let (data, _, rest) = run(&wire, step).unwrap();
            prop_assert_eq!(data, body);
            prop_assert_eq!(rest, b"");
        }

        #[test]
        fn arbitrary_bytes_never_panic(input in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let _ = run(&input, step);
        }
    }
}
