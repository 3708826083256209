//! An HTTP/1.1 client that sends exact bytes and reads exact bytes.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::tls::Agreed;
use crate::wait::{Deadline, WAIT_MAX};
use crate::wire::{Body, End, Framing, Head, Wire};

/// One response, with whatever interim responses came before it.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status, or 0 when no response came.
    pub status: u16,
    /// The final head.
    pub head: Head,
    /// Content and trailers.
    pub body: Body,
    /// Heads of 1xx responses.
    pub interim: Vec<Head>,
    /// Why there is no head, when there is none.
    pub missing: Option<End>,
}

impl Response {
    fn missing(end: End, interim: Vec<Head>) -> Self {
        Self {
            missing: Some(end),
            interim,
            ..Self::default()
        }
    }
}

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    wire: Wire,
    deadline: Duration,
    closing: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn open(address: SocketAddr) -> Result<Self> {
        Ok(Self::over(Self::socket(address)?, None))
    }

    pub(crate) fn socket(address: SocketAddr) -> Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        Ok(stream)
    }

    pub(crate) fn over(stream: TcpStream, tls: Option<rustls::ClientConnection>) -> Self {
        Self {
            wire: Wire::over(stream, tls),
            deadline: WAIT_MAX,
            closing: false,
        }
    }

    /// What the TLS handshake brought, if there was one.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.wire.agreed()
    }

    /// Why TLS ended the connection, if it did: in TLS 1.3 a client that is refused learns it here.
    #[must_use]
    pub fn tls_error(&self) -> Option<&str> {
        self.wire.tls_error()
    }

    /// Changes how long a read may take: [`WAIT_MAX`] at first.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Sends bytes as they are. A peer that has closed already is noticed when reading.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.wire.write_all(bytes);
    }

    /// Tells the peer that nothing more will be sent.
    pub fn finish(&mut self) {
        self.wire.close_notify();
        let _ = self.wire.stream().shutdown(std::net::Shutdown::Write);
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let _ = socket2::SockRef::from(self.wire.stream()).set_linger(Some(Duration::ZERO));
    }

    /// Reads one response; `to_head` when the request was a HEAD.
    pub fn response(&mut self, to_head: bool) -> Response {
        let mut interim = Vec::new();
        let head = loop {
            match self.wire.head(self.until()) {
                Err(end) => return Response::missing(end, interim),
                Ok(head) => match status(&head) {
                    None => return Response::missing(End::Garbage, interim),
                    Some(100 | 102..=199) => interim.push(head),
                    Some(_) => break head,
                },
            }
        };
        let status = status(&head).unwrap_or_default();
        let bodiless = to_head || matches!(status, 101 | 204 | 304);
        let framing = head.framing();
        let body = match framing {
            _ if bodiless => Body::default(),
            Framing::Absent => {
                self.closing = true;
                self.wire.to_end(self.until())
            }
            framing => self.wire.body(framing, self.until()),
        };
        self.closing |= head.lists("connection", "close") || body.end.is_some();
        Response {
            status,
            head,
            body,
            interim,
            missing: None,
        }
    }

    /// Reads only a head, for a response whose body must stay on its way.
    ///
    /// # Errors
    /// How reading ended instead.
    pub fn head(&mut self) -> Result<Head, End> {
        self.wire.head(self.until())
    }

    /// Whether the peer keeps the connection, decided by a fact instead of a pause: where the last
    /// response announced a close, its end is awaited; otherwise `probe` is sent and answered or not.
    pub fn is_kept(&mut self, probe: &[u8]) -> bool {
        if self.closing && self.wire.closes(self.until()) {
            return false;
        }
        self.send(probe);
        self.response(false).missing.is_none()
    }

    /// Reads so many bytes, or those that come before reading ends.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let until = self.until();
        self.wire.body(Framing::Length(length as u64), until).data
    }

    /// Whether the peer closes, without sending anything more, before the deadline.
    pub fn closes(&mut self) -> bool {
        let until = self.until();
        self.wire.closes(until)
    }

    fn until(&self) -> Deadline {
        Deadline::after(self.deadline)
    }
}

fn status(head: &Head) -> Option<u16> {
    let (version, rest) = head.start.split_once(' ')?;
    version.starts_with("HTTP/1.").then_some(())?;
    rest.get(..3)?.parse().ok()
}
