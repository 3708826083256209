//! Every interleaving of threads that share a bucket: `RUSTFLAGS="--cfg mesh_loom" cargo test --release --test loom`.
#![cfg(mesh_loom)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use loom::thread;
use mesh_ratelimit::{TokenBucket, TokenBucketConfig};

fn bucket(tokens: u32, now: Instant) -> Arc<TokenBucket> {
    let config = TokenBucketConfig::new(tokens, 1, Duration::from_secs(1)).unwrap();
    Arc::new(TokenBucket::new(config, now))
}

#[test]
fn loom_no_token_is_taken_twice_and_none_is_lost() {
    let now = mesh_core::clock::now();
    loom::model(move || {
        let bucket = bucket(2, now);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let bucket = Arc::clone(&bucket);
                thread::spawn(move || bucket.take(now, 1).is_ok())
            })
            .collect();
        let taken = threads.into_iter().map(|t| t.join().unwrap());
        assert_eq!(taken.filter(|taken| *taken).count(), 2);
        assert_eq!(bucket.left(now), 0);
    });
}

#[test]
fn loom_giving_back_while_others_take_keeps_the_sum() {
    let now = mesh_core::clock::now();
    loom::model(move || {
        let bucket = bucket(2, now);
        bucket.take(now, 2).unwrap();
        let giver = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.give_back(1))
        };
        let taker = {
            let bucket = Arc::clone(&bucket);
            thread::spawn(move || bucket.take(now, 1).is_ok())
        };
        giver.join().unwrap();
        let taken = u32::from(taker.join().unwrap());
        assert_eq!(bucket.left(now), 1 - taken);
    });
}

#[test]
fn loom_time_that_differs_between_threads_gives_no_extra_token() {
    let now = mesh_core::clock::now();
    loom::model(move || {
        let bucket = bucket(1, now);
        let later = now + Duration::from_secs(1);
        let threads: Vec<_> = [now, later]
            .into_iter()
            .map(|at| {
                let bucket = Arc::clone(&bucket);
                thread::spawn(move || u32::from(bucket.take(at, 1).is_ok()))
            })
            .collect();
        let taken: u32 = threads.into_iter().map(|t| t.join().unwrap()).sum();
        // One at the start and one a second later; less only when the earlier clock comes second.
        assert!((1..=2).contains(&taken));
        assert!(bucket.left(later) <= 2 - taken);
    });
}
