use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::ACCEPT_ENCODING,
};
use http_body::Body as _;
use mesh_core::{
    Body, BoxError, Error, ErrorKind, Fixed, PolicySource, stats::Scope as StatsScope,
};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{
    Coding, DecompressConfig, DecompressStats, Expansion, Transparency,
    body::{Coded, Transform},
    decode::{DecodeError, Decoder},
    headers,
};

/// Decompresses requests and answers; see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct DecompressLayer<P> {
    source: P,
    request: DecompressStats,
    response: DecompressStats,
}

impl DecompressLayer<Fixed<DecompressConfig>> {
    /// The same for every request.
    #[must_use]
    pub fn fixed(config: DecompressConfig) -> Self {
        Self::new(Fixed::new(config))
    }
}

impl<P> DecompressLayer<P> {
    /// What `source` finds for each request.
    #[must_use]
    pub fn new(source: P) -> Self {
        Self {
            source,
            request: DecompressStats::detached(),
            response: DecompressStats::detached(),
        }
    }

    /// Counts below `scope`, in `request.` and `response.`.
    #[must_use]
    pub fn with_stats(mut self, scope: &StatsScope) -> Self {
        self.request = DecompressStats::register(&scope.scope("request."));
        self.response = DecompressStats::register(&scope.scope("response."));
        self
    }

    /// What it counts of answers.
    #[must_use]
    pub const fn stats(&self) -> &DecompressStats {
        &self.response
    }
}

impl<S, P: Clone> Layer<S> for DecompressLayer<P> {
    type Service = Decompress<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Decompress {
            inner,
            layer: self.clone(),
        }
    }
}

/// Decompresses requests and answers; see the [crate's page](crate).
#[derive(Debug, Clone)]
pub struct Decompress<S, P> {
    inner: S,
    layer: DecompressLayer<P>,
}

impl<S, P> Service<Request<Body>> for Decompress<S, P>
where
    S: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError>>,
    P: PolicySource<Request<Body>, DecompressConfig>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = DecompressFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let config = self.layer.source.policy(&request);
        let connect = *request.method() == Method::CONNECT;
        let Some(config) = config.filter(|_| !connect && !headers::is_upgrade(request.headers()))
        else {
            return DecompressFuture {
                future: self.inner.call(request),
                response: None,
            };
        };
        let (mut parts, body) = request.into_parts();
        let body = match config.request {
            Some(how) => {
                let direction = Direction {
                    config: &config,
                    how,
                    stats: &self.layer.request,
                    malformed: ErrorKind::DownstreamProtocol,
                };
                direction.decompress(&mut parts.headers, body)
            }
            None => body,
        };
        if config.response.is_some() && config.advertise_accept_encoding {
            welcome(&mut parts.headers, config.coding);
        }
        let response = config
            .response
            .map(|how| (*config, how, self.layer.response.clone()));
        DecompressFuture {
            future: self.inner.call(Request::from_parts(parts, body)),
            response,
        }
    }
}

/// Adds the coding to those that are accepted.
fn welcome(headers: &mut HeaderMap, coding: Coding) {
    let list = headers::list(headers, &ACCEPT_ENCODING);
    let list = list.map_or_else(|| coding.to_string(), |list| format!("{list},{coding}"));
    if let Ok(value) = HeaderValue::from_str(&list) {
        headers.insert(ACCEPT_ENCODING, value);
    }
}

/// One direction of one message.
struct Direction<'a> {
    config: &'a DecompressConfig,
    how: Transparency,
    stats: &'a DecompressStats,
    /// What a body that is not what it says is.
    malformed: ErrorKind,
}

impl Direction<'_> {
    fn decompress(&self, headers: &mut HeaderMap, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let allowed = self.how.ignore_no_transform_header || !headers::forbids_transform(headers);
        let wanted = !body.is_end_stream() && allowed;
        let decoder = wanted
            .then(|| Decoder::new(self.config.coding).ok())
            .flatten();
        let decoder = decoder.filter(|_| headers::take_coding(headers, self.config.coding));
        let Some(decoder) = decoder else {
            self.stats.not_decompressed().inc();
            return body;
        };
        self.stats.decompressed().inc();
        Body::new(Coded::new(
            body,
            Decompressing {
                decoder,
                came_in: 0,
                ready: 0,
                expansion: self.config.expansion,
                stats: self.stats.clone(),
                malformed: self.malformed,
            },
        ))
    }
}

/// The future of a [`Decompress`].
#[pin_project]
pub struct DecompressFuture<F> {
    #[pin]
    future: F,
    response: Option<(DecompressConfig, Transparency, DecompressStats)>,
}

impl<F, E> Future for DecompressFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(cx));
        let response = response.map_err(|error| Error::from_boxed(error.into()))?;
        let tunnel = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let Some((config, how, stats)) = this.response.take().filter(|_| !tunnel) else {
            return Poll::Ready(Ok(response));
        };
        let (mut parts, body) = response.into_parts();
        let direction = Direction {
            config: &config,
            how,
            stats: &stats,
            malformed: ErrorKind::UpstreamProtocol,
        };
        let body = direction.decompress(&mut parts.headers, body);
        Poll::Ready(Ok(Response::from_parts(parts, body)))
    }
}

struct Decompressing {
    decoder: Decoder,
    came_in: u64,
    ready: usize,
    expansion: Expansion,
    stats: DecompressStats,
    malformed: ErrorKind,
}

impl Decompressing {
    fn failed(&self, error: DecodeError) -> Error {
        match error {
            DecodeError::Grows => {
                self.stats.expanded_too_far().inc();
                let message = format!(
                    "the body expands too far: {} compressed bytes would be more than {} times as many",
                    self.came_in, self.expansion.max_inflate_ratio
                );
                Error::new(ErrorKind::TooLarge).with_message(message)
            }
            DecodeError::Malformed(error) => {
                self.stats.malformed().inc();
                Error::new(self.malformed)
                    .with_message("the body is not coded as it says")
                    .with_source(error)
            }
        }
    }
}

impl Transform for Decompressing {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.came_in += data.len() as u64;
        self.stats.total_compressed_bytes().add(data.len() as u64);
        let result = self.decoder.write(data, self.came_in, &self.expansion);
        self.ready = self.decoder.ready();
        result.map_err(|error| self.failed(error))
    }

    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn ready(&self) -> usize {
        self.ready
    }

    fn take(&mut self) -> Bytes {
        self.ready = 0;
        let out = self.decoder.take();
        self.stats.total_uncompressed_bytes().add(out.len() as u64);
        out
    }

    fn finish(&mut self) -> Result<Bytes, Error> {
        let result = self.decoder.finish();
        result.map_err(|error| self.failed(error))?;
        Ok(self.take())
    }
}
