use http::StatusCode;
use mesh_telemetry::{Format, Query, render};

use super::{Ask, Page, index};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    show(ask, Query::parse(ask.query))
}

pub(super) fn prometheus(ask: &Ask<'_>) -> Page {
    show(ask, Query::parse_prometheus(ask.query))
}

fn show(ask: &Ask<'_>, query: Result<Query, mesh_telemetry::InvalidQuery>) -> Page {
    let query = match query {
        Ok(query) => query,
        Err(error) => return Page::error(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let process = ask.process;
    process.flusher.on_admin();
    let stats = process.mesh.registry().snapshot();
    let body = render(&stats, &query, &process.config.stats.export);
    let content_type = match query.format {
        Format::Html => return index::preformatted(&body),
        Format::Json => "application/json",
        Format::Prometheus => "text/plain; version=0.0.4; charset=UTF-8",
        Format::Text => "text/plain; charset=UTF-8",
    };
    Page {
        content_type,
        ..Page::text(body)
    }
}

pub(super) fn reset(ask: &Ask<'_>) -> Page {
    ask.process.mesh.registry().reset();
    Page::text("OK\n")
}
