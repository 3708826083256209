//! HTTP on sockets.
//!
//! * [`h1`]: the HTTP/1.1 codec of both sides.
//! * [`Handler`]: the seam above the downstream codec; whoever answers requests implements it.
//! * [`pool`]: the connections to one endpoint, and the seam below which a protocol's codec sits.
//! * [`hygiene`]: what the edge does to headers, paths and addresses, in both directions.
//! * [`reply`]: the one place that turns an error into a response.

pub mod authority;
pub mod h1;
mod handler;
pub mod hygiene;
pub mod pool;
pub mod reply;

pub use handler::{Abort, CloseConnection, Exchange, Handler};
