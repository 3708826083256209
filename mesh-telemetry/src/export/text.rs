use std::fmt::Write as _;

use mesh_core::stats::{Stat, Value};

use super::{Block, ExportConfig, Query, histogram, of_block};
use crate::escape::json_string;

/// Envoy's `/stats`: `name: value`, texts first, then counters and gauges, then histograms.
///
/// A histogram shows `P50(interval,cumulative)`, or what [`Query::histograms`] asks for; `nan` where nothing
/// was recorded in the last interval.
#[must_use]
pub fn render_text(stats: &[Stat], query: &Query, config: &ExportConfig) -> String {
    let mut out = String::new();
    for block in [Block::Texts, Block::Numbers, Block::Histograms] {
        for stat in of_block(stats, query, config, block) {
            out.push_str(&stat.name);
            out.push(':');
            match &stat.value {
                Value::Counter(n) | Value::Gauge(n) => {
                    // Writing into a string does not fail.
                    let _ = write!(out, " {n}");
                }
                Value::Text(text) => {
                    out.push(' ');
                    json_string(&mut out, text);
                }
                Value::Histogram(values) => {
                    let bounds = config.buckets.bounds(&stat.name);
                    histogram::text(&mut out, values, query.histograms, bounds);
                }
            }
            out.push('\n');
        }
    }
    out
}
