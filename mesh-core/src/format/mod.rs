//! Format strings with Envoy's command operators: `%REQ(USER-AGENT):64%`, `%RESPONSE_CODE%`, `%START_TIME%`.
//!
//! Access logs, header mutation and local replies share this. A [`Format`] is compiled once, with an
//! error that names the place when something is wrong, and evaluated many times from a borrowed
//! [`FormatContext`] into a buffer that the caller keeps: no allocation per operator.
//!
//! ```
//! use mesh_core::{ConnectionInfo, RequestInfo, clock, format::{Format, FormatContext, RequestView}};
//! use std::sync::Arc;
//!
//! let format = Format::parse("%REQ(:METHOD)% %PATH(NQ)% %RESPONSE_CODE% 100%%")?;
//! let request = http::Request::get("/users?page=2").body(()).unwrap();
//! let info = RequestInfo::new(clock::now(), 7, Arc::new(ConnectionInfo::in_process()), Arc::from("1"));
//!
//! let mut line = String::new();
//! format.write(&FormatContext::new(&info).with_request(RequestView::of(&request)), &mut line);
//! assert_eq!(line, "GET /users 0 100%");
//! # Ok::<(), mesh_core::format::FormatError>(())
//! ```
//!
//! # What was captured
//!
//! An access log is written when the request has long gone upstream. [`Captures`] collects which request
//! headers some formats need, so that they can be kept early and found again without a look-up by name:
//!
//! ```
//! use mesh_core::format::{Captures, Format};
//!
//! let (mut a, mut b) = (Format::parse("%REQ(:PATH)%")?, Format::parse("%REQ(:PATH)% %REQ(X-ID)%")?);
//! let mut captures = Captures::default();
//! captures.bind(&mut a);
//! captures.bind(&mut b);
//! assert_eq!(captures.fields().len(), 2);
//! // Per request: info.with(|facts| facts.captured = captures.capture(&view));
//! # Ok::<(), mesh_core::format::FormatError>(())
//! ```
//!
//! # Three kinds of output
//!
//! Into a `String` (logs, bodies), control characters and bytes that are not UTF-8 become `\x0a`, so that
//! no client can forge a log line. Into a `Vec<u8>` (header values), bytes stay as they are, and whoever
//! makes a header of them checks it. What [`Format::value_with`] gives keeps its control characters too, for JSON,
//! which quotes them.
//!
//! # Unset values
//!
//! What is not known prints `-`, or nothing after [`Format::omit_empty_values`]. Operators that Envoy knows
//! and this crate cannot fill yet (certificates, dynamic metadata, wire bytes) parse, are unset, and are
//! named by [`Format::always_unset`], so that a report can list them.
//!
//! # Envoy
//! `envoy.config.core.v3.SubstitutionFormatString`, "command operators". Beyond Envoy there are
//! `%MESH_DECISIONS%` and `%MESH_CONFIG_VERSION%`. `%UNIQUE_ID%` is the same for all logs of one request.

mod capture;
mod compile;
mod context;
mod eval;
mod grpc;
mod names;
mod operator;
mod parse;
mod put;
mod sink;
mod text;
mod time;

#[cfg(all(test, not(mesh_loom)))]
mod tests;

use crate::{Facts, MetadataValue};

pub use self::capture::{Captures, RequestField, RequestTest};
pub use self::context::{AccessLogType, FormatContext, RequestView};
pub use self::parse::FormatError;
pub use self::sink::Sink;
pub use time::rfc3339;

use self::{operator::Operator, sink::Raw};

/// Envoy's access log format when none is configured; it ends with a line feed.
pub const DEFAULT_ACCESS_LOG: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n"
);

/// A compiled format string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    pieces: Vec<Piece>,
    omit_empty: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(Box<str>),
    Operator(Operator),
}

/// What one format is worth for one request, with its type: for JSON logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A single operator whose value is not known.
    Unset,
    /// A single operator that counts or measures.
    Number(i64),
    /// A single operator whose value is JSON already, and no text.
    Json(&'a str),
    /// Anything else.
    Text(&'a str),
}

impl Format {
    /// Compiles `text`.
    ///
    /// # Errors
    /// On an unknown command, broken syntax, or parameters that the command does not take.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        Ok(Self {
            pieces: parse::pieces(text)?,
            omit_empty: false,
        })
    }

    /// A format without operators: `text` as it is, percent signs included.
    #[must_use]
    pub fn literal(text: impl Into<Box<str>>) -> Self {
        Self {
            pieces: vec![Piece::Literal(text.into())],
            omit_empty: false,
        }
    }

    /// Whether unset values print nothing instead of `-`; off by default, on for header values.
    /// Envoy: `SubstitutionFormatString.omit_empty_values`.
    #[must_use]
    pub const fn omit_empty_values(mut self, omit: bool) -> Self {
        self.omit_empty = omit;
        self
    }

    /// Appends the value to `out`. Takes the lock of the facts once.
    pub fn write<S: Sink>(&self, context: &FormatContext<'_>, out: &mut S) {
        context
            .info
            .with(|facts| self.write_with(context, facts, out));
    }

    /// Appends the value to `out`, for callers that hold the facts already because they evaluate several
    /// formats.
    pub fn write_with<S: Sink>(&self, context: &FormatContext<'_>, facts: &Facts, out: &mut S) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.trusted(text),
                Piece::Operator(operator) => {
                    if !eval::write(operator, context, facts, out) && !self.omit_empty {
                        out.trusted("-");
                    }
                }
            }
        }
    }

    /// The typed value. A single operator gives a number, text or [`Value::Unset`]; everything else is
    /// text, in which control characters stay as they are for whoever quotes it. `scratch` is cleared and lends
    /// its memory to the text.
    pub fn value_with<'s>(
        &self,
        context: &FormatContext<'_>,
        facts: &Facts,
        scratch: &'s mut String,
    ) -> Value<'s> {
        scratch.clear();
        if let [Piece::Operator(operator)] = self.pieces.as_slice() {
            if let Some(number) = eval::number(operator, context, facts) {
                return number.map_or(Value::Unset, Value::Number);
            }
            match eval::metadata(operator, facts).flatten() {
                Some(MetadataValue::Text(_)) | None => {}
                Some(value) => {
                    scratch.push_str(&value.to_string());
                    return Value::Json(scratch);
                }
            }
            if !eval::write(operator, context, facts, &mut Raw(scratch)) {
                return Value::Unset;
            }
        } else {
            self.write_with(context, facts, &mut Raw(scratch));
        }
        Value::Text(scratch)
    }

    /// The text, when there is no operator in it.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        match self.pieces.as_slice() {
            [] => Some(""),
            [Piece::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The constant parts, so that whoever puts the value somewhere can check them beforehand.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(text) => Some(text.as_ref()),
            Piece::Operator(_) => None,
        })
    }

    /// The request headers, pseudo headers included, that the format reads; see [`Captures`].
    pub fn request_headers(&self) -> impl Iterator<Item = &RequestField> {
        self.operators().flat_map(Operator::request_fields)
    }

    /// The operators that Envoy knows and that are never set here: a report should name them.
    pub fn always_unset(&self) -> impl Iterator<Item = &str> {
        self.operators().filter_map(Operator::always_unset)
    }

    fn operators(&self) -> impl Iterator<Item = &Operator> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Operator(operator) => Some(operator),
            Piece::Literal(_) => None,
        })
    }
}
