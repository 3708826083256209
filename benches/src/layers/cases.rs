//! What is measured: each layer around the trivial service, and the parts that are no layers.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context as _, Result};
use http::{HeaderMap, Request, Response, StatusCode};
use mesh_balance::{
    BalanceConfig, Balancer, EndpointSet, LbPolicy, LeastRequestConfig, MaglevConfig, PickContext,
    RingHashConfig,
};
use mesh_breaker::{BreakerConfig, BreakerLayer, ThresholdsLayer};
use mesh_core::{
    Body, ConnectionInfo, Endpoint, EndpointState, RequestInfo, Rng, Thresholds, clock,
    format::{Captures, FormatContext, RequestView},
    stats::Registry,
};
use mesh_outlier::{Detector, OutlierConfig, OutlierLayer};
use mesh_ratelimit::{LocalRateLimitConfig, RateLimitLayer};
use mesh_retry::{DeadlineConfig, DeadlineLayer, RetryConfig, RetryLayer, RetryOn};
use mesh_route::{
    ClusterSpecifier, Found, Route, RouteAction, RouteConfiguration, RouteMatch, RouteTable,
    VirtualHost,
};
use mesh_telemetry::{AccessLog, AccessLogEntry, LogWriter, LogWriterConfig, Target};
use tower_layer::Layer;
use tower_service::Service;

use super::upstream::{Requests, Upstream, exchange, headers};

/// One thing whose cost is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What to subtract: the same without it.
    pub(crate) over: Option<&'static str>,
    /// At most so many allocations per call.
    pub(crate) allocations_max: Option<f64>,
    pub(crate) make: fn() -> Result<Call>,
}

/// Does it once.
pub(crate) type Call = Box<dyn FnMut()>;

const BARE: &str = "bare";

pub(crate) const CASES: [Case; 29] = [
    Case {
        name: BARE,
        over: None,
        allocations_max: None,
        make: || Ok(layered(Upstream)),
    },
    layer("retry", 6.0, || {
        Ok(layered(retry(Duration::ZERO)?.layer(Upstream)))
    }),
    layer("retry-per-try-timeout", 6.0, || {
        Ok(layered(retry(Duration::from_secs(5))?.layer(Upstream)))
    }),
    layer("deadline", 1.0, || Ok(layered(deadline().layer(Upstream)))),
    layer("thresholds", 1.0, || {
        Ok(layered(thresholds().http().layer(Upstream)))
    }),
    layer("breaker", 1.0, || {
        Ok(layered(
            BreakerLayer::http(BreakerConfig::default()).layer(Upstream),
        ))
    }),
    layer("outlier", 1.0, || {
        let (detector, endpoint) = outlier();
        let mut call =
            layered(OutlierLayer::http(detector.monitor(&endpoint.state)).layer(Upstream));
        Ok(Box::new(move || {
            // The monitor does not keep its detector.
            let _ = &detector;
            call();
        }))
    }),
    layer("ratelimit", 1.0, || {
        Ok(layered(rate_limit()?.layer(Upstream)))
    }),
    layer("all-layers", f64::INFINITY, all_layers),
    part("pick-round-robin-10", 0.0, || Ok(round_robin(10))),
    part("pick-round-robin-1000", 0.0, || Ok(round_robin(1_000))),
    part("pick-round-robin-10000", 0.0, || Ok(round_robin(10_000))),
    part("pick-weighted-10", 0.0, || Ok(weighted(10))),
    part("pick-weighted-1000", 0.0, || Ok(weighted(1_000))),
    part("pick-weighted-10000", 0.0, || Ok(weighted(10_000))),
    part("pick-least-request-10", 0.0, || Ok(least_request(10))),
    part("pick-least-request-1000", 0.0, || Ok(least_request(1_000))),
    part("pick-least-request-10000", 0.0, || {
        Ok(least_request(10_000))
    }),
    part("pick-ring-hash-10", 0.0, || Ok(ring_hash(10))),
    part("pick-ring-hash-1000", 0.0, || Ok(ring_hash(1_000))),
    part("pick-ring-hash-10000", 0.0, || Ok(ring_hash(10_000))),
    part("pick-maglev-10", 0.0, || Ok(maglev(10))),
    part("pick-maglev-1000", 0.0, || Ok(maglev(1_000))),
    part("pick-maglev-10000", 0.0, || Ok(maglev(10_000))),
    part("route-10", 0.0, || find(10)),
    part("route-5000", 0.0, || find(5_000)),
    part("access-log", 1.0, access_log),
    Case {
        name: "request-info",
        over: None,
        allocations_max: None,
        make: || {
            let mut requests = Requests::new();
            Ok(Box::new(move || {
                drop(std::hint::black_box(requests.next()))
            }))
        },
    },
    part("clock", 0.0, || {
        Ok(Box::new(|| {
            std::hint::black_box(clock::now());
        }))
    }),
];

const fn layer(name: &'static str, allocations_max: f64, make: fn() -> Result<Call>) -> Case {
    Case {
        name,
        over: Some(BARE),
        allocations_max: Some(allocations_max),
        make,
    }
}

const fn part(name: &'static str, allocations_max: f64, make: fn() -> Result<Call>) -> Case {
    Case {
        name,
        over: None,
        allocations_max: Some(allocations_max),
        make,
    }
}

/// One exchange through `service` after the other.
fn layered<S, B>(mut service: S) -> Call
where
    S: Service<Request<Body>, Response = Response<B>, Error: std::fmt::Debug> + 'static,
    B: http_body::Body<Error: std::fmt::Debug> + 'static,
{
    let mut requests = Requests::new();
    Box::new(move || exchange(&mut service, requests.next()))
}

