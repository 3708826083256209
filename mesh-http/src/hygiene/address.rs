use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::OnceLock,
};

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
pub(super) fn forwarded_for(value: &[u8], hops: usize) -> Option<IpAddr> {
    let entry = value
        .rsplit(|byte| *byte == b',')
        .nth(hops.checked_sub(1)?)?;
    let entry = str::from_utf8(entry).ok()?.trim();
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
    use super::forwarded_for;

    #[test]
    fn counts_entries_from_the_right() {
        let xff = b"1.1.1.1, 2.2.2.2,::3,\xff";
        assert_eq!(forwarded_for(xff, 2), Some("::3".parse().unwrap()));
        assert_eq!(forwarded_for(xff, 4), Some("1.1.1.1".parse().unwrap()));
        assert_eq!(forwarded_for(xff, 1), None);
        assert_eq!(forwarded_for(xff, 5), None);
        assert_eq!(forwarded_for(b"evil", 1), None);
    }
}
