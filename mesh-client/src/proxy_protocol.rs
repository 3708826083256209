//! What clusters are told about the clients behind their connections.

use std::sync::Arc;

use mesh_config::model::{self, UpstreamProxyProtocol};
use mesh_core::ConnectionInfo;
use mesh_net::{
    Connect,
    proxy_protocol::{ProxyConnector, ProxyHeader},
};

/// `base`, with what the cluster wants to hear about `client`, or about ourselves, in front of each connection.
pub(crate) fn said(
    base: &Arc<dyn Connect>,
    config: &model::Cluster,
    client: Option<&ConnectionInfo>,
) -> Arc<dyn Connect> {
    match &config.proxy_protocol {
        None => Arc::clone(base),
        Some(said) => {
            let header = client.and_then(|client| header(said, client));
            Arc::new(ProxyConnector::new(Arc::clone(base), said.version, header))
        }
    }
}

/// `None` when nobody knows where the client is.
fn header(said: &UpstreamProxyProtocol, client: &ConnectionInfo) -> Option<ProxyHeader> {
    let mut header = ProxyHeader::new(client.peer?, client.local?);
    // What the config adds stands in for what the client said.
    let added = |kind| said.added.iter().any(|(own, _)| *own == kind);
    let passes = |kind| said.pass_through.takes(kind) && !added(kind);
    let passed = client.proxy_tlvs.iter().filter(|(kind, _)| passes(*kind));
    header.tlvs = said.added.iter().chain(passed).cloned().collect();
    Some(header)
}
