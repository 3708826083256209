use std::{borrow::Cow, error::Error as StdError, fmt, io};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::{Resource, ResponseFlag};

/// Any error, as tower knows it.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Who is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The client: malformed, too large, gone.
    Downstream,
    /// A decision of this process: a limit, a timeout, a missing route.
    Local,
    /// The endpoint, or the way to it.
    Upstream,
}

/// How much of the request had been written to the upstream when the attempt failed.
///
/// [`Sent::Nothing`] is the proof that a repetition is safe whatever the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Sent {
    /// Not a byte left this process.
    Nothing,
    /// At least a byte may have reached the upstream, or it is not known.
    #[default]
    Some,
}

/// What went wrong. The closed list that retries, outlier detection, stats and local replies decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The endpoint refused or could not be reached. Envoy: "remote connection failure", `UF`.
    ConnectFailure,
    /// No connection within `connect_timeout`. Envoy: "connection timeout", `UF`.
    ConnectTimeout,
    /// The upstream closed the connection under the request. Envoy: "connection termination", `UC`.
    ConnectionTermination,
    /// The upstream reset the stream. Envoy: "remote reset", `UR`.
    RemoteReset,
    /// The upstream proved that it did not process the stream (REFUSED_STREAM, GOAWAY). Envoy: "remote refused stream reset", `UR`.
    RemoteRefused,
    /// This process reset the stream. Envoy: "local reset", `LR`.
    LocalReset,
    /// The upstream broke the protocol. Envoy: "protocol error", `UPE`, status 502.
    UpstreamProtocol,
    /// A threshold is full. Envoy: "overflow", `UO`.
    Overflow(Resource),
    /// The breaker is open. `UO`.
    BreakerOpen,
    /// There is no endpoint to pick. `UH`.
    NoHealthyUpstream,
    /// No route matches. `NR`, 404.
    NoRoute,
    /// The route's cluster does not exist. `NC`.
    NoCluster,
    /// The route timeout passed. `UT`, 504.
    RequestTimeout,
    /// One attempt took too long. `UT`, 504.
    PerTryTimeout,
    /// One attempt was silent for too long. `UT`, 504.
    PerTryIdleTimeout,
    /// Nothing moved on the stream for too long. `SI`, 408 or 504.
    StreamIdleTimeout,
    /// The stream lasted for too long. `UMSDR`.
    MaxStreamDuration,
    /// The client's stream lasted for too long. 408 or 504.
    StreamDuration,
    /// The request did not arrive in time. 408.
    RequestReceiveTimeout,
    /// A rate limit refused. `RL`, 429.
    RateLimited,
    /// The replay buffer overflowed while no attempt was in flight. 507.
    RetryBufferExceeded,
    /// The client broke the protocol. `DPE`, 400 or what the reply says.
    DownstreamProtocol,
    /// The client's connection ended. `DC`.
    DownstreamGone,
    /// The client reset its stream. `DR`.
    DownstreamReset,
    /// The message is larger than a limit allows.
    TooLarge,
    /// A filter refused; the reply says how.
    Denied,
    /// A policy injected a fault. `FI`.
    FaultInjected,
    /// This service is shutting down or was never ready.
    Unavailable,
    /// None of the above: an error of a service that does not speak this vocabulary.
    Unknown,
}

impl ErrorKind {
    /// Who is at fault.
    #[must_use]
    pub const fn origin(self) -> Origin {
        match self {
            Self::ConnectFailure
            | Self::ConnectTimeout
            | Self::ConnectionTermination
            | Self::RemoteReset
            | Self::RemoteRefused
            | Self::UpstreamProtocol
            | Self::Unknown => Origin::Upstream,
            Self::DownstreamProtocol
            | Self::DownstreamGone
            | Self::DownstreamReset
            | Self::RequestReceiveTimeout => Origin::Downstream,
            _ => Origin::Local,
        }
    }

