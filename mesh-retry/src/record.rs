//! What a call counts, flags and traces.

use mesh_core::{Decision, Reason, ResponseFlag};

use crate::{RetryContext, Verdict, call::Call};

impl<B, C: RetryContext> Call<B, C> {
    /// A retriable result stays since the body cannot be sent again.
    pub(crate) fn count_skip(&self) {
        if !self.plan.abandoned {
            return;
        }
        self.plan
            .context
            .stats()
            .upstream_rq_retry_skipped_body()
            .inc();
        self.trace(Decision::new(
            "retry",
            Reason::RetryBodyTooLarge,
            self.plan.announced.max(self.plan.source.pulled()),
            self.plan.config.request_body_buffer_limit,
        ));
    }

    /// Counts and traces a verdict.
    pub(crate) fn record(&self, verdict: &Verdict, retried: Reason) {
        let shadow = self.plan.shadow();
        let stats = self.plan.context.stats();
        match verdict {
            Verdict::Retry { .. } if shadow => stats.upstream_rq_retry_shadow().inc(),
            _ if shadow => {}
            Verdict::Retry { rate_limited, .. } => {
                stats.upstream_rq_retry().inc();
                if *rate_limited {
                    stats.upstream_rq_retry_backoff_ratelimited().inc();
                } else {
                    stats.upstream_rq_retry_backoff_exponential().inc();
                }
            }
            Verdict::LimitExceeded => {
                stats.upstream_rq_retry_limit_exceeded().inc();
                self.flag(ResponseFlag::UpstreamRetryLimitExceeded);
            }
            Verdict::Overflow(_) => {
                stats.upstream_rq_retry_overflow().inc();
                self.flag(ResponseFlag::UpstreamOverflow);
            }
            Verdict::Stands {
                after_retry,
                ratelimited,
            } => {
                if *after_retry {
                    stats.upstream_rq_retry_success().inc();
                }
                if *ratelimited {
                    stats.upstream_rq_retry_skipped_ratelimited().inc();
                }
            }
        }
        if let Some(mut decision) = verdict.decision(self.attempts, self.plan.state.attempts_max())
        {
            if decision.reason == Reason::Retried {
                decision.reason = retried;
            }
            self.trace(decision);
        }
    }

    fn flag(&self, flag: ResponseFlag) {
        if let Some(info) = &self.plan.info {
            info.flag(flag);
        }
    }

    pub(crate) fn trace(&self, mut decision: Decision) {
        if let Some(info) = &self.plan.info {
            if let Some(owner) = self.plan.context.owner() {
                decision = decision.owned_by(owner);
            }
            info.decide(decision.shadowed(self.plan.shadow()));
        }
    }
}
