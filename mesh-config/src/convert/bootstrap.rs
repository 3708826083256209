//! `Bootstrap`: who runs it, the admin listener, and the static resources.

use std::{collections::HashSet, sync::Arc};

use envoy_types::pb::envoy::config::{bootstrap::v3 as pb, core::v3 as core};
use mesh_core::Locality;

use super::{cluster, context::Context, listener, runtime, source, stats, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{Admin, Cluster, Dynamic, Listener, Node, StatsConfig, StreamConfig},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Bootstrap",
        fields: &[
            ("node", Enforced),
            ("static_resources", Enforced),
            ("admin", Enforced),
            ("typed_dns_resolver_config", Enforced),
            ("dns_resolution_config", Enforced),
            ("use_tcp_for_dns_lookups", Enforced),
            ("default_regex_engine", Enforced),
            ("dynamic_resources", Enforced),
            ("cluster_manager", Enforced),
            // Names of the `xdstp://` kind, which nobody asks for.
            ("node_context_params", Meaningless),
            ("config_sources", Meaningless),
            ("default_config_source", Meaningless),
            ("layered_runtime", Enforced),
            ("stats_config", Enforced),
            ("stats_sinks", Enforced),
            ("stats_flush_interval", Enforced),
            ("stats_flush_on_admin", Enforced),
            // `loop_duration_us` of the workers.
            ("enable_dispatcher_stats", Enforced),
            // Stats cost nothing until they count something.
            ("deferred_stat_options", Meaningless),
            // How Envoy is built.
            ("inline_headers", Meaningless),
            ("listener_manager", Meaningless),
            ("memory_allocator_manager", Meaningless),
            ("perf_tracing_file_path", Meaningless),
            ("watchdog", Meaningless),
            ("watchdogs", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Bootstrap.StaticResources",
        fields: &[
            ("listeners", Enforced),
            ("clusters", Enforced),
            ("secrets", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Admin",
        fields: &[
            ("address", Enforced),
            ("access_log_path", Meaningless),
            ("profile_path", Meaningless),
            ("ignore_global_conn_limit", Meaningless),
            ("allow_paths", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.bootstrap.v3.ClusterManager",
        // Beside a control plane only; without one nobody would listen.
        fields: &[("load_stats_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.Node",
        fields: &[
            ("id", Enforced),
            ("cluster", Enforced),
            ("locality", Enforced),
            // For control planes and people.
            ("metadata", Meaningless),
            ("dynamic_parameters", Meaningless),
            ("user_agent_name", Meaningless),
            ("user_agent_version", Meaningless),
            ("user_agent_build_version", Meaningless),
            ("extensions", Meaningless),
            ("client_features", Meaningless),
            ("listening_addresses", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.regex_engines.v3.GoogleRE2",
        fields: &[],
    },
];

/// What a bootstrap comes to.
pub(super) struct Parts {
    pub(super) node: Node,
    pub(super) admin: Option<Admin>,
    pub(super) dynamic: Dynamic,
    pub(super) load_stats: Option<Arc<StreamConfig>>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) clusters: Vec<Arc<Cluster>>,
    pub(super) stats: StatsConfig,
}

pub(super) fn convert(cx: &Context<'_>, from: &pb::Bootstrap) -> Parts {
    let at = At::root();
    // First: what names a key looks there.
    if let Some(layers) = &from.layered_runtime {
        cx.set_layers(runtime::convert(cx, &at.field("layered_runtime"), layers));
    }
    let stats = stats::convert(cx, &at, from);
    let node = node(cx, from.node.as_ref());
    let admin = from.admin.as_ref().and_then(|admin| {
        let at = at.field("admin");
        let address = value::address(cx, &at.field("address"), admin.address.as_ref()?)?;
        Some(Admin { address })
    });
    let mut dynamic = source::dynamic(cx, from);
    if let Some(layers) = &from.layered_runtime {
        dynamic.runtime = runtime::sources(cx, &at.field("layered_runtime"), layers);
    }
    let load_stats = from.cluster_manager.as_ref().and_then(|manager| {
        let at = at.field("cluster_manager");
        let given = manager.load_stats_config.as_ref()?;
        if from.dynamic_resources.is_none() {
            cx.unsupported(
                &at.field("load_stats_config"),
                "envoy.config.bootstrap.v3.ClusterManager.load_stats_config",
                Some("without dynamic_resources"),
            );
        }
        source::stream(cx, &at.field("load_stats_config"), given)
    });
    let static_resources = from.static_resources.as_ref();
    let at = at.field("static_resources");
    let clusters = clusters(cx, &at, from, static_resources);
    let names: HashSet<&str> = static_resources
        .iter()
        .flat_map(|resources| &resources.clusters)
        .map(|cluster| cluster.name.as_str())
        .collect();
    let listeners = static_resources.map_or(&[][..], |resources| &resources.listeners);
    Parts {
        listeners: listener::convert(cx, &at.field("listeners"), listeners, &node, &names),
        node,
        admin,
        dynamic,
        load_stats,
        clusters,
        stats,
    }
}

fn node(cx: &Context<'_>, from: Option<&core::Node>) -> Node {
    let from = from.cloned().unwrap_or_default();
    let options = cx.options;
    let mut locality = locality(from.locality.as_ref());
    if let Some(zone) = &options.service_zone {
        locality.zone.clone_from(zone);
    }
    Node {
        id: options.service_node.clone().unwrap_or(from.id),
        cluster: options.service_cluster.clone().unwrap_or(from.cluster),
        locality,
    }
}

pub(super) fn locality(from: Option<&core::Locality>) -> Locality {
    from.map_or_else(Locality::default, |from| Locality {
        region: from.region.clone(),
        zone: from.zone.clone(),
        sub_zone: from.sub_zone.clone(),
    })
}

fn clusters(
    cx: &Context<'_>,
    at: &At<'_>,
    bootstrap: &pb::Bootstrap,
    from: Option<&pb::bootstrap::StaticResources>,
) -> Vec<Arc<Cluster>> {
    let list = at.field("clusters");
    let mut names = HashSet::new();
    let resolver = cluster::default_resolver(cx, bootstrap);
    let clusters = from.map_or(&[][..], |resources| &resources.clusters);
    let converted = clusters.iter().enumerate().filter_map(|(index, from)| {
        let at = list.index(index);
        if !names.insert(from.name.as_str()) {
            let reason = format!("there is another cluster named {:?}", from.name);
            cx.invalid(&at.field("name"), reason);
        }
        cluster::convert(cx, &at, from, &resolver).map(Arc::new)
    });
    converted.collect()
}
