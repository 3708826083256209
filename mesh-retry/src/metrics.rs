mesh_core::stats! {
    /// What retries count, by Envoy's names, for one cluster. Register it under `cluster.<name>.`.
    pub struct RetryStats {
        /// Retries scheduled.
        counter upstream_rq_retry,
        /// Requests whose retry led to an answer that was not retriable.
        counter upstream_rq_retry_success,
        /// Retries not made since the budget or `max_retries` was used up.
        counter upstream_rq_retry_overflow,
        /// Retries not made since `num_retries` were used up.
        counter upstream_rq_retry_limit_exceeded,
        /// Retries that waited for the exponential back-off.
        counter upstream_rq_retry_backoff_exponential,
        /// Retries that waited as long as the upstream asked for.
        counter upstream_rq_retry_backoff_ratelimited,
        /// Attempts ended by `per_try_timeout`.
        counter upstream_rq_per_try_timeout,
        /// Attempts ended by `per_try_idle_timeout`.
        counter upstream_rq_per_try_idle_timeout,
        /// Requests whose body was larger than the replay buffer.
        counter retry_or_shadow_abandoned,
        /// Retries not made since the body could not be replayed.
        counter upstream_rq_retry_skipped_body,
        /// Retries not made since `x-envoy-ratelimited` forbade them.
        counter upstream_rq_retry_skipped_ratelimited,
        /// Attempts that were joined by another one when they took too long.
        counter upstream_rq_hedged,
        /// Retries that would have been scheduled, in shadow mode.
        counter upstream_rq_retry_shadow,
    }
}
