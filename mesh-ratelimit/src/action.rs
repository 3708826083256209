//! From a request to its descriptors.

use std::{borrow::Cow, fmt, net::IpAddr, num::NonZeroU32, sync::Arc};

use http::header::HeaderName;
use smallvec::SmallVec;

use crate::RequestView;

/// What one request says of itself: `(key, value)` pairs, in the order of the actions.
pub type Entries<'a> = SmallVec<[(Cow<'a, str>, Cow<'a, str>); 4]>;

/// Which rules build a request's descriptors.
#[derive(Clone)]
pub enum RateLimits {
    /// Always these.
    Fixed(Arc<[RateLimitRule]>),
    /// Those that the matched route or virtual host has.
    FromRequest(Arc<dyn RulesOf>),
}

/// Finds the rules of a request, typically through its matched route.
pub trait RulesOf: Send + Sync {
    /// The rules, in order; entries with a `disable_key` or of another stage left out.
    fn rules(&self, request: &RequestView<'_>) -> Option<Arc<[RateLimitRule]>>;
}

impl<F: Fn(&RequestView<'_>) -> Option<Arc<[RateLimitRule]>> + Send + Sync> RulesOf for F {
    fn rules(&self, request: &RequestView<'_>) -> Option<Arc<[RateLimitRule]>> {
        self(request)
    }
}

impl RateLimits {
    /// The rules of `request`.
    #[must_use]
    pub fn rules(&self, request: &RequestView<'_>) -> Option<Arc<[RateLimitRule]>> {
        match self {
            Self::Fixed(rules) => Some(Arc::clone(rules)),
            Self::FromRequest(of) => of.rules(request),
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self::Fixed(Arc::from([]))
    }
}

impl From<Vec<RateLimitRule>> for RateLimits {
    fn from(rules: Vec<RateLimitRule>) -> Self {
        Self::Fixed(rules.into())
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(rules) => f.debug_tuple("Fixed").field(rules).finish(),
            Self::FromRequest(_) => f.write_str("FromRequest(..)"),
        }
    }
}

/// Builds at most one descriptor: an entry per action, and none at all when an action says no.
///
/// # Envoy
/// `config.route.v3.RateLimit`
#[derive(Debug, Clone)]
pub struct RateLimitRule {
    /// In order. `actions`.
    pub actions: Vec<Action>,
    /// How many tokens a matching request takes. Default 1. `hits_addend.number`.
    pub hits_addend: NonZeroU32,
}

impl RateLimitRule {
    /// A rule whose requests take one token.
    #[must_use]
    pub const fn new(actions: Vec<Action>) -> Self {
        Self {
            actions,
            hits_addend: NonZeroU32::MIN,
        }
    }

