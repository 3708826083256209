//! One connection, from the socket to its filter chain.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use mesh_client::{ConnectionLog, DownstreamSocket};
use mesh_core::{ConnectionInfo, RequestInfo, ResponseFlag, clock};
use mesh_net::{ByteCounts, DetachedStream, Stream};

use crate::drain::Phase;

use super::{
    Serving, balance,
    filters::{self, Verdict},
    http,
    limit::Place,
    serving::{Chain, Terminal, newest},
    tcp,
};

/// How long a handshake may take; longer ones are closed. Envoy waits for ever, unless config says otherwise.
const HANDSHAKE_MAX: Duration = Duration::from_secs(15);

/// A connection that nobody serves yet.
pub(crate) struct Accepted<S = Stream> {
    stream: S,
    peer: Option<SocketAddr>,
    /// Counted before a task first runs, so that the drain does not overlook it.
    open: Open,
    place: Option<balance::Place>,
    at: Instant,
}

impl<S> Accepted<S> {
    /// Accepted just now, to be served by `serving`.
    pub(super) fn new(stream: S, peer: Option<SocketAddr>, serving: &Arc<Serving>) -> Self {
        Self {
            stream,
            peer,
            open: Open::new(serving),
            place: None,
            at: clock::now(),
        }
    }

    /// It counts for a worker.
    pub(super) fn with_place(mut self, place: balance::Place) -> Self {
        self.place = Some(place);
        self
    }

    /// With another stream.
    pub(super) fn try_map<T>(self, f: impl FnOnce(S) -> io::Result<T>) -> io::Result<Accepted<T>> {
        Ok(Accepted {
            stream: f(self.stream)?,
            peer: self.peer,
            open: self.open,
            place: self.place,
            at: self.at,
        })
    }
}

/// Serves a connection as a task of its own.
pub(super) fn spawn(accepted: Accepted) {
    tokio::spawn(serve(accepted));
}

/// The same for one that comes from another worker.
pub(crate) fn attach(accepted: Accepted<DetachedStream>) {
    match accepted.try_map(DetachedStream::attach) {
        Ok(accepted) => spawn(accepted),
        Err(error) => tracing::debug!("a connection was lost on its way: {error}"),
    }
}

async fn serve(accepted: Accepted) {
    let Accepted {
        mut stream,
        peer,
        open,
        place: _place,
        at,
    } = accepted;
    let mut serving = Arc::clone(&open.0);
    let mut info = ConnectionInfo::accepted(stream.local_addr(), peer);
    let mut verdict = filters::inspect(&serving, &mut stream, &mut info).await;
    if let Some(meant) = redirected(&serving, &info).filter(|_| verdict == Verdict::GoOn) {
        serving = meant;
        verdict = filters::inspect(&serving, &mut stream, &mut info).await;
    }
    if verdict == Verdict::Close {
        return refuse(&serving, at, info, |_| {});
    }
    let Some(chain) = choose(&serving, &info) else {
        return refuse(&serving, at, info, |line| {
            line.flag(ResponseFlag::NoRouteFound);
            line.set_details("filter_chain_not_found");
        });
    };
    let _counted = Counted::new(&serving);
    // Before the handshake: a client that never finishes it takes a place all the same, as in Envoy.
    let Some(_places) = enter(chain, &stream).await else {
        return refuse(&serving, at, info, |_| {});
    };
    let stream = match &chain.tls {
        None => stream,
        Some(socket) => match encrypt(stream, &mut info, socket, chain).await {
            Some(encrypted) => encrypted,
            None => return refuse(&serving, at, info, |_| {}),
        },
    };
    let info = Arc::new(info);
    let line = Line::begin(&serving, at, &info);
    let phase = chain.phase();
    match (&chain.terminal, &line) {
        (Terminal::Http(manager), Some(line)) => {
            let stream = stream.counted(&line.counts);
            let protocol = http::serve(stream, info, newest(manager), phase).await;
            line.info.with(|facts| facts.protocol = protocol);
        }
        (Terminal::Http(manager), None) => {
            let _ = http::serve(stream, info, newest(manager), phase).await;
        }
        (Terminal::Tcp(proxy), Some(line)) => tcp::serve_as(stream, &line.info, proxy, phase).await,
        (Terminal::Tcp(proxy), None) => tcp::serve(stream, info, proxy, phase).await,
    }
}

/// The listener that a connection was meant for, where this one passes it on.
fn redirected(serving: &Serving, info: &ConnectionInfo) -> Option<Arc<Serving>> {
    let passes_on = serving.config.use_original_dst && info.local_restored;
    serving.directory.find(info.local.filter(|_| passes_on)?)
}

/// The listener's line about one connection, which is written when that ends, also when its task is dropped.
struct Line<'a> {
    log: &'a ConnectionLog,
    info: RequestInfo,
    /// Of an HTTP connection; a TCP proxy counts by itself.
    counts: Arc<ByteCounts>,
}

impl<'a> Line<'a> {
    fn begin(serving: &'a Serving, at: Instant, info: &Arc<ConnectionInfo>) -> Option<Self> {
        let log = serving.log.as_ref()?;
        let info = log.begin(at, Arc::clone(info));
        Some(Self {
            log,
            info,
            counts: Arc::default(),
        })
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.info.add_received(self.counts.received());
        self.info.add_sent(self.counts.sent());
        self.log.write(&self.info);
    }
}

/// Logs a connection that no filter chain has taken.
fn refuse(serving: &Serving, at: Instant, info: ConnectionInfo, say: impl FnOnce(&RequestInfo)) {
    if let Some(line) = Line::begin(serving, at, &Arc::new(info)) {
        say(&line.info);
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
    opened: Instant,
}

impl<'a> Counted<'a> {
    fn new(serving: &'a Serving) -> Self {
        serving.stats.downstream_cx_total().inc();
        serving.stats.downstream_cx_active().inc();
        serving.worker_stats.downstream_cx_total().inc();
        serving.worker_stats.downstream_cx_active().inc();
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
        self.serving.worker_stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        stats.downstream_cx_length_ms().record(lived);
    }
}
