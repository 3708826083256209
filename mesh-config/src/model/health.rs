use std::{ops::Range, sync::Arc};

use http::{Method, uri::PathAndQuery};
use mesh_balance::health::{HealthCheckConfig, Payload};
use mesh_core::{Address, MetadataValue};
use mesh_route::{HeaderMutation, StringMatcher};
use mesh_telemetry::Target;

/// Envoy: `HealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthCheck {
    /// When, and what it takes to change one's mind.
    pub schedule: HealthCheckConfig,
    /// How an endpoint is asked.
    pub probe: Probe,
    /// Whether the next check goes over the same connection. `reuse_connection`.
    pub reuse_connection: bool,
    /// In place of the endpoint's own: see [`TransportSocketMatch::pick`](super::TransportSocketMatch::pick).
    /// `transport_socket_match_criteria`.
    pub socket_labels: Option<Arc<[MetadataValue]>>,
    /// Where events are logged. `event_log_path`, and `event_logger` with a file.
    pub event_logs: Vec<Target>,
}

/// How an endpoint is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// `http_health_check`.
    Http(Box<HttpProbe>),
    /// `tcp_health_check`.
    Tcp(TcpProbe),
    /// `grpc_health_check`.
    Grpc(Box<GrpcProbe>),
}

impl Probe {
    /// As Envoy prints it in events.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "HTTP",
            Self::Tcp(_) => "TCP",
            Self::Grpc(_) => "GRPC",
        }
    }
}

/// Envoy: `HealthCheck.HttpHealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// `method`, GET by default.
    pub method: Method,
    /// `path`.
    pub path: PathAndQuery,
    /// `host`; the cluster's name by default. An endpoint's own wins.
    pub host: Arc<str>,
    /// `request_headers_to_add`, `request_headers_to_remove`.
    pub headers: HeaderMutation,
    /// The body. `send`.
    pub send: Vec<u8>,
    /// What the answer's body must contain. `receive`.
    pub receive: Payload,
    /// How much of the answer's body is looked at; 0 is all of it, up to
    /// [`HttpProbe::RESPONSE_BYTES_MAX`]. `response_buffer_size`, 1024.
    pub response_buffer_size: u64,
    /// Statuses that mean well. `expected_statuses`, 200.
    pub expected: Vec<Range<u16>>,
    /// Statuses that count towards the threshold. `retriable_statuses`.
    pub retriable: Vec<Range<u16>>,
    /// What `x-envoy-upstream-healthchecked-cluster` must say. `service_name_matcher`.
    pub service_name: Option<StringMatcher>,
    /// Whether it is asked over HTTP/2. `codec_client_type`.
    pub http2: bool,
}

impl HttpProbe {
    /// More of an answer is never looked at.
    pub const RESPONSE_BYTES_MAX: u64 = 1 << 20;
}

/// Envoy: `HealthCheck.TcpHealthCheck`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpProbe {
    /// What is sent, when an answer is expected. `send`.
    pub send: Vec<u8>,
    /// What the answer must contain; without it, a connection is enough. `receive`.
    pub receive: Payload,
}

/// Envoy: `HealthCheck.GrpcHealthCheck`.
#[derive(Debug, Clone, PartialEq)]
pub struct GrpcProbe {
    /// Which service of the endpoint; empty asks for all of it. `service_name`.
    pub service_name: String,
    /// `authority`; the cluster's name by default. An endpoint's own wins.
    pub authority: Arc<str>,
    /// `initial_metadata`.
    pub headers: HeaderMutation,
}

/// Envoy: `Endpoint.HealthCheckConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointCheck {
    /// Asked in place of the endpoint. `address`.
    pub address: Option<Address>,
    /// Asked in place of the endpoint's port. `port_value`.
    pub port: Option<u16>,
    /// Wins over the check's own host, unless it is empty. `hostname`.
    pub hostname: Arc<str>,
    /// It is not asked at all. `disable_active_health_check`.
    pub disabled: bool,
}

impl EndpointCheck {
    /// Who is asked about the endpoint at `address`.
    #[must_use]
    pub fn address(&self, address: &Address) -> Address {
        let mut asked = self.address.as_ref().unwrap_or(address).clone();
        if let (Address::Socket(socket), Some(port)) = (&mut asked, self.port) {
            socket.set_port(port);
        }
        asked
    }
}
