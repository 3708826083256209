//! HTTP/1.1: both codecs, strict where a lenient reading could be read differently by somebody else.
//!
//! The pure parts decide: `head` reads heads and their framing, `chunk` and `decode` read bodies,
//! `encode` writes both. `server` and [`client`] move bytes. One task drives a request from end to
//! end: the server polls its handler, the handler polls the upstream exchange, and nothing goes through a
//! channel.

pub(crate) mod buffer;
pub(crate) mod chunk;
pub mod client;
pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod framing;
pub(crate) mod head;
pub(crate) mod server;

pub(crate) use buffer::{ReadBuffer, WriteBuffer};
pub use framing::has_token;
pub use head::{HeadLimits, Malformed};
