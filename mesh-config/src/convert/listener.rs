//! `Listener`: where connections come in, and the one filter chain that they go through.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use envoy_types::pb::envoy::{
    config::listener::v3::{self as pb, filter::ConfigType},
    extensions::filters::network::http_connection_manager::v3::HttpConnectionManager,
};
use mesh_core::Address;
use prost::Message;

use super::{
    context::{Context, type_name},
    manager, value,
};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
        is_security_type,
    },
    model::{ConnectionManager, Listener, Node},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.listener.v3.Listener",
        fields: &[
            ("name", Enforced),
            ("address", Enforced),
            ("stat_prefix", Enforced),
            ("filter_chains", Enforced),
            ("default_filter_chain", Enforced),
            ("enable_reuse_port", Enforced),
            // How much of a request body is kept for retries.
            ("per_connection_buffer_limit_bytes", Enforced),
            ("bind_to_port", Enforced),
            // Listener filters are reported, and without them there is nothing to wait for.
            ("listener_filters", Enforced),
            ("listener_filters_timeout", Meaningless),
            ("continue_on_listener_filters_timeout", Meaningless),
            // There are neither global connection limits nor an overload manager to be exempt from.
            ("ignore_global_conn_limit", Meaningless),
            ("bypass_overload_manager", Meaningless),
            ("metadata", Meaningless),
            ("traffic_direction", Meaningless),
            ("filter_chain_matcher", Security),
            ("fcds_config", Security),
            ("use_original_dst", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.listener.v3.FilterChain",
        fields: &[
            ("filters", Enforced),
            ("filter_chain_match", Enforced),
            ("transport_socket", Enforced),
            ("name", Meaningless),
            ("metadata", Meaningless),
            ("use_proxy_proto", Security),
        ],
    },
    // An empty match lets everything in, as no match does.
    MessageSupport {
        message: "envoy.config.listener.v3.FilterChainMatch",
        fields: &[
            ("destination_port", Security),
            ("prefix_ranges", Security),
            ("address_suffix", Security),
            ("suffix_len", Security),
            ("direct_source_prefix_ranges", Security),
            ("source_type", Security),
            ("source_prefix_ranges", Security),
            ("source_ports", Security),
            ("server_names", Security),
            ("transport_protocol", Security),
            ("application_protocols", Security),
        ],
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

/// What a listener passes on to its connection manager.
pub(super) struct Surroundings<'a> {
    /// The listener's name, made up if it has none.
    pub(super) listener: Arc<str>,
    pub(super) node: &'a Node,
    /// The names of all clusters.
    pub(super) clusters: &'a HashSet<&'a str>,
    /// `per_connection_buffer_limit_bytes`.
    pub(super) buffer_limit: u64,
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::Listener],
    node: &Node,
    clusters: &HashSet<&str>,
) -> Vec<Listener> {
    let mut taken = Taken::default();
    let converted = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let address = socket(cx, &at, from)?;
        let name = taken.claim(cx, &at, from, &address);
        let around = Surroundings {
            listener: Arc::clone(&name),
            node,
            clusters,
            buffer_limit: value::number(from.per_connection_buffer_limit_bytes)
                .map_or(mesh_retry::DEFAULT_REQUEST_BODY_BUFFER_LIMIT, u64::from),
        };
        Some(Listener {
            manager: Arc::new(chain(cx, &at, from, &around)?),
            name,
            stat_prefix: value::nonempty(&from.stat_prefix).map(str::to_owned),
            address,
            reuse_port: value::flag(from.enable_reuse_port, true),
        })
    });
    converted.collect()
}

/// Names and addresses that are in use.
#[derive(Default)]
struct Taken {
    names: HashSet<Arc<str>>,
    addresses: HashMap<Address, Arc<str>>,
    /// How many names had to be told apart by a number.
    unnamed: usize,
}

