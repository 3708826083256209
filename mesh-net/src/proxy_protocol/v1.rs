use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Parsed, ProxyError, ProxyVersion, V1_BYTES_MAX, header};

pub(super) const SIGNATURE: &[u8] = b"PROXY ";

/// Reads what follows the signature.
pub(super) fn parse(rest: &[u8]) -> Result<Parsed, ProxyError> {
    let room = V1_BYTES_MAX - SIGNATURE.len();
    let visible = rest.get(..room).unwrap_or(rest);
    let Some(end) = visible.windows(2).position(|pair| pair == b"\r\n") else {
        return if rest.len() >= room {
            Err(ProxyError::TooLong)
        } else {
            Ok(Parsed::Incomplete(SIGNATURE.len() + rest.len() + 1))
        };
    };
    let line = visible.get(..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let length = SIGNATURE.len() + end + 2;
    let mut words = line.split(' ');
    let addresses = match words.next() {
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses::<Ipv4Addr>(&mut words).ok_or(ProxyError::Line)?),
        Some("TCP6") => Some(addresses::<Ipv6Addr>(&mut words).ok_or(ProxyError::Line)?),
        _ => return Err(ProxyError::Line),
    };
    header(ProxyVersion::V1, addresses, Vec::new(), length)
}

/// Two addresses, two ports, and nothing more.
fn addresses<'a, A>(words: &mut impl Iterator<Item = &'a str>) -> Option<(SocketAddr, SocketAddr)>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let source: A = words.next()?.parse().ok()?;
    let destination: A = words.next()?.parse().ok()?;
    let source = SocketAddr::new(source.into(), port(words.next()?)?);
    let destination = SocketAddr::new(destination.into(), port(words.next()?)?);
    words.next().is_none().then_some((source, destination))
}

fn port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| word.parse().ok())?
}
