use std::time::Duration;

use mesh_core::{ErrorKind, ExponentialBackoff};
use mesh_retry::{RateLimitedBackoff, ResetFormat, ResetHeader};
use mesh_testkit::Reply;

use super::{Bench, ms, usual};

/// The waits between the attempts that the upstream saw, in milliseconds.
fn waits(bench: &Bench) -> Vec<u128> {
    let seen = bench.upstream.requests();
    let pairs = seen.windows(2);
    pairs
        .map(|pair| (pair[1].at - pair[0].at).as_millis())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_wait_is_below_its_interval_and_they_differ() {
    let mut all = Vec::new();
    let config = usual().num_retries(7).build();
    let mut bench = Bench::new(config);
    for _ in 0..40 {
        let before = bench.upstream.count();
        bench.upstream.script((0..8).map(|_| Reply::status(503)));
        assert_eq!(bench.status().await, 503);
        let waits = waits(&bench)[before..].to_vec();
        // A timer may round up by one.
        for (wait, interval) in waits.iter().zip([25, 50, 100, 200, 250, 250, 250]) {
            assert!(*wait <= interval, "{waits:?}");
        }
        all.push(waits);
    }
    for at in 0..7 {
        let longest = all.iter().map(|waits| waits[at]).max().unwrap();
        let shortest = all.iter().map(|waits| waits[at]).min().unwrap();
        let interval = [25, 50, 100, 200, 250, 250, 250][at];
        assert!(
            longest > interval / 2 && shortest < interval / 2,
            "{at}: {shortest} {longest}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_configured_back_off_is_used() {
    let back_off = ExponentialBackoff::new(ms(1), Some(ms(1))).unwrap();
    let config = usual().num_retries(3).retry_back_off(back_off).build();
    let mut bench = Bench::new(config).script((0..4).map(|_| Reply::status(503)));
    assert_eq!(bench.status().await, 503);
    assert_eq!(waits(&bench), [0, 0, 0]);
}

fn rate_limited() -> RateLimitedBackoff {
    let reset = ResetHeader {
        name: "x-reset".parse().unwrap(),
        format: ResetFormat::UnixTimestamp,
    };
    RateLimitedBackoff::new(vec![ResetHeader::RETRY_AFTER, reset], None).unwrap()
}

#[tokio::test(start_paused = true)]
async fn waits_as_long_as_the_upstream_asks_for_and_only_then() {
    let config = usual()
        .num_retries(3)
        .rate_limited_retry_back_off(rate_limited())
        .build();
    let in_ten = mesh_core::clock::wall() + Duration::from_secs(11);
    let in_ten = in_ten
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let mut bench = Bench::new(config).script([
        Reply::status(503).header("retry-after", "4"),
        Reply::status(503),
        Reply::status(503).header("x-reset", &in_ten.to_string()),
        Reply::status(200),
    ]);
    assert_eq!(bench.status().await, 200);
    let waits = waits(&bench);
    assert!((4000..=6000).contains(&waits[0]), "{waits:?}");
    assert!(waits[1] <= 25, "{waits:?}");
    assert!((9_000..=16_500).contains(&waits[2]), "{waits:?}");
    assert_eq!(bench.counter("upstream_rq_retry_backoff_ratelimited"), 2);
    assert_eq!(bench.counter("upstream_rq_retry_backoff_exponential"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_never_waits_for_a_header() {
    let config = usual().rate_limited_retry_back_off(rate_limited()).build();
    let mut bench =
        Bench::new(config).script([Reply::error(ErrorKind::RemoteReset), Reply::status(200)]);
    assert_eq!(bench.status().await, 200);
    assert!(waits(&bench)[0] <= 25);
    assert_eq!(bench.counter("upstream_rq_retry_backoff_ratelimited"), 0);
}
