//! HTTP/2 as frames on a plain socket: just what scenarios need, and nothing of the codec under test.

mod client;

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fluke_hpack::Decoder;

pub use client::{Client, Request};

use crate::wait::Deadline;
use crate::wire::{End, Wire, printable};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Content of streams.
pub const DATA: u8 = 0;
/// A head, or trailers.
pub const HEADERS: u8 = 1;
/// The end of one stream.
pub const RST_STREAM: u8 = 3;
/// What a side wants to be known of it.
pub const SETTINGS: u8 = 4;
/// Are you there?
pub const PING: u8 = 6;
/// No further streams.
pub const GOAWAY: u8 = 7;
/// Room for more.
pub const WINDOW_UPDATE: u8 = 8;
/// More of a head.
pub const CONTINUATION: u8 = 9;

/// Of PING and SETTINGS.
pub const ACK: u8 = 1;
/// Of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// How many streams a side takes at once.
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
/// How much of each stream may be on its way.
pub const INITIAL_WINDOW_SIZE: u16 = 4;
/// Extended CONNECT is understood.
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// Names and values in order; pseudo fields come first.
pub type Fields = Vec<(String, String)>;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, or 0.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The first four bytes as a number, such as a reset's reason.
    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4);
        bytes.map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The payload without padding and priority.
    fn content(&self) -> &[u8] {
        let mut content = &self.payload[..];
        if self.has(PADDED)
            && let Some((padding, rest)) = content.split_first()
        {
            content = &rest[..rest.len().saturating_sub(usize::from(*padding))];
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content = content.get(5..).unwrap_or_default();
        }
        content
    }
}

/// Writes frames, from several threads.
#[derive(Clone, Debug)]
pub struct Writer(Arc<Mutex<TcpStream>>);

impl Writer {
    /// Of a socket whose other half is read by somebody else.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(stream)))
    }

    /// Sends bytes as they are. That the peer has gone is seen by whoever reads.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.write_all(bytes);
    }

    /// Sends a frame.
    pub fn frame(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.bytes(&bytes);
    }

    /// Sends settings.
    pub fn settings(&self, settings: &[(u16, u32)]) {
        let pairs = settings.iter().flat_map(|(id, value)| {
            let (id, value) = (id.to_be_bytes(), value.to_be_bytes());
            id.into_iter().chain(value)
        });
        self.frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>());
    }

    /// Sends a head or trailers.
    pub fn head(&self, stream: u32, fields: &[(String, String)], ends: bool) {
        let end = if ends { END_STREAM } else { 0 };
        self.frame(HEADERS, END_HEADERS | end, stream, &encode(fields));
    }

    /// Sends content, in frames that every peer takes.
    pub fn data(&self, stream: u32, data: &[u8], ends: bool) {
        let mut pieces = data.chunks(16 << 10).peekable();
        if pieces.peek().is_none() && ends {
            self.frame(DATA, END_STREAM, stream, &[]);
        }
        while let Some(piece) = pieces.next() {
            let last = ends && pieces.peek().is_none();
            self.frame(DATA, if last { END_STREAM } else { 0 }, stream, piece);
        }
    }

    /// Ends a stream.
    pub fn reset(&self, stream: u32, reason: u32) {
        self.frame(RST_STREAM, 0, stream, &reason.to_be_bytes());
    }

    /// Says that streams after `last` are not looked at.
    pub fn go_away(&self, last: u32, reason: u32) {
        let payload = [last.to_be_bytes(), reason.to_be_bytes()].concat();
        self.frame(GOAWAY, 0, 0, &payload);
    }

    /// Closes both ways, in an orderly way.
    pub fn close(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = stream.shutdown(Shutdown::Both);
    }

    /// Lets the last handle that is dropped reset the connection.
    pub fn linger_no_more(&self) {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
    }
}

/// Literals that nobody remembers: no state, and nothing that a peer could get wrong.
fn encode(fields: &[(String, String)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let length = fluke_hpack::encoder::encode_integer(text.len(), 7);
            block.extend(length);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// What a peer sends, frame by frame; answers what HTTP/2 itself asks.
pub struct Reader {
    wire: Wire,
    writer: Writer,
    decoder: Decoder<'static>,
    /// A head of which more is to come.
    partial: Option<(Frame, Vec<u8>)>,
}

/// Something that a peer said about a stream or the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A head, or trailers, and whether they end the stream.
    Head(u32, Fields, bool),
    /// Content, and whether it ends the stream.
    Data(u32, Vec<u8>, bool),
    /// The stream was reset, and why.
    Reset(u32, u32),
    /// The last stream that is looked at, and why no more.
    GoAway(u32, u32),
    /// The peer's settings.
    Settings(Vec<(u16, u32)>),
}

impl Reader {
    /// Reads what comes next on a socket, and answers through `writer`.
    #[must_use]
    pub fn new(wire: Wire, writer: Writer) -> Self {
        Self {
            wire,
            writer,
            decoder: Decoder::new(),
            partial: None,
        }
    }

    fn frame(&mut self, deadline: Deadline) -> Result<Frame, End> {
        let head = self.wire.bytes(9, deadline)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        Ok(Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload: self.wire.bytes(length, deadline)?,
        })
    }

    /// What comes next.
    ///
    /// # Errors
    /// How reading ended instead.
    pub fn event(&mut self, deadline: Deadline) -> Result<Event, End> {
        loop {
            let frame = self.frame(deadline)?;
            match frame.kind {
                HEADERS | CONTINUATION => {
                    if let Some(event) = self.head(frame)? {
                        return Ok(event);
                    }
                }
                DATA => {
                    let data = frame.content().to_vec();
                    let taken = u32::try_from(frame.payload.len()).unwrap_or(0);
                    if taken > 0 {
                        for stream in [0, frame.stream] {
                            let room = taken.to_be_bytes();
                            self.writer.frame(WINDOW_UPDATE, 0, stream, &room);
                        }
                    }
                    return Ok(Event::Data(frame.stream, data, frame.has(END_STREAM)));
                }
                RST_STREAM => return Ok(Event::Reset(frame.stream, frame.number(0))),
                GOAWAY => return Ok(Event::GoAway(frame.number(0), frame.number(4))),
                PING if !frame.has(ACK) => self.writer.frame(PING, ACK, 0, &frame.payload),
                SETTINGS if !frame.has(ACK) => {
                    self.writer.frame(SETTINGS, ACK, 0, &[]);
                    let pairs = frame.payload.chunks_exact(6);
                    let pair = |b: &[u8]| {
                        let value = u32::from_be_bytes([b[2], b[3], b[4], b[5]]);
                        (u16::from_be_bytes([b[0], b[1]]), value)
                    };
                    return Ok(Event::Settings(pairs.map(pair).collect()));
                }
                _ => {}
            }
        }
    }

    fn head(&mut self, frame: Frame) -> Result<Option<Event>, End> {
        let done = frame.has(END_HEADERS);
        let (first, block) = match self.partial.take() {
            Some((first, mut block)) => {
                block.extend_from_slice(&frame.payload);
                (first, block)
            }
            None => {
                let block = frame.content().to_vec();
                (frame, block)
            }
        };
        if !done {
            self.partial = Some((first, block));
            return Ok(None);
        }
        let fields = self.decoder.decode(&block).map_err(|_| End::Garbage)?;
        let fields = fields
            .iter()
            .map(|(name, value)| (printable(name), printable(value)));
        let ends = first.has(END_STREAM);
        Ok(Some(Event::Head(first.stream, fields.collect(), ends)))
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("wire", &self.wire)
            .finish_non_exhaustive()
    }
}
