//! Sockets: listen, connect, resolve.
//!
//! [`Listener`] opens the sockets of one address, one for each worker; [`connect`] opens a [`Stream`] to
//! an endpoint; [`Stream`] is the one type of byte stream that codecs see, whatever carries it;
//! [`dns`] keeps the endpoints of named clusters fresh; [`filter_chain`] says which filter chain takes a
//! connection; [`relay`] carries bytes both ways between two streams;
//! [`proxy_protocol`] reads and writes who connected to a proxy in front.

pub mod dns;
pub mod filter_chain;
pub mod proxy_protocol;
pub mod relay;

mod closing;
mod connect;
mod listen;
mod option;
mod stream;

pub use connect::{CONNECT_TIMEOUT_DEFAULT, Connect, TcpConnector, connect};
pub use listen::{AcceptError, BindOptions, BoundSocket, Listener, bind};
pub use option::{OptionFamily, OptionValue, SocketOption, SocketState};
pub use stream::{ByteCounts, Counted, DetachedStream, Stream};
