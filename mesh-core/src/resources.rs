use std::{fmt, sync::Arc};

use crate::{
    Percent,
    sync::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

/// Envoy's routing priority: each has resources of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Priority {
    /// Every request that no route marks otherwise.
    #[default]
    Default,
    /// Requests that a route marks as important.
    High,
}

/// What is bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Resource {
    /// Connections to all endpoints, connecting ones included.
    Connections = 0,
    /// Requests that wait for a connection.
    Pending = 1,
    /// Requests that have a connection.
    Requests = 2,
    /// Retries that are scheduled or in flight.
    Retries = 3,
}

const RESOURCES: usize = 4;

/// How many retries may run at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RetryLimit {
    /// At most so many. Envoy: `max_retries`.
    Max(u32),
    /// At most this share of the requests that are active or pending, and never fewer than `min`.
    /// Envoy: `retry_budget`.
    Budget {
        /// Share of active and pending requests. Envoy's default: 20 %.
        percent: Percent,
        /// Always allowed. Envoy's default: 3.
        min: u32,
    },
}

impl Default for RetryLimit {
    /// A budget of 20 %, at least 3: a few retries always help, and a fleet of them never drowns the
    /// upstream. At low load this equals Envoy's `max_retries: 3`.
    fn default() -> Self {
        Self::Budget {
            percent: Percent::whole(20),
            min: 3,
        }
    }
}

/// The bounds of one cluster and priority.
///
/// # Envoy
/// `Cluster.circuit_breakers.thresholds[]`, with its defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Connections to all endpoints; default 1024. When full, requests wait.
    pub max_connections: u32,
    /// Requests that wait for a connection; default 1024. When full, requests are refused.
    pub max_pending_requests: u32,
    /// Requests that have a connection; default 1024. When full, requests are refused.
    pub max_requests: u32,
    /// Retries at once; by default a budget.
    pub retries: RetryLimit,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            retries: RetryLimit::default(),
        }
    }
}

/// A bound was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow {
    /// Which.
    pub resource: Resource,
    /// How many were in use.
    pub in_use: u32,
    /// How many are allowed.
    pub limit: u32,
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} are full: {} of {}",
            self.resource, self.in_use, self.limit
        )
    }
}

impl std::error::Error for Overflow {}

/// What one cluster and priority has in use, shared by all workers. Lock-free; a bound is never exceeded
/// but where [`Resources::acquire_beyond`] says so.
#[derive(Debug)]
pub struct Resources {
    max: [AtomicU32; RESOURCES],
    in_use: [AtomicU32; RESOURCES],
    budget: AtomicBool,
    budget_percent: AtomicU64,
}

impl Resources {
    /// Nothing in use, bounded by `thresholds`.
    #[must_use]
    pub fn new(thresholds: &Thresholds) -> Arc<Self> {
        let this = Self {
            max: std::array::from_fn(|_| AtomicU32::new(0)),
            in_use: std::array::from_fn(|_| AtomicU32::new(0)),
            budget: AtomicBool::new(false),
            budget_percent: AtomicU64::new(0),
        };
        this.update(thresholds);
        Arc::new(this)
    }

    /// Changes the bounds; what is in use stays in use.
    pub fn update(&self, thresholds: &Thresholds) {
        // Relaxed: a reader may mix old and new bounds for a moment, which no caller can tell from
        // having come a moment earlier or later.
        let store = |r: Resource, n: u32| self.max[r as usize].store(n, Ordering::Relaxed);
        store(Resource::Connections, thresholds.max_connections);
        store(Resource::Pending, thresholds.max_pending_requests);
        store(Resource::Requests, thresholds.max_requests);
        let (max, percent) = match thresholds.retries {
            RetryLimit::Max(max) => (max, None),
            RetryLimit::Budget { percent, min } => (min, Some(percent)),
        };
        store(Resource::Retries, max);
        self.budget_percent.store(
            percent.unwrap_or(Percent::ZERO).fraction().to_bits(),
            Ordering::Relaxed,
        );
        self.budget.store(percent.is_some(), Ordering::Relaxed);
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self, resource: Resource) -> u32 {
        self.in_use[resource as usize].load(Ordering::Relaxed)
    }

