use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG},
};
use http_body::Body as _;
use mesh_core::{
    Body, BoxError, Error, ErrorKind, Fixed, PolicySource, stats::Scope as StatsScope,
};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    AcceptStats, Candidate, Choice, CodingStats, CompressConfig, Scope,
    accept::choose,
    body::{Coded, Transform},
    encode::Encoder,
    headers,
};

/// Compresses answers (and requests, if asked to); see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct CompressLayer<P> {
    source: P,
    stats: Stats,
}

#[derive(Debug, Clone)]
struct Stats {
    request: CodingStats,
    response: CodingStats,
    accept: AcceptStats,
}

impl CompressLayer<Fixed<CompressConfig>> {
    /// The same for every request.
    #[must_use]
    pub fn fixed(config: CompressConfig) -> Self {
        Self::new(Fixed::new(config))
    }
}

impl<P> CompressLayer<P> {
    /// What `source` finds for each request.
    #[must_use]
    pub fn new(source: P) -> Self {
        Self {
            source,
            stats: Stats {
                request: CodingStats::detached(),
                response: CodingStats::detached(),
                accept: AcceptStats::detached(),
            },
        }
    }

    /// Counts below `scope`: requests in `request.`, answers in `response` (a part of a name that ends in a
    /// dot, or nothing), and what became of `accept-encoding` in `scope` itself.
    #[must_use]
    pub fn with_stats(mut self, scope: &StatsScope, response: &str) -> Self {
        self.stats = Stats {
            request: CodingStats::register(&scope.scope("request.")),
            response: CodingStats::register(&scope.scope(response)),
            accept: AcceptStats::register(scope),
        };
        self
    }

    /// What it counts of answers.
    #[must_use]
    pub const fn stats(&self) -> &CodingStats {
        &self.stats.response
    }
}

impl<S, P: Clone> Layer<S> for CompressLayer<P> {
    type Service = Compress<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Compress {
            inner,
            source: self.source.clone(),
            stats: self.stats.clone(),
        }
    }
}

/// Compresses answers (and requests, if asked to); see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct Compress<S, P> {
    inner: S,
    source: P,
    stats: Stats,
}

/// The compressors of a stack that a request has come through, so that one of them is chosen. It travels in
/// the request's extensions; there are as many as there are layers.
#[derive(Clone, Default)]
struct Rivals(Arc<Mutex<Vec<Arc<CompressConfig>>>>);

impl Rivals {
    /// Joins them: the place of the one that joins.
    fn join(&self, config: Arc<CompressConfig>) -> usize {
        let mut rivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rivals.push(config);
        rivals.len() - 1
    }

    /// Which of them is to compress an answer of that type.
    fn choose(&self, accept_encoding: &str, content_type: Option<&str>) -> (Choice, Vec<usize>) {
        let rivals = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = rivals.iter().enumerate().filter(|(_, config)| {
            let response = config.response.as_ref();
            response.is_some_and(|scope| scope.allows(content_type))
        });
        let (places, candidates): (Vec<usize>, Vec<Candidate<'_>>) = allowed
            .map(|(place, config)| {
                let candidate = Candidate {
                    token: config.compression.coding().token(),
                    choose_first: config.choose_first,
                };
                (place, candidate)
            })
            .unzip();
        (choose(accept_encoding, &candidates), places)
    }
}

/// What is remembered of a request for its answer.
struct Pending {
    config: Arc<CompressConfig>,
    accept_encoding: Option<String>,
    rivals: Rivals,
    place: usize,
    connect: bool,
    /// A HEAD: whatever body the answer has is not sent.
    head: bool,
    stats: Stats,
}

impl<S, P> Service<Request<Body>> for Compress<S, P>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>>,
    P: PolicySource<Request<Body>, CompressConfig>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CompressFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(config) = self.source.policy(&request) else {
            return CompressFuture {
                future: self.inner.call(request),
                pending: None,
            };
        };
        let rivals = request
            .extensions_mut()
            .get_or_insert_default::<Rivals>()
            .clone();
        let pending = Pending {
            place: rivals.join(Arc::clone(&config)),
            accept_encoding: headers::list(request.headers(), &ACCEPT_ENCODING),
            connect: *request.method() == Method::CONNECT,
            head: *request.method() == Method::HEAD,
            rivals,
            stats: self.stats.clone(),
            config,
        };
        if pending.config.response.is_some() && pending.config.remove_accept_encoding_header {
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        let request = compress_request(request, &pending);
        CompressFuture {
            future: self.inner.call(request),
            pending: Some(pending),
        }
    }
}

fn compress_request(request: Request<Body>, pending: &Pending) -> Request<Body> {
    let stats = &pending.stats.request;
    let (mut parts, body) = request.into_parts();
    let wanted = pending.config.request.as_ref().is_some_and(|scope| {
        let here =
            !body.is_end_stream() && !pending.connect && !headers::is_upgrade(&parts.headers);
        here && is_long_enough(&parts.headers, scope, stats)
            && headers::is_allowed_type(&parts.headers, scope)
            && !parts.headers.contains_key(CONTENT_ENCODING)
    });
    let compression = pending.config.compression;
    let Some(encoder) = wanted.then(|| Encoder::new(compression).ok()).flatten() else {
        stats.not_compressed().inc();
        return Request::from_parts(parts, body);
    };
    headers::set_coding(&mut parts.headers, compression.coding());
    Request::from_parts(parts, compressed(body, encoder, stats))
}

