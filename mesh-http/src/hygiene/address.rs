use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::OnceLock,
};

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    prefix: u8,
}

/// A prefix that is longer than its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidCidr {
    prefix: u8,
}

impl fmt::Display for InvalidCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "prefix length {} is longer than the address",
            self.prefix
        )
    }
}

impl std::error::Error for InvalidCidr {}

impl Cidr {
    /// The addresses that share the first `prefix` bits with `network`.
    ///
    /// # Errors
    /// When `prefix` is longer than the address.
    pub fn new(network: IpAddr, prefix: u8) -> Result<Self, InvalidCidr> {
        let bits = if network.is_ipv4() { 32 } else { 128 };
        if prefix <= bits {
            Ok(Self { network, prefix })
        } else {
            Err(InvalidCidr { prefix })
        }
    }

    /// Whether `address` is in the range; an IPv4 address written as IPv6 counts as IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.prefix))
                    .unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX
                    .checked_shl(128 - u32::from(self.prefix))
                    .unwrap_or(0);
                network.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The address that this machine would use towards others. Connecting a datagram socket sends nothing;
/// it only makes the kernel choose.
pub(super) fn local_address() -> IpAddr {
    static LOCAL: OnceLock<IpAddr> = OnceLock::new();
    *LOCAL.get_or_init(|| {
        let towards = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| {
                socket.connect(towards)?;
                socket.local_addr()
            })
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
    })
}

/// The entry of `x-forwarded-for` that stands `hops` places from the right, 1 being the last.
pub(super) fn forwarded_for(value: &str, hops: usize) -> Option<IpAddr> {
    let entry = value.rsplit(',').nth(hops.checked_sub(1)?)?.trim();
    let bare = entry
        .strip_prefix('[')
        .and_then(|e| e.strip_suffix(']'))
        .unwrap_or(entry);
    bare.parse::<Ipv4Addr>()
        .map(IpAddr::V4)
        .or_else(|_| bare.parse::<Ipv6Addr>().map(IpAddr::V6))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::{Cidr, forwarded_for};

    #[test]
    fn ranges_contain_what_shares_their_prefix() {
        let ten = Cidr::new("10.1.0.0".parse().unwrap(), 16).unwrap();
        assert!(ten.contains("10.1.255.1".parse().unwrap()));
        assert!(ten.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!ten.contains("10.2.0.1".parse().unwrap()));
        let all = Cidr::new("0.0.0.0".parse().unwrap(), 0).unwrap();
        assert!(all.contains("9.9.9.9".parse().unwrap()) && !all.contains("::1".parse().unwrap()));
        assert!(Cidr::new("::".parse().unwrap(), 129).is_err());
    }

    #[test]
    fn counts_entries_from_the_right() {
        let xff = "1.1.1.1, 2.2.2.2,::3";
        assert_eq!(forwarded_for(xff, 1), Some("::3".parse().unwrap()));
        assert_eq!(forwarded_for(xff, 3), Some("1.1.1.1".parse().unwrap()));
        assert_eq!(forwarded_for(xff, 4), None);
        assert_eq!(forwarded_for("evil", 1), None);
    }
}
