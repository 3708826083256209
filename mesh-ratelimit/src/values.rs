//! Where the values of descriptors are in a request.

use std::{borrow::Cow, net::IpAddr};

use http::header::HeaderName;

use crate::RequestView;

/// A header, or a part of the request that HTTP/2 writes as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderKey {
    /// A header.
    Name(HeaderName),
    /// `:method`
    Method,
    /// `:path`
    Path,
    /// `:authority`
    Authority,
    /// `:scheme`
    Scheme,
}

/// Neither a header's name nor a known pseudo-header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a header name")]
pub struct InvalidHeaderKey(String);

impl std::str::FromStr for HeaderKey {
    type Err = InvalidHeaderKey;

    fn from_str(name: &str) -> Result<Self, InvalidHeaderKey> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":authority" | "host" => Self::Authority,
            ":scheme" => Self::Scheme,
            other => Self::Name(
                HeaderName::from_bytes(other.as_bytes())
                    .map_err(|_| InvalidHeaderKey(name.to_owned()))?,
            ),
        })
    }
}

impl HeaderKey {
    /// The first value in `request`; one that is not text is read with replacement characters.
    pub(crate) fn value<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        let header = |name: &HeaderName| {
            request
                .headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()))
        };
        match self {
            Self::Name(name) => header(name),
            Self::Method => Some(Cow::Borrowed(request.method.as_str())),
            Self::Path => request
                .uri
                .path_and_query()
                .map(|path| Cow::Borrowed(path.as_str())),
            Self::Authority => request
                .uri
                .authority()
                .map(|authority| Cow::Borrowed(authority.as_str()))
                .or_else(|| header(&http::header::HOST)),
            Self::Scheme => request.uri.scheme_str().map(Cow::Borrowed),
        }
    }
}

/// The trusted client address, or else the other end of the socket.
pub(crate) fn remote(request: &RequestView<'_>) -> Option<IpAddr> {
    let info = request.info()?;
    info.with(|facts| facts.remote)
        .or(info.connection.peer)
        .map(|address| address.ip())
}

pub(crate) fn mask(ip: IpAddr, v4_len: u8, v6_len: u8) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let len = v4_len.min(32);
            let keep = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
            format!("{}/{len}", std::net::Ipv4Addr::from(ip.to_bits() & keep))
        }
        IpAddr::V6(ip) => {
            let len = v6_len.min(128);
            let keep = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
            format!("{}/{len}", std::net::Ipv6Addr::from(ip.to_bits() & keep))
        }
    }
}

/// The first value of a query parameter, percent-decoded.
pub(crate) fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key) == name).then(|| percent_decode(value))
    })
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let hex = |i: usize| tail.get(i).and_then(|&c| char::from(c).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}
