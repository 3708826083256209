//! Clusters whose endpoints have names: when names are looked up, and who is asked.

use std::{net::SocketAddr, time::Duration};

use envoy_types::pb::envoy::{
    config::{
        bootstrap::v3::Bootstrap,
        cluster::v3::{self as pb, cluster::DnsLookupFamily as Family},
        core::v3::{self as core, TypedExtensionConfig},
    },
    extensions::{
        clusters::{
            common::dns::v3::DnsLookupFamily as ExtensionFamily,
            dns::v3::{DnsCluster, dns_cluster},
        },
        network::dns_resolver::{
            cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig,
            hickory::v3::HickoryDnsResolverConfig,
        },
    },
};
use mesh_core::Address;
use mesh_net::dns::{
    DnsDiscovery, DnsLookupFamily, FailureRefreshRate, RESOLVERS_MAX, RefreshConfig, ResolverConfig,
};

use super::MESSAGE;
use crate::{
    convert::{context::Context, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::DnsConfig,
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("dns_refresh_rate", Enforced),
            ("dns_jitter", Enforced),
            ("dns_failure_refresh_rate", Enforced),
            ("respect_dns_ttl", Enforced),
            ("dns_lookup_family", Enforced),
            ("dns_resolvers", Enforced),
            ("use_tcp_for_dns_lookups", Enforced),
            ("dns_resolution_config", Enforced),
            ("typed_dns_resolver_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.RefreshRate",
        fields: &[("base_interval", Enforced), ("max_interval", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.DnsResolutionConfig",
        fields: &[("resolvers", Enforced), ("dns_resolver_options", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.DnsResolverOptions",
        fields: &[
            ("use_tcp_for_dns_lookups", Enforced),
            ("no_default_search_domain", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.clusters.dns.v3.DnsCluster",
        fields: &[
            ("dns_refresh_rate", Enforced),
            ("dns_failure_refresh_rate", Enforced),
            ("respect_dns_ttl", Enforced),
            ("dns_jitter", Enforced),
            ("typed_dns_resolver_config", Enforced),
            ("dns_lookup_family", Enforced),
            ("all_addresses_in_single_endpoint", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.clusters.dns.v3.DnsCluster.RefreshRate",
        fields: &[("base_interval", Enforced), ("max_interval", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        fields: &[
            ("resolvers", Enforced),
            ("dns_resolver_options", Enforced),
            ("query_timeout_seconds", Enforced),
            ("query_tries", Enforced),
            // How c-ares uses its sockets.
            ("udp_max_queries", Meaningless),
            ("edns0_max_payload_size", Meaningless),
            ("max_udp_channel_duration", Meaningless),
            ("reinit_channel_on_timeout", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig",
        fields: &[("num_resolver_threads", Meaningless)],
    },
    MessageSupport {
        message: "envoy.extensions.network.dns_resolver.hickory.v3.HickoryDnsResolverConfig",
        fields: &[
            ("resolvers", Enforced),
            ("query_timeout", Enforced),
            ("query_tries", Enforced),
            ("num_resolver_threads", Meaningless),
            ("cache_size", Meaningless),
            ("dns_over_tls", Security),
            ("dns_over_https", Security),
            ("enable_dnssec", Security),
        ],
    },
];

/// The resolver of clusters that name none.
pub(in crate::convert) fn default_resolver(cx: &Context<'_>, from: &Bootstrap) -> ResolverConfig {
    let at = At::root();
    let mut config = ResolverConfig {
        use_tcp_for_dns_lookups: from.use_tcp_for_dns_lookups,
        ..ResolverConfig::default()
    };
    if let Some(from) = &from.dns_resolution_config {
        resolution_config(cx, &at.field("dns_resolution_config"), from, &mut config);
    }
    let typed = from.typed_dns_resolver_config.as_ref();
    typed_resolver(cx, &at.field("typed_dns_resolver_config"), typed).unwrap_or(config)
}

/// The cluster's own settings; the newer of several ways to say the same wins, as in Envoy.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    discovery: DnsDiscovery,
    default: &ResolverConfig,
) -> Option<DnsConfig> {
    let typed = from.typed_dns_resolver_config.as_ref();
    let resolver = typed_resolver(cx, &at.field("typed_dns_resolver_config"), typed)
        .unwrap_or_else(|| older_resolver(cx, at, from, default));
    let failure = from.dns_failure_refresh_rate.as_ref().map(|rate| {
        let at = at.field("dns_failure_refresh_rate");
        failure_rate(
            cx,
            &at,
            rate.base_interval.as_ref(),
            rate.max_interval.as_ref(),
        )
    });
    let refresh = Refresh {
        rate: from.dns_refresh_rate.as_ref(),
        jitter: from.dns_jitter.as_ref(),
        respect_ttl: from.respect_dns_ttl,
        failure,
    };
    Some(DnsConfig {
        resolver,
        family: match from.dns_lookup_family() {
            Family::Auto => DnsLookupFamily::Auto,
            Family::V4Only => DnsLookupFamily::V4Only,
            Family::V6Only => DnsLookupFamily::V6Only,
            Family::V4Preferred => DnsLookupFamily::V4Preferred,
            Family::All => DnsLookupFamily::All,
        },
        refresh: refresh.convert(cx, at, discovery)?,
    })
}

/// The same as an extension, which stands in for the cluster's own fields.
pub(super) fn extension(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &DnsCluster,
    default: &ResolverConfig,
) -> Option<DnsConfig> {
    let typed = from.typed_dns_resolver_config.as_ref();
    let resolver = typed_resolver(cx, &at.field("typed_dns_resolver_config"), typed);
    let failure = from.dns_failure_refresh_rate.as_ref();
    let failure = failure.map(|rate: &dns_cluster::RefreshRate| {
        let at = at.field("dns_failure_refresh_rate");
        failure_rate(
            cx,
            &at,
            rate.base_interval.as_ref(),
            rate.max_interval.as_ref(),
        )
    });
    let refresh = Refresh {
        rate: from.dns_refresh_rate.as_ref(),
        jitter: from.dns_jitter.as_ref(),
        respect_ttl: from.respect_dns_ttl,
        failure,
    };
    let discovery = if from.all_addresses_in_single_endpoint {
        DnsDiscovery::Logical
    } else {
        DnsDiscovery::Strict
    };
    Some(DnsConfig {
        resolver: resolver.unwrap_or_else(|| default.clone()),
        family: match from.dns_lookup_family() {
            ExtensionFamily::Unspecified | ExtensionFamily::Auto => DnsLookupFamily::Auto,
            ExtensionFamily::V4Only => DnsLookupFamily::V4Only,
            ExtensionFamily::V6Only => DnsLookupFamily::V6Only,
            ExtensionFamily::V4Preferred => DnsLookupFamily::V4Preferred,
            ExtensionFamily::All => DnsLookupFamily::All,
        },
        refresh: refresh.convert(cx, at, discovery)?,
    })
}

type PbDuration = envoy_types::pb::google::protobuf::Duration;

/// The fields that cluster and extension share.
struct Refresh<'a> {
    rate: Option<&'a PbDuration>,
    jitter: Option<&'a PbDuration>,
    respect_ttl: bool,
    failure: Option<Option<FailureRefreshRate>>,
}

impl Refresh<'_> {
    fn convert(
        self,
        cx: &Context<'_>,
        at: &At<'_>,
        discovery: DnsDiscovery,
    ) -> Option<RefreshConfig> {
        let default = RefreshConfig::default();
        let duration = |field, from| value::duration(cx, &at.field(field), from);
        let rate = duration("dns_refresh_rate", self.rate);
        let jitter = duration("dns_jitter", self.jitter);
        Some(RefreshConfig {
            discovery,
            dns_refresh_rate: rate.unwrap_or(default.dns_refresh_rate),
            dns_failure_refresh_rate: match self.failure {
                Some(failure) => Some(failure?),
                None => None,
            },
            respect_dns_ttl: self.respect_ttl,
            dns_jitter: jitter.unwrap_or_default(),
        })
    }
}

fn failure_rate(
    cx: &Context<'_>,
    at: &At<'_>,
    base: Option<&PbDuration>,
    max: Option<&PbDuration>,
) -> Option<FailureRefreshRate> {
    let base = value::duration(cx, &at.field("base_interval"), base)?;
    let max_at = at.field("max_interval");
    let max = value::duration(cx, &max_at, max);
    cx.ok(&max_at, FailureRefreshRate::new(base, max))
}

/// A resolver as a typed config; one of another type is in the report.
fn typed_resolver(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&TypedExtensionConfig>,
) -> Option<ResolverConfig> {
    let any = from?.typed_config.as_ref()?;
    let at = at.field("typed_config");
    let mut config = ResolverConfig::default();
    let servers = at.field("resolvers");
    if let Some(from) = cx.unpack::<CaresDnsResolverConfig>(any) {
        config.resolvers = resolvers(cx, &servers, &from.resolvers);
        options(from.dns_resolver_options.as_ref(), &mut config);
        let timeout = from
            .query_timeout_seconds
            .map(|n| Duration::from_secs(n.value));
        limits(timeout, value::number(from.query_tries), &mut config);
    } else if let Some(from) = cx.unpack::<HickoryDnsResolverConfig>(any) {
        config.resolvers = resolvers(cx, &servers, &from.resolvers);
        let timeout = value::duration(cx, &at.field("query_timeout"), from.query_timeout.as_ref());
        limits(timeout, value::number(from.query_tries), &mut config);
    } else if cx.unpack::<GetAddrInfoDnsResolverConfig>(any).is_none() {
        return None;
    }
    Some(config)
}

fn limits(timeout: Option<Duration>, tries: Option<u32>, config: &mut ResolverConfig) {
    config.query_timeout = timeout.unwrap_or(config.query_timeout);
    config.query_tries = tries.unwrap_or(config.query_tries);
    config.timeout = config.query_timeout.saturating_mul(config.query_tries);
}

fn options(from: Option<&core::DnsResolverOptions>, config: &mut ResolverConfig) {
    if let Some(options) = from {
        config.use_tcp_for_dns_lookups = options.use_tcp_for_dns_lookups;
        config.no_default_search_domain = options.no_default_search_domain;
    }
}

fn resolution_config(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &core::DnsResolutionConfig,
    config: &mut ResolverConfig,
) {
    config.resolvers = resolvers(cx, &at.field("resolvers"), &from.resolvers);
    options(from.dns_resolver_options.as_ref(), config);
}

fn older_resolver(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
    default: &ResolverConfig,
) -> ResolverConfig {
    let mut config = default.clone();
    if let Some(from) = &from.dns_resolution_config {
        resolution_config(cx, &at.field("dns_resolution_config"), from, &mut config);
    } else if !from.dns_resolvers.is_empty() {
        config.resolvers = resolvers(cx, &at.field("dns_resolvers"), &from.dns_resolvers);
        config.use_tcp_for_dns_lookups = from.use_tcp_for_dns_lookups;
    } else if from.use_tcp_for_dns_lookups {
        config.use_tcp_for_dns_lookups = true;
    }
    config
}

fn resolvers(cx: &Context<'_>, at: &At<'_>, from: &[core::Address]) -> Vec<SocketAddr> {
    if from.len() > RESOLVERS_MAX {
        cx.invalid(
            at,
            format!("there must be at most {RESOLVERS_MAX} name servers"),
        );
    }
    let servers = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        match value::address(cx, &at, from)? {
            // The port of DNS, unless the config says otherwise.
            Address::Socket(server) if server.port() == 0 => Some(SocketAddr::new(server.ip(), 53)),
            Address::Socket(server) => Some(server),
            Address::Unix(_) => {
                cx.invalid(&at, "a name server must have an IP address");
                None
            }
        }
    });
    servers.collect()
}
