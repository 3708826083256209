use std::sync::{Arc, Mutex};

use http::{Request, StatusCode};
use mesh_core::{Body, Fixed, FromRequest, Mode, RequestInfo, Resources, RetryLimit, Thresholds};
use mesh_retry::{RetryConfig, RetryContext, RetryLayer, RetrySource, RetryStats};
use mesh_testkit::{Reply, Seen, Upstream};
use tower::Layer;

use super::{Bench, usual};

fn header(seen: &Seen, name: &str) -> String {
    let value = seen.headers.get(name).map(|value| value.to_str().unwrap());
    value.unwrap_or("-").to_owned()
}

#[tokio::test(start_paused = true)]
async fn attempts_are_numbered_when_the_config_asks() {
    let config = usual()
        .num_retries(2)
        .include_request_attempt_count(true)
        .include_is_timeout_retry_header(true)
        .build();
    let mut bench = Bench::new(config).script([Reply::status(503), Reply::status(503)]);
    bench
        .get_with(&[("x-envoy-attempt-count", "7")])
        .await
        .unwrap();
    let seen = bench.upstream.requests();
    let numbers: Vec<_> = seen
        .iter()
        .map(|s| header(s, "x-envoy-attempt-count"))
        .collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    let timeouts: Vec<_> = seen
        .iter()
        .map(|s| header(s, "x-envoy-is-timeout-retry"))
        .collect();
    assert_eq!(timeouts, ["-", "false", "false"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_attempt_is_numbered_without_any_condition() {
    let config = RetryConfig::builder()
        .include_request_attempt_count(true)
        .build();
    let mut bench = Bench::new(config);
    bench.get().await.unwrap();
    assert_eq!(
        header(&bench.upstream.requests()[0], "x-envoy-attempt-count"),
        "1"
    );
    assert_eq!(bench.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_the_same_request_with_the_same_extensions() {
    let mut bench = Bench::new(usual().build()).script([Reply::status(503)]);
    let mut request = mesh_testkit::request("http://test/path?query");
    request.headers_mut().append("x-a", "1".parse().unwrap());
    request.headers_mut().append("x-a", "2".parse().unwrap());
    request.extensions_mut().insert(7u32);
    *request.version_mut() = http::Version::HTTP_2;
    bench.send(request).await.unwrap();
    let seen = bench.upstream.requests();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].headers, seen[1].headers);
    assert_eq!(seen[0].uri, seen[1].uri);
    for seen in seen {
        assert_eq!(seen.extensions.get::<u32>(), Some(&7));
        assert!(Arc::ptr_eq(
            seen.extensions.get::<Arc<RequestInfo>>().unwrap(),
            &bench.info
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_nothing_is_touched() {
    let upstream = Upstream::new();
    upstream.script([Reply::status(503)]);
    let none = FromRequest(|_: &Request<Body>| None::<Arc<RetryConfig>>);
    let mut service = RetryLayer::from_source(none).layer(upstream.service());
    let mut request = mesh_testkit::request("http://test/");
    request
        .headers_mut()
        .append("x-envoy-retry-on", "5xx".parse().unwrap());
    let response = mesh_testkit::call(&mut service, request).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(header(&upstream.requests()[0], "x-envoy-retry-on"), "5xx");
}

#[tokio::test(start_paused = true)]
async fn shadow_counts_and_changes_nothing() {
    let config = usual()
        .mode(Mode::Shadow)
        .per_try_timeout(super::ms(1))
        .include_request_attempt_count(true)
        .build();
    let mut bench = Bench::new(config).script([Reply::status(503).after(super::ms(9))]);
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.upstream.count(), 1);
    assert_eq!(bench.counters(), ["upstream_rq_retry_shadow=1"]);
    assert_eq!(bench.trace(), "~retry:retried 1/2");
    assert_eq!(bench.flags(), "-");
    assert_eq!(
        header(&bench.upstream.requests()[0], "x-envoy-attempt-count"),
        "-"
    );
}

#[tokio::test(start_paused = true)]
async fn shadow_says_when_the_budget_would_have_refused() {
    let config = usual().mode(Mode::Shadow).build();
    let mut bench = Bench::with_max_retries(config, 0).script([Reply::status(503)]);
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.trace(), "~retry:retry_overflow 0/0");
    assert_eq!(bench.flags(), "-");
    assert!(bench.counters().is_empty());
}

/// Two clusters behind one layer.
#[derive(Clone)]
struct Clusters(Arc<Mutex<Vec<u16>>>, [Cluster; 2]);

#[derive(Clone)]
struct Cluster {
    name: Arc<str>,
    resources: Arc<Resources>,
    stats: RetryStats,
    retried: Arc<Mutex<Vec<u16>>>,
}

impl RetryContext for Cluster {
    fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    fn stats(&self) -> &RetryStats {
        &self.stats
    }

    fn owner(&self) -> Option<&Arc<str>> {
        Some(&self.name)
    }

    fn on_retried(&self, status: StatusCode) {
        self.retried.lock().unwrap().push(status.as_u16());
    }
}

impl RetrySource<Request<Body>> for Clusters {
    type Context = Cluster;

    fn context(&self, request: &Request<Body>) -> Option<Cluster> {
        match request.uri().host()? {
            "a" => Some(self.1[0].clone()),
            "b" => Some(self.1[1].clone()),
            _ => None,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_is_charged_to_its_own_cluster() {
    let retried = Arc::default();
    let cluster = |name: &str, max| Cluster {
        name: name.into(),
        resources: Resources::new(&Thresholds {
            retries: RetryLimit::Max(max),
            ..Thresholds::default()
        }),
        stats: RetryStats::detached(),
        retried: Arc::clone(&retried),
    };
    let clusters = Clusters(Arc::clone(&retried), [cluster("a", 1), cluster("b", 0)]);
    let upstream = Upstream::new();
    let policy = Fixed::new(usual().build());
    let layer = RetryLayer::from_source(policy).with_budget(clusters.clone());
    let mut service = layer.layer(upstream.service());
    for (host, status, trace) in [
        ("a", 200, "retry(a):retried 1/2"),
        ("b", 503, "retry(b):retry_overflow 0/0"),
        ("c", 503, "-"),
    ] {
        upstream.reply(Reply::status(503));
        let mut request = mesh_testkit::request(&format!("http://{host}/"));
        let info = mesh_testkit::info();
        RequestInfo::attach(&info, &mut request);
        let answer = mesh_testkit::call(&mut service, request).await.unwrap();
        if host == "a" {
            assert_eq!(upstream.count(), 2);
        }
        assert_eq!(answer.status(), status);
        assert_eq!(info.with(|facts| facts.trace.to_string()), trace);
    }
    assert_eq!(*clusters.0.lock().unwrap(), [503]);
    // The layer does not count requests where somebody else does.
    assert_eq!(
        clusters.1[0]
            .resources
            .in_use(mesh_core::Resource::Requests),
        0
    );
}
