//! Which filter chain takes a connection.
//!
//! [`ChainMatcher`] looks at one property after the other: destination port, destination address, server
//! name, transport protocol, application protocol, address of the socket's other end, kind of source,
//! source address, source port. For each it takes the most specific value that any chain still in question
//! names and forgets all chains that do not name it: there is no way back, and a chain that would have
//! matched in a less specific branch is not found.
//!
//! # Envoy
//! `FilterChainMatch`, `FilterChainManagerImpl::findFilterChain`.

mod level;
mod matcher;
#[cfg(test)]
mod tests;

pub use matcher::{COMBINATIONS_MAX, ChainConflict, ChainMatcher};

use mesh_core::Cidr;

/// Which connections a filter chain takes; by default all. Several values of one property are alternatives,
/// all properties must fit, and an empty list fits everything.
///
/// # Envoy
/// `FilterChainMatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainMatch {
    /// Where the client meant to go. Envoy: `destination_port`.
    pub destination_port: Option<u16>,
    /// Where the client meant to go. Envoy: `prefix_ranges`.
    pub destinations: Vec<Cidr>,
    /// `a.example` or `*.example`, which has at least one label more. Envoy: `server_names`.
    pub server_names: Vec<ServerName>,
    /// `raw_buffer`, `tls`. Envoy: `transport_protocol`.
    pub transport_protocol: Option<Box<str>>,
    /// What the client offers. Envoy: `application_protocols`.
    pub application_protocols: Vec<Box<str>>,
    /// The other end of the socket. Envoy: `direct_source_prefix_ranges`.
    pub direct_sources: Vec<Cidr>,
    /// From this machine, or not. Envoy: `source_type`.
    pub source_type: SourceType,
    /// Who connects. Envoy: `source_prefix_ranges`.
    pub sources: Vec<Cidr>,
    /// Who connects. Envoy: `source_ports`.
    pub source_ports: Vec<u16>,
}

/// From where a connection comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourceType {
    /// Anywhere. Envoy: `ANY`.
    #[default]
    Any,
    /// From this machine: a Unix socket, 127.0.0.1 or ::1, or the very address that it connects to. Envoy:
    /// `SAME_IP_OR_LOOPBACK`.
    SameIpOrLoopback,
    /// Not from this machine. Envoy: `EXTERNAL`.
    External,
}

/// A name, or all names below one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerName {
    /// With the leading dot where it stands for all names below.
    key: Box<str>,
}

/// A name with a `*` somewhere else than in front of the first dot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a server name: a wildcard must be the whole first label, as in *.example.com"
)]
pub struct InvalidServerName(Box<str>);

impl ServerName {
    /// `name` or `*.name`; ASCII case does not matter.
    ///
    /// # Errors
    /// When a `*` stands anywhere else, or nothing behind it.
    pub fn new(name: &str) -> Result<Self, InvalidServerName> {
        let lower = name.to_ascii_lowercase();
        let key = match lower.strip_prefix('*') {
            Some(rest) if rest.len() > 1 && rest.starts_with('.') => rest,
            Some(_) => return Err(InvalidServerName(name.into())),
            None => &lower,
        };
        if key.contains('*') || key.is_empty() {
            return Err(InvalidServerName(name.into()));
        }
        Ok(Self { key: key.into() })
    }
}
