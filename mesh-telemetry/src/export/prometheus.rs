use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use mesh_core::stats::{HistogramSnapshot, Stat, Value};

use super::{Query, Tags, tags::Label};

/// Envoy's default bounds of histogram buckets, in the stat's own unit (mostly milliseconds).
const BOUNDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

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

/// One metric and its samples: labels, without braces, and value.
type Families<'a> = BTreeMap<(Type, String), Vec<(String, &'a Value)>>;

/// Envoy's `/stats/prometheus`: counters, then gauges, then histograms, each with one `# TYPE` line and
/// its samples together.
///
/// A metric's name is `envoy_` and what [`Tags`] leave of the stat's name. Should two stats end up with
/// the same name and labels, the first stays; with the same name but different types, the first type
/// stays: a reader would refuse the whole page otherwise.
#[must_use]
pub fn render_prometheus(stats: &[Stat], query: &Query, tags: &Tags) -> String {
    let mut out = String::new();
    for ((kind, name), mut samples) in families(stats, query, tags) {
        samples.sort_by(|(a, _), (b, _)| a.cmp(b));
        samples.dedup_by(|(later, _), (first, _)| later == first);
        let _ = writeln!(out, "# TYPE {name} {}", kind.name());
        for (labels, value) in samples {
            match value {
                Value::Counter(n) | Value::Gauge(n) => {
                    let _ = writeln!(out, "{name}{{{labels}}} {n}");
                }
                Value::Text(_) => {
                    let _ = writeln!(out, "{name}{{{labels}}} 0");
                }
                Value::Histogram(values) => histogram(&mut out, &name, &labels, values),
            }
        }
    }
    out
}

fn families<'a>(stats: &'a [Stat], query: &Query, tags: &Tags) -> Families<'a> {
    let mut types: HashMap<String, Type> = HashMap::new();
    let mut families = Families::new();
    for stat in stats.iter().filter(|stat| query.selects(stat)) {
        let kind = Type::of(&stat.value);
        if kind == Type::Text && !query.text_readouts {
            continue;
        }
        let (name, mut labels) = tags.extract(&stat.name);
        if let Value::Text(text) = &stat.value {
            labels.push(("text_value", text.clone()));
        }
        let name = metric_name(&name);
        if *types.entry(name.clone()).or_insert(kind) == kind {
            let samples = families.entry((kind, name)).or_default();
            samples.push((label_list(&labels), &stat.value));
        }
    }
    families
}

fn histogram(out: &mut String, name: &str, labels: &str, values: &HistogramSnapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    for bound in BOUNDS {
        let n = values.at_most(bound);
        let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {n}");
    }
    let (sum, count) = (values.sum, values.count);
    let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
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
