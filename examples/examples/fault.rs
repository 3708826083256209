//! How do I see what my client makes of a slow or failing upstream?
//!
//! ```sh
//! cargo run -p examples --example fault
//! ```
//!
//! A third of the requests wait for three seconds, and a third fail. The client gives each a second; the
//! output shows how its requests ended. Time is virtual: it takes no time to run.

use std::time::Duration;

use http::{Request, Response, StatusCode};
use mesh_core::{Body, Error, ErrorKind, FractionalPercent, Rng};
use mesh_fault::{Abort, FaultAbort, FaultConfig, FaultDelay, FaultLayer};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Error> {
    let third = FractionalPercent::percent(33);
    let layer = FaultLayer::fixed(FaultConfig {
        delay: Some(FaultDelay::fixed(Duration::from_secs(3), third)),
        abort: Some(FaultAbort::new(
            Abort::Http(StatusCode::SERVICE_UNAVAILABLE),
            third,
        )),
        ..FaultConfig::default()
    })
    // The same faults each time.
    .with_rng(Rng::seeded(7));
    let client = layer.layer(service_fn(|_: Request<Body>| async {
        Ok::<_, Error>(Response::new(Body::from("hello")))
    }));

    let (mut answered, mut failed, mut timed_out) = (0, 0, 0);
    for request in 0..30 {
        let answer = client.clone().oneshot(Request::new(Body::empty()));
        let what = match tokio::time::timeout(Duration::from_secs(1), answer).await {
            Err(_) => {
                timed_out += 1;
                "took too long".to_owned()
            }
            Ok(Ok(response)) => {
                answered += 1;
                format!("answered {}", response.status().as_u16())
            }
            Ok(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::FaultInjected);
                failed += 1;
                format!("failed: {error}")
            }
        };
        println!("{request:2}  {what}");
    }
    let stats = layer.stats();
    println!("{answered} answered, {failed} failed, {timed_out} took too long");
    assert_eq!(answered + failed + timed_out, 30);
    assert_eq!(stats.delays_injected().value(), timed_out);
    assert_eq!(stats.aborts_injected().value(), failed);
    assert!(answered > 0 && failed > 0 && timed_out > 0);
    assert_eq!(stats.active_faults().value(), 0);
    Ok(())
}
