//! An upstream's connection when its peer speaks HTTP/2: each stream is answered by a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reply::{Message, Reply, Then};
use super::serve::{IDLE_MAX, Served};
use super::{Recorded, Shared};
use crate::http2::{Event, Fields, PREFACE, Reader, Writer};
use crate::wait::Deadline;
use crate::wire::{Body, Head};

/// The start line of the preface, read as if it were a request's.
pub(super) const PREFACE_LINE: &str = "PRI * HTTP/2.0";

/// How much of the preface comes after that head.
const PREFACE_REST: usize = PREFACE.len() - "PRI * HTTP/2.0\r\n\r\n".len();

/// Goes on with a connection whose peer has said the first half of the preface.
pub(super) fn serve(mut served: Served) {
    let Ok(stream) = served.wire.stream().try_clone() else {
        return;
    };
    let deadline = || Deadline::after(IDLE_MAX);
    if served.wire.bytes(PREFACE_REST, deadline()).is_err() {
        return;
    }
    let writer = Writer::new(stream);
    let settings = served.shared.lock().settings.clone();
    writer.settings(&settings);
    let Served {
        wire,
        shared,
        name,
        number,
    } = served;
    let mut connection = Connection {
        reader: Reader::new(wire, writer.clone()),
        writer,
        shared,
        name,
        number,
        streams: BTreeMap::new(),
    };
    while let Ok(event) = connection.reader.event(deadline()) {
        connection.note(event);
    }
}

struct Connection {
    reader: Reader,
    writer: Writer,
    shared: Arc<Shared>,
    name: String,
    number: usize,
    /// Which request each stream is.
    streams: BTreeMap<u32, usize>,
}

/// What answers one stream.
struct Player {
    writer: Writer,
    shared: Arc<Shared>,
    connection: usize,
    position: usize,
    stream: u32,
    to_head: bool,
}

impl Connection {
    fn note(&mut self, event: Event) {
        match event {
            Event::Head(stream, fields, ends) if self.streams.contains_key(&stream) => {
                self.update(stream, |request| {
                    request.body.trailers = fields;
                    request.complete = ends;
                });
            }
            Event::Head(stream, fields, ends) => self.begin(stream, fields, ends),
            Event::Data(stream, data, ends) => {
                self.update(stream, |request| {
                    request.body.data.extend(data);
                    request.complete = ends;
                });
            }
            Event::Reset(stream, reason) => {
                let shown = format!("{reason}");
                self.update(stream, |request| request.reset = Some(shown));
            }
            Event::GoAway(..) | Event::Settings(_) => {}
        }
    }

    fn update(&self, stream: u32, change: impl FnOnce(&mut Recorded)) {
        let Some(position) = self.streams.get(&stream) else {
            return;
        };
        self.shared.update(|state| {
            let mut requests = state.requests.iter_mut();
            let mine = |r: &&mut Recorded| r.connection == self.number && r.position == *position;
            if let Some(request) = requests.find(mine) {
                change(request);
            }
        });
    }

    fn begin(&mut self, stream: u32, fields: Fields, ends: bool) {
        let position = self.streams.len();
        self.streams.insert(stream, position);
        let head = head(fields);
        let to_head = head.start.starts_with("HEAD ");
        let reply = self.shared.update(|state| {
            state.seen.requests += 1;
            state.requests.push(Recorded {
                connection: self.number,
                position,
                head: head.clone(),
                body: Body::default(),
                complete: ends,
                reset: None,
            });
            state.reply(&head).unwrap_or_else(|| Reply::ok(&self.name))
        });
        let player = Player {
            writer: self.writer.clone(),
            shared: Arc::clone(&self.shared),
            connection: self.number,
            position,
            stream,
            to_head,
        };
        std::thread::spawn(move || {
            player.play(reply);
            let (connection, position) = (player.connection, player.position);
            player
                .shared
                .update(|state| state.done_with(connection, position));
        });
    }
}

