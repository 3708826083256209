use std::{collections::BTreeSet, sync::Arc};

use http::StatusCode;

use crate::{Coding, Compression, Expansion};

/// The shortest body that is compressed by default, in bytes.
pub const MIN_CONTENT_LENGTH_DEFAULT: u64 = 30;

/// The types that are compressed by default.
pub const CONTENT_TYPES_DEFAULT: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "text/x-javascript",
    "text/xml",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/json",
    "application/x-json",
    "application/xml",
    "application/xhtml+xml",
    "application/grpc-web",
    "application/grpc-web+proto",
    "image/svg+xml",
];

/// What is compressed, and with what.
///
/// # Envoy
/// `envoy.extensions.filters.http.compressor.v3.Compressor`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressConfig {
    /// The coding. `compressor_library`.
    pub compression: Compression,
    /// Whether this layer's coding wins over that of others in the stack which the client likes as much.
    /// Default: no. `choose_first`.
    pub choose_first: bool,
    /// Requests, for upstreams that understand it. Default: none. `request_direction_config`.
    pub request: Option<Scope>,
    /// Answers. Default: the usual ones. `response_direction_config.common_config`.
    pub response: Option<Scope>,
    /// Leave answers with an `etag` alone. Default: no. `disable_on_etag_header`.
    pub disable_on_etag_header: bool,
    /// Make a strong `etag` weak rather than drop it. Default: no. `weaken_etag_on_compress`.
    pub weaken_etag_on_compress: bool,
    /// Ask the service inside for plain answers: `accept-encoding` goes. Default: no.
    /// `remove_accept_encoding_header`.
    pub remove_accept_encoding_header: bool,
    /// Answers with these statuses are left alone. Default: none. `uncompressible_response_codes`.
    pub uncompressible_response_codes: BTreeSet<StatusCode>,
}

/// Which messages of one direction.
///
/// # Envoy
/// `Compressor.CommonDirectionConfig`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Bytes; a body that is known to be shorter is left alone. Default
    /// [`MIN_CONTENT_LENGTH_DEFAULT`]. `min_content_length`.
    pub min_content_length: u64,
    /// In lower case and without parameters; a message without a type is compressed too. Default
    /// [`CONTENT_TYPES_DEFAULT`]. `content_type`.
    pub content_type: Arc<[Box<str>]>,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            min_content_length: MIN_CONTENT_LENGTH_DEFAULT,
            content_type: CONTENT_TYPES_DEFAULT.map(Box::from).into(),
        }
    }
}

impl Scope {
    /// Whether a message of that `content-type` is meant.
    #[must_use]
    pub fn allows(&self, content_type: Option<&str>) -> bool {
        content_type.is_none_or(|content_type| {
            let kind = content_type.split(';').next().unwrap_or_default().trim();
            let mut allowed = self.content_type.iter();
            allowed.any(|allowed| allowed.eq_ignore_ascii_case(kind))
        })
    }
}

impl CompressConfig {
    /// Envoy's defaults with that coding: answers are compressed.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            choose_first: false,
            request: None,
            response: Some(Scope::default()),
            disable_on_etag_header: false,
            weaken_etag_on_compress: false,
            remove_accept_encoding_header: false,
            uncompressible_response_codes: BTreeSet::new(),
        }
    }
}

/// What is decompressed, and how far.
///
/// # Envoy
/// `envoy.extensions.filters.http.decompressor.v3.Decompressor`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressConfig {
    /// The coding. `decompressor_library`.
    pub coding: Coding,
    /// How much a body may grow; one that grows more fails.
    pub expansion: Expansion,
    /// Requests. Default: yes. `request_direction_config`.
    pub request: Option<Transparency>,
    /// Answers. Default: yes. `response_direction_config`.
    pub response: Option<Transparency>,
    /// Tell the service inside that this coding is welcome, if answers are decompressed. Default: yes.
    /// `advertise_accept_encoding`.
    pub advertise_accept_encoding: bool,
}

/// How one direction is decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transparency {
    /// Even what says `cache-control: no-transform`. Default: no. `ignore_no_transform_header`.
    pub ignore_no_transform_header: bool,
}

impl DecompressConfig {
    /// Envoy's defaults with that coding: both directions are decompressed.
    #[must_use]
    pub fn new(coding: Coding) -> Self {
        Self {
            coding,
            expansion: Expansion::default(),
            request: Some(Transparency::default()),
            response: Some(Transparency::default()),
            advertise_accept_encoding: true,
        }
    }
}
