//! How do I spread requests over endpoints, and what happens when some of them are ill?
//!
//! ```sh
//! cargo run -p examples --example balance
//! ```
//!
//! Three endpoints answer in 10 ms, a fourth in 200 ms. First round robin, then least request sends them a
//! thousand requests, two each millisecond. Then endpoints fall ill one after the other, until so few are
//! left that health is ignored: that is panic. Time is virtual: it takes no time to run.

use std::time::Duration;

use http::{Request, Response};
use mesh_balance::{Balance, LbPolicy, LeastRequestConfig};
use mesh_core::{Body, Endpoint, Error, HealthFlag, Rng, clock, sync::Ordering};
use tower::{ServiceExt as _, service_fn, util::BoxCloneService};

type Upstream = BoxCloneService<Request<Body>, Response<Body>, Error>;

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let mut mean_ms = Vec::new();
    for (name, policy) in [
        ("round robin", LbPolicy::RoundRobin),
        (
            "least request",
            LbPolicy::LeastRequest(LeastRequestConfig::default()),
        ),
    ] {
        let balance = balance(policy);
        let mean = drive(&balance).await;
        println!(
            "{name}: {mean:.1} ms on average, requests by endpoint {:?}",
            total(&balance)
        );
        mean_ms.push(mean);
    }
    // Round robin sends a quarter to the slow one; least request notices how many it still has.
    assert!(mean_ms[0] > 55.0 && mean_ms[1] < 30.0, "{mean_ms:?}");

    let balance = balance(LbPolicy::RoundRobin);
    println!("\nround robin, while endpoints fall ill:");
    for ill in 0..4 {
        let before = total(&balance);
        for _ in 0..120 {
            let sent = balance.clone().oneshot(Request::new(Body::empty())).await;
            assert!(sent.is_ok());
        }
        let came: Vec<u64> = total(&balance)
            .iter()
            .zip(before)
            .map(|(a, b)| a - b)
            .collect();
        let membership = balance.endpoints().membership();
        let panic = if ill == 3 {
            ": panic, all are used"
        } else {
            ""
        };
        println!(
            "  {} of {} healthy: {came:?}{panic}",
            membership.healthy, membership.total
        );
        let expected = [
            [30, 30, 30, 30],
            [0, 40, 40, 40],
            [0, 0, 60, 60],
            [30, 30, 30, 30],
        ];
        assert_eq!(came, expected[ill]);
        // Outlier detection or an active check would set this flag.
        let set = balance.endpoints();
        let state = &set.endpoints()[ill].state;
        state.set_health(HealthFlag::FailedOutlier, true);
    }
}

fn balance(policy: LbPolicy) -> Balance<Upstream> {
    let member = |port: u16| {
        let delay = Duration::from_millis(if port == 4 { 200 } else { 10 });
        let service = service_fn(move |_: Request<Body>| async move {
            tokio::time::sleep(delay).await;
            Ok::<_, Error>(Response::new(Body::empty()))
        });
        let endpoint = Endpoint::standalone(([127, 0, 0, 1], port).into());
        (endpoint, Upstream::new(service))
    };
    // Seeded, so that each run prints the same.
    Balance::new(policy, (1..=4).map(member).collect()).with_rng(Rng::seeded(1))
}

/// Sends two requests each millisecond, and says how long they took on average.
async fn drive(balance: &Balance<Upstream>) -> f64 {
    let mut running = Vec::new();
    for _ in 0..500 {
        for _ in 0..2 {
            let call = balance.clone().oneshot(Request::new(Body::empty()));
            let start = clock::now();
            running.push(tokio::spawn(async move {
                call.await
                    .map(|_| (clock::now() - start).as_secs_f64() * 1_000.0)
            }));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (mut sum, count) = (0.0, running.len());
    for call in running {
        sum += call.await.expect("no call panics").expect("no call fails");
    }
    sum / count as f64
}

/// How many requests each endpoint got.
fn total(balance: &Balance<Upstream>) -> Vec<u64> {
    let set = balance.endpoints();
    let total = |e: &std::sync::Arc<Endpoint>| e.state.stats.rq_total.load(Ordering::Relaxed);
    set.endpoints().iter().map(total).collect()
}
