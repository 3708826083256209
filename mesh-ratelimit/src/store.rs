use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Instant,
};

use mesh_core::stats::Scope;

use crate::{LocalRateLimit, LocalRateLimitConfig};

/// Finds the buckets of an earlier config version, by what owns them.
///
/// An owner is a path such as `listener/ingress/filter/0` or `route_config/main/vh/api/route/3`. It keeps
/// nothing alive: what no config uses any more is gone, so it is bounded by the configs that live.
#[derive(Debug, Default)]
pub struct RateLimitStore(Mutex<HashMap<Arc<str>, Weak<LocalRateLimit>>>);

impl RateLimitStore {
    /// Knows no owner.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The limit of `owner` under a new config version: buckets with unchanged parameters go on as they
    /// are. Build the new version before the old one is dropped.
    #[must_use]
    pub fn live(
        &self,
        owner: &str,
        config: LocalRateLimitConfig,
        scope: &Scope,
        now: Instant,
    ) -> Arc<LocalRateLimit> {
        let mut owners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        owners.retain(|_, limit| limit.strong_count() > 0);
        let owner: Arc<str> = Arc::from(owner);
        let mut limit = LocalRateLimit::new(config, now)
            .with_stats(scope)
            .owned_by(&owner);
        if let Some(previous) = owners.get(&owner).and_then(Weak::upgrade) {
            limit = limit.inherit(&previous, now);
        }
        let limit = Arc::new(limit);
        owners.insert(owner, Arc::downgrade(&limit));
        limit
    }
}
