//! `Listener`: where connections come in, and what may become of them.

mod chain;
mod filters;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::envoy::config::{core::v3 as core, listener::v3 as pb};
use mesh_core::Address;
use mesh_net::BindOptions;
use prost::Message;

use super::{context::Context, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{Listener, Node},
};

pub(super) use chain::SUPPORT as CHAIN_SUPPORT;
pub(super) use filters::SUPPORT as FILTERS_SUPPORT;

pub(super) const SUPPORT: &[MessageSupport] = &[MessageSupport {
    message: "envoy.config.listener.v3.Listener",
    fields: &[
        ("name", Enforced),
        ("address", Enforced),
        ("stat_prefix", Enforced),
        ("filter_chains", Enforced),
        ("default_filter_chain", Enforced),
        ("enable_reuse_port", Enforced),
        ("tcp_backlog_size", Enforced),
        ("freebind", Enforced),
        ("transparent", Enforced),
        // How much of a request body is kept for retries, and of what a TCP proxy carries.
        ("per_connection_buffer_limit_bytes", Enforced),
        ("bind_to_port", Enforced),
        ("api_listener", Enforced),
        ("listener_filters", Enforced),
        ("listener_filters_timeout", Enforced),
        ("continue_on_listener_filters_timeout", Enforced),
        // There are neither global connection limits nor an overload manager to be exempt from.
        ("ignore_global_conn_limit", Meaningless),
        ("bypass_overload_manager", Meaningless),
        ("metadata", Meaningless),
        ("traffic_direction", Meaningless),
        ("filter_chain_matcher", Security),
        ("fcds_config", Security),
        ("use_original_dst", Security),
    ],
}];

/// How long listener filters may take when the config does not say.
const LISTENER_FILTERS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// What a listener passes on to its connection managers.
#[derive(Clone)]
pub(super) struct Surroundings<'a> {
    /// The path that names what belongs to the filter chain (buckets) across config pushes.
    pub(super) owner: Arc<str>,
    pub(super) node: &'a Node,
    /// The names of all clusters.
    pub(super) clusters: &'a HashSet<&'a str>,
    /// `per_connection_buffer_limit_bytes`.
    pub(super) buffer_limit: u64,
}

impl Surroundings<'_> {
    /// Those of one filter chain. The first goes by its listener unless it has a name of its own.
    fn of_chain(&self, name: &str, index: usize) -> Self {
        let owner = match (name, index) {
            ("", 0) => Arc::clone(&self.owner),
            ("", _) => format!("{}/filter_chain#{index}", self.owner).into(),
            _ => format!("{}/filter_chain/{name}", self.owner).into(),
        };
        Self {
            owner,
            ..self.clone()
        }
    }

    /// A number that differs when `message` or what surrounds it does.
    fn fingerprint(&self, message: &impl Message) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.owner.hash(&mut hasher);
        self.buffer_limit.hash(&mut hasher);
        (&self.node.id, &self.node.cluster).hash(&mut hasher);
        message.encode_to_vec().hash(&mut hasher);
        hasher.finish()
    }
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::Listener],
    node: &Node,
    clusters: &HashSet<&str>,
) -> Vec<Arc<Listener>> {
    let mut taken = Taken::default();
    let converted = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let address = socket(cx, &at, from)?;
        let name = taken.claim(cx, &at, from, &address);
        listener(cx, &at, from, (name, address), (node, clusters)).map(Arc::new)
    });
    converted.collect()
}

/// A single one, which came on its own.
pub(super) fn one(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    node: &Node,
    clusters: &HashSet<&str>,
) -> Option<Listener> {
    let address = socket(cx, at, from)?;
    let name = Taken::default().claim(cx, at, from, &address);
    listener(cx, at, from, (name, address), (node, clusters))
}

fn listener(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    (name, address): (Arc<str>, Address),
    (node, clusters): (&Node, &HashSet<&str>),
) -> Option<Listener> {
    let around = Surroundings {
        owner: format!("listener/{name}").into(),
        node,
        clusters,
        buffer_limit: value::number(from.per_connection_buffer_limit_bytes)
            .map_or(mesh_retry::DEFAULT_REQUEST_BODY_BUFFER_LIMIT, u64::from),
    };
    let chains = match &from.api_listener {
        Some(api) => chain::of_api_listener(cx, at, api, &around)?,
        None => chain::convert(cx, at, from, &around)?,
    };
    Some(Listener {
        fingerprint: around.fingerprint(from),
        name,
        stat_prefix: value::nonempty(&from.stat_prefix).map(str::to_owned),
        address,
        bind: bind_options(from),
        reuse_port: value::flag(from.enable_reuse_port, true),
        listener_filters: filters::convert(cx, at, &from.listener_filters),
        listener_filters_timeout: value::timeout(
            cx,
            &at.field("listener_filters_timeout"),
            from.listener_filters_timeout.as_ref(),
            Some(LISTENER_FILTERS_TIMEOUT_DEFAULT),
        ),
        continue_on_listener_filters_timeout: from.continue_on_listener_filters_timeout,
        chains: chains.list,
        matcher: chains.matcher,
        default_chain: chains.default,
        needs: cx.take_needs(),
    })
}

fn bind_options(from: &pb::Listener) -> BindOptions {
    use core::address::Address as Kind;
    let default = BindOptions::default();
    let address = from.address.as_ref().and_then(|at| at.address.as_ref());
    BindOptions {
        backlog: value::number(from.tcp_backlog_size).unwrap_or(default.backlog),
        ipv4_compat: matches!(address, Some(Kind::SocketAddress(socket)) if socket.ipv4_compat),
        freebind: value::flag(from.freebind, false),
        transparent: value::flag(from.transparent, false),
        mode: match address {
            Some(Kind::Pipe(pipe)) => Some(pipe.mode).filter(|mode| *mode != 0),
            _ => None,
        },
    }
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
    if from.api_listener.is_some() && cx.options.api_listeners {
        return Some(Address::Socket(([0, 0, 0, 0], 0).into()));
    }
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
