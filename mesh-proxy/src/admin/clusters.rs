use std::{fmt::Write as _, sync::atomic::Ordering};

use mesh_client::Cluster;
use mesh_core::{Endpoint, HealthFlag, Priority, Resource};
use mesh_outlier::state::{Report, SuccessRates};
use serde_json::{Value, json};

use super::{Ask, Page, listeners::address_json};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let clusters = ask.process.mesh.clusters();
    if ask.parameter("format").as_deref() == Some("json") {
        let list: Vec<Value> = clusters
            .list()
            .iter()
            .map(|cluster| cluster_json(cluster))
            .collect();
        return Page::json(&json!({"cluster_statuses": list}));
    }
    let mut out = String::new();
    for cluster in clusters.list() {
        write_cluster(&mut out, cluster);
    }
    Page::text(out)
}

fn write_cluster(out: &mut String, cluster: &Cluster) {
    let name = cluster.name();
    let report = cluster.detector().map(|detector| detector.report());
    let _ = writeln!(
        out,
        "{name}::observability_name::{}",
        cluster.config().stat_name
    );
    write_outlier(out, name, report.as_ref());
    for (label, priority) in [("default", Priority::Default), ("high", Priority::High)] {
        let resources = cluster.resources(priority);
        for (field, resource) in [
            ("max_connections", Resource::Connections),
            ("max_pending_requests", Resource::Pending),
            ("max_requests", Resource::Requests),
            ("max_retries", Resource::Retries),
        ] {
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

fn write_outlier(out: &mut String, name: &str, report: Option<&Report>) {
    let rates = [
        (
            "success_rate",
            report.and_then(|r| r.success_rates.as_ref()),
        ),
        (
            "local_origin_success_rate",
            report.and_then(|r| r.local_origin_success_rates.as_ref()),
        ),
    ];
    for (label, rate) in rates {
        let (average, threshold) = rate.map_or((-1.0, -1.0), averages);
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

fn cluster_json(cluster: &Cluster) -> Value {
    let hosts: Vec<Value> = cluster
        .endpoints()
        .endpoints()
        .iter()
        .map(|endpoint| {
            let stats: Vec<Value> = endpoint_rows(endpoint, None)
                .into_iter()
                .filter(|(key, _)| key.starts_with("cx_") || key.starts_with("rq_"))
                .map(|(name, value)| {
                    let kind = if name.ends_with("_active") {
                        "GAUGE"
                    } else {
                        "COUNTER"
                    };
                    json!({"name": name, "value": value, "type": kind})
                })
                .collect();
            let state = &endpoint.state;
            json!({
                "address": address_json(endpoint.address()),
                "stats": stats,
                "health_status": {
                    "failed_outlier_check": state.has(HealthFlag::FailedOutlier),
                    "failed_active_health_check": state.has(HealthFlag::FailedActive),
                    "failed_active_degraded_check": state.has(HealthFlag::DegradedActive),
                    "pending_dynamic_removal": state.has(HealthFlag::PendingRemoval),
                    "pending_active_hc": state.has(HealthFlag::PendingActive),
                    "excluded_via_immediate_hc_fail": state.has(HealthFlag::Excluded),
                    "active_hc_timeout": state.has(HealthFlag::ActiveTimeout),
                    "eds_health_status": if state.has(HealthFlag::FailedEds) { "UNHEALTHY" }
                        else if state.has(HealthFlag::DegradedEds) { "DEGRADED" }
                        else if state.has(HealthFlag::Draining) { "DRAINING" }
                        else { "HEALTHY" },
                },
                "hostname": &*endpoint.hostname,
                "weight": endpoint.weight,
                "priority": endpoint.priority,
            })
        })
        .collect();
    json!({
        "name": &**cluster.name(),
        "observability_name": cluster.config().stat_name,
        "host_statuses": hosts,
    })
}
