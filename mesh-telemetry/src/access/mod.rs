//! What is logged about a request, and where.

mod filter;
mod json;

pub use filter::{Comparison, ComparisonOp, Filter, Predicate};
pub use json::{InvalidJsonFormat, JSON_DEPTH_MAX, JsonFormat, JsonTemplate};

use mesh_core::{
    Facts,
    format::{Captures, DEFAULT_ACCESS_LOG, Format, FormatContext, FormatError},
};

use crate::LogSink;

/// What a log line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// A format string; line feeds are its own business.
    Text(Format),
    /// A JSON object per line.
    Json(JsonFormat),
}

impl LogFormat {
    /// A format string, as Envoy's `text_format_source.inline_string`.
    ///
    /// # Errors
    /// When it does not compile.
    pub fn text(format: &str) -> Result<Self, FormatError> {
        Format::parse(format).map(Self::Text)
    }

    /// Envoy's format when none is configured.
    ///
    /// # Panics
    /// Never: a test compiles the format.
    #[must_use]
    pub fn envoy_default() -> Self {
        Self::text(DEFAULT_ACCESS_LOG).expect("the default format compiles")
    }

    /// Appends one line.
    pub fn write_with(&self, context: &FormatContext<'_>, facts: &Facts, out: &mut String) {
        match self {
            Self::Text(format) => format.write_with(context, facts, out),
            Self::Json(format) => format.write_with(context, facts, out),
        }
    }

    /// Lets `captures` find the request headers that the format reads.
    pub fn bind(&mut self, captures: &mut Captures) {
        match self {
            Self::Text(format) => captures.bind(format),
            Self::Json(format) => format.for_each_mut(&mut |format| captures.bind(format)),
        }
    }

    /// The operators that are never set, for a report.
    #[must_use]
    pub fn always_unset(&self) -> Vec<String> {
        let mut unset = Vec::new();
        let mut collect =
            |format: &Format| unset.extend(format.always_unset().map(ToString::to_string));
        match self {
            Self::Text(format) => collect(format),
            Self::Json(format) => format.for_each(&mut collect),
        }
        unset
    }
}

impl Default for LogFormat {
    fn default() -> Self {
        Self::envoy_default()
    }
}

/// One access log: which requests, in which words, to where.
///
/// # Envoy
/// `AccessLog` with a `FileAccessLog`, `StdoutAccessLog` or `StderrAccessLog`.
#[derive(Debug, Clone)]
pub struct AccessLogEntry {
    /// Where the lines go.
    pub sink: LogSink,
    /// What they look like; default Envoy's.
    pub format: LogFormat,
    /// Which requests are logged; all when absent. Envoy: `AccessLog.filter`.
    pub filter: Option<Filter>,
}

impl AccessLogEntry {
    /// All requests, in Envoy's default format.
    #[must_use]
    pub fn new(sink: LogSink) -> Self {
        Self {
            sink,
            format: LogFormat::default(),
            filter: None,
        }
    }

    /// In another format.
    #[must_use]
    pub fn format(mut self, format: LogFormat) -> Self {
        self.format = format;
        self
    }

    /// Only some requests.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }
}

/// The access logs of one listener or connection manager, in order.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    entries: Vec<AccessLogEntry>,
}

impl AccessLog {
    /// Logs to each of `entries`.
    #[must_use]
    pub const fn new(entries: Vec<AccessLogEntry>) -> Self {
        Self { entries }
    }

    /// Whether nothing is ever logged.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Lets `captures` find the request headers that the formats and filters read. Call it once, before any request;
    /// unbound formats see request headers only while [`FormatContext::request`] is there.
    pub fn bind(&mut self, captures: &mut Captures) {
        for entry in &mut self.entries {
            entry.format.bind(captures);
            if let Some(filter) = &mut entry.filter {
                filter.bind(captures);
            }
        }
    }

    /// Writes one line to each log whose filter lets the request through. Never waits for a file.
    ///
    /// Takes the lock of the request's facts once: never call it from within
    /// [`RequestInfo::with`](mesh_core::RequestInfo::with).
    pub fn log(&self, context: &FormatContext<'_>) {
        if self.entries.is_empty() {
            return;
        }
        context.info.with(|facts| {
            for entry in &self.entries {
                let filter = entry.filter.as_ref();
                if filter.is_none_or(|filter| filter.lets_through(context, facts)) {
                    let format = &entry.format;
                    entry
                        .sink
                        .write(|out| format.write_with(context, facts, out));
                }
            }
        });
    }
}
