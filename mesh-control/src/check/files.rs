//! Certificates in files are on the machines of the proxies; here nobody can read them.

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::Cluster,
        core::v3::{
            DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
        },
        listener::v3::Listener,
    },
    extensions::transport_sockets::tls::v3::{
        CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
        common_tls_context::ValidationContextType,
    },
};
use mesh_xds::ResourceType;
use prost::{Message, Name as _};

/// The resource without transport sockets that need files; `None` when it has none of these.
pub(super) fn without(ty: ResourceType, body: &[u8]) -> Option<Vec<u8>> {
    match ty {
        ResourceType::Cluster => {
            let mut cluster = Cluster::decode(body).ok()?;
            let mut found = strip(&mut cluster.transport_socket);
            for matched in &mut cluster.transport_socket_matches {
                found |= strip(&mut matched.transport_socket);
            }
            found.then(|| cluster.encode_to_vec())
        }
        ResourceType::Listener => {
            let mut listener = Listener::decode(body).ok()?;
            let chains = listener.filter_chains.iter_mut();
            let mut found = false;
            for chain in chains.chain(listener.default_filter_chain.as_mut()) {
                found |= strip(&mut chain.transport_socket);
            }
            found.then(|| listener.encode_to_vec())
        }
        _ => None,
    }
}

fn strip(socket: &mut Option<TransportSocket>) -> bool {
    let needs_files = socket.as_ref().is_some_and(needs_files);
    if needs_files {
        *socket = None;
    }
    needs_files
}

fn needs_files(socket: &TransportSocket) -> bool {
    let Some(ConfigType::TypedConfig(any)) = &socket.config_type else {
        return false;
    };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    let common = if name == UpstreamTlsContext::full_name() {
        UpstreamTlsContext::decode(any.value.as_slice()).map(|context| context.common_tls_context)
    } else if name == DownstreamTlsContext::full_name() {
        DownstreamTlsContext::decode(any.value.as_slice()).map(|context| context.common_tls_context)
    } else {
        return false;
    };
    common.is_ok_and(|common| common.as_ref().is_some_and(context_needs_files))
}

fn context_needs_files(context: &CommonTlsContext) -> bool {
    let is_file = |source: &DataSource| matches!(source.specifier, Some(Specifier::Filename(_)));
    let certificates = context.tls_certificates.iter();
    let mut own = certificates.flat_map(|certificate| {
        certificate
            .certificate_chain
            .iter()
            .chain(&certificate.private_key)
    });
    let validation = match &context.validation_context_type {
        Some(ValidationContextType::ValidationContext(validation)) => Some(validation),
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            combined.default_validation_context.as_ref()
        }
        _ => None,
    };
    let mut peers = validation
        .into_iter()
        .flat_map(|validation| validation.trusted_ca.iter().chain(&validation.crl));
    own.any(is_file) || peers.any(is_file)
}
