//! The connection manager without a codec: what happens to a request between the socket and the filters.

mod answer;
mod begin;
mod exchange;
mod newest;

use std::{io, sync::Arc, time::Instant};

use http::{Request, Response, Version};
use mesh_config::model;
use mesh_core::{
    Body, BoxHttpService, ConnectionInfo, Error, ErrorKind, RequestInfo, clock, format::Captures,
};
use mesh_http::{CodecEvent, Handler, h2::Flood, h2::Http2Stats, reply::ReplyContext};
use mesh_telemetry::{AccessLog, AccessLogEntry};

pub use answer::AnswerBody;
use answer::Through;
pub(crate) use begin::capture;
pub use exchange::ManagerExchange;
use newest::{Newest, Stack};

use crate::{
    Mesh, Worker,
    filters::{self, LocalReplies},
    router::{Router, UpstreamLog},
    stats::ManagerStats,
};

/// One connection manager of one worker: filters, router, log. Cloned for each connection.
///
/// [`Manager::replace`] gives all clones another config, such as other routes: each takes it up with its next
/// request, so that a request sees one version from start to end, and no connection has to go.
#[derive(Clone)]
pub struct Manager {
    pub(crate) shared: Arc<Shared>,
    chain: BoxHttpService,
    /// Whether any route follows redirects.
    follows_redirects: bool,
    /// Of the version that this is.
    generation: u64,
    /// What it becomes.
    newest: Arc<Newest>,
}

pub(crate) struct Shared {
    pub(crate) worker: Arc<Worker>,
    pub(crate) config: Arc<model::ConnectionManager>,
    pub(crate) version: Arc<str>,
    pub(crate) stats: ManagerStats,
    pub(crate) http2_stats: Http2Stats,
    pub(crate) log: AccessLog,
    pub(crate) captures: Captures,
    pub(crate) local_replies: LocalReplies,
    /// `None` without `upstream_log`.
    pub(crate) upstream_log: Option<Arc<UpstreamLog>>,
}

impl Manager {
    /// Builds the manager of `config` for one worker.
    ///
    /// # Errors
    /// When a log file cannot be opened; the error names it.
    pub fn new(
        worker: &Arc<Worker>,
        config: &Arc<model::ConnectionManager>,
        version: &Arc<str>,
    ) -> io::Result<Self> {
        let Stack {
            shared,
            chain,
            follows_redirects,
        } = Stack::new(worker, config, version)?;
        Ok(Self {
            shared,
            chain,
            follows_redirects,
            generation: 0,
            newest: Arc::default(),
        })
    }

    /// Builds what shall take the place of this one; [`Manager::replace`] does it.
    ///
    /// # Errors
    /// When a log file cannot be opened; the error names it.
    pub fn next(
        &self,
        config: &Arc<model::ConnectionManager>,
        version: &Arc<str>,
    ) -> io::Result<NextManager> {
        Stack::new(&self.shared.worker, config, version).map(NextManager)
    }

    /// This is `next` from now on, and so are all clones from their next request on.
    pub fn replace(&mut self, next: NextManager) {
        self.refresh();
        let before = Arc::clone(&self.shared.config);
        self.newest.publish(next.0);
        self.refresh();
        self.shared.worker.mesh.drop_later(before);
    }

    /// Becomes the newest version, if it is not.
    pub(crate) fn refresh(&mut self) {
        if self.newest.generation() != self.generation {
            self.become_newest();
        }
    }

    #[cold]
    fn become_newest(&mut self) {
        if let Some((generation, stack)) = self.newest.get() {
            let Stack {
                shared,
                chain,
                follows_redirects,
            } = stack;
            self.shared = shared;
            self.chain = chain;
            self.follows_redirects = follows_redirects;
            self.generation = generation;
        }
    }

    /// The config.
    #[must_use]
    pub fn config(&self) -> &Arc<model::ConnectionManager> {
        &self.shared.config
    }

    /// The stats.
    #[must_use]
    pub fn stats(&self) -> &ManagerStats {
        &self.shared.stats
    }

    /// Answers the requests of one connection.
    #[must_use]
    pub fn connection(&self, connection: Arc<ConnectionInfo>) -> ConnectionHandler {
        ConnectionHandler {
            manager: self.clone(),
            connection,
            protocol: None,
        }
    }

    /// Begins to answer `request`, which is in canonical form: an origin-form target and a `host`.
    pub fn begin(
        &mut self,
        request: Request<Body>,
        connection: &Arc<ConnectionInfo>,
    ) -> ManagerExchange {
        self.refresh();
        begin::begin(self, request, connection)
    }
}

/// A version of a [`Manager`] that nobody uses yet.
pub struct NextManager(Stack);

