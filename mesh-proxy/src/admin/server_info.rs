use std::time::UNIX_EPOCH;

use http::StatusCode;
use mesh_core::clock;
use serde_json::json;

use super::{Ask, Page, state};

pub(super) fn ready(ask: &Ask<'_>) -> Page {
    let state = state(ask.process);
    let status = if state == "LIVE" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Page {
        status,
        ..Page::text(format!("{state}\n"))
    }
}

/// One process never takes over from another.
pub(super) fn hot_restart(_: &Ask<'_>) -> Page {
    Page::text("disabled")
}

pub(super) fn contention(_: &Ask<'_>) -> Page {
    Page::text("Mutex contention tracing is not enabled: there is none in this process.")
}

pub(super) fn profiler(_: &Ask<'_>) -> Page {
    Page::error(
        StatusCode::NOT_IMPLEMENTED,
        "There is no profiler in this process: use perf, samply or heaptrack on it.\n",
    )
}

/// Whoever is asked for and has not answered yet: clusters whose names are being resolved.
pub(super) fn init_dump(ask: &Ask<'_>) -> Page {
    let clusters = ask.process.mesh.clusters();
    let waiting = clusters
        .list()
        .iter()
        .filter(|cluster| !cluster.is_resolved());
    let names: Vec<&str> = waiting.map(|cluster| &**cluster.name()).collect();
    if names.is_empty() {
        return Page::json(&json!({}));
    }
    Page::json(&json!({
        "unready_targets_dumps": [{"name": "init manager Server", "target_names": names}]
    }))
}

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let process = ask.process;
    let flags = &process.flags;
    let uptime = format!("{}s", (clock::now() - process.started).as_secs());
    let started = process
        .started_wall
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    Page::json(&json!({
        "version": format!("mesh/{}", env!("CARGO_PKG_VERSION")),
        "state": state(process),
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "started_at_unix": started,
        "config_version": &*process.config.version,
        "command_line_options": {
            "mode": "Serve",
            "config_path": flags.config_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            "concurrency": flags.workers(),
            "log_level": crate::logging::name(),
            "drain_time": format!("{}s", flags.drain_time_s),
            "drain_min_time": format!("{}s", flags.drain_min_time_s),
            "strict": flags.strict,
        },
        "node": node(&process.config.node),
        "unsupported_fields": process.config.report.entries.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }))
}

fn node(node: &mesh_config::model::Node) -> serde_json::Value {
    json!({
        "id": node.id,
        "cluster": node.cluster,
        "locality": {
            "region": node.locality.region,
            "zone": node.locality.zone,
            "sub_zone": node.locality.sub_zone,
        },
        "user_agent_name": "mesh",
    })
}
