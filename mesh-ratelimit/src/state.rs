use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{Mode, stats::Scope};

use crate::{
    LocalRateLimitConfig, RateLimitStats, RequestView, TokenBucket,
    buckets::{Answer, Buckets},
    connections::Connections,
};

/// A local rate limit at work: its config, its live buckets and what it counts.
///
/// It belongs to what its config is written at: a listener, a virtual host, a route. A config push makes
/// a new one; [`LocalRateLimit::inherit`], or a [`RateLimitStore`](crate::RateLimitStore), carries the
/// buckets over so that a push refills none.
pub struct LocalRateLimit {
    config: LocalRateLimitConfig,
    owner: Option<Arc<str>>,
    buckets: Buckets,
    connections: Connections,
    stats: RateLimitStats,
}

impl LocalRateLimit {
    /// Full buckets; counts without being exported.
    #[must_use]
    pub fn new(config: LocalRateLimitConfig, now: Instant) -> Self {
        let buckets = Buckets::new(&config, None, now);
        Self {
            config,
            owner: None,
            buckets,
            connections: Connections::default(),
            stats: RateLimitStats::detached(),
        }
    }

    /// Registers what is counted as `<scope><stat_prefix>.http_local_rate_limit.`.
    #[must_use]
    pub fn with_stats(mut self, scope: &Scope) -> Self {
        let prefix = format!("{}.http_local_rate_limit.", self.config.stat_prefix);
        self.stats = RateLimitStats::register(&scope.scope(&prefix));
        self
    }

    /// Names what the limit belongs to, for decision traces.
    #[must_use]
    pub fn owned_by(mut self, owner: &Arc<str>) -> Self {
        self.owner = Some(Arc::clone(owner));
        self
    }

    /// Goes on with the buckets of `previous` whose parameters are the same; the others start full.
    /// Buckets of single connections start full.
    #[must_use]
    pub fn inherit(mut self, previous: &Self, now: Instant) -> Self {
        self.buckets = Buckets::new(&self.config, Some(&previous.buckets), now);
        self
    }

    /// What it was made from.
    #[must_use]
    pub const fn config(&self) -> &LocalRateLimitConfig {
        &self.config
    }

    /// What it belongs to.
    #[must_use]
    pub const fn owner(&self) -> Option<&Arc<str>> {
        self.owner.as_ref()
    }

    /// What it counts.
    #[must_use]
    pub const fn stats(&self) -> &RateLimitStats {
        &self.stats
    }

    /// Decides about one request, and counts it. `draw` gives random numbers; it is asked for one only
    /// where the config has a share between none and all.
    pub fn decide(
        &self,
        request: &RequestView<'_>,
        now: Instant,
        mut draw: impl FnMut() -> u64,
    ) -> Verdict {
        let config = &self.config;
        if !includes(&config.filter_enabled, &mut draw) {
            return Verdict::NotEnabled;
        }
        self.stats.enabled().inc();
        let answer = match request.info() {
            Some(info) if config.local_rate_limit_per_downstream_connection => self
                .connections
                .buckets(&info.connection, || Buckets::new(config, None, now))
                .take(config, request, now),
            _ => self.buckets.take(config, request, now),
        };
        match answer {
            Answer::Ok(bucket) => {
                self.stats.ok().inc();
                Verdict::Ok(bucket.map(Quota))
            }
            Answer::Empty { bucket, left } => {
                self.stats.rate_limited().inc();
                let quota = Quota(bucket);
                if config.mode == Mode::Shadow {
                    self.stats.shadow_mode().inc();
                    return Verdict::Excess { quota, left };
                }
                if !includes(&config.filter_enforced, &mut draw) {
                    return Verdict::Excess { quota, left };
                }
                self.stats.enforced().inc();
                Verdict::Refused { quota, left }
            }
        }
    }
}

/// Draws only when the draw matters.
fn includes(share: &mesh_core::RuntimeFraction, draw: &mut impl FnMut() -> u64) -> bool {
    let share = share.now();
    let fraction = share.fraction();
    fraction >= 1.0 || (fraction > 0.0 && share.includes(draw()))
}

impl fmt::Debug for LocalRateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalRateLimit")
            .field("owner", &self.owner)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It was not looked at.
    NotEnabled,
    /// There were tokens; `None` when no bucket limits it.
    Ok(Option<Quota>),
    /// There were too few, but it is let through: not enforced, or shadow mode.
    Excess {
        /// The bucket that had too few.
        quota: Quota,
        /// How many it had.
        left: u32,
    },
    /// There were too few.
    Refused {
        /// The bucket that had too few.
        quota: Quota,
        /// How many it had.
        left: u32,
    },
}

impl Verdict {
    /// The bucket to tell the client about.
    #[must_use]
    pub const fn quota(&self) -> Option<&Quota> {
        match self {
            Self::NotEnabled | Self::Ok(None) => None,
            Self::Ok(Some(quota)) | Self::Excess { quota, .. } | Self::Refused { quota, .. } => {
                Some(quota)
            }
        }
    }
}

/// What a client may know about the bucket that it takes from.
#[derive(Debug, Clone)]
pub struct Quota(pub(crate) Arc<TokenBucket>);

impl Quota {
    /// `x-ratelimit-limit`: how many tokens the bucket holds at most.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.0.config().max_tokens().get()
    }

    /// `x-ratelimit-remaining`: how many whole tokens there are.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> u32 {
        self.0.left(now)
    }

    /// `x-ratelimit-reset`, in whole seconds: how long until there is a token.
    #[must_use]
    pub fn reset(&self, now: Instant) -> Duration {
        self.0.next_token(now)
    }
}
