//! One connection, from the socket to its filter chain.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use mesh_client::DownstreamSocket;
use mesh_core::{ConnectionInfo, clock};
use mesh_net::Stream;

use crate::drain::Phase;

use super::{
    Serving,
    filters::{self, Verdict},
    http,
    limit::Place,
    serving::{Chain, Terminal, newest},
    tcp,
};

/// How long a handshake may take; longer ones are closed. Envoy waits for ever, unless config says otherwise.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// Serves a connection as a task of its own.
pub(super) fn spawn(stream: Stream, peer: Option<SocketAddr>, serving: &Arc<Serving>) {
    // Counted before the task first runs, so that the drain does not overlook it.
    let open = Open::new(serving);
    tokio::spawn(serve(stream, peer, open));
}

async fn serve(mut stream: Stream, peer: Option<SocketAddr>, open: Open) {
    let serving = &open.0;
    let mut info = ConnectionInfo::accepted(stream.local_addr(), peer);
    if filters::inspect(serving, &mut stream, &mut info).await == Verdict::Close {
        return;
    }
    let Some(chain) = choose(serving, &info) else {
        return;
    };
    let _counted = Counted::new(serving);
    // Before the handshake: a client that never finishes it takes a place all the same, as in Envoy.
    let Some(_places) = enter(chain, &stream).await else {
        return;
    };
    let stream = match &chain.tls {
        None => stream,
        Some(socket) => match encrypt(stream, &mut info, socket, chain).await {
            Some(encrypted) => encrypted,
            None => return,
        },
    };
    let info = Arc::new(info);
    match &chain.terminal {
        Terminal::Http(manager) => http::serve(stream, info, newest(manager), chain.phase()).await,
        Terminal::Tcp(proxy) => tcp::serve(stream, info, proxy, chain.phase()).await,
    }
}

/// Makes the handshake; `None` when it fails, which `info` then knows, or its time is over.
async fn encrypt(
    stream: Stream,
    info: &mut ConnectionInfo,
    socket: &DownstreamSocket,
    chain: &Chain,
) -> Option<Stream> {
    let mut phase = chain.phase();
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, socket.acceptor().accept(stream));
    let result = tokio::select! {
        result = handshake => result,
        // Without a sender there is no further phase: then only the other branch ends.
        Ok(_) = phase.wait_for(|phase| *phase == Phase::Over) => return None,
    };
    let peer = info.peer;
    match result {
        Ok(Ok(stream)) => {
            let session = Arc::clone(stream.session());
            if info.server_name.is_none() {
                info.server_name = session.sni.as_deref().map(Into::into);
            }
            info.tls = Some(session);
            Some(Stream::Tls(Box::new(stream)))
        }
        Ok(Err(error)) => {
            let reason = error.reason();
            tracing::info!(?peer, connection = info.id, %error, reason, "no TLS with a client");
            info.transport_failure = Some(reason.into());
            None
        }
        Err(_) => {
            tracing::debug!(?peer, connection = info.id, "a TLS handshake took too long");
            None
        }
    }
}

/// A place within each limit of the chain; `None` when one is full, and the connection is to be closed.
async fn enter(chain: &Chain, stream: &Stream) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    for limit in &*chain.limits {
        match limit.enter() {
            Ok(place) => places.push(place),
            Err(delay) => {
                if let Some(delay) = delay {
                    tokio::select! {
                        () = tokio::time::sleep(delay) => {}
                        () = stream.gone() => {}
                    }
                }
                return None;
            }
        }
    }
    Some(places)
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
