use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use mesh_core::{Body, Error, ErrorKind, Sent};

use crate::{Gate, ScriptedBody, body::header};

/// What a scripted [`Upstream`](crate::Upstream) does with one request.
#[derive(Debug)]
pub struct Reply {
    pub(crate) result: Result<Response<Body>, Error>,
    pub(crate) delay: Duration,
    pub(crate) gate: Option<Gate>,
    pub(crate) read_request: bool,
}

impl Reply {
    fn new(result: Result<Response<Body>, Error>) -> Self {
        Self {
            result,
            delay: Duration::ZERO,
            gate: None,
            read_request: true,
        }
    }

    /// An empty answer with `status`.
    ///
    /// # Panics
    /// When `status` is not between 100 and 999.
    #[must_use]
    pub fn status(status: u16) -> Self {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        Self::new(Ok(response))
    }

    /// 200 with a body.
    #[must_use]
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self::new(Ok(Response::new(Body::from(body))))
    }

    /// No answer but an error of `kind`.
    #[must_use]
    pub fn error(kind: ErrorKind) -> Self {
        Self::new(Err(Error::new(kind)))
    }

    /// No answer but `error`.
    #[must_use]
    pub fn fail(error: Error) -> Self {
        Self::new(Err(error))
    }

    /// With what was sent when the error happened; answers stay as they are.
    #[must_use]
    pub fn sent(mut self, sent: Sent) -> Self {
        self.result = self.result.map_err(|error| error.with_sent(sent));
        self
    }

    /// Adds a header; errors stay as they are.
    ///
    /// # Panics
    /// When the name or value is not valid.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = header((name, value));
        if let Ok(response) = &mut self.result {
            response.headers_mut().append(name, value);
        }
        self
    }

    /// Replaces the body; errors stay as they are.
    #[must_use]
    pub fn body(mut self, body: ScriptedBody) -> Self {
        if let Ok(response) = &mut self.result {
            *response.body_mut() = body.into();
        }
        self
    }

    /// Not before `delay` has passed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Not before `gate` is open.
    #[must_use]
    pub fn held(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Never.
    #[must_use]
    pub fn never() -> Self {
        Self::status(200).held(&Gate::new())
    }

    /// Without reading the request's body first.
    #[must_use]
    pub fn early(mut self) -> Self {
        self.read_request = false;
        self
    }
}
