//! The route timeout: how long a request may take, all attempts included.

mod body;
mod config;
mod countdown;
mod expected;
mod future;
mod service;

pub use body::{DeadlineBody, WatchedBody};
pub use config::{DEFAULT_TIMEOUT, DeadlineConfig};
pub use expected::{EXPECTED_TIMEOUT, effective_per_try_timeout, expected_rq_timeout};
pub use future::DeadlineFuture;
pub use service::{Deadline, DeadlineLayer};
