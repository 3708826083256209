use mesh_core::ErrorKind;
use mesh_retry::{RetryConfig, RetryOn};
use mesh_testkit::{Reply, Stopwatch, advance};

use super::{Bench, ms, usual};

fn config() -> RetryConfig {
    usual()
        .per_try_timeout(ms(100))
        .hedge_on_per_try_timeout(true)
        .include_is_timeout_retry_header(true)
        .num_retries(2)
        .build()
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_joins_a_slow_one_and_wins() {
    let mut bench = Bench::new(config()).script([Reply::never(), Reply::ok("second")]);
    let watch = Stopwatch::start();
    assert_eq!(bench.status().await, 200);
    assert!((100..=126).contains(&watch.ms()));
    assert_eq!(bench.upstream.in_flight(), 0, "the loser is dropped");
    assert_eq!(bench.trace(), "retry:hedged 1/3");
    assert_eq!(
        bench.counters(),
        [
            "upstream_rq_hedged=1",
            "upstream_rq_retry=1",
            "upstream_rq_retry_backoff_exponential=1",
            "upstream_rq_retry_success=1"
        ]
    );
    let seen = bench.upstream.requests();
    assert_eq!(seen[1].headers["x-envoy-is-timeout-retry"], "true");
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_loser_ends_before_the_future_is_dropped() {
    let mut bench = Bench::new(config()).script([Reply::never(), Reply::ok("second")]);
    let mut call = bench.start().await;
    assert!(call.poll().is_pending());
    advance(ms(100)).await;
    assert!(call.run().is_pending());
    advance(ms(25)).await;
    assert!(call.run().is_ready());
    assert_eq!((bench.upstream.count(), bench.upstream.in_flight()), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_slow_attempt_may_still_win() {
    let slow = Reply::status(201).after(ms(150));
    let mut bench = Bench::new(config()).script([slow, Reply::never()]);
    let watch = Stopwatch::start();
    assert_eq!(bench.status().await, 201);
    assert_eq!(watch.ms(), 150);
    assert_eq!((bench.upstream.count(), bench.upstream.in_flight()), (2, 0));
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_slot_of_a_hedge_is_held_until_the_winner_has_answered() {
    use mesh_testkit::ScriptedBody;
    let body = ScriptedBody::new().data("a").stall();
    let slow = Reply::status(201).body(body).after(ms(150));
    let mut bench = Bench::new(config()).script([slow, Reply::never()]);
    let response = bench.get().await.unwrap();
    assert_eq!(bench.retries_in_use(), 1);
    drop(response);
    assert_eq!(bench.retries_in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_of_the_slow_attempt_waits_for_the_other() {
    let slow = Reply::status(503).after(ms(150));
    let second = Reply::status(200).after(ms(90));
    let mut bench = Bench::new(config()).script([slow, second]);
    assert_eq!(bench.status().await, 200);
    assert_eq!((bench.upstream.count(), bench.flags()), (2, "-".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_bad_answer_of_the_second_is_repeated_while_the_slow_one_runs_on() {
    let mut bench = Bench::new(config()).script([
        Reply::never(),
        Reply::error(ErrorKind::RemoteReset),
        Reply::status(202),
    ]);
    assert_eq!(bench.status().await, 202);
    assert_eq!(bench.trace(), "retry:hedged 1/3;retry:retried 2/3");
}

#[tokio::test(start_paused = true)]
async fn when_all_are_bad_the_last_one_is_the_answer() {
    let mut bench = Bench::new(config()).script([
        Reply::status(502).after(ms(170)),
        Reply::status(503),
        Reply::status(504).after(ms(90)),
    ]);
    assert_eq!(bench.status().await, 504);
    assert_eq!(bench.flags(), "URX");
    assert_eq!(bench.counter("upstream_rq_retry_limit_exceeded"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_may_not_be_repeated_waits_for_the_others() {
    // The second attempt finds no endpoint; the first one still answers.
    let mut bench = Bench::new(config()).script([
        Reply::status(200).after(ms(300)),
        Reply::error(ErrorKind::NoHealthyUpstream),
    ]);
    assert_eq!(bench.status().await, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_slot_the_slow_attempt_goes_on_alone() {
    let slow = Reply::status(200).after(ms(500));
    let mut bench = Bench::with_max_retries(config(), 0).script([slow]);
    let watch = Stopwatch::start();
    assert_eq!(bench.status().await, 200);
    assert_eq!((watch.ms(), bench.upstream.count()), (500, 1));
    assert_eq!(bench.flags(), "UO");
    assert_eq!(bench.counter("upstream_rq_per_try_timeout"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hedge_needs_a_retry_policy_but_no_condition_for_timeouts() {
    let base = || {
        RetryConfig::builder()
            .per_try_timeout(ms(10))
            .hedge_on_per_try_timeout(true)
    };
    let script = || [Reply::status(200).after(ms(80)), Reply::status(201)];
    let mut bench = Bench::new(base().build()).script(script());
    assert_eq!(bench.status().await, 200);
    let config = base().retry_on(RetryOn::RETRIABLE_4XX).build();
    let mut bench = Bench::new(config).script(script());
    assert_eq!(bench.status().await, 201);
}

#[tokio::test(start_paused = true)]
async fn the_header_switches_hedging_on_and_off() {
    let name = "x-envoy-hedge-on-per-try-timeout";
    let script = || {
        [
            Reply::status(200).after(ms(120)),
            Reply::never(),
            Reply::never(),
        ]
    };
    let mut bench = Bench::new(config()).script(script());
    let error = bench.get_with(&[(name, "false")]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PerTryTimeout);
    let plain = usual().per_try_timeout(ms(100)).build();
    let mut bench = Bench::new(plain).script(script());
    assert_eq!(
        bench.get_with(&[(name, "true")]).await.unwrap().status(),
        200
    );
}

#[tokio::test(start_paused = true)]
async fn hedges_end_at_their_maximum() {
    let config = usual()
        .per_try_timeout(ms(100))
        .hedge_on_per_try_timeout(true)
        .num_retries(1000)
        .build();
    let mut bench = Bench::new(config).script((0..100).map(|_| Reply::never()));
    let call = bench.get();
    assert!(tokio::time::timeout(ms(60_000), call).await.is_err());
    assert_eq!(bench.upstream.count(), mesh_retry::HEDGES_MAX);
}
