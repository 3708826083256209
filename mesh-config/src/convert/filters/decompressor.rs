//! `envoy.filters.http.decompressor`.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::{
    compression::{
        brotli::decompressor::v3::Brotli, gzip::decompressor::v3::Gzip,
        zstd::decompressor::v3::Zstd,
    },
    filters::http::decompressor::v3::{Decompressor, decompressor::CommonDirectionConfig},
};
use mesh_compress::{Coding, DecompressConfig, Transparency};

use super::{
    compressor::{enabled, stat_name},
    registry::{Filter, RouteSays},
};
use crate::{
    convert::{
        context::{Context, type_name},
        listener::Surroundings,
        value,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::{DecompressorFilter, HttpFilterKind, RouteFilterKind},
};

pub(super) struct DecompressorRow;

const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.http.decompressor.v3.Decompressor",
        fields: &[
            ("decompressor_library", Enforced),
            ("request_direction_config", Enforced),
            ("response_direction_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.decompressor.v3.Decompressor.CommonDirectionConfig",
        fields: &[
            ("enabled", Enforced),
            ("ignore_no_transform_header", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.decompressor.v3.Decompressor.RequestDirectionConfig",
        fields: &[
            ("common_config", Enforced),
            ("advertise_accept_encoding", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.http.decompressor.v3.Decompressor.ResponseDirectionConfig",
        fields: &[("common_config", Enforced)],
    },
    // Every window is read, and pieces make no difference.
    MessageSupport {
        message: "envoy.extensions.compression.gzip.decompressor.v3.Gzip",
        fields: &[
            ("max_inflate_ratio", Enforced),
            ("window_bits", Meaningless),
            ("chunk_size", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.compression.brotli.decompressor.v3.Brotli",
        fields: &[
            ("disable_ring_buffer_reallocation", Meaningless),
            ("chunk_size", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.compression.zstd.decompressor.v3.Zstd",
        fields: &[("chunk_size", Meaningless)],
    },
];

impl Filter for DecompressorRow {
    type Config = Decompressor;
    /// Routes have nothing to say.
    type Route = Decompressor;

    const SUPPORT: &'static [MessageSupport] = SUPPORT;

    fn convert(
        cx: &Context<'_>,
        at: &At<'_>,
        from: &Decompressor,
        _: &Surroundings<'_>,
    ) -> Option<HttpFilterKind> {
        let from_library = from.decompressor_library.as_ref()?;
        let mut config = library(cx, &at.field("decompressor_library"), from_library)?;
        let request = from.request_direction_config.as_ref();
        config.request = direction(request.and_then(|from| from.common_config.as_ref()));
        config.advertise_accept_encoding = value::flag(
            request.and_then(|from| from.advertise_accept_encoding),
            true,
        );
        let response = from.response_direction_config.as_ref();
        config.response = direction(response.and_then(|from| from.common_config.as_ref()));
        Some(HttpFilterKind::Decompressor(DecompressorFilter {
            stat_prefix: stat_name(from_library, config.coding),
            config: Arc::new(config),
        }))
    }

    fn route(
        cx: &Context<'_>,
        at: &At<'_>,
        _: &Decompressor,
        _: &Surroundings<'_>,
        _: Option<&RouteFilterKind>,
    ) -> Option<RouteSays> {
        cx.invalid(at, "a decompressor does not listen to routes");
        None
    }
}

fn library(cx: &Context<'_>, at: &At<'_>, from: &TypedExtensionConfig) -> Option<DecompressConfig> {
    let any = from.typed_config.as_ref()?;
    if let Some(gzip) = cx.unpack::<Gzip>(any) {
        let mut config = DecompressConfig::new(Coding::Gzip);
        let ratio = value::number(gzip.max_inflate_ratio);
        config.expansion.max_inflate_ratio = ratio.unwrap_or(config.expansion.max_inflate_ratio);
        return Some(config);
    }
    if cx.unpack::<Brotli>(any).is_some() {
        return Some(DecompressConfig::new(Coding::Brotli));
    }
    if cx.unpack::<Zstd>(any).is_some() {
        return Some(DecompressConfig::new(Coding::Zstd));
    }
    let reason = format!("{} is not a decompressor", type_name(any));
    cx.invalid(&at.field("typed_config"), reason);
    None
}

/// `None` when it is switched off.
fn direction(from: Option<&CommonDirectionConfig>) -> Option<Transparency> {
    let on = enabled(from.and_then(|from| from.enabled.as_ref()));
    on.then(|| Transparency {
        ignore_no_transform_header: from.is_some_and(|from| from.ignore_no_transform_header),
    })
}
