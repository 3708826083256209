//! `cargo xtask deps`: who may import whom.
//!
//! The rules are those of ARCHITECTURE: layers point downwards, policies meet only through
//! mesh-core, and what is heavy stays in the one crate that needs it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cargo::{Metadata, list, text};

/// Crates that decide; they work alone in any tower service.
pub(crate) const POLICIES: [&str; 9] = [
    "mesh-retry",
    "mesh-breaker",
    "mesh-outlier",
    "mesh-ratelimit",
    "mesh-balance",
    "mesh-route",
    "mesh-fault",
    "mesh-compress",
    "mesh-authz",
];

/// Crates that are never published and may import anything.
const FREE: [&str; 4] = ["e2e", "examples", "benches", "xtask"];

/// A crate of others, and the only crates of ours that may name it.
const RESERVED: [(&str, &[&str]); 13] = [
    ("h2", &["mesh-http"]),
    ("hyper", &["mesh-http"]),
    ("hyper-util", &["mesh-http"]),
    // The load generator must cost less than any proxy, ours included.
    ("rustls", &["mesh-tls", "benches"]),
    ("tokio-rustls", &["mesh-tls"]),
    ("rustls-webpki", &["mesh-tls"]),
    ("tonic", &["mesh-xds", "mesh-control"]),
    ("prost", &["mesh-config", "mesh-xds", "mesh-control"]),
    ("prost-types", &["mesh-config", "mesh-xds", "mesh-control"]),
    (
        "prost-reflect",
        &["mesh-config", "mesh-xds", "mesh-control"],
    ),
    ("envoy-types", &["mesh-config", "mesh-xds", "mesh-control"]),
    ("serde-saphyr", &["mesh-config"]),
    ("hickory-resolver", &["mesh-net"]),
];

/// What must not be anywhere below a policy: a user who adds one gets none of these.
const HEAVY: [&str; 9] = [
    "hyper",
    "h2",
    "tonic",
    "rustls",
    "prost",
    "prost-types",
    "prost-reflect",
    "envoy-types",
    "serde-saphyr",
];

/// Crates that are too big to be in one binary twice.
const SINGLE: [&str; 19] = [
    "bytes",
    "clap",
    "envoy-types",
    "h2",
    "hickory-proto",
    "hickory-resolver",
    "http",
    "http-body",
    "hyper",
    "prost",
    "prost-reflect",
    "regex",
    "regex-automata",
    "rustls",
    "tokio",
    "tokio-util",
    "tonic",
    "tower",
    "tracing",
];

/// The crates of ours that this one may import; `None` when it may import anything.
fn allowed(name: &str) -> Option<Vec<&'static str>> {
    let first = || {
        let mut layer = POLICIES.to_vec();
        layer.extend([
            "mesh-core",
            "mesh-telemetry",
            "mesh-tls",
            "mesh-xds",
            "mesh-net",
            "mesh-http",
        ]);
        layer
    };
    let with = |more: &[&'static str]| Some([&first()[..], more].concat());
    match name {
        "mesh-core" => Some(Vec::new()),
        "mesh-net" => Some(vec!["mesh-core", "mesh-tls"]),
        "mesh-http" => Some(vec!["mesh-core", "mesh-net"]),
        "mesh-config" => with(&[]),
        "mesh-client" => with(&["mesh-config"]),
        "mesh-proxy" => with(&["mesh-config", "mesh-client"]),
        "mesh-control" => Some(vec![
            "mesh-core",
            "mesh-tls",
            "mesh-net",
            "mesh-xds",
            "mesh-config",
            "mesh-telemetry",
        ]),
        _ if FREE.contains(&name) => None,
        _ => Some(vec!["mesh-core"]),
    }
}

pub(crate) fn run() -> Result<()> {
    let metadata = Metadata::read()?;
    let mut faults = Vec::new();
    for package in metadata.members() {
        check_direct(package, &mut faults);
    }
    check_below_policies(&metadata, &mut faults);
    check_single(&metadata, &mut faults);
    if faults.is_empty() {
        println!("deps: the layers hold");
        return Ok(());
    }
    bail!("the layers do not hold:\n  {}", faults.join("\n  "))
}

