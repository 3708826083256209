//! Stats for a statsd server: what has changed since the last flush, as lines, in bounded datagrams.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    fmt::Write as _,
};

use mesh_core::stats::{Distribution, Stat, Value};

use crate::export::ExportConfig;

/// Bytes of one datagram when nothing else is said: what fits into one Ethernet frame.
pub const DATAGRAM_BYTES_MAX: usize = 1432;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dialect {
    /// `prefix.cluster.a.upstream_rq_total:3|c`.
    #[default]
    Statsd,
    /// `prefix.cluster.upstream_rq_total:3|c|#envoy.cluster_name:a`: tags cut out of names.
    DogStatsd,
}

/// What a statsd server is sent.
///
/// # Envoy
/// `envoy.stat_sinks.statsd`, `envoy.stat_sinks.dog_statsd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsdConfig {
    /// Before every name, with a dot between. Envoy: `prefix`, `envoy`.
    pub prefix: String,
    /// Bytes of one datagram at most; a line that is longer is left out. Envoy: `max_bytes_per_datagram`,
    /// where unset means one line per datagram; ours holds as many as fit into [`DATAGRAM_BYTES_MAX`].
    pub datagram_bytes_max: usize,
    /// How lines are written.
    pub dialect: Dialect,
}

impl Default for StatsdConfig {
    fn default() -> Self {
        Self {
            prefix: "envoy".to_owned(),
            datagram_bytes_max: DATAGRAM_BYTES_MAX,
            dialect: Dialect::Statsd,
        }
    }
}

/// A config that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidStatsd;

impl fmt::Display for InvalidStatsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a datagram has at least 1 and at most 65507 bytes")
    }
}

impl std::error::Error for InvalidStatsd {}

/// Remembers what a server was told.
///
/// Counters are sent as differences, gauges as they are, and of a histogram what its last interval holds:
/// one timer line per bucket, whose sample rate says how many values it stands for. Stats that never counted
/// anything are left out.
#[derive(Debug)]
pub struct Statsd {
    config: StatsdConfig,
    counters: HashMap<String, u64>,
    /// Gauges that were not zero at the last flush: back at zero, they are sent once more.
    gauges: HashSet<String>,
    too_long: u64,
}

impl Statsd {
    /// Has told nothing yet.
    ///
    /// # Errors
    /// When no datagram of that size can be sent.
    pub fn new(config: StatsdConfig) -> Result<Self, InvalidStatsd> {
        if !(1..=65_507).contains(&config.datagram_bytes_max) {
            return Err(InvalidStatsd);
        }
        Ok(Self {
            config,
            counters: HashMap::new(),
            gauges: HashSet::new(),
            too_long: 0,
        })
    }

    /// How many lines were left out because they were longer than a datagram may be.
    #[must_use]
    pub const fn too_long(&self) -> u64 {
        self.too_long
    }

    /// What to send now: each item is a datagram of whole lines. Call it once per interval, behind
    /// [`Registry::roll`](mesh_core::stats::Registry::roll).
    pub fn flush(&mut self, stats: &[Stat], export: &ExportConfig) -> Vec<String> {
        let mut out = Datagrams {
            max: self.config.datagram_bytes_max,
            ..Datagrams::default()
        };
        let mut counters = HashMap::new();
        let mut gauges = HashSet::new();
        for stat in stats.iter().filter(|stat| export.shows(&stat.name)) {
            match &stat.value {
                Value::Counter(now) => {
                    let before = self.counters.get(&stat.name).copied().unwrap_or(0);
                    // Less than before: it was reset.
                    let new = now.checked_sub(before).unwrap_or(*now);
                    if *now > 0 {
                        counters.insert(stat.name.clone(), *now);
                    }
                    if new > 0 {
                        out.push(self.line(export, &stat.name, format_args!("{new}|c")));
                    }
                }
                Value::Gauge(now) => {
                    if *now > 0 {
                        gauges.insert(stat.name.clone());
                    }
                    if *now > 0 || self.gauges.contains(&stat.name) {
                        out.push(self.line(export, &stat.name, format_args!("{now}|g")));
                    }
                }
                Value::Histogram(histogram) => {
                    self.timers(&mut out, export, &stat.name, &histogram.interval);
                }
                Value::Text(_) => {}
            }
        }
        (self.counters, self.gauges) = (counters, gauges);
        self.too_long += out.too_long;
        out.done()
    }

    fn timers(
        &self,
        out: &mut Datagrams,
        export: &ExportConfig,
        name: &str,
        values: &Distribution,
    ) {
        for &(value, n) in &values.buckets {
            let line = match n {
                1 => self.line(export, name, format_args!("{value}|ms")),
                _ => {
                    let rate = 1.0 / n as f64;
                    self.line(export, name, format_args!("{value}|ms|@{rate}"))
                }
            };
            out.push(line);
        }
    }

    fn line(&self, export: &ExportConfig, name: &str, value: fmt::Arguments<'_>) -> String {
        let Self { config, .. } = self;
        let mut line = config.prefix.clone();
        match config.dialect {
            Dialect::Statsd => {
                let _ = write!(line, ".{}:{value}", clean(name));
            }
            Dialect::DogStatsd => {
                let (name, labels) = export.tags.extract(name);
                let _ = write!(line, ".{}:{value}", clean(&name));
                for (at, (label, text)) in labels.iter().enumerate() {
                    let separator = if at == 0 { "|#" } else { "," };
                    // Envoy's own tags have a dot there; Prometheus has no such character.
                    let label = match label.strip_prefix("envoy_") {
                        Some(rest) => format!("envoy.{rest}"),
                        None => clean(label),
                    };
                    let _ = write!(line, "{separator}{label}:{}", clean(text));
                }
            }
        }
        line.push('\n');
        line
    }
}

/// Without what would end a name, or a line.
fn clean(name: &str) -> String {
    name.replace([':', '|', '\n', '@', '#', ','], "_")
}

#[derive(Default)]
struct Datagrams {
    max: usize,
    full: Vec<String>,
    current: String,
    too_long: u64,
}

impl Datagrams {
    fn push(&mut self, line: String) {
        if line.len() > self.max {
            self.too_long += 1;
            return;
        }
        if self.current.len() + line.len() > self.max {
            self.full.push(std::mem::take(&mut self.current));
        }
        self.current.push_str(&line);
    }

    fn done(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.full.push(self.current);
        }
        self.full
    }
}
