use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header, request::Parts, uri::PathAndQuery,
};
use mesh_core::{ConnectionInfo, Error, ErrorKind, LocalReply, Rng, TunnelRequest, Xfcc};

use crate::h1::framing::has_token;

use super::{
    EdgeConfig, Underscores,
    address::forwarded_for,
    path::{self, Normalized},
    response::append_via,
};

/// What became known of a request while it was prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepared {
    /// The client's address, as far as it can be trusted.
    pub remote: Option<SocketAddr>,
    /// Whether the client is internal.
    pub internal: bool,
    /// Headers dropped for an underscore in their name.
    pub dropped_underscores: u32,
}

const SERVICE_CLUSTER: HeaderName = HeaderName::from_static("x-envoy-downstream-service-cluster");
const SERVICE_NODE: HeaderName = HeaderName::from_static("x-envoy-downstream-service-node");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
/// `x-request-id`.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Control headers that only internal clients may send.
const INTERNAL_ONLY: [&str; 15] = [
    "x-envoy-retriable-status-codes",
    "x-envoy-retriable-header-names",
    "x-envoy-retry-on",
    "x-envoy-retry-grpc-on",
    "x-envoy-max-retries",
    "x-envoy-upstream-alt-stat-name",
    "x-envoy-upstream-rq-timeout-ms",
    "x-envoy-upstream-rq-per-try-timeout-ms",
    "x-envoy-upstream-rq-timeout-alt-response",
    "x-envoy-upstream-stream-duration-ms",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-force-trace",
    "x-envoy-ip-tags",
    "x-envoy-original-url",
    "x-envoy-hedge-on-per-try-timeout",
];

/// Headers that an edge also takes off.
const EDGE_ONLY: [&str; 5] = [
    "x-envoy-decorator-operation",
    "x-envoy-downstream-service-cluster",
    "x-envoy-downstream-service-node",
    "x-envoy-original-path",
    "x-envoy-original-host",
];

/// What a look over all header names found, so that the usual request pays for nothing else.
#[derive(Default)]
struct Found {
    envoy: bool,
    hop_by_hop: bool,
    underscore: bool,
    request_id: bool,
    referer: bool,
    xff: bool,
    xfp: bool,
    xfcc: bool,
}

fn look(headers: &HeaderMap) -> Found {
    let mut found = Found::default();
    for (name, value) in headers {
        let name = name.as_str();
        match name.as_bytes()[0] {
            b'x' => {
                found.envoy |= name.starts_with("x-envoy-");
                found.request_id |= name == "x-request-id" && !value.is_empty();
                found.xff |= name == "x-forwarded-for";
                found.xfp |= name == "x-forwarded-proto";
                found.xfcc |= name == "x-forwarded-client-cert";
            }
            b'c' => found.hop_by_hop |= name == "connection",
            b'r' => found.referer |= name == "referer",
            b'u' => found.hop_by_hop |= name == "upgrade",
            b'k' => found.hop_by_hop |= name == "keep-alive",
            b'p' => found.hop_by_hop |= name == "proxy-connection",
            b't' => found.hop_by_hop |= name == "te" || name == "transfer-encoding",
            _ => {}
        }
        found.underscore |= memchr::memchr(b'_', name.as_bytes()).is_some();
    }
    found
}

/// Readies a request for the filters.
///
/// # Errors
/// With the answer to give, when the request must not go on.
pub fn prepare_request(
    parts: &mut Parts,
    config: &EdgeConfig,
    connection: &ConnectionInfo,
    rng: &Rng,
) -> Result<Prepared, Error> {
    let found = look(&parts.headers);
    let mut dropped_underscores = 0;
    if found.underscore && config.underscores != Underscores::Allow {
        dropped_underscores = underscores(&mut parts.headers, config.underscores)?;
    }
    let tunnel = parts.extensions.get::<TunnelRequest>();
    if tunnel != Some(&TunnelRequest::Connect) {
        prepare_path(&mut parts.uri, config)?;
    }
    prepare_host(&mut parts.headers, config, connection);
    if found.hop_by_hop {
        strip_hop_by_hop(&mut parts.headers);
        if let Some(TunnelRequest::Upgrade(name)) = parts.extensions.get() {
            let upgrade = HeaderValue::from_static("Upgrade");
            parts.headers.insert(header::CONNECTION, upgrade);
            parts.headers.insert(header::UPGRADE, name.clone());
        }
    }
    forward_client_cert(&mut parts.headers, config, connection, found.xfcc);
    if found.referer {
        strip_malformed_referer(&mut parts.headers);
    }
    let (remote, internal, edge) = addresses(&mut parts.headers, config, connection, &found);
    strip_control(&mut parts.headers, config, &found, internal, edge);
    if edge && let Some(remote) = remote {
        insert(
            &mut parts.headers,
            EXTERNAL_ADDRESS,
            &remote.ip().to_string(),
        );
    }
    request_id(&mut parts.headers, config, &found, edge, rng);
    if config.add_user_agent {
        add_user_agent(&mut parts.headers, config);
    }
    if let Some(via) = &config.via {
        append_via(&mut parts.headers, via);
    }
    Ok(Prepared {
        remote,
        internal,
        dropped_underscores,
    })
}

