use std::{net::SocketAddr, time::Instant};

use http::{HeaderMap, Version, header};

use super::{
    AccessLogType, FormatContext, Sink,
    capture::Slot,
    grpc::{grpc_status, put_grpc_name},
    names::Fact,
    operator::{GrpcStyle, MetadataOf, Operator, Point, ResponseField, Unit},
    put::{
        put_attempted, put_bytes, put_display, put_endpoint, put_flags, put_host_name, put_ip,
        put_joined, put_network, put_status, put_text, put_unique_id,
    },
    text::{self, cut, path_part, query, query_param},
    time,
};
use crate::{Address, Endpoint, Facts, MetadataValue, ResponseFlag};

/// Appends the operator's value; `false` when it is unset, and nothing was appended.
pub(super) fn write<S: Sink>(
    operator: &Operator,
    context: &FormatContext<'_>,
    facts: &Facts,
    out: &mut S,
) -> bool {
    if let Some(number) = number(operator, context, facts) {
        return number.map(|number| time::number(out, number)).is_some();
    }
    let read = |slot: &Slot| -> Option<&[u8]> {
        let value = slot.read(context.request.as_ref(), facts)?;
        Some(value)
    };
    match operator {
        Operator::Time { emitted, format } => {
            let time = if *emitted {
                context.emitted.unwrap_or_else(crate::clock::wall)
            } else {
                context.info.start_wall
            };
            format.write(time, out);
            true
        }
        Operator::CertificateTime {
            upstream,
            end,
            format,
        } => {
            let tls = if *upstream {
                facts.upstream_tls.as_ref()
            } else {
                context.info.connection.tls.as_ref()
            };
            let validity = tls.and_then(|tls| tls.peer_validity());
            let time = validity.map(|(from, to)| if *end { to } else { from });
            time.map(|time| format.write(time, out)).is_some()
        }
        Operator::Fact(fact) => write_fact(*fact, context, facts, out),
        Operator::QueryParam {
            path,
            key: Some(key),
            length,
        } => {
            let value = read(path).and_then(|path| query_param(path, key));
            put_bytes(value.as_deref().map(|value| cut(value, *length)), out)
        }
        Operator::Network { address, prefix } => {
            put_network(address_of(*address, context, facts), *prefix, out)
        }
        Operator::Metadata { length, .. } => match metadata(operator, facts).flatten() {
            Some(MetadataValue::Text(text)) => put_bytes(Some(cut(text.as_bytes(), *length)), out),
            Some(value) => put_bytes(Some(cut(value.to_string().as_bytes(), *length)), out),
            None => false,
        },
        Operator::Constant(text) => put_text(text.as_deref(), out),
        Operator::Details { blanks: true } => put_text(facts.details.as_deref(), out),
        Operator::Details { blanks: false } => put_joined(facts.details.as_deref(), out),
        Operator::GrpcStatus {
            style,
            content_type,
        } => grpc_status(read(content_type), context)
            .is_some_and(|code| put_grpc_name(code, *style, out)),
        Operator::Response {
            main: ResponseField::Status,
            ..
        } => put_status(context, out),
        Operator::Request { .. }
        | Operator::Response { .. }
        | Operator::Trailer { .. }
        | Operator::QueryParam { .. }
        | Operator::Path { .. }
        | Operator::StreamId(_)
        | Operator::EndpointMetadata(_)
        | Operator::Duration { .. }
        | Operator::Unset(_) => put_bytes(text_of(operator, context, facts), out),
    }
}

/// The value of an operator that counts or measures: `Some(None)` when it is unset, `None` when it is not
/// of that kind.
pub(super) fn number(
    operator: &Operator,
    context: &FormatContext<'_>,
    facts: &Facts,
) -> Option<Option<i64>> {
    Some(match operator {
        Operator::Duration { from, to, unit } => duration(context, facts, *from, *to, *unit),
        Operator::GrpcStatus {
            style: GrpcStyle::Number,
            content_type,
        } => grpc_status(content_type.read(context.request.as_ref(), facts), context),
        Operator::Fact(fact) => match fact {
            Fact::BytesReceived => Some(signed(context.info.bytes_received())),
            Fact::BytesSent => Some(signed(context.info.bytes_sent())),
            Fact::ResponseCode => Some(
                context
                    .response
                    .map_or(0, |(status, _)| i64::from(status.as_u16())),
            ),
            Fact::ResponseHeadersBytes => Some(response_size(context)),
            Fact::ResponseTrailersBytes => Some(context.trailers.map_or(0, size)),
            Fact::Attempts => Some(i64::from(facts.attempts)),
            Fact::ConnectionId => Some(signed(context.info.connection.id)),
            Fact::UpstreamConnectionId => facts.upstream_connection_id.map(signed),
            Fact::RemotePort => port(remote(context, facts)),
            Fact::DirectRemotePort => port(context.info.connection.direct_peer),
            Fact::LocalPort => port(context.info.connection.local),
            Fact::DirectLocalPort => port(context.info.connection.direct_local),
            Fact::UpstreamHostPort => port(upstream(facts)),
            Fact::UpstreamLocalPort => port(facts.upstream_local),
            _ => return None,
        },
        _ => return None,
    })
}

