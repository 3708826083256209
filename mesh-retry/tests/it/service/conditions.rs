use http::{HeaderName, StatusCode};
use mesh_core::{ErrorKind, Resource, Sent};
use mesh_retry::{ResponsePredicate, RetryConfig, RetryOn};
use mesh_testkit::Reply;

use super::Bench;

fn config(on: &str) -> RetryConfig {
    RetryConfig::builder()
        .retry_on(on.parse::<RetryOn>().unwrap())
        .retriable_status_codes([StatusCode::IM_A_TEAPOT])
        .retriable_headers([ResponsePredicate::present(HeaderName::from_static(
            "x-again",
        ))])
        .build()
}

async fn is_retried(on: &str, reply: Reply) -> bool {
    let mut bench = Bench::new(config(on)).script([reply, Reply::status(200)]);
    let _ = bench.get().await;
    bench.upstream.count() == 2
}

/// For each token: statuses that are repeated, statuses that are not.
#[tokio::test(start_paused = true)]
async fn each_status_token_covers_its_statuses_and_no_others() {
    let table: &[(&str, &[u16], &[u16])] = &[
        ("5xx", &[500, 503, 599], &[200, 404, 409, 418, 600]),
        ("gateway-error", &[502, 503, 504], &[500, 501, 505, 409]),
        ("retriable-4xx", &[409], &[404, 408, 429, 503]),
        ("retriable-status-codes", &[418], &[503, 409]),
        ("retriable-headers", &[], &[503, 418]),
        ("reset", &[], &[503]),
        ("reset-before-request", &[], &[503]),
        ("connect-failure", &[], &[503]),
        ("refused-stream", &[], &[503]),
        ("envoy-ratelimited", &[], &[429, 503]),
        ("http3-post-connect-failure", &[], &[503]),
        ("unavailable", &[], &[503]),
    ];
    for (on, yes, no) in table {
        for status in *yes {
            assert!(
                is_retried(on, Reply::status(*status)).await,
                "{on} {status}"
            );
        }
        for status in *no {
            assert!(
                !is_retried(on, Reply::status(*status)).await,
                "{on} {status}"
            );
        }
    }
}

