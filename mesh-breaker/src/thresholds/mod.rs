//! Bounds on what runs and waits at once.

mod future;
mod layer;
mod metrics;
mod service;

pub use future::ThresholdsFuture;
pub use layer::ThresholdsLayer;
pub use metrics::{ThresholdsStats, export_gauges};
pub use service::ThresholdsService;
