//! The bucket against naive ones that keep tokens and the list of what was let through.

use std::time::Duration;

use mesh_core::clock;
use mesh_ratelimit::{TokenBucket, TokenBucketConfig};
use proptest::prelude::*;

#[derive(Debug, Clone, Copy)]
enum Event {
    Wait(Duration),
    Take(u32),
    GiveBack(u32),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // Short waits around the time of a token, and long ones that fill the bucket.
    let wait = prop_oneof![
        4 => (0u64..300_000_000).prop_map(Duration::from_nanos),
        1 => (0u64..100).prop_map(Duration::from_secs),
    ];
    let event = prop_oneof![
        3 => wait.prop_map(Event::Wait),
        5 => (1u32..4).prop_map(Event::Take),
        1 => (0u32..3).prop_map(Event::GiveBack),
    ];
    prop::collection::vec(event, 1..200)
}

/// Buckets in which a token takes a whole number of ticks, so that a rational model must agree exactly.
fn exact_config() -> impl Strategy<Value = TokenBucketConfig> {
    (1u32..20, 1u32..50, 50u64..500).prop_map(|(max, per_fill, ms)| {
        // `ms * per_fill` milliseconds for `per_fill` tokens: `ms` for each.
        let interval = Duration::from_millis(ms * u64::from(per_fill));
        TokenBucketConfig::new(max, per_fill, interval).unwrap()
    })
}

fn any_config() -> impl Strategy<Value = TokenBucketConfig> {
    let interval = 50_000_000u64..100_000_000_000;
    (1u32..1_000, 1u32..100_000, interval).prop_map(|(max, per_fill, nanos)| {
        TokenBucketConfig::new(max, per_fill, Duration::from_nanos(nanos)).unwrap()
    })
}

/// Tokens as a fraction with denominator `interval`: exact, and as plain as the definition.
struct Naive {
    /// Tokens times nanoseconds of the interval.
    level: u128,
    config: TokenBucketConfig,
}

impl Naive {
    fn interval(&self) -> u128 {
        self.config.fill_interval().as_nanos()
    }

    fn max(&self) -> u128 {
        u128::from(self.config.max_tokens().get()) * self.interval()
    }

    fn add(&mut self, level: u128) {
        self.level = (self.level + level).min(self.max());
    }

    fn wait(&mut self, duration: Duration) {
        self.add(duration.as_nanos() * u128::from(self.config.tokens_per_fill().get()));
    }

    fn take(&mut self, tokens: u32) -> bool {
        let cost = u128::from(tokens) * self.interval();
        let enough = self.level >= cost;
        if enough {
            self.level -= cost;
        }
        enough
    }
}

