use std::{fmt::Write as _, sync::atomic::Ordering};

use http::StatusCode;
use mesh_client::Cluster;
use mesh_core::{Endpoint, EndpointState, HealthFlag, Priority, Resource};
use mesh_outlier::state::{Report, SuccessRates};
use regex::Regex;
use serde_json::{Map, Value, json};

use super::{Ask, Page, listeners::address_json};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let filter = match ask.parameter("filter").filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match Regex::new(&text) {
            Ok(regex) => Some(regex),
            Err(error) => {
                let reason = format!("Invalid re2 regex: {error}");
                return Page::error(StatusCode::BAD_REQUEST, reason);
            }
        },
    };
    let clusters = ask.process.mesh.clusters();
    let shown = clusters.list().iter().filter(|cluster| {
        let filter = filter.as_ref();
        filter.is_none_or(|filter| filter.is_match(cluster.name()))
    });
    if ask.parameter("format").as_deref() == Some("json") {
        let list: Vec<Value> = shown.map(|cluster| cluster_json(cluster)).collect();
        return Page::json(&json!({"cluster_statuses": list}));
    }
    let mut out = String::new();
    shown.for_each(|cluster| write_cluster(&mut out, cluster));
    Page::text(out)
}

const PRIORITIES: [(&str, Priority); 2] =
    [("default", Priority::Default), ("high", Priority::High)];

const LIMITS: [(&str, Resource); 4] = [
    ("max_connections", Resource::Connections),
    ("max_pending_requests", Resource::Pending),
    ("max_requests", Resource::Requests),
    ("max_retries", Resource::Retries),
];

fn write_cluster(out: &mut String, cluster: &Cluster) {
    let name = cluster.name();
    let report = cluster.detector().map(|detector| detector.report());
    let _ = writeln!(
        out,
        "{name}::observability_name::{}",
        cluster.config().stat_name
    );
    if let Some(report) = &report {
        write_outlier(out, name, report);
    }
    for (label, priority) in PRIORITIES {
        let resources = cluster.resources(priority);
        for (field, resource) in LIMITS {
            let _ = writeln!(
                out,
                "{name}::{label}_priority::{field}::{}",
                resources.limit(resource)
            );
        }
    }
    let _ = writeln!(out, "{name}::added_via_api::false");
    for endpoint in cluster.endpoints().endpoints() {
        for (key, value) in endpoint_rows(endpoint, report.as_ref()) {
            let _ = writeln!(out, "{name}::{}::{key}::{value}", endpoint.address());
        }
    }
}

fn write_outlier(out: &mut String, name: &str, report: &Report) {
    let rates = [
        ("success_rate", &report.success_rates),
        (
            "local_origin_success_rate",
            &report.local_origin_success_rates,
        ),
    ];
    for (label, rate) in rates {
        let (average, threshold) = rate.as_ref().map_or((-1.0, -1.0), averages);
        let _ = writeln!(out, "{name}::outlier::{label}_average::{average}");
        let _ = writeln!(
            out,
            "{name}::outlier::{label}_ejection_threshold::{threshold}"
        );
    }
}

fn averages(rates: &SuccessRates) -> (f64, f64) {
    (rates.average, rates.threshold)
}

fn endpoint_rows(endpoint: &Endpoint, report: Option<&Report>) -> Vec<(&'static str, String)> {
    let stats = &endpoint.state.stats;
    let row = report.and_then(|report| {
        report
            .endpoints
            .iter()
            .find(|row| row.address == *endpoint.address())
    });
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-1".to_owned(), |rate| rate.to_string());
    let count = |cell: &mesh_core::sync::AtomicU64| cell.load(Ordering::Relaxed).to_string();
    vec![
        ("cx_active", count(&stats.cx_active)),
        ("cx_connect_fail", count(&stats.cx_connect_fail)),
        ("cx_total", count(&stats.cx_total)),
        ("rq_active", count(&stats.rq_active)),
        ("rq_error", count(&stats.rq_error)),
        ("rq_pending_active", count(&stats.rq_pending_active)),
        ("rq_success", count(&stats.rq_success)),
        ("rq_timeout", count(&stats.rq_timeout)),
        ("rq_total", count(&stats.rq_total)),
        ("hostname", endpoint.hostname.to_string()),
        ("health_flags", endpoint.state.health_flags()),
        ("weight", endpoint.weight.to_string()),
        ("region", endpoint.locality.region.clone()),
        ("zone", endpoint.locality.zone.clone()),
        ("sub_zone", endpoint.locality.sub_zone.clone()),
        ("canary", "false".to_owned()),
        ("priority", endpoint.priority.to_string()),
        ("success_rate", rate(row.and_then(|row| row.success_rate))),
        (
            "local_origin_success_rate",
            rate(row.and_then(|row| row.local_origin_success_rate)),
        ),
    ]
}

