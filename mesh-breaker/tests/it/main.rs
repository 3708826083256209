//! Tests of the public API: services over scripted upstreams, models against naive references.

mod breaker;
mod facts;
mod model;
mod thresholds;
