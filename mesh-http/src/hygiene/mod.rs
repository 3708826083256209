//! What the edge does to requests before anybody decides on them, and to responses before they leave.
//!
//! Control headers that a client must not set are stripped, addresses are established, hop-by-hop headers
//! end here, the path takes one form.
//!
//! # Envoy
//! `HttpConnectionManager`, in the order of its `decodeHeaders`.

mod address;
pub mod path;
mod request;
mod response;

pub use request::{Prepared, REQUEST_ID, append_forwarded_for, prepare_path, prepare_request};
pub use response::prepare_response;

pub use crate::h1::has_token;

use std::{net::IpAddr, sync::Arc};

use http::HeaderValue;
use mesh_core::{Cidr, ClientCertDetails, ForwardClientCert};

/// Whether the codec's `server` header replaces the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerHeader {
    /// Always ours. Envoy: `OVERWRITE`.
    #[default]
    Overwrite,
    /// Ours when the upstream has none. Envoy: `APPEND_IF_ABSENT`.
    AppendIfAbsent,
    /// The upstream's, or none. Envoy: `PASS_THROUGH`.
    PassThrough,
}

/// What happens to header names with underscores, which some backends read as dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Underscores {
    /// They pass.
    #[default]
    Allow,
    /// The request is refused with 400.
    RejectRequest,
    /// The header is dropped.
    DropHeader,
}

/// What happens to `%2F`, `%5C` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EscapedSlashes {
    /// They stay.
    #[default]
    KeepUnchanged,
    /// The request is refused with 400.
    RejectRequest,
    /// The client is redirected to the plain path (307).
    UnescapeAndRedirect,
    /// They become plain slashes.
    UnescapeAndForward,
}

/// How the edge treats headers and paths. The defaults are Envoy's.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// The client's address is the socket's peer, not what `x-forwarded-for` says.
    pub use_remote_address: bool,
    /// How many proxies in front of us are trusted to have appended to `x-forwarded-for`.
    pub xff_num_trusted_hops: u32,
    /// With `use_remote_address`, leave `x-forwarded-for` as it came.
    pub skip_xff_append: bool,
    /// Who counts as internal; nobody by default.
    pub internal_addresses: Vec<Cidr>,
    /// Make an `x-request-id` when there is none.
    pub generate_request_id: bool,
    /// At the edge, keep the client's `x-request-id`.
    pub preserve_external_request_id: bool,
    /// Send `x-request-id` back.
    pub always_set_request_id_in_response: bool,
    /// Add `x-envoy-downstream-service-cluster` and `-node`, and a `user-agent` where there is none.
    pub add_user_agent: bool,
    /// This node's cluster.
    pub node_cluster: String,
    /// This node's id.
    pub node_id: String,
    /// The value of `server`.
    pub server_name: HeaderValue,
    /// See [`ServerHeader`].
    pub server_header: ServerHeader,
    /// Appended to `via` in both directions.
    pub via: Option<HeaderValue>,
    /// Resolve dot segments, decode what needs no encoding.
    pub normalize_path: bool,
    /// `//` becomes `/`.
    pub merge_slashes: bool,
    /// See [`EscapedSlashes`].
    pub escaped_slashes: EscapedSlashes,
    /// Take the port off `host` when it is the listener's.
    pub strip_matching_host_port: bool,
    /// Take any port off `host`.
    pub strip_any_host_port: bool,
    /// Take a trailing dot off `host`.
    pub strip_trailing_host_dot: bool,
    /// See [`Underscores`].
    pub underscores: Underscores,
    /// An address of this machine that others can see, for `x-forwarded-for` when a client on the loopback
    /// is recorded.
    pub local_address: IpAddr,
    /// Headers that only internal clients may send. Envoy: `RouteConfiguration.internal_only_headers`.
    pub internal_only_headers: Arc<[http::HeaderName]>,
    /// What becomes of `x-forwarded-client-cert`.
    pub forward_client_cert: ForwardClientCert,
    /// What we say in it.
    pub client_cert_details: ClientCertDetails,
}

impl Default for EdgeConfig {
    fn default() -> Self {
        Self {
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            skip_xff_append: false,
            internal_addresses: Vec::new(),
            generate_request_id: true,
            preserve_external_request_id: false,
            always_set_request_id_in_response: false,
            add_user_agent: false,
            node_cluster: String::new(),
            node_id: String::new(),
            server_name: HeaderValue::from_static("envoy"),
            server_header: ServerHeader::default(),
            via: None,
            normalize_path: false,
            merge_slashes: false,
            escaped_slashes: EscapedSlashes::default(),
            strip_matching_host_port: false,
            strip_any_host_port: false,
            strip_trailing_host_dot: false,
            underscores: Underscores::default(),
            local_address: address::local_address(),
            internal_only_headers: Arc::from([]),
            forward_client_cert: ForwardClientCert::Sanitize,
            client_cert_details: ClientCertDetails::default(),
        }
    }
}
