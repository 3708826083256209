//! `FilterChain`: which connections it takes, and what it does with them.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::listener::v3::{
        self as pb, filter::ConfigType, filter_chain_match::ConnectionSourceType,
    },
    extensions::filters::network::{
        connection_limit::v3::ConnectionLimit, http_connection_manager::v3::HttpConnectionManager,
        tcp_proxy::v3::TcpProxy,
    },
};
use mesh_core::Cidr;
use mesh_net::filter_chain::{ChainMatch, ChainMatcher, ServerName, SourceType};

use super::Surroundings;
use crate::{
    convert::{
        context::{Context, type_name},
        manager, network, proxy_protocol, tls, value,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
        is_security_type,
    },
    model::{FilterChain, NetworkFilter},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.listener.v3.FilterChain",
        fields: &[
            ("filters", Enforced),
            ("filter_chain_match", Enforced),
            ("transport_socket", Enforced),
            ("name", Enforced),
            ("metadata", Meaningless),
            ("use_proxy_proto", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.FilterChainMatch",
        fields: &[
            ("destination_port", Enforced),
            ("prefix_ranges", Enforced),
            ("direct_source_prefix_ranges", Enforced),
            ("source_type", Enforced),
            ("source_prefix_ranges", Enforced),
            ("source_ports", Enforced),
            ("server_names", Enforced),
            ("transport_protocol", Enforced),
            ("application_protocols", Enforced),
            // Envoy ignores them too, and they look as if they kept somebody out.
            ("address_suffix", Security),
            ("suffix_len", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.ApiListener",
        fields: &[("api_listener", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.Filter",
        fields: &[
            ("name", Meaningless),
            ("typed_config", Enforced),
            ("config_discovery", Security),
        ],
    },
];

/// What may become of the connections of a listener.
pub(super) struct Chains {
    pub(super) list: Vec<FilterChain>,
    pub(super) matcher: ChainMatcher,
    pub(super) default: Option<usize>,
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    around: &Surroundings<'_>,
) -> Option<Chains> {
    let list = at.field("filter_chains");
    let mut matcher = ChainMatcher::new();
    let mut chains = Vec::new();
    for (index, from) in from.filter_chains.iter().enumerate() {
        let at = list.index(index);
        let matches = chain_match(cx, &at, from.filter_chain_match.as_ref());
        cx.ok(&at, matcher.add(index, &matches));
        chains.push(chain(cx, &at, from, &around.of_chain(&from.name, index)));
    }
    let default = from.default_filter_chain.as_ref().map(|from| {
        let at = at.field("default_filter_chain");
        let around = around.of_chain(&from.name, chains.len());
        chains.push(chain(cx, &at, from, &around));
        chains.len() - 1
    });
    if chains.is_empty() {
        cx.invalid(at, "there is no filter chain: connections would go nowhere");
    }
    Some(Chains {
        list: chains.into_iter().collect::<Option<_>>()?,
        matcher,
        default,
    })
}

/// An `api_listener` is one connection manager, which takes what a client in this process asks.
pub(super) fn of_api_listener(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::ApiListener,
    around: &Surroundings<'_>,
) -> Option<Chains> {
    let at = at.field("api_listener");
    let at = at.field("api_listener");
    let manager = from.api_listener.as_ref();
    let Some(from) = manager.and_then(|any| cx.unpack::<HttpConnectionManager>(any)) else {
        cx.invalid(&at, "it is not an HTTP connection manager");
        return None;
    };
    let manager = manager::convert(cx, &at, &from, around)?;
    Some(Chains {
        list: vec![FilterChain {
            name: Arc::from(""),
            fingerprint: around.fingerprint(&from),
            tls: None,
            filters: vec![NetworkFilter::Http(Arc::new(manager))],
        }],
        matcher: ChainMatcher::new(),
        default: Some(0),
    })
}

fn chain_match(cx: &Context<'_>, at: &At<'_>, from: Option<&pb::FilterChainMatch>) -> ChainMatch {
    let Some(from) = from else {
        return ChainMatch::default();
    };
    let at = at.field("filter_chain_match");
    let ranges = |field, list: &[_]| -> Vec<Cidr> {
        let at = at.field(field);
        let ranges = list.iter().enumerate();
        ranges
            .filter_map(|(index, range)| value::cidr(cx, &at.index(index), range))
            .collect()
    };
    let names = at.field("server_names");
    let server_names = from.server_names.iter().enumerate();
    let ports_at = at.field("source_ports");
    let source_ports = from.source_ports.iter().enumerate();
    ChainMatch {
        destination_port: value::number(from.destination_port)
            .and_then(|port| cx.ok(&at.field("destination_port"), u16::try_from(port))),
        destinations: ranges("prefix_ranges", &from.prefix_ranges),
        server_names: server_names
            .filter_map(|(index, name)| cx.ok(&names.index(index), ServerName::new(name)))
            .collect(),
        transport_protocol: value::nonempty(&from.transport_protocol).map(Into::into),
        application_protocols: from
            .application_protocols
            .iter()
            .map(|protocol| protocol.as_str().into())
            .collect(),
        direct_sources: ranges(
            "direct_source_prefix_ranges",
            &from.direct_source_prefix_ranges,
        ),
        source_type: match from.source_type() {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        sources: ranges("source_prefix_ranges", &from.source_prefix_ranges),
        source_ports: source_ports
            .filter_map(|(index, port)| cx.ok(&ports_at.index(index), u16::try_from(*port)))
            .collect(),
    }
}

fn chain(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::FilterChain,
    around: &Surroundings<'_>,
) -> Option<FilterChain> {
    proxy_protocol::refuse(cx, at, from.transport_socket.as_ref());
    let tls = tls::downstream(cx, at, from.transport_socket.as_ref());
    let filters = network_filters(cx, at, from, around);
    Some(FilterChain {
        name: Arc::from(from.name.as_str()),
        fingerprint: around.fingerprint(from),
        tls: tls?,
        filters: filters?,
    })
}

/// The network filters that are known, the last of which ends the chain. Every other one is in the report,
/// by its type, as what security depends on: then nothing runs.
fn network_filters(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::FilterChain,
    around: &Surroundings<'_>,
) -> Option<Vec<NetworkFilter>> {
    let list = at.field("filters");
    let mut filters = Vec::new();
    let mut complete = true;
    let mut ended = false;
    for (index, filter) in from.filters.iter().enumerate() {
        let at = list.index(index);
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            if filter.config_type.is_none() {
                cx.invalid(&at, "typed_config is missing");
            }
            complete = false;
            continue;
        };
        let at = at.field("typed_config");
        if ended {
            let reason = "the filter before it ends the chain: nothing would get here";
            cx.invalid(&at, reason);
        }
        let name = type_name(any);
        if let Some(from) = cx.unpack::<HttpConnectionManager>(any) {
            ended = true;
            let manager = manager::convert(cx, &at, &from, around);
            complete &= manager.is_some();
            filters.extend(manager.map(Arc::new).map(NetworkFilter::Http));
        } else if let Some(from) = cx.unpack::<TcpProxy>(any) {
            ended = true;
            let proxy = network::tcp_proxy(cx, &at, &from, around);
            complete &= proxy.is_some();
            filters.extend(proxy.map(Arc::new).map(NetworkFilter::TcpProxy));
        } else if let Some(from) = cx.unpack::<ConnectionLimit>(any) {
            let limit = network::connection_limit(cx, &at, &from);
            filters.extend(limit.map(NetworkFilter::ConnectionLimit));
        } else {
            complete = false;
            if !is_security_type(name) {
                cx.invalid(&at, format!("{name} is not the config of a network filter"));
            }
        }
    }
    if from.filters.is_empty() {
        cx.invalid(
            &list,
            "there is no network filter: connections would go nowhere",
        );
    } else if complete && !ended {
        cx.invalid(
            &list,
            "the last filter must end the chain: connections would go nowhere",
        );
    }
    (complete && ended).then_some(filters)
}
