mod hash;

use std::time::Duration;

use mesh_core::Percent;

pub use hash::{
    HashBalanceFactor, HashFunction, InvalidHashBalanceFactor, InvalidRingSizes, InvalidTableSize,
    MaglevConfig, RING_SIZE_MAX, RingHashConfig, RingSizes, TABLE_SIZE_MAX, TableSize,
};

/// How a [`Balancer`](crate::Balancer) chooses.
///
/// Every value of every field is valid; the defaults are Envoy's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BalanceConfig {
    /// Which endpoint of those that are eligible. Default: round robin. Envoy: `Cluster.lb_policy`.
    pub policy: LbPolicy,
    /// Below this share of usable endpoints, health is ignored and all of them are used: better a few
    /// failures than a stampede onto the last endpoint. Fractions are cut off. Default 50 %; 0 turns it
    /// off. Envoy: `common_lb_config.healthy_panic_threshold`.
    pub healthy_panic_threshold: Percent,
    /// In panic, refuse instead of using endpoints that are unhealthy. Default: no.
    /// Envoy: `common_lb_config.zone_aware_lb_config.fail_traffic_on_panic`.
    pub fail_traffic_on_panic: bool,
    /// How many percent of a priority's endpoints stand in for all of it: at 140, seven of ten suffice
    /// before traffic spills to the next priority. Default 140.
    /// Envoy: `ClusterLoadAssignment.policy.overprovisioning_factor`.
    pub overprovisioning_factor: u32,
    /// Whether a priority's health is the share of its weights rather than of its endpoints. Default: no.
    /// Envoy: `ClusterLoadAssignment.policy.weighted_priority_health`.
    pub weighted_priority_health: bool,
    /// How endpoints that have become well get their share, with round robin and least request. Default: at
    /// once. Envoy: `slow_start_config`.
    pub slow_start: Option<SlowStartConfig>,
    /// The share of the average load that an endpoint may have before requests whose hash leads to it go
    /// elsewhere, with ring hash and Maglev. Default: whatever comes. Envoy:
    /// `consistent_hashing_lb_config.hash_balance_factor`.
    pub hash_balance_factor: Option<HashBalanceFactor>,
}

impl Default for BalanceConfig {
    fn default() -> Self {
        Self {
            policy: LbPolicy::RoundRobin,
            healthy_panic_threshold: Percent::whole(50),
            fail_traffic_on_panic: false,
            overprovisioning_factor: 140,
            weighted_priority_health: false,
            slow_start: None,
            hash_balance_factor: None,
        }
    }
}

impl From<LbPolicy> for BalanceConfig {
    fn from(policy: LbPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }
}

/// The algorithm. Envoy: `Cluster.lb_policy` or `Cluster.load_balancing_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum LbPolicy {
    /// One after the other, as often as their weights say. `ROUND_ROBIN`.
    #[default]
    RoundRobin,
    /// The one with the fewest requests, of a few drawn at random; with unequal weights, round robin by
    /// weight over load. `LEAST_REQUEST`.
    LeastRequest(LeastRequestConfig),
    /// Any; weights do not matter. `RANDOM`.
    Random,
    /// By the request's hash, on a ring: when an endpoint comes or goes, few requests change places.
    /// `RING_HASH`.
    RingHash(RingHashConfig),
    /// By the request's hash, in a table: faster and more even than a ring, though more requests change
    /// places. `MAGLEV`.
    Maglev(MaglevConfig),
}

impl LbPolicy {
    pub(crate) const fn goes_by_hash(self) -> bool {
        matches!(self, Self::RingHash(_) | Self::Maglev(_))
    }
}

/// Envoy: `Cluster.LeastRequestLbConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LeastRequestConfig {
    /// How many are drawn when all weights are equal. `choice_count`.
    pub choice_count: ChoiceCount,
    /// How much running requests count against an endpoint when weights differ. `active_request_bias`.
    pub active_request_bias: ActiveRequestBias,
    /// How the candidates are found when all weights are equal. `selection_method`.
    pub selection_method: SelectionMethod,
}

/// How many endpoints are drawn: at least 2, by default 2. More means less spread and more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChoiceCount(u32);

/// Fewer than two choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("choice_count must be at least 2, not {0}")]
pub struct InvalidChoiceCount(u32);

impl ChoiceCount {
    /// `count` choices.
    ///
    /// # Errors
    /// When `count` is below 2.
    pub const fn new(count: u32) -> Result<Self, InvalidChoiceCount> {
        if count < 2 {
            Err(InvalidChoiceCount(count))
        } else {
            Ok(Self(count))
        }
    }

    /// The number, at least 2.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for ChoiceCount {
    fn default() -> Self {
        Self(2)
    }
}

/// The exponent of `weight / (active requests + 1)^bias`. 0 is plain weighted round robin; default 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActiveRequestBias(f64);

impl ActiveRequestBias {
    /// A bias; a negative one, or one that is not a number, is read as 1, as Envoy does.
    #[must_use]
    pub fn new(bias: f64) -> Self {
        if bias >= 0.0 { Self(bias) } else { Self(1.0) }
    }

    /// The exponent, at least 0.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Default for ActiveRequestBias {
    fn default() -> Self {
        Self(1.0)
    }
}

/// How the share of an endpoint grows that has become well: within `window`, its weight is multiplied by
/// `(age / window)^(1 / aggression)`, at least `min_weight_percent`.
///
/// It becomes well when it is first seen, or, where health checks are configured, when they pass after they
/// had failed. Where all endpoints are new, it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStartConfig {
    /// How long it takes; zero is off. Whole milliseconds. `slow_start_window`.
    pub window: Duration,
    /// 1 grows evenly, the default; more grows fast at first. `aggression`.
    pub aggression: Aggression,
    /// Not less than this. Default 10 %. `min_weight_percent`.
    pub min_weight_percent: Percent,
}

impl SlowStartConfig {
    /// Grows evenly over `window`.
    #[must_use]
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            aggression: Aggression::default(),
            min_weight_percent: Percent::whole(10),
        }
    }
}

/// The root that is drawn from an endpoint's age in [`SlowStartConfig`]; above 0, by default 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Aggression(f64);

impl Aggression {
    /// An aggression; one that is not above 0 is read as 1, as Envoy does.
    #[must_use]
    pub fn new(aggression: f64) -> Self {
        Self(if aggression > 0.0 { aggression } else { 1.0 })
    }

    /// The root, above 0.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl Default for Aggression {
    fn default() -> Self {
        Self(1.0)
    }
}

/// Where least request looks. Envoy: `LeastRequest.selection_method`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SelectionMethod {
    /// At a few endpoints drawn at random, with replacement. `N_CHOICES`.
    #[default]
    NChoices,
    /// At all of them; ties are broken at random. `FULL_SCAN`.
    FullScan,
}
