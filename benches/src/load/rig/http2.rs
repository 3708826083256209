//! HTTP/2 as a client and as an upstream.

use std::{collections::VecDeque, time::Instant};

use anyhow::{Context as _, Result, bail, ensure};
use mesh_core::clock;

use super::{Ask, Life, Size, Tally, client::State};
use crate::load::frames::{
    DATA, END_HEADERS, END_STREAM, Event, Frames, HEADERS, PREFACE, frame, settings, window_update,
};

/// The widest window that there is.
const WINDOW_MAX: u32 = u32::MAX >> 1;

/// The window of a connection before anything was said.
const WINDOW_DEFAULT: u32 = 65_535;

/// After so many bytes the connection's window is widened again.
const WIDEN_AFTER: u32 = WINDOW_MAX / 2;

/// `:status: 200`, as every encoder writes it.
const STATUS_200: u8 = 0x88;

/// A client with a number of requests under way.
pub(super) struct Http2 {
    streams: usize,
    frames: Frames,
    /// The newest stream.
    newest: Option<u32>,
    running: Vec<Request>,
    /// Received since the window was widened.
    received: u32,
}

struct Request {
    stream: u32,
    sent: Instant,
    answered: bool,
    body_left: usize,
}

impl Http2 {
    pub(super) fn new(streams: usize) -> Self {
        Self {
            streams,
            frames: Frames::default(),
            newest: None,
            running: Vec::new(),
            received: 0,
        }
    }

    pub(super) fn begin(&mut self, ask: Ask, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFACE);
        settings(out, Some(WINDOW_MAX));
        window_update(out, WINDOW_MAX - WINDOW_DEFAULT);
        let now = clock::now();
        for _ in 0..self.streams {
            self.request(ask.size, now, out);
        }
    }

    fn request(&mut self, size: Size, now: Instant, out: &mut Vec<u8>) {
        /// `GET`, `http`, and what [`first_request`] has put into the table.
        const NEXT: [u8; 6] = [0x82, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
        const FLAGS: u8 = END_HEADERS | END_STREAM;
        let stream = self.newest.map_or(1, |newest| newest + 2);
        match self.newest {
            None => frame(out, HEADERS, FLAGS, stream, &first_request(size)),
            Some(_) => frame(out, HEADERS, FLAGS, stream, &NEXT),
        }
        self.newest = Some(stream);
        self.running.push(Request {
            stream,
            sent: now,
            answered: false,
            body_left: size.bytes(),
        });
    }

    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        ask: Ask,
        out: &mut Vec<u8>,
        tally: &mut Tally,
    ) -> Result<State> {
        let (running, received) = (&mut self.running, &mut self.received);
        let mut finished = 0;
        let mut now = None;
        self.frames.read(bytes, out, |event, out| {
            let (stream, length, end) = match event {
                Event::Head { stream, block, end } => {
                    ensure!(status_is_200(block), "answered {block:02x?}");
                    (stream, None, end)
                }
                Event::Data {
                    stream,
                    length,
                    end,
                } => (stream, Some(length), end),
                Event::Window { .. } => return Ok(()),
                Event::Reset { stream } => bail!("stream {stream} was reset"),
            };
            let place = running.iter().position(|one| one.stream == stream);
            let place = place.with_context(|| format!("stream {stream} is not under way"))?;
            let request = &mut running[place];
            match length {
                None => request.answered = true,
                Some(length) => {
                    let left = request.body_left.checked_sub(length);
                    request.body_left = left.context("more bytes than there are")?;
                    *received += length as u32;
                }
            }
            if *received > WIDEN_AFTER {
                window_update(out, std::mem::take(received));
            }
            if end {
                ensure!(
                    request.answered && request.body_left == 0,
                    "an answer that is not whole"
                );
                let now = *now.get_or_insert_with(clock::now);
                tally.finish(request.sent, now);
                running.swap_remove(place);
                finished += 1;
            }
            Ok(())
        })?;
        match (ask.life, now) {
            (Life::KeepAlive, Some(now)) => {
                for _ in 0..finished {
                    self.request(ask.size, now, out);
                }
                Ok(State::Open)
            }
            (Life::Once | Life::Idle, Some(_)) if self.running.is_empty() => Ok(State::Done),
            _ => Ok(State::Open),
        }
    }
}

/// The head of a connection's first request; its fields go into the table, as those of a real client do.
fn first_request(size: Size) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    literal(&mut block, 4, size.path());
    literal(&mut block, 1, "bench.test");
    literal(&mut block, 58, "bench");
    literal(&mut block, 19, "*/*");
    block
}

/// A field whose name is in the static table, and which goes into the dynamic one.
fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    // Every length here is far below what one byte can say.
    block.extend_from_slice(&[0x40 | name, value.len() as u8]);
    block.extend_from_slice(value.as_bytes());
}

