//! Where connections come in, and which filter chain takes them.

use std::{sync::Arc, time::Duration};

use mesh_core::Address;
use mesh_net::{BindOptions, filter_chain::ChainMatcher, proxy_protocol::ProxyVersion};

use super::{AccessLogConfig, ConnectionManager, DownstreamTls, NetworkFilter, PassTlvs};
use crate::dynamic::Needs;

/// Envoy: `Listener`.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name; made from the address when the config gives none.
    pub name: Arc<str>,
    /// Two listeners of one name and one fingerprint behave alike.
    pub fingerprint: u64,
    /// The part of its stats' names: `stat_prefix`, or the address; `None` means the real address, which
    /// is known only once it listens.
    pub stat_prefix: Option<String>,
    /// Where it listens: `address` and `additional_addresses`, in this order; there is one at least. An
    /// `api_listener` does not, whatever stands here.
    pub addresses: Vec<ListenAddress>,
    /// Whether it listens at all; one that does not gets what others hand it. Envoy: `bind_to_port`, true.
    pub bind_to_port: bool,
    /// Whether a connection whose original destination is the address of another listener goes to that one. Envoy:
    /// `use_original_dst`, false.
    pub use_original_dst: bool,
    /// Whether each new connection goes to the worker with the fewest. Envoy:
    /// `connection_balance_config.exact_balance`.
    pub exact_balance: bool,
    /// A line for each connection, when it ends. Envoy: `access_log`.
    pub access_log: Vec<AccessLogConfig>,
    /// One socket per worker, rather than one for all. Envoy: `enable_reuse_port`, true.
    pub reuse_port: bool,
    /// Who looks at a connection before a filter chain is chosen, in order.
    pub listener_filters: Vec<ListenerFilter>,
    /// How long they may take together; `None` is for ever. Envoy: 15 s.
    pub listener_filters_timeout: Option<Duration>,
    /// Their time being over, a connection goes on rather than being closed. Envoy: false.
    pub continue_on_listener_filters_timeout: bool,
    /// What may become of a connection, in the order of the config; the default chain is the last.
    pub chains: Vec<FilterChain>,
    /// Which of the chains takes a connection, by its number.
    pub matcher: ChainMatcher,
    /// The chain for connections that no other takes. Envoy: `default_filter_chain`.
    pub default_chain: Option<usize>,
    /// What has to come from a control plane before it can serve.
    pub needs: Needs,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// The address.
    pub address: Address,
    /// How its sockets are made.
    pub bind: BindOptions,
}

impl ListenAddress {
    /// Whether the kernel chooses the port.
    #[must_use]
    pub const fn has_any_port(&self) -> bool {
        matches!(&self.address, Address::Socket(socket) if socket.port() == 0)
    }
}

impl Listener {
    /// Whether connections that were meant for others are taken as they are. Envoy: `transparent`.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.addresses
            .iter()
            .any(|address| address.bind.transparent)
    }

    /// Whether nothing of it has to come from elsewhere.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.needs.is_empty()
    }

    /// The first HTTP connection manager of its filter chains.
    #[must_use]
    pub fn manager(&self) -> Option<&Arc<ConnectionManager>> {
        self.managers().next()
    }

    /// All HTTP connection managers of its filter chains.
    pub fn managers(&self) -> impl Iterator<Item = &Arc<ConnectionManager>> {
        self.chains.iter().filter_map(FilterChain::manager)
    }
}

/// Who looks at a connection before a filter chain is chosen.
#[derive(Debug, Clone)]
pub enum ListenerFilter {
    /// `envoy.filters.listener.proxy_protocol`.
    ProxyProtocol(ProxyProtocolConfig),
    /// `envoy.filters.listener.original_dst`.
    OriginalDst,
    /// `envoy.filters.listener.tls_inspector`.
    TlsInspector(TlsInspectorConfig),
}

/// Envoy: `envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInspectorConfig {
    /// Bytes to look at to begin with. Envoy: `initial_read_buffer_size`, 256 to 65536; there it is the maximum
    /// by default.
    pub first_look: usize,
    /// What begins as no ClientHello does is closed; else it counts as plaintext. Envoy:
    /// `close_connection_on_client_hello_parsing_errors`, false by default.
    pub close_on_parsing_errors: bool,
    /// A ClientHello that does not fit into so many bytes closes the connection. Envoy: `max_client_hello_size`,
    /// 256 to 16384, which is the default.
    pub client_hello_max: usize,
    /// `%TLS_JA3_FINGERPRINT%` is known. Envoy: `enable_ja3_fingerprinting`, false by default.
    pub ja3: bool,
    /// `%TLS_JA4_FINGERPRINT%` is known. Envoy: `enable_ja4_fingerprinting`, false by default.
    pub ja4: bool,
}

impl Default for TlsInspectorConfig {
    fn default() -> Self {
        Self {
            first_look: 2048,
            close_on_parsing_errors: false,
            client_hello_max: mesh_tls::inspector::CLIENT_HELLO_MAX,
            ja3: false,
            ja4: false,
        }
    }
}

/// Envoy: `envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol`.
#[derive(Debug, Clone)]
pub struct ProxyProtocolConfig {
    /// A connection without a header is let in. Envoy: false.
    pub allow_requests_without_proxy_protocol: bool,
    /// Versions that are refused; where headers are not needed, they are not looked for.
    pub disallowed_versions: Vec<ProxyVersion>,
    /// `stat_prefix`; empty if there is none.
    pub stat_prefix: Arc<str>,
    /// What is kept for upstreams to hear. `pass_through_tlvs`, nothing.
    pub pass_through: PassTlvs,
}

/// Envoy: `FilterChain`.
#[derive(Debug, Clone)]
pub struct FilterChain {
    /// `name`, for people; empty if it has none.
    pub name: Arc<str>,
    /// Two chains of one listener and one fingerprint behave alike.
    pub fingerprint: u64,
    /// How it is encrypted; `None` is plaintext. Envoy: `transport_socket`.
    pub tls: Option<Arc<DownstreamTls>>,
    /// What the connection passes, in order. The last one ends it; there is at least one.
    pub filters: Vec<NetworkFilter>,
}

impl FilterChain {
    /// The HTTP connection manager that it ends in, if it does.
    #[must_use]
    pub fn manager(&self) -> Option<&Arc<ConnectionManager>> {
        self.filters.iter().find_map(|filter| match filter {
            NetworkFilter::Http(manager) => Some(manager),
            _ => None,
        })
    }
}
