//! Closed, open, half open.

mod circuit;
mod future;
mod layer;
mod metrics;
mod service;
pub mod state;
mod window;

pub use circuit::{Circuit, Probe, Ticket};
pub use future::BreakerFuture;
pub use layer::BreakerLayer;
pub use metrics::BreakerStats;
pub use service::Breaker;