/// As the policies of the load runs have it.
fn retry(per_try_timeout: Duration) -> Result<RetryLayer> {
    let mut config = RetryConfig::builder()
        .retry_on("5xx,reset,connect-failure".parse::<RetryOn>()?)
        .num_retries(2);
    if !per_try_timeout.is_zero() {
        config = config.per_try_timeout(per_try_timeout);
    }
    Ok(RetryLayer::new(config.build()))
}

fn deadline() -> DeadlineLayer {
    DeadlineLayer::new(DeadlineConfig::new(Duration::from_secs(15)))
}

fn thresholds() -> ThresholdsLayer<mesh_core::Fixed<mesh_core::Resources>> {
    ThresholdsLayer::new(&Thresholds::default())
}

fn outlier() -> (Arc<Detector>, Endpoint) {
    let detector = Detector::new("bench", OutlierConfig::default());
    let endpoint = endpoint(1);
    detector.set_endpoints([&endpoint.state]);
    (detector, endpoint)
}

fn rate_limit() -> Result<RateLimitLayer<mesh_core::Fixed<mesh_ratelimit::LocalRateLimit>>> {
    Ok(RateLimitLayer::fixed(LocalRateLimitConfig::per_second(
        1_000_000_000,
    )?))
}

fn all_layers() -> Result<Call> {
    let (detector, endpoint) = outlier();
    let service = OutlierLayer::http(detector.monitor(&endpoint.state)).layer(Upstream);
    let service = thresholds().http().layer(service);
    let service = retry(Duration::from_secs(5))?.layer(service);
    let service = deadline().layer(service);
    let mut call = layered(rate_limit()?.layer(service));
    Ok(Box::new(move || {
        let _ = &detector;
        call();
    }))
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::standalone(SocketAddr::from(([127, 0, 0, 1], port)))
}

fn round_robin(endpoints: u16) -> Call {
    pick(LbPolicy::RoundRobin, endpoints, |_| 1)
}

/// Round robin where no two neighbours weigh the same.
fn weighted(endpoints: u16) -> Call {
    pick(LbPolicy::RoundRobin, endpoints, |port| {
        u32::from(port % 7) + 1
    })
}

fn least_request(endpoints: u16) -> Call {
    let policy = LbPolicy::LeastRequest(LeastRequestConfig::default());
    pick(policy, endpoints, |_| 1)
}

/// By a hash that is drawn at random.
fn ring_hash(endpoints: u16) -> Call {
    let policy = LbPolicy::RingHash(RingHashConfig::default());
    pick(policy, endpoints, |_| 1)
}

fn maglev(endpoints: u16) -> Call {
    let policy = LbPolicy::Maglev(MaglevConfig::default());
    pick(policy, endpoints, |_| 1)
}

/// From so many endpoints of one cluster.
fn pick(policy: LbPolicy, endpoints: u16, weight: fn(u16) -> u32) -> Call {
    let config = BalanceConfig {
        policy,
        ..BalanceConfig::default()
    };
    let generation = Arc::new(AtomicU64::new(0));
    let endpoint = |port| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let state = EndpointState::new(address.into(), Arc::clone(&generation));
        Endpoint {
            weight: weight(port),
            ..Endpoint::new(Arc::new(state))
        }
    };
    let mut balancer = Balancer::new(config, EndpointSet::new((1..=endpoints).map(endpoint)));
    let rng = Rng::seeded(1);
    Box::new(move || {
        let picked = balancer.pick(&PickContext::new(&rng));
        assert!(std::hint::black_box(picked).is_ok());
    })
}

/// The route in the middle of so many.
fn find(routes: usize) -> Result<Call> {
    let route = |number: usize| {
        let action = RouteAction::new(ClusterSpecifier::Cluster(format!("c{number}").into()));
        Route::new(
            RouteMatch::prefix(format!("/service-{number}/")),
            action,
            (),
        )
    };
    let host = VirtualHost::new(
        "all",
        vec!["*".to_owned()],
        (0..routes).map(route).collect(),
    );
    let config = RouteConfiguration::new("bench", vec![host]);
    let table = RouteTable::new(config, &mut Captures::default())?;
    let path = format!("/service-{}/users/17?full=1", routes / 2);
    let (mut parts, ()) = Request::get(path).body(())?.into_parts();
    parts.headers = headers();
    let mut draws = 0;
    Ok(Box::new(move || {
        draws += 1;
        let found = table.find(&RequestView::of_parts(&parts), draws);
        assert!(matches!(std::hint::black_box(found), Ok(Found::Route(_))));
    }))
}

/// Envoy's default format, to a file that takes everything.
fn access_log() -> Result<Call> {
    let writer = LogWriter::new(LogWriterConfig::default(), &Registry::new().scope(""));
    let sink = writer
        .open(&Target::path("/dev/null"))
        .context("opening /dev/null")?;
    let mut captures = Captures::default();
    let mut log = AccessLog::new(vec![AccessLogEntry::new(sink)]);
    log.bind(&mut captures);
    let connection = Arc::new(ConnectionInfo::in_process());
    let info = RequestInfo::new(clock::now(), 1, connection, Arc::from("bench"));
    let (mut parts, ()) = Request::get("/small").body(())?.into_parts();
    parts.headers = headers();
    let captured = captures.capture(&RequestView::of_parts(&parts));
    info.with(|facts| {
        facts.captured = captured;
        facts.cluster = Some(Arc::from("app"));
        facts.endpoint = Some(Arc::new(endpoint(1)));
        facts.protocol = Some(http::Version::HTTP_11);
        facts.attempts = 1;
    });
    let answered = HeaderMap::new();
    Ok(Box::new(move || {
        let _ = &writer;
        let context = FormatContext::new(&info).with_response(StatusCode::OK, &answered);
        log.log(&context.with_end(info.start));
    }))
}
