//! The PROXY protocol, versions 1 and 2: who connected to a proxy in front, and where to.
//!
//! [`parse`] reads a header from the start of what has arrived; it keeps nothing, and is asked again when more
//! is there. [`ProxyHeader::encode`] writes one, and [`ProxyConnector`] puts it in front of connections.
//!
//! # Envoy
//! `envoy.filters.listener.proxy_protocol`, `envoy.transport_sockets.upstream_proxy_protocol`. The protocol:
//! <https://www.haproxy.org/download/3.1/doc/proxy-protocol.txt>

mod connect;
mod encode;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

use std::net::SocketAddr;

pub use connect::ProxyConnector;

/// How long a header of version 1 may be, with its line end; a longer one is an error.
pub const V1_BYTES_MAX: usize = 108;
/// How long a header of version 2 may be: what its length field can say.
pub const V2_BYTES_MAX: usize = 16 + u16::MAX as usize;

/// One of both versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Type and value of an extension.
pub type Tlv = (u8, Box<[u8]>);

/// A header, as far as anybody needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Source and destination; `None` when the proxy speaks for itself (`LOCAL`, `UNKNOWN`): then those of the
    /// socket count.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// What version 2 adds, in order.
    pub tlvs: Vec<Tlv>,
}

/// What is at the start of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// More must arrive before anybody can tell: at least so many bytes from the start.
    Incomplete(usize),
    /// Something else than a PROXY header.
    Absent,
    /// A header of so many bytes.
    Header(ProxyVersion, ProxyHeader, usize),
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// No end of line within [`V1_BYTES_MAX`].
    #[error("the line does not end")]
    TooLong,
    /// The line is not made of what it must be made of.
    #[error("the line is malformed")]
    Line,
    /// Neither `LOCAL` nor `PROXY`, or not version 2.
    #[error("the version or the command is unknown")]
    Command,
    /// Neither IPv4 nor IPv6, or neither a stream nor datagrams.
    #[error("the address family or the transport is not supported")]
    Family,
    /// The header ends before its addresses or extensions do.
    #[error("the header is shorter than what it announces")]
    Length,
    /// Nobody can connect from or to such an address.
    #[error("the addresses are not unicast addresses")]
    NotUnicast,
}

/// Reads what is at the start of `bytes`, all that has arrived of a connection.
///
/// # Errors
/// With the version whose signature was there, and what is wrong behind it.
pub fn parse(bytes: &[u8]) -> Result<Parsed, (ProxyVersion, ProxyError)> {
    for (version, signature) in [
        (ProxyVersion::V1, v1::SIGNATURE),
        (ProxyVersion::V2, v2::SIGNATURE),
    ] {
        if let Some(rest) = bytes.strip_prefix(signature) {
            let parsed = match version {
                ProxyVersion::V1 => v1::parse(rest),
                ProxyVersion::V2 => v2::parse(rest),
            };
            return parsed.map_err(|error| (version, error));
        }
        if signature.starts_with(bytes) {
            return Ok(Parsed::Incomplete(signature.len()));
        }
    }
    Ok(Parsed::Absent)
}

/// A header for `addresses`, which both must be of hosts.
fn header(
    version: ProxyVersion,
    addresses: Option<(SocketAddr, SocketAddr)>,
    tlvs: Vec<Tlv>,
    length: usize,
) -> Result<Parsed, ProxyError> {
    let unicast = |address: SocketAddr| match address.ip() {
        std::net::IpAddr::V4(ip) => {
            !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast())
        }
        std::net::IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    };
    if addresses.is_some_and(|(source, destination)| !unicast(source) || !unicast(destination)) {
        return Err(ProxyError::NotUnicast);
    }
    Ok(Parsed::Header(
        version,
        ProxyHeader { addresses, tlvs },
        length,
    ))
}
