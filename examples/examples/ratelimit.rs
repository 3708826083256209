//! How do I keep one greedy client from taking everything?
//!
//! ```sh
//! cargo run -p examples --example ratelimit
//! ```
//!
//! Two users share a service. Each has five requests a second of his own; the service as a whole has
//! twenty. One user sends fifty a second, the other two. The greedy one is told to slow down, and the other
//! never notices. Time is virtual: ten seconds pass at once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response};
use mesh_core::{Body, Error, Fixed, clock, stats::Registry};
use mesh_ratelimit::{
    Action, Descriptor, Descriptors, LocalRateLimit, LocalRateLimitConfig, RateLimitLayer,
    RateLimitRule, TokenBucketConfig, XRateLimitHeaders,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Each request carries the descriptor (user, <value of x-user>); each value has its own bucket.
    let by_user = RateLimitRule::new(vec![Action::RequestHeaders {
        header_name: "x-user".parse()?,
        descriptor_key: Arc::from("user"),
        skip_if_absent: false,
    }]);
    let config = LocalRateLimitConfig {
        stat_prefix: Arc::from("api"),
        descriptors: Descriptors::new(vec![Descriptor::new(
            [("user", "")],
            TokenBucketConfig::per_second(5)?,
        )])?,
        rate_limits: vec![by_user].into(),
        enable_x_ratelimit_headers: XRateLimitHeaders::DraftVersion03,
        ..LocalRateLimitConfig::per_second(20)?
    };
    let registry = Registry::new();
    let limit = LocalRateLimit::new(config, clock::now()).with_stats(&registry.scope(""));
    let service =
        RateLimitLayer::new(Fixed::new(limit)).layer(service_fn(|_: Request<Body>| async {
            Ok::<_, Error>(Response::new(Body::from("hello")))
        }));

    // user -> (served, refused)
    let mut outcome: BTreeMap<&str, (u32, u32)> = BTreeMap::new();
    let mut last_refusal = None;
    for tick in 0..500 {
        for (user, every) in [("greedy", 1), ("modest", 25)] {
            if tick % every != 0 {
                continue;
            }
            let mut request = Request::new(Body::empty());
            let name = HeaderValue::from_static(user);
            request.headers_mut().insert("x-user", name);
            let (served, refused) = outcome.entry(user).or_default();
            match service.clone().oneshot(request).await {
                Ok(_) => *served += 1,
                Err(error) => {
                    *refused += 1;
                    last_refusal = Some(error);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    for (user, (served, refused)) in &outcome {
        println!("{user}: {served} served, {refused} refused");
    }
    if let Some(mut error) = last_refusal {
        println!("\na refusal is an error, `{error}`, that carries the answer to give:");
        let reply = error.take_reply().ok_or("a refusal has a reply")?;
        println!("  {} {:?}", reply.status, reply.body);
        for (name, value) in &reply.headers {
            println!("  {name}: {}", value.to_str()?);
        }
    }
    println!("\nand the stats are Envoy's:");
    for stat in registry.snapshot() {
        println!("  {}: {:?}", stat.name, stat.value);
    }

    // Five at once at the start, and five in each of ten seconds.
    let (served, refused) = outcome["greedy"];
    assert!((54..=55).contains(&served), "{served}");
    assert_eq!(served + refused, 500);
    assert_eq!(outcome["modest"], (20, 0));
    Ok(())
}
