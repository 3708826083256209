use http::HeaderName;

use super::{
    capture::{Captures, RequestField, Slot},
    names::Fact,
    time::TimeFormat,
};

/// One `%COMMAND(parameters):length%`, ready to be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operator {
    /// `REQ`, `REQUEST_HEADER`, `REQ_WITHOUT_QUERY`.
    Request {
        main: Slot,
        other: Option<Slot>,
        without_query: bool,
        length: Length,
    },
    /// `RESP`, `RESPONSE_HEADER`.
    Response {
        main: ResponseField,
        other: Option<ResponseField>,
        length: Length,
    },
    /// `TRAILER`, `RESPONSE_TRAILER`.
    Trailer {
        main: HeaderName,
        other: Option<HeaderName>,
        length: Length,
    },
    /// `QUERY_PARAM`, and `QUERY_PARAMS` without a key.
    QueryParam {
        path: Slot,
        key: Option<Box<str>>,
        length: Length,
    },
    /// `PATH`.
    Path {
        original: Option<Slot>,
        current: Option<Slot>,
        with_query: bool,
        length: Length,
    },
    /// `START_TIME`, `EMIT_TIME`.
    Time { emitted: bool, format: TimeFormat },
    /// `*_PEER_CERT_V_START`, `*_PEER_CERT_V_END`.
    CertificateTime {
        upstream: bool,
        end: bool,
        format: TimeFormat,
    },
    /// Every `*_DURATION`.
    Duration { from: Point, to: Point, unit: Unit },
    /// `GRPC_STATUS`.
    GrpcStatus {
        style: GrpcStyle,
        content_type: Slot,
    },
    /// `STREAM_ID`.
    StreamId(Slot),
    /// `RESPONSE_CODE_DETAILS`, which is printed without blanks unless asked for.
    Details { blanks: bool },
    /// `UPSTREAM_METADATA(envoy.lb:key)`.
    EndpointMetadata(Box<str>),
    /// `METADATA(ROUTE:a:b)`, `METADATA(CLUSTER:a:b)`, `CLUSTER_METADATA(a:b)`.
    Metadata {
        of: MetadataOf,
        path: Box<[Box<str>]>,
        length: Length,
    },
    /// `*_ADDRESS_WITHOUT_PORT(prefix length)`: the network of an address.
    Network { address: Fact, prefix: u8 },
    /// Without parameters.
    Fact(Fact),
    /// Known when it was compiled: `HOSTNAME`, `ENVIRONMENT`.
    Constant(Option<Box<str>>),
    /// Envoy knows it, and it is never set here.
    Unset(Box<str>),
}

/// At most so many bytes of a value.
pub(super) type Length = Option<usize>;

/// A response header, or `:status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ResponseField {
    Status,
    Header(HeaderName),
}

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetadataOf {
    Route,
    Cluster,
}

/// A point in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Start,
    RequestReceived,
    AttemptStarted,
    UpstreamReady,
    RequestSent,
    ResponseStarted,
    ResponseReceived,
    End,
}

impl Point {
    /// Whether it is noted only where somebody asks for it.
    const fn is_of_an_attempt(self) -> bool {
        matches!(
            self,
            Self::AttemptStarted | Self::UpstreamReady | Self::RequestSent | Self::ResponseReceived
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GrpcStyle {
    Camel,
    Snake,
    Number,
}

impl Operator {
    fn slots_mut(&mut self) -> [Option<&mut Slot>; 2] {
        match self {
            Self::Request { main, other, .. } => [Some(main), other.as_mut()],
            Self::Path {
                original, current, ..
            } => [original.as_mut(), current.as_mut()],
            Self::QueryParam { path: slot, .. }
            | Self::GrpcStatus {
                content_type: slot, ..
            }
            | Self::StreamId(slot) => [Some(slot), None],
            _ => [None, None],
        }
    }

    /// The request fields that the operator reads.
    pub(super) fn request_fields(&self) -> impl Iterator<Item = &RequestField> {
        let slots = match self {
            Self::Request { main, other, .. } => [Some(main), other.as_ref()],
            Self::Path {
                original, current, ..
            } => [original.as_ref(), current.as_ref()],
            Self::QueryParam { path: slot, .. }
            | Self::GrpcStatus {
                content_type: slot, ..
            }
            | Self::StreamId(slot) => [Some(slot), None],
            _ => [None, None],
        };
        slots.into_iter().flatten().map(|slot| &slot.field)
    }

    pub(super) fn bind(&mut self, captures: &mut Captures) {
        if let Self::Duration { from, to, .. } = self {
            captures.timings |= from.is_of_an_attempt() || to.is_of_an_attempt();
        }
        for slot in self.slots_mut().into_iter().flatten() {
            slot.bind(captures);
        }
    }

    pub(super) fn always_unset(&self) -> Option<&str> {
        match self {
            Self::Unset(text) => Some(text),
            _ => None,
        }
    }
}
