//! Tests of the public API: one endpoint's service, the detector, and a model.

mod detector;
mod facts;
mod model;
mod service;

use std::{net::SocketAddr, sync::Arc};

use mesh_core::{Address, EndpointState, HealthFlag, sync::AtomicU64};

/// Endpoints on ports 1 to `n`, in address order.
fn endpoints(n: u16) -> Vec<Arc<EndpointState>> {
    let generation = Arc::new(AtomicU64::new(0));
    (1..=n)
        .map(|port| Arc::new(EndpointState::new(address(port), Arc::clone(&generation))))
        .collect()
}

fn address(port: u16) -> Address {
    SocketAddr::from(([10, 0, 0, 1], port)).into()
}

fn is_ejected(endpoint: &EndpointState) -> bool {
    endpoint.has(HealthFlag::FailedOutlier)
}