fn is_long_enough(headers: &http::HeaderMap, scope: &Scope, stats: &CodingStats) -> bool {
    let short = headers::is_too_short(headers, scope);
    if short {
        stats.content_length_too_small().inc();
    }
    !short
}

/// The body, compressed.
fn compressed(body: Body, encoder: Encoder, stats: &CodingStats) -> Body {
    stats.compressed().inc();
    let stats = stats.clone();
    Body::new(Coded::new(body, Compressing { encoder, stats }))
}

/// The future of a [`Compress`].
#[pin_project]
pub struct CompressFuture<F> {
    #[pin]
    future: F,
    pending: Option<Pending>,
}

impl<F, E> Future for CompressFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        let response = response.map_err(|error| Error::from_boxed(error.into()))?;
        Poll::Ready(Ok(match this.pending.take() {
            Some(pending) => pending.answer(response),
            None => response,
        }))
    }
}

impl Pending {
    fn answer(self, response: Response<Body>) -> Response<Body> {
        let status = response.status();
        let tunnel =
            status == StatusCode::SWITCHING_PROTOCOLS || (self.connect && status.is_success());
        let Some(scope) = self.config.response.as_ref().filter(|_| !tunnel) else {
            self.stats.response.not_compressed().inc();
            return response;
        };
        let (mut parts, body) = response.into_parts();
        let long = is_long_enough(&parts.headers, scope, &self.stats.response);
        // In Envoy's order: what is counted depends on it.
        let some = !body.is_end_stream() && !self.head;
        let chosen = some && long && self.is_chosen(&parts.headers);
        let fit = long && self.is_fit(&parts, scope);
        if fit {
            headers::vary(&mut parts.headers);
        }
        let compression = self.config.compression;
        let encoder = (chosen && fit).then(|| Encoder::new(compression).ok());
        let Some(encoder) = encoder.flatten() else {
            self.stats.response.not_compressed().inc();
            return Response::from_parts(parts, body);
        };
        headers::soften_etag(&mut parts.headers, self.config.weaken_etag_on_compress);
        headers::set_coding(&mut parts.headers, compression.coding());
        let body = compressed(body, encoder, &self.stats.response);
        Response::from_parts(parts, body)
    }

    /// Whether the client wants this coding, rather than another one of the stack.
    fn is_chosen(&self, headers: &http::HeaderMap) -> bool {
        let stats = &self.stats.accept;
        let Some(accept_encoding) = &self.accept_encoding else {
            stats.no_accept_header().inc();
            return false;
        };
        let content_type = headers::text(headers, &http::header::CONTENT_TYPE);
        let (choice, places) = self.rivals.choose(accept_encoding, content_type);
        let is_mine = |place: usize| places.get(place) == Some(&self.place);
        match choice {
            Choice::Named(place) if is_mine(place) => stats.header_compressor_used().inc(),
            Choice::Wildcard(place) => {
                stats.header_wildcard().inc();
                return is_mine(place);
            }
            Choice::Identity => {
                stats.header_identity().inc();
                return false;
            }
            Choice::NotValid => {
                stats.header_not_valid().inc();
                return false;
            }
            _ => {
                stats.header_compressor_overshadowed().inc();
                return false;
            }
        }
        true
    }

    /// Whether the answer is one that is compressed, for whoever wants it.
    fn is_fit(&self, parts: &http::response::Parts, scope: &Scope) -> bool {
        let headers = &parts.headers;
        if self.config.disable_on_etag_header && headers.contains_key(ETAG) {
            self.stats.accept.not_compressed_etag().inc();
            return false;
        }
        !headers::is_upgrade(headers)
            && headers::is_allowed_type(headers, scope)
            && !headers::forbids_transform(headers)
            && !headers.contains_key(CONTENT_ENCODING)
            && !(self.config.uncompressible_response_codes).contains(&parts.status)
    }
}

struct Compressing {
    encoder: Encoder,
    stats: CodingStats,
}

impl Transform for Compressing {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.stats.total_uncompressed_bytes().add(data.len() as u64);
        self.encoder.write(data).map_err(failed)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.encoder.flush().map_err(failed)
    }

    fn ready(&self) -> usize {
        self.encoder.ready()
    }

    fn take(&mut self) -> Bytes {
        let out = self.encoder.take();
        self.stats.total_compressed_bytes().add(out.len() as u64);
        out
    }

    fn finish(&mut self) -> Result<Bytes, Error> {
        let rest = self.encoder.finish().map_err(failed)?;
        self.stats.total_compressed_bytes().add(rest.len() as u64);
        Ok(rest)
    }
}

/// The library fails only when it has no memory.
fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::LocalReset)
        .with_message("the body cannot be compressed")
        .with_source(error)
}
