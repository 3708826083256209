use std::{fmt, str::FromStr};

use mesh_core::stats::{Stat, Value};
use regex::{Regex, RegexBuilder};

/// The longest `filter` that is compiled; a longer one is refused.
pub const FILTER_BYTES_MAX: usize = 1024;

/// How much memory a compiled `filter` may take; a larger one is refused.
const FILTER_COMPILED_BYTES_MAX: usize = 1 << 20;

/// How stats are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `name: value`, one per line.
    #[default]
    Text,
    /// `{"stats":[…]}`.
    Json,
    /// Prometheus' text exposition format.
    Prometheus,
    /// A page for people. What stands in it is rendered as text.
    Html,
}

impl Format {
    /// The `content-type` of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text | Self::Prometheus => "text/plain; charset=UTF-8",
            Self::Html => "text/html; charset=UTF-8",
            Self::Json => "application/json",
        }
    }
}

/// Which kinds of stats are shown. The Prometheus format always shows all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kinds {
    /// Every kind.
    #[default]
    All,
    /// Those that only grow.
    Counters,
    /// Those that go up and down.
    Gauges,
    /// Distributions.
    Histograms,
    /// Words.
    TextReadouts,
}

impl Kinds {
    const fn include(self, value: &Value) -> bool {
        match self {
            Self::All => true,
            Self::Counters => matches!(value, Value::Counter(_)),
            Self::Gauges => matches!(value, Value::Gauge(_)),
            Self::Histograms => matches!(value, Value::Histogram(_)),
            Self::TextReadouts => matches!(value, Value::Text(_)),
        }
    }
}

/// How histograms are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HistogramMode {
    /// Quantiles. In the Prometheus format, those of the last interval.
    #[default]
    Summary,
    /// How many values are at most each bound.
    Cumulative,
    /// How many values lie between each bound and the one before.
    Disjoint,
    /// Every bucket as it is kept, and the quantiles.
    Detailed,
}

/// What a reader of `/stats` asks for. The default is everything, as text.
///
/// ```
/// use mesh_telemetry::{Format, Query};
/// let query = Query::parse("usedonly&format=json&filter=^cluster%5C.")?;
/// assert_eq!(query.format, Format::Json);
/// assert!(Query::parse("format=xml").is_err());
/// # Ok::<_, mesh_telemetry::InvalidQuery>(())
/// ```
///
/// # Envoy
/// The query of `/stats`: `format`, `type`, `filter`, `invert_filter`, `usedonly`, `text_readouts`,
/// `histogram_buckets`.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// How the stats are written.
    pub format: Format,
    /// Which kinds are shown.
    pub kinds: Kinds,
    /// Only what has counted something: values other than zero, histograms with values.
    pub used_only: bool,
    /// Only names in which this is found.
    pub filter: Option<Regex>,
    /// Only names in which `filter` is not found.
    pub invert_filter: bool,
    /// How histograms are shown: [`HistogramMode::Summary`] by default, and [`HistogramMode::Cumulative`] in the
    /// Prometheus format.
    pub histograms: HistogramMode,
    /// In the Prometheus format: words too, as gauges of 0 with the word in a label.
    pub text_readouts: bool,
}

impl Query {
    /// Reads the part of a URL behind `?`. Parameters that are not known are ignored, as Envoy does.
    ///
    /// # Errors
    /// A value that is not known, or a `filter` that is not a regular expression; the text is fit to be
    /// the body of a 400.
    pub fn parse(query: &str) -> Result<Self, InvalidQuery> {
        Self::parse_as(Format::Text, query)
    }

    /// The same for the path `/stats/prometheus`.
    ///
    /// # Errors
    /// As [`Query::parse`].
    pub fn parse_prometheus(query: &str) -> Result<Self, InvalidQuery> {
        Self::parse_as(Format::Prometheus, query)
    }

    fn parse_as(format: Format, query: &str) -> Result<Self, InvalidQuery> {
        let mut this = Self {
            format,
            ..Self::default()
        };
        let mut buckets = String::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decode(value);
            match key {
                "format" if format == Format::Text => this.format = value.parse()?,
                "type" => this.kinds = value.parse()?,
                "usedonly" => this.used_only = true,
                "text_readouts" => this.text_readouts = true,
                "invert_filter" => this.invert_filter = true,
                "filter" if !value.is_empty() => this.filter = Some(compile(&value)?),
                "histogram_buckets" => buckets = value,
                _ => {}
            }
        }
        this.histograms = histogram_mode(this.format, &buckets)?;
        Ok(this)
    }

    pub(super) fn selects(&self, stat: &Stat) -> bool {
        let kind = self.format == Format::Prometheus || self.kinds.include(&stat.value);
        let used = !self.used_only || is_used(&stat.value);
        kind && used
            && self
                .filter
                .as_ref()
                .is_none_or(|filter| filter.is_match(&stat.name) != self.invert_filter)
    }
}

fn is_used(value: &Value) -> bool {
    match value {
        Value::Counter(n) | Value::Gauge(n) => *n > 0,
        Value::Histogram(histogram) => histogram.total.count > 0,
        Value::Text(text) => !text.is_empty(),
    }
}

impl FromStr for Format {
    type Err = InvalidQuery;

    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            "prometheus" => Ok(Self::Prometheus),
            "html" => Ok(Self::Html),
            _ => Err(InvalidQuery(
                "usage: /stats?format=(html|json|prometheus|text)".to_owned(),
            )),
        }
    }
}

impl FromStr for Kinds {
    type Err = InvalidQuery;

    fn from_str(text: &str) -> Result<Self, InvalidQuery> {
        match text {
            "All" => Ok(Self::All),
            "Counters" => Ok(Self::Counters),
            "Gauges" => Ok(Self::Gauges),
            "Histograms" => Ok(Self::Histograms),
            "TextReadouts" => Ok(Self::TextReadouts),
            _ => Err(InvalidQuery("invalid &type= param".to_owned())),
        }
    }
}

fn histogram_mode(format: Format, text: &str) -> Result<HistogramMode, InvalidQuery> {
    let prometheus = format == Format::Prometheus;
    match text {
        "" if prometheus => Ok(HistogramMode::Cumulative),
        "" | "summary" => Ok(HistogramMode::Summary),
        "cumulative" => Ok(HistogramMode::Cumulative),
        "disjoint" | "detailed" if prometheus => Err(InvalidQuery(
            "unsupported prometheus histogram bucket mode".to_owned(),
        )),
        "disjoint" => Ok(HistogramMode::Disjoint),
        "detailed" => Ok(HistogramMode::Detailed),
        _ => Err(InvalidQuery(
            "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)".to_owned(),
        )),
    }
}

fn compile(filter: &str) -> Result<Regex, InvalidQuery> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(InvalidQuery(format!(
            "filter is longer than {FILTER_BYTES_MAX} bytes"
        )));
    }
    RegexBuilder::new(filter)
        .size_limit(FILTER_COMPILED_BYTES_MAX)
        .build()
        .map_err(|error| InvalidQuery(format!("Invalid re2 regex: {error}")))
}

/// Decodes `%41`; `+` stays, since Envoy leaves it. What is not a valid escape stays as it is.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = (first == b'%').then(|| hex(tail)).flatten();
        out.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |i: usize| char::from(*digits.get(i)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// A query that makes no sense; its text is fit to be the body of a 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidQuery(String);

impl fmt::Display for InvalidQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidQuery {}
