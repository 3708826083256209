use std::fmt::Write as _;

use mesh_core::stats::{HistogramSnapshot, Stat, Value};

use super::{Block, PERCENTILES, Query, of_block};
use crate::escape::json_string as string;

/// Envoy's `/stats?format=json`: `{"stats":[{"name":…,"value":…},…,{"histograms":…}]}`.
///
/// The histograms, if any, are one last element. Quantiles of an interval are `null`: ours have none.
#[must_use]
pub fn render_json(stats: &[Stat], query: &Query) -> String {
    let mut out = String::from("{\"stats\":[");
    let mut list = List::default();
    for block in [Block::Texts, Block::Numbers] {
        for stat in of_block(stats, query, block) {
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
    let mut histograms = of_block(stats, query, Block::Histograms).peekable();
    if histograms.peek().is_some() {
        list.next(&mut out);
        all_histograms(&mut out, histograms);
    }
    out.push_str("]}");
    out
}

fn all_histograms<'a>(out: &mut String, histograms: impl Iterator<Item = &'a Stat>) {
    out.push_str("{\"histograms\":{\"supported_quantiles\":[");
    let mut list = List::default();
    for percent in PERCENTILES {
        list.next(out);
        let _ = write!(out, "{percent}");
    }
    out.push_str("],\"computed_quantiles\":[");
    let mut list = List::default();
    for stat in histograms {
        if let Value::Histogram(histogram) = &stat.value {
            list.next(out);
            out.push_str("{\"name\":");
            string(out, &stat.name);
            out.push_str(",\"values\":[");
            quantiles(out, histogram);
            out.push_str("]}");
        }
    }
    out.push_str("]}}");
}

fn quantiles(out: &mut String, histogram: &HistogramSnapshot) {
    let mut list = List::default();
    for percent in PERCENTILES {
        list.next(out);
        let _ = match histogram.quantile(percent / 100.0) {
            Some(quantile) => write!(out, "{{\"cumulative\":{quantile},\"interval\":null}}"),
            None => write!(out, "{{\"cumulative\":null,\"interval\":null}}"),
        };
    }
}

/// Puts commas between the elements of a list.
#[derive(Default)]
struct List {
    begun: bool,
}

impl List {
    fn next(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.begun, true) {
            out.push(',');
        }
    }
}