    /// The descriptor of `request`; `None` when an action says no, or every entry was left out.
    #[must_use]
    pub fn descriptor<'a>(&'a self, request: &RequestView<'a>) -> Option<Entries<'a>> {
        let mut entries = Entries::new();
        for action in &self.actions {
            match action.entry(request) {
                Entry::Some(key, value) => entries.push((key, value)),
                Entry::Skip => {}
                Entry::No => return None,
            }
        }
        (!entries.is_empty()).then_some(entries)
    }
}

/// One entry of a descriptor.
///
/// # Envoy
/// `config.route.v3.RateLimit.Action`
#[derive(Clone)]
#[non_exhaustive]
pub enum Action {
    /// `(source_cluster, <this node's cluster>)`. `source_cluster`.
    SourceCluster(Arc<str>),
    /// `(destination_cluster, <routed cluster>)`; no when there is no route. `destination_cluster`.
    DestinationCluster,
    /// `(descriptor_key, <first value>)`. `request_headers`.
    RequestHeaders {
        /// A header, or `:method`, `:path`, `:authority` or `:scheme`.
        header_name: HeaderKey,
        /// The key.
        descriptor_key: Arc<str>,
        /// Leave the entry out when the header is missing, rather than the whole descriptor.
        skip_if_absent: bool,
    },
    /// `(descriptor_key, <first value, decoded>)`. `query_parameters`.
    QueryParameters {
        /// The parameter.
        query_parameter_name: Arc<str>,
        /// The key.
        descriptor_key: Arc<str>,
        /// Leave the entry out when the parameter is missing, rather than the whole descriptor.
        skip_if_absent: bool,
    },
    /// `(remote_address, <ip>)`, the trusted client address. `remote_address`.
    RemoteAddress,
    /// `(masked_remote_address, <network>/<length>)`. `masked_remote_address`.
    MaskedRemoteAddress {
        /// 0 to 32; more is read as 32. Envoy's default: 32.
        v4_prefix_mask_len: u8,
        /// 0 to 128; more is read as 128. Envoy's default: 128.
        v6_prefix_mask_len: u8,
    },
    /// `(descriptor_key, descriptor_value)`. `generic_key`.
    GenericKey {
        /// Envoy's default: `generic_key`.
        descriptor_key: Arc<str>,
        /// The value.
        descriptor_value: Arc<str>,
    },
    /// `(descriptor_key, descriptor_value)` if a condition on the request is what is expected.
    /// `header_value_match` and `query_parameter_value_match`.
    ValueMatch {
        /// Envoy's defaults: `header_match`, `query_match`.
        descriptor_key: Arc<str>,
        /// The value.
        descriptor_value: Arc<str>,
        /// Envoy's default: true.
        expect_match: bool,
        /// The condition: all header or query matchers of the config.
        matches: Arc<dyn Matches>,
    },
    /// `(descriptor_key, <what a function finds>)`; no when it finds nothing. For code, and for Envoy's
    /// `metadata` and `extension`.
    Custom {
        /// The key.
        descriptor_key: Arc<str>,
        /// Leave the entry out when there is no value, rather than the whole descriptor.
        skip_if_absent: bool,
        /// Finds the value.
        value: Arc<dyn ValueOf>,
    },
}

/// A condition on a request.
pub trait Matches: Send + Sync {
    /// Whether `request` fulfils it.
    fn matches(&self, request: &RequestView<'_>) -> bool;
}

impl<F: Fn(&RequestView<'_>) -> bool + Send + Sync> Matches for F {
    fn matches(&self, request: &RequestView<'_>) -> bool {
        self(request)
    }
}

/// Finds the value of a descriptor's entry.
pub trait ValueOf: Send + Sync {
    /// The value for `request`.
    fn value(&self, request: &RequestView<'_>) -> Option<String>;
}

impl<F: Fn(&RequestView<'_>) -> Option<String> + Send + Sync> ValueOf for F {
    fn value(&self, request: &RequestView<'_>) -> Option<String> {
        self(request)
    }
}

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
    fn value<'a>(&self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
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

enum Entry<'a> {
    Some(Cow<'a, str>, Cow<'a, str>),
    Skip,
    No,
}

impl<'a> Entry<'a> {
    fn from(key: &'a str, value: Option<Cow<'a, str>>, skip_if_absent: bool) -> Self {
        match value {
            Some(value) => Self::Some(Cow::Borrowed(key), value),
            None if skip_if_absent => Self::Skip,
            None => Self::No,
        }
    }
}

impl Action {
    fn entry<'a>(&'a self, request: &RequestView<'a>) -> Entry<'a> {
        match self {
            Self::SourceCluster(cluster) => {
                Entry::from("source_cluster", Some(Cow::Borrowed(cluster)), false)
            }
            Self::DestinationCluster => {
                let cluster = request
                    .info()
                    .and_then(|info| info.with(|facts| facts.cluster.clone()));
                let cluster = cluster.map(|cluster| Cow::Owned(cluster.as_ref().to_owned()));
                Entry::from("destination_cluster", cluster, false)
            }
            Self::RequestHeaders {
                header_name,
                descriptor_key,
                skip_if_absent,
            } => Entry::from(descriptor_key, header_name.value(request), *skip_if_absent),
            Self::QueryParameters {
                query_parameter_name,
                descriptor_key,
                skip_if_absent,
            } => {
                let value = query_parameter(request.uri.query(), query_parameter_name);
                Entry::from(descriptor_key, value, *skip_if_absent)
            }
            Self::RemoteAddress => {
                let ip = remote(request).map(|ip| Cow::Owned(ip.to_string()));
                Entry::from("remote_address", ip, false)
            }
            Self::MaskedRemoteAddress {
                v4_prefix_mask_len,
                v6_prefix_mask_len,
            } => {
                let network =
                    remote(request).map(|ip| mask(ip, *v4_prefix_mask_len, *v6_prefix_mask_len));
                Entry::from("masked_remote_address", network.map(Cow::Owned), false)
            }
            Self::GenericKey {
                descriptor_key,
                descriptor_value,
            } => Entry::from(descriptor_key, Some(Cow::Borrowed(descriptor_value)), false),
            Self::ValueMatch {
                descriptor_key,
                descriptor_value,
                expect_match,
                matches,
            } => {
                let value = (matches.matches(request) == *expect_match)
                    .then_some(Cow::Borrowed(descriptor_value.as_ref()));
                Entry::from(descriptor_key, value, false)
            }
            Self::Custom {
                descriptor_key,
                skip_if_absent,
                value,
            } => Entry::from(
                descriptor_key,
                value.value(request).map(Cow::Owned),
                *skip_if_absent,
            ),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceCluster(cluster) => write!(f, "SourceCluster({cluster})"),
            Self::DestinationCluster => f.write_str("DestinationCluster"),
            Self::RequestHeaders { descriptor_key, .. } => {
                write!(f, "RequestHeaders({descriptor_key})")
            }
            Self::QueryParameters { descriptor_key, .. } => {
                write!(f, "QueryParameters({descriptor_key})")
            }
            Self::RemoteAddress => f.write_str("RemoteAddress"),
            Self::MaskedRemoteAddress { .. } => f.write_str("MaskedRemoteAddress"),
            Self::GenericKey {
                descriptor_key,
                descriptor_value,
            } => write!(f, "GenericKey({descriptor_key}={descriptor_value})"),
            Self::ValueMatch { descriptor_key, .. } => write!(f, "ValueMatch({descriptor_key})"),
            Self::Custom { descriptor_key, .. } => write!(f, "Custom({descriptor_key})"),
        }
    }
}

/// The trusted client address, or else the other end of the socket.
fn remote(request: &RequestView<'_>) -> Option<IpAddr> {
    let info = request.info()?;
    info.with(|facts| facts.remote)
        .or(info.connection.peer)
        .map(|address| address.ip())
}

fn mask(ip: IpAddr, v4_len: u8, v6_len: u8) -> String {
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
fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
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
