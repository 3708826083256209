//! One connection from a proxy.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use anyhow::{Context as _, Result};

use super::{Io, Next, Size, http2::Http2Upstream};
use crate::load::{frames::PREFACE, http::Requests};

pub(super) struct Upstream {
    pub(super) stream: TcpStream,
    talk: Talk,
    unwritten: Option<Unwritten>,
}

enum Talk {
    /// Nothing was read.
    Unknown,
    Http1(Requests),
    Http2(Http2Upstream),
}

/// What the socket did not take.
enum Unwritten {
    /// The answer of this size, from here on.
    Answer(Size, usize),
    /// Frames, from here on.
    Frames(Vec<u8>, usize),
}

impl Upstream {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            talk: Talk::Unknown,
            unwritten: None,
        }
    }

    pub(super) fn on_event(&mut self, io: &mut Io) -> Next {
        if let Some(unwritten) = self.unwritten.take() {
            return match self.write(io, unwritten) {
                Next::Keep => Next::Read,
                next => next,
            };
        }
        let read = match self.stream.read(&mut io.buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Next::Keep,
            Err(_) => return Next::Close,
        };
        match self.read(io, read) {
            Ok(None) => Next::Keep,
            Ok(Some(answer)) => self.write(io, answer),
            Err(error) => io.fail(&error.context("what the upstream was sent")),
        }
    }

    fn read(&mut self, io: &mut Io, read: usize) -> Result<Option<Unwritten>> {
        let bytes = &io.buffer[..read];
        if matches!(self.talk, Talk::Unknown) {
            // Whoever speaks HTTP/2 says so in one piece.
            self.talk = if bytes.starts_with(&PREFACE[..4]) {
                Talk::Http2(Http2Upstream::new())
            } else {
                Talk::Http1(Requests::default())
            };
        }
        match &mut self.talk {
            Talk::Http1(requests) => {
                let Some(letter) = requests.read(bytes)? else {
                    return Ok(None);
                };
                let size = Size::of_target(letter).context("no such size")?;
                Ok(Some(Unwritten::Answer(size, 0)))
            }
            Talk::Http2(talk) => {
                let mut out = std::mem::take(&mut io.out);
                out.clear();
                talk.read(bytes, &mut out)?;
                Ok(Some(Unwritten::Frames(out, 0)))
            }
            Talk::Unknown => Ok(None),
        }
    }

    fn write(&mut self, io: &mut Io, unwritten: Unwritten) -> Next {
        let (bytes, mut written) = match &unwritten {
            Unwritten::Answer(size, written) => (&io.responses[*size as usize], *written),
            Unwritten::Frames(bytes, written) => (bytes, *written),
        };
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.unwritten = Some(match unwritten {
                        Unwritten::Answer(size, _) => Unwritten::Answer(size, written),
                        Unwritten::Frames(bytes, _) => Unwritten::Frames(bytes, written),
                    });
                    return Next::Write;
                }
                Err(_) => return Next::Close,
            }
        }
        if let Unwritten::Frames(bytes, _) = unwritten {
            // It is used again.
            io.out = bytes;
        }
        Next::Keep
    }
}

/// The answer of HTTP/1.1.
pub(super) fn response(size: Size) -> Vec<u8> {
    let length = size.bytes();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), &vec![b'x'; length]].concat()
}
