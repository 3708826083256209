//! Active health checks of a cluster's endpoints, on the runtime of the [`Mesh`](crate::Mesh).

mod grpc;
mod http;
mod tcp;
mod way;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use mesh_balance::health::{
    Failure, HealthChecker, HealthSession, HealthStats, Outcome, Passed, Report,
};
use mesh_config::model::{
    Cluster, EndpointCheck, HealthCheck, Probe, TransportSocketMatch, UpstreamProxyProtocol,
};
use mesh_core::{
    Address, BoxFuture, Endpoint, EndpointState, Error, HealthFlag, clock, sync::AtomicU64,
};
use mesh_net::{Connect, Stream};
use mesh_telemetry::LogSink;
use tokio::{sync::watch, task::AbortHandle};
use tower_service::Service;

pub(crate) use http::fails_at_once;
use way::Way;

use crate::{
    cluster::{ClusterState, lock},
    mesh::Env,
    proxy_protocol,
    tls::{self, Sockets},
};

/// The checks of one cluster. They outlive config pushes that change nothing about them.
#[derive(Default)]
pub(crate) struct Checks {
    live: Mutex<Option<Live>>,
    /// Ticks with each first result.
    checked: watch::Sender<()>,
}

/// The checks as one config has them.
struct Live {
    config: Arc<HealthCheck>,
    checker: Arc<HealthChecker>,
    /// Which of the matches checks are connected by, where that is not the endpoint's affair.
    socket: Option<usize>,
    matches: Vec<TransportSocketMatch>,
    /// Checks are encrypted as requests are.
    sockets: Arc<Sockets>,
    /// In front of their connections is what is in front of those of requests.
    proxy_protocol: Option<Arc<UpstreamProxyProtocol>>,
    connector: Arc<dyn Connect>,
    /// By the endpoint's own address; bounded by the endpoints of the cluster.
    running: HashMap<Address, Running>,
}

/// The check of one endpoint, and the task that runs it.
struct Running {
    session: Arc<HealthSession>,
    asked: EndpointCheck,
    task: AbortHandle,
}

impl Running {
    /// Whether connections to the endpoint are made as they were when this began.
    fn knows(&self, endpoint: &Endpoint) -> bool {
        let known = self.session.endpoint();
        known.hostname == endpoint.hostname
            && known.metadata == endpoint.metadata
            && known.transport_socket == endpoint.transport_socket
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        self.session.end();
    }
}

/// An endpoint, and what the config says about its check.
pub(crate) struct Member<'a> {
    pub(crate) endpoint: &'a Arc<Endpoint>,
    pub(crate) check: &'a EndpointCheck,
    /// It took requests before it was checked; it goes on until checks fail.
    pub(crate) known: bool,
}

/// Whom a check asks, and how it gets there.
struct Target {
    /// Where the check goes: not always where requests go.
    endpoint: Arc<Endpoint>,
    connector: Arc<dyn Connect>,
    /// Whether the connection is kept for the next check.
    reuse: bool,
}

impl Target {
    async fn connect(&self) -> Result<Stream, Error> {
        self.connector.connect(Arc::clone(&self.endpoint)).await
    }
}

/// What checks set; all goes when an endpoint is no longer checked.
const FLAGS: [HealthFlag; 6] = [
    HealthFlag::FailedActive,
    HealthFlag::DegradedActive,
    HealthFlag::PendingActive,
    HealthFlag::Excluded,
    HealthFlag::ActiveTimeout,
    HealthFlag::PendingRemoval,
];

/// Asks one endpoint how it is.
trait Ask: Send + Sync + 'static {
    /// Asks once. Whoever gives up drops the future.
    fn ask(&self) -> impl Future<Output = Result<Passed, Failure>> + Send;
}

/// The service that a session is given.
struct Prober<A>(Arc<A>);

impl<A: Ask> Service<()> for Prober<A> {
    type Response = Passed;
    type Error = Failure;
    type Future = BoxFuture<Result<Passed, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let asking = Arc::clone(&self.0);
        Box::pin(async move { asking.ask().await })
    }
}

