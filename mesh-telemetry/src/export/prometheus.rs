use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use mesh_core::stats::{Distribution, Stat, Value};

use super::{ExportConfig, HistogramMode, PERCENTILES, Query, tags::Label};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Type {
    Counter,
    Gauge,
    /// A word, shown as a gauge of 0.
    Text,
    Histogram,
}

impl Type {
    const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Text => "gauge",
            Self::Histogram => "histogram",
        }
    }

    const fn of(value: &Value) -> Self {
        match value {
            Value::Counter(_) => Self::Counter,
            Value::Gauge(_) => Self::Gauge,
            Value::Text(_) => Self::Text,
            Value::Histogram(_) => Self::Histogram,
        }
    }
}

/// One metric and its samples: labels, without braces, and the stat.
type Families<'a> = BTreeMap<(Type, String), Vec<(String, &'a Stat)>>;

/// Envoy's `/stats/prometheus`: counters, then gauges, then histograms, each with one `# TYPE` line and
/// its samples together.
///
/// A metric's name is `envoy_` and what the tags leave of the stat's name. Should two stats end up with
/// the same name and labels, the first stays; with the same name but different types, the first type
/// stays: a reader would refuse the whole page otherwise.
#[must_use]
pub fn render_prometheus(stats: &[Stat], query: &Query, config: &ExportConfig) -> String {
    let mut out = String::new();
    let summary = query.histograms == HistogramMode::Summary;
    for ((kind, name), mut samples) in families(stats, query, config) {
        samples.sort_by(|(a, _), (b, _)| a.cmp(b));
        samples.dedup_by(|(later, _), (first, _)| later == first);
        let word = match kind {
            Type::Histogram if summary => "summary",
            _ => kind.name(),
        };
        let _ = writeln!(out, "# TYPE {name} {word}");
        for (labels, stat) in samples {
            match &stat.value {
                Value::Counter(n) | Value::Gauge(n) => {
                    let _ = writeln!(out, "{name}{{{labels}}} {n}");
                }
                Value::Text(_) => {
                    let _ = writeln!(out, "{name}{{{labels}}} 0");
                }
                Value::Histogram(values) if summary => {
                    quantiles(&mut out, &name, &labels, &values.interval);
                }
                Value::Histogram(values) => {
                    let bounds = config.buckets.bounds(&stat.name);
                    histogram(&mut out, &name, &labels, &values.total, bounds);
                }
            }
        }
    }
    out
}

fn families<'a>(stats: &'a [Stat], query: &Query, config: &ExportConfig) -> Families<'a> {
    let mut types: HashMap<String, Type> = HashMap::new();
    let mut families = Families::new();
    let shown = stats
        .iter()
        .filter(|stat| query.selects(stat) && config.shows(&stat.name));
    for stat in shown {
        let kind = Type::of(&stat.value);
        if kind == Type::Text && !query.text_readouts {
            continue;
        }
        let (name, mut labels) = config.tags.extract(&stat.name);
        if let Value::Text(text) = &stat.value {
            labels.push(("text_value", text.clone()));
        }
        let name = metric_name(&name);
        if *types.entry(name.clone()).or_insert(kind) == kind {
            let samples = families.entry((kind, name)).or_default();
            samples.push((label_list(&labels), stat));
        }
    }
    families
}

fn histogram(out: &mut String, name: &str, labels: &str, values: &Distribution, bounds: &[f64]) {
    let comma = if labels.is_empty() { "" } else { "," };
    for &bound in bounds {
        let n = values.at_most(bound);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {n}");
    }
    let count = values.count;
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
    sum_and_count(out, name, labels, values);
}

/// What Envoy calls a summary: the quantiles of the last interval.
fn quantiles(out: &mut String, name: &str, labels: &str, values: &Distribution) {
    let comma = if labels.is_empty() { "" } else { "," };
    for quantile in PERCENTILES.map(|percent| percent / 100.0) {
        let _ = write!(out, "{name}{{{labels}{comma}quantile=\"{quantile}\"}} ");
        let _ = match values.quantile(quantile) {
            Some(value) => writeln!(out, "{value}"),
            None => writeln!(out, "NaN"),
        };
    }
    sum_and_count(out, name, labels, values);
}

fn sum_and_count(out: &mut String, name: &str, labels: &str, values: &Distribution) {
    let (sum, count) = (values.sum, values.count);
    let _ = writeln!(out, "{name}_sum{{{labels}}} {sum}");
    let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
}

fn metric_name(name: &str) -> String {
    sanitize(&format!("envoy_{name}"))
}

/// Every character that a name may not have becomes `_`; a name never begins with a digit.
pub(super) fn sanitize(name: &str) -> String {
    let first = name.chars().next().filter(char::is_ascii_digit);
    let legal = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    first
        .map(|_| '_')
        .into_iter()
        .chain(name.chars().map(legal))
        .collect()
}

fn label_list(labels: &[Label<'_>]) -> String {
    let mut out = String::new();
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        out.push_str(&sanitize(name));
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out
}
