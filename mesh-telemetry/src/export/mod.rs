//! Stats as text: Envoy's `/stats` in its three formats.

mod buckets;
mod histogram;
mod json;
mod prometheus;
mod query;
mod tags;
mod text;

pub use buckets::{BOUNDS_MAX, Buckets, InvalidBounds, NameTest};
pub use json::render_json;
pub use prometheus::render_prometheus;
pub use query::{FILTER_BYTES_MAX, Format, HistogramMode, InvalidQuery, Kinds, Query};
pub use tags::{InvalidTag, TAG_RULES_MAX, TagSpecifier, Tags};
pub use text::render_text;

use mesh_core::stats::{Stat, Value};

/// The quantiles of a histogram that text and JSON show, in percent.
const PERCENTILES: [f64; 10] = [0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 100.0];

/// How a process shows its stats, whoever asks. The default is Envoy's: all of them, its own tags and bounds.
///
/// # Envoy
/// `Bootstrap.stats_config`.
#[derive(Debug, Clone, Default)]
pub struct ExportConfig {
    /// Which parts of names become labels. Envoy: `stats_tags`, `use_all_default_tags`.
    pub tags: Tags,
    /// Which stats there are at all: the others count and are never shown. Envoy, which does not even make
    /// them: `stats_matcher`.
    pub only: Option<NameTest>,
    /// The bounds of histograms' buckets. Envoy: `histogram_bucket_settings`.
    pub buckets: Buckets,
}

impl ExportConfig {
    /// Whether a stat of that name is shown.
    #[must_use]
    pub fn shows(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.holds(name))
    }
}

/// `stats` as `query` asks for them.
///
/// `stats` are sorted by name, as [`mesh_core::stats::Registry::snapshot`] gives them.
#[must_use]
pub fn render(stats: &[Stat], query: &Query, config: &ExportConfig) -> String {
    match query.format {
        Format::Text | Format::Html => render_text(stats, query, config),
        Format::Json => render_json(stats, query, config),
        Format::Prometheus => render_prometheus(stats, query, config),
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
    config: &'a ExportConfig,
    wanted: Block,
) -> impl Iterator<Item = &'a Stat> {
    stats.iter().filter(move |stat| {
        block(stat) == wanted && query.selects(stat) && config.shows(&stat.name)
    })
}
