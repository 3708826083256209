//! Active health checks.

mod model;
mod session;
