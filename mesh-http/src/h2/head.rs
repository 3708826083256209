//! Heads between their HTTP/2 form and the house's: an origin-form target and one valid `host`.

use http::{
    HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header,
    request::Parts,
    response,
    uri::{Authority, Scheme},
};
use mesh_core::{Tunnel, TunnelRequest};

use crate::{authority, h1::Malformed};

/// Brings a request that h2 has read into canonical form.
pub(crate) fn canonical(parts: &mut Parts) -> Result<(), Malformed> {
    host(parts)?;
    target(parts)?;
    join_cookies(&mut parts.headers);
    if parts.method == Method::CONNECT {
        tunnel(parts);
    }
    Ok(())
}

/// Extended CONNECT (RFC 8441) becomes the upgrade that it stands for.
fn tunnel(parts: &mut Parts) {
    let protocol = parts.extensions.remove::<h2::ext::Protocol>();
    let name = protocol.and_then(|protocol| HeaderValue::from_str(protocol.as_str()).ok());
    let Some(name) = name else {
        parts.extensions.insert(TunnelRequest::Connect);
        return;
    };
    parts.method = Method::GET;
    let headers = &mut parts.headers;
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, name.clone());
    // HTTP/2 has no use for the key, and HTTP/1.1 servers ask for one.
    if name == "websocket" && !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
        headers.insert(header::SEC_WEBSOCKET_KEY, websocket_key());
    }
    parts.extensions.insert(TunnelRequest::Upgrade(name));
}

/// 16 random bytes in base64 (RFC 6455, section 4.1); they keep no secret.
fn websocket_key() -> HeaderValue {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut random = fastrand::u128(..);
    let mut text = [b'='; 24];
    for digit in &mut text[..22] {
        *digit = DIGITS[(random & 63) as usize];
        random >>= 6;
    }
    // The last digit stands for two bits alone.
    text[21] = DIGITS[usize::from(text[21] & 3) << 4];
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// `:authority` is the host, whatever `host` says (RFC 9113, section 8.3.1).
fn host(parts: &mut Parts) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed::bad("http2.invalid_authority", "the authority is malformed");
    if let Some(authority) = parts.uri.authority() {
        let value = HeaderValue::from_str(authority.as_str()).map_err(|_| BAD)?;
        parts.headers.insert(header::HOST, value);
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Err(Malformed::bad("missing_host_header", "no host")),
        (Some(host), None) if authority::valid(host.as_bytes()) => Ok(()),
        _ => Err(BAD),
    }
}

fn target(parts: &mut Parts) -> Result<(), Malformed> {
    const BAD: Malformed = Malformed::bad("http2.invalid_path", "the path is malformed");
    let plain_connect =
        parts.method == Method::CONNECT && parts.extensions.get::<h2::ext::Protocol>().is_none();
    if plain_connect {
        return Ok(());
    }
    let path = parts.uri.path_and_query().ok_or(BAD)?.clone();
    let text = path.as_str().as_bytes();
    let printable = text.iter().all(|b| (0x21..=0x7e).contains(b));
    let form = text.starts_with(b"/") || (text == b"*" && parts.method == Method::OPTIONS);
    if !printable || !form {
        return Err(BAD);
    }
    parts.uri = Uri::from(path);
    Ok(())
}

/// HTTP/2 may cut a cookie into several fields; nobody else understands that (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(_)) = (cookies.next(), cookies.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for cookie in headers.get_all(header::COOKIE).iter().skip(1) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, joined);
    }
}

/// The HTTP/2 form of a canonical request.
pub(crate) fn outgoing(request: &Request<()>) -> Result<Request<()>, http::Error> {
    let mut out = Request::new(());
    let tunnel = TunnelRequest::of(request);
    *out.method_mut() = request.method().clone();
    *out.version_mut() = http::Version::HTTP_2;
    if let Some(TunnelRequest::Upgrade(name)) = tunnel {
        *out.method_mut() = Method::CONNECT;
        let name = h2::ext::Protocol::from(name.to_str().unwrap_or_default());
        out.extensions_mut().insert(name);
    }
    let headers = request.headers();
    let mut uri = Uri::builder();
    if let Some(host) = headers.get(header::HOST) {
        uri = uri.authority(Authority::try_from(host.as_bytes())?);
    }
    if tunnel != Some(&TunnelRequest::Connect) {
        let path = request.uri().path_and_query().cloned();
        uri = uri
            .scheme(scheme(headers))
            .path_and_query(path.unwrap_or(http::uri::PathAndQuery::from_static("/")));
    }
    *out.uri_mut() = uri.build()?;
    let mut copy = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !is_for_one_hop(name) && name != header::HOST {
            copy.append(name.clone(), value.clone());
        }
    }
    *out.headers_mut() = copy;
    Ok(out)
}

/// What the client spoke, as `x-forwarded-proto` has it.
fn scheme(headers: &HeaderMap) -> Scheme {
    match headers.get("x-forwarded-proto") {
        Some(proto) if proto.as_bytes() == b"https" => Scheme::HTTPS,
        _ => Scheme::HTTP,
    }
}

