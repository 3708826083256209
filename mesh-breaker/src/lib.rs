//! Refusing before the upstream drowns: thresholds and the closed/open/half-open breaker as tower layers.
