use std::time::{Duration, Instant};

/// How many turns [`settle`] gives to other tasks.
const TURNS: usize = 64;

/// Lets every task that can move do so, without any time passing.
pub async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Lets paused time pass, and every task do what it does then.
///
/// # Panics
/// When time is not paused.
pub async fn advance(duration: Duration) {
    settle().await;
    tokio::time::advance(duration).await;
    settle().await;
}

/// Measures (paused) time.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self(mesh_core::clock::now())
    }

    /// What has passed since.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        mesh_core::clock::now().saturating_duration_since(self.0)
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn ms(&self) -> u128 {
        self.elapsed().as_millis()
    }
}