/// Fields that HTTP/2 does not know (RFC 9113, section 8.2.2).
fn is_for_one_hop(name: &header::HeaderName) -> bool {
    name == header::CONNECTION
        || name == header::TRANSFER_ENCODING
        || name == header::UPGRADE
        || name == "keep-alive"
        || name == "proxy-connection"
}

/// Readies the head of an answer. `size` is the body's, where it is known and sent.
pub(crate) fn answer(headers: &mut HeaderMap, status: StatusCode, size: Option<u64>, sent: bool) {
    headers.remove(header::CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if sent && let Some(stated) = headers.get(header::CONTENT_LENGTH) {
        let stated = stated
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        match size {
            Some(size) if stated != Some(size) => {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            }
            None => {
                headers.remove(header::CONTENT_LENGTH);
            }
            Some(_) => {}
        }
    }
    if !status.is_informational() && !headers.contains_key(header::DATE) {
        headers.insert(header::DATE, crate::date::value());
    }
}

/// What grants a tunnel over HTTP/1.1 is a plain success here.
pub(crate) fn tunnel_answer(parts: &mut response::Parts) {
    parts.headers.remove(header::CONTENT_LENGTH);
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        parts.status = StatusCode::OK;
    }
}

/// An upstream grants `tunnel`: what the answer looks like over HTTP/1.1.
pub(crate) fn tunnel_granted(tunnel: &TunnelRequest, parts: &mut response::Parts) {
    parts.extensions.insert(Tunnel);
    parts.headers.remove(header::CONTENT_LENGTH);
    if let TunnelRequest::Upgrade(name) = tunnel {
        parts.status = StatusCode::SWITCHING_PROTOCOLS;
        let upgrade = HeaderValue::from_static("upgrade");
        parts.headers.insert(header::CONNECTION, upgrade);
        parts.headers.insert(header::UPGRADE, name.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Request, StatusCode, header};

    use super::{answer, canonical, outgoing};

    fn request(uri: &str, headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::get(uri).body(()).unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn canonical_of(request: Request<()>) -> Result<Request<()>, &'static str> {
        let (mut parts, ()) = request.into_parts();
        canonical(&mut parts).map_err(|malformed| malformed.details)?;
        Ok(Request::from_parts(parts, ()))
    }

    #[test]
    fn the_authority_is_the_host() {
        let from = request("http://a.example:81/x?y", &[("host", "evil.example")]);
        let canonical = canonical_of(from).unwrap();
        assert_eq!(canonical.uri(), "/x?y");
        assert_eq!(canonical.headers()["host"], "a.example:81");
        assert_eq!(canonical.headers().get_all("host").iter().count(), 1);
    }

    #[test]
    fn what_somebody_may_read_differently_is_refused() {
        for (uri, headers, details) in [
            ("/", &[][..], "missing_host_header"),
            (
                "/",
                &[("host", "a"), ("host", "b")],
                "http2.invalid_authority",
            ),
            ("/", &[("host", "a b")], "http2.invalid_authority"),
            ("http://u:p@a/", &[], "http2.invalid_authority"),
            ("*", &[("host", "a")], "http2.invalid_path"),
            ("http://a/\u{e9}", &[], "http2.invalid_path"),
        ] {
            assert_eq!(
                canonical_of(request(uri, headers)).err(),
                Some(details),
                "{uri} {headers:?}"
            );
        }
    }

    #[test]
    fn cookie_crumbs_are_joined() {
        let from = request(
            "http://a/",
            &[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c")],
        );
        let canonical = canonical_of(from).unwrap();
        let cookies: Vec<_> = canonical.headers().get_all("cookie").iter().collect();
        assert_eq!(cookies, ["a=1; b=2; c"]);
    }

    #[test]
    fn outgoing_has_pseudo_headers_and_nothing_of_the_last_hop() {
        let from = request(
            "/p?q",
            &[
                ("host", "a.example"),
                ("x-forwarded-proto", "https"),
                ("connection", "close"),
                ("te", "trailers"),
                ("x", "1"),
                ("x", "2"),
            ],
        );
        let out = outgoing(&from).unwrap();
        assert_eq!(out.uri(), "https://a.example/p?q");
        let names: Vec<_> = out.headers().iter().map(|(n, v)| (n.as_str(), v)).collect();
        assert_eq!(
            names,
            [
                ("x-forwarded-proto", &HeaderValue::from_static("https")),
                ("te", &HeaderValue::from_static("trailers")),
                ("x", &HeaderValue::from_static("1")),
                ("x", &HeaderValue::from_static("2")),
            ]
        );
    }

    #[test]
    fn a_stated_length_is_the_true_one_or_none() {
        let length = |size, sent| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("5"));
            answer(&mut headers, StatusCode::OK, size, sent);
            headers.get(header::CONTENT_LENGTH).cloned()
        };
        assert_eq!(length(Some(7), true), Some(HeaderValue::from(7)));
        assert_eq!(length(None, true), None);
        assert_eq!(length(Some(0), false), Some(HeaderValue::from(5)));
    }
}
