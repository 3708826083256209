use std::fmt::Write as _;

use mesh_core::stats::{Stat, Value};

use super::{Block, ExportConfig, Query, histogram, of_block};
use crate::escape::json_string as string;

/// Envoy's `/stats?format=json`: `{"stats":[{"name":…,"value":…},…,{"histograms":…}]}`.
///
/// The histograms, if any, are one last element, in the form that [`Query::histograms`] asks for. Quantiles of
/// an interval without values are `null`.
#[must_use]
pub fn render_json(stats: &[Stat], query: &Query, config: &ExportConfig) -> String {
    let mut out = String::from("{\"stats\":[");
    let mut list = List::default();
    for block in [Block::Texts, Block::Numbers] {
        for stat in of_block(stats, query, config, block) {
            list.next(&mut out);
            out.push_str("{\"name\":");
            string(&mut out, &stat.name);
            out.push_str(",\"value\":");
            match &stat.value {
                Value::Counter(n) | Value::Gauge(n) => {
                    let _ = write!(out, "{n}");
                }
                Value::Text(text) => string(&mut out, text),
                Value::Histogram(_) => {}
            }
            out.push('}');
        }
    }
    let histograms = of_block(stats, query, config, Block::Histograms);
    let mut histograms = histograms
        .filter_map(|stat| match &stat.value {
            Value::Histogram(values) => Some((
                stat.name.as_str(),
                values,
                config.buckets.bounds(&stat.name),
            )),
            _ => None,
        })
        .peekable();
    if histograms.peek().is_some() {
        list.next(&mut out);
        histogram::json(&mut out, query.histograms, histograms);
    }
    out.push_str("]}");
    out
}

/// Puts commas between the elements of a list.
#[derive(Default)]
pub(super) struct List {
    begun: bool,
}

impl List {
    pub(super) fn next(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.begun, true) {
            out.push(',');
        }
    }
}