/// For each token: failures that are repeated. The others are not.
#[tokio::test(start_paused = true)]
async fn each_reset_token_covers_its_failures_and_no_others() {
    use ErrorKind::{
        BreakerOpen, ConnectFailure, ConnectTimeout, ConnectionTermination, Denied, DownstreamGone,
        LocalReset, MaxStreamDuration, NoHealthyUpstream, Overflow, RateLimited, RemoteRefused,
        RemoteReset, RequestTimeout, Unknown, UpstreamProtocol,
    };
    let resets = [
        ConnectFailure,
        ConnectTimeout,
        ConnectionTermination,
        RemoteReset,
        RemoteRefused,
        LocalReset,
        UpstreamProtocol,
        MaxStreamDuration,
        Unknown,
    ];
    let never = [
        Overflow(Resource::Pending),
        BreakerOpen,
        NoHealthyUpstream,
        RequestTimeout,
        RateLimited,
        Denied,
        DownstreamGone,
    ];
    let table: &[(&str, &[ErrorKind])] = &[
        ("5xx", &resets),
        ("gateway-error", &resets),
        ("reset", &resets),
        ("reset-before-request", &[]),
        ("connect-failure", &[ConnectFailure, ConnectTimeout]),
        ("refused-stream", &[RemoteRefused]),
        ("retriable-4xx", &[]),
        ("retriable-status-codes", &[]),
        ("retriable-headers", &[]),
        ("envoy-ratelimited", &[]),
        ("unavailable", &[]),
    ];
    for (on, yes) in table {
        for kind in resets.iter().chain(&never) {
            let retried = is_retried(on, Reply::error(*kind).sent(Sent::Some)).await;
            assert_eq!(retried, yes.contains(kind), "{on} {kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_grpc_token_covers_its_status_in_the_headers() {
    let table = [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ];
    for (on, _) in table {
        for (other, status) in table {
            let reply = Reply::status(200).header("grpc-status", status);
            assert_eq!(is_retried(on, reply).await, on == other, "{on} {status}");
        }
        let fine = Reply::status(200).header("grpc-status", "0");
        assert!(!is_retried(on, fine).await);
    }
}

#[tokio::test(start_paused = true)]
async fn reset_before_request_holds_only_while_nothing_was_ever_sent() {
    let config = RetryConfig::builder()
        .retry_on(RetryOn::RESET_BEFORE_REQUEST | RetryOn::CONNECT_FAILURE)
        .num_retries(5)
        .build();
    let nothing = || Reply::error(ErrorKind::RemoteReset).sent(Sent::Nothing);
    let some = || Reply::error(ErrorKind::ConnectFailure).sent(Sent::Some);
    let mut bench = Bench::new(config.clone()).script([nothing(), nothing(), Reply::status(200)]);
    assert_eq!(bench.status().await, 200);
    // Once a byte was written, a later attempt that wrote none is no proof.
    let mut bench = Bench::new(config).script([nothing(), some(), nothing(), Reply::status(200)]);
    assert!(bench.get().await.is_err());
    assert_eq!(bench.upstream.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn retriable_headers_need_the_token_and_the_header() {
    let again = || Reply::status(200).header("x-again", "1");
    assert!(is_retried("retriable-headers", again()).await);
    assert!(!is_retried("5xx", again()).await);
    assert!(!is_retried("retriable-status-codes", Reply::status(200)).await);
}

#[tokio::test(start_paused = true)]
async fn a_ratelimited_answer_is_judged_by_its_own_token_alone() {
    let limited = |status| Reply::status(status).header("x-envoy-ratelimited", "true");
    assert!(!is_retried("5xx", limited(503)).await);
    assert!(is_retried("envoy-ratelimited", limited(429)).await);
    assert!(is_retried("envoy-ratelimited,5xx", limited(200)).await);

    let mut bench = Bench::new(config("5xx")).script([limited(503)]);
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.trace(), "retry:retry_ratelimited 1/2");
    assert_eq!(
        bench.counters(),
        ["upstream_rq_retry_skipped_ratelimited=1"]
    );
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_request_add_conditions_and_are_consumed() {
    let mut bench = Bench::new(config("retriable-4xx")).script([
        Reply::status(503),
        Reply::status(409),
        Reply::status(200).header("grpc-status", "14"),
        Reply::status(201),
    ]);
    let headers = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-retry-grpc-on", "unavailable"),
        ("x-envoy-max-retries", "9"),
        ("accept", "*/*"),
    ];
    let response = bench.get_with(&headers).await.unwrap();
    assert_eq!(response.status(), 201);
    for seen in bench.upstream.requests() {
        let names: Vec<_> = seen.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept"]);
    }
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_request_can_switch_retries_on_where_the_policy_has_none() {
    let config = RetryConfig::builder().build();
    let mut bench = Bench::new(config.clone()).script([Reply::status(503), Reply::status(200)]);
    let headers = [("x-envoy-retry-on", "gateway-error")];
    assert_eq!(bench.get_with(&headers).await.unwrap().status(), 200);
    // The number alone switches nothing on.
    let mut bench = Bench::new(config).script([Reply::status(503), Reply::status(200)]);
    let headers = [("x-envoy-max-retries", "3")];
    assert_eq!(bench.get_with(&headers).await.unwrap().status(), 503);
}

#[tokio::test(start_paused = true)]
async fn headers_of_the_request_add_status_codes_and_header_names() {
    let on = "retriable-status-codes,retriable-headers";
    let mut bench = Bench::new(config(on)).script([
        Reply::status(404),
        Reply::status(418),
        Reply::status(200).header("x-later", "1"),
        Reply::status(201),
    ]);
    let headers = [
        ("x-envoy-retriable-status-codes", "404"),
        ("x-envoy-retriable-header-names", "x-other, x-later"),
        ("x-envoy-max-retries", "3"),
    ];
    assert_eq!(bench.get_with(&headers).await.unwrap().status(), 201);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_no_request_predicate_matches_is_not_repeated() {
    use mesh_retry::RequestPredicate;
    let config = RetryConfig::builder()
        .retry_on(RetryOn::FIVE_XX)
        .retriable_request_headers([
            RequestPredicate::new(|head| head.headers.contains_key("x-repeat")),
            RequestPredicate::new(|head| head.uri.path() == "/repeat"),
        ])
        .build();
    let script = || [Reply::status(503), Reply::status(200)];
    let mut bench = Bench::new(config.clone()).script(script());
    assert_eq!(bench.status().await, 503);
    let mut bench = Bench::new(config.clone()).script(script());
    let answer = bench.get_with(&[("x-repeat", "1")]).await;
    assert_eq!(answer.unwrap().status(), 200);
    let mut bench = Bench::new(config).script(script());
    let answer = bench
        .send(mesh_testkit::request("http://test/repeat"))
        .await;
    assert_eq!(answer.unwrap().status(), 200);
}
