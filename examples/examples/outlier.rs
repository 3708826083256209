//! How do I take a bad endpoint out of rotation, and let it come back?
//!
//! ```sh
//! cargo run -p examples --example outlier
//! ```
//!
//! Four endpoints take turns. The third answers 500 for a minute, then is well again. The event log shows
//! when it is ejected and un-ejected, each time for longer. Time is virtual: it takes no time to run.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use mesh_core::{Body, Endpoint, Error, Health, clock};
use mesh_outlier::{Detector, OutlierConfig, OutlierLayer};
use tower::{Layer as _, ServiceExt as _, service_fn};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Error> {
    let config = OutlierConfig::builder()
        .interval(Duration::from_secs(1))
        .base_ejection_time(Duration::from_secs(10))
        // The default of 10 % would eject none of four.
        .max_ejection_percent(50)
        .build()
        .expect("the numbers are within their ranges");
    let detector = Detector::builder("users", config)
        .on_event(|event| println!("{}", event.to_json().unwrap_or_default()))
        .build();
    let driver = tokio::spawn(detector.run(std::future::pending()));

    let start = clock::now();
    let clients: Vec<_> = (1..=4u8)
        .map(|n| {
            let endpoint = Endpoint::standalone(SocketAddr::from(([10, 0, 0, n], 80)));
            let state = Arc::clone(&endpoint.state);
            let client = service_fn(move |_: Request<Body>| async move {
                let mut response = Response::new(Body::empty());
                if n == 3 && clock::now() - start < MINUTE {
                    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                }
                Ok::<_, Error>(response)
            });
            let layer = OutlierLayer::http(detector.monitor(&state));
            (state, layer.layer(client))
        })
        .collect();

    // Round robin over those that are well: what a balancer does.
    let (mut sent, mut failed) = (0, 0);
    while clock::now() - start < 2 * MINUTE {
        for (state, client) in &clients {
            if state.health() == Health::Healthy {
                let response = client.clone().oneshot(Request::new(Body::empty())).await?;
                sent += 1;
                failed += u32::from(response.status().is_server_error());
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let report = detector.report();
    println!("{sent} requests, {failed} of them failed");
    for endpoint in &report.endpoints {
        println!(
            "{}: ejected {} times",
            endpoint.address, endpoint.num_ejections
        );
    }
    // After each return, five bad answers eject it again: for 10, 20 and 30 seconds.
    assert_eq!(failed, 15);
    assert_eq!(report.endpoints[2].num_ejections, 3);
    assert!(
        clients
            .iter()
            .all(|(state, _)| state.health() == Health::Healthy)
    );
    driver.abort();
    Ok(())
}
