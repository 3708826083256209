//! `Listener`: where connections come in, and what may become of them.

mod chain;
mod filters;
mod socket;

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use envoy_types::pb::envoy::config::listener::v3::{
    self as pb, listener::connection_balance_config::BalanceType,
};
use mesh_core::Address;
use prost::Message;

use super::{access_log, context::Context, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{ListenAddress, Listener, Node},
};

pub(super) use chain::SUPPORT as CHAIN_SUPPORT;
pub(super) use filters::SUPPORT as FILTERS_SUPPORT;
pub(super) use socket::SUPPORT as SOCKET_SUPPORT;

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
        ("additional_addresses", Enforced),
        ("socket_options", Enforced),
        ("tcp_fast_open_queue_length", Enforced),
        ("tcp_keepalive", Enforced),
        ("connection_balance_config", Enforced),
        ("access_log", Enforced),
        ("use_original_dst", Enforced),
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
        let addresses = socket::convert(cx, &at, from)?;
        let name = taken.claim(cx, &at, from, &addresses);
        listener(cx, &at, from, (name, addresses), (node, clusters)).map(Arc::new)
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
    let addresses = socket::convert(cx, at, from)?;
    let name = Taken::default().claim(cx, at, from, &addresses);
    listener(cx, at, from, (name, addresses), (node, clusters))
}

fn listener(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Listener,
    (name, addresses): (Arc<str>, Vec<ListenAddress>),
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
        addresses,
        bind_to_port: value::flag(from.bind_to_port, true),
        use_original_dst: value::flag(from.use_original_dst, false),
        exact_balance: exact_balance(cx, at, from),
        access_log: access_log::convert(cx, &at.field("access_log"), &from.access_log),
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

/// Whether each connection goes to the worker with the fewest.
fn exact_balance(cx: &Context<'_>, at: &At<'_>, from: &pb::Listener) -> bool {
    let config = from.connection_balance_config.as_ref();
    match config.and_then(|config| config.balance_type.as_ref()) {
        Some(BalanceType::ExactBalance(_)) => true,
        // In the report.
        Some(BalanceType::ExtendBalance(_) | BalanceType::CpuLocalityBalance(_)) => false,
        None => {
            if config.is_some() {
                let at = at.field("connection_balance_config");
                cx.invalid(&at, "exact_balance is missing");
            }
            false
        }
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
        addresses: &[ListenAddress],
    ) -> Arc<str> {
        let address = &addresses[0].address;
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
        let fixed = addresses.iter().filter(|address| !address.has_any_port());
        for ListenAddress { address, .. } in fixed {
            if let Some(other) = self.addresses.insert(address.clone(), Arc::clone(&name)) {
                let reason = format!("the listener {other:?} has the same address, {address}");
                cx.invalid(&at.field("address"), reason);
            }
        }
        name
    }
}