/// As Envoy's JSON of protobuf: what is zero, empty or false is left out.
fn cluster_json(cluster: &Cluster) -> Value {
    let report = cluster.detector().map(|detector| detector.report());
    let endpoints = cluster.endpoints();
    let hosts = endpoints.endpoints().iter();
    let hosts: Vec<Value> = hosts.map(|host| host_json(host, report.as_ref())).collect();
    let mut out = json!({
        "name": &**cluster.name(),
        "observability_name": cluster.config().stat_name,
        "host_statuses": hosts,
        "circuit_breakers": {"thresholds": PRIORITIES.map(|(label, priority)| {
            let resources = cluster.resources(priority);
            let limits = LIMITS.map(|(field, r)| (field.to_owned(), json!(resources.limit(r))));
            let mut thresholds: Map<String, Value> = limits.into_iter().collect();
            if label == "high" {
                thresholds.insert("priority".to_owned(), "HIGH".into());
            }
            thresholds
        })},
    });
    let report = report.as_ref();
    for (label, rates) in [
        (
            "success_rate",
            report.and_then(|r| r.success_rates.as_ref()),
        ),
        (
            "local_origin_success_rate",
            report.and_then(|r| r.local_origin_success_rates.as_ref()),
        ),
    ] {
        if let Some(rates) = rates {
            out[format!("{label}_ejection_threshold")] = json!({"value": rates.threshold});
        }
    }
    out
}

fn host_json(endpoint: &Endpoint, report: Option<&Report>) -> Value {
    let mut stats = Vec::new();
    let mut out = Map::new();
    out.insert("address".to_owned(), address_json(endpoint.address()));
    for (name, value) in endpoint_rows(endpoint, report) {
        if name.starts_with("cx_") || name.starts_with("rq_") {
            let mut stat = Map::new();
            if name.ends_with("_active") {
                stat.insert("type".to_owned(), "GAUGE".into());
            }
            if value != "0" {
                stat.insert("value".to_owned(), value.into());
            }
            stat.insert("name".to_owned(), name.into());
            stats.push(Value::Object(stat));
        } else if name.ends_with("success_rate") && value != "-1" {
            let rate: f64 = value.parse().unwrap_or_default();
            out.insert(name.to_owned(), json!({"value": rate}));
        }
    }
    out.insert("stats".to_owned(), stats.into());
    out.insert("health_status".to_owned(), health_json(&endpoint.state));
    out.insert("weight".to_owned(), endpoint.weight.into());
    if !endpoint.hostname.is_empty() {
        out.insert("hostname".to_owned(), (*endpoint.hostname).into());
    }
    if endpoint.priority > 0 {
        out.insert("priority".to_owned(), endpoint.priority.into());
    }
    let locality = &endpoint.locality;
    let parts = [
        ("region", &locality.region),
        ("zone", &locality.zone),
        ("sub_zone", &locality.sub_zone),
    ];
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    let locality: Map<_, _> = parts
        .map(|(name, text)| (name.to_owned(), json!(text)))
        .collect();
    out.insert("locality".to_owned(), locality.into());
    Value::Object(out)
}

fn health_json(state: &EndpointState) -> Value {
    let assigned = if state.has(HealthFlag::FailedEds) {
        "UNHEALTHY"
    } else if state.has(HealthFlag::DegradedEds) {
        "DEGRADED"
    } else if state.has(HealthFlag::Draining) {
        "DRAINING"
    } else {
        "HEALTHY"
    };
    let flags = [
        ("failed_active_health_check", HealthFlag::FailedActive),
        ("failed_outlier_check", HealthFlag::FailedOutlier),
        ("failed_active_degraded_check", HealthFlag::DegradedActive),
        ("pending_active_hc", HealthFlag::PendingActive),
        ("pending_dynamic_removal", HealthFlag::PendingRemoval),
        ("excluded_via_immediate_hc_fail", HealthFlag::Excluded),
        ("active_hc_timeout", HealthFlag::ActiveTimeout),
    ];
    let mut out = Map::new();
    for (name, _) in flags.iter().filter(|(_, flag)| state.has(*flag)) {
        out.insert((*name).to_owned(), true.into());
    }
    out.insert("eds_health_status".to_owned(), assigned.into());
    Value::Object(out)
}
