use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_core::{Overflow, Permit, Resource, Resources, Rng, clock};

use crate::RetryEnv;

/// The world of one request's state machine.
pub(crate) struct Env<'a> {
    pub resources: &'a Arc<Resources>,
    pub rng: &'a Rng,
    pub shadow: bool,
}

impl RetryEnv for Env<'_> {
    type Slot = Option<Permit>;

    fn try_slot(&mut self) -> Result<Self::Slot, Overflow> {
        if !self.shadow {
            return self.resources.try_acquire(Resource::Retries).map(Some);
        }
        if !self.resources.is_open(Resource::Retries) {
            return Ok(None);
        }
        Err(Overflow {
            resource: Resource::Retries,
            in_use: self.resources.in_use(Resource::Retries),
            limit: self.resources.limit(Resource::Retries),
        })
    }

    fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    fn unix_now(&mut self) -> Duration {
        clock::wall()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
    }
}
