//! Export of stats and access logs.
//!
//! The policies count and decide; this crate shows what they counted and decided, and does so off the
//! data path. It knows no policy: it reads [`mod@mesh_core::stats`] and [`mesh_core::RequestInfo`].
//!
//! | to show | use |
//! |---|---|
//! | stats, as Envoy's `/stats` and `/stats/prometheus` | [`render`], [`Query`], [`ExportConfig`] |
//! | stats, for a statsd server | [`Statsd`] |
//! | a line per request | [`AccessLog`], [`LogFormat`], [`Filter`] |
//! | lines in files, without waiting for a disk | [`LogWriter`], [`LogSink`] |
//! | stats in a recorder of the `metrics` crate | `MetricsBridge`, behind the feature `metrics` |
//!
//! Do not use [`LogSink`] for what must not be lost, like an audit trail: when a disk is full or a pipe
//! is stuck, requests go on and lines are dropped, and counted.
//!
//! # Stats
//!
//! ```
//! use mesh_core::stats::Registry;
//! use mesh_telemetry::{ExportConfig, Query, render};
//!
//! let registry = Registry::new();
//! let statuses = registry.scope("cluster.books.").statuses("upstream_rq");
//! statuses.count(503);
//! assert_eq!(
//!     render(&registry.snapshot(), &Query::parse("filter=_503$")?, &ExportConfig::default()),
//!     "cluster.books.upstream_rq_503: 1\n"
//! );
//! assert_eq!(
//!     render(&registry.snapshot(), &Query::parse_prometheus("filter=_503$")?, &ExportConfig::default()),
//!     "# TYPE envoy_cluster_upstream_rq counter\n\
//!      envoy_cluster_upstream_rq{envoy_response_code=\"503\",envoy_cluster_name=\"books\"} 1\n"
//! );
//! # Ok::<_, mesh_telemetry::InvalidQuery>(())
//! ```
//!
//! # An access log
//!
//! Envoy's default format, all requests, to standard output:
//!
//! ```no_run
//! use mesh_core::stats::Registry;
//! use mesh_telemetry::{AccessLog, AccessLogEntry, LogWriter, LogWriterConfig, Target};
//!
//! let registry = Registry::new();
//! let writer = LogWriter::new(LogWriterConfig::default(), &registry.scope(""));
//! let log = AccessLog::new(vec![AccessLogEntry::new(writer.open(&Target::Stdout)?)]);
//! # Ok::<_, std::io::Error>(())
//! ```
//!
//! Failures only, in a format of one's own, to a file that is written every ten seconds:
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//! use mesh_core::{ConnectionInfo, RequestInfo, clock, format::FormatContext, stats::Registry};
//! use mesh_telemetry::{
//!     AccessLog, AccessLogEntry, Comparison, ComparisonOp, Filter, LogFormat, LogWriter,
//!     LogWriterConfig, Target,
//! };
//!
//! let registry = Registry::new();
//! let config = LogWriterConfig { flush_interval: Duration::from_secs(10), ..Default::default() };
//! let writer = LogWriter::new(config, &registry.scope(""));
//! let path = std::env::temp_dir().join(format!("mesh-doc-{}.log", std::process::id()));
//! let entry = AccessLogEntry::new(writer.open(&Target::path(&path))?)
//!     .format(LogFormat::text("%RESPONSE_CODE% %RESPONSE_FLAGS% %MESH_DECISIONS%\n")?)
//!     .filter(Filter::StatusCode(Comparison::new(ComparisonOp::AtLeast, 500)));
//! let log = AccessLog::new(vec![entry]);
//!
//! let info = RequestInfo::new(clock::now(), 7, Arc::new(ConnectionInfo::in_process()), "v1".into());
//! let headers = http::HeaderMap::new();
//! for status in [http::StatusCode::OK, http::StatusCode::BAD_GATEWAY] {
//!     log.log(&FormatContext::new(&info).with_response(status, &headers));
//! }
//! assert!(writer.flush(Duration::from_secs(10)));
//! assert_eq!(std::fs::read_to_string(&path)?, "502 - -\n");
//! # std::fs::remove_file(&path)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

mod access;
mod escape;
mod export;
#[cfg(feature = "metrics")]
mod facade;
mod statsd;
mod writer;

pub use access::{
    AccessLog, AccessLogEntry, Comparison, ComparisonOp, Filter, InvalidJsonFormat, JSON_DEPTH_MAX,
    JsonFormat, JsonTemplate, LogFormat, Predicate,
};
pub use export::{
    BOUNDS_MAX, Buckets, ExportConfig, FILTER_BYTES_MAX, Format, HistogramMode, InvalidBounds,
    InvalidQuery, InvalidTag, Kinds, NameTest, Query, TAG_RULES_MAX, TagSpecifier, Tags, render,
    render_json, render_prometheus, render_text,
};
#[cfg(feature = "metrics")]
pub use facade::MetricsBridge;
pub use statsd::{DATAGRAM_BYTES_MAX, Dialect, InvalidStatsd, Statsd, StatsdConfig};
pub use writer::{CHUNK_BYTES, LogSink, LogWriter, LogWriterConfig, QUEUE_BYTES_MAX, Target};
