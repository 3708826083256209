use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind};

use crate::Gate;

/// A body that follows a script: data, waits, failures, trailers, in the order written.
///
/// It knows its length and its end as far as the script allows, unless told to keep silent.
#[derive(Debug, Default)]
pub struct ScriptedBody {
    steps: VecDeque<Step>,
    silent: bool,
}

#[derive(Debug)]
enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Wait(Gate),
    Fail(ErrorKind),
}

impl ScriptedBody {
    /// An empty body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Then one frame of data.
    #[must_use]
    pub fn data(self, data: impl Into<Bytes>) -> Self {
        self.step(Step::Data(data.into()))
    }

    /// Then nothing until `gate` opens.
    #[must_use]
    pub fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Then nothing, for ever.
    #[must_use]
    pub fn stall(self) -> Self {
        self.step(Step::Wait(Gate::new()))
    }

    /// Then an error.
    #[must_use]
    pub fn fail(self, kind: ErrorKind) -> Self {
        self.step(Step::Fail(kind))
    }

    /// Then trailers.
    ///
    /// # Panics
    /// When a name or value is not valid.
    #[must_use]
    pub fn trailers<'a>(self, trailers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let trailers = trailers.into_iter().map(header).collect();
        self.step(Step::Trailers(trailers))
    }

    /// Says neither how long it is nor, before it was asked for more, that it is over: like a chunked
    /// message.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.silent = true;
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }
}

pub(crate) fn header((name, value): (&str, &str)) -> (HeaderName, HeaderValue) {
    (
        name.parse().expect("a header name"),
        value.parse().expect("a header value"),
    )
}

impl From<ScriptedBody> for Body {
    fn from(body: ScriptedBody) -> Self {
        Self::new(body)
    }
}

impl HttpBody for ScriptedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        while let Some(Step::Wait(gate)) = self.steps.front() {
            ready!(gate.poll(cx));
            self.steps.pop_front();
        }
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail(kind)) => {
                self.steps.clear();
                Some(Err(Error::new(kind)))
            }
            Some(Step::Wait(_)) | None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        !self.silent && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let sized = |step: &Step| matches!(step, Step::Data(_) | Step::Trailers(_));
        if self.silent || !self.steps.iter().all(sized) {
            return SizeHint::default();
        }
        let lengths = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        });
        SizeHint::with_exact(lengths.sum())
    }
}
