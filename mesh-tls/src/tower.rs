//! SPIFFE mTLS for services of your own.
//!
//! On the client's side, [`TlsConnectLayer`] goes around whatever opens connections: a `Service` of any kind of
//! address that gives a byte stream. On the server's side, [`SessionLayer`] puts the facts of a connection onto
//! each of its requests, where handlers find them in the extensions.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::Request;
use mesh_core::BoxError;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_layer::Layer;
use tower_service::Service;

use crate::{TlsConnector, TlsSession, TlsStream};

/// Makes a TLS handshake on every connection that the service inside opens.
#[derive(Debug, Clone)]
pub struct TlsConnectLayer(TlsConnector);

impl TlsConnectLayer {
    /// A layer with `connector`'s identity and trust.
    #[must_use]
    pub const fn new(connector: TlsConnector) -> Self {
        Self(connector)
    }
}

impl<S> Layer<S> for TlsConnectLayer {
    type Service = TlsConnect<S>;

    fn layer(&self, inner: S) -> TlsConnect<S> {
        TlsConnect {
            inner,
            connector: self.0.clone(),
        }
    }
}

/// What [`TlsConnectLayer`] makes.
#[derive(Debug, Clone)]
pub struct TlsConnect<S> {
    inner: S,
    connector: TlsConnector,
}

impl<S, R, IO> Service<R> for TlsConnect<S>
where
    S: Service<R, Response = IO>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Response = TlsStream<IO>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<TlsStream<IO>, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(ready!(self.inner.poll_ready(cx)).map_err(Into::into))
    }

    fn call(&mut self, address: R) -> Self::Future {
        let connecting = self.inner.call(address);
        let connector = self.connector.clone();
        Box::pin(async move {
            let io = connecting.await.map_err(Into::into)?;
            connector.connect(io).await.map_err(Into::into)
        })
    }
}

/// Puts an `Arc<TlsSession>` into the extensions of every request of one connection.
#[derive(Debug, Clone)]
pub struct SessionLayer(Arc<TlsSession>);

impl SessionLayer {
    /// The facts of one connection: see [`TlsStream::session`].
    #[must_use]
    pub const fn new(session: Arc<TlsSession>) -> Self {
        Self(session)
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = WithSession<S>;

    fn layer(&self, inner: S) -> WithSession<S> {
        WithSession {
            inner,
            session: Arc::clone(&self.0),
        }
    }
}

/// What [`SessionLayer`] makes.
#[derive(Debug, Clone)]
pub struct WithSession<S> {
    inner: S,
    session: Arc<TlsSession>,
}

impl<S, B> Service<Request<B>> for WithSession<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        request.extensions_mut().insert(Arc::clone(&self.session));
        self.inner.call(request)
    }
}
