//! Sockets: listen, connect, resolve.
