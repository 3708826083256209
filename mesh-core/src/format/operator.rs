use http::HeaderName;

use super::capture::{Captures, RequestField, Slot};
use super::time::{self, TimeFormat};

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
    Metadata(Box<str>),
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

/// A point in the life of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    Start,
    RequestReceived,
    RequestSent,
    ResponseStarted,
    ResponseReceived,
    End,
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

macro_rules! facts {
    ($($variant:ident = $($name:literal)|+,)*) => {
        /// A value that needs no parameter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Fact { $($variant,)* }

        impl Fact {
            fn from_name(name: &str) -> Option<Self> {
                match name { $($($name)|+ => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

facts! {
    BytesReceived = "BYTES_RECEIVED",
    BytesSent = "BYTES_SENT",
    Protocol = "PROTOCOL",
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    ResponseCode = "RESPONSE_CODE",
    Termination = "CONNECTION_TERMINATION_DETAILS",
    Flags = "RESPONSE_FLAGS",
    FlagsLong = "RESPONSE_FLAGS_LONG",
    RouteName = "ROUTE_NAME",
    UniqueId = "UNIQUE_ID",
    LogType = "ACCESS_LOG_TYPE",
    Attempts = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    Remote = "DOWNSTREAM_REMOTE_ADDRESS",
    RemoteIp = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    RemotePort = "DOWNSTREAM_REMOTE_PORT",
    DirectRemote = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    DirectRemoteIp = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    DirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    Local = "DOWNSTREAM_LOCAL_ADDRESS" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS",
    LocalIp = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" | "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT",
    LocalPort = "DOWNSTREAM_LOCAL_PORT" | "DOWNSTREAM_DIRECT_LOCAL_PORT",
    UpstreamHost = "UPSTREAM_HOST" | "UPSTREAM_REMOTE_ADDRESS",
    UpstreamHostIp = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    UpstreamHostPort = "UPSTREAM_REMOTE_PORT",
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    UpstreamHostNameOnly = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    UpstreamHostsAttempted = "UPSTREAM_HOSTS_ATTEMPTED",
    UpstreamLocal = "UPSTREAM_LOCAL_ADDRESS",
    UpstreamLocalIp = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    UpstreamCluster = "UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW",
    ConnectionId = "CONNECTION_ID",
    UpstreamConnectionId = "UPSTREAM_CONNECTION_ID",
    LocalReplyBody = "LOCAL_REPLY_BODY",
    TransportFailure = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    Decisions = "MESH_DECISIONS",
    ConfigVersion = "MESH_CONFIG_VERSION",
}

/// Whether a command has parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Optional,
    Required,
}
use Takes::{Nothing, Optional, Required};

/// Operators of Envoy that are never set here, and whether they take parameters.
const UNSET: &[(&str, Takes)] = &[
    ("BYTES_RETRANSMITTED", Nothing),
    ("CLUSTER_METADATA", Required),
    ("CUSTOM_FLAGS", Nothing),
    ("DOWNSTREAM_CX_RTT", Nothing),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", Nothing),
    ("DOWNSTREAM_DETECTED_CLOSE_TYPE", Nothing),
    ("DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", Nothing),
    ("DOWNSTREAM_HANDSHAKE_DURATION", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_HEADER_BYTES_SENT", Nothing),
    ("DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", Nothing),
    ("DOWNSTREAM_LOCAL_CLOSE_REASON", Nothing),
    ("DOWNSTREAM_LOCAL_DNS_SAN", Nothing),
    ("DOWNSTREAM_LOCAL_EMAIL_SAN", Nothing),
    ("DOWNSTREAM_LOCAL_IP_SAN", Nothing),
    ("DOWNSTREAM_LOCAL_OTHERNAME_SAN", Nothing),
    ("DOWNSTREAM_LOCAL_SUBJECT", Nothing),
    ("DOWNSTREAM_LOCAL_URI_SAN", Nothing),
    ("DOWNSTREAM_PEER_CERT", Nothing),
    ("DOWNSTREAM_PEER_CERT_V_END", Optional),
    ("DOWNSTREAM_PEER_CERT_V_START", Optional),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", Nothing),
    ("DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", Nothing),
    ("DOWNSTREAM_PEER_CHAIN_SERIALS", Nothing),
    ("DOWNSTREAM_PEER_DNS_SAN", Nothing),
    ("DOWNSTREAM_PEER_EMAIL_SAN", Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_1", Nothing),
    ("DOWNSTREAM_PEER_FINGERPRINT_256", Nothing),
    ("DOWNSTREAM_PEER_IP_SAN", Nothing),
    ("DOWNSTREAM_PEER_ISSUER", Nothing),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", Nothing),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", Nothing),
    ("DOWNSTREAM_PEER_OTHERNAME_SAN", Nothing),
    ("DOWNSTREAM_PEER_SERIAL", Nothing),
    ("DOWNSTREAM_PEER_SUBJECT", Nothing),
    ("DOWNSTREAM_PEER_URI_SAN", Nothing),
    ("DOWNSTREAM_TLS_CIPHER", Nothing),
    ("DOWNSTREAM_TLS_GROUP", Nothing),
    ("DOWNSTREAM_TLS_SESSION_ID", Nothing),
    ("DOWNSTREAM_TLS_VERSION", Nothing),
    ("DOWNSTREAM_TRANSPORT_FAILURE_REASON", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("DOWNSTREAM_WIRE_BYTES_SENT", Nothing),
    ("DYNAMIC_METADATA", Required),
    ("EMIT_TIME_LOCAL", Optional),
    ("FILTER_CHAIN_NAME", Nothing),
    ("FILTER_STATE", Required),
    ("METADATA", Required),
    ("PACKETS_RETRANSMITTED", Nothing),
    ("PER_REQUEST_STATE", Required),
    ("REQUESTED_SERVER_NAME", Optional),
    ("REQUEST_HEADERS_BYTES", Nothing),
    ("RESPONSE_HEADERS_BYTES", Nothing),
    ("RESPONSE_TRAILERS_BYTES", Nothing),
    ("ROUNDTRIP_DURATION", Nothing),
    ("SPAN_ID", Nothing),
    ("START_TIME_LOCAL", Optional),
    ("TLS_JA3_FINGERPRINT", Nothing),
    ("TLS_JA4_FINGERPRINT", Nothing),
    ("TRACE_ID", Nothing),
    ("UPSTREAM_CONNECTION_IDS_ATTEMPTED", Nothing),
    ("UPSTREAM_CONNECTION_POOL_READY_DURATION", Nothing),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", Nothing),
    ("UPSTREAM_DETECTED_CLOSE_TYPE", Nothing),
    ("UPSTREAM_FILTER_STATE", Required),
    ("UPSTREAM_HEADER_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_HEADER_BYTES_SENT", Nothing),
    ("UPSTREAM_LOCAL_CLOSE_REASON", Nothing),
    ("UPSTREAM_LOCAL_DNS_SAN", Nothing),
    ("UPSTREAM_LOCAL_IP_SAN", Nothing),
    ("UPSTREAM_LOCAL_URI_SAN", Nothing),
    ("UPSTREAM_PEER_CERT", Nothing),
    ("UPSTREAM_PEER_CERT_V_END", Optional),
    ("UPSTREAM_PEER_CERT_V_START", Optional),
    ("UPSTREAM_PEER_DNS_SAN", Nothing),
    ("UPSTREAM_PEER_IP_SAN", Nothing),
    ("UPSTREAM_PEER_ISSUER", Nothing),
    ("UPSTREAM_PEER_SUBJECT", Nothing),
    ("UPSTREAM_PEER_URI_SAN", Nothing),
    ("UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", Nothing),
    ("UPSTREAM_SERVER_NAME", Nothing),
    ("UPSTREAM_TLS_CIPHER", Nothing),
    ("UPSTREAM_TLS_GROUP", Nothing),
    ("UPSTREAM_TLS_SESSION_ID", Nothing),
    ("UPSTREAM_TLS_VERSION", Nothing),
    ("UPSTREAM_WIRE_BYTES_RECEIVED", Nothing),
    ("UPSTREAM_WIRE_BYTES_SENT", Nothing),
    ("VIRTUAL_CLUSTER_NAME", Nothing),
];

impl Operator {
    /// Compiles `%name(parameters):length%`; `Err` is the reason.
    pub(super) fn parse(
        name: &str,
        parameters: Option<&str>,
        length: Length,
    ) -> Result<Self, String> {
        if let Some(operator) = Self::sized(name, parameters, length)? {
            return Ok(operator);
        }
        let operator = Self::unsized_(name, parameters)?;
        if length.is_some() && !matches!(&operator, Self::Unset(_)) {
            return Err(format!("{name} takes no length"));
        }
        Ok(operator)
    }

    /// The commands that take `:length`.
    fn sized(name: &str, parameters: Option<&str>, length: Length) -> Result<Option<Self>, String> {
        let need = || {
            parameters
                .filter(|parameters| !parameters.is_empty())
                .ok_or_else(|| format!("{name} needs a parameter"))
        };
        Ok(Some(match name {
            "REQ" | "REQUEST_HEADER" | "REQ_WITHOUT_QUERY" => {
                let (main, other) = pair(need()?, request_field)?;
                Self::Request {
                    main: Slot::new(main),
                    other: other.map(Slot::new),
                    without_query: name == "REQ_WITHOUT_QUERY",
                    length,
                }
            }
            "RESP" | "RESPONSE_HEADER" => {
                let (main, other) = pair(need()?, response_field)?;
                Self::Response {
                    main,
                    other,
                    length,
                }
            }
            "TRAILER" | "RESPONSE_TRAILER" => {
                let (main, other) = pair(need()?, header_name)?;
                Self::Trailer {
                    main,
                    other,
                    length,
                }
            }
            "QUERY_PARAM" => Self::QueryParam {
                path: Slot::new(RequestField::Path),
                key: Some(need()?.into()),
                length,
            },
            "QUERY_PARAMS" if matches!(parameters, None | Some("ORIG")) => Self::QueryParam {
                path: Slot::new(RequestField::Path),
                key: None,
                length,
            },
            "PATH" => path(parameters.unwrap_or_default(), length)?,
            _ => return Ok(None),
        }))
    }

    fn unsized_(name: &str, parameters: Option<&str>) -> Result<Self, String> {
        if let Some(&(_, takes)) = UNSET.iter().find(|(known, _)| *known == name) {
            return match (takes, parameters) {
                (Nothing, Some(_)) => Err(format!("{name} takes no parameters")),
                (Required, None | Some("")) => Err(format!("{name} needs a parameter")),
                _ => Ok(Self::unset(name, parameters)),
            };
        }
        let given = parameters.unwrap_or_default();
        Ok(match name {
            "START_TIME" | "EMIT_TIME" => {
                let format = if given.is_empty() {
                    time::DEFAULT
                } else {
                    given
                };
                Self::Time {
                    emitted: name == "EMIT_TIME",
                    format: TimeFormat::parse(format)?,
                }
            }
            "COMMON_DURATION" => common_duration(given)?,
            "GRPC_STATUS" => grpc_status(grpc_style(given)?),
            "RESPONSE_CODE_DETAILS" => Self::Details {
                blanks: match given {
                    "" => false,
                    "ALLOW_WHITESPACES" => true,
                    other => return Err(format!("unknown parameter \"{other}\"")),
                },
            },
            "UPSTREAM_METADATA" => match given.split_once(':') {
                Some(("envoy.lb", key)) => Self::Metadata(key.into()),
                _ if given.is_empty() => return Err(format!("{name} needs a parameter")),
                _ => Self::unset(name, parameters),
            },
            "ENVIRONMENT" if given.is_empty() => {
                return Err("ENVIRONMENT needs a parameter".to_owned());
            }
            _ if name.ends_with("_ADDRESS_WITHOUT_PORT") && parameters.is_some() => {
                network(name, given)?
            }
            "ENVIRONMENT" => Self::Constant(std::env::var(given).ok().map(Into::into)),
            _ if parameters.is_some() && Self::plain(name).is_some() => {
                return Err(format!("{name} takes no parameters"));
            }
            _ => Self::plain(name).ok_or_else(|| unknown(name))?,
        })
    }

    /// The commands without parameters.
    fn plain(name: &str) -> Option<Self> {
        let millis = |from, to| Self::Duration {
            from,
            to,
            unit: Unit::Millis,
        };
        Some(match name {
            "DURATION" => millis(Point::Start, Point::End),
            "REQUEST_DURATION" => millis(Point::Start, Point::RequestReceived),
            "REQUEST_TX_DURATION" => millis(Point::Start, Point::RequestSent),
            "RESPONSE_DURATION" => millis(Point::Start, Point::ResponseStarted),
            "RESPONSE_TX_DURATION" => millis(Point::ResponseStarted, Point::End),
            "GRPC_STATUS_NUMBER" => grpc_status(GrpcStyle::Number),
            "STREAM_ID" => {
                let id = HeaderName::from_static("x-request-id");
                Self::StreamId(Slot::new(RequestField::Header(id)))
            }
            "HOSTNAME" => Self::Constant(hostname()),
            _ => Self::Fact(Fact::from_name(name)?),
        })
    }

    fn unset(name: &str, parameters: Option<&str>) -> Self {
        Self::Unset(match parameters {
            Some(parameters) => format!("{name}({parameters})").into(),
            None => name.into(),
        })
    }

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

/// `X` or `X?Y`.
fn pair<T>(
    parameters: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<(T, Option<T>), String> {
    match parameters.split_once('?') {
        Some((_, other)) if other.contains('?') => {
            Err("more than one alternative header".to_owned())
        }
        Some((main, other)) => Ok((read(main)?, Some(read(other)?))),
        None => Ok((read(parameters)?, None)),
    }
}

fn request_field(name: &str) -> Result<RequestField, String> {
    RequestField::from_name(name).ok_or_else(|| invalid_name(name))
}

fn response_field(name: &str) -> Result<ResponseField, String> {
    if name.eq_ignore_ascii_case(":status") {
        Ok(ResponseField::Status)
    } else {
        header_name(name).map(ResponseField::Header)
    }
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid_name(name))
}

fn invalid_name(name: &str) -> String {
    format!("\"{name}\" is not a header name")
}

/// `PATH(WQ|NQ:ORIG|PATH|ORIG_OR_PATH)`.
fn path(parameters: &str, length: Length) -> Result<Operator, String> {
    let (query, which) = parameters.split_once(':').unwrap_or((parameters, ""));
    let with_query = match query {
        "" | "WQ" => true,
        "NQ" => false,
        other => return Err(format!("PATH takes WQ or NQ, not \"{other}\"")),
    };
    let original = || {
        let name = HeaderName::from_static("x-envoy-original-path");
        Some(Slot::new(RequestField::Header(name)))
    };
    let current = || Some(Slot::new(RequestField::Path));
    let (original, current) = match which {
        "" | "ORIG_OR_PATH" => (original(), current()),
        "ORIG" => (original(), None),
        "PATH" => (None, current()),
        other => {
            return Err(format!(
                "PATH takes ORIG, PATH or ORIG_OR_PATH, not \"{other}\""
            ));
        }
    };
    Ok(Operator::Path {
        original,
        current,
        with_query,
        length,
    })
}

/// `COMMON_DURATION(START:END:PRECISION)`; points that are not known here make it unset.
fn common_duration(parameters: &str) -> Result<Operator, String> {
    let parts: Vec<&str> = parameters.split(':').collect();
    let &[from, to, unit] = parts.as_slice() else {
        return Err("COMMON_DURATION needs START:END:PRECISION".to_owned());
    };
    let unit = match unit {
        "ms" => Unit::Millis,
        "us" => Unit::Micros,
        "ns" => Unit::Nanos,
        other => {
            return Err(format!(
                "COMMON_DURATION takes ms, us or ns, not \"{other}\""
            ));
        }
    };
    Ok(match (point(from), point(to)) {
        (Some(from), Some(to)) => Operator::Duration { from, to, unit },
        _ => Operator::unset("COMMON_DURATION", Some(parameters)),
    })
}

fn point(name: &str) -> Option<Point> {
    Some(match name {
        "DS_RX_BEG" => Point::Start,
        "DS_RX_END" => Point::RequestReceived,
        "US_TX_END" => Point::RequestSent,
        "US_RX_BEG" => Point::ResponseStarted,
        "US_RX_END" => Point::ResponseReceived,
        "DS_TX_END" => Point::End,
        _ => return None,
    })
}

fn network(name: &str, prefix: &str) -> Result<Operator, String> {
    let address = Fact::from_name(name).ok_or_else(|| unknown(name))?;
    let length = prefix.parse().ok().filter(|&length: &u8| length <= 128);
    let prefix = length.ok_or_else(|| format!("\"{prefix}\" is not a prefix length"))?;
    Ok(Operator::Network { address, prefix })
}

fn unknown(name: &str) -> String {
    format!("unknown command \"{name}\"")
}

fn grpc_style(parameters: &str) -> Result<GrpcStyle, String> {
    Ok(match parameters {
        "" | "CAMEL_STRING" => GrpcStyle::Camel,
        "SNAKE_STRING" => GrpcStyle::Snake,
        "NUMBER" => GrpcStyle::Number,
        other => {
            return Err(format!(
                "GRPC_STATUS takes CAMEL_STRING, SNAKE_STRING or NUMBER, not \"{other}\""
            ));
        }
    })
}

const fn grpc_status(style: GrpcStyle) -> Operator {
    Operator::GrpcStatus {
        style,
        content_type: Slot::new(RequestField::Header(http::header::CONTENT_TYPE)),
    }
}

/// What `gethostname` says, asked once per compiled operator.
fn hostname() -> Option<Box<str>> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().into())
}
