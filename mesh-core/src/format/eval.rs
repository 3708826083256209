use std::{
    borrow::Cow,
    fmt::{Display, Write as _},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::{
    FormatContext, Sink,
    capture::Slot,
    operator::{Fact, GrpcStyle, Length, Operator, Point, ResponseField, Unit},
    sink::Trusted,
    time,
};
use crate::{Address, Facts, Rng};

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
        | Operator::Metadata(_)
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
            Fact::Attempts => Some(i64::from(facts.attempts)),
            Fact::ConnectionId => Some(signed(context.info.connection.id)),
            Fact::UpstreamConnectionId => facts.upstream_connection_id.map(signed),
            Fact::RemotePort => port(remote(context, facts)),
            Fact::DirectRemotePort => port(context.info.connection.peer),
            Fact::LocalPort => port(context.info.connection.local),
            Fact::UpstreamHostPort => port(upstream(facts)),
            Fact::UpstreamLocalPort => port(facts.upstream_local),
            _ => return None,
        },
        _ => return None,
    })
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
            header(find(main).or_else(|| find(other.as_ref()?)), *length)
        }
        Operator::Trailer {
            main,
            other,
            length,
        } => {
            let trailers = context.trailers?;
            let other = || trailers.get(other.as_ref()?);
            header(trailers.get(main).or_else(other), *length)
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
        Operator::Metadata(key) => {
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
    match fact {
        Fact::Protocol => put_text(context.protocol.or(facts.protocol).and_then(protocol), out),
        Fact::UpstreamProtocol => put_text(facts.upstream_protocol.and_then(protocol), out),
        Fact::Termination => put_text(facts.termination.as_deref(), out),
        Fact::TransportFailure => put_joined(facts.transport_failure.as_deref(), out),
        Fact::Flags => put_display(Some(&context.info.flags), out),
        Fact::FlagsLong => put_flags_long(context, out),
        Fact::RouteName => put_text(facts.route_name.as_deref(), out),
        Fact::UniqueId => put_unique_id(context, out),
        Fact::LogType => put_text(Some(context.log_type.text()), out),
        Fact::Remote => put_display(remote(context, facts), out),
        Fact::DirectRemote => put_display(connection.peer, out),
        Fact::Local => put_display(connection.local, out),
        Fact::RemoteIp
        | Fact::DirectRemoteIp
        | Fact::LocalIp
        | Fact::UpstreamHostIp
        | Fact::UpstreamLocalIp => put_ip(address_of(fact, context, facts), out),
        Fact::UpstreamHost => put_display(facts.endpoint.as_ref().map(|e| e.address()), out),
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
        | Fact::ConnectionId
        | Fact::UpstreamConnectionId
        | Fact::RemotePort
        | Fact::DirectRemotePort
        | Fact::LocalPort
        | Fact::UpstreamHostPort
        | Fact::UpstreamLocalPort => false,
    }
}

fn put_bytes<S: Sink>(bytes: Option<&[u8]>, out: &mut S) -> bool {
    bytes.map(|bytes| out.untrusted(bytes)).is_some()
}

/// Text that this process holds but that may quote a peer; empty is unset.
fn put_text<S: Sink>(text: Option<&str>, out: &mut S) -> bool {
    put_bytes(text.filter(|text| !text.is_empty()).map(str::as_bytes), out)
}

/// The same with `_` for blanks, so that a line keeps its columns.
fn put_joined<S: Sink>(text: Option<&str>, out: &mut S) -> bool {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return false;
    };
    for (i, word) in text.split(|c: char| c.is_ascii_whitespace()).enumerate() {
        if i > 0 {
            out.trusted("_");
        }
        out.untrusted(word.as_bytes());
    }
    true
}

fn put_display<S: Sink>(value: Option<impl Display>, out: &mut S) -> bool {
    value.is_some_and(|value| write!(Trusted(out), "{value}").is_ok())
}

fn put_ip<S: Sink>(address: Option<SocketAddr>, out: &mut S) -> bool {
    put_display(address.map(|address| address.ip()), out)
}

/// `10.1.0.0/16`.
fn put_network<S: Sink>(address: Option<SocketAddr>, prefix: u8, out: &mut S) -> bool {
    let Some(address) = address else {
        return false;
    };
    // A prefix longer than the address keeps all of it; shifting by the full width would overflow.
    let (network, prefix) = match address.ip() {
        IpAddr::V4(ip) => {
            let prefix = prefix.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V4((ip.to_bits() & mask).into()), prefix)
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V6((ip.to_bits() & mask).into()), prefix)
        }
    };
    put_display(Some(format_args!("{network}/{prefix}")), out)
}

fn put_status<S: Sink>(context: &FormatContext<'_>, out: &mut S) -> bool {
    let status = context.response.map(|(status, _)| status);
    put_text(status.as_ref().map(StatusCode::as_str), out)
}

fn put_flags_long<S: Sink>(context: &FormatContext<'_>, out: &mut S) -> bool {
    if context.info.flags.is_empty() {
        out.trusted("-");
    }
    for (i, flag) in context.info.flags.iter().enumerate() {
        if i > 0 {
            out.trusted(",");
        }
        out.trusted(flag.long());
    }
    true
}

