//! Copies of requests for other clusters.

use http::Request;
use http_body_util::BodyExt as _;
use mesh_core::{Body, ErrorKind};
use tokio::sync::mpsc;

use crate::support::{
    Dripping, Upstream, bootstrap, client, cluster, counter, eventually, gauge, get,
};

fn clusters(list: &[(&str, u16, &str)]) -> String {
    let list = list.iter();
    let list: Vec<String> = list
        .map(|(name, port, more)| cluster(name, &[*port], more))
        .collect();
    format!("[{}]", list.join(", "))
}

fn post(body: Body) -> Request<Body> {
    Request::post("http://mesh.test/p").body(body).unwrap()
}

/// The frozen order: the mirror is above the deadline, the retries and the thresholds, and knows nothing of
/// them; each of these sits where the next line says.
#[tokio::test]
async fn the_order_inside_the_router_is_frozen() {
    let live = Upstream::start(&[503, 503, 200]).await;
    let copy = Upstream::start(&[500]).await;
    let routes = "[{match: {prefix: /refused}, route: {cluster: full, request_mirror_policies: [{cluster: m}]}}, \
        {match: {prefix: /late}, route: {cluster: never, timeout: 0.05s, request_mirror_policies: [{cluster: m}], \
          retry_policy: {retry_on: '5xx', num_retries: 50, per_try_timeout: 0.02s, retry_back_off: {base_interval: 0.001s}}}}, \
        {match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: m}], \
          retry_policy: {retry_on: '5xx,reset', num_retries: 3, retry_back_off: {base_interval: 0.001s}}}}]";
    let never = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let full = "circuit_breakers: {thresholds: [{max_requests: 0, max_pending_requests: 0}]},";
    let client = client(bootstrap(
        routes,
        &clusters(&[
            ("a", live.port, ""),
            ("m", copy.port, ""),
            ("full", live.port, full),
            ("never", never.local_addr().unwrap().port(), ""),
        ]),
    ))
    .await
    .unwrap();
    // Mirror above retry: three attempts, one copy; and the copy's 500 is retried by nobody.
    let (result, info) = get(&client, "/x").await;
    assert_eq!(result.unwrap().0, 200);
    assert_eq!(info.with(|facts| facts.attempts), 3);
    eventually(|| counter(&client, "cluster.m.upstream_rq_500") == 1).await;
    assert_eq!((live.count(), copy.count()), (3, 1));
    // Mirror above thresholds: the live request is refused, its copy is not.
    let (result, _) = get(&client, "/refused").await;
    assert!(matches!(result.unwrap_err().kind(), ErrorKind::Overflow(_)));
    eventually(|| copy.count() == 2).await;
    // Deadline above retry above per-try timeout: attempts time out and are repeated until the time is up.
    let (result, info) = get(&client, "/late").await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::RequestTimeout);
    let attempts = info.with(|facts| facts.attempts);
    assert!((2..20).contains(&attempts), "{attempts}");
    let timeouts = counter(&client, "cluster.never.upstream_rq_per_try_timeout");
    assert!(
        timeouts >= 1,
        "the per-try timeout ends attempts, not the request"
    );
    eventually(|| copy.count() == 3).await;
    assert_eq!(counter(&client, "cluster.m.upstream_rq_retry"), 0);
}

#[tokio::test]
async fn the_copy_says_where_it_is_from_and_the_live_request_does_not() {
    let (live, copy) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let routes = "[{match: {prefix: /}, route: {cluster: a, prefix_rewrite: /new/, host_rewrite_literal: 'live.test:80', request_mirror_policies: [{cluster: m}]}}]";
    let config = bootstrap(
        routes,
        &clusters(&[("a", live.port, ""), ("m", copy.port, "")]),
    );
    let client = client(config).await.unwrap();
    let request = Request::get("http://mesh.test/x").header("x-forwarded-for", "1.2.3.4");
    let request = request.header("x-envoy-retry-on", "5xx");
    client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    eventually(|| counter(&client, "cluster.m.internal.upstream_rq_200") == 1).await;
    let (live, copy) = (
        live.heads.lock().unwrap()[0].clone(),
        copy.heads.lock().unwrap()[0].clone(),
    );
    assert!(
        live.starts_with("GET /new/x HTTP/1.1\r\nhost: live.test:80\r\n"),
        "{live}"
    );
    assert!(
        copy.starts_with("GET /new/x HTTP/1.1\r\nhost: live.test-shadow:80\r\n"),
        "{copy}"
    );
    assert!(
        copy.contains("x-envoy-internal: true\r\n") && copy.contains("x-forwarded-for: 1.2.3.4,"),
        "{copy}"
    );
    assert!(
        !live.contains("x-envoy-internal") && live.contains("x-forwarded-for: 1.2.3.4\r\n"),
        "{live}"
    );
    let id = |head: &str| {
        head.lines()
            .find(|line| line.starts_with("x-request-id"))
            .map(str::to_owned)
    };
    assert_eq!(id(&live), id(&copy));
    assert!(!copy.contains("x-envoy-retry-on"), "{copy}");
    assert_eq!(counter(&client, "cluster.a.external.upstream_rq_200"), 1);
}

