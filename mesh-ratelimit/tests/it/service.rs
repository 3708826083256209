use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Request};
use mesh_core::{
    Body, Error, ErrorKind, Fixed, FractionalPercent, FromRequest, Mode, RequestInfo, ResponseFlag,
    Rng, RuntimeFraction, Sent, clock, stats::Registry,
};
use mesh_ratelimit::{
    HeadersToAdd, LocalRateLimit, LocalRateLimitConfig, RateLimitLayer, RateLimitStore,
    RequestView, TokenBucketConfig, XRateLimitHeaders,
};
use mesh_testkit::{Upstream, advance, call, info, request};
use tower_layer::Layer;

fn one_a_second() -> LocalRateLimitConfig {
    LocalRateLimitConfig::per_second(1).unwrap()
}

fn fixed(name: &'static str, value: &'static str) -> HeadersToAdd {
    HeadersToAdd::fixed([(
        HeaderName::from_static(name),
        HeaderValue::from_static(value),
    )])
}

fn with_info(uri: &str) -> (Request<Body>, Arc<RequestInfo>) {
    let (mut request, info) = (request(uri), info());
    RequestInfo::attach(&info, &mut request);
    (request, info)
}

/// A limit that the test can look into, and the service over an upstream that it limits.
fn limited(
    config: LocalRateLimitConfig,
) -> (
    Upstream,
    Arc<LocalRateLimit>,
    mesh_ratelimit::RateLimit<mesh_testkit::UpstreamService, Fixed<LocalRateLimit>>,
) {
    let upstream = Upstream::new();
    let limit = Arc::new(LocalRateLimit::new(config, clock::now()).owned_by(&Arc::from("web")));
    let service = RateLimitLayer::new(Fixed(Arc::clone(&limit)))
        .with_rng(Rng::seeded(1))
        .layer(upstream.service());
    (upstream, limit, service)
}

fn counts(limit: &LocalRateLimit) -> [u64; 5] {
    let stats = limit.stats();
    [
        stats.enabled().value(),
        stats.ok().value(),
        stats.rate_limited().value(),
        stats.enforced().value(),
        stats.shadow_mode().value(),
    ]
}