fn refused(status: StatusCode, details: &'static str) -> Error {
    Error::new(ErrorKind::Denied).with_reply(LocalReply::new(status, "", details))
}

fn underscores(headers: &mut HeaderMap, action: Underscores) -> Result<u32, Error> {
    if action == Underscores::RejectRequest {
        return Err(
            Error::new(ErrorKind::DownstreamProtocol).with_reply(LocalReply::new(
                StatusCode::BAD_REQUEST,
                "Bad Request",
                "http1.unexpected_underscore",
            )),
        );
    }
    let names: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .cloned()
        .collect();
    for name in &names {
        headers.remove(name);
    }
    Ok(names.len() as u32)
}

/// Brings the path of a request into its one form.
///
/// # Errors
/// When it cannot be trusted; the error carries the answer.
pub fn prepare_path(uri: &mut Uri, config: &EdgeConfig) -> Result<(), Error> {
    if !uri.path().starts_with('/') {
        return Err(refused(StatusCode::NOT_FOUND, "absolute_path_rejected"));
    }
    let keep = super::EscapedSlashes::KeepUnchanged;
    if !config.normalize_path && !config.merge_slashes && config.escaped_slashes == keep {
        return Ok(());
    }
    let target = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rejected = || refused(StatusCode::BAD_REQUEST, "path_normalization_failed");
    match path::normalize(
        target,
        config.normalize_path,
        config.merge_slashes,
        config.escaped_slashes,
    ) {
        Normalized::Unchanged => Ok(()),
        Normalized::Rejected => Err(rejected()),
        Normalized::Changed(target) => {
            let target =
                PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| rejected())?;
            *uri = Uri::from(target);
            Ok(())
        }
        Normalized::Redirect(target) => {
            let mut reply = LocalReply::new(
                StatusCode::TEMPORARY_REDIRECT,
                "",
                "path_normalization_failed",
            );
            if let Ok(location) = HeaderValue::from_str(&target) {
                reply.headers.insert(header::LOCATION, location);
            }
            Err(Error::new(ErrorKind::Denied).with_reply(reply))
        }
    }
}

fn prepare_host(headers: &mut HeaderMap, config: &EdgeConfig, connection: &ConnectionInfo) {
    if !(config.strip_any_host_port
        || config.strip_matching_host_port
        || config.strip_trailing_host_dot)
    {
        return;
    }
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return;
    };
    let colon = host.rfind(':').filter(|at| !host[*at..].contains(']'));
    let (mut name, mut port) = host.split_at(colon.unwrap_or(host.len()));
    let listener = connection.local.map(|local| format!(":{}", local.port()));
    if config.strip_any_host_port
        || config.strip_matching_host_port && listener.as_deref() == Some(port)
    {
        port = "";
    }
    if config.strip_trailing_host_dot {
        name = name.strip_suffix('.').unwrap_or(name);
    }
    if name.len() + port.len() != host.len() {
        let host = format!("{name}{port}");
        insert(headers, header::HOST, &host);
    }
}

