//! Endpoints that come from names.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, PoisonError, Weak},
};

use mesh_config::model::{self, DnsConfig, EndpointConfig, EndpointTarget};
use mesh_core::Address;
use mesh_net::dns::{DnsStats, DnsWatch, Resolver, Update};
use tokio::sync::mpsc;

use crate::{Cluster, cluster::Addresses, mesh::Env};

/// Looks the names of `cluster` up for as long as it lives.
pub(crate) fn start(cluster: &Arc<Cluster>, dns: &DnsConfig, resolver: &Resolver, env: &Env) {
    let Env {
        registry,
        rng,
        runtime,
        ..
    } = env;
    let prefix = format!("cluster.{}.", cluster.config.stat_name);
    let stats = DnsStats::register(&registry.scope(&prefix));
    // As many answers may wait as there are names: each watch waits for its own to be taken.
    let names = cluster.config.endpoints.len();
    let (answers, inbox) = mpsc::channel(names.max(1));
    for (index, endpoint) in cluster.config.endpoints.iter().enumerate() {
        let EndpointTarget::Name(host, _) = &endpoint.target else {
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
        let task = runtime.spawn(look_up(watch, index, answers.clone()));
        cluster.adopt(task.abort_handle());
    }
    let task = runtime.spawn(collect(Arc::downgrade(cluster), inbox));
    cluster.adopt(task.abort_handle());
}

struct Answer {
    index: usize,
    addresses: Arc<[IpAddr]>,
}

async fn look_up(mut watch: DnsWatch, index: usize, answers: mpsc::Sender<Answer>) {
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
        if answers.send(Answer { index, addresses }).await.is_err() {
            return;
        }
    }
}

/// Takes the answers to the names of a cluster.
async fn collect(cluster: Weak<Cluster>, mut inbox: mpsc::Receiver<Answer>) {
    let mut asked = HashSet::new();
    while let Some(answer) = inbox.recv().await {
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        let index = answer.index;
        if learn(&cluster, answer) {
            publish(&cluster);
        }
        if asked.insert(index) {
            cluster.name_settled();
        }
    }
}

/// Whether the answer says anything new. A name that does not resolve keeps what it was known for before.
fn learn(cluster: &Cluster, answer: Answer) -> bool {
    let mut answers = cluster
        .answers
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let Some(known) = answers.get_mut(answer.index) else {
        return false;
    };
    let failed = answer.addresses.is_empty() && known.is_some();
    if failed || known.as_ref() == Some(&answer.addresses) {
        return false;
    }
    *known = Some(answer.addresses);
    true
}

/// Gives a cluster the endpoints of its config and of the answers so far. One that replaces another keeps
/// the other's endpoints until each name has an answer: a push must not leave requests without any.
pub(crate) fn publish(cluster: &Cluster) {
    if matches!(cluster.config.discovery, model::Discovery::OriginalDst(_)) {
        // Its endpoints come with the requests, and stay.
        return;
    }
    let endpoints = {
        let answers = cluster
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assemble(&cluster.config, &answers, cluster.warms)
    };
    if let Some(endpoints) = endpoints {
        cluster.assign(endpoints);
    }
}

/// The endpoints of all names, in the order of the config; `None` when `complete` is asked for and a name
/// has no answer.
fn assemble(
    config: &model::Cluster,
    answers: &[Addresses],
    complete: bool,
) -> Option<Vec<(Address, EndpointConfig)>> {
    let mut all = Vec::new();
    for (endpoint, answer) in config.endpoints.iter().zip(answers) {
        match (&endpoint.target, answer) {
            (EndpointTarget::Address(address), _) => all.push((address.clone(), endpoint.clone())),
            (EndpointTarget::Name(host, port), Some(addresses)) => {
                for ip in addresses.iter() {
                    let mut endpoint = endpoint.clone();
                    if endpoint.hostname.is_empty() {
                        endpoint.hostname = Arc::from(host.as_str());
                    }
                    all.push((Address::Socket((*ip, *port).into()), endpoint));
                }
            }
            (EndpointTarget::Name(..), None) if complete => return None,
            (EndpointTarget::Name(..), None) => {}
        }
    }
    Some(all)
}
