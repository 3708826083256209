//! Content codings as tower layers: gzip, brotli, zstd.
//!
//! | layer | what it does |
//! |---|---|
//! | [`CompressLayer`] | compresses answers for clients that accept it, and requests for upstreams that understand it |
//! | [`DecompressLayer`] | decompresses answers for clients that do not, and requests for services that do not |
//!
//! Bodies stream: a frame goes in, what has become of it comes out, and nothing is read before what has come
//! out was taken. Whenever the body inside makes one wait, everything that it has said so far is let out, so
//! that a stream of events stays one.
//!
//! **When not.** Compressing secrets beside text that an attacker chooses tells him the secrets (BREACH).
//! What is compressed already (images, video) only costs time; [`Scope::content_type`] leaves it out.
//!
//! # With the defaults
//!
//! Answers of at least 30 bytes and of a textual type are compressed, if the client accepts it:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use http::{Request, Response};
//! use mesh_compress::{CompressConfig, CompressLayer, Compression};
//! use mesh_core::{Body, Error};
//! use tower::{Layer, ServiceExt};
//!
//! let layer = CompressLayer::fixed(CompressConfig::new(Compression::gzip(6)));
//! let service = layer.layer(tower::service_fn(|_: Request<Body>| async {
//!     Ok::<_, Error>(Response::new(Body::from("hello ".repeat(100))))
//! }));
//! let request = Request::get("/").header("accept-encoding", "gzip, br").body(Body::empty())?;
//! let response = service.oneshot(request).await?;
//! assert_eq!(response.headers()["content-encoding"], "gzip");
//! assert_eq!(response.headers()["vary"], "Accept-Encoding");
//! # Ok(()) }
//! ```
//!
//! # Customised
//!
//! Layers of one stack agree on who compresses: each client gets the coding that it likes best.
//!
//! ```
//! use mesh_compress::{CompressConfig, CompressLayer, Compression, DecompressConfig, DecompressLayer};
//! use mesh_compress::{Coding, Expansion, Scope};
//! use tower::ServiceBuilder;
//!
//! let mut brotli = CompressConfig::new(Compression::brotli(5));
//! // Of those that the client likes equally.
//! brotli.choose_first = true;
//! brotli.response = Some(Scope { min_content_length: 1_000, ..Scope::default() });
//! let mut requests = DecompressConfig::new(Coding::Gzip);
//! requests.response = None;
//! requests.expansion = Expansion { max_bytes: Some(10 << 20), ..Expansion::default() };
//! let stack = ServiceBuilder::new()
//!     .layer(CompressLayer::fixed(brotli))
//!     .layer(CompressLayer::fixed(CompressConfig::new(Compression::gzip(6))))
//!     // A body that grows beyond its limit ends in an error that says so.
//!     .layer(DecompressLayer::fixed(requests));
//! # let _ = stack;
//! ```
//!
//! # Envoy
//!
//! `envoy.filters.http.compressor` and `envoy.filters.http.decompressor`. Two differences: of several codings
//! it is the one applied last that is taken off first, as RFC 9110 says; and a body that expands too far, or
//! is not what it says, fails rather than ends early.

mod accept;
mod body;
mod coding;
mod compress;
mod config;
mod decode;
mod decompress;
mod encode;
mod headers;
mod metrics;

pub use accept::{Candidate, Choice, choose};
pub use coding::{Coding, Compression};
pub use compress::{Compress, CompressFuture, CompressLayer};
pub use config::{
    CONTENT_TYPES_DEFAULT, CompressConfig, DecompressConfig, MIN_CONTENT_LENGTH_DEFAULT, Scope,
    Transparency,
};
pub use decode::Expansion;
pub use decompress::{Decompress, DecompressFuture, DecompressLayer};
pub use metrics::{AcceptStats, CodingStats, DecompressStats};