#[tokio::test]
async fn every_mirror_gets_the_whole_body() {
    let live = Upstream::start(&[200]).await;
    let (one, two) = (Upstream::start(&[200]).await, Upstream::start(&[503]).await);
    let routes = "[{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: one}, {cluster_header: x-nowhere}, {cluster: two}]}}]";
    let list = [
        ("a", live.port, ""),
        ("one", one.port, ""),
        ("two", two.port, ""),
    ];
    let client = client(bootstrap(routes, &clusters(&list))).await.unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    let response = tokio::spawn(client.send(post(Body::new(Dripping(receive)))));
    for text in ["abc", "de", "f"] {
        send.send(text).unwrap();
        tokio::task::yield_now().await;
    }
    drop(send);
    assert_eq!(response.await.unwrap().unwrap().status(), 200);
    client.send(post(Body::from("whole"))).await.unwrap();
    eventually(|| one.count() == 2 && two.count() == 2).await;
    for upstream in [&one, &two, &live] {
        let bodies = upstream.bodies.lock().unwrap().clone();
        let dripped: String = bodies[0].split("\r\n").skip(1).step_by(2).collect();
        assert_eq!((dripped.as_str(), bodies[1].as_str()), ("abcdef", "whole"));
    }
}

#[tokio::test]
async fn a_mirror_that_falls_behind_is_cut_off_and_the_live_request_is_not_held_up() {
    let live = Upstream::start(&[200]).await;
    // Nobody ever accepts its connections: the copy gets no further than the queue of the kernel.
    let stuck = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = "[{match: {prefix: /}, request_body_buffer_limit: 100, route: {cluster: a, request_mirror_policies: [{cluster: m}]}}]";
    let connections = "circuit_breakers: {thresholds: [{max_connections: 1}]},";
    let list = [
        ("a", live.port, ""),
        ("m", stuck.local_addr().unwrap().port(), connections),
    ];
    let client = client(bootstrap(routes, &clusters(&list))).await.unwrap();
    // It takes the only connection, and keeps it.
    client.send(post(Body::from("first"))).await.unwrap();
    eventually(|| counter(&client, "cluster.m.upstream_rq_total") == 1).await;
    let (send, receive) = mpsc::unbounded_channel();
    let text: &'static str = "0123456789012345678901234567890123456789";
    for _ in 0..10 {
        send.send(text).unwrap();
    }
    drop(send);
    let response = client
        .send(post(Body::new(Dripping(receive))))
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    drop(response.into_body().collect().await.unwrap());
    assert_eq!(live.bodies.lock().unwrap()[1].matches(text).count(), 10);
    drop(stuck);
    eventually(|| counter(&client, "cluster.a.retry_or_shadow_abandoned") == 1).await;
}

#[tokio::test]
async fn a_mirror_that_cannot_be_reached_is_nobodys_business() {
    let live = Upstream::start(&[200]).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let routes = "[{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: m}, {cluster: e}]}}]";
    let list = format!(
        "[{}, {}, {}]",
        cluster("a", &[live.port], ""),
        cluster("m", &[closed], ""),
        cluster("e", &[], "")
    );
    let client = client(bootstrap(routes, &list)).await.unwrap();
    let (result, info) = get(&client, "/").await;
    assert_eq!(result.unwrap().0, 200);
    assert_eq!(info.flags.to_string(), "-");
    eventually(|| counter(&client, "cluster.m.upstream_rq_503") == 1).await;
    eventually(|| counter(&client, "cluster.e.upstream_cx_none_healthy") == 1).await;
    let host = info.with(|facts| facts.endpoint.as_ref().map(|e| e.address().to_string()));
    assert_eq!(
        host,
        Some(format!("127.0.0.1:{}", live.port)),
        "the log shows the live request"
    );
}

#[tokio::test]
async fn a_client_that_gives_up_takes_the_unfinished_copy_along() {
    let (live, copy) = (Upstream::start(&[200]).await, Upstream::start(&[200]).await);
    let routes =
        "[{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster: m}]}}]";
    let config = bootstrap(
        routes,
        &clusters(&[("a", live.port, ""), ("m", copy.port, "")]),
    );
    let client = client(config).await.unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    let request = tokio::spawn(client.send(post(Body::new(Dripping(receive)))));
    send.send("half").unwrap();
    eventually(|| gauge(&client, "cluster.m.upstream_rq_active") == 1).await;
    request.abort();
    let _ = request.await;
    eventually(|| gauge(&client, "cluster.m.upstream_rq_active") == 0).await;
    eventually(|| copy.count() == 1).await;
    assert!(
        !copy.bodies.lock().unwrap()[0].ends_with("0\r\n\r\n"),
        "it is not complete"
    );
}

#[tokio::test]
async fn a_mirror_that_hangs_gives_its_place_back_though_the_route_has_no_timeout() {
    let live = Upstream::start(&[200]).await;
    let hangs = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let routes = "[{match: {prefix: /}, route: {cluster: a, timeout: 0s, request_mirror_policies: [{cluster: m}]}}]";
    let list = [
        ("a", live.port, ""),
        ("m", hangs.local_addr().unwrap().port(), ""),
    ];
    let client = client(bootstrap(routes, &clusters(&list))).await.unwrap();
    let (result, _) = get(&client, "/").await;
    assert_eq!(result.unwrap().0, 200);
    eventually(|| gauge(&client, "cluster.m.upstream_rq_active") == 1).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(299)).await;
    assert_eq!(gauge(&client, "cluster.m.upstream_rq_active"), 1);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    eventually(|| gauge(&client, "cluster.m.upstream_rq_active") == 0).await;
}
