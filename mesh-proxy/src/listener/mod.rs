//! Listeners: from the process's sockets to what a connection passes.
//!
//! | file | what |
//! |---|---|
//! | `set` | the control thread's view: which listeners there are, which sockets they have, how they go |
//! | `serving` | one listener as one worker serves it: its filter chains, built once, never changed |
//! | `accept` | one socket on one worker |
//! | `balance` | which worker gets a connection |
//! | `directory` | which listener has which address, for connections that were redirected |
//! | `connection` | one connection, from the socket to its filter chain |
//! | `filters` | what is learnt about it before: PROXY protocol, original destination |
//! | `tls_inspector` | what its ClientHello says |
//! | `limit` | how many connections a filter chain lets in at once |
//! | `http` | what an HTTP connection manager does with a connection |
//! | `tcp` | what a TCP proxy does with one |
//!
//! Sockets belong to the process and are known by their address. A listener that changes leaves them as
//! they are: its next connections are served by the new config, and those that run are told to go, unless
//! their filter chain is the same as before. One that is removed takes what the kernel has queued before
//! its sockets close, since closing resets what is queued.

mod accept;
mod balance;
mod connection;
mod directory;
mod filters;
mod http;
mod limit;
mod serving;
mod set;
mod stats;
mod tcp;
#[cfg(test)]
mod tests;
mod tls_inspector;

pub(crate) use accept::{Accept, run};
pub(crate) use connection::{Accepted, attach};
pub(crate) use serving::Serving;
pub(crate) use set::Listeners;