/// What a manifest names. Tests may use the test kit, and end-to-end tests of ours their harness.
fn check_direct(package: &Value, faults: &mut Vec<String>) {
    let name = text(&package["name"]);
    let allowed = allowed(name);
    for dependency in list(&package["dependencies"]) {
        let (on, kind) = (text(&dependency["name"]), text(&dependency["kind"]));
        let for_tests = kind == "dev" && ["mesh-testkit", "e2e"].contains(&on);
        let ours = !dependency["path"].is_null();
        if let Some(allowed) = &allowed
            && ours
            && !for_tests
            && !allowed.contains(&on)
        {
            faults.push(format!("{name} must not depend on {on}"));
        }
        let reserved = RESERVED.iter().find(|(crate_name, _)| *crate_name == on);
        if let Some((_, owners)) = reserved
            && kind != "dev"
            && !owners.contains(&name)
            && !FREE.contains(&name)
        {
            faults.push(format!(
                "{name} must not depend on {on}: that is for {}",
                owners.join(", ")
            ));
        }
    }
}

/// What a user of a policy gets along with it.
fn check_below_policies(metadata: &Metadata, faults: &mut Vec<String>) {
    let names: BTreeMap<&str, &str> = metadata
        .packages()
        .map(|package| (text(&package["id"]), text(&package["name"])))
        .collect();
    let edges: BTreeMap<&str, Vec<&str>> = list(&metadata.0["resolve"]["nodes"])
        .iter()
        .map(|node| (text(&node["id"]), normal_dependencies(node)))
        .collect();
    for (id, name) in names.iter().filter(|(_, name)| POLICIES.contains(name)) {
        let mut seen = BTreeSet::new();
        let mut open = vec![*id];
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(edges.get(next).into_iter().flatten());
            }
        }
        for below in seen.iter().filter_map(|id| names.get(id)) {
            if HEAVY.contains(below) {
                faults.push(format!("{name} brings {below} along"));
            }
        }
    }
}

/// The packages that a node of the graph needs when it is used, tests and models aside.
fn normal_dependencies(node: &Value) -> Vec<&str> {
    let is_normal =
        |kind: &Value| kind["kind"].is_null() && text(&kind["target"]) != "cfg(mesh_loom)";
    list(&node["deps"])
        .iter()
        .filter(|dep| list(&dep["dep_kinds"]).iter().any(is_normal))
        .map(|dep| text(&dep["pkg"]))
        .collect()
}

fn check_single(metadata: &Metadata, faults: &mut Vec<String>) {
    for name in SINGLE {
        let versions: Vec<_> = metadata
            .packages()
            .filter(|package| package["name"] == name)
            .map(|package| text(&package["version"]))
            .collect();
        if versions.len() > 1 {
            faults.push(format!(
                "{name} is there {} times: {}",
                versions.len(),
                versions.join(", ")
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(name: &str, on: &str, kind: Value) -> usize {
        let path = on.starts_with("mesh-").then_some("somewhere");
        let dependency = json!({"name": on, "kind": kind, "path": path});
        let package = json!({"name": name, "dependencies": [dependency]});
        let mut faults = Vec::new();
        check_direct(&package, &mut faults);
        faults.len()
    }

    #[test]
    fn a_policy_imports_nothing_of_ours_but_the_core() {
        assert_eq!(faults("mesh-retry", "mesh-core", Value::Null), 0);
        assert_eq!(faults("mesh-retry", "mesh-breaker", Value::Null), 1);
        assert_eq!(faults("mesh-retry", "mesh-config", Value::Null), 1);
        assert_eq!(faults("mesh-retry", "mesh-testkit", json!("dev")), 0);
        assert_eq!(faults("mesh-retry", "mesh-testkit", Value::Null), 1);
    }

    #[test]
    fn heavy_crates_stay_with_their_owner() {
        assert_eq!(faults("mesh-http", "hyper", Value::Null), 0);
        assert_eq!(faults("mesh-client", "hyper", Value::Null), 1);
        assert_eq!(faults("mesh-route", "prost", Value::Null), 1);
        assert_eq!(faults("benches", "hyper", Value::Null), 0);
    }

    #[test]
    fn layers_point_downwards() {
        assert_eq!(faults("mesh-client", "mesh-config", Value::Null), 0);
        assert_eq!(faults("mesh-config", "mesh-client", Value::Null), 1);
        assert_eq!(faults("mesh-core", "mesh-retry", Value::Null), 1);
        assert_eq!(faults("mesh-net", "mesh-http", Value::Null), 1);
    }
}
