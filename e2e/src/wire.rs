//! HTTP/1.1 framing as a plain reader of bytes, strict about nothing but what it needs.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::tls::{Agreed, agreed};
use crate::wait::Deadline;

/// A head that grows beyond this is not HTTP; reading it ends as [`End::Garbage`].
const HEAD_BYTES_MAX: usize = 16 << 20;

/// Why reading stopped before what was wanted had arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed, in an orderly way or by a reset (which of the two is a race on loopback).
    Closed,
    /// Nothing more came before the deadline.
    TimedOut,
    /// What came is not HTTP.
    Garbage,
    /// The stream was reset, for this reason. HTTP/2.
    Reset(u32),
    /// The peer does not look at the stream, for this reason. HTTP/2.
    GoAway(u32),
}

/// A start line and its fields, exactly as they were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The request or status line, without its line end.
    pub start: String,
    /// Names and values in order; the case of names is kept, whitespace around values is not.
    pub fields: Vec<(String, String)>,
    /// The bytes, with the empty line.
    pub raw: Vec<u8>,
}

impl Head {
    fn parse(raw: Vec<u8>) -> Self {
        let mut lines = raw
            .split(|b| *b == b'\n')
            .map(|l| l.strip_suffix(b"\r").unwrap_or(l));
        let start = printable(lines.next().unwrap_or_default());
        Self {
            start,
            fields: fields(lines),
            raw,
        }
    }

    /// The first value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.fields, name)
    }

    /// Whether a comma-separated field lists this token.
    #[must_use]
    pub fn lists(&self, name: &str, token: &str) -> bool {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .flat_map(|(_, v)| v.split(','))
            .any(|t| t.trim().eq_ignore_ascii_case(token))
    }

    /// How the message that this head starts is framed.
    #[must_use]
    pub fn framing(&self) -> Framing {
        if self.field("transfer-encoding").is_some() {
            Framing::Chunked
        } else if let Some(length) = self.field("content-length") {
            length.parse().map_or(Framing::Absent, Framing::Length)
        } else {
            Framing::Absent
        }
    }
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// Neither: no body in a request, until the connection closes in a response.
    Absent,
}

/// A body with its trailers; `end` says why it is incomplete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// The content, without its framing.
    pub data: Vec<u8>,
    /// Fields after the last chunk.
    pub trailers: Vec<(String, String)>,
    /// `None` when the whole body arrived.
    pub end: Option<End>,
}

/// A socket with what was read from it and not yet used.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    tls: Option<Box<rustls::ClientConnection>>,
    tls_error: Option<String>,
    buffer: Vec<u8>,
}

