use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use mesh_core::ConnectionInfo;

use crate::buckets::Buckets;

/// The buckets of each client connection. Bounded by the connections that live, which their listener
/// bounds: whenever the map has doubled, those that ended are swept out.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Map>);

#[derive(Debug, Default)]
struct Map {
    // The address identifies the connection: it is not used again while the weak reference lives.
    by_address: HashMap<usize, (Weak<ConnectionInfo>, Arc<Buckets>)>,
    sweep_at: usize,
}

const SWEEP_MIN: usize = 64;

impl Connections {
    pub(crate) fn buckets(
        &self,
        connection: &Arc<ConnectionInfo>,
        make: impl FnOnce() -> Buckets,
    ) -> Arc<Buckets> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = Arc::as_ptr(connection).addr();
        if let Some((_, buckets)) = map.by_address.get(&address) {
            return Arc::clone(buckets);
        }
        if map.by_address.len() >= map.sweep_at.max(SWEEP_MIN) {
            map.by_address.retain(|_, (c, _)| c.strong_count() > 0);
            map.sweep_at = map.by_address.len() * 2;
        }
        let buckets = Arc::new(make());
        let entry = (Arc::downgrade(connection), Arc::clone(&buckets));
        map.by_address.insert(address, entry);
        buckets
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.lock().unwrap().by_address.len()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_core::{ConnectionInfo, clock};

    use super::{Connections, SWEEP_MIN};
    use crate::{LocalRateLimitConfig, buckets::Buckets};

    #[test]
    fn what_ended_connections_left_is_swept_out() {
        let make = || Buckets::new(&LocalRateLimitConfig::default(), None, clock::now());
        let connections = Connections::default();
        let alive = Arc::new(ConnectionInfo::in_process());
        let first = connections.buckets(&alive, make);
        for _ in 0..10 * SWEEP_MIN {
            connections.buckets(&Arc::new(ConnectionInfo::in_process()), make);
        }
        assert!(connections.len() <= SWEEP_MIN);
        assert!(Arc::ptr_eq(&first, &connections.buckets(&alive, make)));
    }
}
