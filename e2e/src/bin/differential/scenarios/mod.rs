//! The scenarios, one file per subject.
//!
//! To add one: write a `fn(&mut Run) -> Result<()>` beside its kin, list it in the file's
//! `groups()`, look at what Envoy does with `cargo xtask envoy --only feature/case --arm-only envoy`,
//! and write down the statuses with `expect`, so that a scenario that tests nothing is noticed.

mod http_messages;

use crate::suite::Group;

/// Every group of every file.
pub(crate) fn all() -> Vec<Group> {
    [http_messages::groups()].into_iter().flatten().collect()
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
