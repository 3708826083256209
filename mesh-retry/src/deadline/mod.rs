mod config;

pub use config::{DEFAULT_TIMEOUT, DeadlineConfig};
