use http::Request;
use http_body_util::{BodyExt as _, Full};
use mesh_core::{Body, ErrorKind};

use crate::support::{Upstream, bootstrap, client, cluster, decisions, get};

#[tokio::test]
async fn a_retry_saves_a_request_and_says_so() {
    let upstream = Upstream::start(&[503, 200]).await;
    let routes = "[{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}}]";
    let client = client(bootstrap(
        routes,
        &format!("[{}]", cluster("a", &[upstream.port], "")),
    ))
    .await
    .unwrap();
    let (result, info) = get(&client, "/x").await;
    assert_eq!(result.unwrap(), (200, "ok".to_owned()));
    assert_eq!(decisions(&info), "retry(a):retried 1/2");
    assert_eq!(upstream.count(), 2);
}

#[tokio::test]
async fn failures_are_errors_with_the_kind_that_a_sidecar_would_answer() {
    let upstream = Upstream::start(&[0]).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let routes = "[{match: {path: /reset}, route: {cluster: a}}, {match: {path: /refused}, route: {cluster: b}}, {match: {path: /empty}, route: {cluster: c}}, {match: {path: /header}, route: {cluster_header: x-cluster}}]";
    let clusters = format!(
        "[{}, {}, {}]",
        cluster("a", &[upstream.port], ""),
        cluster("b", &[closed], ""),
        cluster("c", &[], "")
    );
    let client = client(bootstrap(routes, &clusters)).await.unwrap();
    for (path, kind, flags) in [
        ("/reset", ErrorKind::ConnectionTermination, "UC"),
        ("/refused", ErrorKind::ConnectFailure, "UF"),
        ("/empty", ErrorKind::NoHealthyUpstream, "UH"),
        ("/header", ErrorKind::NoCluster, "NC"),
        ("/nowhere", ErrorKind::NoRoute, "NR"),
    ] {
        let (result, info) = get(&client, path).await;
        assert_eq!(result.unwrap_err().kind(), kind, "{path}");
        assert_eq!(info.flags.to_string(), flags, "{path}");
    }
    let answering = client.with_local_replies();
    let (result, _) = get(&answering, "/empty").await;
    assert_eq!(result.unwrap(), (503, "no healthy upstream".to_owned()));
}

#[tokio::test]
async fn an_endpoint_that_fails_is_ejected_and_traffic_goes_elsewhere() {
    let (bad, good) = (Upstream::start(&[503]).await, Upstream::start(&[200]).await);
    let more = "outlier_detection: {consecutive_5xx: 2, max_ejection_percent: 50, base_ejection_time: 600s, interval: 600s},";
    let clusters = format!("[{}]", cluster("a", &[bad.port, good.port], more));
    let client = client(bootstrap(
        "[{match: {prefix: /}, route: {cluster: a}}]",
        &clusters,
    ))
    .await
    .unwrap();
    for _ in 0..20 {
        get(&client, "/").await.0.unwrap();
    }
    assert_eq!(bad.count(), 2, "no request after the ejection");
    assert_eq!(good.count(), 18);
}

#[tokio::test]
async fn a_route_timeout_ends_a_request_that_nobody_answers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let routes = "[{match: {prefix: /}, route: {cluster: a, timeout: 0.05s}}]";
    let client = client(bootstrap(
        routes,
        &format!("[{}]", cluster("a", &[port], "")),
    ))
    .await
    .unwrap();
    let (result, info) = get(&client, "/").await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::RequestTimeout);
    assert_eq!(info.flags.to_string(), "UT");
}

#[tokio::test]
async fn a_stream_lasts_only_as_long_as_its_route_lets_it() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let slow = Upstream::answering(|_, _| {
        Some("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbegun".to_owned())
    })
    .await;
    let routes = "[{match: {prefix: /silent}, route: {cluster: a, timeout: 0.01s, max_stream_duration: {max_stream_duration: 0.05s}}}, \
        {match: {prefix: /slow}, route: {cluster: b, max_stream_duration: {max_stream_duration: 0.05s}}}]";
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[silent.local_addr().unwrap().port()], ""),
        cluster("b", &[slow.port], "")
    );
    let client = client(bootstrap(routes, &clusters)).await.unwrap();
    for path in ["/silent", "/slow"] {
        let (result, info) = get(&client, path).await;
        assert_eq!(
            result.unwrap_err().kind(),
            ErrorKind::StreamDuration,
            "{path}"
        );
        assert_eq!(info.flags.to_string(), "-", "{path}");
        let details = info.with(|facts| facts.details.clone());
        assert_eq!(details.as_deref(), Some("max_duration_timeout"), "{path}");
    }
    let name = "http.ingress.downstream_rq_max_duration_reached";
    assert_eq!(crate::support::counter(&client, name), 2);
}

