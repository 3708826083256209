//! From YAML to the model.
//!
//! Snippets go into a bootstrap that is fine without them.

mod bootstrap;
mod bounds;
mod cluster;
mod compress;
mod cors;
mod dns;
mod endpoint;
mod fault;
mod filters;
mod hashing;
mod health;
mod listener;
mod log;
mod manager;
mod mirror;
mod network;
mod protocol;
mod ratelimit;
mod retry;
mod route;
mod runtime;
mod stats;
mod tls;
mod vhost;
mod whole;

use std::sync::Arc;

use mesh_config::{
    LoadOptions,
    language::Source,
    load,
    model::{Cluster, Config, ConnectionManager, RoutePolicies},
};
use mesh_route::RouteEntry;

const ROUTER: &str = "{name: router, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The config of a text that must be fine.
fn config(text: &str) -> Config {
    load(&Source::text("f", text), &LoadOptions::default())
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What is wrong with a text.
fn refusal(text: &str) -> String {
    match load(&Source::text("f", text), &LoadOptions::default()) {
        Err(error) => error.to_string(),
        Ok(config) => panic!("accepted: {config:?}"),
    }
}

/// What the report says of a text: path, value, and whether it is about security.
fn report(text: &str) -> Vec<(String, Option<String>, bool)> {
    let entries = config(text).report.entries.into_iter();
    entries
        .map(|entry| (entry.path, entry.value, entry.security))
        .collect()
}

fn paths(text: &str) -> Vec<String> {
    report(text).into_iter().map(|(path, ..)| path).collect()
}

fn indented(text: &str, spaces: usize) -> String {
    let lines = text.lines().map(|line| format!("{:spaces$}{line}\n", ""));
    lines.collect()
}

/// A cluster with these fields.
fn cluster_text(fields: &str) -> String {
    format!(
        "static_resources:\n  clusters:\n  - name: b\n{}",
        indented(fields, 4)
    )
}

fn cluster(fields: &str) -> Arc<Cluster> {
    Arc::clone(&config(&cluster_text(fields)).clusters[0])
}

/// A listener with these fields and nothing else, and the cluster `b`.
fn listener_text(fields: &str) -> String {
    format!(
        "static_resources:\n  clusters: [{{name: b}}]\n  listeners:\n  -\n{}",
        indented(fields, 4)
    )
}

const ADDRESS: &str = "address: {socket_address: {address: 127.0.0.1, port_value: 0}}";

/// A connection manager with these fields.
fn bare_manager_text(fields: &str) -> String {
    listener_text(&format!(
        "name: l\n{ADDRESS}\nfilter_chains:\n- filters:\n  - name: hcm\n    typed_config:\n      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n{}",
        indented(fields, 6)
    ))
}

/// A connection manager with a router and one route, and these fields.
fn manager_text(fields: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters: [{ROUTER}]\nroute_config: {{name: main, virtual_hosts: [{{name: v, domains: '*', routes: [{{match: {{prefix: /}}, route: {{cluster: b}}}}]}}]}}\n{fields}"
    ))
}

fn manager(fields: &str) -> Arc<ConnectionManager> {
    Arc::clone(
        config(&manager_text(fields)).listeners[0]
            .manager()
            .unwrap(),
    )
}

/// A route configuration with these fields.
fn routes_text(fields: &str) -> String {
    bare_manager_text(&format!(
        "stat_prefix: i\nhttp_filters: [{ROUTER}]\nroute_config:\n{}",
        indented(fields, 2)
    ))
}

/// A virtual host with these fields.
fn vhost_text(fields: &str) -> String {
    routes_text(&format!(
        "name: main\nvirtual_hosts:\n- name: v\n  domains: ['*']\n{}",
        indented(fields, 2)
    ))
}

/// A route with these fields.
fn route_text(fields: &str) -> String {
    vhost_text(&format!("routes:\n-\n{}", indented(fields, 2)))
}

fn route(fields: &str) -> Arc<RouteEntry<RoutePolicies>> {
    let config = config(&route_text(fields));
    let routes = &config.listeners[0].manager().unwrap().routes;
    Arc::clone(routes.routes().next().expect("a route"))
}

/// The last line of a text on which `needle` stands.
fn line_of(text: &str, needle: &str) -> usize {
    let lines = text.lines().enumerate();
    let found = lines.filter(|(_, line)| line.contains(needle)).last();
    found
        .unwrap_or_else(|| panic!("{needle:?} is not in {text}"))
        .0
        + 1
}

/// The text is refused with one problem, at this path, on the line where `needle` stands.
fn assert_refused(text: &str, needle: &str, path: &str, reason: &str) {
    let refusal = refusal(text);
    let line = line_of(text, needle);
    let (place, rest) = refusal.split_once(' ').expect("a place and a reason");
    assert_eq!(rest, format!("{path}: {reason}"), "in {text}");
    assert!(
        place.starts_with(&format!("f:{line}:")),
        "{refusal}, not line {line} of {text}"
    );
}
