//! How do I stop calling an upstream that is down, and notice when it is back?
//!
//! ```sh
//! cargo run -p examples --example breaker
//! ```
//!
//! An upstream is down for seconds 3 to 12. One request goes out each second; the output shows which were
//! answered, which failed, and which the breaker refused. Time is virtual: it takes no time to run.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use mesh_breaker::{BreakerConfig, BreakerLayer, state::Phase};
use mesh_core::{Body, Error, ErrorKind, Percent, clock};
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Error> {
    let config = BreakerConfig::builder()
        .consecutive_failures(Some(3))
        .open_duration(Duration::from_secs(4), Duration::from_secs(60))
        // One client needs no jitter; a fleet does.
        .open_jitter(Percent::ZERO)
        .half_open(1, 2)
        .build()
        .expect("the numbers are within their ranges");
    let layer = BreakerLayer::http(config);
    let circuit = Arc::clone(layer.circuit());

    let start = clock::now();
    let mut client = layer.layer(service_fn(move |_: Request<Body>| async move {
        if (3..=12).contains(&(clock::now() - start).as_secs()) {
            Err(Error::new(ErrorKind::ConnectFailure))
        } else {
            Ok(Response::new(Body::from("hello")))
        }
    }));

    let mut seen = String::new();
    for second in 0..22 {
        let result = client
            .ready()
            .await?
            .call(Request::new(Body::empty()))
            .await;
        let (mark, what) = match &result {
            Ok(_) => ('+', "answered".to_owned()),
            Err(error) if error.kind() == ErrorKind::BreakerOpen => {
                let why = std::error::Error::source(error)
                    .map_or_else(String::new, |why| why.to_string());
                ('.', format!("refused: {why}"))
            }
            Err(error) => ('x', format!("failed: {error}")),
        };
        println!(
            "{second:2} s  {:8}  {what}",
            format!("{:?}", circuit.phase())
        );
        seen.push(mark);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Three failures open it. A probe after 4 seconds finds the upstream still down; after 8 more it is
    // well, and a second good answer closes the breaker.
    println!("{seen}");
    assert_eq!(seen, "+++xxx...x.......+++++");
    assert_eq!(circuit.phase(), Phase::Closed);
    Ok(())
}