/// The pseudo fields make a start line; those that have no place there stay fields.
fn head(mut fields: Fields) -> Head {
    let mut take = |name: &str| {
        let at = fields.iter().position(|(n, _)| n == name)?;
        Some(fields.remove(at).1)
    };
    let method = take(":method").unwrap_or_default();
    let path = take(":path").unwrap_or_default();
    Head {
        start: format!("{method} {path} HTTP/2"),
        fields,
        raw: Vec::new(),
    }
}

impl Player {
    fn play(&self, reply: Reply) {
        for bytes in &reply.first {
            self.interim(bytes);
        }
        if reply.reads_body {
            self.await_body();
        }
        if let Some(word) = &reply.awaited {
            self.shared.await_word(word);
        }
        let goes_on = matches!(reply.last, Some(Then::Hang | Then::Echo));
        let mut last_words = Fields::new();
        match reply.message {
            Message::Nothing => {}
            Message::Raw(bytes) => self.writer.bytes(&bytes),
            Message::Response {
                status,
                fields,
                body,
                trailers,
                ..
            } => {
                let mut head = vec![(":status".to_owned(), status.to_string())];
                head.extend(pairs(&fields));
                let body = if self.to_head { Vec::new() } else { body };
                let trailers: Fields = pairs(&trailers).collect();
                let breaks = matches!(reply.last, Some(last) if !matches!(last, Then::GoAway(..)));
                let open = breaks || !trailers.is_empty();
                let ends = body.is_empty() && !open;
                self.writer.head(self.stream, &head, ends);
                if !body.is_empty() {
                    self.writer.data(self.stream, &body, !open);
                }
                if reply.last == Some(Then::Echo) {
                    last_words = trailers;
                } else if !trailers.is_empty() {
                    self.writer.head(self.stream, &trailers, !goes_on);
                }
            }
        }
        match reply.last {
            None | Some(Then::Hang) => {}
            Some(Then::Echo) => self.echo(&last_words),
            Some(Then::Close) => self.writer.close(),
            Some(Then::Reset) => {
                self.writer.linger_no_more();
                self.shared
                    .update(|state| state.open.remove(&self.connection));
                self.writer.close();
            }
            Some(Then::ResetStream(reason)) => self.writer.reset(self.stream, reason),
            Some(Then::GoAway(last, reason)) => self.writer.go_away(last, reason),
        }
    }

    /// An interim response, written as it looks in HTTP/1.1.
    fn interim(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let mut head = vec![(":status".to_owned(), status.unwrap_or("100").to_owned())];
        head.extend(pairs(&lines.collect::<Vec<_>>().join("\r\n")));
        self.writer.head(self.stream, &head, false);
    }

    /// Sends back what comes until the peer says no more, and then the trailers.
    fn echo(&self, trailers: &Fields) {
        let mine = |r: &&Recorded| r.connection == self.connection && r.position == self.position;
        let mut sent = 0;
        loop {
            let more = self.shared.wait(Deadline::after(IDLE_MAX), |state| {
                let request = state.requests.iter().find(mine)?;
                let data = &request.body.data[sent..];
                let over = request.complete || request.reset.is_some();
                (over || !data.is_empty()).then(|| (data.to_vec(), over))
            });
            let Some((data, over)) = more else {
                return;
            };
            sent += data.len();
            let last = over && trailers.is_empty();
            if last || !data.is_empty() {
                self.writer.data(self.stream, &data, last);
            }
            if over && !last {
                self.writer.head(self.stream, trailers, true);
            }
            if over {
                return;
            }
        }
    }

    fn await_body(&self) {
        let epoch = self.shared.lock().epoch;
        let mine = |r: &&Recorded| r.connection == self.connection && r.position == self.position;
        let _ = self.shared.wait(Deadline::after(IDLE_MAX), |state| {
            let over = state.epoch != epoch || state.stopped;
            let request = state.requests.iter().find(mine);
            // One that was taken away is not waited for.
            let here = request.is_none_or(|request| request.complete || request.reset.is_some());
            (over || here).then_some(())
        });
    }
}

fn pairs(lines: &str) -> impl Iterator<Item = (String, String)> {
    lines.split("\r\n").filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    })
}
