//! From a request to its descriptors.

use std::{borrow::Cow, fmt, num::NonZeroU32, sync::Arc};

use smallvec::SmallVec;

use crate::{
    RequestView,
    values::{HeaderKey, mask, query_parameter, remote},
};

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

enum Entry<'a> {
    Some(Cow<'a, str>, Cow<'a, str>),
    Skip,
    No,
}

impl Action {
    fn entry<'a>(&'a self, request: &RequestView<'a>) -> Entry<'a> {
        match self.value(request) {
            Some(value) => Entry::Some(Cow::Borrowed(self.key()), value),
            None if self.skips_if_absent() => Entry::Skip,
            None => Entry::No,
        }
    }

    /// The key of its entry.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::SourceCluster(_) => "source_cluster",
            Self::DestinationCluster => "destination_cluster",
            Self::RemoteAddress => "remote_address",
            Self::MaskedRemoteAddress { .. } => "masked_remote_address",
            Self::RequestHeaders { descriptor_key, .. }
            | Self::QueryParameters { descriptor_key, .. }
            | Self::GenericKey { descriptor_key, .. }
            | Self::ValueMatch { descriptor_key, .. }
            | Self::Custom { descriptor_key, .. } => descriptor_key,
        }
    }

    const fn skips_if_absent(&self) -> bool {
        match self {
            Self::RequestHeaders { skip_if_absent, .. }
            | Self::QueryParameters { skip_if_absent, .. }
            | Self::Custom { skip_if_absent, .. } => *skip_if_absent,
            _ => false,
        }
    }

    fn value<'a>(&'a self, request: &RequestView<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::SourceCluster(cluster) => Some(Cow::Borrowed(cluster)),
            Self::DestinationCluster => {
                let cluster = request.info()?.with(|facts| facts.cluster.clone())?;
                Some(Cow::Owned(cluster.as_ref().to_owned()))
            }
            Self::RequestHeaders { header_name, .. } => header_name.value(request),
            Self::QueryParameters {
                query_parameter_name,
                ..
            } => query_parameter(request.uri.query(), query_parameter_name),
            Self::RemoteAddress => remote(request).map(|ip| Cow::Owned(ip.to_string())),
            Self::MaskedRemoteAddress {
                v4_prefix_mask_len,
                v6_prefix_mask_len,
            } => remote(request)
                .map(|ip| Cow::Owned(mask(ip, *v4_prefix_mask_len, *v6_prefix_mask_len))),
            Self::GenericKey {
                descriptor_value, ..
            } => Some(Cow::Borrowed(descriptor_value)),
            Self::ValueMatch {
                descriptor_value,
                expect_match,
                matches,
                ..
            } => (matches.matches(request) == *expect_match)
                .then_some(Cow::Borrowed(descriptor_value)),
            Self::Custom { value, .. } => value.value(request).map(Cow::Owned),
        }
    }
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Action({})", self.key())
    }
}
