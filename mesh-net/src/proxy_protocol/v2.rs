use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Parsed, ProxyError, ProxyVersion, Tlv, header};

pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// What follows the signature in every header: version and command, family and transport, length.
const FIXED: usize = 4;

pub(super) const VERSION_2: u8 = 0x20;
pub(super) const LOCAL: u8 = 0;
pub(super) const PROXY: u8 = 1;
pub(super) const INET: u8 = 0x10;
pub(super) const INET6: u8 = 0x20;
pub(super) const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

/// Reads what follows the signature.
pub(super) fn parse(rest: &[u8]) -> Result<Parsed, ProxyError> {
    let Some((&[version, family, high, low], behind)) = rest.split_first_chunk::<FIXED>() else {
        return Ok(Parsed::Incomplete(SIGNATURE.len() + FIXED));
    };
    if version & 0xf0 != VERSION_2 {
        return Err(ProxyError::Command);
    }
    let command = version & 0x0f;
    if command != LOCAL && command != PROXY {
        return Err(ProxyError::Command);
    }
    let announced = usize::from(u16::from_be_bytes([high, low]));
    let length = SIGNATURE.len() + FIXED + announced;
    let Some(body) = behind.get(..announced) else {
        return Ok(Parsed::Incomplete(length));
    };
    if command == LOCAL {
        return header(ProxyVersion::V2, None, Vec::new(), length);
    }
    if !matches!(family & 0x0f, STREAM | DATAGRAM) {
        return Err(ProxyError::Family);
    }
    let (addresses, extensions) = match family & 0xf0 {
        INET => addresses::<4, Ipv4Addr>(body)?,
        INET6 => addresses::<16, Ipv6Addr>(body)?,
        _ => return Err(ProxyError::Family),
    };
    header(ProxyVersion::V2, Some(addresses), tlvs(extensions)?, length)
}

/// Two addresses of `N` bytes and their ports; what is behind them.
fn addresses<const N: usize, A>(
    body: &[u8],
) -> Result<((SocketAddr, SocketAddr), &[u8]), ProxyError>
where
    A: From<[u8; N]> + Into<IpAddr>,
{
    let split = || {
        let (source, body) = body.split_first_chunk::<N>()?;
        let (destination, body) = body.split_first_chunk::<N>()?;
        let (source_port, body) = body.split_first_chunk::<2>()?;
        let (destination_port, body) = body.split_first_chunk::<2>()?;
        let socket = |ip: &[u8; N], port: &[u8; 2]| {
            SocketAddr::new(A::from(*ip).into(), u16::from_be_bytes(*port))
        };
        let addresses = (
            socket(source, source_port),
            socket(destination, destination_port),
        );
        Some((addresses, body))
    };
    split().ok_or(ProxyError::Length)
}

fn tlvs(mut rest: &[u8]) -> Result<Vec<Tlv>, ProxyError> {
    let mut tlvs = Vec::new();
    while !rest.is_empty() {
        let (&[kind, high, low], behind) =
            rest.split_first_chunk::<3>().ok_or(ProxyError::Length)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, behind) = behind.split_at_checked(length).ok_or(ProxyError::Length)?;
        tlvs.push((kind, value.into()));
        rest = behind;
    }
    Ok(tlvs)
}
