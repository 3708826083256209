mesh_core::stats! {
    /// What a local rate limit counts, as `<stat_prefix>.http_local_rate_limit.<name>`.
    pub struct RateLimitStats {
        /// Requests that were looked at.
        counter enabled,
        /// Requests for which there were tokens.
        counter ok,
        /// Requests for which there were none, refused or not.
        counter rate_limited,
        /// Requests that were refused.
        counter enforced,
        /// Requests that shadow mode let through.
        counter shadow_mode,
    }
}
