use std::net::SocketAddr;

use proptest::{collection::vec, prelude::*};

use super::{Parsed, ProxyError, ProxyHeader, ProxyVersion, V1_BYTES_MAX, V2_BYTES_MAX, parse};

fn read(bytes: &[u8]) -> (ProxyHeader, usize) {
    match parse(bytes) {
        Ok(Parsed::Header(_, header, length)) => (header, length),
        other => panic!("{other:?} from {bytes:?}"),
    }
}

fn wrong(bytes: &[u8]) -> ProxyError {
    match parse(bytes) {
        Err((_, error)) => error,
        other => panic!("{other:?} from {bytes:?}"),
    }
}

#[test]
fn lines_of_version_1() {
    let (header, length) = read(b"PROXY TCP4 192.0.2.1 198.51.100.2 5 80\r\nGET /");
    let ends = (
        "192.0.2.1:5".parse().unwrap(),
        "198.51.100.2:80".parse().unwrap(),
    );
    assert_eq!((header.addresses, length), (Some(ends), 40));
    let (header, _) = read(b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n");
    assert_eq!(
        header.addresses.unwrap().0,
        "[2001:db8::1]:1".parse().unwrap()
    );
    for unknown in ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:: ::1 1 2\r\n"] {
        assert_eq!(read(unknown.as_bytes()).0, ProxyHeader::local());
    }
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 5\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 5 80 9\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +5 80\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 5 65536\r\n",
        "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 5 80\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 5 80\r\n",
        "PROXY \r\n",
    ] {
        assert_eq!(wrong(line.as_bytes()), ProxyError::Line, "{line:?}");
    }
    let multicast = b"PROXY TCP4 224.0.0.1 198.51.100.2 5 80\r\n";
    assert_eq!(wrong(multicast), ProxyError::NotUnicast);
    assert_eq!(
        wrong(&[b"PROXY ".as_slice(), &[b'x'; 200]].concat()),
        ProxyError::TooLong
    );
}

#[test]
fn headers_of_version_2() {
    let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
    let v2 = |rest: &[u8]| [signature, rest].concat();
    let v4 = [192, 0, 2, 1, 198, 51, 100, 2, 0, 5, 0, 80];
    let (header, length) = read(&v2(&[
        [0x21, 0x11, 0, 16].as_slice(),
        &v4,
        &[0xea, 0, 1, 7],
        b"GET",
    ]
    .concat()));
    let ends: (SocketAddr, SocketAddr) = (
        "192.0.2.1:5".parse().unwrap(),
        "198.51.100.2:80".parse().unwrap(),
    );
    assert_eq!((header.addresses, length), (Some(ends), 32));
    assert_eq!(header.tlvs, [(0xea, Box::from([7]))]);
    let local = v2(&[0x20, 0x11, 0, 2, 9, 9]);
    assert_eq!(read(&local), (ProxyHeader::local(), 18));
    for (rest, error) in [
        (&[0x31, 0x11, 0, 0][..], ProxyError::Command),
        (&[0x22, 0x11, 0, 0], ProxyError::Command),
        (&[0x21, 0x31, 0, 0], ProxyError::Family),
        (&[0x21, 0x10, 0, 0], ProxyError::Family),
        (&[0x21, 0x11, 0, 2, 1, 2], ProxyError::Length),
    ] {
        assert_eq!(wrong(&v2(rest)), error, "{rest:?}");
    }
    let short = v2(&[[0x21, 0x11, 0, 15].as_slice(), &v4, &[1, 0, 9]].concat());
    assert_eq!(wrong(&short), ProxyError::Length);
}

#[test]
fn what_is_no_header_is_told_by_its_first_bytes() {
    for other in ["GET / HTTP/1.1", "PROXX", "\r\n\r\nG"] {
        assert_eq!(parse(other.as_bytes()), Ok(Parsed::Absent), "{other:?}");
    }
    for start in ["", "P", "PROXY", "\r\n\r\n\0\r\nQUIT"] {
        assert!(
            matches!(parse(start.as_bytes()), Ok(Parsed::Incomplete(_))),
            "{start:?}"
        );
    }
}

fn socket() -> impl Strategy<Value = SocketAddr> {
    let v4 = (1u8..=223, any::<[u8; 3]>())
        .prop_map(|(a, [b, c, d])| std::net::IpAddr::from([a, b, c, d]));
    let v6 = any::<[u16; 7]>().prop_map(|rest| {
        let [b, c, d, e, f, g, h] = rest;
        std::net::IpAddr::from([0x2001, b, c, d, e, f, g, h])
    });
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn header() -> impl Strategy<Value = (ProxyVersion, ProxyHeader)> {
    let tlvs = vec(
        (
            any::<u8>(),
            vec(any::<u8>(), 0..40).prop_map(Vec::into_boxed_slice),
        ),
        0..4,
    );
    (
        proptest::option::of((socket(), socket())),
        tlvs,
        any::<bool>(),
    )
        .prop_map(|(addresses, tlvs, v2)| {
            // Both ends of a connection are of one family.
            let addresses = addresses.filter(|(a, b)| a.is_ipv4() == b.is_ipv4());
            let version = if v2 {
                ProxyVersion::V2
            } else {
                ProxyVersion::V1
            };
            let tlvs = if v2 && addresses.is_some() {
                tlvs
            } else {
                Vec::new()
            };
            (version, ProxyHeader { addresses, tlvs })
        })
}

proptest! {
    #[test]
    fn model_what_is_written_is_read_back_and_no_part_of_it_is_mistaken_for_all(
        (version, header) in header(),
        behind in vec(any::<u8>(), 0..20),
    ) {
        let bytes = header.encode(version);
        let whole = [bytes.as_slice(), &behind].concat();
        prop_assert_eq!(parse(&whole), Ok(Parsed::Header(version, header, bytes.len())));
        for end in 0..bytes.len() {
            match parse(&bytes[..end]) {
                Ok(Parsed::Incomplete(needs)) => prop_assert!(needs > end && needs <= bytes.len()),
                other => prop_assert!(false, "{:?} at {}", other, end),
            }
        }
    }

    #[test]
    fn model_nothing_makes_it_panic_or_wait_for_more_than_the_bounds(
        start in proptest::sample::select(vec![&b""[..], b"PROXY ", b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11"]),
        rest in vec(any::<u8>(), 0..300),
    ) {
        let bytes = [start, &rest].concat();
        match parse(&bytes) {
            Ok(Parsed::Incomplete(needs)) => {
                let most = if start.starts_with(b"P") { V1_BYTES_MAX } else { V2_BYTES_MAX };
                prop_assert!(needs > bytes.len() && needs <= most);
            }
            Ok(Parsed::Header(_, _, length)) => prop_assert!(length <= bytes.len()),
            Ok(Parsed::Absent) | Err(_) => {}
        }
    }
}
