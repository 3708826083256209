//! Stats as text: Envoy's `/stats` in its three formats.

mod json;
mod prometheus;
mod query;
mod tags;
mod text;

pub use json::render_json;
pub use prometheus::render_prometheus;
pub use query::{FILTER_BYTES_MAX, Format, InvalidQuery, Kinds, Query};
pub use tags::{InvalidTag, TAG_RULES_MAX, TagSpecifier, Tags};
pub use text::render_text;

use mesh_core::stats::{Stat, Value};

/// The quantiles of a histogram that text and JSON show, in percent.
const PERCENTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// `stats` as `query` asks for them. `tags` matter to the Prometheus format only.
///
/// `stats` are sorted by name, as [`mesh_core::stats::Registry::snapshot`] gives them.
#[must_use]
pub fn render(stats: &[Stat], query: &Query, tags: &Tags) -> String {
    match query.format {
        Format::Text => render_text(stats, query),
        Format::Json => render_json(stats, query),
        Format::Prometheus => render_prometheus(stats, query, tags),
    }
}

/// The three blocks in which Envoy lists stats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    Texts,
    Numbers,
    Histograms,
}

fn block(stat: &Stat) -> Block {
    match stat.value {
        Value::Text(_) => Block::Texts,
        Value::Counter(_) | Value::Gauge(_) => Block::Numbers,
        Value::Histogram(_) => Block::Histograms,
    }
}

fn of_block<'a>(
    stats: &'a [Stat],
    query: &'a Query,
    wanted: Block,
) -> impl Iterator<Item = &'a Stat> {
    stats
        .iter()
        .filter(move |stat| block(stat) == wanted && query.selects(stat))
}