/// Whether a head begins with it, behind changes of the table's size.
fn status_is_200(mut block: &[u8]) -> bool {
    while let [0x20..0x40, rest @ ..] = block {
        let long = block[0] & 0x1f == 0x1f;
        let ends = rest.iter().position(|byte| byte & 0x80 == 0);
        let length = ends.map_or(rest.len(), |at| at + 1);
        block = if long { &rest[length..] } else { rest };
    }
    block.first() == Some(&STATUS_200)
}

/// An upstream; all its answers are small.
#[derive(Debug)]
pub(super) struct Http2Upstream {
    preface_left: usize,
    frames: Frames,
    answered: bool,
    window: u64,
    /// Streams whose answers wait for a wider window.
    waiting: VecDeque<u32>,
}

impl Http2Upstream {
    pub(super) fn new() -> Self {
        Self {
            preface_left: PREFACE.len(),
            frames: Frames::default(),
            answered: false,
            window: u64::from(WINDOW_DEFAULT),
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn read(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if self.preface_left == PREFACE.len() {
            settings(out, None);
        }
        let (preface, bytes) = bytes.split_at(self.preface_left.min(bytes.len()));
        self.preface_left -= preface.len();
        let (waiting, window) = (&mut self.waiting, &mut self.window);
        self.frames.read(bytes, out, |event, _| {
            match event {
                Event::Head {
                    stream, end: true, ..
                }
                | Event::Data {
                    stream, end: true, ..
                } => waiting.push_back(stream),
                Event::Window { stream: 0, more } => *window += u64::from(more),
                // Its client has gone.
                Event::Reset { stream } => waiting.retain(|one| *one != stream),
                Event::Data { length: 1.., .. } => bail!("a request with a body"),
                _ => {}
            }
            Ok(())
        })?;
        const LENGTH: u64 = Size::Small.bytes() as u64;
        while self.window >= LENGTH
            && let Some(stream) = self.waiting.pop_front()
        {
            self.window -= LENGTH;
            self.answer(stream, out);
        }
        Ok(())
    }

    fn answer(&mut self, stream: u32, out: &mut Vec<u8>) {
        /// 200, and what the first answer has put into the table.
        const NEXT: [u8; 3] = [STATUS_200, 0xbf, 0xbe];
        const BODY: [u8; Size::Small.bytes()] = [b'x'; Size::Small.bytes()];
        if self.answered {
            frame(out, HEADERS, END_HEADERS, stream, &NEXT);
        } else {
            let mut block = vec![STATUS_200];
            literal(&mut block, 31, "text/plain");
            literal(&mut block, 28, "100");
            frame(out, HEADERS, END_HEADERS, stream, &block);
            self.answered = true;
        }
        frame(out, DATA, END_STREAM, stream, &BODY);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        END_HEADERS, END_STREAM, HEADERS, Http2, Http2Upstream, PREFACE, frame, status_is_200,
        window_update,
    };
    use crate::load::rig::{Ask, Life, Protocol, Size, Tally, client::State};

    #[test]
    fn a_status_is_found_behind_changes_of_the_table() {
        assert!(status_is_200(&[0x88, 0xbf]));
        assert!(status_is_200(&[0x20, 0x3f, 0xe1, 0x1f, 0x88]));
        assert!(!status_is_200(&[0x8d]));
        assert!(!status_is_200(&[]));
    }

    #[test]
    fn a_client_and_an_upstream_understand_each_other() {
        let ask = Ask {
            size: Size::Small,
            protocol: Protocol::Http2 { streams: 32 },
            tls: None,
            life: Life::KeepAlive,
        };
        let (mut client, mut upstream) = (Http2::new(32), Http2Upstream::new());
        let mut tally = Tally::default();
        let mut sent = Vec::new();
        client.begin(ask, &mut sent);
        for round in 1..=32 {
            let mut answered = Vec::new();
            upstream.read(&sent, &mut answered).unwrap();
            sent.clear();
            let read = client.read(&answered, ask, &mut sent, &mut tally);
            assert_eq!(read.unwrap(), State::Open);
            assert_eq!(tally.finished, 32 * round);
        }
    }

    #[test]
    fn an_upstream_waits_for_the_window() {
        let mut upstream = Http2Upstream::new();
        let (mut sent, mut answered) = (PREFACE.to_vec(), Vec::new());
        for number in 0..1000 {
            frame(
                &mut sent,
                HEADERS,
                END_HEADERS | END_STREAM,
                2 * number + 1,
                &[],
            );
        }
        upstream.read(&sent, &mut answered).unwrap();
        assert_eq!(upstream.waiting.len(), 1000 - 655);
        sent.clear();
        window_update(&mut sent, 100);
        upstream.read(&sent, &mut answered).unwrap();
        assert_eq!(upstream.waiting.len(), 1000 - 656);
    }
}
