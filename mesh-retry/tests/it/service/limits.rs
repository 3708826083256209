use mesh_core::{Body, ErrorKind};
use mesh_retry::{RetryConfig, RetryContext as _};
use mesh_testkit::{Gate, Reply, ScriptedBody, advance};

use super::{Bench, ms, usual};

fn failures(n: usize) -> Vec<Reply> {
    (0..n).map(|_| Reply::status(503)).collect()
}

#[tokio::test(start_paused = true)]
async fn stops_after_num_retries_with_the_last_answer() {
    let mut bench = Bench::new(usual().num_retries(2).build()).script(failures(5));
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.upstream.count(), 3);
    assert_eq!(bench.flags(), "URX");
    assert_eq!(
        bench.trace(),
        "retry:retried 1/3;retry:retried 2/3;retry:retry_limit_exceeded 3/3"
    );
    assert_eq!(
        bench.counters(),
        [
            "upstream_rq_retry=2",
            "upstream_rq_retry_backoff_exponential=2",
            "upstream_rq_retry_limit_exceeded=1"
        ]
    );
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn num_retries_of_zero_is_legal_and_flagged() {
    let mut bench = Bench::new(usual().num_retries(0).build()).script(failures(2));
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.upstream.count(), 1);
    assert_eq!(bench.flags(), "URX");
}

