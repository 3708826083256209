//! As much HTTP/2 as both ends of the load need: frames in, and the few that go out.

use anyhow::{Result, bail, ensure};

/// No contender was told that it may send longer ones.
const FRAME_BYTES_MAX: usize = 16 << 10;

const HEAD: usize = 9;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What a reader of frames has to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A head, as HPACK has it.
    Head {
        stream: u32,
        block: &'a [u8],
        end: bool,
    },
    /// So much of a body.
    Data {
        stream: u32,
        length: usize,
        end: bool,
    },
    /// The stream, or with 0 all, came to an end that was not wanted.
    Reset { stream: u32 },
    /// So much more may be sent on the stream, or on the connection when it is 0.
    Window { stream: u32, more: u32 },
}

#[derive(Debug, Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Cuts what is read into frames, wherever it was cut before.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// A frame that has not come whole.
    partial: Vec<u8>,
    /// The frame of data that is being read, and what is missing of it.
    data: Option<(Head, usize)>,
}

impl Frames {
    /// Takes what was read. What has to be answered whoever it is, settings and pings, is put behind `out`.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        out: &mut Vec<u8>,
        mut on: impl FnMut(Event<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        while !bytes.is_empty() {
            if let Some((head, left)) = self.data {
                let length = left.min(bytes.len());
                bytes = &bytes[length..];
                self.data = Some((head, left - length)).filter(|(_, left)| *left > 0);
                on(head.data(length, self.data.is_none()), out)?;
                continue;
            }
            if self.partial.is_empty() && bytes.len() >= HEAD {
                let head = Head::read(bytes)?;
                if head.kind == DATA {
                    bytes = &bytes[HEAD..];
                    self.begin_data(head, out, &mut on)?;
                    continue;
                }
                if let Some((frame, rest)) = bytes.split_at_checked(HEAD + head.length) {
                    head.give(&frame[HEAD..], out, &mut on)?;
                    bytes = rest;
                    continue;
                }
            }
            bytes = self.collect(bytes, out, &mut on)?;
        }
        Ok(())
    }

    /// Takes what completes a frame, or what is there of it.
    fn collect<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
        on: &mut impl FnMut(Event<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<&'a [u8]> {
        let wanted = if self.partial.len() < HEAD {
            HEAD
        } else {
            HEAD + Head::read(&self.partial)?.length
        };
        let (more, rest) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
        self.partial.extend_from_slice(more);
        if self.partial.len() < wanted {
            return Ok(rest);
        }
        let head = Head::read(&self.partial)?;
        if head.kind == DATA {
            self.partial.clear();
            self.begin_data(head, out, on)?;
        } else if self.partial.len() == HEAD + head.length {
            head.give(&self.partial[HEAD..], out, on)?;
            self.partial.clear();
        }
        Ok(rest)
    }

    fn begin_data(
        &mut self,
        head: Head,
        out: &mut Vec<u8>,
        on: &mut impl FnMut(Event<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        ensure!(head.flags & PADDED == 0, "padded data");
        if head.length == 0 {
            return on(head.data(0, true), out);
        }
        self.data = Some((head, head.length));
        Ok(())
    }
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Self> {
        let head = Self {
            length: usize::from(bytes[0]) << 16
                | usize::from(bytes[1]) << 8
                | usize::from(bytes[2]),
            kind: bytes[3],
            flags: bytes[4],
            stream: u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) & (u32::MAX >> 1),
        };
        ensure!(head.length <= FRAME_BYTES_MAX, "too long: {head:?}");
        Ok(head)
    }

    const fn data(self, length: usize, last: bool) -> Event<'static> {
        Event::Data {
            stream: self.stream,
            length,
            end: last && self.flags & END_STREAM != 0,
        }
    }

    fn give(
        self,
        payload: &[u8],
        out: &mut Vec<u8>,
        on: &mut impl FnMut(Event<'_>, &mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        match self.kind {
            HEADERS => {
                ensure!(
                    self.flags & END_HEADERS != 0 && self.flags & PADDED == 0,
                    "a head in pieces: {self:?}"
                );
                let skip = if self.flags & PRIORITY == 0 { 0 } else { 5 };
                let event = Event::Head {
                    stream: self.stream,
                    block: payload.get(skip..).unwrap_or_default(),
                    end: self.flags & END_STREAM != 0,
                };
                on(event, out)
            }
            SETTINGS if self.flags & ACK == 0 => {
                frame(out, SETTINGS, ACK, 0, &[]);
                Ok(())
            }
            PING if self.flags & ACK == 0 => {
                frame(out, PING, ACK, 0, payload);
                Ok(())
            }
            WINDOW_UPDATE => {
                let more = payload.try_into().map_or(0, u32::from_be_bytes);
                let stream = self.stream;
                on(Event::Window { stream, more }, out)
            }
            RST_STREAM | GOAWAY => {
                let stream = self.stream;
                on(Event::Reset { stream }, out)
            }
            PUSH_PROMISE | CONTINUATION => bail!("was sent {self:?}"),
            _ => Ok(()),
        }
    }
}

/// Writes a frame.
pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Settings: an initial window, when it is not the default.
pub(crate) fn settings(out: &mut Vec<u8>, initial_window: Option<u32>) {
    const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
    let payload = initial_window
        .map(|window| [&INITIAL_WINDOW_SIZE[..], &window.to_be_bytes()].concat())
        .unwrap_or_default();
    frame(out, SETTINGS, 0, 0, &payload);
}

/// The other side may send so much more over the whole connection.
pub(crate) fn window_update(out: &mut Vec<u8>, more: u32) {
    frame(out, WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::{
        DATA, END_HEADERS, END_STREAM, Event, Frames, HEADERS, PING, RST_STREAM, frame, settings,
        window_update,
    };

    fn said(bytes: &[&[u8]]) -> (Vec<String>, Vec<u8>) {
        let (mut events, mut out) = (Vec::new(), Vec::new());
        let mut frames = Frames::default();
        let mut length = 0;
        for bytes in bytes {
            frames
                .read(bytes, &mut out, |event, _| {
                    match event {
                        Event::Data {
                            length: more,
                            end: false,
                            ..
                        } => length += more,
                        Event::Data {
                            length: more,
                            stream,
                            ..
                        } => {
                            let length = std::mem::take(&mut length) + more;
                            events.push(format!("{stream}: {length} and the end"));
                        }
                        other => events.push(format!("{other:?}")),
                    }
                    Ok(())
                })
                .unwrap();
        }
        (events, out)
    }

    #[test]
    fn frames_are_the_same_wherever_they_were_cut() {
        let mut bytes = Vec::new();
        settings(&mut bytes, Some(1 << 20));
        window_update(&mut bytes, 7);
        frame(&mut bytes, HEADERS, END_HEADERS, 1, &[0x88]);
        frame(&mut bytes, DATA, 0, 1, b"hello");
        frame(&mut bytes, DATA, END_STREAM, 1, b"you");
        frame(&mut bytes, DATA, END_STREAM, 3, b"");
        frame(&mut bytes, PING, 0, 0, b"12345678");
        frame(&mut bytes, RST_STREAM, 0, 5, &[0; 4]);
        let whole = said(&[&bytes]);
        assert_eq!(whole.0.len(), 5, "{whole:?}");
        assert!(
            whole.0.contains(&"1: 8 and the end".to_owned()),
            "{whole:?}"
        );
        assert!(whole.1.ends_with(b"12345678"), "{whole:?}");
        for cut in 1..bytes.len() {
            let (a, b) = bytes.split_at(cut);
            assert_eq!(said(&[a, b]), whole, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(said(&single), whole);
    }
}
