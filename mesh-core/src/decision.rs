use std::{fmt, sync::Arc};

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why a policy decided as it did. A closed list: dashboards and tests may rely on the words.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The word that logs and `/explain` show.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

reasons! {
    /// A retry was scheduled; observed: attempt number, limit: attempts allowed.
    Retried = "retried",
    /// A retriable outcome, but `num_retries` are used up.
    RetryLimitExceeded = "retry_limit_exceeded",
    /// A retriable outcome, but the budget or `max_retries` is used up.
    RetryOverflow = "retry_overflow",
    /// A retriable outcome, but the body was larger than the replay buffer.
    RetryBodyTooLarge = "retry_body_too_large",
    /// A retriable outcome, but part of an answer had already been passed on.
    RetryResponseStarted = "retry_response_started",
    /// A retriable outcome, but `x-envoy-ratelimited` forbids.
    RetryRatelimited = "retry_ratelimited",
    /// A hedged attempt was started.
    Hedged = "hedged",
    /// `max_connections` reached.
    ConnectionsOverflow = "connections_overflow",
    /// `max_pending_requests` reached.
    PendingOverflow = "pending_overflow",
    /// `max_requests` reached.
    RequestsOverflow = "requests_overflow",
    /// The breaker is open.
    BreakerOpen = "breaker_open",
    /// The breaker is half open and its probes are out.
    BreakerProbing = "breaker_probing",
    /// The token bucket is empty.
    RateLimited = "rate_limited",
    /// No route.
    NoRoute = "no_route",
    /// No such cluster.
    NoCluster = "no_cluster",
    /// No endpoint to pick.
    NoHealthyUpstream = "no_healthy_upstream",
    /// Too few healthy endpoints: all of them are used.
    Panic = "panic",
    /// A route redirected.
    Redirected = "redirected",
    /// A route answered.
    DirectResponse = "direct_response",
    /// The route timeout passed.
    RequestTimeout = "request_timeout",
    /// One attempt's timeout passed.
    PerTryTimeout = "per_try_timeout",
    /// Nothing moved for too long.
    IdleTimeout = "idle_timeout",
    /// The endpoint was ejected.
    Ejected = "ejected",
    /// The endpoint would have been ejected, but `max_ejection_percent` forbids.
    EjectionOverflow = "ejection_overflow",
    /// The endpoint would have been ejected, but enforcement did not apply.
    EjectionNotEnforced = "ejection_not_enforced",
    /// The attempt got no answer.
    UpstreamFailure = "upstream_failure",
    /// The request broke the protocol or a limit.
    RequestRefused = "request_refused",
    /// A filter refused.
    Denied = "denied",
    /// A fault: the request waits; observed: milliseconds.
    DelayInjected = "delay_injected",
    /// A fault: the request fails; observed: the status.
    AbortInjected = "abort_injected",
    /// A fault: the answer trickles; observed: KiB per second.
    BandwidthLimited = "bandwidth_limited",
}

/// One decision of one policy about one request, with the numbers that were compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The policy that decided: `retry`, `local_ratelimit`, `thresholds`, …
    pub policy: &'static str,
    /// What the policy belongs to: a cluster, a route, a listener; empty when nothing was named.
    pub owner: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// What was measured.
    pub observed: u64,
    /// What it was compared with.
    pub limit: u64,
    /// Whether the decision was only counted.
    pub shadow: bool,
}

impl Decision {
    /// A decision that was carried out.
    #[must_use]
    pub const fn new(policy: &'static str, reason: Reason, observed: u64, limit: u64) -> Self {
        Self {
            policy,
            owner: None,
            reason,
            observed,
            limit,
            shadow: false,
        }
    }

    /// Names what the policy belongs to.
    #[must_use]
    pub fn owned_by(mut self, owner: &Arc<str>) -> Self {
        self.owner = Some(Arc::clone(owner));
        self
    }

    /// Marks the decision as only counted.
    #[must_use]
    pub const fn shadowed(mut self, shadow: bool) -> Self {
        self.shadow = shadow;
        self
    }
}

/// `retry(users):retried 2/3`, with `~` in front of what was only counted.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shadow {
            f.write_str("~")?;
        }
        f.write_str(self.policy)?;
        if let Some(owner) = &self.owner {
            write!(f, "({owner})")?;
        }
        write!(
            f,
            ":{} {}/{}",
            self.reason.text(),
            self.observed,
            self.limit
        )
    }
}

/// How many decisions one request remembers; later ones are only counted.
pub const TRACE_MAX: usize = 32;

/// The decisions about one request, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionTrace {
    decisions: Vec<Decision>,
    dropped: u32,
}

impl DecisionTrace {
    /// Remembers `decision`, or counts it when [`TRACE_MAX`] are remembered already.
    pub fn push(&mut self, decision: Decision) {
        if self.decisions.len() < TRACE_MAX {
            self.decisions.push(decision);
        } else {
            self.dropped += 1;
        }
    }

    /// The decisions, in order.
    #[must_use]
    pub fn decisions(&self) -> &[Decision] {
        &self.decisions
    }

    /// How many were only counted.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.dropped
    }
}

/// Joined by `;`, `-` when there is none.
impl fmt::Display for DecisionTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.decisions.is_empty() {
            return f.write_str("-");
        }
        for (i, decision) in self.decisions.iter().enumerate() {
            if i > 0 {
                f.write_str(";")?;
            }
            decision.fmt(f)?;
        }
        if self.dropped > 0 {
            write!(f, ";+{}", self.dropped)?;
        }
        Ok(())
    }
}