impl Stack {
    fn new(
        worker: &Arc<Worker>,
        config: &Arc<model::ConnectionManager>,
        version: &Arc<str>,
    ) -> io::Result<Self> {
        let mesh = &worker.mesh;
        let scope = mesh
            .registry()
            .scope(&format!("http.{}.", config.stat_prefix));
        let mut captures = config.captures.clone();
        let log = open_logs(mesh, &config.access_log, &mut captures)?;
        let router = &config.router;
        let upstream_log = (!router.upstream_log.is_empty()).then(|| {
            open_logs(mesh, &router.upstream_log, &mut captures).map(|log| {
                Arc::new(UpstreamLog {
                    log,
                    options: router.upstream_log_options,
                })
            })
        });
        let stats = ManagerStats::register(&scope);
        let shared = Arc::new(Shared {
            worker: Arc::clone(worker),
            config: Arc::clone(config),
            version: Arc::clone(version),
            stats,
            http2_stats: Http2Stats::register(&mesh.registry().scope("http2.")),
            log,
            captures,
            local_replies: LocalReplies::new(worker, config),
            upstream_log: upstream_log.transpose()?,
        });
        let router = BoxHttpService::new(Router::new(&shared));
        let chain = filters::chain(worker, config, router);
        let mut routes = config.routes.routes();
        let follows_redirects = routes.any(|route| route.action().follows_redirects());
        Ok(Self {
            shared,
            chain,
            follows_redirects,
        })
    }
}

/// Opens the logs of a config.
pub(crate) fn open_logs(
    mesh: &Mesh,
    logs: &[model::AccessLogConfig],
    captures: &mut Captures,
) -> io::Result<AccessLog> {
    let mut entries = Vec::with_capacity(logs.len());
    for log in logs {
        let mut entry =
            AccessLogEntry::new(mesh.writer().open(&log.target)?).format(log.format.clone());
        if let Some(filter) = &log.filter {
            entry = entry.filter(filter.clone());
        }
        entries.push(entry);
    }
    let mut log = AccessLog::new(entries);
    log.bind(captures);
    Ok(log)
}

impl Shared {
    fn info(&self, connection: &Arc<ConnectionInfo>, start: Instant) -> RequestInfo {
        let random = self.worker.rng.next_u64();
        let (connection, version) = (Arc::clone(connection), Arc::clone(&self.version));
        RequestInfo::new(start, random, connection, version)
    }
}

/// Answers the requests of one downstream connection.
pub struct ConnectionHandler {
    manager: Manager,
    connection: Arc<ConnectionInfo>,
    /// What the connection is counted as being open in.
    protocol: Option<CodecEvent>,
}

impl ConnectionHandler {
    /// The stats of the manager.
    #[must_use]
    pub fn stats(&self) -> &ManagerStats {
        &self.manager.shared.stats
    }
}

impl Handler for ConnectionHandler {
    type Body = AnswerBody;
    type Exchange = ManagerExchange;

    fn call(&mut self, request: Request<Body>) -> ManagerExchange {
        self.manager.begin(request, &self.connection)
    }

    fn reject(&mut self, error: Error) -> Response<AnswerBody> {
        let shared = &self.manager.shared;
        let mut info = shared.info(&self.connection, clock::now());
        shared.stats.downstream_rq_total().inc();
        shared.stats.downstream_rq_active().inc();
        match error.kind() {
            ErrorKind::RequestReceiveTimeout => shared.stats.downstream_rq_header_timeout().inc(),
            _ => shared.stats.downstream_cx_protocol_error().inc(),
        }
        if let Some(message) = error.message() {
            tracing::debug!(
                connection = self.connection.id,
                "request refused: {message}"
            );
        }
        // What cannot be read has no version of its own; Envoy's log says so too.
        info.facts_mut().protocol = Some(Version::HTTP_11);
        let info = Arc::new(info);
        let context = ReplyContext::default();
        answer::local(shared, &info, error, context, Through::Nothing)
    }

    fn observe(&mut self, event: CodecEvent) {
        let Shared {
            stats, http2_stats, ..
        } = &*self.manager.shared;
        match event {
            CodecEvent::Http1 => {
                stats.downstream_cx_http1_total().inc();
                stats.downstream_cx_http1_active().inc();
                self.protocol = Some(event);
            }
            CodecEvent::Http2 => {
                stats.downstream_cx_http2_total().inc();
                stats.downstream_cx_http2_active().inc();
                self.protocol = Some(event);
            }
            CodecEvent::MaxRequests => stats.downstream_cx_max_requests_reached().inc(),
            CodecEvent::StreamBegan => http2_stats.streams_active().inc(),
            CodecEvent::StreamEnded => http2_stats.streams_active().dec(),
            CodecEvent::StreamResetByPeer => {
                http2_stats.streams_active().dec();
                http2_stats.rx_reset().inc();
            }
            CodecEvent::StreamResetByUs => {
                http2_stats.streams_active().dec();
                http2_stats.tx_reset().inc();
            }
            CodecEvent::Flooded(flood) => {
                stats.downstream_cx_protocol_error().inc();
                http2_stats.count_flood(flood);
                if flood == Flood::PrematureResets {
                    stats.downstream_rq_too_many_premature_resets().inc();
                }
            }
            CodecEvent::ProtocolError => stats.downstream_cx_protocol_error().inc(),
            CodecEvent::KeepaliveTimeout => http2_stats.keepalive_timeout().inc(),
            _ => {}
        }
    }
}

impl Drop for ConnectionHandler {
    fn drop(&mut self) {
        let stats = &self.manager.shared.stats;
        match self.protocol {
            Some(CodecEvent::Http1) => stats.downstream_cx_http1_active().dec(),
            Some(CodecEvent::Http2) => stats.downstream_cx_http2_active().dec(),
            _ => {}
        }
    }
}
