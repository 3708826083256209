//! `envoy.filters.http.compressor`.

use std::{collections::BTreeSet, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::{RuntimeFeatureFlag, TypedExtensionConfig},
    extensions::{
        compression::{
            brotli::compressor::v3::Brotli, gzip::compressor::v3::Gzip, zstd::compressor::v3::Zstd,
        },
        filters::http::compressor::v3::{
            Compressor, CompressorPerRoute, compressor::CommonDirectionConfig,
            compressor_per_route::Override,
        },
    },
};
use http::StatusCode;
use mesh_compress::{CompressConfig, Compression, MIN_CONTENT_LENGTH_DEFAULT, Scope};

use super::registry::{Filter, RouteSays};
use crate::{
    convert::{
        context::{Context, type_name},
        listener::Surroundings,
        value,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Meaningless},
    },
    model::{CompressorFilter, CompressorOverride, HttpFilterKind, RouteFilterKind},
};

pub(super) struct CompressorRow;

const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.Compressor",
        fields: &[
            ("content_length", Enforced),
            ("content_type", Enforced),
            ("disable_on_etag_header", Enforced),
            ("remove_accept_encoding_header", Enforced),
            ("runtime_enabled", Enforced),
            ("compressor_library", Enforced),
            ("request_direction_config", Enforced),
            ("response_direction_config", Enforced),
            ("choose_first", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.Compressor.CommonDirectionConfig",
        fields: &[
            ("enabled", Enforced),
            ("min_content_length", Enforced),
            ("content_type", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.Compressor.RequestDirectionConfig",
        fields: &[("common_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.Compressor.ResponseDirectionConfig",
        fields: &[
            ("common_config", Enforced),
            ("disable_on_etag_header", Enforced),
            ("weaken_etag_on_compress", Enforced),
            ("remove_accept_encoding_header", Enforced),
            ("uncompressible_response_codes", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute",
        fields: &[("disabled", Enforced), ("overrides", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.CompressorOverrides",
        fields: &[
            ("response_direction_config", Enforced),
            ("compressor_library", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.compressor.v3.ResponseDirectionOverrides",
        fields: &[("remove_accept_encoding_header", Enforced)],
    },
    // Memory and pieces make no difference to what a peer sees.
    MessageSupport {
        message: "envoy.extensions.compression.gzip.compressor.v3.Gzip",
        fields: &[
            ("compression_level", Enforced),
            ("compression_strategy", EnforcedFor(&["DEFAULT_STRATEGY"])),
            ("memory_level", Meaningless),
            ("chunk_size", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.compression.brotli.compressor.v3.Brotli",
        fields: &[
            ("quality", Enforced),
            ("encoder_mode", EnforcedFor(&["DEFAULT", "GENERIC"])),
            ("chunk_size", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.compression.zstd.compressor.v3.Zstd",
        fields: &[
            ("compression_level", Enforced),
            ("strategy", EnforcedFor(&["DEFAULT"])),
            ("chunk_size", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.RuntimeFeatureFlag",
        fields: &[("default_value", Enforced), ("runtime_key", Meaningless)],
    },
];

impl Filter for CompressorRow {
    type Config = Compressor;
    type Route = CompressorPerRoute;

    const SUPPORT: &'static [MessageSupport] = SUPPORT;

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Compressor,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        let at_library = at.field("compressor_library");
        let from_library = from.compressor_library.as_ref()?;
        let compression = library(cx, &at_library, from_library)?;
        let mut config = CompressConfig::new(compression);
        config.choose_first = from.choose_first;
        let request = from.request_direction_config.as_ref();
        config.request = request.and_then(|from| scope(from.common_config.as_ref()));
        let mut response_stat_prefix = "";
        if let Some(from) = &from.response_direction_config {
            response_stat_prefix = "response.";
            config.response = scope(from.common_config.as_ref());
            config.disable_on_etag_header = from.disable_on_etag_header;
            config.weaken_etag_on_compress = from.weaken_etag_on_compress;
            config.remove_accept_encoding_header = from.remove_accept_encoding_header;
            config.uncompressible_response_codes = codes(&from.uncompressible_response_codes);
        } else {
            // As it was written before there were directions.
            config.response = scope(Some(&CommonDirectionConfig {
                enabled: from.runtime_enabled.clone(),
                min_content_length: from.content_length,
                content_type: from.content_type.clone(),
                ..CommonDirectionConfig::default()
            }));
            config.disable_on_etag_header = from.disable_on_etag_header;
            config.remove_accept_encoding_header = from.remove_accept_encoding_header;
        }
        let name = stat_name(from_library, compression.coding());
        Some(HttpFilterKind::Compressor(Arc::new(CompressorFilter {
            config: Arc::new(config),
            stat_prefix: name,
            response_stat_prefix,
        })))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &CompressorPerRoute,
        _: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        let from = match from.r#override.as_ref()? {
            Override::Disabled(_) => return Some(RouteSays::Disabled),
            Override::Overrides(from) => from,
        };
        let at = at.field("overrides");
        let compression = match &from.compressor_library {
            Some(from) => Some(library(cx, &at.field("compressor_library"), from)?),
            None => None,
        };
        let response = from.response_direction_config.as_ref();
        let remove = response.and_then(|response| response.remove_accept_encoding_header);
        Some(RouteSays::Config(RouteFilterKind::Compressor(
            CompressorOverride {
                compression,
                enables_response: response.is_some(),
                remove_accept_encoding_header: remove.map(|remove| remove.value),
            },
        )))
    }
}

/// The part of the stats' names that names the library.
pub(super) fn stat_name(from: &TypedExtensionConfig, coding: mesh_compress::Coding) -> Arc<str> {
    let kind = match coding {
        mesh_compress::Coding::Gzip => "gzip",
        mesh_compress::Coding::Brotli => "brotli",
        mesh_compress::Coding::Zstd => "zstd",
    };
    format!("{}.{kind}.", from.name).into()
}

fn library(cx: &Context<'_>, at: &At<'_>, from: &TypedExtensionConfig) -> Option<Compression> {
    let any = from.typed_config.as_ref()?;
    if let Some(gzip) = cx.unpack::<Gzip>(any) {
        // 0 is zlib's default.
        let level = u8::try_from(gzip.compression_level).unwrap_or(0);
        return Some(Compression::gzip(if level == 0 { 6 } else { level }));
    }
    if let Some(brotli) = cx.unpack::<Brotli>(any) {
        return Some(Compression::brotli(small(brotli.quality, 3)));
    }
    if let Some(zstd) = cx.unpack::<Zstd>(any) {
        return Some(Compression::zstd(small(zstd.compression_level, 3)));
    }
    let reason = format!("{} is not a compressor", type_name(any));
    cx.invalid(&at.field("typed_config"), reason);
    None
}

fn small(from: Option<envoy_types::pb::google::protobuf::UInt32Value>, default: u8) -> u8 {
    value::number(from).map_or(default, |level| u8::try_from(level).unwrap_or(u8::MAX))
}

/// `None` when it is switched off.
fn scope(from: Option<&CommonDirectionConfig>) -> Option<Scope> {
    let default = CommonDirectionConfig::default();
    let from = from.unwrap_or(&default);
    let types = from.content_type.iter();
    let types: Vec<Box<str>> = types.map(|text| text.trim().into()).collect();
    enabled(from.enabled.as_ref()).then(|| Scope {
        min_content_length: value::number(from.min_content_length)
            .map_or(MIN_CONTENT_LENGTH_DEFAULT, u64::from),
        content_type: if types.is_empty() {
            Scope::default().content_type
        } else {
            types.into()
        },
    })
}

/// What is not said is on.
pub(super) fn enabled(from: Option<&RuntimeFeatureFlag>) -> bool {
    from.is_none_or(|flag| value::flag(flag.default_value, true))
}

fn codes(from: &[u32]) -> BTreeSet<StatusCode> {
    let codes = from.iter().filter_map(|code| u16::try_from(*code).ok());
    codes
        .filter_map(|code| StatusCode::from_u16(code).ok())
        .collect()
}
