//! One connection, from the socket to its filter chain.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use mesh_core::{ConnectionInfo, clock};
use mesh_net::Stream;

use super::{
    Serving, http,
    serving::{Chain, Terminal},
};

/// Serves a connection as a task of its own.
pub(super) fn spawn(stream: Stream, peer: Option<SocketAddr>, serving: &Arc<Serving>) {
    // Counted before the task first runs, so that the drain does not overlook it.
    let open = Open::new(serving);
    tokio::spawn(serve(stream, peer, open));
}

async fn serve(stream: Stream, peer: Option<SocketAddr>, open: Open) {
    let serving = &open.0;
    let info = ConnectionInfo::accepted(stream.local_addr(), peer);
    let Some(chain) = choose(serving, &info) else {
        return;
    };
    let _counted = Counted::new(serving);
    let info = Arc::new(info);
    match &chain.terminal {
        Terminal::Http(manager) => http::serve(stream, info, manager, chain.phase()).await,
    }
}

/// The filter chain that takes the connection, if any does.
fn choose<'a>(serving: &'a Serving, info: &ConnectionInfo) -> Option<&'a Arc<Chain>> {
    let chain = serving.chain_for(info);
    if chain.is_none() {
        serving.stats.no_filter_chain_match().inc();
        let listener = &*serving.config.name;
        tracing::debug!(
            listener,
            connection = info.id,
            "closing: no filter chain matches"
        );
    }
    chain
}

/// An accepted connection, for the drain.
struct Open(Arc<Serving>);

impl Open {
    fn new(serving: &Arc<Serving>) -> Self {
        serving.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(serving))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection for as long as a filter chain has it.
struct Counted<'a> {
    serving: &'a Serving,
    opened: std::time::Instant,
}

impl<'a> Counted<'a> {
    fn new(serving: &'a Serving) -> Self {
        serving.stats.downstream_cx_total().inc();
        serving.stats.downstream_cx_active().inc();
        Self {
            serving,
            opened: clock::now(),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let lived = u64::try_from((clock::now() - self.opened).as_millis()).unwrap_or(u64::MAX);
        let stats = &self.serving.stats;
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_length_ms().record(lived);
    }
}
