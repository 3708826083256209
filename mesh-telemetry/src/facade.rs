//! Stats for the `metrics` crate.

use std::collections::{HashMap, HashSet};

use mesh_core::stats::{Distribution, Stat, Value};
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};

use crate::Tags;

/// Publishes stats to a recorder of the [`metrics`] crate, for programs that have one anyway.
///
/// Names are those of [`Tags`], dots turned into underscores, tags turned into labels. Call
/// [`publish`](Self::publish) now and then, for instance before each scrape: a recorder sees counters
/// and gauges as they are then, and of a histogram what was recorded since the last call, in buckets of
/// two significant digits. Texts are left out.
///
/// ```
/// use mesh_core::stats::Registry;
/// use mesh_telemetry::MetricsBridge;
///
/// let registry = Registry::new();
/// let mut bridge = MetricsBridge::default();
/// metrics::with_recorder(|recorder| bridge.publish(&registry.snapshot(), recorder));
/// ```
#[derive(Default)]
pub struct MetricsBridge {
    tags: Tags,
    counters: HashMap<String, Counter>,
    gauges: HashMap<String, Gauge>,
    histograms: HashMap<String, (Histogram, Distribution)>,
}

const METADATA: Metadata<'static> =
    Metadata::new("mesh", Level::INFO, Some("mesh_telemetry::facade"));

/// How many recorded values one `publish` repeats from one bucket of one histogram; the rest of the
/// bucket is not published, so that a long pause cannot make a call endless.
const SAMPLES_MAX: u64 = 10_000;

impl MetricsBridge {
    /// With tags of one's own.
    #[must_use]
    pub fn new(tags: Tags) -> Self {
        Self {
            tags,
            ..Self::default()
        }
    }

    /// Hands all stats to `recorder`. Always use one recorder with one bridge.
    pub fn publish(&mut self, stats: &[Stat], recorder: &dyn Recorder) {
        let Self {
            tags,
            counters,
            gauges,
            histograms,
        } = self;
        for Stat { name, value } in stats {
            match value {
                Value::Counter(n) => found(counters, name, || {
                    recorder.register_counter(&key(tags, name), &METADATA)
                })
                .absolute(*n),
                Value::Gauge(n) => found(gauges, name, || {
                    recorder.register_gauge(&key(tags, name), &METADATA)
                })
                .set(*n as f64),
                Value::Histogram(now) => {
                    let (histogram, before) = found(histograms, name, || {
                        let handle = recorder.register_histogram(&key(tags, name), &METADATA);
                        (handle, Distribution::default())
                    });
                    record_new(histogram, &now.total.since(before));
                    before.clone_from(&now.total);
                }
                Value::Text(_) => {}
            }
        }
        self.forget(stats);
    }

    /// Lets go of handles whose stats are gone, as when a cluster was removed.
    fn forget(&mut self, stats: &[Stat]) {
        let known = self.counters.len() + self.gauges.len() + self.histograms.len();
        if known <= stats.len() {
            return;
        }
        let names: HashSet<&str> = stats.iter().map(|stat| stat.name.as_str()).collect();
        self.counters
            .retain(|name, _| names.contains(name.as_str()));
        self.gauges.retain(|name, _| names.contains(name.as_str()));
        self.histograms
            .retain(|name, _| names.contains(name.as_str()));
    }
}

impl std::fmt::Debug for MetricsBridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsBridge")
            .field("tags", &self.tags)
            .finish_non_exhaustive()
    }
}

fn found<'a, T>(
    map: &'a mut HashMap<String, T>,
    name: &str,
    make: impl FnOnce() -> T,
) -> &'a mut T {
    if !map.contains_key(name) {
        map.insert(name.to_owned(), make());
    }
    map.get_mut(name).expect("it was just put there")
}

fn key(tags: &Tags, name: &str) -> Key {
    let (name, labels) = tags.extract(name);
    let labels: Vec<Label> = labels
        .into_iter()
        .map(|(label, value)| Label::new(label.to_owned(), value))
        .collect();
    Key::from_parts(name.replace('.', "_"), labels)
}

fn record_new(histogram: &Histogram, new: &Distribution) {
    for &(bound, n) in &new.buckets {
        histogram.record_many(bound as f64, n.min(SAMPLES_MAX) as usize);
    }
}
