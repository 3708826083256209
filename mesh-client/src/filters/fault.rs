//! `envoy.filters.http.fault`.

use std::sync::Arc;

use mesh_config::model::RouteFilterKind;
use mesh_core::BoxHttpService;
use mesh_fault::{FaultBody, FaultConfig, FaultLayer};
use tower_layer::Layer as _;

use super::{Place, RouteSource, adapt::Adapted};

pub(super) fn over(
    place: &Place<'_>,
    own: &Arc<FaultConfig>,
    next: BoxHttpService,
) -> BoxHttpService {
    let source = RouteSource::new(place, Arc::clone(own), |_, says| match says {
        RouteFilterKind::Fault(fault) => Some(Arc::clone(fault)),
        _ => None,
    });
    let layer = FaultLayer::new(source)
        .with_rng(place.worker.rng.clone())
        .with_stats(&place.scope());
    Adapted::boxed(layer.layer(next), FaultBody::into_body)
}
