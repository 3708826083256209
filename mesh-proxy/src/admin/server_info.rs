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
        "started_at_unix": started,
        "config_version": &*process.config.version,
        "command_line_options": {
            "config_path": flags.config_path.as_ref().map(|p| p.display().to_string()).unwrap_or_default(),
            "concurrency": flags.workers(),
            "log_level": crate::logging::name(),
            "drain_time": format!("{}s", flags.drain_time_s),
            "drain_min_time": format!("{}s", flags.drain_min_time_s),
            "strict": flags.strict,
        },
        "node": {"id": process.config.node.id, "cluster": process.config.node.cluster},
        "unsupported_fields": process.config.report.entries.iter().map(ToString::to_string).collect::<Vec<_>>(),
    }))
}
