//! `envoy.filters.http.compressor` and `envoy.filters.http.decompressor`.

use std::sync::Arc;

use mesh_compress::{CompressConfig, CompressLayer, DecompressLayer, Scope};
use mesh_config::model::{
    CompressorFilter, CompressorOverride, DecompressorFilter, RouteFilterKind,
};
use mesh_core::BoxHttpService;
use tower_layer::Layer as _;

use super::{Place, RouteSource};

pub(super) fn over(
    place: &Place<'_>,
    own: &CompressorFilter,
    next: BoxHttpService,
) -> BoxHttpService {
    let source = RouteSource::new(place, Arc::clone(&own.config), |_, says| match says {
        RouteFilterKind::Compressor(changes) => Some(Arc::new(changed(&own.config, *changes))),
        _ => None,
    });
    let scope = place
        .scope()
        .scope(&format!("compressor.{}", own.stat_prefix));
    let layer = CompressLayer::new(source).with_stats(&scope, own.response_stat_prefix);
    BoxHttpService::new(layer.layer(next))
}

fn changed(own: &CompressConfig, changes: CompressorOverride) -> CompressConfig {
    let mut config = own.clone();
    config.compression = changes.compression.unwrap_or(config.compression);
    if changes.enables_response {
        config.response.get_or_insert_with(Scope::default);
    }
    if let Some(remove) = changes.remove_accept_encoding_header {
        config.remove_accept_encoding_header = remove;
    }
    config
}

pub(super) fn decompress_over(
    place: &Place<'_>,
    own: &DecompressorFilter,
    next: BoxHttpService,
) -> BoxHttpService {
    let source = RouteSource::new(place, Arc::clone(&own.config), |_, _| None);
    let scope = place
        .scope()
        .scope(&format!("decompressor.{}", own.stat_prefix));
    let layer = DecompressLayer::new(source).with_stats(&scope);
    BoxHttpService::new(layer.layer(next))
}
