//! `AccessLog`: which requests are logged, where, and in which words.

mod filter;
mod format;

use envoy_types::pb::envoy::{
    config::accesslog::v3::{self as pb, access_log::ConfigType},
    extensions::access_loggers::{
        file::v3::FileAccessLog,
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
};
use mesh_telemetry::{LogFormat, Target};

use super::context::Context;
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::AccessLogConfig,
};

pub(super) use filter::SUPPORT as FILTER_SUPPORT;
pub(super) use format::SUPPORT as FORMAT_SUPPORT;

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.accesslog.v3.AccessLog",
        fields: &[
            ("name", Meaningless),
            ("filter", Enforced),
            ("typed_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        fields: &[
            ("path", Enforced),
            ("format", Enforced),
            ("json_format", Enforced),
            ("typed_json_format", Enforced),
            ("log_format", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        fields: &[("log_format", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        fields: &[("log_format", Enforced)],
    },
];

/// The logs that can be written; those of other types are in the report.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::AccessLog],
) -> Vec<AccessLogConfig> {
    let logs = from.iter().enumerate().filter_map(|(index, from)| {
        let at = at.index(index);
        let filter = from
            .filter
            .as_ref()
            .and_then(|from| filter::convert(cx, &at.field("filter"), from));
        let Some(ConfigType::TypedConfig(any)) = &from.config_type else {
            cx.invalid(&at, "typed_config is missing");
            return None;
        };
        let (target, format) = target(cx, &at.field("typed_config"), any)?;
        Some(AccessLogConfig {
            target,
            format,
            // A filter that is not supported lets everything through, and is in the report.
            filter,
        })
    });
    logs.collect()
}

fn target(
    cx: &Context<'_>,
    at: &At<'_>,
    any: &envoy_types::pb::google::protobuf::Any,
) -> Option<(Target, LogFormat)> {
    let log_format = at.field("log_format");
    if let Some(from) = cx.unpack::<FileAccessLog>(any) {
        let format = match &from.access_log_format {
            Some(file) => format::of_file(cx, at, file)?,
            None => LogFormat::default(),
        };
        return Some((Target::path(&from.path), format));
    }
    if let Some(from) = cx.unpack::<StdoutAccessLog>(any) {
        use stdout_access_log::AccessLogFormat::LogFormat as Format;
        let format = match &from.access_log_format {
            Some(Format(format)) => format::convert(cx, &log_format, format)?,
            None => LogFormat::default(),
        };
        return Some((Target::Stdout, format));
    }
    let from = cx.unpack::<StderrAccessLog>(any)?;
    use stderr_access_log::AccessLogFormat::LogFormat as Format;
    let format = match &from.access_log_format {
        Some(Format(format)) => format::convert(cx, &log_format, format)?,
        None => LogFormat::default(),
    };
    Some((Target::Stderr, format))
}
