//! `SubstitutionFormatString`: what a line looks like.

use std::collections::BTreeMap;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            SubstitutionFormatString, substitution_format_string::Format as Source,
        },
        extensions::access_loggers::file::v3::file_access_log::AccessLogFormat,
    },
    google::protobuf::{Struct, Value, value::Kind},
};
use mesh_core::format::Format;
use mesh_telemetry::{JsonFormat, JsonTemplate, LogFormat};

use crate::{
    convert::{context::Context, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
};

const MESSAGE: &str = "envoy.config.core.v3.SubstitutionFormatString";

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("text_format", Enforced),
            ("json_format", Enforced),
            ("text_format_source", Enforced),
            ("omit_empty_values", Enforced),
            ("json_format_options", Enforced),
            ("formatters", Enforced),
            // Of local replies; a log has no type.
            ("content_type", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.JsonFormatOptions",
        fields: &[("sort_properties", Enforced)],
    },
    // Their operators are always there; those of the others are in the report.
    MessageSupport {
        message: "envoy.extensions.formatter.metadata.v3.Metadata",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
        fields: &[],
    },
];

/// The several ways of a file to say it.
pub(super) fn of_file(cx: &Context<'_>, at: &At<'_>, from: &AccessLogFormat) -> Option<LogFormat> {
    match from {
        // Envoy takes an empty text for none.
        AccessLogFormat::Format(format) if format.is_empty() => Some(LogFormat::default()),
        AccessLogFormat::Format(format) => text(cx, &at.field("format"), format, false),
        AccessLogFormat::JsonFormat(template) => {
            json(cx, &at.field("json_format"), template, false)
        }
        AccessLogFormat::TypedJsonFormat(template) => {
            json(cx, &at.field("typed_json_format"), template, false)
        }
        AccessLogFormat::LogFormat(format) => convert(cx, &at.field("log_format"), format),
    }
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &SubstitutionFormatString,
) -> Option<LogFormat> {
    if from.formatters.is_empty() {
        plain(cx, at, from)
    } else {
        convert_extended(cx, at, from)
    }
}

fn plain(cx: &Context<'_>, at: &At<'_>, from: &SubstitutionFormatString) -> Option<LogFormat> {
    let omit = from.omit_empty_values;
    match from.format.as_ref()? {
        Source::TextFormat(format) if format.is_empty() => Some(LogFormat::default()),
        Source::TextFormat(format) => text(cx, &at.field("text_format"), format, omit),
        Source::TextFormatSource(source) => {
            let at = at.field("text_format_source");
            let bytes = value::data_source(cx, &at, source)?;
            let format = cx.ok(&at, String::from_utf8(bytes))?;
            text(cx, &at, &format, omit)
        }
        Source::JsonFormat(template) => json(cx, &at.field("json_format"), template, omit),
    }
}

/// A format may use operators of extensions: these are in the report, and the format is then Envoy's own.
fn convert_extended(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &SubstitutionFormatString,
) -> Option<LogFormat> {
    let known = match from.format.as_ref()? {
        Source::TextFormat(format) => Format::parse(format).is_ok(),
        Source::TextFormatSource(source) => {
            let at = at.field("text_format_source");
            let bytes = value::data_source(cx, &at, source)?;
            std::str::from_utf8(&bytes).is_ok_and(|format| Format::parse(format).is_ok())
        }
        Source::JsonFormat(template) => JsonFormat::new(&object(template), false).is_ok(),
    };
    if known {
        return plain(cx, at, from);
    }
    Some(LogFormat::default())
}

fn text(cx: &Context<'_>, at: &At<'_>, format: &str, omit_empty: bool) -> Option<LogFormat> {
    let format = cx.ok(at, Format::parse(format))?;
    Some(reported(
        cx,
        at,
        LogFormat::Text(format.omit_empty_values(omit_empty)),
    ))
}

fn json(cx: &Context<'_>, at: &At<'_>, from: &Struct, omit_empty: bool) -> Option<LogFormat> {
    let format = JsonFormat::new(&object(from), omit_empty);
    let format = format.map_err(|error| {
        cx.invalid(at, format!("{}: {}", error.path(), error.reason()));
    });
    Some(reported(cx, at, LogFormat::Json(format.ok()?)))
}

/// Operators that are never set would be missed by whoever reads the log.
fn reported(cx: &Context<'_>, at: &At<'_>, format: LogFormat) -> LogFormat {
    for operator in format.always_unset() {
        cx.unsupported(at, MESSAGE, Some(&operator));
    }
    format
}

fn object(from: &Struct) -> BTreeMap<String, JsonTemplate> {
    let fields = from.fields.iter();
    fields
        .map(|(key, value)| (key.clone(), template(value)))
        .collect()
}

fn template(from: &Value) -> JsonTemplate {
    match &from.kind {
        None | Some(Kind::NullValue(_)) => JsonTemplate::Null,
        Some(Kind::BoolValue(value)) => JsonTemplate::Bool(*value),
        Some(Kind::NumberValue(number)) => JsonTemplate::Number(*number),
        Some(Kind::StringValue(text)) => JsonTemplate::String(text.clone()),
        Some(Kind::ListValue(list)) => {
            JsonTemplate::List(list.values.iter().map(template).collect())
        }
        Some(Kind::StructValue(fields)) => JsonTemplate::Object(object(fields)),
    }
}
