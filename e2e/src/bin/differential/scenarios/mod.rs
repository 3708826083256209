//! The scenarios, one file per subject.
//!
//! To add one: write a `fn(&mut Run) -> Result<()>` beside its kin, list it in the file's
//! `groups()`, look at what Envoy does with `cargo xtask envoy --only feature/case --arm-only envoy`,
//! and write down the statuses with `expect`, so that a scenario that tests nothing is noticed.

mod access_log;
mod admin;
mod balance;
mod compress;
mod fault;
mod filters;
mod health_checks;
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
mod ratelimit;
mod retries;
mod retries_limits;
mod routing_actions;
mod routing_headers;
mod routing_match;
mod stats;
mod tcp;
mod thresholds;

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
        tcp::groups(),
        listener::groups(),
        health_checks::groups(),
        filters::groups(),
        fault::groups(),
        compress::groups(),
        admin::groups(),
        stats::groups(),
    ]
    .into_iter()
    .flatten()
    .collect()
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