impl Checks {
    /// The check as this config version has it. Endpoints that were checked stay as they were seen last.
    pub(crate) fn configure(
        &self,
        state: &Arc<ClusterState>,
        cluster: &Cluster,
        sockets: &Arc<Sockets>,
        env: &Env,
        logs: Vec<LogSink>,
    ) {
        let mut live = lock(&self.live);
        let Some(config) = &cluster.health_check else {
            let running = live.take().map(|live| live.running);
            for running in running.unwrap_or_default().values() {
                forget(&running.session.endpoint().state);
            }
            return;
        };
        // The labels of endpoints and checks mean something else when the matches do.
        let same = |live: &Live| {
            live.config == *config
                && Arc::ptr_eq(&live.sockets, sockets)
                && live.matches == cluster.socket_matches
                && live.proxy_protocol == cluster.proxy_protocol
        };
        if live.as_ref().is_some_and(same) {
            return;
        }
        let mut next = Live {
            config: Arc::clone(config),
            checker: checker(state, cluster, config, env, logs),
            socket: config
                .socket_labels
                .as_ref()
                .map(|labels| TransportSocketMatch::pick(&cluster.socket_matches, labels)),
            matches: cluster.socket_matches.clone(),
            sockets: Arc::clone(sockets),
            proxy_protocol: cluster.proxy_protocol.clone(),
            connector: tls::over(
                &proxy_protocol::said(&env.connector, cluster, None),
                sockets,
            ),
            running: HashMap::new(),
        };
        // Each goes on under the new rules from where it stood.
        for (address, old) in live.take().into_iter().flat_map(|live| live.running) {
            let session = &old.session;
            let new = next.start(session.endpoint(), &old.asked, session.is_checked(), env);
            next.running.insert(address, new);
        }
        *live = Some(next);
    }

