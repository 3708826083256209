//! What an upstream answers to one request.

use std::fmt::Write as _;

/// One step of answering.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Read the rest of the request.
    ReadBody,
    /// Wait until the test says this word.
    Await(String),
    /// Send bytes.
    Send(Vec<u8>),
    /// What comes last.
    Last(Then),
}

/// What comes after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Close in an orderly way.
    Close,
    /// Close with a reset.
    Reset,
    /// Say nothing until the peer closes.
    Hang,
    /// Send back what comes, until the peer closes.
    Echo,
    /// Of HTTP/2: end the stream with this reason.
    ResetStream(u32),
    /// Of HTTP/2: no streams after this one, for this reason.
    GoAway(u32, u32),
}

/// A scripted answer. Unless told otherwise, it reads the whole request first and keeps the
/// connection afterwards.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) first: Vec<Vec<u8>>,
    pub(super) reads_body: bool,
    pub(super) awaited: Option<String>,
    pub(super) message: Message,
    pub(super) last: Option<Then>,
}

#[derive(Clone, Debug)]
pub(super) enum Message {
    Nothing,
    Raw(Vec<u8>),
    Response {
        status: u16,
        fields: String,
        body: Vec<u8>,
        chunked: bool,
        trailers: String,
    },
}

impl Reply {
    fn new(message: Message) -> Self {
        Self {
            first: Vec::new(),
            reads_body: true,
            awaited: None,
            message,
            last: None,
        }
    }

    /// 200 with this body.
    #[must_use]
    pub fn ok(body: &str) -> Self {
        Self::status(200).body(body)
    }

    /// This status with an empty body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::new(Message::Response {
            status,
            fields: String::new(),
            body: Vec::new(),
            chunked: false,
            trailers: String::new(),
        })
    }

    /// These bytes.
    #[must_use]
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::new(Message::Raw(bytes.into()))
    }

    /// Nothing: the connection is closed in an orderly way.
    #[must_use]
    pub fn close() -> Self {
        Self::new(Message::Nothing).then_close()
    }

    /// Nothing: the connection is reset.
    #[must_use]
    pub fn reset() -> Self {
        Self::new(Message::Nothing).then_reset()
    }

    /// Nothing, until the peer gives up.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Message::Nothing).then_hang()
    }

    /// Adds a field. No effect on anything but a response.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Message::Response { fields, .. } = &mut self.message {
            let _ = write!(fields, "{name}: {value}\r\n");
        }
        self
    }

    /// Sets the body. No effect on anything but a response.
    #[must_use]
    pub fn body(mut self, content: &str) -> Self {
        if let Message::Response { body, .. } = &mut self.message {
            *body = content.as_bytes().to_vec();
        }
        self
    }

    /// Frames the body in chunks.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        if let Message::Response { chunked, .. } = &mut self.message {
            *chunked = true;
        }
        self
    }

    /// Adds a trailer, hence chunks.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        if let Message::Response { trailers, .. } = &mut self.message {
            let _ = write!(trailers, "{name}: {value}\r\n");
        }
        self.chunked()
    }

    /// Answers without reading the request's body.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.reads_body = false;
        self
    }

    /// Sends these bytes before it reads the request's body: an interim response.
    #[must_use]
    pub fn first(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.first.push(bytes.into());
        self
    }

    /// Waits, once the request was read, until [`Upstream::release`](super::Upstream::release)
    /// says this word.
    #[must_use]
    pub fn after(mut self, word: &str) -> Self {
        self.awaited = Some(word.to_owned());
        self
    }

    /// Closes afterwards, without having announced it.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.last = Some(Then::Close);
        self
    }

    /// Resets afterwards.
    #[must_use]
    pub fn then_reset(mut self) -> Self {
        self.last = Some(Then::Reset);
        self
    }

    /// Falls silent afterwards, until the peer closes.
    #[must_use]
    pub fn then_hang(mut self) -> Self {
        self.last = Some(Then::Hang);
        self
    }

    /// Sends back what comes afterwards: the answer grants a tunnel.
    #[must_use]
    pub fn then_echo(mut self) -> Self {
        self.last = Some(Then::Echo);
        self.reads_body = false;
        self
    }

    /// Ends the stream with a reason afterwards; in HTTP/1.1, the connection.
    #[must_use]
    pub fn then_reset_stream(mut self, reason: u32) -> Self {
        self.last = Some(Then::ResetStream(reason));
        self
    }

    /// Says afterwards that streams after `last` are not looked at; in HTTP/1.1, closes.
    #[must_use]
    pub fn then_go_away(mut self, last: u32, reason: u32) -> Self {
        self.last = Some(Then::GoAway(last, reason));
        self
    }

    /// Nothing: the stream is reset.
    #[must_use]
    pub fn reset_stream(reason: u32) -> Self {
        Self::new(Message::Nothing).then_reset_stream(reason)
    }

    /// Nothing but that streams after `last` are not looked at.
    #[must_use]
    pub fn go_away(last: u32, reason: u32) -> Self {
        Self::new(Message::Nothing).then_go_away(last, reason)
    }

    /// A message in gRPC's frame, and its status in the trailers.
    #[must_use]
    pub fn grpc(message: &str, status: &str) -> Self {
        let length = u8::try_from(message.len()).unwrap_or(u8::MAX);
        Self::ok(&format!("\0\0\0\0{}{message}", char::from(length)))
            .header("content-type", "application/grpc")
            .trailer("grpc-status", status)
    }

    /// A gRPC status alone, which stands in the head.
    #[must_use]
    pub fn grpc_error(status: &str, message: &str) -> Self {
        Self::status(200)
            .header("content-type", "application/grpc")
            .header("grpc-status", status)
            .header("grpc-message", message)
    }

    pub(super) fn into_actions(self) -> Vec<Action> {
        let mut actions: Vec<_> = self.first.into_iter().map(Action::Send).collect();
        if self.reads_body {
            actions.push(Action::ReadBody);
        }
        actions.extend(self.awaited.map(Action::Await));
        match self.message {
            Message::Nothing => {}
            Message::Raw(bytes) => actions.push(Action::Send(bytes)),
            Message::Response {
                status,
                fields,
                body,
                chunked,
                trailers,
            } => {
                let head = format!("HTTP/1.1 {status} Scripted\r\n{fields}");
                let bytes = framed(head, &body, chunked, &trailers, status);
                actions.push(Action::Send(bytes));
            }
        }
        actions.extend(self.last.map(Action::Last));
        actions
    }
}

fn framed(head: String, body: &[u8], chunked: bool, trailers: &str, status: u16) -> Vec<u8> {
    let mut bytes = head.into_bytes();
    if chunked {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        if !body.is_empty() {
            bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    } else if matches!(status, 204 | 304) {
        bytes.extend_from_slice(b"\r\n");
    } else {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
    }
    bytes
}
