use mesh_core::{Body, ExponentialBackoff};
use mesh_testkit::{Reply, ScriptedBody};

use super::{Bench, ms, usual};

/// On the multi-threaded runtime, with clones of one service in many tasks.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn clones_on_many_threads_share_one_budget_and_leave_nothing_behind() {
    const REQUESTS: usize = 400;
    // No wait at all: the interval is one millisecond and delays are below it.
    let back_off = ExponentialBackoff::new(ms(1), Some(ms(1))).unwrap();
    let config = usual().num_retries(2).retry_back_off(back_off).build();
    let bench = Bench::new(config).script((0..REQUESTS).map(|i| match i % 2 {
        0 => Reply::status(503),
        _ => Reply::ok("fine"),
    }));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..REQUESTS {
        let mut service = bench.service.clone();
        running.spawn(async move {
            let body = ScriptedBody::new().data("a").data("b").silent();
            let request = mesh_testkit::request_with(http::Method::POST, "http://test/", body);
            let response = mesh_testkit::call(&mut service, request).await.unwrap();
            let status = response.status();
            let body = Body::from(response.into_body());
            http_body_util::BodyExt::collect(body).await.unwrap();
            status
        });
    }
    let statuses = running.join_all().await;
    let failed = statuses
        .iter()
        .filter(|status| status.as_u16() == 503)
        .count() as u64;
    let (retried, overflowed) = (
        bench.counter("upstream_rq_retry"),
        bench.counter("upstream_rq_retry_overflow"),
    );
    let limited = bench.counter("upstream_rq_retry_limit_exceeded");
    assert_eq!(bench.upstream.count() as u64, REQUESTS as u64 + retried);
    assert_eq!(failed, overflowed + limited);
    assert!(
        bench
            .upstream
            .requests()
            .iter()
            .all(|seen| seen.body == "ab")
    );
    assert_eq!((bench.retries_in_use(), bench.requests_in_use()), (0, 0));
}
