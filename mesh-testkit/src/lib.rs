//! Scripted upstreams, bodies and the tower Service laws, for tests.
//!
//! | to | use |
//! |---|---|
//! | play the upstream | [`Upstream`], [`Reply`] |
//! | play a body, in either direction | [`ScriptedBody`] |
//! | hold something until the test says so | [`Gate`] |
//! | poll by hand and see who was woken | [`Polled`] |
//! | let paused time pass | [`advance`], [`settle`], [`Stopwatch`] |
//! | make a request that has a [`RequestInfo`](mesh_core::RequestInfo) | [`request`], [`info`], [`request_with`] |
//! | check that a layer is a good tower citizen | [`Laws`] |
//!
//! Tests run with paused time (`#[tokio::test(start_paused = true)]`), so that a delay costs nothing and
//! takes exactly as long as it says.
//!
//! ```
//! use http::Request;
//! use mesh_core::{Body, ErrorKind};
//! use mesh_testkit::{Reply, Upstream};
//! use tower_service::Service;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let upstream = Upstream::new();
//! upstream.script([Reply::status(503), Reply::error(ErrorKind::RemoteReset)]);
//!
//! let mut service = upstream.service();
//! std::future::poll_fn(|cx| Service::<Request<Body>>::poll_ready(&mut service, cx)).await.unwrap();
//! let response = service.call(Request::new(Body::from("hello"))).await.unwrap();
//!
//! assert_eq!(response.status(), 503);
//! assert_eq!(upstream.requests()[0].body, "hello");
//! # }
//! ```

mod body;
mod facts;
mod gate;
mod laws;
mod poll;
mod reply;
mod time;
mod upstream;

pub use body::ScriptedBody;
pub use facts::{info, request, request_with};
pub use gate::Gate;
pub use laws::{Law, Laws, Violation};
pub use poll::{Polled, call, ready};
pub use reply::Reply;
pub use time::{Stopwatch, advance, settle};
pub use upstream::{Seen, Upstream, UpstreamService};