impl Taken {
    /// The name of a listener, which nobody else has; a complaint when the name or the address is taken.
    fn claim(
        &mut self,
        cx: &Context<'_>,
        at: &At<'_>,
        from: &pb::Listener,
        address: &Address,
    ) -> Arc<str> {
        let mut name: Arc<str> = Arc::from(from.name.as_str());
        if from.name.is_empty() {
            name = address.to_string().into();
            while self.names.contains(&name) {
                self.unnamed += 1;
                name = format!("{address}#{}", self.unnamed + 1).into();
            }
        } else if self.names.contains(&name) {
            let reason = format!("there is another listener named {name:?}");
            cx.invalid(&at.field("name"), reason);
        }
        self.names.insert(Arc::clone(&name));
        // With port 0 each gets a port of its own.
        let fixed = !matches!(address, Address::Socket(socket) if socket.port() == 0);
        if fixed && let Some(other) = self.addresses.insert(address.clone(), Arc::clone(&name)) {
            let reason = format!("the listener {other:?} has the same address, {address}");
            cx.invalid(&at.field("address"), reason);
        }
        name
    }
}

fn socket(cx: &Context<'_>, at: &At<'_>, from: &pb::Listener) -> Option<Address> {
    let refused = [
        ("api_listener", from.api_listener.is_some()),
        ("udp_listener_config", from.udp_listener_config.is_some()),
        ("internal_listener", from.listener_specifier.is_some()),
    ];
    if let Some((field, _)) = refused.into_iter().find(|(_, set)| *set) {
        let reason = "listeners other than TCP and Unix sockets are not supported";
        cx.invalid(&at.field(field), reason);
        return None;
    }
    if !value::flag(from.bind_to_port, true) {
        // Whoever relies on it being closed must not find it open.
        cx.insecure(
            &at.field("bind_to_port"),
            "envoy.config.listener.v3.Listener.bind_to_port",
            Some("false"),
        );
    }
    let Some(address) = &from.address else {
        cx.invalid(at, "address is missing");
        return None;
    };
    value::address(cx, &at.field("address"), address)
}

/// The connection manager of the one filter chain. A second chain is reported as what security depends on:
/// then nothing runs, and it is only looked at for mistakes.
fn chain(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    around: &Surroundings<'_>,
) -> Option<ConnectionManager> {
    let list = at.field("filter_chains");
    let mut managers = Vec::new();
    let mut matches = HashSet::new();
    for (index, chain) in from.filter_chains.iter().enumerate() {
        let at = list.index(index);
        let own = chain.filter_chain_match.as_ref();
        if !matches.insert(own.map_or_else(Vec::new, Message::encode_to_vec)) {
            cx.invalid(
                &at,
                "an earlier filter chain has the same filter_chain_match",
            );
        }
        managers.push((at, network_filters(cx, &at, chain, around)));
    }
    let at_default = at.field("default_filter_chain");
    if let Some(chain) = &from.default_filter_chain {
        managers.push((at_default, network_filters(cx, &at_default, chain, around)));
    }
    if managers.is_empty() {
        cx.invalid(at, "there is no filter chain: connections would go nowhere");
    }
    let mut managers = managers.into_iter();
    let (_, first) = managers.next()?;
    for (at, _) in managers {
        let field = "envoy.config.listener.v3.FilterChain";
        cx.insecure(&at, field, Some("a further filter chain"));
    }
    first
}

/// The connection manager among the network filters. Every other one is in the report, by its type, as what
/// security depends on.
fn network_filters(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::FilterChain,
    around: &Surroundings<'_>,
) -> Option<ConnectionManager> {
    let filters = at.field("filters");
    let mut found = None;
    for (index, filter) in from.filters.iter().enumerate() {
        let at = filters.index(index);
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else {
            if filter.config_type.is_none() {
                cx.invalid(&at, "typed_config is missing");
            }
            continue;
        };
        let at = at.field("typed_config");
        let name = type_name(any);
        if let Some(from) = cx.unpack::<HttpConnectionManager>(any) {
            if found.is_some() {
                cx.invalid(
                    &at,
                    "there is a connection manager before it: nothing would get here",
                );
            }
            found = Some(manager::convert(cx, &at, &from, around));
        } else if !is_security_type(name) {
            cx.invalid(&at, format!("{name} is not the config of a network filter"));
        }
    }
    if from.filters.is_empty() {
        cx.invalid(
            &filters,
            "there is no network filter: connections would go nowhere",
        );
    }
    found.flatten()
}