#[tokio::test(start_paused = true)]
async fn x_envoy_max_retries_replaces_num_retries_both_ways() {
    for (asked, attempts) in [("0", 1), ("4", 5), ("nonsense", 3)] {
        let mut bench = Bench::new(usual().num_retries(2).build()).script(failures(9));
        let answer = bench.get_with(&[("x-envoy-max-retries", asked)]).await;
        assert_eq!(answer.unwrap().status(), 503);
        assert_eq!(bench.upstream.count(), attempts, "{asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_helps_is_counted_as_success() {
    let mut bench = Bench::new(usual().build()).script([Reply::status(503), Reply::ok("fine")]);
    assert_eq!(bench.status().await, 200);
    assert_eq!(
        bench.counters(),
        [
            "upstream_rq_retry=1",
            "upstream_rq_retry_backoff_exponential=1",
            "upstream_rq_retry_success=1"
        ]
    );
    assert_eq!(bench.flags(), "-");
    assert_eq!(bench.trace(), "retry:retried 1/2");
    assert_eq!(bench.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_plain_success_counts_nothing() {
    let mut bench = Bench::new(usual().build());
    assert_eq!(bench.status().await, 200);
    assert!(bench.counters().is_empty());
    assert_eq!((bench.trace(), bench.attempts()), ("-".to_owned(), 1));
}

#[tokio::test(start_paused = true)]
async fn the_last_error_is_what_the_caller_gets() {
    let mut bench = Bench::new(usual().build())
        .script([Reply::status(503), Reply::error(ErrorKind::ConnectFailure)]);
    let error = bench.get().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectFailure);
    assert_eq!(bench.flags(), "URX");
}

#[tokio::test(start_paused = true)]
async fn without_a_free_slot_the_answer_stands() {
    let mut bench = Bench::with_max_retries(usual().num_retries(3).build(), 0).script(failures(2));
    assert_eq!(bench.status().await, 503);
    assert_eq!(bench.upstream.count(), 1);
    assert_eq!(bench.flags(), "UO");
    assert_eq!(bench.trace(), "retry:retry_overflow 0/0");
    assert_eq!(bench.counters(), ["upstream_rq_retry_overflow=1"]);
}

#[tokio::test(start_paused = true)]
async fn the_slot_is_held_from_the_decision_to_the_next_one() {
    let gate = Gate::new();
    let mut bench = Bench::with_max_retries(usual().build(), 1)
        .script([Reply::status(503), Reply::ok("slow").held(&gate)]);
    let mut call = bench.start().await;
    assert!(call.poll().is_pending());
    assert_eq!(bench.retries_in_use(), 1, "while the back-off lasts");
    advance(ms(25)).await;
    assert!(call.run().is_pending());
    assert_eq!(bench.upstream.in_flight(), 1);
    assert_eq!(bench.retries_in_use(), 1, "while the retry is in flight");

    // Another request finds no slot meanwhile.
    bench.upstream.script(failures(1));
    let mut other = bench.service.clone();
    let answer = mesh_testkit::call(&mut other, mesh_testkit::request("http://test/")).await;
    assert_eq!(answer.unwrap().status(), 503);
    assert_eq!(bench.counter("upstream_rq_retry_overflow"), 1);

    gate.open();
    assert!(call.run().is_ready());
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_future_gives_everything_back() {
    for wait in [0, 25] {
        let mut bench = Bench::new(usual().build()).script([Reply::status(503), Reply::never()]);
        let mut call = bench.start().await;
        assert!(call.poll().is_pending());
        if wait > 0 {
            advance(ms(wait)).await;
            assert!(call.run().is_pending());
        }
        assert_eq!(bench.upstream.in_flight(), usize::from(wait > 0));
        assert_eq!((bench.retries_in_use(), bench.requests_in_use()), (1, 1));
        drop(call);
        assert_eq!(bench.upstream.in_flight(), 0);
        assert_eq!((bench.retries_in_use(), bench.requests_in_use()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_request_is_counted_until_its_body_ends_or_is_dropped() {
    for drop_early in [false, true] {
        let body = ScriptedBody::new().data("a").data("b").silent();
        let mut bench = Bench::new(usual().build()).script([Reply::status(200).body(body)]);
        let response = bench.get().await.unwrap();
        assert_eq!(bench.requests_in_use(), 1);
        if drop_early {
            drop(response);
        } else {
            let body = Body::from(response.into_body());
            http_body_util::BodyExt::collect(body).await.unwrap();
        }
        assert_eq!(bench.requests_in_use(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_grows_with_the_requests_in_flight() {
    let mut bench = Bench::new(usual().build());
    // Three are always allowed; with 20 requests in flight, a fifth of them are.
    let mut waiting = Vec::new();
    for _ in 0..20 {
        bench.upstream.reply(Reply::never());
        let mut call = bench.start().await;
        assert!(call.poll().is_pending());
        waiting.push(call);
    }
    let limit = bench.budget.resources().limit(mesh_core::Resource::Retries);
    assert_eq!(limit, 4);
    drop(waiting);
    let limit = bench.budget.resources().limit(mesh_core::Resource::Retries);
    assert_eq!(limit, 3);
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_readiness_before_a_retry_is_final() {
    let mut bench = Bench::new(usual().num_retries(5).build()).script(failures(5));
    let mut call = bench.start().await;
    assert!(call.poll().is_pending());
    bench.upstream.fail_ready(Some(ErrorKind::Unavailable));
    advance(ms(25)).await;
    match call.run() {
        std::task::Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Unavailable),
        other => panic!("should have failed: {other:?}"),
    }
    assert_eq!(bench.upstream.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_the_service_to_be_ready() {
    let mut bench = Bench::new(usual().build()).script([Reply::status(503), Reply::status(200)]);
    let mut call = bench.start().await;
    assert!(call.poll().is_pending());
    bench.upstream.set_ready(false);
    advance(ms(100)).await;
    assert!(call.run().is_pending());
    assert_eq!(bench.upstream.count(), 1);
    bench.upstream.set_ready(true);
    assert!(call.is_woken());
    assert!(call.run().is_ready());
}

#[tokio::test(start_paused = true)]
async fn the_proven_safe_policy_repeats_only_what_was_not_seen() {
    let script = |kind| [Reply::error(kind), Reply::status(200)];
    for (kind, attempts) in [
        (ErrorKind::ConnectFailure, 2),
        (ErrorKind::RemoteRefused, 2),
        (ErrorKind::ConnectionTermination, 1),
        (ErrorKind::RemoteReset, 1),
    ] {
        let mut bench = Bench::new(RetryConfig::proven_safe()).script(script(kind));
        let _ = bench.get().await;
        assert_eq!(bench.upstream.count(), attempts, "{kind:?}");
    }
}