#[tokio::test]
async fn a_retried_call_is_told_how_much_time_is_left() {
    use std::sync::{Arc, Mutex};
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let upstream = Upstream::answering(move |_, head| {
        let line = head
            .lines()
            .find_map(|line| line.strip_prefix("grpc-timeout: "));
        let mut heard = heard.lock().unwrap();
        let millis = line.unwrap().trim().strip_suffix('m').unwrap();
        heard.push(millis.parse::<u64>().unwrap());
        // The first attempt runs out of time.
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        Some(if heard.len() > 1 { whole } else { "HTTP/1.1 " }.to_owned())
    })
    .await;
    let routes = "[{match: {prefix: /}, route: {cluster: a, max_stream_duration: {grpc_timeout_header_max: 9s}, \
        retry_policy: {retry_on: 5xx, per_try_timeout: 0.05s, retry_back_off: {base_interval: 0.001s}}}}]";
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(bootstrap(routes, &clusters)).await.unwrap();
    let request = Request::post("http://a/x")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "8S")
        .body(Body::empty())
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 200);
    let told = told.lock().unwrap();
    assert_eq!(told[0], 8000);
    assert!((5000..=7950).contains(&told[1]), "{told:?}");
}

#[tokio::test]
async fn the_upstream_sees_one_host_and_an_origin_form_target() {
    let upstream = Upstream::start(&[200]).await;
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(bootstrap(
        "[{match: {prefix: /}, route: {cluster: a}}]",
        &clusters,
    ))
    .await
    .unwrap();
    get(&client, "/a?b=c").await.0.unwrap();
    let head = upstream.heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with("GET /a?b=c HTTP/1.1\r\nhost: mesh.test\r\n"),
        "{head}"
    );
    let request = Request::get("/no-host").body(Body::empty()).unwrap();
    assert_eq!(
        client.send(request).await.unwrap_err().kind(),
        ErrorKind::DownstreamProtocol
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_share_one_client_and_leave_nothing_behind() {
    let upstream = Upstream::start(&[200]).await;
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(bootstrap(
        "[{match: {prefix: /}, route: {cluster: a}}]",
        &clusters,
    ))
    .await
    .unwrap();
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert_eq!(get(&client, "/").await.0.unwrap().0, 200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(upstream.count(), 800);
    let clusters = client.mesh().clusters();
    let resources = clusters.list()[0].resources(mesh_core::Priority::Default);
    assert_eq!(resources.in_use(mesh_core::Resource::Requests), 0);
    assert_eq!(resources.in_use(mesh_core::Resource::Pending), 0);
}

#[tokio::test]
async fn a_put_from_memory_is_sent_again_when_its_idle_connection_dies() {
    let upstream = Upstream::start(&[200, 0, 200, 0, 200]).await;
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(bootstrap(
        "[{match: {prefix: /}, route: {cluster: a}}]",
        &clusters,
    ))
    .await
    .unwrap();
    get(&client, "/").await.0.unwrap();
    let put = || Request::put("http://mesh.test/");
    let foreign = put().body(Full::from("text")).unwrap();
    let response = client.send(foreign).await.unwrap();
    assert_eq!(response.status(), 200);
    drop(response.into_body().collect().await.unwrap());
    let ours = put().body(Body::from("text")).unwrap();
    assert_eq!(client.send(ours).await.unwrap().status(), 200);
    assert_eq!(upstream.count(), 5);
}

#[tokio::test]
async fn user_information_in_a_target_is_refused_rather_than_sent_on() {
    let upstream = Upstream::start(&[200]).await;
    let clusters = format!("[{}]", cluster("a", &[upstream.port], ""));
    let client = client(bootstrap(
        "[{match: {prefix: /}, route: {cluster: a}}]",
        &clusters,
    ))
    .await
    .unwrap();
    let request = Request::get("http://user:secret@mesh.test/");
    let error = client
        .send(request.body(Body::empty()).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownstreamProtocol);
    assert_eq!(upstream.count(), 0);
}