/// Headers that a `connection` header may not take away: they are ours, or somebody's security.
fn is_protected(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
        || matches!(
            name,
            "host"
                | "content-length"
                | "content-type"
                | "authorization"
                | "cookie"
                | "x-request-id"
                | "forwarded"
                | "via"
                | "origin"
                | "cache-control"
        )
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&b| b == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| !is_protected(name.as_str()) && *name != header::TE)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in [
        "connection",
        "upgrade",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
    ] {
        headers.remove(name);
    }
    // Of what the client takes, only trailers are a matter between it and the upstream.
    if headers.contains_key(header::TE) {
        if has_token(headers, &header::TE, "trailers") {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
}

/// A referer that is no absolute URL is dropped.
fn strip_malformed_referer(headers: &mut HeaderMap) {
    let absolute = |value: &HeaderValue| {
        let uri = Uri::try_from(value.as_bytes());
        uri.is_ok_and(|uri| uri.scheme().is_some() && uri.authority().is_some())
    };
    if headers
        .get(header::REFERER)
        .is_some_and(|value| !absolute(value))
    {
        headers.remove(header::REFERER);
    }
}

/// Who the client is by its certificate, from hop to hop.
fn forward_client_cert(
    headers: &mut HeaderMap,
    config: &EdgeConfig,
    connection: &ConnectionInfo,
    found: bool,
) {
    const NAME: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
    let tls = connection.tls.as_deref();
    if !found && tls.is_none() {
        return;
    }
    let value = match config
        .forward_client_cert
        .decide(config.client_cert_details, tls)
    {
        Xfcc::Keep => return,
        Xfcc::Remove => None,
        Xfcc::Set(element) => Some(Bytes::from(element)),
        Xfcc::Append(element) => Some(match joined(headers, &NAME) {
            Some(before) => Bytes::from([&before, &b","[..], element.as_bytes()].concat()),
            None => Bytes::from(element),
        }),
    };
    headers.remove(NAME);
    if let Some(value) = value.and_then(|value| HeaderValue::from_maybe_shared(value).ok()) {
        headers.insert(NAME, value);
    }
}

/// Who the client is: address, whether internal, whether we are the edge it came through.
fn addresses(
    headers: &mut HeaderMap,
    config: &EdgeConfig,
    connection: &ConnectionInfo,
    found: &Found,
) -> (Option<SocketAddr>, bool, bool) {
    let xff = found.xff.then(|| joined(headers, &FORWARDED_FOR)).flatten();
    let hops = config.xff_num_trusted_hops as usize;
    let peer = connection.peer;
    let at = |ip: IpAddr| SocketAddr::new(ip, 0);
    let remote = if config.use_remote_address {
        let trusted = xff
            .as_deref()
            .filter(|_| hops > 0)
            .and_then(|xff| forwarded_for(xff, hops));
        if let Some(peer) = peer.filter(|_| !config.skip_xff_append) {
            let ip = if peer.ip().is_loopback() {
                config.local_address
            } else {
                peer.ip()
            };
            append_xff(headers, xff.as_deref(), ip);
        }
        trusted.map_or(peer, |ip| Some(at(ip)))
    } else {
        xff.as_deref()
            .and_then(|xff| forwarded_for(xff, hops + 1))
            .map_or(peer, |ip| Some(at(ip)))
    };
    if !found.xfp || (config.use_remote_address && hops == 0) {
        let scheme = connection.scheme();
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    // Whoever came through other proxies cannot prove where it came from.
    let single = match &xff {
        None => config.use_remote_address,
        Some(xff) => !config.use_remote_address && !xff.contains(&b',') && hops == 0,
    };
    let internal = single
        && remote.is_some_and(|r| config.internal_addresses.iter().any(|c| c.contains(r.ip())));
    (remote, internal, config.use_remote_address && !internal)
}

/// All values of a header, as one. They are bytes: one that is no text is there all the same.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let values: Vec<&[u8]> = headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    (!values.is_empty()).then(|| values.join(&b','))
}

/// Appends an address to `x-forwarded-for`.
pub fn append_forwarded_for(headers: &mut HeaderMap, address: IpAddr) {
    let xff = joined(headers, &FORWARDED_FOR);
    append_xff(headers, xff.as_deref(), address);
}

fn append_xff(headers: &mut HeaderMap, xff: Option<&[u8]>, ip: IpAddr) {
    let mut value = xff.unwrap_or_default().to_vec();
    if !value.is_empty() {
        value.push(b',');
    }
    value.extend_from_slice(ip.to_string().as_bytes());
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
        headers.insert(FORWARDED_FOR, value);
    }
}

fn strip_control(
    headers: &mut HeaderMap,
    config: &EdgeConfig,
    found: &Found,
    internal: bool,
    edge: bool,
) {
    if found.envoy {
        headers.remove(INTERNAL);
        if !internal {
            INTERNAL_ONLY
                .iter()
                .for_each(|name| drop(headers.remove(*name)));
        }
        if edge {
            EDGE_ONLY
                .iter()
                .for_each(|name| drop(headers.remove(*name)));
            headers.remove(EXTERNAL_ADDRESS);
        }
    }
    if internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
    } else {
        config
            .internal_only_headers
            .iter()
            .for_each(|name| drop(headers.remove(name)));
    }
}

fn request_id(headers: &mut HeaderMap, config: &EdgeConfig, found: &Found, edge: bool, rng: &Rng) {
    let replace = edge && !config.preserve_external_request_id;
    if config.generate_request_id && (!found.request_id || replace) {
        let [high, low] = rng.draws();
        let id = uuid(high, low);
        if let Ok(id) = HeaderValue::from_bytes(&id) {
            headers.insert(REQUEST_ID, id);
        }
    }
}

/// A version 4 UUID as text.
fn uuid(high: u64, low: u64) -> [u8; 36] {
    let bits = (u128::from(high) << 64 | u128::from(low)) & !(0xf << 76) & !(0b11 << 62)
        | 4 << 76
        | 0b10 << 62;
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [b'-'; 36];
    let mut place = 0;
    for (i, byte) in bits.to_be_bytes().into_iter().enumerate() {
        // A dash stands before these.
        place += usize::from(matches!(i, 4 | 6 | 8 | 10));
        out[place] = DIGITS[usize::from(byte >> 4)];
        out[place + 1] = DIGITS[usize::from(byte & 15)];
        place += 2;
    }
    out
}

fn add_user_agent(headers: &mut HeaderMap, config: &EdgeConfig) {
    insert(headers, SERVICE_CLUSTER, &config.node_cluster);
    headers.entry(header::USER_AGENT).or_insert_with(|| {
        HeaderValue::from_str(&config.node_cluster).unwrap_or(HeaderValue::from_static(""))
    });
    insert(headers, SERVICE_NODE, &config.node_id);
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests;
