//! A client of one connection.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};

use super::{ENABLE_CONNECT_PROTOCOL, Event, Fields, PREFACE, Reader, Writer};
use crate::client::Response;
use crate::wait::{Deadline, WAIT_MAX};
use crate::wire::{Body, End, Head, Wire};

/// What is asked on one stream.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Pseudo fields and fields.
    pub fields: Fields,
    /// Content.
    pub body: Vec<u8>,
    /// Fields after the content.
    pub trailers: Fields,
    /// More of the body comes later.
    pub open: bool,
}

/// A connection of a client.
#[derive(Debug)]
pub struct Client {
    reader: Reader,
    writer: Writer,
    next: u32,
    answers: BTreeMap<u32, Answer>,
    /// Said by the peer.
    settings: Option<Vec<(u16, u32)>>,
    went: Option<(u32, u32)>,
    over: Option<End>,
}

#[derive(Debug, Default)]
struct Answer {
    interim: Vec<Head>,
    head: Option<Head>,
    body: Body,
    done: bool,
}

impl Client {
    /// Connects, with settings of ours.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX)
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        let writer = Writer::new(stream.try_clone()?);
        writer.bytes(PREFACE);
        writer.settings(settings);
        Ok(Self {
            reader: Reader::new(Wire::new(stream), writer.clone()),
            writer,
            next: 1,
            answers: BTreeMap::new(),
            settings: None,
            went: None,
            over: None,
        })
    }

    /// For whatever else a scenario sends.
    #[must_use]
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Opens a stream; its number.
    pub fn send(&mut self, request: &Request) -> u32 {
        let stream = self.next;
        self.next += 2;
        let Request {
            fields,
            body,
            trailers,
            open,
        } = request;
        let bodiless = body.is_empty() && trailers.is_empty() && !open;
        self.writer.head(stream, fields, bodiless);
        if !body.is_empty() {
            let ends = trailers.is_empty() && !open;
            self.writer.data(stream, body, ends);
        }
        if !trailers.is_empty() {
            self.writer.head(stream, trailers, true);
        }
        self.answers.insert(stream, Answer::default());
        stream
    }

    /// Reads until the answer on a stream is complete, or cannot be.
    pub fn response(&mut self, stream: u32) -> Response {
        self.read(Deadline::default(), |client| {
            client.answers.get(&stream).is_none_or(|answer| answer.done)
        });
        self.take(stream)
    }

    /// Reads until so much of the answer's body, or its end, is there.
    pub fn body(&mut self, stream: u32, bytes: usize) -> Option<&[u8]> {
        self.read(Deadline::default(), |client| {
            let answer = client.answers.get(&stream);
            answer.is_none_or(|answer| answer.done || answer.body.data.len() >= bytes)
        });
        let answer = self.answers.get(&stream)?;
        (answer.body.data.len() >= bytes).then_some(&answer.body.data[..])
    }

    /// Reads until the head of an answer is there; its status.
    pub fn status(&mut self, stream: u32) -> Option<u16> {
        self.read(Deadline::default(), |client| {
            let answer = client.answers.get(&stream);
            answer.is_none_or(|answer| answer.done || answer.head.is_some())
        });
        let head = self.answers.get(&stream)?.head.as_ref()?;
        head.start.strip_prefix("HTTP/2 ")?.parse().ok()
    }

    /// The peer's settings.
    pub fn settings(&mut self) -> Vec<(u16, u32)> {
        self.read(Deadline::default(), |client| client.settings.is_some());
        self.settings.clone().unwrap_or_default()
    }

    /// Whether tunnels may be asked for, once the peer has said so.
    pub fn knows_tunnels(&mut self) -> bool {
        self.settings().contains(&(ENABLE_CONNECT_PROTOCOL, 1))
    }

    /// Waits for GOAWAY: the last stream that is looked at, and the reason.
    pub fn go_away(&mut self) -> Option<(u32, u32)> {
        self.read(Deadline::default(), |client| client.went.is_some());
        self.went
    }

    /// Whether the peer has said so already, as far as was read.
    #[must_use]
    pub fn was_told_to_go(&self) -> bool {
        self.went.is_some()
    }

    /// How the connection ends, when it does before the deadline.
    pub fn end(&mut self) -> Option<End> {
        self.read(Deadline::default(), |_| false);
        self.over
    }

    fn read(&mut self, deadline: Deadline, enough: impl Fn(&Self) -> bool) {
        while self.over.is_none() && !enough(self) {
            match self.reader.event(deadline) {
                Ok(event) => self.note(event),
                Err(End::TimedOut) => return,
                Err(end) => {
                    self.over = Some(end);
                    for answer in self.answers.values_mut().filter(|answer| !answer.done) {
                        answer.finish(Some(end));
                    }
                }
            }
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Settings(settings) => self.settings = Some(settings),
            Event::GoAway(last, reason) => {
                self.went = Some((last, reason));
                let lost = self.answers.range_mut(last.saturating_add(1)..);
                lost.for_each(|(_, answer)| answer.finish(Some(End::GoAway(reason))));
            }
            Event::Reset(stream, reason) => {
                if let Some(answer) = self.answers.get_mut(&stream)
                    && !answer.done
                {
                    answer.finish(Some(End::Reset(reason)));
                }
            }
            Event::Data(stream, data, ends) => {
                if let Some(answer) = self.answers.get_mut(&stream) {
                    answer.body.data.extend(data);
                    if ends {
                        answer.finish(None);
                    }
                }
            }
            Event::Head(stream, fields, ends) => {
                if let Some(answer) = self.answers.get_mut(&stream) {
                    answer.head(fields);
                    if ends {
                        answer.finish(None);
                    }
                }
            }
        }
    }

    fn take(&mut self, stream: u32) -> Response {
        let answer = self.answers.remove(&stream).unwrap_or_default();
        let end = answer.body.end;
        let Some(head) = answer.head else {
            return Response {
                missing: Some(end.unwrap_or(End::TimedOut)),
                interim: answer.interim,
                ..Response::default()
            };
        };
        let status = head.start.strip_prefix("HTTP/2 ");
        let mut body = answer.body;
        if !answer.done {
            body.end = Some(End::TimedOut);
        }
        Response {
            status: status.and_then(|s| s.parse().ok()).unwrap_or_default(),
            head,
            body,
            interim: answer.interim,
            missing: None,
        }
    }
}

impl Answer {
    fn head(&mut self, fields: Fields) {
        let mut fields = fields;
        if self.head.is_some() {
            self.body.trailers = fields;
            return;
        }
        let status = fields.iter().position(|(name, _)| name == ":status");
        let status = status.map_or_else(String::new, |at| fields.remove(at).1);
        let interim = status.starts_with('1');
        let head = Head {
            start: format!("HTTP/2 {status}"),
            fields,
            raw: Vec::new(),
        };
        if interim {
            self.interim.push(head);
        } else {
            self.head = Some(head);
        }
    }

    fn finish(&mut self, end: Option<End>) {
        self.done = true;
        self.body.end = end;
    }
}
