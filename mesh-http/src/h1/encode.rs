use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};

use super::buffer::WriteBuffer;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyEncoder {
    /// There is none.
    None,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks; whether trailers are written.
    Chunked { trailers: bool },
    /// Until the connection closes.
    UntilClose,
}

/// The body does not have the length that its head announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrongLength;

impl BodyEncoder {
    pub(crate) fn data(&mut self, data: Bytes, out: &mut WriteBuffer) -> Result<(), WrongLength> {
        match self {
            _ if data.is_empty() => {}
            Self::None => return Err(WrongLength),
            Self::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                out.push(data);
            }
            Self::Chunked { .. } => {
                write_hex(&mut out.flat, data.len() as u64);
                out.flat.extend_from_slice(b"\r\n");
                out.push(data);
                out.flat.extend_from_slice(b"\r\n");
            }
            Self::UntilClose => out.push(data),
        }
        Ok(())
    }

    /// The body is over. An error means that it was too short: the connection must not go on.
    pub(crate) fn end(
        &mut self,
        trailers: Option<&HeaderMap>,
        out: &mut WriteBuffer,
    ) -> Result<(), WrongLength> {
        match *self {
            Self::Length(left) if left > 0 => return Err(WrongLength),
            Self::Chunked { trailers: wanted } => {
                out.flat.extend_from_slice(b"0\r\n");
                if let Some(trailers) = trailers.filter(|_| wanted) {
                    write_headers(&mut out.flat, trailers);
                }
                out.flat.extend_from_slice(b"\r\n");
            }
            _ => {}
        }
        *self = Self::None;
        Ok(())
    }
}

fn write_hex(out: &mut BytesMut, mut n: u64) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_headers(out: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        write_header(out, name.as_str(), value.as_bytes());
    }
}

pub(crate) fn write_header(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Reserves room for a head, so that it is written in one piece.
fn reserve(out: &mut BytesMut, headers: &HeaderMap, body: usize) {
    let size: usize = headers
        .iter()
        .map(|(n, v)| n.as_str().len() + v.len() + 4)
        .sum();
    out.reserve(size + 160 + body);
}

/// Writes a request's head. Framing headers are ours: those of `request` are left out.
pub(crate) fn request_head<B>(
    request: &Request<B>,
    encoder: BodyEncoder,
    body_hint: usize,
    out: &mut BytesMut,
) {
    reserve(
        out,
        request.headers(),
        body_hint + request.uri().path().len(),
    );
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.extend_from_slice(b" ");
    write_target(out, request.method(), request.uri());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = request.headers().get(header::HOST) {
        write_header(out, "host", host.as_bytes());
    }
    for (name, value) in request.headers() {
        if name != header::HOST
            && name != header::CONTENT_LENGTH
            && name != header::TRANSFER_ENCODING
        {
            write_header(out, name.as_str(), value.as_bytes());
        }
    }
    match encoder {
        BodyEncoder::Length(n) => write_length(out, n),
        BodyEncoder::Chunked { .. } => write_header(out, "transfer-encoding", b"chunked"),
        // A method that usually has a body says so when there is none.
        BodyEncoder::None if request.headers().contains_key(header::CONTENT_LENGTH) => {
            write_length(out, 0);
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn write_target(out: &mut BytesMut, method: &Method, uri: &Uri) {
    match (method, uri.path_and_query(), uri.authority()) {
        (&Method::CONNECT, _, Some(authority)) => {
            out.extend_from_slice(authority.as_str().as_bytes());
        }
        (_, Some(target), _) => out.extend_from_slice(target.as_str().as_bytes()),
        _ => out.extend_from_slice(b"/"),
    }
}

fn write_length(out: &mut BytesMut, n: u64) {
    write_header(
        out,
        "content-length",
        itoa::Buffer::new().format(n).as_bytes(),
    );
}

/// What a response says in `connection`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectionHeader {
    /// Nothing.
    None,
    /// That it ends.
    Close,
    /// What it says itself, as it turns into a tunnel.
    Kept,
}

/// Writes a response's head. `content-length` is kept where the body itself is not sent (HEAD, 304), and is
/// ours otherwise.
pub(crate) fn response_head<B>(
    response: &Response<B>,
    encoder: BodyEncoder,
    keep_length: bool,
    connection: ConnectionHeader,
    body_hint: usize,
    out: &mut BytesMut,
) {
    reserve(out, response.headers(), body_hint);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status().as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(reason(response.status()).as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in response.headers() {
        if name == header::CONTENT_LENGTH && !keep_length
            || name == header::TRANSFER_ENCODING
            || name == header::CONNECTION && connection != ConnectionHeader::Kept
        {
            continue;
        }
        has_date |= name == header::DATE;
        write_header(out, name.as_str(), value.as_bytes());
    }
    match encoder {
        BodyEncoder::Length(n) => write_length(out, n),
        BodyEncoder::Chunked { .. } => write_header(out, "transfer-encoding", b"chunked"),
        BodyEncoder::None if !keep_length && has_length(response.status()) => write_length(out, 0),
        _ => {}
    }
    if !has_date {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(&crate::date::text());
        out.extend_from_slice(b"\r\n");
    }
    if connection == ConnectionHeader::Close {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a response without a body says so with `content-length: 0`.
fn has_length(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

fn reason(status: StatusCode) -> &'static str {
    // The joke is no phrase of RFC 9110, and Envoy does not tell it either.
    let known = status
        .canonical_reason()
        .filter(|_| status != StatusCode::IM_A_TEAPOT);
    known.unwrap_or("Unknown")
}
