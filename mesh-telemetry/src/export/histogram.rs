//! Histograms as `/stats` shows them in text and JSON: in one of four ways.

use std::fmt::Write as _;

use mesh_core::stats::{Distribution, HistogramSnapshot, bucket_width};

use super::{HistogramMode, PERCENTILES, json::List};
use crate::escape::json_string;

/// Behind the name and `:` of a text line.
pub(super) fn text(
    out: &mut String,
    histogram: &HistogramSnapshot,
    mode: HistogramMode,
    bounds: &[f64],
) {
    if histogram.total.count == 0 {
        out.push_str(" No recorded values");
        return;
    }
    match mode {
        HistogramMode::Summary => {
            out.push(' ');
            text_quantiles(out, histogram);
        }
        HistogramMode::Cumulative | HistogramMode::Disjoint => {
            for (bound, interval, total) in counts(histogram, mode, bounds) {
                let _ = write!(out, " B{}({interval},{total})", short(bound));
            }
        }
        HistogramMode::Detailed => {
            out.push_str("\n  totals=");
            text_details(out, &histogram.total);
            out.push_str("\n  intervals=");
            text_details(out, &histogram.interval);
            out.push_str("\n  summary=");
            text_quantiles(out, histogram);
        }
    }
}

fn text_quantiles(out: &mut String, histogram: &HistogramSnapshot) {
    for (i, percent) in PERCENTILES.into_iter().enumerate() {
        let separator = if i == 0 { "" } else { " " };
        let _ = write!(out, "{separator}P{percent}(");
        for (values, end) in [(&histogram.interval, ','), (&histogram.total, ')')] {
            let _ = match values.quantile(percent / 100.0) {
                Some(quantile) => write!(out, "{quantile}{end}"),
                None => write!(out, "nan{end}"),
            };
        }
    }
}

fn text_details(out: &mut String, values: &Distribution) {
    for (i, &(bound, n)) in values.buckets.iter().enumerate() {
        let separator = if i == 0 { "" } else { ", " };
        let _ = write!(out, "{separator}{bound},{}:{n}", bucket_width(bound));
    }
}

/// Bound, count in the interval, count in total, for each bound.
fn counts(
    histogram: &HistogramSnapshot,
    mode: HistogramMode,
    bounds: &[f64],
) -> impl Iterator<Item = (f64, u64, u64)> {
    let disjoint = mode == HistogramMode::Disjoint;
    let mut below = (0, 0);
    bounds.iter().map(move |&bound| {
        let now = (
            histogram.interval.at_most(bound),
            histogram.total.at_most(bound),
        );
        let before = if disjoint {
            std::mem::replace(&mut below, now)
        } else {
            below
        };
        (bound, now.0 - before.0, now.1 - before.1)
    })
}

/// A number in six significant digits, as `%g`: bounds from a million up have an exponent.
fn short(bound: f64) -> String {
    if bound < 1e6 {
        return bound.to_string();
    }
    let exponent = bound.log10().floor();
    let mantissa = (bound / 10f64.powf(exponent) * 1e5).round() / 1e5;
    format!("{mantissa}e+{exponent:02}")
}

/// The last element of the list in JSON: all histograms, if there are any.
pub(super) fn json<'a>(
    out: &mut String,
    mode: HistogramMode,
    histograms: impl Iterator<Item = (&'a str, &'a HistogramSnapshot, &'a [f64])>,
) {
    let (head, tail) = match mode {
        HistogramMode::Summary => ("{\"histograms\":{\"supported_quantiles\":", "]}}"),
        HistogramMode::Detailed => ("{\"histograms\":{\"supported_percentiles\":", "]}}"),
        HistogramMode::Cumulative | HistogramMode::Disjoint => ("{\"histograms\":[", "]}"),
    };
    out.push_str(head);
    match mode {
        HistogramMode::Summary => {
            percentiles(out);
            out.push_str(",\"computed_quantiles\":[");
        }
        HistogramMode::Detailed => {
            percentiles(out);
            out.push_str(",\"details\":[");
        }
        HistogramMode::Cumulative | HistogramMode::Disjoint => {}
    }
    let mut list = List::default();
    for (name, histogram, bounds) in histograms {
        list.next(out);
        out.push_str("{\"name\":");
        json_string(out, name);
        json_values(out, histogram, mode, bounds);
        out.push('}');
    }
    out.push_str(tail);
}

fn json_values(
    out: &mut String,
    histogram: &HistogramSnapshot,
    mode: HistogramMode,
    bounds: &[f64],
) {
    match mode {
        HistogramMode::Summary => {
            out.push_str(",\"values\":");
            json_quantiles(out, histogram);
        }
        HistogramMode::Cumulative | HistogramMode::Disjoint => {
            out.push_str(",\"buckets\":[");
            let mut list = List::default();
            for (bound, interval, total) in counts(histogram, mode, bounds) {
                list.next(out);
                let _ = write!(
                    out,
                    "{{\"upper_bound\":{bound},\"interval\":{interval},\"cumulative\":{total}}}"
                );
            }
            out.push(']');
        }
        HistogramMode::Detailed => {
            for (key, values) in [
                (",\"totals\":[", &histogram.total),
                (",\"intervals\":[", &histogram.interval),
            ] {
                out.push_str(key);
                let mut list = List::default();
                for &(bound, n) in &values.buckets {
                    list.next(out);
                    let width = bucket_width(bound);
                    let _ = write!(
                        out,
                        "{{\"lower_bound\":{bound},\"width\":{width},\"count\":{n}}}"
                    );
                }
                out.push(']');
            }
            out.push_str(",\"percentiles\":");
            json_quantiles(out, histogram);
        }
    }
}

fn percentiles(out: &mut String) {
    out.push('[');
    let mut list = List::default();
    for percent in PERCENTILES {
        list.next(out);
        let _ = write!(out, "{percent}");
    }
    out.push(']');
}

fn json_quantiles(out: &mut String, histogram: &HistogramSnapshot) {
    out.push('[');
    let mut list = List::default();
    for percent in PERCENTILES {
        list.next(out);
        for (key, values, end) in [
            ("{\"cumulative\":", &histogram.total, ','),
            ("\"interval\":", &histogram.interval, '}'),
        ] {
            let _ = match values.quantile(percent / 100.0) {
                Some(quantile) => write!(out, "{key}{quantile}{end}"),
                None => write!(out, "{key}null{end}"),
            };
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn bounds_are_printed_as_envoy_prints_them() {
        let shown = [0.5, 10.0, 600_000.0, 1_800_000.0, 3_600_000.0, 1e12].map(short);
        assert_eq!(
            shown,
            ["0.5", "10", "600000", "1.8e+06", "3.6e+06", "1e+12"]
        );
    }
}