/// The name that the endpoint was resolved from, with its port; the address if there is none.
fn put_host_name<S: Sink>(with_port: bool, facts: &Facts, out: &mut S) -> bool {
    let Some(endpoint) = &facts.endpoint else {
        return false;
    };
    match endpoint.address() {
        address if endpoint.hostname.is_empty() => match (address, with_port) {
            (Address::Socket(address), false) => put_display(Some(address.ip()), out),
            _ => put_display(Some(address), out),
        },
        _ if with_port => put_text(Some(&endpoint.hostname), out),
        _ => {
            let name = endpoint.hostname.as_ref();
            let bare = name.rsplit_once(':').filter(|(_, port)| {
                !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
            });
            put_text(Some(bare.map_or(name, |(bare, _)| bare)), out)
        }
    }
}

fn put_attempted<S: Sink>(facts: &Facts, out: &mut S) -> bool {
    for (i, endpoint) in facts.tried.iter().enumerate() {
        if i > 0 {
            out.trusted(",");
        }
        put_display(Some(endpoint.address()), out);
    }
    !facts.tried.is_empty()
}

/// A UUID of version 4 drawn from the request's random number: the same for all logs of the request.
fn put_unique_id<S: Sink>(context: &FormatContext<'_>, out: &mut S) -> bool {
    let rng = Rng::seeded(context.info.random ^ context.info.connection.id.rotate_left(32));
    let id = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
    let id = id & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    put_display(
        Some(format_args!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            (id >> 96) as u32,
            (id >> 80) as u16,
            (id >> 64) as u16,
            (id >> 48) as u16,
            id & 0xffff_ffff_ffff
        )),
        out,
    )
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
        Fact::DirectRemoteIp => context.info.connection.peer,
        Fact::LocalIp => context.info.connection.local,
        Fact::UpstreamHostIp => upstream(facts),
        Fact::UpstreamLocalIp => facts.upstream_local,
        _ => None,
    }
}

fn remote(context: &FormatContext<'_>, facts: &Facts) -> Option<SocketAddr> {
    facts.remote.or(context.info.connection.peer)
}

fn upstream(facts: &Facts) -> Option<SocketAddr> {
    match facts.endpoint.as_ref()?.address() {
        Address::Socket(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

fn port(address: Option<SocketAddr>) -> Option<i64> {
    address.map(|address| i64::from(address.port()))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn header(value: Option<&HeaderValue>, length: Length) -> Option<&[u8]> {
    value.map(|value| cut(value.as_bytes(), length))
}

/// At most `length` bytes, and no torn character.
fn cut(bytes: &[u8], length: Length) -> &[u8] {
    let Some(mut length) = length.filter(|&length| length < bytes.len()) else {
        return bytes;
    };
    while length > 0 && bytes[length] & 0xc0 == 0x80 {
        length -= 1;
    }
    &bytes[..length]
}

fn path_part(path: &[u8], with_query: bool) -> &[u8] {
    let end = path.iter().position(|&byte| byte == b'?');
    match end {
        Some(end) if !with_query => &path[..end],
        _ => path,
    }
}

/// The first value of `key`, both percent-decoded.
fn query_param<'a>(path: &'a [u8], key: &str) -> Option<Cow<'a, [u8]>> {
    query(path)?.split(|&byte| byte == b'&').find_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=');
        let (name, value) = match equals {
            Some(equals) => (&pair[..equals], &pair[equals + 1..]),
            None => (pair, &pair[pair.len()..]),
        };
        (decoded(name).as_ref() == key.as_bytes()).then(|| decoded(value))
    })
}

fn query(path: &[u8]) -> Option<&[u8]> {
    let start = path.iter().position(|&byte| byte == b'?')?;
    Some(&path[start + 1..])
}

/// Allocates only when there is something to decode; what is not `%` and two digits stays.
fn decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        let code = match (first, after) {
            (b'%', [high, low, ..]) => digit(high).zip(digit(low)),
            _ => None,
        };
        match code {
            Some((high, low)) => {
                out.push(high << 4 | low);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    Cow::Owned(out)
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

/// The status of a gRPC exchange: trailers, then headers, then what the HTTP status amounts to.
fn grpc_status(content_type: Option<&[u8]>, context: &FormatContext<'_>) -> Option<i64> {
    let kind = content_type?.strip_prefix(b"application/grpc")?;
    if !matches!(kind.first(), None | Some(b'+')) {
        return None;
    }
    let read = |headers: &HeaderMap| {
        let value = headers.get("grpc-status")?;
        let code = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        // Present and unreadable is -1, as Envoy's `InvalidCode`.
        Some(code.map_or(-1, i64::from))
    };
    context
        .trailers
        .and_then(read)
        .or_else(|| read(context.response?.1))
        .or_else(|| Some(i64::from(http_to_grpc(context.response?.0))))
}

const fn http_to_grpc(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn put_grpc_name<S: Sink>(code: i64, style: GrpcStyle, out: &mut S) -> bool {
    let names = usize::try_from(code)
        .ok()
        .and_then(|code| GRPC_NAMES.get(code));
    match names {
        Some((camel, _)) if style == GrpcStyle::Camel => out.trusted(camel),
        Some((_, snake)) => out.trusted(snake),
        None => time::number(out, code),
    }
    true
}