impl Wire {
    /// Starts reading from a socket.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self::over(stream, None)
    }

    pub(crate) fn over(stream: TcpStream, tls: Option<rustls::ClientConnection>) -> Self {
        Self {
            stream,
            tls: tls.map(Box::new),
            tls_error: None,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn agreed(&self) -> Option<Agreed> {
        self.tls.as_deref().map(agreed)
    }

    pub(crate) fn tls_error(&self) -> Option<&str> {
        self.tls_error.as_deref()
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// When the peer has closed.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).write_all(bytes),
        }
    }

    /// Says over TLS, if there is any, that nothing more will be sent.
    pub(crate) fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.complete_io(&mut self.stream);
        }
    }

    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.stream.read(piece),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(piece),
        }
    }

    /// The socket.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Reads the next head.
    ///
    /// # Errors
    /// How reading ended instead.
    pub fn head(&mut self, deadline: Deadline) -> Result<Head, End> {
        loop {
            if let Some(length) = head_length(&self.buffer) {
                return Ok(Head::parse(self.take(length)));
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(End::Garbage);
            }
            if let Err(end) = self.fill(deadline) {
                let empty = self.buffer.is_empty() || end == End::TimedOut;
                return Err(if empty { end } else { End::Garbage });
            }
        }
    }

    /// Reads a body framed in this way; `Absent` reads nothing.
    pub fn body(&mut self, framing: Framing, deadline: Deadline) -> Body {
        let mut body = Body::default();
        let read = match framing {
            Framing::Absent => Ok(()),
            Framing::Length(length) => self.exactly(length, &mut body.data, deadline),
            Framing::Chunked => self.chunks(&mut body, deadline),
        };
        body.end = read.err();
        body
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// How reading ended instead.
    pub fn bytes(&mut self, length: usize, deadline: Deadline) -> Result<Vec<u8>, End> {
        while self.buffer.len() < length {
            self.fill(deadline)?;
        }
        Ok(self.take(length))
    }

    /// Reads whatever is there, or comes next.
    ///
    /// # Errors
    /// How reading ended instead.
    pub fn some(&mut self, deadline: Deadline) -> Result<Vec<u8>, End> {
        if self.buffer.is_empty() {
            self.fill(deadline)?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads until the peer closes.
    pub fn to_end(&mut self, deadline: Deadline) -> Body {
        let end = loop {
            if let Err(end) = self.fill(deadline) {
                break end;
            }
        };
        Body {
            data: std::mem::take(&mut self.buffer),
            end: (end != End::Closed).then_some(end),
            ..Body::default()
        }
    }

    /// Whether the peer closes before the deadline without sending anything more.
    pub fn closes(&mut self, deadline: Deadline) -> bool {
        self.buffer.is_empty() && self.fill(deadline) == Err(End::Closed)
    }

    fn exactly(&mut self, length: u64, into: &mut Vec<u8>, deadline: Deadline) -> Result<(), End> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        while self.buffer.len() < length {
            if let Err(end) = self.fill(deadline) {
                into.append(&mut self.buffer);
                return Err(end);
            }
        }
        into.extend(self.take(length));
        Ok(())
    }

    fn chunks(&mut self, body: &mut Body, deadline: Deadline) -> Result<(), End> {
        loop {
            let line = self.line(deadline)?;
            let size = line
                .split(|b| *b == b';')
                .next()
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok())
                .ok_or(End::Garbage)?;
            if size == 0 {
                break;
            }
            self.exactly(size, &mut body.data, deadline)?;
            if !self.line(deadline)?.is_empty() {
                return Err(End::Garbage);
            }
        }
        loop {
            let line = self.line(deadline)?;
            if line.is_empty() {
                return Ok(());
            }
            body.trailers.extend(fields([line.as_slice()].into_iter()));
        }
    }

    fn line(&mut self, deadline: Deadline) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line = self.take(at + 1);
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            self.fill(deadline)?;
        }
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(length);
        std::mem::replace(&mut self.buffer, rest)
    }

    fn fill(&mut self, deadline: Deadline) -> Result<(), End> {
        let left = deadline.left().ok_or(End::TimedOut)?;
        // A zero timeout is refused by the standard library, so the smallest one stands in.
        let timeout = left.max(Duration::from_millis(1));
        self.stream
            .set_read_timeout(Some(timeout))
            .map_err(|_| End::Closed)?;
        let mut piece = [0; 16 << 10];
        match self.read(&mut piece) {
            Ok(0) => Err(End::Closed),
            Ok(n) => {
                self.buffer.extend_from_slice(&piece[..n]);
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(()),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(End::TimedOut)
            }
            Err(error) => {
                if self.tls.is_some() {
                    self.tls_error = Some(error.to_string());
                }
                Err(End::Closed)
            }
        }
    }
}

/// The first value of a field, whatever the case of its name.
#[must_use]
pub fn field<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Bytes as text that shows on one line and differs when the bytes differ.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control() || c == '\\') => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<(String, String)> {
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            (printable(&line[..colon]), printable(value.trim_ascii()))
        })
        .collect()
}

/// The length of the head at the start of `bytes`, with its empty line, once that is there.
fn head_length(bytes: &[u8]) -> Option<usize> {
    let crlf = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4);
    let lf = bytes.windows(2).position(|w| w == b"\n\n").map(|at| at + 2);
    crlf.into_iter().chain(lf).min()
}
