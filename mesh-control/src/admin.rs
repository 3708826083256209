//! Pages for people and probes.

use std::{fmt::Write as _, net::SocketAddr};

use axum::{
    Json, Router,
    extract::{Query, Request, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use mesh_telemetry::{ExportConfig, Format, render};
use mesh_xds::server::{ClientReport, ConfigStatus};
use serde_json::{Value, json};

use crate::{control::Control, load::EndpointView};

const INDEX: &str = "\
mesh-control

GET  /ready             LIVE once something is published
GET  /proxies           each proxy: synced, stale, waiting, or what it rejects and why (?format=json)
GET  /services          services and endpoints as published, and what registries say (?format=json)
GET  /load              what proxies report of the load on each service
GET  /endpoints         what proxies think of each endpoint (?format=json)
GET  /stats             counters; /stats/prometheus for scrapers
POST /resync            sends everything again to proxies that are not synced (?node=ID)
";

/// The admin pages of a control plane. Serve them on the loopback: whoever reaches them can look in.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/ready", get(ready))
        .route("/proxies", get(proxies))
        .route("/services", get(services))
        .route("/load", get(load))
        .route("/endpoints", get(endpoints))
        .route("/stats", get(stats))
        .route("/stats/prometheus", get(prometheus))
        .route("/resync", post(resync))
        .layer(middleware::from_fn(own_host))
        .with_state(control)
}

/// A web page must not reach this by naming its own domain.
async fn own_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    // An address cannot be rebound by somebody else's name server; a name can.
    let is_own = bare.is_empty()
        || bare.eq_ignore_ascii_case("localhost")
        || bare.parse::<std::net::IpAddr>().is_ok();
    let is_foreign = request.headers().contains_key(header::ORIGIN);
    if !is_own || (is_foreign && request.method() == Method::POST) {
        let reason = "only requests to this machine itself are answered\n";
        return (StatusCode::FORBIDDEN, reason).into_response();
    }
    next.run(request).await
}

async fn ready(State(control): State<Control>) -> (StatusCode, &'static str) {
    if control.is_ready() {
        (StatusCode::OK, "LIVE\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "INITIALIZING\n")
    }
}

type Parameters = Query<Vec<(String, String)>>;

fn wants_json(Query(parameters): &Parameters) -> bool {
    parameters.contains(&("format".to_owned(), "json".to_owned()))
}

async fn proxies(State(control): State<Control>, parameters: Parameters) -> Response {
    let clients = control.cache().clients();
    if wants_json(&parameters) {
        let clients: Vec<Value> = clients.iter().map(proxy_json).collect();
        return Json(json!({ "proxies": clients })).into_response();
    }
    clients
        .iter()
        .map(proxy_text)
        .collect::<String>()
        .into_response()
}

/// One word for where a client stands.
fn state(client: &ClientReport) -> &'static str {
    let has = |status| client.rows.iter().any(|row| row.status == status);
    if client.rows.is_empty() {
        // Nobody knows its group, or it has not asked yet.
        "waiting"
    } else if has(ConfigStatus::Error) {
        "nack"
    } else if client.is_synced() {
        "synced"
    } else {
        "stale"
    }
}

fn word(status: ConfigStatus) -> &'static str {
    match status {
        ConfigStatus::Synced => "synced",
        ConfigStatus::NotSent => "not_sent",
        ConfigStatus::Stale => "stale",
        ConfigStatus::Error => "nack",
    }
}

fn proxy_text(client: &ClientReport) -> String {
    let mut text = String::new();
    let synced = client
        .rows
        .iter()
        .filter(|row| row.status == ConfigStatus::Synced);
    let _ = writeln!(
        text,
        "{} {} {}: {} of {} resources acknowledged",
        client.node.id,
        client.group,
        state(client),
        synced.count(),
        client.rows.len(),
    );
    for row in client
        .rows
        .iter()
        .filter(|row| row.status != ConfigStatus::Synced)
    {
        let _ = write!(text, "  {} {} {}", row.ty, row.name, word(row.status));
        if let Some((version, reason, _)) = &row.error {
            let _ = write!(text, " (rejected {version}: {reason})");
        }
        text.push('\n');
    }
    text
}

fn proxy_json(client: &ClientReport) -> Value {
    let row = |row: &mesh_xds::server::Row| {
        let error = row.error.as_ref();
        json!({
            "type": row.ty.to_string(),
            "name": &*row.name,
            "version": &*row.version,
            "status": word(row.status),
            "error": error.map(|(version, reason, _)| json!({
                "version": &**version,
                "reason": reason,
            })),
        })
    };
    json!({
        "node": client.node.id,
        "group": client.group,
        "state": state(client),
        "delta": client.variant == mesh_xds::Variant::Delta,
        "resources": client.rows.iter().map(row).collect::<Vec<_>>(),
    })
}

