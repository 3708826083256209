//! One resource on its own, as it comes beside a bootstrap.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use envoy_types::pb::envoy::config::{
    cluster::v3 as cluster_pb, endpoint::v3::ClusterLoadAssignment, listener::v3 as listener_pb,
    route::v3::RouteConfiguration,
};
use envoy_types::pb::envoy::{
    extensions::transport_sockets::tls::v3 as tls_pb, service::runtime::v3::Runtime,
};
use mesh_balance::BalanceConfig;
use mesh_core::runtime::RuntimeValue;
use mesh_net::dns::ResolverConfig;

use super::{
    LoadOptions, cluster,
    context::{Context, Files},
    listener, manager, runtime, tls,
};
use crate::{
    language::{At, ConfigError, Loaded, UnsupportedReport},
    model::{Cluster, ConnectionManager, EndpointConfig, Listener, Node, Secret},
};

/// What resources are converted in: the bootstrap, as far as it concerns them.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(super) options: LoadOptions,
    pub(super) has_ads: bool,
    pub(super) static_clusters: HashSet<String>,
    /// Whatever the bootstrap is asked for, it has.
    pub(super) has_all: bool,
    pub(super) static_secrets: HashMap<String, tls_pb::Secret>,
    node: Node,
    resolver: ResolverConfig,
}

/// What came of a conversion.
pub(crate) struct Converted<T> {
    pub(crate) value: T,
    pub(crate) report: UnsupportedReport,
}

/// The endpoints of a cluster, and what comes with them.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Assignment {
    endpoints: Arc<[EndpointConfig]>,
    /// `policy.overprovisioning_factor`.
    overprovisioning_factor: Option<u32>,
    /// `policy.weighted_priority_health`.
    weighted_priority_health: bool,
}

impl Assignment {
    /// Gives `cluster` these endpoints, and shares requests out among them as `balance` says and they do.
    pub(crate) fn give_to(&self, cluster: &mut Cluster, balance: BalanceConfig) {
        cluster.endpoints = Arc::clone(&self.endpoints);
        cluster.balance = balance;
        if let Some(factor) = self.overprovisioning_factor {
            cluster.balance.overprovisioning_factor = factor;
        }
        cluster.balance.weighted_priority_health = self.weighted_priority_health;
    }
}

impl Frame {
    pub(crate) fn new(loaded: &Loaded, options: &LoadOptions, node: &Node) -> Self {
        // What is wrong with it has been told already.
        let cx = Context::new(loaded, options);
        let resources = loaded.bootstrap.static_resources.iter();
        let clusters = resources.clone().flat_map(|resources| &resources.clusters);
        let secrets = resources.flat_map(|resources| &resources.secrets);
        Self {
            has_ads: cx.has_ads(),
            has_all: false,
            static_secrets: secrets
                .map(|secret| (secret.name.clone(), secret.clone()))
                .collect(),
            static_clusters: clusters.map(|cluster| cluster.name.clone()).collect(),
            node: node.clone(),
            resolver: cluster::default_resolver(&cx, &loaded.bootstrap),
            options: options.clone(),
        }
    }

    /// The bootstrap is not known: it has what is asked for.
    pub(crate) const fn assume_all(&mut self) {
        self.has_ads = true;
        self.has_all = true;
    }

    pub(crate) fn cluster(
        &self,
        loaded: &Loaded,
        from: &cluster_pb::Cluster,
    ) -> Result<Converted<Option<Cluster>>, ConfigError> {
        let cx = Context::of_part(loaded, self);
        let value = cluster::convert(&cx, &At::root(), from, &self.resolver);
        finish(cx, value)
    }

    pub(crate) fn assignment(
        &self,
        loaded: &Loaded,
        from: &ClusterLoadAssignment,
    ) -> Result<Converted<Assignment>, ConfigError> {
        let cx = Context::of_part(loaded, self);
        let policy = from.policy.as_ref();
        let value = Assignment {
            endpoints: cluster::assignment(&cx, &At::root(), from).into(),
            overprovisioning_factor: policy
                .and_then(|policy| super::value::number(policy.overprovisioning_factor)),
            weighted_priority_health: policy.is_some_and(|p| p.weighted_priority_health),
        };
        finish(cx, value)
    }

    pub(crate) fn runtime(
        &self,
        loaded: &Loaded,
        from: &Runtime,
    ) -> Result<Converted<BTreeMap<Arc<str>, RuntimeValue>>, ConfigError> {
        let cx = Context::of_part(loaded, self);
        let value = runtime::came(&cx, &At::root(), from);
        finish(cx, value)
    }

    pub(crate) fn secret(
        &self,
        loaded: &Loaded,
        from: &tls_pb::Secret,
    ) -> Result<Converted<Option<Secret>>, ConfigError> {
        let cx = Context::of_part(loaded, self);
        let value = tls::secret(&cx, &At::root(), from);
        finish(cx, value)
    }

    /// A listener, without routes that come on their own.
    pub(crate) fn listener(
        &self,
        loaded: &Loaded,
        from: &listener_pb::Listener,
    ) -> Result<Converted<Option<Listener>>, ConfigError> {
        let cx = Context::of_part(loaded, self);
        let value = self.listener_in(&cx, from);
        finish(cx, value)
    }

    /// A listener that routes are looked at in; also what the files held that they name.
    pub(crate) fn routes(
        &self,
        loaded: &Loaded,
        from: &listener_pb::Listener,
    ) -> Result<Converted<Files>, ConfigError> {
        let cx = Context::of_part(loaded, self).with_files(Files::new());
        self.listener_in(&cx, from);
        let files = cx.take_files();
        finish(cx, files)
    }

    /// A connection manager that was converted before, with routes that were looked at, and what their files
    /// held then.
    pub(crate) fn manager_with(
        &self,
        loaded: &Loaded,
        manager: &ConnectionManager,
        routes: RouteConfiguration,
        files: &Files,
    ) -> Result<Option<ConnectionManager>, ConfigError> {
        let cx = Context::of_part(loaded, self).with_files(files.clone());
        let around = listener::Surroundings {
            owner: Arc::clone(&manager.place.owner),
            node: &self.node,
            clusters: &self.names(),
            buffer_limit: manager.place.buffer_limit,
        };
        let value = manager::with_routes(&cx, &At::root(), manager, routes, &around);
        cx.finish_known()?;
        Ok(value)
    }

    fn listener_in(&self, cx: &Context<'_>, from: &listener_pb::Listener) -> Option<Listener> {
        listener::one(cx, &At::root(), from, &self.node, &self.names())
    }

    fn names(&self) -> HashSet<&str> {
        self.static_clusters.iter().map(String::as_str).collect()
    }
}

fn finish<T>(cx: Context<'_>, value: T) -> Result<Converted<T>, ConfigError> {
    Ok(Converted {
        value,
        report: cx.finish()?,
    })
}