    /// Whether the client has left: nobody reads an answer.
    #[must_use]
    pub const fn is_departure(self) -> bool {
        matches!(self, Self::DownstreamGone | Self::DownstreamReset)
    }

    /// The flag that an access log shows.
    #[must_use]
    pub const fn flag(self) -> Option<ResponseFlag> {
        use ResponseFlag as Flag;
        Some(match self {
            Self::ConnectFailure | Self::ConnectTimeout => Flag::UpstreamConnectionFailure,
            Self::ConnectionTermination | Self::Unknown => Flag::UpstreamConnectionTermination,
            Self::RemoteReset | Self::RemoteRefused => Flag::UpstreamRemoteReset,
            Self::LocalReset => Flag::LocalReset,
            Self::UpstreamProtocol => Flag::UpstreamProtocolError,
            Self::Overflow(_) | Self::BreakerOpen => Flag::UpstreamOverflow,
            Self::NoHealthyUpstream => Flag::NoHealthyUpstream,
            Self::NoRoute => Flag::NoRouteFound,
            Self::NoCluster => Flag::NoClusterFound,
            Self::RequestTimeout | Self::PerTryTimeout | Self::PerTryIdleTimeout => {
                Flag::UpstreamRequestTimeout
            }
            Self::StreamIdleTimeout => Flag::StreamIdleTimeout,
            Self::MaxStreamDuration => Flag::UpstreamMaxStreamDurationReached,
            Self::RateLimited => Flag::RateLimited,
            Self::DownstreamProtocol => Flag::DownstreamProtocolError,
            Self::DownstreamGone => Flag::DownstreamConnectionTermination,
            Self::DownstreamReset => Flag::DownstreamRemoteReset,
            Self::FaultInjected => Flag::FaultInjected,
            Self::RequestReceiveTimeout
            | Self::StreamDuration
            | Self::RetryBufferExceeded
            | Self::TooLarge
            | Self::Denied
            | Self::Unavailable => return None,
        })
    }

    /// A word or two for logs and details, as Envoy prints its reset reasons.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::ConnectFailure => "remote connection failure",
            Self::ConnectTimeout => "connection timeout",
            Self::ConnectionTermination => "connection termination",
            Self::RemoteReset => "remote reset",
            Self::RemoteRefused => "remote refused stream reset",
            Self::LocalReset => "local reset",
            Self::UpstreamProtocol => "protocol error",
            Self::Overflow(_) => "overflow",
            Self::BreakerOpen => "breaker open",
            Self::NoHealthyUpstream => "no healthy upstream",
            Self::NoRoute => "no route",
            Self::NoCluster => "no cluster",
            Self::RequestTimeout => "request timeout",
            Self::PerTryTimeout => "per try timeout",
            Self::PerTryIdleTimeout => "per try idle timeout",
            Self::StreamIdleTimeout => "stream idle timeout",
            Self::MaxStreamDuration => "max stream duration",
            Self::StreamDuration => "stream duration",
            Self::RequestReceiveTimeout => "request receive timeout",
            Self::RateLimited => "rate limited",
            Self::RetryBufferExceeded => "retry buffer exceeded",
            Self::DownstreamProtocol => "downstream protocol error",
            Self::DownstreamGone => "downstream gone",
            Self::DownstreamReset => "downstream reset",
            Self::TooLarge => "too large",
            Self::Denied => "denied",
            Self::FaultInjected => "fault injected",
            Self::Unavailable => "unavailable",
            Self::Unknown => "upstream error",
        }
    }
}

/// The answer that a refusing policy wants to be given, when the kind's usual one will not do.
#[derive(Debug, Clone)]
pub struct LocalReply {
    /// The status.
    pub status: StatusCode,
    /// The body, `text/plain` unless `headers` says otherwise.
    pub body: Bytes,
    /// Headers to add.
    pub headers: HeaderMap,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
}

impl LocalReply {
    /// A reply without extra headers.
    #[must_use]
    pub fn new(status: StatusCode, body: &'static str, details: &'static str) -> Self {
        Self {
            status,
            body: Bytes::from_static(body.as_bytes()),
            headers: HeaderMap::new(),
            details: Cow::Borrowed(details),
        }
    }
}