/// The value of an operator that is about metadata: `Some(None)` when there is none, `None` when it is about
/// something else.
pub(super) fn metadata<'a>(
    operator: &Operator,
    facts: &'a Facts,
) -> Option<Option<&'a MetadataValue>> {
    let Operator::Metadata { of, path, .. } = operator else {
        return None;
    };
    let metadata = match of {
        MetadataOf::Route => &facts.route_metadata,
        MetadataOf::Cluster => &facts.cluster_metadata,
    };
    let value = metadata
        .as_ref()
        .map(|m| m.get(path.iter().map(AsRef::as_ref)));
    Some(value.flatten())
}

/// The bytes of an operator that copies what a peer sent.
fn text_of<'a>(
    operator: &'a Operator,
    context: &'a FormatContext<'_>,
    facts: &'a Facts,
) -> Option<&'a [u8]> {
    let read = |slot: &'a Slot| slot.read(context.request.as_ref(), facts);
    match operator {
        Operator::Request {
            main,
            other,
            without_query,
            length,
        } => {
            let value = read(main).or_else(|| read(other.as_ref()?))?;
            Some(cut(path_part(value, !without_query), *length))
        }
        Operator::Response {
            main,
            other,
            length,
        } => {
            let (_, headers) = context.response?;
            let find = |field: &ResponseField| match field {
                ResponseField::Header(name) => headers.get(name),
                ResponseField::Status => None,
            };
            text::header(find(main).or_else(|| find(other.as_ref()?)), *length)
        }
        Operator::Trailer {
            main,
            other,
            length,
        } => {
            let trailers = context.trailers?;
            let other = || trailers.get(other.as_ref()?);
            text::header(trailers.get(main).or_else(other), *length)
        }
        Operator::QueryParam {
            path,
            key: None,
            length,
        } => query(read(path)?).map(|value| cut(value, *length)),
        Operator::Path {
            original,
            current,
            with_query,
            length,
        } => {
            let value = original.as_ref().and_then(read);
            let value = value.or_else(|| read(current.as_ref()?))?;
            Some(cut(path_part(value, *with_query), *length))
        }
        Operator::StreamId(slot) => read(slot),
        Operator::EndpointMetadata(key) => {
            let value = facts.endpoint.as_ref()?.metadata.get(key.as_ref())?;
            Some(value.as_bytes())
        }
        _ => None,
    }
}

fn write_fact<S: Sink>(
    fact: Fact,
    context: &FormatContext<'_>,
    facts: &Facts,
    out: &mut S,
) -> bool {
    let connection = &context.info.connection;
    if let Some(field) = fact.tls() {
        let text = connection.tls.as_ref().and_then(|tls| tls.text(field));
        return put_text(text.as_deref(), out);
    }
    if let Some(field) = fact.upstream_tls() {
        let text = facts.upstream_tls.as_ref().and_then(|tls| tls.text(field));
        return put_text(text.as_deref(), out);
    }
    match fact {
        Fact::Protocol => put_text(context.protocol.or(facts.protocol).and_then(protocol), out),
        Fact::UpstreamProtocol => put_text(facts.upstream_protocol.and_then(protocol), out),
        Fact::Termination => put_text(facts.termination.as_deref(), out),
        Fact::TransportFailure => put_joined(facts.transport_failure.as_deref(), out),
        Fact::DownstreamTransportFailure => {
            put_joined(connection.transport_failure.as_deref(), out)
        }
        Fact::ServerName => put_text(connection.server_name.as_deref(), out),
        Fact::Ja3 => put_text(connection.ja3.as_deref(), out),
        Fact::Ja4 => put_text(connection.ja4.as_deref(), out),
        Fact::Flags => put_flags(context, ResponseFlag::short, out),
        Fact::FlagsLong => put_flags(context, ResponseFlag::long, out),
        Fact::RouteName => put_text(facts.route_name.as_deref(), out),
        Fact::UniqueId => put_unique_id(context, out),
        Fact::LogType => put_text(Some(context.log_type.text()), out),
        Fact::Remote => put_display(remote(context, facts), out),
        Fact::DirectRemote => put_display(connection.direct_peer, out),
        Fact::Local => put_display(connection.local, out),
        Fact::DirectLocal => put_display(connection.direct_local, out),
        Fact::RemoteIp
        | Fact::DirectRemoteIp
        | Fact::LocalIp
        | Fact::DirectLocalIp
        | Fact::UpstreamHostIp
        | Fact::UpstreamLocalIp => put_ip(address_of(fact, context, facts), out),
        Fact::UpstreamHost => put_endpoint(facts.endpoint.as_deref(), out),
        Fact::UpstreamRemote => put_endpoint(connected(facts), out),
        Fact::UpstreamHostName | Fact::UpstreamHostNameOnly => {
            put_host_name(fact == Fact::UpstreamHostName, facts, out)
        }
        Fact::UpstreamHostsAttempted => put_attempted(facts, out),
        Fact::UpstreamLocal => put_display(facts.upstream_local, out),
        Fact::UpstreamCluster => put_text(facts.cluster.as_deref(), out),
        Fact::LocalReplyBody => put_bytes(context.local_reply_body, out),
        Fact::Decisions => put_display(Some(&facts.trace), out),
        Fact::ConfigVersion => put_text(Some(&context.info.config_version), out),
        Fact::BytesReceived
        | Fact::BytesSent
        | Fact::ResponseCode
        | Fact::Attempts
        | Fact::ResponseHeadersBytes
        | Fact::ResponseTrailersBytes
        | Fact::ConnectionId
        | Fact::UpstreamConnectionId
        | Fact::RemotePort
        | Fact::DirectRemotePort
        | Fact::LocalPort
        | Fact::DirectLocalPort
        | Fact::UpstreamHostPort
        | Fact::UpstreamLocalPort => false,
        // Numbers and the facts about encryption are above.
        _ => false,
    }
}

