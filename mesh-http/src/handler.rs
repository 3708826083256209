//! The seam between a codec and whoever answers requests.

use std::{
    future::{Future, Ready},
    pin::Pin,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{Body, Error};

use crate::{
    h2::Flood,
    reply::{self, ReplyContext},
};

/// Answers the requests of one connection.
///
/// It never fails: whatever goes wrong has become a response before the codec sees it.
pub trait Handler: Send + 'static {
    /// The body of its answers.
    type Body: Abort + Send + 'static;
    /// One answer in the making.
    type Exchange: Exchange<Body = Self::Body> + Send + 'static;

    /// Begins to answer `request`, which has an origin-form target and a valid `host`.
    fn call(&mut self, request: Request<Body>) -> Self::Exchange;

    /// Answers what never became a request: a malformed or late head. HTTP/1 closes the connection
    /// behind it.
    fn reject(&mut self, error: Error) -> Response<Self::Body>;

    /// Hears what only the codec knows.
    fn observe(&mut self, _: CodecEvent) {}
}

/// What happens on a connection beside requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodecEvent {
    /// It speaks HTTP/1.
    Http1,
    /// It speaks HTTP/2.
    Http2,
    /// It has carried as many requests as it may.
    MaxRequests,
    /// HTTP/2: the client opened a stream.
    StreamBegan,
    /// HTTP/2: a stream ended with its answer.
    StreamEnded,
    /// HTTP/2: the client reset a stream.
    StreamResetByPeer,
    /// HTTP/2: a stream was reset from here.
    StreamResetByUs,
    /// HTTP/2: the connection is cut off.
    Flooded(Flood),
    /// HTTP/2: the client broke the protocol, and the connection with it.
    ProtocolError,
    /// HTTP/2: the client answers no pings.
    KeepaliveTimeout,
}

/// One answer in the making.
pub trait Exchange: Future<Output = Response<<Self as Exchange>::Body>> {
    /// The body of the answer.
    type Body: Abort + Send + 'static;

    /// The codec gives up on the answer, and says why: the client left, or time ran out. Returns what to
    /// answer instead, if anybody is still there.
    fn cancel(self: Pin<&mut Self>, error: Error) -> Response<<Self as Exchange>::Body>;

    /// How long the stream may be silent, where a route says so; zero means for ever.
    fn idle_timeout(&self) -> Option<Duration>;
}

/// The body of an answer, which can be told why it will not be read to its end.
pub trait Abort: HttpBody<Data = Bytes, Error = Error> {
    /// The rest will not be read; dropping it follows at once.
    fn abort(self: Pin<&mut Self>, error: &Error);
}

/// A plain body has nobody to tell.
impl Abort for Body {
    fn abort(self: Pin<&mut Self>, _: &Error) {}
}

/// For handlers that know their answer at once.
impl Exchange for Ready<Response<Body>> {
    type Body = Body;

    fn cancel(self: Pin<&mut Self>, error: Error) -> Response<Body> {
        reply::response(error, None, ReplyContext::default())
    }

    fn idle_timeout(&self) -> Option<Duration> {
        None
    }
}

/// In the extensions of a response: the connection ends behind it.
#[derive(Debug, Clone, Copy)]
pub struct CloseConnection;
