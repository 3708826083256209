//! The scenarios, one file per subject.
//!
//! To add one: write a `fn(&mut Run) -> Result<()>` beside its kin, list it in the file's
//! `groups()`, look at what Envoy does with `cargo xtask envoy --only feature/case --arm-only envoy`,
//! and write down the statuses with `expect`, so that a scenario that tests nothing is noticed.

mod access_log;
mod admin;
mod balance;
mod compress;
mod cors;
mod fault;
mod filters;
mod grpc;
mod hashing;
mod health_checks;
mod http2;
mod http_headers;
mod http_hygiene;
mod http_messages;
mod http_paths;
mod http_timeouts;
mod http_upstreams;
mod internal_redirects;
mod listener;
mod mirror;
mod outlier;
mod proxy_protocol;
mod ratelimit;
mod retries;
mod retries_limits;
mod routing_actions;
mod routing_headers;
mod routing_match;
mod sockets;
mod stats;
mod tcp;
mod thresholds;
mod tls;
mod tls_upstream;
mod upgrade;
mod xfcc;

use std::time::SystemTime;

use e2e::tls::Client;
use mesh_tls::dev_ca::{DevCa, DevLeaf, Issued};

use crate::suite::Group;

/// Every group of every file.
pub(crate) fn all() -> Vec<Group> {
    [
        http_messages::groups(),
        http_hygiene::groups(),
        http_headers::groups(),
        http_paths::groups(),
        http_timeouts::groups(),
        http_upstreams::groups(),
        routing_match::groups(),
        routing_actions::groups(),
        routing_headers::groups(),
        access_log::groups(),
        mirror::groups(),
        internal_redirects::groups(),
        retries::groups(),
        retries_limits::groups(),
        thresholds::groups(),
        outlier::groups(),
        ratelimit::groups(),
        balance::groups(),
        hashing::groups(),
        http2::groups(),
        grpc::groups(),
        upgrade::groups(),
        tcp::groups(),
        listener::groups(),
        sockets::groups(),
        tls::groups(),
        tls_upstream::groups(),
        xfcc::groups(),
        proxy_protocol::groups(),
        health_checks::groups(),
        filters::groups(),
        cors::groups(),
        fault::groups(),
        compress::groups(),
        admin::groups(),
        stats::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Certificates of one throw-away CA for the scenarios of a file.
struct Pki {
    ca: DevCa,
    now: SystemTime,
}

impl Pki {
    fn new() -> Self {
        let now = mesh_core::clock::wall();
        let domain = "example.org".parse().expect("a trust domain");
        Self {
            ca: DevCa::new(domain, now).expect("a CA"),
            now,
        }
    }

    /// An SVID of this name, with more names.
    fn issue(&self, name: &str, more: impl FnOnce(DevLeaf) -> DevLeaf) -> Issued {
        let id = format!("spiffe://example.org/{name}");
        let leaf = DevLeaf::svid(&id.parse().expect("a SPIFFE ID"), self.now);
        self.ca.issue(more(leaf)).expect("a certificate")
    }

    fn trusted_ca(&self) -> String {
        format!("trusted_ca: {}", pem(&self.ca.bundle_pem()))
    }
}

/// A PEM text as a data source, on one line.
fn pem(text: &str) -> String {
    format!("{{inline_string: \"{}\"}}", text.replace('\n', "\\n"))
}

/// A client that shows this certificate.
fn tls_client(issued: &Issued) -> Client {
    Client::default().identity(issued.chain_pem(), issued.key_pem())
}

/// A transport socket; `fields` are those of its context, `common` those of `common_tls_context`.
fn tls_socket(kind: &str, fields: &str, own: Option<&Issued>, common: &str) -> String {
    let own = own.map_or_else(String::new, |own| {
        format!(
            "tls_certificates: [{{certificate_chain: {}, private_key: {}}}], ",
            pem(own.chain_pem()),
            pem(own.key_pem())
        )
    });
    format!(
        "transport_socket: {{name: envoy.transport_sockets.tls, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}, {fields} \
         common_tls_context: {{{own}{common}}}}}}}"
    )
}

/// `typed_extension_protocol_options` of a cluster, with these `HttpProtocolOptions`.
fn http_options(options: &str) -> String {
    format!(
        "typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    {options}
"
    )
}