proptest! {
    #[test]
    fn model_it_agrees_with_a_count_of_tokens(config in exact_config(), events in events()) {
        let mut now = clock::now();
        let bucket = TokenBucket::new(config, now);
        let mut naive = Naive { level: 0, config };
        naive.level = naive.max();
        for event in events {
            match event {
                Event::Wait(duration) => {
                    now += duration;
                    naive.wait(duration);
                }
                Event::Take(tokens) => {
                    let taken = bucket.take(now, tokens);
                    prop_assert_eq!(taken.is_ok(), naive.take(tokens), "{:?}", taken);
                    let left = (naive.level / naive.interval()) as u32;
                    prop_assert_eq!(taken.unwrap_or_else(|shortage| shortage.left), left);
                    if let Err(shortage) = taken && tokens <= config.max_tokens().get() {
                        // One nanosecond before the wait is over it would still be refused.
                        let mut early = Naive { level: naive.level, config };
                        early.wait(shortage.wait - Duration::from_nanos(1));
                        prop_assert!(!early.take(tokens));
                        prop_assert!(TokenBucket::left(&bucket, now + shortage.wait) >= tokens);
                    }
                }
                Event::GiveBack(tokens) => {
                    bucket.give_back(tokens);
                    naive.add(u128::from(tokens) * naive.interval());
                }
            }
            prop_assert_eq!(u128::from(bucket.left(now)), naive.level / naive.interval());
        }
    }

    #[test]
    fn model_no_span_of_time_gets_more_than_its_share(
        config in any_config(),
        waits in prop::collection::vec(0u64..2_000_000_000, 1..120),
    ) {
        let start = clock::now();
        let mut now = start;
        let bucket = TokenBucket::new(config, now);
        let mut taken: Vec<Duration> = Vec::new();
        for wait in waits {
            now += Duration::from_nanos(wait);
            for _ in 0..3 {
                if bucket.take(now, 1).is_ok() {
                    taken.push(now - start);
                }
            }
        }
        // The list of events itself: between any two, no more than a full bucket and what came since.
        for (i, from) in taken.iter().enumerate() {
            for (j, to) in taken.iter().enumerate().skip(i) {
                let came = (*to - *from).as_nanos() * u128::from(config.tokens_per_fill().get())
                    / config.fill_interval().as_nanos();
                let most = u128::from(config.max_tokens().get()) + came;
                prop_assert!((j - i + 1) as u128 <= most, "{} in {:?}", j - i + 1, *to - *from);
            }
        }
    }

    #[test]
    fn model_a_busy_bucket_gives_its_rate(config in any_config()) {
        let mut now = clock::now();
        let bucket = TokenBucket::new(config, now);
        bucket.take(now, config.max_tokens().get()).unwrap();
        // Whenever it says how long to wait, it keeps its word, and the sum is the rate.
        let start = now;
        for _ in 0..50 {
            if let Err(shortage) = bucket.take(now, 1) {
                now += shortage.wait;
                prop_assert!(bucket.take(now, 1).is_ok());
            }
        }
        let expected = 50.0 / config.rate();
        let took = (now - start).as_secs_f64();
        prop_assert!(took >= expected * 0.999_999, "{took} for {expected}");
        prop_assert!(took <= expected * 1.001 + 1e-6, "{took} for {expected}");
    }

    #[test]
    fn model_extreme_buckets_start_full_and_never_panic(
        max in 1u32..,
        per_fill in 1u32..,
        interval in prop_oneof![Just(Duration::from_millis(50)), Just(Duration::MAX), (1u64..u64::MAX).prop_map(Duration::from_secs)],
        wait in any::<u32>(),
    ) {
        let config = TokenBucketConfig::new(max, per_fill, interval).unwrap();
        let now = clock::now();
        let bucket = TokenBucket::new(config, now);
        prop_assert_eq!(bucket.left(now), max);
        prop_assert_eq!(bucket.take(now, max), Ok(0));
        prop_assert!(bucket.take(now, max).is_err());
        let later = now + Duration::from_secs(u64::from(wait));
        prop_assert!(bucket.left(later) <= max);
        let _ = bucket.next_token(later);
        bucket.give_back(u32::MAX);
        prop_assert_eq!(bucket.left(later), max);
    }
}

#[test]
fn three_a_second_are_three_at_once_and_then_one_each_third() {
    let now = clock::now();
    let bucket = TokenBucket::new(TokenBucketConfig::per_second(3).unwrap(), now);
    assert_eq!(bucket.take(now, 1), Ok(2));
    assert_eq!(bucket.take(now, 1), Ok(1));
    assert_eq!(bucket.take(now, 1), Ok(0));
    let shortage = bucket.take(now, 1).unwrap_err();
    assert_eq!((shortage.left, shortage.wait.as_nanos()), (0, 333_333_334));
    assert_eq!(bucket.take(now + shortage.wait, 1), Ok(0));
}

#[test]
fn tokens_trickle_in_rather_than_come_at_the_end_of_the_interval() {
    let now = clock::now();
    let config = TokenBucketConfig::new(100, 100, Duration::from_secs(10)).unwrap();
    let bucket = TokenBucket::new(config, now);
    bucket.take(now, 100).unwrap();
    assert_eq!(bucket.left(now + Duration::from_millis(99)), 0);
    assert_eq!(bucket.left(now + Duration::from_millis(100)), 1);
    assert_eq!(bucket.left(now + Duration::from_millis(1_050)), 10);
    assert_eq!(bucket.left(now + Duration::from_secs(1_000)), 100);
}

#[test]
fn more_than_the_bucket_holds_is_never_there() {
    let now = clock::now();
    let bucket = TokenBucket::new(TokenBucketConfig::per_second(5).unwrap(), now);
    let shortage = bucket.take(now, 6).unwrap_err();
    assert_eq!((shortage.left, shortage.wait), (5, Duration::MAX));
    assert_eq!(bucket.left(now), 5);
}

#[test]
fn a_clock_that_steps_back_takes_nothing_and_gives_nothing() {
    let now = clock::now();
    let bucket = TokenBucket::new(TokenBucketConfig::per_second(10).unwrap(), now);
    let later = now + Duration::from_secs(5);
    bucket.take(later, 10).unwrap();
    assert!(bucket.take(now, 1).is_err());
    assert_eq!(bucket.left(now), 0);
    assert_eq!(bucket.left(later + Duration::from_millis(100)), 1);
}
