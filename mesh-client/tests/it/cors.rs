//! Pages of other origins.

use http::Request;
use mesh_client::MeshClient;
use mesh_core::Body;

use crate::support::{Upstream, bootstrap_with_filters, client, cluster, counter};

const CORS: &str = "{name: cors, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}";

async fn started(upstream: &Upstream) -> MeshClient {
    let routes = "[{match: {path: /lost}, route: {cluster: none}, SAYS}, {match: {prefix: /}, route: {cluster: a}, SAYS}]";
    let says = "typed_per_filter_config: {cors: {'@type': type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy, \
        allow_origin_string_match: [{exact: 'https://a'}], allow_methods: PUT, expose_headers: x-a}}";
    let clusters = format!(
        "[{}, {}]",
        cluster("a", &[upstream.port], ""),
        cluster("none", &[], "")
    );
    let config = bootstrap_with_filters(CORS, &routes.replace("SAYS", says), &clusters);
    client(config).await.unwrap()
}

/// Status, allowed origin and exposed headers.
async fn ask(client: &MeshClient, method: &str, path: &str, lines: &[(&str, &str)]) -> String {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://test{path}"));
    for (name, value) in lines {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    let response = client
        .clone()
        .with_local_replies()
        .send(request)
        .await
        .unwrap();
    let says = |name: &str| {
        let value = response.headers().get(name);
        value
            .map_or("-", |value| value.to_str().unwrap())
            .to_owned()
    };
    format!(
        "{} {} {} {}",
        response.status().as_u16(),
        says("access-control-allow-origin"),
        says("access-control-expose-headers"),
        says("access-control-allow-methods")
    )
}

#[tokio::test]
async fn only_origins_that_are_allowed_are_told_so_whoever_answers() {
    let upstream = Upstream::start(&[200]).await;
    let client = started(&upstream).await;
    let (good, bad) = (("origin", "https://a"), ("origin", "https://b"));
    assert_eq!(
        ask(&client, "GET", "/", &[good]).await,
        "200 https://a x-a -"
    );
    assert_eq!(ask(&client, "GET", "/", &[bad]).await, "200 - - -");
    assert_eq!(ask(&client, "GET", "/", &[]).await, "200 - - -");
    assert_eq!(ask(&client, "GET", "/", &[good, bad]).await, "200 - - -");
    assert_eq!(
        ask(&client, "GET", "/lost", &[good]).await,
        "503 https://a x-a -"
    );
    assert_eq!(ask(&client, "GET", "/lost", &[bad]).await, "503 - - -");
    assert_eq!(upstream.count(), 4);
    assert_eq!(counter(&client, "http.ingress.cors.origin_valid"), 2);
    assert_eq!(counter(&client, "http.ingress.cors.origin_invalid"), 3);
}

#[tokio::test]
async fn a_preflight_is_answered_unless_its_origin_is_not_allowed() {
    let upstream = Upstream::start(&[200]).await;
    let client = started(&upstream).await;
    let method = ("access-control-request-method", "PUT");
    let (good, bad) = (("origin", "https://a"), ("origin", "https://b"));
    assert_eq!(
        ask(&client, "OPTIONS", "/", &[good, method]).await,
        "200 https://a x-a PUT"
    );
    assert_eq!(upstream.count(), 0);
    assert_eq!(
        ask(&client, "OPTIONS", "/", &[bad, method]).await,
        "200 - - -"
    );
    assert_eq!(
        ask(&client, "OPTIONS", "/", &[good]).await,
        "200 https://a x-a -"
    );
    assert_eq!(upstream.count(), 2);
}
