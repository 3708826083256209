//! The HTTP/2 codec of both sides: framing and flow control by the `h2` crate, the rest here.
//!
//! * `server`: a connection of a client. Each stream is answered by the [`Handler`](crate::Handler)
//!   within the connection's own task.
//! * `client`: a connection to an upstream, which a [`pool`](crate::pool) shares between requests.
//! * `flood`: what cuts off peers that keep us busy for nothing; [`Http2Config`] has the limits.

mod activity;
mod body;
pub(crate) mod client;
mod config;
mod error;
mod flood;
mod gather;
mod head;
mod io;
mod keepalive;
mod pump;
pub(crate) mod server;
mod stats;

pub use config::{FloodLimits, Http2Config, KeepaliveConfig};
pub use flood::Flood;
pub(crate) use io::PREFACE;
pub use stats::Http2Stats;
