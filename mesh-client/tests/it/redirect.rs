//! Redirects of the upstream that are followed here.

use http::Request;
use mesh_core::Body;
use tokio::sync::mpsc;

use crate::support::{
    Dripping, Upstream, bootstrap, bootstrap_with, client, cluster, counter, get,
};

/// Sends whoever asks for `/go…` to the rest of the path, or to where `x-to` says.
async fn sends_on(port: u16) -> Upstream {
    Upstream::answering(move |_, head| {
        let path = head.split(' ').nth(1).unwrap();
        let to = head.split("x-to: ").nth(1);
        let to = to.and_then(|rest| rest.split('\r').next());
        let rest = path.strip_prefix("/go").map(|rest| to.unwrap_or(rest));
        Some(match rest {
            Some(rest) => format!("HTTP/1.1 302 Found\r\nlocation: http://mesh.test{rest}\r\nx-token: t{port}\r\ncontent-length: 0\r\n\r\n"),
            None => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere".to_owned(),
        })
    })
    .await
}

fn routes(policy: &str) -> String {
    format!(
        "[{{name: there, match: {{prefix: /there}}, route: {{cluster: b}}}}, \
          {{name: go, match: {{prefix: /go}}, route: {{cluster: a, internal_redirect_policy: {{{policy}}}}}}}]"
    )
}

async fn pair(policy: &str) -> (Upstream, Upstream, mesh_client::MeshClient) {
    let (a, b) = (sends_on(1).await, sends_on(2).await);
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[a.port], ""),
        cluster("b", &[b.port], "")
    );
    let client = client(bootstrap(&routes(policy), &clusters)).await.unwrap();
    (a, b, client)
}

#[tokio::test]
async fn a_redirect_is_followed_to_another_route_with_its_body() {
    let (a, b, client) = pair("response_headers_to_copy: [x-token]").await;
    let request = Request::post("http://mesh.test/go/there?x").body(Body::from("body"));
    let response = client.send(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((a.count(), b.count()), (1, 1));
    let head = b.heads.lock().unwrap()[0].clone();
    assert!(
        head.starts_with("POST /there?x HTTP/1.1\r\nhost: mesh.test\r\n"),
        "{head}"
    );
    assert!(
        head.contains("x-envoy-original-url: http://mesh.test/go/there?x\r\n"),
        "{head}"
    );
    assert!(head.contains("x-token: t1\r\n"), "{head}");
    assert_eq!(*b.bodies.lock().unwrap(), ["body"]);
    assert_eq!(
        counter(
            &client,
            "cluster.a.upstream_internal_redirect_succeeded_total"
        ),
        1
    );
    assert_eq!(counter(&client, "http.ingress.downstream_rq_total"), 2);
}

#[tokio::test]
async fn so_many_are_followed_as_the_route_allows() {
    let (a, _, client) = pair("max_internal_redirects: 2").await;
    let (result, _) = get(&client, "/go/go/there").await;
    assert_eq!(result.unwrap(), (200, "here".to_owned()));
    let (result, _) = get(&client, "/go/go/go/there").await;
    assert_eq!(result.unwrap().0, 302);
    assert_eq!(a.count(), 5);
    let name = "http.ingress.passthrough_internal_redirect_too_many_redirects";
    assert_eq!(counter(&client, name), 1);
    assert_eq!(
        counter(&client, "cluster.a.upstream_internal_redirect_failed_total"),
        1
    );
}

#[tokio::test]
async fn a_target_without_a_route_is_the_clients_to_see() {
    let (a, b, client) = pair("").await;
    assert_eq!(get(&client, "/go/nowhere").await.0.unwrap().0, 302);
    assert_eq!((a.count(), b.count()), (1, 0));
    assert_eq!(
        counter(
            &client,
            "http.ingress.passthrough_internal_redirect_no_route"
        ),
        1
    );
}

#[tokio::test]
async fn nothing_is_followed_unless_the_route_says_so() {
    let (a, b) = (sends_on(1).await, sends_on(2).await);
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[a.port], ""),
        cluster("b", &[b.port], "")
    );
    let routes = "[{match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: '5xx,retriable-4xx,gateway-error,reset'}}}]";
    let client = client(bootstrap(routes, &clusters)).await.unwrap();
    assert_eq!(get(&client, "/go/there").await.0.unwrap().0, 302);
    assert_eq!(a.count(), 1, "nor is a redirect retried");
}

#[tokio::test]
async fn a_body_larger_than_the_buffer_is_not_sent_twice() {
    let (a, b) = (sends_on(1).await, sends_on(2).await);
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[a.port], ""),
        cluster("b", &[b.port], "")
    );
    let routes = routes("").replace(
        "match: {prefix: /go}",
        "request_body_buffer_limit: 3, match: {prefix: /go}",
    );
    let client = client(bootstrap(&routes, &clusters)).await.unwrap();
    for (body, status) in [("abc", 200), ("abcd", 302)] {
        let (send, receive) = mpsc::unbounded_channel();
        let request = Request::post("http://mesh.test/go/there").body(Dripping(receive));
        let response = tokio::spawn(client.send(request.unwrap()));
        tokio::task::yield_now().await;
        send.send(body).unwrap();
        drop(send);
        assert_eq!(response.await.unwrap().unwrap().status(), status, "{body}");
    }
    assert_eq!(b.count(), 1);
}

#[tokio::test]
async fn a_target_is_normalised_before_anybody_matches_its_path() {
    let (a, b) = (sends_on(1).await, sends_on(2).await);
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[a.port], ""),
        cluster("b", &[b.port], "")
    );
    let client = client(bootstrap_with(
        "normalize_path: true",
        &routes(""),
        &clusters,
    ));
    let client = client.await.unwrap();
    let request = Request::get("http://mesh.test/go").header("x-to", "/x/%2e%2e/there");
    let answer = client.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.unwrap().status(), 200);
    let heads = b.heads.lock().unwrap();
    assert!(heads[0].starts_with("GET /there HTTP/1.1\r\n"), "{heads:?}");
}
