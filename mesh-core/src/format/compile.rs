//! From the text of a command to an [`Operator`].

use http::HeaderName;

use super::{
    capture::{RequestField, Slot},
    names::{
        Fact,
        Takes::{Nothing, Required},
        UNSET,
    },
    operator::{GrpcStyle, Length, MetadataOf, Operator, Point, ResponseField, Unit},
    time::{self, TimeFormat},
};

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
            "CLUSTER_METADATA" => metadata(MetadataOf::Cluster, need()?, length),
            "METADATA" => match need()?.split_once(':') {
                Some(("ROUTE", path)) => metadata(MetadataOf::Route, path, length),
                Some(("CLUSTER", path)) => metadata(MetadataOf::Cluster, path, length),
                Some(("UPSTREAM_HOST", path)) => endpoint_metadata(name, parameters, path),
                _ => Self::unset(name, parameters),
            },
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
            "REQUESTED_SERVER_NAME" => match given {
                "" | "SNI_ONLY" => Self::Fact(Fact::ServerName),
                // What falls back to the host is not known here.
                _ if given.starts_with("SNI_FIRST") || given.starts_with("HOST_FIRST") => {
                    Self::unset(name, parameters)
                }
                other => return Err(format!("unknown parameter \"{other}\"")),
            },
            "DOWNSTREAM_PEER_CERT_V_START"
            | "DOWNSTREAM_PEER_CERT_V_END"
            | "UPSTREAM_PEER_CERT_V_START"
            | "UPSTREAM_PEER_CERT_V_END" => {
                let format = Some(given).filter(|given| !given.is_empty());
                Self::CertificateTime {
                    upstream: name.starts_with("UPSTREAM"),
                    end: name.ends_with("END"),
                    format: TimeFormat::parse(format.unwrap_or(time::DEFAULT))?,
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
            "UPSTREAM_METADATA" if given.is_empty() => {
                return Err(format!("{name} needs a parameter"));
            }
            "UPSTREAM_METADATA" => endpoint_metadata(name, parameters, given),
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
            "UPSTREAM_CONNECTION_POOL_READY_DURATION" => {
                millis(Point::AttemptStarted, Point::UpstreamReady)
            }
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
}

fn metadata(of: MetadataOf, path: &str, length: Length) -> Operator {
    let path = path.split(':').map(Into::into).collect();
    Operator::Metadata { of, path, length }
}

/// Of an endpoint, only what balancers look at is known.
fn endpoint_metadata(name: &str, parameters: Option<&str>, path: &str) -> Operator {
    match path.split_once(':') {
        Some(("envoy.lb", key)) => Operator::EndpointMetadata(key.into()),
        _ => Operator::unset(name, parameters),
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
        "US_TX_BEG" => Point::UpstreamReady,
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
