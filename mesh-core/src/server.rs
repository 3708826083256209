use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether this process asks for traffic. People may say that it does not, with nothing wrong in it:
/// `POST /healthcheck/fail` and `/healthcheck/ok`. `/ready` says so, and so does the health check filter.
/// Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct ServerHealth(Arc<AtomicBool>);

impl ServerHealth {
    /// From now on health checks fail.
    pub fn fail(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// From now on they pass.
    pub fn pass(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether they fail.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
