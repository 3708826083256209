use std::{fmt, net::IpAddr};

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

    /// Any address of the range.
    #[must_use]
    pub const fn network(&self) -> IpAddr {
        self.network
    }

    /// How many bits its addresses share.
    #[must_use]
    pub const fn prefix(&self) -> u8 {
        self.prefix
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

#[cfg(test)]
mod tests {
    use super::Cidr;

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
}
