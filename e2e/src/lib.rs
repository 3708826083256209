//! Real processes, real sockets: what end-to-end tests are made of.
//!
//! | module | what it is |
//! |---|---|
//! | [`process`] | starts a proxy binary on a YAML, waits until it is ready, reads its log, kills it on drop |
//! | [`admin`] | talks to its admin listener: stats, listeners, POST |
//! | [`client`] | an HTTP/1.1 client that sends exact bytes and reads exact bytes |
//! | [`tls`] | the same over TLS |
//! | [`http2`] | HTTP/2 frames, and a client that speaks them |
//! | [`upstream`] | an HTTP/1.1 and HTTP/2 server that answers by script and records every request |
//! | [`wire`] | the HTTP/1.1 framing that both ends share; deliberately not the codec under test |
//! | [`control`] | our own control plane, on a thread; [`resources`] for it |
//! | [`wait`] | conditions with deadlines, instead of sleeps |
//!
//! Everything blocks and uses plain threads: a test reads from top to bottom, and nothing here
//! shares code with the proxy that it judges.
//!
//! ```
//! use e2e::{client::Connection, upstream::{Reply, Upstream}};
//!
//! let upstream = Upstream::start("a").unwrap();
//! upstream.on("/flaky", [Reply::status(503), Reply::ok("done")]);
//!
//! let mut connection = Connection::open(upstream.address()).unwrap();
//! for expected in [503, 200] {
//!     connection.send(b"GET /flaky HTTP/1.1\r\nHost: example\r\n\r\n");
//!     assert_eq!(connection.response(false).status, expected);
//! }
//! assert_eq!(upstream.take_requests().len(), 2);
//! ```
//!
//! The differential suite against Envoy is the binary `differential` of this package; run it
//! with `cargo xtask envoy`.

pub mod admin;
pub mod client;
pub mod coding;
pub mod control;
pub mod http2;
pub mod process;
pub mod resources;
pub mod status;
pub mod tls;
pub mod upstream;
pub mod wait;
pub mod wire;
