//! HTTP on sockets.
//!
//! * [`server`]: a client's connection, whatever it speaks.
//! * [`h1`], [`h2`]: the codecs, each for both sides.
//! * [`Handler`]: the seam above the downstream codec; whoever answers requests implements it.
//! * [`pool`]: the connections to one endpoint, and the seam below which a protocol's codec sits.
//! * [`hygiene`]: what the edge does to headers, paths and addresses, in both directions.
//! * [`reply`]: the one place that turns an error into a response.

pub mod authority;
mod date;
pub mod h1;
pub mod h2;
mod handler;
pub mod hygiene;
pub mod pool;
pub mod reply;
pub mod server;

pub use handler::{Abort, CloseConnection, CodecEvent, Exchange, Handler};
