//! Endpoints that come from names.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Weak},
};

use mesh_config::model::{self, DnsConfig, EndpointConfig, EndpointTarget};
use mesh_core::{Address, Rng, stats::Scope};
use mesh_net::dns::{DnsStats, DnsWatch, Resolver, Update};
use tokio::{runtime::Handle, sync::mpsc};

use crate::Cluster;

/// The endpoints whose addresses the config gives.
pub(crate) fn fixed(config: &model::Cluster) -> Vec<(Address, EndpointConfig)> {
    config
        .endpoints
        .iter()
        .filter_map(|endpoint| match &endpoint.target {
            EndpointTarget::Address(address) => Some((address.clone(), endpoint.clone())),
            EndpointTarget::Name(..) => None,
        })
        .collect()
}

/// Looks the names of `cluster` up for as long as it lives.
pub(crate) fn start(
    cluster: &Arc<Cluster>,
    dns: &DnsConfig,
    scope: &Scope,
    runtime: &Handle,
    rng: &Rng,
) -> io::Result<()> {
    let resolver = Resolver::new(&dns.resolver).map_err(io::Error::other)?;
    let stats = DnsStats::register(scope);
    // As many answers may wait as there are names: each watch waits for its own to be taken.
    let names = cluster.config.endpoints.len();
    let (answers, inbox) = mpsc::channel(names.max(1));
    for (index, endpoint) in cluster.config.endpoints.iter().enumerate() {
        let EndpointTarget::Name(host, port) = &endpoint.target else {
            continue;
        };
        let watch = DnsWatch::new(
            resolver.clone(),
            host,
            dns.family,
            dns.refresh.clone(),
            rng.clone(),
            stats.clone(),
        );
        let task = runtime.spawn(look_up(watch, index, *port, answers.clone()));
        cluster.adopt(task.abort_handle());
    }
    let task = runtime.spawn(collect(Arc::downgrade(cluster), inbox));
    cluster.adopt(task.abort_handle());
    Ok(())
}

struct Answer {
    index: usize,
    port: u16,
    addresses: Arc<[IpAddr]>,
}

async fn look_up(mut watch: DnsWatch, index: usize, port: u16, answers: mpsc::Sender<Answer>) {
    loop {
        let update = watch.next().await;
        if let (Update::Failed, Some(error)) = (update, watch.last_error()) {
            tracing::warn!(
                host = watch.host(),
                "{error}; keeping {} addresses",
                watch.addresses().len()
            );
        }
        // The first answer counts even when it changed nothing: it says that the name was asked for.
        let addresses = Arc::clone(watch.addresses());
        if answers
            .send(Answer {
                index,
                port,
                addresses,
            })
            .await
            .is_err()
        {
            return;
        }
    }
}

/// Puts the answers together: the endpoints of all names, in the order of the config.
async fn collect(cluster: Weak<Cluster>, mut inbox: mpsc::Receiver<Answer>) {
    let mut known: Vec<Option<Answer>> = Vec::new();
    while let Some(answer) = inbox.recv().await {
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let config = &cluster.config;
        known.resize_with(config.endpoints.len(), || None);
        let index = answer.index;
        let before = known[index].replace(answer);
        let first = before.is_none();
        let changed =
            before.map(|b| b.addresses) != known[index].as_ref().map(|a| Arc::clone(&a.addresses));
        if changed {
            cluster.assign(assemble(config, &known));
        }
        if first {
            cluster.name_settled();
        }
    }
}

fn assemble(config: &model::Cluster, known: &[Option<Answer>]) -> Vec<(Address, EndpointConfig)> {
    let mut all = Vec::new();
    for (endpoint, answer) in config.endpoints.iter().zip(known) {
        match (&endpoint.target, answer) {
            (EndpointTarget::Address(address), _) => all.push((address.clone(), endpoint.clone())),
            (EndpointTarget::Name(host, _), Some(answer)) => {
                for ip in answer.addresses.iter() {
                    let mut endpoint = endpoint.clone();
                    if endpoint.hostname.is_empty() {
                        endpoint.hostname = Arc::from(host.as_str());
                    }
                    all.push((Address::Socket((*ip, answer.port).into()), endpoint));
                }
            }
            (EndpointTarget::Name(..), None) => {}
        }
    }
    all
}
