use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use mesh_core::BoxHttpService;

use super::Shared;

/// A manager as one version of its config makes it.
#[derive(Clone)]
pub(super) struct Stack {
    pub(super) shared: Arc<Shared>,
    pub(super) chain: BoxHttpService,
    pub(super) follows_redirects: bool,
}

/// The stack that all clones of a manager are to become. To look whether there is a newer one is one load.
#[derive(Default)]
pub(super) struct Newest {
    generation: AtomicU64,
    /// Nothing before the first change.
    stack: Mutex<Option<(u64, Stack)>>,
}

impl Newest {
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn get(&self) -> Option<(u64, Stack)> {
        let stack = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        stack.clone()
    }

    pub(super) fn publish(&self, stack: Stack) {
        let mut newest = self.stack.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = newest.as_ref().map_or(0, |(generation, _)| *generation) + 1;
        *newest = Some((generation, stack));
        // Whoever sees the new number finds at least that stack.
        self.generation.store(generation, Ordering::Release);
    }
}