async fn services(State(control): State<Control>, parameters: Parameters) -> Response {
    let status = control.status().borrow().clone();
    let none = Vec::new();
    let services = status.meshes.iter().flat_map(|mesh| mesh.services.values());
    let rows = services.map(|service| {
        let discovered = status.discovered.get(&service.name).unwrap_or(&none);
        let endpoints = service.endpoints.iter().chain(discovered);
        let endpoints = endpoints.map(|e| (e.address.to_string(), e.health.name()));
        (service.name.clone(), endpoints.collect::<Vec<_>>())
    });
    let rows: Vec<(String, Vec<(String, &str)>)> = rows.collect();
    if wants_json(&parameters) {
        let registries = status.registries.iter().map(|registry| {
            json!({
                "name": registry.name,
                "published": registry.published,
                "fault": registry.fault,
            })
        });
        let services = rows.iter().map(|(name, endpoints)| {
            let endpoints = endpoints.iter();
            let endpoints =
                endpoints.map(|(address, health)| json!({ "address": address, "health": health }));
            json!({ "name": name, "endpoints": endpoints.collect::<Vec<_>>() })
        });
        return Json(json!({
            "version": status.published.version,
            "registries": registries.collect::<Vec<_>>(),
            "services": services.collect::<Vec<_>>(),
        }))
        .into_response();
    }
    let mut text = format!("version {}\n", status.published.version);
    for registry in &status.registries {
        let fault = registry.fault.as_deref();
        let _ = writeln!(
            text,
            "registry {}: {}",
            registry.name,
            fault.unwrap_or("good")
        );
    }
    for (name, endpoints) in rows {
        let _ = writeln!(text, "service {name}");
        for (address, health) in endpoints {
            let _ = writeln!(text, "  {address} {health}");
        }
    }
    text.into_response()
}

async fn endpoints(State(control): State<Control>, parameters: Parameters) -> Response {
    let views = control.inner().loads.endpoints();
    if wants_json(&parameters) {
        let row = |((cluster, address), view): (&(String, SocketAddr), &EndpointView)| {
            json!({
                "cluster": cluster,
                "address": address.to_string(),
                "proxies": view.proxies,
                "unhealthy": view.unhealthy,
                "issued": view.issued,
                "errors": view.errors,
            })
        };
        let rows: Vec<Value> = views.iter().map(row).collect();
        return Json(json!({ "endpoints": rows })).into_response();
    }
    let mut text = String::new();
    for ((cluster, address), view) in &views {
        let _ = write!(
            text,
            "{cluster} {address}: {} proxies, {} requests, {} errors",
            view.proxies, view.issued, view.errors
        );
        for (reason, count) in &view.unhealthy {
            let _ = write!(text, ", {count} say {reason}");
        }
        text.push('\n');
    }
    text.into_response()
}

async fn load(State(control): State<Control>) -> Json<Value> {
    let loads = control.inner().loads.by_cluster().into_iter();
    let row = |(cluster, load): (String, crate::load::Load)| {
        json!({
            "cluster": cluster,
            "proxies": load.proxies,
            "issued_per_second": load.issued_per_second,
            "error_rate": load.error_rate,
            "in_progress": load.in_progress,
            "dropped_per_second": load.dropped_per_second,
        })
    };
    Json(json!({ "clusters": loads.map(row).collect::<Vec<_>>() }))
}

fn rendered(
    control: &Control,
    query: Result<mesh_telemetry::Query, mesh_telemetry::InvalidQuery>,
) -> Response {
    let query = match query {
        Ok(query) => query,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    let mut stats = control.inner().stats.snapshot();
    stats.extend(control.computed());
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    let body = render(&stats, &query, &ExportConfig::default());
    let content_type = match query.format {
        Format::Json => "application/json",
        Format::Prometheus => "text/plain; version=0.0.4; charset=UTF-8",
        Format::Text | Format::Html => "text/plain; charset=UTF-8",
    };
    ([(header::CONTENT_TYPE, content_type)], body).into_response()
}

async fn stats(State(control): State<Control>, request: Request) -> Response {
    let query = mesh_telemetry::Query::parse(request.uri().query().unwrap_or_default());
    rendered(&control, query)
}

async fn prometheus(State(control): State<Control>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    rendered(&control, mesh_telemetry::Query::parse_prometheus(query))
}

async fn resync(State(control): State<Control>, Query(parameters): Parameters) -> String {
    let node = parameters.iter().find(|(key, _)| key == "node");
    let again = control.resync(node.map(|(_, id)| id.as_str()));
    format!("{again} streams are sent everything again\n")
}
