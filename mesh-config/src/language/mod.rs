//! Envoy's configuration language, read strictly.
//!
//! The way of a document: YAML events to a small tree that knows its lines ([`Source`]), the tree
//! walked against message descriptors ([`Language`]) into a dynamic message, that message held
//! against the rules of the protos, and its bytes decoded into generated types ([`Loaded`]).
//! Whatever is wrong on the way is a [`ConfigError`] with file, line, path and reason.
//!
//! What is *lenient* is what Envoy is lenient about, because real configs lean on it: enum names in
//! any case or as numbers, `"true"` and `yes` for true, one value for a list of one, `010` for
//! eight, `{seconds: 1}` for a duration, `{value: 5}` for a bare wrapper, both spellings of field
//! names, the last of equal keys, `TypedStruct`. Everything else is an error.

mod any;
mod decode;
mod document;
mod dump;
mod error;
mod facts;
mod load;
mod path;
mod pool;
mod rules;
mod scalar;
mod single;
mod support;
mod tree;
mod validate;
mod visit;
mod wkt;
mod yaml;

pub use decode::MESSAGE_BYTES_MAX;
pub use document::{Document, Fields, Part};
pub use dump::to_json;
pub use error::{ConfigError, PROBLEMS_MAX, Position, Problem, ProblemKind, Problems};
pub use load::{Loaded, Source, load_bootstrap, load_message};
pub use path::At;
pub use pool::Language;
pub use support::{
    MessageSupport, Support, SupportTable, UNSUPPORTED_MAX, Unsupported, UnsupportedReport,
    is_security_type,
};
pub use visit::{VISIT_DEPTH_MAX, Visitor, Walk, visit};
pub use yaml::{DEPTH_MAX, DOCUMENT_BYTES_MAX, NODES_MAX, TEXT_BYTES_MAX};

/// The message that a config file is.
const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";

/// The one map of `Any`s that nobody opens unless asked: typed metadata. Envoy neither applies the
/// rules of what is inside nor turns a `TypedStruct` in it into what it stands for.
const OPAQUE_ANY: &str = "envoy.config.core.v3.Metadata.TypedFilterMetadataEntry";

/// The field of that map.
const OPAQUE_FIELD: &str = "envoy.config.core.v3.Metadata.typed_filter_metadata";
