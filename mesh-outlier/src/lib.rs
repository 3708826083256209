//! Outlier detection: ejecting bad endpoints.

mod config;
mod detector;
mod event;
mod future;
mod layer;
mod metrics;
mod monitor;
mod service;
pub mod state;

pub use config::{InvalidOutlierConfig, OutlierConfig, OutlierConfigBuilder};
pub use detector::{Detector, DetectorBuilder};
pub use event::Event;
pub use future::OutlierFuture;
pub use layer::OutlierLayer;
pub use metrics::OutlierStats;
pub use monitor::Monitor;
pub use service::{BodyWatch, Outlier};
