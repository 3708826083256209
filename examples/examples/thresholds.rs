//! How do I keep a slow upstream from piling up my requests?
//!
//! ```sh
//! cargo run -p examples --example thresholds
//! ```
//!
//! An upstream takes a second for each answer. Ten clients come at once; three requests may run, and the
//! others are told at once that there is no room, instead of waiting for an answer that comes too late. Time is
//! virtual: it takes no time to run.

use std::time::Duration;

use http::{Request, Response};
use mesh_breaker::{ThresholdsLayer, ThresholdsStats, export_gauges};
use mesh_core::{
    Body, Error, ErrorKind, Resource, Resources, Thresholds,
    stats::{Registry, Value},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() {
    let registry = Registry::new();
    let resources = Resources::new(&Thresholds {
        max_requests: 3,
        ..Thresholds::default()
    });
    // The gauges are Envoy's: rq_open turns 1 when the bound is reached.
    let _gauges = export_gauges(
        &registry,
        "cluster.slow.circuit_breakers.default.",
        &resources,
        true,
    );
    let layer = ThresholdsLayer::shared(&resources)
        .stats(ThresholdsStats::register(&registry.scope("cluster.slow.")))
        .http();

    let slow = service_fn(|_: Request<Body>| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, Error>(Response::new(Body::from("finally")))
    });
    let client = layer.layer(slow);

    let calls: Vec<_> = (0..10)
        .map(|_| tokio::spawn(client.clone().oneshot(Request::new(Body::empty()))))
        .collect();
    tokio::time::sleep(Duration::from_millis(1)).await;
    println!("while three requests run:");
    print_stats(&registry);

    let (mut served, mut refused) = (0, 0);
    for call in calls {
        match call.await.expect("no call panics") {
            Ok(response) => {
                assert_eq!(response.status(), 200);
                served += 1;
            }
            Err(error) => {
                // At the edge of a mesh stack: 503, flag UO, x-envoy-overloaded: true.
                assert_eq!(error.kind(), ErrorKind::Overflow(Resource::Requests));
                refused += 1;
            }
        }
    }
    println!("served {served}, refused {refused}");
    assert_eq!((served, refused), (3, 7));
    assert_eq!(resources.in_use(Resource::Requests), 0);
}

fn print_stats(registry: &Registry) {
    for stat in registry.snapshot() {
        if let Value::Counter(n) | Value::Gauge(n) = stat.value
            && n > 0
        {
            println!("  {}: {n}", stat.name);
        }
    }
}
