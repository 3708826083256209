use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{ProxyHeader, ProxyVersion, v1, v2};

impl ProxyHeader {
    /// A header for a connection from `source` to `destination`.
    #[must_use]
    pub const fn new(source: SocketAddr, destination: SocketAddr) -> Self {
        Self {
            addresses: Some((source, destination)),
            tlvs: Vec::new(),
        }
    }

    /// A header that speaks for nobody: those who read it go by the socket.
    #[must_use]
    pub const fn local() -> Self {
        Self {
            addresses: None,
            tlvs: Vec::new(),
        }
    }

    /// The bytes that go in front of a connection. Version 1 has no room for extensions; in version 2, those
    /// that the length field cannot count any more are left out.
    #[must_use]
    pub fn encode(&self, version: ProxyVersion) -> Vec<u8> {
        match version {
            ProxyVersion::V1 => self.encode_v1().into_bytes(),
            ProxyVersion::V2 => self.encode_v2(),
        }
    }

    fn encode_v1(&self) -> String {
        let signature = String::from_utf8_lossy(v1::SIGNATURE);
        let Some((source, destination)) = self.addresses else {
            return format!("{signature}UNKNOWN\r\n");
        };
        let (from, to) = same_family(source.ip(), destination.ip());
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        let (from_port, to_port) = (source.port(), destination.port());
        format!("{signature}{family} {from} {to} {from_port} {to_port}\r\n")
    }

    fn encode_v2(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let (command, family) = match self.addresses {
            None => (v2::LOCAL, 0),
            Some((source, destination)) => {
                let mut family = v2::INET;
                let (from, to) = same_family(source.ip(), destination.ip());
                for ip in [from, to] {
                    match ip {
                        IpAddr::V4(ip) => body.extend(ip.octets()),
                        IpAddr::V6(ip) => {
                            family = v2::INET6;
                            body.extend(ip.octets());
                        }
                    }
                }
                for port in [source.port(), destination.port()] {
                    body.extend(port.to_be_bytes());
                }
                (v2::PROXY, family | v2::STREAM)
            }
        };
        for (kind, value) in &self.tlvs {
            let Ok(length) = u16::try_from(value.len()) else {
                continue;
            };
            if body.len() + 3 + value.len() <= usize::from(u16::MAX) {
                body.push(*kind);
                body.extend(length.to_be_bytes());
                body.extend(&**value);
            }
        }
        let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
        let mut bytes = v2::SIGNATURE.to_vec();
        bytes.extend([v2::VERSION_2 | command, family]);
        bytes.extend(length.to_be_bytes());
        bytes.extend(body);
        bytes
    }
}

/// Both as IPv6 when one of them is.
fn same_family(a: IpAddr, b: IpAddr) -> (IpAddr, IpAddr) {
    let wide = |ip| match ip {
        IpAddr::V4(ip) => IpAddr::V6(Ipv6Addr::from(ip.to_ipv6_mapped().octets())),
        IpAddr::V6(_) => ip,
    };
    if a.is_ipv4() == b.is_ipv4() {
        (a, b)
    } else {
        (wide(a), wide(b))
    }
}
