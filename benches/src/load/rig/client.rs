//! One connection to a proxy.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use mesh_core::clock;

use super::{Ask, Io, Life, Next, Protocol, Size, Tally, http2::Http2, tls::Session};
use crate::load::http::Responses;

pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) to: SocketAddr,
    pub(super) ask: Ask,
    session: Option<Session>,
    talk: Talk,
}

enum Talk {
    Http1(Http1),
    Http2(Http2),
}

/// What a talk has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It goes on.
    Open,
    /// Everything that was asked for is there, and nothing more will be.
    Done,
}

impl Client {
    /// Connects and asks.
    pub(super) fn connect(
        to: SocketAddr,
        ask: Ask,
        session: Option<Session>,
        io: &mut Io,
    ) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("connecting to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut client = Self {
            stream,
            to,
            ask,
            session,
            talk: match ask.protocol {
                Protocol::Http1 => Talk::Http1(Http1::new()),
                Protocol::Http2 { streams } => Talk::Http2(Http2::new(streams)),
            },
        };
        io.out.clear();
        match &mut client.talk {
            Talk::Http1(talk) => talk.begin(ask, &mut io.out),
            Talk::Http2(talk) => talk.begin(ask, &mut io.out),
        }
        client.write(&io.out)?;
        Ok(client)
    }

    pub(super) fn on_readable(&mut self, io: &mut Io) -> Next {
        match self.read(io) {
            Ok(State::Open) => Next::Keep,
            Ok(State::Done) => self.on_done(io),
            Err(error) => io.fail(&error),
        }
    }

    fn read(&mut self, io: &mut Io) -> Result<State> {
        let read = match self.stream.read(&mut io.buffer) {
            Ok(0) => bail!("the proxy closed the connection"),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(State::Open),
            Err(error) => return Err(error.into()),
        };
        let Io {
            buffer,
            plain,
            out,
            tally,
            ..
        } = io;
        out.clear();
        let (talk, ask) = (&mut self.talk, self.ask);
        let mut take = |bytes: &[u8]| match talk {
            Talk::Http1(talk) => talk.read(bytes, ask, out, tally),
            Talk::Http2(talk) => talk.read(bytes, ask, out, tally),
        };
        let bytes = &buffer[..read];
        let state = match &mut self.session {
            None => take(bytes)?,
            Some(session) => session.read(bytes, plain, take)?,
        };
        self.write(&io.out)?;
        Ok(state)
    }

    /// So few bytes always fit into an empty socket buffer.
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.session {
            None if bytes.is_empty() => Ok(()),
            None => Ok(self.stream.write_all(bytes)?),
            Some(session) => session.write(bytes, &mut self.stream),
        }
    }

    fn on_done(&mut self, io: &mut Io) -> Next {
        if let Some(session) = &mut self.session {
            let wanted = self.ask.tls == Some(super::Tls::Resumed);
            io.tally.not_resumed += u64::from(wanted && !session.is_resumed());
        }
        if self.ask.life != Life::Once {
            return Next::Keep;
        }
        if let Some(session) = &mut self.session
            && let Err(error) = session.close(&mut self.stream)
        {
            return io.fail(&error);
        }
        Next::Replace
    }
}

/// One request at a time.
struct Http1 {
    responses: Responses,
    sent: Instant,
}

impl Http1 {
    fn new() -> Self {
        Self {
            responses: Responses::default(),
            sent: clock::now(),
        }
    }

    fn begin(&mut self, ask: Ask, out: &mut Vec<u8>) {
        out.extend_from_slice(request(ask.size));
    }

    fn read(
        &mut self,
        bytes: &[u8],
        ask: Ask,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<State> {
        if !self.responses.read(bytes)? {
            return Ok(State::Open);
        }
        let now = clock::now();
        tally.finish(self.sent, now);
        if ask.life != Life::KeepAlive {
            return Ok(State::Done);
        }
        self.sent = now;
        self.begin(ask, out);
        Ok(State::Open)
    }
}

const fn request(size: Size) -> &'static [u8] {
    macro_rules! get {
        ($path:literal) => {
            concat!(
                "GET ",
                $path,
                " HTTP/1.1\r\nHost: bench.test\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
            )
            .as_bytes()
        };
    }
    match size {
        Size::Small => get!("/small"),
        Size::Large => get!("/large"),
        Size::Huge => get!("/huge"),
    }
}