fn header<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test(start_paused = true)]
async fn refuses_the_excess_with_what_envoy_says() {
    let (upstream, limit, mut service) = limited(LocalRateLimitConfig {
        response_headers_to_add: fixed("x-limited", "yes"),
        ..one_a_second()
    });
    call(&mut service, request("http://a/")).await.unwrap();
    let (second, info) = with_info("http://a/");
    let mut error: Error = call(&mut service, second).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.sent()),
        (ErrorKind::RateLimited, Sent::Nothing)
    );
    let reply = error.take_reply().unwrap();
    assert_eq!(reply.status, 429);
    assert_eq!(
        (&reply.body[..], &*reply.details),
        (&b"local_rate_limited"[..], "local_rate_limited")
    );
    assert_eq!(header(&reply.headers, "x-limited"), Some("yes"));
    assert_eq!(header(&reply.headers, "x-ratelimit-limit"), None);
    assert!(info.flags.has(ResponseFlag::RateLimited));
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "local_ratelimit(web):rate_limited 0/1"
    );
    assert_eq!(upstream.count(), 1);
    assert_eq!(counts(&limit), [2, 1, 1, 1, 0]);

    advance(Duration::from_secs(1)).await;
    call(&mut service, request("http://a/")).await.unwrap();
    assert_eq!(counts(&limit), [3, 2, 1, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn does_nothing_by_default_as_envoy() {
    let (upstream, limit, mut service) = limited(LocalRateLimitConfig {
        token_bucket: Some(TokenBucketConfig::per_second(1).unwrap()),
        ..LocalRateLimitConfig::default()
    });
    for _ in 0..5 {
        call(&mut service, request("http://a/")).await.unwrap();
    }
    assert_eq!(upstream.count(), 5);
    assert_eq!(counts(&limit), [0; 5]);
}

#[tokio::test(start_paused = true)]
async fn without_a_bucket_it_only_counts() {
    let (_, limit, mut service) = limited(LocalRateLimitConfig {
        token_bucket: None,
        enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
        ..one_a_second()
    });
    for _ in 0..3 {
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(header(response.headers(), "x-ratelimit-limit"), None);
    }
    assert_eq!(counts(&limit), [3, 3, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_enforced_passes_with_request_headers() {
    let (upstream, limit, mut service) = limited(LocalRateLimitConfig {
        filter_enforced: RuntimeFraction::fixed(FractionalPercent::ZERO),
        request_headers_to_add_when_not_enforced: HeadersToAdd::with(
            |request: &RequestView<'_>, headers: &mut http::HeaderMap| {
                let path = request.uri.path().parse().unwrap();
                headers.insert("x-excess", path);
            },
        ),
        ..one_a_second()
    });
    call(&mut service, request("http://a/first")).await.unwrap();
    let (second, info) = with_info("http://a/second");
    call(&mut service, second).await.unwrap();
    let seen = upstream.requests();
    assert_eq!(header(&seen[0].headers, "x-excess"), None);
    assert_eq!(header(&seen[1].headers, "x-excess"), Some("/second"));
    assert!(info.flags.is_empty());
    assert_eq!(
        info.with(|facts| facts.trace.to_string()),
        "~local_ratelimit(web):rate_limited 0/1"
    );
    assert_eq!(counts(&limit), [2, 1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn shadow_mode_counts_and_changes_nothing() {
    let (upstream, limit, mut service) = limited(LocalRateLimitConfig {
        mode: Mode::Shadow,
        enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
        request_headers_to_add_when_not_enforced: fixed("x-excess", "1"),
        ..one_a_second()
    });
    for _ in 0..3 {
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert!(response.headers().is_empty());
    }
    let seen = upstream.requests();
    assert!(seen.len() == 3 && seen.iter().all(|seen| seen.headers.is_empty()));
    assert_eq!(counts(&limit), [3, 1, 2, 0, 2]);
}

#[tokio::test(start_paused = true)]
async fn fractions_hold_for_their_share_of_requests() {
    let (_, limit, mut service) = limited(LocalRateLimitConfig {
        filter_enabled: RuntimeFraction::fixed(FractionalPercent::percent(50)),
        filter_enforced: RuntimeFraction::fixed(FractionalPercent::percent(50)),
        ..one_a_second()
    });
    for _ in 0..1_000 {
        let _ = call(&mut service, request("http://a/")).await;
    }
    let [enabled, ok, limited, enforced, _] = counts(&limit);
    assert!((450..550).contains(&enabled), "{enabled}");
    assert_eq!((ok, limited), (1, enabled - 1));
    assert!(
        (limited * 2 / 5..limited * 3 / 5).contains(&enforced),
        "{enforced}"
    );
}

#[tokio::test(start_paused = true)]
async fn tells_what_is_left_on_every_response() {
    let config = TokenBucketConfig::new(3, 1, Duration::from_secs(4)).unwrap();
    let (upstream, _, mut service) = limited(LocalRateLimitConfig {
        enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
        ..LocalRateLimitConfig::always(config)
    });
    // What the upstream says of its own limit gives way.
    upstream.reply(mesh_testkit::Reply::status(200).header("x-ratelimit-remaining", "77"));
    let quota = |headers: &http::HeaderMap| {
        ["limit", "remaining", "reset"]
            .map(|part| header(headers, &format!("x-ratelimit-{part}")).map(str::to_owned))
    };
    for left in ["2", "1"] {
        let response = call(&mut service, request("http://a/")).await.unwrap();
        assert_eq!(
            quota(response.headers()),
            [Some("3".into()), Some(left.into()), Some("0".into())]
        );
    }
    call(&mut service, request("http://a/")).await.unwrap();
    advance(Duration::from_millis(500)).await;
    let mut error = call(&mut service, request("http://a/")).await.unwrap_err();
    assert_eq!(
        quota(&error.take_reply().unwrap().headers),
        [Some("3".into()), Some("0".into()), Some("3".into())]
    );
}

#[tokio::test(start_paused = true)]
async fn grpc_clients_are_told_resource_exhausted_when_asked() {
    let (_, _, mut service) = limited(LocalRateLimitConfig {
        rate_limited_as_resource_exhausted: true,
        ..one_a_second()
    });
    call(&mut service, request("http://a/")).await.unwrap();
    for (content_type, status) in [
        ("application/grpc", Some("8")),
        ("application/grpc+proto", Some("8")),
        ("application/grpc-web", None),
        ("text/plain", None),
    ] {
        let mut grpc = request("http://a/");
        grpc.headers_mut()
            .insert("content-type", HeaderValue::from_static(content_type));
        let mut error = call(&mut service, grpc).await.unwrap_err();
        let headers = error.take_reply().unwrap().headers;
        assert_eq!(header(&headers, "grpc-status"), status, "{content_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_below_400_is_read_as_429() {
    for (status, sent) in [(200, 429), (399, 429), (503, 503)] {
        let (_, _, mut service) = limited(LocalRateLimitConfig {
            status: http::StatusCode::from_u16(status).unwrap(),
            ..one_a_second()
        });
        call(&mut service, request("http://a/")).await.unwrap();
        let mut error = call(&mut service, request("http://a/")).await.unwrap_err();
        assert_eq!(error.take_reply().unwrap().status, sent);
    }
}

#[tokio::test(start_paused = true)]
async fn each_route_has_its_own_bucket_and_a_request_without_one_passes() {
    let upstream = Upstream::new();
    let now = clock::now();
    let a = Arc::new(LocalRateLimit::new(one_a_second(), now));
    let b = Arc::new(LocalRateLimit::new(one_a_second(), now));
    let source = FromRequest(move |request: &Request<Body>| match request.uri().path() {
        "/a" => Some(Arc::clone(&a)),
        "/b" => Some(Arc::clone(&b)),
        _ => None,
    });
    let mut service = RateLimitLayer::new(source).layer(upstream.service());
    for (path, allowed) in [("/a", true), ("/b", true), ("/a", false), ("/b", false)] {
        let result = call(&mut service, request(&format!("http://x{path}"))).await;
        assert_eq!(result.is_ok(), allowed, "{path}");
    }
    for _ in 0..10 {
        call(&mut service, request("http://x/c")).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn each_connection_has_its_own_bucket_when_asked() {
    let (_, limit, mut service) = limited(LocalRateLimitConfig {
        local_rate_limit_per_downstream_connection: true,
        ..one_a_second()
    });
    let (first, second) = (info(), info());
    let on = |info: &Arc<RequestInfo>| {
        let mut request = request("http://a/");
        RequestInfo::attach(info, &mut request);
        request
    };
    call(&mut service, on(&first)).await.unwrap();
    assert!(call(&mut service, on(&first)).await.is_err());
    call(&mut service, on(&second)).await.unwrap();
    assert!(call(&mut service, on(&second)).await.is_err());
    assert_eq!(counts(&limit), [4, 2, 2, 2, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_config_push_refills_no_bucket_whose_parameters_stay() {
    let (store, registry) = (RateLimitStore::new(), Registry::new());
    let now = clock::now();
    let live = |config| store.live("listener/in/0", config, &registry.scope(""), now);
    let allowed = |limit: &Arc<LocalRateLimit>| {
        let request = request("http://a/");
        let verdict = limit.decide(&RequestView::new(&request), now, || 0);
        matches!(verdict, mesh_ratelimit::Verdict::Ok(_))
    };
    let old = live(one_a_second());
    assert!(allowed(&old) && !allowed(&old));
    // Another status, the same bucket.
    let pushed = live(LocalRateLimitConfig {
        status: http::StatusCode::SERVICE_UNAVAILABLE,
        ..one_a_second()
    });
    drop(old);
    assert!(!allowed(&pushed));
    assert_eq!(pushed.stats().enabled().value(), 3);
    // Another owner, and another bucket.
    assert!(allowed(&store.live(
        "listener/in/1",
        one_a_second(),
        &registry.scope(""),
        now
    )));
    let larger = live(LocalRateLimitConfig::per_second(2).unwrap());
    assert!(allowed(&larger));
    drop((pushed, larger));
    // Nobody held it: it starts afresh.
    assert!(allowed(&live(one_a_second())));
}

#[tokio::test(start_paused = true)]
async fn stats_carry_the_prefix_and_no_other() {
    let (store, registry) = (RateLimitStore::new(), Registry::new());
    let config = LocalRateLimitConfig {
        stat_prefix: Arc::from("edge"),
        ..one_a_second()
    };
    let _limit = store.live("x", config, &registry.scope(""), clock::now());
    let names: Vec<_> = registry
        .snapshot()
        .into_iter()
        .map(|stat| stat.name)
        .collect();
    assert_eq!(
        names,
        ["enabled", "enforced", "ok", "rate_limited", "shadow_mode"]
            .map(|name| format!("edge.http_local_rate_limit.{name}"))
    );
}

#[tokio::test(start_paused = true)]
async fn errors_of_any_service_pass_as_mesh_errors() {
    let inner = tower::service_fn(|_: Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::from(std::io::ErrorKind::ConnectionRefused))
    });
    let layer = RateLimitLayer::fixed(one_a_second());
    let error = call(&mut layer.layer(inner), request("http://a/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailure);
}
