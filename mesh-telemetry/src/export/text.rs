use std::fmt::Write as _;

use mesh_core::stats::{HistogramSnapshot, Stat, Value};

use super::{Block, PERCENTILES, Query, of_block};
use crate::escape::json_string;

/// Envoy's `/stats`: `name: value`, texts first, then counters and gauges, then histograms.
///
/// A histogram shows `P50(interval,cumulative)`. Ours have no interval, which prints as `nan`, as
/// Envoy's do when nothing was recorded since its last flush.
#[must_use]
pub fn render_text(stats: &[Stat], query: &Query) -> String {
    let mut out = String::new();
    for block in [Block::Texts, Block::Numbers, Block::Histograms] {
        for stat in of_block(stats, query, block) {
            out.push_str(&stat.name);
            out.push_str(": ");
            value(&mut out, &stat.value);
            out.push('\n');
        }
    }
    out
}

fn value(out: &mut String, value: &Value) {
    match value {
        Value::Counter(n) | Value::Gauge(n) => {
            // Writing into a string does not fail.
            let _ = write!(out, "{n}");
        }
        Value::Text(text) => json_string(out, text),
        Value::Histogram(histogram) => quantiles(out, histogram),
    }
}

fn quantiles(out: &mut String, histogram: &HistogramSnapshot) {
    if histogram.count == 0 {
        out.push_str("No recorded values");
        return;
    }
    for (i, percent) in PERCENTILES.into_iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        let quantile = histogram.quantile(percent / 100.0).unwrap_or_default();
        let _ = write!(out, "{separator}P{percent}(nan,{quantile})");
    }
}