/// Why there is no answer: the one error type of every mesh layer.
///
/// It is one pointer wide. It carries its [`ErrorKind`], whether anything had been [`Sent`], the cause,
/// and, where a policy refused with an answer of its own, that [`LocalReply`]. It becomes a response at
/// the edge of the stack and nowhere else.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    sent: Sent,
    message: Option<Cow<'static, str>>,
    reply: Option<LocalReply>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of `kind`, with nothing known beyond it.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Box::new(Inner {
            kind,
            sent: Sent::default(),
            message: None,
            reply: None,
            source: None,
        }))
    }

    /// With what happened, for people and for `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.0.message = Some(message.into());
        self
    }

    /// With the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// With the answer to give.
    #[must_use]
    pub fn with_reply(mut self, reply: LocalReply) -> Self {
        self.0.reply = Some(reply);
        self
    }

    /// With how much had been written upstream.
    #[must_use]
    pub fn with_sent(mut self, sent: Sent) -> Self {
        self.0.sent = sent;
        self
    }

    /// Takes over any service's error.
    ///
    /// An [`Error`] inside comes out unchanged; an I/O error is read as what it means for a request to an
    /// upstream; everything else is [`ErrorKind::Unknown`].
    #[must_use]
    pub fn from_boxed(error: BoxError) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => *own,
            Err(foreign) => {
                let (kind, sent) = classify_foreign(foreign.as_ref());
                Self::new(kind).with_sent(sent).with_source(foreign)
            }
        }
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Who is at fault.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.0.kind.origin()
    }

    /// How much of the request had been written upstream.
    #[must_use]
    pub fn sent(&self) -> Sent {
        self.0.sent
    }

    /// What happened, in words, if anything is known beyond the kind.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.0.message.as_deref()
    }

    /// The answer that the refusing policy asks for.
    #[must_use]
    pub fn reply(&self) -> Option<&LocalReply> {
        self.0.reply.as_ref()
    }

    /// Takes the answer that the refusing policy asks for.
    pub fn take_reply(&mut self) -> Option<LocalReply> {
        self.0.reply.take()
    }
}

/// An error and its causes in one line, from the outermost in.
#[must_use]
pub fn with_causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// A foreign error may still have one of ours, or an I/O error, somewhere down its chain.
fn classify_foreign(error: &(dyn StdError + 'static)) -> (ErrorKind, Sent) {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<Error>() {
            return (own.kind(), own.sent());
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable => (ErrorKind::ConnectFailure, Sent::Nothing),
                io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::UnexpectedEof => (ErrorKind::ConnectionTermination, Sent::Some),
                _ => (ErrorKind::Unknown, Sent::Some),
            };
        }
        next = error.source();
    }
    (ErrorKind::Unknown, Sent::Some)
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("sent", &self.0.sent)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.kind.text())?;
        if let Some(message) = &self.0.message {
            write!(f, ": {message}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::{BoxError, Error, ErrorKind, Sent};

    #[test]
    fn an_own_error_survives_boxing() {
        let boxed: BoxError = Error::new(ErrorKind::RateLimited)
            .with_message("no tokens")
            .into();
        let back = Error::from_boxed(boxed);
        assert_eq!(back.kind(), ErrorKind::RateLimited);
        assert_eq!(back.to_string(), "rate limited: no tokens");
    }

    #[test]
    fn a_refused_connection_is_known_to_have_sent_nothing() {
        let back = Error::from_boxed(io::Error::from(io::ErrorKind::ConnectionRefused).into());
        assert_eq!(
            (back.kind(), back.sent()),
            (ErrorKind::ConnectFailure, Sent::Nothing)
        );
        let back = Error::from_boxed("who knows".into());
        assert_eq!((back.kind(), back.sent()), (ErrorKind::Unknown, Sent::Some));
    }
}