    /// How many are allowed now; for retries under a budget, that depends on the requests.
    #[must_use]
    pub fn limit(&self, resource: Resource) -> u32 {
        let max = self.max[resource as usize].load(Ordering::Relaxed);
        if resource != Resource::Retries || !self.budget.load(Ordering::Relaxed) {
            return max;
        }
        let share = f64::from_bits(self.budget_percent.load(Ordering::Relaxed));
        let requests =
            f64::from(self.in_use(Resource::Requests)) + f64::from(self.in_use(Resource::Pending));
        max.max((share * requests) as u32)
    }

    /// Whether the bound is reached: Envoy's `*_open` gauges.
    #[must_use]
    pub fn is_open(&self, resource: Resource) -> bool {
        self.in_use(resource) >= self.limit(resource)
    }

    /// Takes one of `resource` until the permit is dropped.
    ///
    /// # Errors
    /// When as many as allowed are in use; nothing changes then.
    pub fn try_acquire(self: &Arc<Self>, resource: Resource) -> Result<Permit, Overflow> {
        let limit = self.limit(resource);
        // Acquire pairs with the Release of a returning permit: what its holder did happened before.
        self.in_use[resource as usize]
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |n| {
                (n < limit).then(|| n + 1)
            })
            .map_err(|in_use| Overflow {
                resource,
                in_use,
                limit,
            })?;
        Ok(Permit {
            resources: Arc::clone(self),
            resource,
        })
    }

    /// Takes one of `resource` even if the bound is reached: for the first connection of an endpoint
    /// that has none, which Envoy grants so that no endpoint starves.
    #[must_use]
    pub fn acquire_beyond(self: &Arc<Self>, resource: Resource) -> Permit {
        self.in_use[resource as usize].fetch_add(1, Ordering::Acquire);
        Permit {
            resources: Arc::clone(self),
            resource,
        }
    }
}

/// One of a resource, returned when dropped.
#[derive(Debug)]
pub struct Permit {
    resources: Arc<Resources>,
    resource: Resource,
}

impl Permit {
    /// What is held.
    #[must_use]
    pub const fn resource(&self) -> Resource {
        self.resource
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.resources.in_use[self.resource as usize].fetch_sub(1, Ordering::Release);
    }
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::{Resource, Resources, RetryLimit, Thresholds};
    use crate::Percent;

    #[test]
    fn a_full_resource_refuses_until_a_permit_returns() {
        let resources = Resources::new(&Thresholds {
            max_requests: 1,
            ..Thresholds::default()
        });
        let permit = resources.try_acquire(Resource::Requests).unwrap();
        let overflow = resources.try_acquire(Resource::Requests).unwrap_err();
        assert_eq!((overflow.in_use, overflow.limit), (1, 1));
        assert!(resources.is_open(Resource::Requests));
        drop(permit);
        assert!(resources.try_acquire(Resource::Requests).is_ok());
    }

    #[test]
    fn zero_blocks_everything_but_the_forced_connection() {
        let resources = Resources::new(&Thresholds {
            max_connections: 0,
            ..Thresholds::default()
        });
        assert!(resources.try_acquire(Resource::Connections).is_err());
        let forced = resources.acquire_beyond(Resource::Connections);
        assert_eq!(resources.in_use(Resource::Connections), 1);
        drop(forced);
        assert_eq!(resources.in_use(Resource::Connections), 0);
    }

    #[test]
    fn a_budget_grows_with_the_requests_and_never_falls_below_its_minimum() {
        let resources = Resources::new(&Thresholds {
            retries: RetryLimit::Budget {
                percent: Percent::whole(20),
                min: 3,
            },
            ..Thresholds::default()
        });
        assert_eq!(resources.limit(Resource::Retries), 3);
        let _requests: Vec<_> = (0..50)
            .map(|_| resources.try_acquire(Resource::Requests).unwrap())
            .collect();
        assert_eq!(resources.limit(Resource::Retries), 10);
        let retries: Vec<_> = (0..10)
            .map(|_| resources.try_acquire(Resource::Retries).unwrap())
            .collect();
        assert!(resources.try_acquire(Resource::Retries).is_err());
        drop(retries);
    }

    #[test]
    fn an_update_keeps_what_is_in_use() {
        let resources = Resources::new(&Thresholds::default());
        let _permit = resources.try_acquire(Resource::Requests).unwrap();
        resources.update(&Thresholds {
            max_requests: 1,
            ..Thresholds::default()
        });
        assert!(resources.try_acquire(Resource::Requests).is_err());
    }
}
