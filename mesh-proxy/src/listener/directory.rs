//! Which listener has which address, as one worker asks.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;

use super::Serving;

/// The listeners of a worker by address. A connection that was redirected to a listener with `use_original_dst`
/// goes to the one that it was meant for.
#[derive(Default)]
pub(super) struct Directory(ArcSwap<HashMap<SocketAddr, Arc<Serving>>>);

impl Directory {
    /// These are all, from now on.
    pub(super) fn replace(&self, rows: impl Iterator<Item = (SocketAddr, Arc<Serving>)>) {
        self.0.store(Arc::new(rows.collect()));
    }

    /// The listener at that address, or else the one at that port of any address.
    pub(super) fn find(&self, address: SocketAddr) -> Option<Arc<Serving>> {
        let rows = self.0.load();
        let any: IpAddr = match address {
            SocketAddr::V4(_) => [0; 4].into(),
            SocketAddr::V6(_) => [0u16; 8].into(),
        };
        let found = rows.get(&address);
        let found = found.or_else(|| rows.get(&SocketAddr::new(any, address.port())));
        found.cloned()
    }
}