const fn protocol(version: Version) -> Option<&'static str> {
    Some(match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => return None,
    })
}

/// The address that an `*_ADDRESS_WITHOUT_PORT` is about.
fn address_of(fact: Fact, context: &FormatContext<'_>, facts: &Facts) -> Option<SocketAddr> {
    match fact {
        Fact::RemoteIp => remote(context, facts),
        Fact::DirectRemoteIp => context.info.connection.direct_peer,
        Fact::LocalIp => context.info.connection.local,
        Fact::DirectLocalIp => context.info.connection.direct_local,
        Fact::UpstreamHostIp => upstream(facts),
        Fact::UpstreamLocalIp => facts.upstream_local,
        _ => None,
    }
}

fn remote(context: &FormatContext<'_>, facts: &Facts) -> Option<SocketAddr> {
    facts.remote.or(context.info.connection.peer)
}

/// The endpoint, once there is a connection to it.
fn connected(facts: &Facts) -> Option<&Endpoint> {
    let endpoint = facts.endpoint.as_deref();
    endpoint.filter(|_| facts.upstream_connection_id.is_some())
}

fn upstream(facts: &Facts) -> Option<SocketAddr> {
    match connected(facts)?.address() {
        Address::Socket(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

fn port(address: Option<SocketAddr>) -> Option<i64> {
    address.map(|address| i64::from(address.port()))
}

/// The head of the response, with what is `:status` in HTTP/2, and with the `date` that it gets on its way out.
fn response_size(context: &FormatContext<'_>) -> i64 {
    let Some((_, headers)) = context.response else {
        return 0;
    };
    let leaves = context.log_type == AccessLogType::DownstreamEnd;
    let dated = !leaves || headers.contains_key(header::DATE);
    size(headers) + STATUS_BYTES + if dated { 0 } else { DATE_BYTES }
}

const STATUS_BYTES: i64 = 10;

/// `date: Sun, 06 Nov 1994 08:49:37 GMT`, without framing.
const DATE_BYTES: i64 = 33;

/// Names and values together, without framing.
fn size(headers: &HeaderMap) -> i64 {
    let fields = headers.iter();
    let bytes: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    signed(bytes as u64)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn duration(
    context: &FormatContext<'_>,
    facts: &Facts,
    from: Point,
    to: Point,
    unit: Unit,
) -> Option<i64> {
    let at = |point| -> Option<Instant> {
        match point {
            Point::Start => Some(context.info.start),
            Point::RequestReceived => facts.request_received,
            Point::AttemptStarted => facts.attempt_started,
            Point::UpstreamReady => facts.upstream_ready,
            Point::RequestSent => facts.request_sent,
            Point::ResponseStarted => facts.response_started,
            Point::ResponseReceived => facts.response_received,
            Point::End => context.end,
        }
    };
    let passed = at(to)?.checked_duration_since(at(from)?)?;
    let count = match unit {
        Unit::Millis => passed.as_millis(),
        Unit::Micros => passed.as_micros(),
        Unit::Nanos => passed.as_nanos(),
    };
    i64::try_from(count).ok()
}
