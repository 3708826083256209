//! How do I retry without finishing off an upstream that is in trouble?
//!
//! ```sh
//! cargo run -p examples --example retry
//! ```
//!
//! A service is asked a thousand times a second and needs 50 ms for an answer. First it fails one request
//! in twenty; then it fails them all. Three clients try their luck: one that never retries, one that
//! retries up to three times, and one that does the same under a budget. Time is virtual: two seconds pass
//! at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode};
use mesh_core::{Body, Error, RetryLimit, Rng, Thresholds};
use mesh_retry::{
    DeadlineConfig, DeadlineLayer, OwnBudget, ReplayBody, RetryConfig, RetryLayer, RetryOn,
    WatchedBody,
};
use tokio::task::JoinSet;
use tower::{ServiceBuilder, ServiceExt as _, service_fn};

const REQUESTS: u32 = 2_000;

#[derive(Debug)]
struct Outcome {
    served: u32,
    attempts: u32,
}

/// Sends a request every millisecond to an upstream that fails this share of them.
async fn run(failing_percent: u64, num_retries: u32, limit: RetryLimit) -> Outcome {
    let attempts = Arc::new(AtomicU32::new(0));
    let (seen, rng) = (Arc::clone(&attempts), Rng::seeded(1));
    let upstream = service_fn(move |_: Request<ReplayBody<WatchedBody<Body>>>| {
        seen.fetch_add(1, Ordering::Relaxed);
        let fails = rng.below(100) < failing_percent;
        async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let mut response = Response::new(Body::from("hello"));
            if fails {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Error>(response)
        }
    });

    let config = RetryConfig::builder()
        .retry_on(RetryOn::GATEWAY_ERROR | RetryOn::RESET)
        .num_retries(num_retries)
        .build();
    let budget = OwnBudget::new(&Thresholds {
        retries: limit,
        ..Thresholds::default()
    });
    let client = ServiceBuilder::new()
        .layer(DeadlineLayer::new(DeadlineConfig::new(
            Duration::from_secs(1),
        )))
        .layer(
            RetryLayer::new(config)
                .with_budget(budget)
                .with_rng(Rng::seeded(2)),
        )
        .service(upstream);

    let mut running = JoinSet::new();
    for _ in 0..REQUESTS {
        let answer = client.clone().oneshot(Request::new(Body::empty()));
        // A request is in flight until its response is read or dropped.
        running.spawn(async { answer.await.map(|response| response.status()) });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answers = running.join_all().await;
    let good = |answer: &&Result<StatusCode, Error>| matches!(answer, Ok(StatusCode::OK));
    Outcome {
        served: answers.iter().filter(good).count() as u32,
        attempts: attempts.load(Ordering::Relaxed),
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let unbounded = RetryLimit::Max(u32::MAX);
    let clients = [
        ("no retries", 0, unbounded),
        ("three retries", 3, unbounded),
        ("three retries under a budget", 3, RetryLimit::default()),
    ];
    let mut outcomes = Vec::new();
    for failing in [5, 100] {
        println!("the upstream fails {failing} % of its requests:");
        for (name, num_retries, limit) in clients {
            let outcome = run(failing, num_retries, limit).await;
            println!(
                "  {name:30} {:6.2} % served, {:.2} times the load",
                f64::from(outcome.served) * 100.0 / f64::from(REQUESTS),
                f64::from(outcome.attempts) / f64::from(REQUESTS),
            );
            outcomes.push(outcome);
        }
    }

    let [none, three, budget, none_down, three_down, budget_down] = &outcomes[..] else {
        unreachable!("two times three runs")
    };
    // A little trouble: both kinds of retries hide it, at hardly any cost.
    assert!(none.served < REQUESTS * 97 / 100);
    assert_eq!(three.served, REQUESTS);
    assert!(budget.served > REQUESTS * 99 / 100);
    assert!(budget.attempts < REQUESTS * 110 / 100);
    // An outage: nothing helps, and only the budget does no harm.
    assert_eq!(none_down.attempts, REQUESTS);
    assert_eq!(three_down.attempts, REQUESTS * 4);
    assert!(budget_down.attempts < REQUESTS * 120 / 100);
}
