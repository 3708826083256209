//! `HealthCheck`.

use std::{ops::Range, sync::Arc, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        core::v3::{
            HealthCheck as Check, RequestMethod,
            health_check::{
                GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload as PayloadMessage,
                TcpHealthCheck, payload::Payload as Kind,
            },
        },
        endpoint::v3::endpoint::HealthCheckConfig as EndpointMessage,
    },
    extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink,
    r#type::v3::{CodecClientType, Int64Range},
};
use http::{Method, uri::PathAndQuery};
use mesh_balance::health::{HealthCheckConfig, Payload};
use mesh_http::pool::UpstreamProtocol;
use mesh_telemetry::Target;

use super::{MESSAGE, socket};
use crate::{
    convert::{context::Context, matcher, mutation, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Meaningless},
    },
    model::{EndpointCheck, GrpcProbe, HealthCheck, HttpProbe, Probe, TcpProbe},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("health_checks", Enforced),
            ("ignore_health_on_host_removal", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HealthCheck",
        fields: &[
            ("timeout", Enforced),
            ("interval", Enforced),
            ("initial_jitter", Enforced),
            ("interval_jitter", Enforced),
            ("interval_jitter_percent", Enforced),
            ("unhealthy_threshold", Enforced),
            ("healthy_threshold", Enforced),
            // Envoy does not read it either.
            ("alt_port", Meaningless),
            ("reuse_connection", Enforced),
            ("http_health_check", Enforced),
            ("tcp_health_check", Enforced),
            ("grpc_health_check", Enforced),
            ("no_traffic_interval", Enforced),
            ("no_traffic_healthy_interval", Enforced),
            ("unhealthy_interval", Enforced),
            ("unhealthy_edge_interval", Enforced),
            ("healthy_edge_interval", Enforced),
            ("event_log_path", Enforced),
            ("event_logger", Enforced),
            ("always_log_health_check_failures", Enforced),
            ("always_log_health_check_success", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HealthCheck.HttpHealthCheck",
        fields: &[
            ("host", Enforced),
            ("path", Enforced),
            ("send", Enforced),
            ("receive", Enforced),
            ("response_buffer_size", Enforced),
            ("request_headers_to_add", Enforced),
            ("request_headers_to_remove", Enforced),
            ("expected_statuses", Enforced),
            ("retriable_statuses", Enforced),
            ("codec_client_type", EnforcedFor(&["HTTP1", "HTTP2"])),
            ("service_name_matcher", Enforced),
            ("method", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HealthCheck.TcpHealthCheck",
        fields: &[("send", Enforced), ("receive", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HealthCheck.GrpcHealthCheck",
        fields: &[
            ("service_name", Enforced),
            ("authority", Enforced),
            ("initial_metadata", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.HealthCheck.Payload",
        fields: &[("text", Enforced), ("binary", Enforced)],
    },
    MessageSupport {
        message: "envoy.type.v3.Int64Range",
        fields: &[("start", Enforced), ("end", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
        fields: &[("event_log_path", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.endpoint.v3.Endpoint.HealthCheckConfig",
        fields: &[
            ("port_value", Enforced),
            ("hostname", Enforced),
            ("address", Enforced),
            ("disable_active_health_check", Enforced),
        ],
    },
];

/// Without a check, if it is of a kind that there is not: that is in the report.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &Cluster,
    protocol: UpstreamProtocol,
) -> Option<Arc<HealthCheck>> {
    let list = at.field("health_checks");
    let check = match &from.health_checks[..] {
        [] => return None,
        [check] => check,
        _ => {
            cx.invalid(&list, "there may be only one health check");
            return None;
        }
    };
    let at = list.index(0);
    let schedule = schedule(cx, &at, check);
    let probe = match check.health_checker.as_ref()? {
        HealthChecker::HttpHealthCheck(http) => {
            http_probe(cx, &at.field("http_health_check"), http, &from.name)?
        }
        HealthChecker::TcpHealthCheck(tcp) => tcp_probe(cx, &at.field("tcp_health_check"), tcp)?,
        HealthChecker::GrpcHealthCheck(grpc) => {
            let at = at.field("grpc_health_check");
            if protocol == UpstreamProtocol::Http1 {
                cx.invalid(&at, "needs a cluster that speaks HTTP/2");
            }
            grpc_probe(cx, &at, grpc, &from.name)?
        }
        // Reported by the table.
        HealthChecker::CustomHealthCheck(_) => return None,
    };
    Some(Arc::new(HealthCheck {
        schedule: schedule?,
        probe,
        reuse_connection: value::flag(check.reuse_connection, true),
        socket_labels: socket::criteria(check.transport_socket_match_criteria.as_ref()),
        event_logs: event_logs(cx, check),
    }))
}

fn schedule(cx: &Context<'_>, at: &At<'_>, from: &Check) -> Option<HealthCheckConfig> {
    let duration = |field: &str, from: Option<&_>| value::duration(cx, &at.field(field), from);
    let timeout = duration("timeout", from.timeout.as_ref());
    let interval = duration("interval", from.interval.as_ref())?;
    let or =
        |field: &str, from: Option<&_>, default: Duration| duration(field, from).unwrap_or(default);
    let mut config = HealthCheckConfig::new(timeout?, interval);
    config.unhealthy_interval = or(
        "unhealthy_interval",
        from.unhealthy_interval.as_ref(),
        interval,
    );
    config.unhealthy_edge_interval = or(
        "unhealthy_edge_interval",
        from.unhealthy_edge_interval.as_ref(),
        config.unhealthy_interval,
    );
    config.healthy_edge_interval = or(
        "healthy_edge_interval",
        from.healthy_edge_interval.as_ref(),
        interval,
    );
    config.no_traffic_interval = or(
        "no_traffic_interval",
        from.no_traffic_interval.as_ref(),
        config.no_traffic_interval,
    );
    config.no_traffic_healthy_interval = or(
        "no_traffic_healthy_interval",
        from.no_traffic_healthy_interval.as_ref(),
        config.no_traffic_interval,
    );
    config.initial_jitter = or(
        "initial_jitter",
        from.initial_jitter.as_ref(),
        Duration::ZERO,
    );
    config.interval_jitter = or(
        "interval_jitter",
        from.interval_jitter.as_ref(),
        Duration::ZERO,
    );
    config.interval_jitter_percent = from.interval_jitter_percent;
    // The protos' own rules ask for both.
    config.unhealthy_threshold = value::number(from.unhealthy_threshold).unwrap_or(1);
    config.healthy_threshold = value::number(from.healthy_threshold).unwrap_or(1);
    config.always_log_failures = from.always_log_health_check_failures;
    config.always_log_success = from.always_log_health_check_success;
    Some(config)
}

fn http_probe(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &HttpHealthCheck,
    cluster: &str,
) -> Option<Probe> {
    let path = PathAndQuery::try_from(from.path.as_str()).ok();
    let path = path.filter(|path| path.as_str().starts_with('/'));
    if path.is_none() {
        cx.invalid(&at.field("path"), "must be a path: it begins with a slash");
    }
    let method = method(from.method());
    let send = from
        .send
        .as_ref()
        .and_then(|send| piece(cx, &at.field("send"), send));
    let has_no_body = [Method::GET, Method::HEAD, Method::DELETE, Method::TRACE].contains(&method);
    if from.send.is_some() && has_no_body {
        let reason = format!("requests with method {method} have no body");
        cx.invalid(&at.field("send"), reason);
    }
    let receive = pieces(cx, &at.field("receive"), &from.receive);
    let response_buffer_size = from.response_buffer_size.map_or(1024, |size| size.value);
    if response_buffer_size != 0 && receive.len() as u64 > response_buffer_size {
        let reason = format!("is longer than response_buffer_size, {response_buffer_size} bytes");
        cx.invalid(&at.field("receive"), reason);
    }
    let headers = mutation::requests(
        cx,
        at,
        &from.request_headers_to_add,
        &from.request_headers_to_remove,
    );
    let mut expected = statuses(cx, &at.field("expected_statuses"), &from.expected_statuses);
    if expected.is_empty() {
        expected.push(200..201);
    }
    let retriable = statuses(
        cx,
        &at.field("retriable_statuses"),
        &from.retriable_statuses,
    );
    let service_name = from.service_name_matcher.as_ref();
    let service_name = service_name
        .map(|from| matcher::string(cx, &at.field("service_name_matcher"), from))
        // One that is wrong has been complained about.
        .unwrap_or_default();
    let http2 = match from.codec_client_type() {
        CodecClientType::Http1 => false,
        CodecClientType::Http2 => true,
        // Reported by the table.
        CodecClientType::Http3 => return None,
    };
    let host = value::nonempty(&from.host).unwrap_or(cluster);
    value::header_value(cx, &at.field("host"), host)?;
    Some(Probe::Http(Box::new(HttpProbe {
        method,
        path: path?,
        host: Arc::from(host),
        headers,
        send: send.unwrap_or_default(),
        receive,
        response_buffer_size,
        expected,
        retriable,
        service_name,
        http2,
    })))
}

fn grpc_probe(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &GrpcHealthCheck,
    cluster: &str,
) -> Option<Probe> {
    let authority = value::nonempty(&from.authority).unwrap_or(cluster);
    value::header_value(cx, &at.field("authority"), authority)?;
    Some(Probe::Grpc(Box::new(GrpcProbe {
        service_name: from.service_name.clone(),
        authority: Arc::from(authority),
        headers: mutation::metadata(cx, &at.field("initial_metadata"), &from.initial_metadata),
    })))
}

const fn method(from: RequestMethod) -> Method {
    match from {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        // Refused by the protos' own rules.
        RequestMethod::Connect => Method::CONNECT,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
    }
}

fn statuses(cx: &Context<'_>, at: &At<'_>, from: &[Int64Range]) -> Vec<Range<u16>> {
    let ranges = from.iter().enumerate().filter_map(|(index, range)| {
        let sound = range.start < range.end && range.start >= 100 && range.end <= 600;
        if !sound {
            let reason = format!(
                "a range of statuses must lie within [100, 600) and not be empty, not [{}, {})",
                range.start, range.end
            );
            cx.invalid(&at.index(index), reason);
            return None;
        }
        Some(u16::try_from(range.start).ok()?..u16::try_from(range.end).ok()?)
    });
    ranges.collect()
}

fn tcp_probe(cx: &Context<'_>, at: &At<'_>, from: &TcpHealthCheck) -> Option<Probe> {
    let send = from
        .send
        .as_ref()
        .map(|send| piece(cx, &at.field("send"), send));
    Some(Probe::Tcp(TcpProbe {
        send: match send {
            Some(send) => send?,
            None => Vec::new(),
        },
        receive: pieces(cx, &at.field("receive"), &from.receive),
    }))
}

fn pieces(cx: &Context<'_>, at: &At<'_>, from: &[PayloadMessage]) -> Payload {
    let pieces = from.iter().enumerate();
    let pieces = pieces.filter_map(|(index, from)| piece(cx, &at.index(index), from));
    Payload::new(pieces.collect())
}

fn piece(cx: &Context<'_>, at: &At<'_>, from: &PayloadMessage) -> Option<Vec<u8>> {
    match from.payload.as_ref()? {
        Kind::Binary(bytes) => Some(bytes.clone()),
        Kind::Text(text) => {
            let bytes = from_hex(text);
            if bytes.is_none() {
                let reason = format!("{text:?} is not hexadecimal");
                cx.invalid(&at.field("text"), reason);
            }
            bytes
        }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8))
        .collect()
}

/// Sinks of other types are reported by the table.
fn event_logs(cx: &Context<'_>, from: &Check) -> Vec<Target> {
    let sinks = from.event_logger.iter().filter_map(|logger| {
        let sink = cx.unpack::<HealthCheckEventFileSink>(logger.typed_config.as_ref()?)?;
        Some(Target::path(sink.event_log_path))
    });
    let path = value::nonempty(&from.event_log_path).map(Target::path);
    path.into_iter().chain(sinks).collect()
}

pub(super) fn endpoint(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&EndpointMessage>,
) -> EndpointCheck {
    let Some(from) = from else {
        return EndpointCheck::default();
    };
    let at = at.field("health_check_config");
    let address = from.address.as_ref();
    EndpointCheck {
        address: address.and_then(|from| value::address(cx, &at.field("address"), from)),
        // The protos' own rules keep it within range.
        port: u16::try_from(from.port_value).ok().filter(|port| *port > 0),
        hostname: Arc::from(from.hostname.as_str()),
        disabled: from.disable_active_health_check,
    }
}
