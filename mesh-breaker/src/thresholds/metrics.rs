use std::sync::Arc;

use mesh_core::{
    Resource, Resources,
    stats::{ComputedGuard, Registry, Stat, Value},
};

mesh_core::stats! {
    /// What thresholds count, under Envoy's names; scope: `cluster.<name>.`.
    pub struct ThresholdsStats {
        /// Requests that had to wait until the service was ready.
        counter upstream_rq_pending_total,
        /// Requests that wait now.
        gauge upstream_rq_pending_active,
        /// Requests refused because too many waited.
        counter upstream_rq_pending_overflow,
        /// Requests refused because too many ran.
        counter upstream_rq_active_overflow,
        /// Requests let through in shadow mode although too many waited or ran. Not in Envoy.
        counter shadow_rq_overflow,
    }
}

/// Exports the gauges of one cluster and priority, computed when somebody looks, until the guard is
/// dropped.
///
/// `prefix` is `cluster.<name>.circuit_breakers.<default|high>.`; the gauges are `cx_open`,
/// `rq_pending_open`, `rq_open` and `rq_retry_open`, which are 1 as soon as the bound is reached. With
/// `track_remaining` (Envoy's field of that name) there are also `remaining_cx`, `remaining_pending`,
/// `remaining_rq` and `remaining_retries`.
#[must_use]
pub fn export_gauges(
    registry: &Registry,
    prefix: &str,
    resources: &Arc<Resources>,
    track_remaining: bool,
) -> ComputedGuard {
    const GAUGES: [(Resource, &str, &str); 4] = [
        (Resource::Connections, "cx_open", "remaining_cx"),
        (Resource::Pending, "rq_pending_open", "remaining_pending"),
        (Resource::Requests, "rq_open", "remaining_rq"),
        (Resource::Retries, "rq_retry_open", "remaining_retries"),
    ];
    let resources = Arc::clone(resources);
    let prefix: Box<str> = prefix.into();
    registry.computed(move |out| {
        let mut push = |name: &str, value: u32| {
            out.push(Stat {
                name: format!("{prefix}{name}"),
                value: Value::Gauge(value.into()),
            });
        };
        for (resource, open, remaining) in GAUGES {
            push(open, resources.is_open(resource).into());
            if track_remaining {
                let left = resources
                    .limit(resource)
                    .saturating_sub(resources.in_use(resource));
                push(remaining, left);
            }
        }
    })
}