    /// The endpoints of the cluster are these and no others. Those that are new count as failed until they
    /// have been checked; so this comes before anybody may pick them.
    pub(crate) fn assign(&self, members: &[Member<'_>], pending: bool, env: &Env) {
        let mut live = lock(&self.live);
        let Some(live) = live.as_mut() else { return };
        let mut next = HashMap::with_capacity(members.len());
        for Member {
            endpoint,
            check,
            known,
        } in members
        {
            let address = endpoint.address();
            let before = live.running.remove(address);
            if check.disabled {
                forget(&endpoint.state);
                continue;
            }
            let running = match before {
                Some(running) if running.asked == **check && running.knows(endpoint) => running,
                Some(running) => live.start(endpoint, check, running.session.is_checked(), env),
                None => {
                    if !known {
                        endpoint.state.set_health(HealthFlag::FailedActive, true);
                        endpoint
                            .state
                            .set_health(HealthFlag::PendingActive, pending);
                    }
                    live.start(endpoint, check, false, env)
                }
            };
            next.insert(address.clone(), running);
        }
        live.running = next;
    }

    /// The check of the endpoint at `address`, if it is checked.
    pub(crate) fn session(&self, address: &Address) -> Option<Arc<HealthSession>> {
        let live = lock(&self.live);
        let running = live.as_ref()?.running.get(address)?;
        Some(Arc::clone(&running.session))
    }

    /// What the config says about the check of the endpoint at `address`, if it is checked.
    pub(crate) fn asked(&self, address: &Address) -> Option<EndpointCheck> {
        let live = lock(&self.live);
        Some(live.as_ref()?.running.get(address)?.asked.clone())
    }

    /// Waits until every endpoint has been checked once, whatever came of it.
    pub(crate) async fn settled(&self) {
        let mut checked = self.checked.subscribe();
        while !self.all_checked() {
            if checked.changed().await.is_err() {
                return;
            }
        }
    }

    fn all_checked(&self) -> bool {
        let live = lock(&self.live);
        let mut running = live.iter().flat_map(|live| live.running.values());
        running.all(|running| running.session.is_checked())
    }

    /// Somebody who waits for checks should look again.
    pub(crate) fn look_again(&self) {
        self.checked.send_replace(());
    }
}

impl Live {
    fn start(
        &self,
        endpoint: &Arc<Endpoint>,
        asked: &EndpointCheck,
        checked: bool,
        env: &Env,
    ) -> Running {
        let session = self.checker.watch(endpoint, checked);
        let target = Target {
            endpoint: asked_endpoint(endpoint, asked, self.socket),
            connector: Arc::clone(&self.connector),
            reuse: self.config.reuse_connection,
        };
        let stats = self.checker.stats().clone();
        let task = match &self.config.probe {
            Probe::Http(probe) => {
                let way = if probe.http2 {
                    Way::http2(target)
                } else {
                    Way::http1(target)
                };
                let asking = http::HttpAsking::new(probe, way, &asked.hostname, stats);
                spawn(&session, asking, env)
            }
            Probe::Grpc(probe) => {
                let (way, timeout) = (Way::http2(target), self.config.schedule.timeout);
                let asking = grpc::GrpcAsking::new(probe, way, &asked.hostname, timeout);
                spawn(&session, asking, env)
            }
            Probe::Tcp(probe) => spawn(&session, tcp::TcpAsking::new(probe, target), env),
        };
        Running {
            session,
            asked: asked.clone(),
            task,
        }
    }
}

/// An endpoint that is no longer checked is as well as the rest says.
fn forget(endpoint: &EndpointState) {
    for flag in FLAGS {
        endpoint.set_health(flag, false);
    }
}

fn spawn(session: &Arc<HealthSession>, asking: impl Ask, env: &Env) -> AbortHandle {
    let prober = Prober(Arc::new(asking));
    env.runtime.spawn(session.run(prober)).abort_handle()
}

/// The endpoint as checks reach it, maybe at another address. What happens there is not counted as the
/// endpoint's own requests and connections.
fn asked_endpoint(
    endpoint: &Arc<Endpoint>,
    asked: &EndpointCheck,
    socket: Option<usize>,
) -> Arc<Endpoint> {
    let address = asked.address(endpoint.address());
    let state = EndpointState::new(address, Arc::new(AtomicU64::new(0)));
    Arc::new(Endpoint {
        state: Arc::new(state),
        transport_socket: socket.unwrap_or(endpoint.transport_socket),
        ..Endpoint::clone(endpoint)
    })
}

fn checker(
    state: &Arc<ClusterState>,
    cluster: &Cluster,
    config: &HealthCheck,
    env: &Env,
    logs: Vec<LogSink>,
) -> Arc<HealthChecker> {
    let prefix = format!("cluster.{}.health_check.", cluster.stat_name);
    let scope = env.registry.scope(&prefix);
    let (used, told) = (Arc::downgrade(state), Arc::downgrade(state));
    let mut builder = HealthChecker::builder(Arc::clone(&cluster.name), config.schedule.clone())
        .kind(config.probe.name())
        .stats(HealthStats::register(&scope))
        .rng(env.rng.clone())
        .has_traffic(move || {
            used.upgrade()
                .is_some_and(|state| state.pool_stats.upstream.upstream_cx_total().value() > 0)
        })
        .on_checked(move |endpoint, outcome, report| {
            if let Some(state) = told.upgrade() {
                on_checked(&state, endpoint, outcome, report);
            }
        });
    if !logs.is_empty() {
        builder = builder.on_event(move |event| {
            let json = event.to_json();
            for log in &logs {
                log.write(|line| {
                    line.push_str(&json);
                    line.push('\n');
                });
            }
        });
    }
    builder.build()
}

fn on_checked(state: &ClusterState, endpoint: &Arc<Endpoint>, outcome: &Outcome, report: &Report) {
    let flags = &endpoint.state;
    let failed = flags.has(HealthFlag::FailedActive);
    if matches!(outcome, Outcome::Passed(_)) && !failed {
        state.on_health_check_passed(clock::now(), endpoint.address());
    }
    if failed && flags.has(HealthFlag::PendingRemoval) {
        state.remove(endpoint.address());
    }
    if report.first {
        state.checks.look_again();
    }
}
