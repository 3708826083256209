use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::{Buf, Bytes};
use http::{Extensions, HeaderMap, Method, Request, Response, Uri};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use mesh_core::{Body, BoxError, BoxFuture, EndGuard, Error, ErrorKind, GuardedBody, StreamEnd};
use tower_service::Service;

use crate::{Gate, Reply};

/// One request as the upstream saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// What travelled with it.
    pub extensions: Extensions,
    /// When it came.
    pub at: Instant,
    /// The bytes of its body, as far as they were read.
    pub body: Bytes,
    /// The trailers of its body.
    pub trailers: Option<HeaderMap>,
    /// Whether reading its body failed.
    pub body_failed: bool,
}

/// The far end of a stack under test: answers by script, and remembers every request.
///
/// Without a script it answers 200 and nothing else. Clones are the same upstream.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    ready: Gate,
    futures: AtomicUsize,
    bodies: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    script: VecDeque<Reply>,
    seen: Vec<Seen>,
    ready_error: Option<ErrorKind>,
    unready_calls: usize,
    lenient: bool,
}

impl Default for Upstream {
    fn default() -> Self {
        Self::new()
    }
}

impl Upstream {
    /// A ready upstream without a script.
    #[must_use]
    pub fn new() -> Self {
        let ready = Gate::new();
        ready.open();
        Self(Arc::new(Shared {
            state: Mutex::default(),
            ready,
            futures: AtomicUsize::new(0),
            bodies: AtomicUsize::new(0),
        }))
    }

    /// One that counts calls without readiness instead of panicking.
    pub(crate) fn lenient() -> Self {
        let this = Self::new();
        this.lock().lenient = true;
        this
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service to put under the layer under test.
    #[must_use]
    pub fn service(&self) -> UpstreamService {
        UpstreamService {
            upstream: self.clone(),
            ready: false,
        }
    }

    /// Appends one reply to the script.
    pub fn reply(&self, reply: Reply) {
        self.lock().script.push_back(reply);
    }

    /// Appends replies to the script.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.lock().script.extend(replies);
    }

    /// Replies that nobody came for yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.lock().script.len()
    }

    /// Whether `poll_ready` is ready; wakes those who wait.
    pub fn set_ready(&self, ready: bool) {
        if ready {
            self.0.ready.open();
        } else {
            self.0.ready.close();
        }
    }

    /// Lets `poll_ready` fail from now on, or work again on `None`.
    pub fn fail_ready(&self, kind: Option<ErrorKind>) {
        self.lock().ready_error = kind;
    }

    /// The requests so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many requests came.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().seen.len()
    }

    /// How many calls still wait for their reply.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.futures.load(Ordering::Acquire)
    }

    /// How many response bodies are neither read to their end nor dropped.
    #[must_use]
    pub fn open_bodies(&self) -> usize {
        self.0.bodies.load(Ordering::Acquire)
    }

    pub(crate) fn unready_calls(&self) -> usize {
        self.lock().unready_calls
    }

    fn begin<B>(&self, request: Request<B>) -> (usize, Reply, B) {
        let (head, body) = request.into_parts();
        let mut state = self.lock();
        let reply = state.script.pop_front();
        state.seen.push(Seen {
            method: head.method,
            uri: head.uri,
            headers: head.headers,
            extensions: head.extensions,
            at: mesh_core::clock::now(),
            body: Bytes::new(),
            trailers: None,
            body_failed: false,
        });
        let index = state.seen.len() - 1;
        (index, reply.unwrap_or_else(|| Reply::status(200)), body)
    }

    async fn read<B>(&self, index: usize, body: B) -> Result<(), Error>
    where
        B: HttpBody<Error: Into<BoxError>>,
    {
        let mut body = std::pin::pin!(body);
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                self.lock().seen[index].body_failed = true;
                Error::from_boxed(error.into())
            })?;
            match frame.into_data() {
                Ok(mut data) => {
                    bytes.extend_from_slice(&data.copy_to_bytes(data.remaining()));
                    self.lock().seen[index].body = Bytes::copy_from_slice(&bytes);
                }
                Err(frame) => self.lock().seen[index].trailers = frame.into_trailers().ok(),
            }
        }
        Ok(())
    }

    async fn answer<B>(self, request: Request<B>, _running: Count) -> Result<Response<Body>, Error>
    where
        B: HttpBody<Error: Into<BoxError>>,
    {
        let (index, reply, body) = self.begin(request);
        if reply.read_request {
            self.read(index, body).await?;
        }
        if !reply.delay.is_zero() {
            tokio::time::sleep(reply.delay).await;
        }
        if let Some(gate) = reply.gate {
            gate.passed().await;
        }
        let guard = Count::new(&self, |shared| &shared.bodies);
        reply
            .result
            .map(|response| response.map(|body| GuardedBody::new(body, guard).into_body()))
    }
}

/// Counts itself for as long as it lives.
struct Count(Arc<Shared>, fn(&Shared) -> &AtomicUsize);

impl Count {
    fn new(upstream: &Upstream, of: fn(&Shared) -> &AtomicUsize) -> Self {
        of(&upstream.0).fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(&upstream.0), of)
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.1(&self.0).fetch_sub(1, Ordering::AcqRel);
    }
}

impl EndGuard for Count {
    fn on_end(&mut self, _: StreamEnd) {}
}

/// The tower service of an [`Upstream`]. It insists on the rules: each call needs a `poll_ready` of its
/// own on the same instance, and a clone is not ready.
#[derive(Debug)]
pub struct UpstreamService {
    upstream: Upstream,
    ready: bool,
}

impl Clone for UpstreamService {
    fn clone(&self) -> Self {
        self.upstream.service()
    }
}

impl<B> Service<Request<B>> for UpstreamService
where
    B: HttpBody<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<Result<Response<Body>, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(kind) = self.upstream.lock().ready_error {
            return Poll::Ready(Err(Error::new(kind)));
        }
        ready!(self.upstream.0.ready.poll(cx));
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !std::mem::take(&mut self.ready) {
            let mut state = self.upstream.lock();
            state.unready_calls += 1;
            assert!(state.lenient, "called without being polled ready");
        }
        let running = Count::new(&self.upstream, |shared| &shared.futures);
        Box::pin(self.upstream.clone().answer(request, running))
    }
}
