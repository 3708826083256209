//! Reads a ClientHello without answering it: which server a client asks for, and in which protocol.
//!
//! A listener peeks at the first bytes of a connection to choose its filter chain; the handshake reads them
//! again. [`HelloInspector`] is fed with bytes as they come, looks at each once, holds at most
//! [`CLIENT_HELLO_MAX`] of them, and never panics.

pub use crate::fingerprint::HelloShape;
use crate::fingerprint::{ALPN, SERVER_NAME};

/// The longest ClientHello, in bytes of its message; a longer one is [`Peek::TooLong`]. Envoy: 16 KiB.
pub const CLIENT_HELLO_MAX: usize = 16 * 1024;
/// The most records that one may come in; with more it is [`Peek::TooLong`].
const RECORDS_MAX: usize = 256;

/// Content type and protocol version, then the length of what follows.
const RECORD_HEADER: usize = 5;
/// Kind of message, then its length.
const MESSAGE_HEADER: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HOST_NAME: u8 = 0;

/// What a ClientHello says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HelloFacts {
    /// The server's name in lower case, if one is given.
    pub server_name: Option<String>,
    /// The application protocols, best first.
    pub alpn: Vec<Vec<u8>>,
}

/// What is known after some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peek {
    /// It may still be a ClientHello.
    NeedMore,
    /// It is one.
    Hello(HelloFacts),
    /// It is something else: plaintext, or broken.
    NotTls,
    /// It is longer than [`CLIENT_HELLO_MAX`], or comes in too many pieces.
    TooLong,
}

/// The state between two arrivals of bytes.
#[derive(Debug, Default)]
pub struct HelloInspector {
    seen: usize,
    header: Vec<u8>,
    /// What is left of the record that has begun.
    record_left: usize,
    records: usize,
    message: Vec<u8>,
    done: Option<Peek>,
}

impl HelloInspector {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it looked at: with a socket that is peeked into, what comes next begins here.
    #[must_use]
    pub const fn seen(&self) -> usize {
        self.seen
    }

    /// Looks at what came since the last call. After a verdict, every call gives the same.
    pub fn push(&mut self, bytes: &[u8]) -> Peek {
        for byte in bytes {
            if self.done.is_some() {
                break;
            }
            self.seen += 1;
            self.done = self.step(*byte);
        }
        self.done.clone().unwrap_or(Peek::NeedMore)
    }

    /// What the ClientHello offers in all, once it is known to be one.
    #[must_use]
    pub fn shape(&self) -> Option<HelloShape> {
        if !matches!(self.done, Some(Peek::Hello(_))) {
            return None;
        }
        read_shape(Reader(self.message.get(MESSAGE_HEADER..)?))
    }

    fn step(&mut self, byte: u8) -> Option<Peek> {
        if self.record_left == 0 {
            return self.header_byte(byte);
        }
        self.record_left -= 1;
        self.message.push(byte);
        self.message_verdict()
    }

    /// Each byte is judged as it comes, so that plaintext is known by its first.
    fn header_byte(&mut self, byte: u8) -> Option<Peek> {
        self.header.push(byte);
        let fits = match self.header.len() {
            1 => byte == HANDSHAKE,
            2 => byte == 3,
            3 => byte <= 4,
            _ => true,
        };
        if !fits {
            return Some(Peek::NotTls);
        }
        if self.header.len() == RECORD_HEADER {
            let length = usize::from(self.header[3]) << 8 | usize::from(self.header[4]);
            self.header.clear();
            self.records += 1;
            // An empty record of a handshake, or one that is longer than any, is not TLS.
            if length == 0 || length > CLIENT_HELLO_MAX + 2048 {
                return Some(Peek::NotTls);
            }
            if self.records > RECORDS_MAX {
                return Some(Peek::TooLong);
            }
            self.record_left = length;
        }
        None
    }

    fn message_verdict(&self) -> Option<Peek> {
        if self.message.len() == 1 && self.message[0] != CLIENT_HELLO {
            return Some(Peek::NotTls);
        }
        let header = self.message.get(..MESSAGE_HEADER)?;
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        if length > CLIENT_HELLO_MAX {
            return Some(Peek::TooLong);
        }
        let body = &self.message[MESSAGE_HEADER..];
        if body.len() < length {
            return None;
        }
        Some(read_hello(Reader(body)).map_or(Peek::NotTls, Peek::Hello))
    }
}

/// Takes from the front of a text, or fails.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(count)?;
        self.0 = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn short(&mut self) -> Option<u16> {
        self.take(2)
            .map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A field behind its length in one byte.
    fn field8(&mut self) -> Option<Self> {
        let length = self.byte()?;
        self.take(usize::from(length)).map(Self)
    }

    /// A field behind its length in two bytes.
    fn field16(&mut self) -> Option<Self> {
        let length = self.short()?;
        self.take(usize::from(length)).map(Self)
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn read_hello(mut hello: Reader<'_>) -> Option<HelloFacts> {
    let _version = hello.short()?;
    let _random = hello.take(32)?;
    let _session = hello.field8()?;
    let ciphers = hello.field16()?;
    if ciphers.is_empty() || ciphers.0.len() % 2 != 0 {
        return None;
    }
    let _compression = hello.field8()?;
    let mut facts = HelloFacts::default();
    if hello.is_empty() {
        return Some(facts);
    }
    let mut extensions = hello.field16()?;
    while !extensions.is_empty() {
        let kind = extensions.short()?;
        let body = extensions.field16()?;
        match kind {
            SERVER_NAME => facts.server_name = read_server_name(body)?,
            ALPN => facts.alpn = read_alpn(body)?,
            _ => {}
        }
    }
    Some(facts)
}

fn read_shape(mut hello: Reader<'_>) -> Option<HelloShape> {
    let mut shape = HelloShape {
        version: hello.short()?,
        ..HelloShape::default()
    };
    let _random = hello.take(32)?;
    let _session = hello.field8()?;
    let mut ciphers = hello.field16()?;
    while let Some(cipher) = ciphers.short() {
        shape.ciphers.push(cipher);
    }
    let _compression = hello.field8()?;
    let Some(mut extensions) = hello.field16() else {
        return Some(shape);
    };
    while let (Some(kind), Some(body)) = (extensions.short(), extensions.field16()) {
        shape.extension(kind, body.0);
    }
    Some(shape)
}

/// The first host name of the list.
fn read_server_name(mut body: Reader<'_>) -> Option<Option<String>> {
    let mut names = body.field16()?;
    while !names.is_empty() {
        let kind = names.byte()?;
        let name = names.field16()?;
        if kind == HOST_NAME {
            let name = std::str::from_utf8(name.0).ok()?;
            return Some(Some(name.to_ascii_lowercase()));
        }
    }
    Some(None)
}

fn read_alpn(mut body: Reader<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = body.field16()?;
    let mut all = Vec::new();
    while !names.is_empty() {
        let name = names.field8()?;
        if name.is_empty() {
            return None;
        }
        all.push(name.0.to_vec());
    }
    Some(all)
}
