//! Outlier detection: ejecting bad endpoints.

mod config;

pub use config::{InvalidOutlierConfig, OutlierConfig, OutlierConfigBuilder};
