use std::sync::Arc;

use mesh_tls::inspector::{CLIENT_HELLO_MAX, HelloInspector, Peek};
use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

/// A ClientHello as a real client writes it.
fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut out = Vec::new();
    client.write_tls(&mut out).unwrap();
    out
}

/// The same message cut into records of `size` bytes.
fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in hello[5..].chunks(size) {
        let length = u16::try_from(piece.len()).unwrap().to_be_bytes();
        out.extend([22, 3, 1, length[0], length[1]]);
        out.extend_from_slice(piece);
    }
    out
}

fn facts(peek: Peek) -> (Option<String>, Vec<String>) {
    match peek {
        Peek::Hello(facts) => {
            let alpn = facts
                .alpn
                .into_iter()
                .map(|name| String::from_utf8(name).unwrap());
            (facts.server_name, alpn.collect())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_reads_what_a_client_says() {
    let expected = (
        Some("www.example.org".to_owned()),
        vec!["h2".into(), "istio".into()],
    );
    let whole = hello("WWW.example.org", &["h2", "istio"]);
    assert_eq!(facts(HelloInspector::new().push(&whole)), expected);
    for size in [1, 3, 4, 5, 100] {
        let pieces = in_records(&whole, size);
        let mut inspector = HelloInspector::new();
        let peek = inspector.push(&pieces);
        if whole.len() / size > 256 {
            assert_eq!(peek, Peek::TooLong, "too many records");
        } else {
            assert_eq!(facts(peek), expected);
        }
    }
    let bare = hello("10.0.0.1", &[]);
    assert_eq!(facts(HelloInspector::new().push(&bare)), (None, Vec::new()));
}

#[test]
fn plaintext_is_known_by_its_first_byte() {
    for text in [
        "GET / HTTP/1.1",
        "PRI * HTTP/2.0",
        "\0",
        "\x17\x03\x03",
        "\x15\x03\x01",
    ] {
        let mut inspector = HelloInspector::new();
        assert_eq!(
            inspector.push(&text.as_bytes()[..1]),
            Peek::NotTls,
            "{text:?}"
        );
        assert_eq!(inspector.seen(), 1);
    }
    for bytes in [
        &[22, 2][..],
        &[22, 3, 5],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0xff, 0xff],
        &[22, 3, 1, 0, 9, 2],
    ] {
        assert_eq!(HelloInspector::new().push(bytes), Peek::NotTls, "{bytes:?}");
    }
}

#[test]
fn a_hello_is_bounded() {
    let length = u32::try_from(CLIENT_HELLO_MAX + 1).unwrap().to_be_bytes();
    let head = [22, 3, 1, 0x40, 0, 1, length[1], length[2], length[3]];
    assert_eq!(HelloInspector::new().push(&head), Peek::TooLong);
}

proptest! {
    /// However the bytes arrive, the verdict is the same, comes at the same byte, and does not change.
    #[test]
    fn model_pieces_do_not_matter(cuts in prop::collection::vec(1..200usize, 0..40), record in 20..2000usize) {
        let bytes = in_records(&hello("a.example.org", &["h2"]), record);
        let mut whole = HelloInspector::new();
        let expected = whole.push(&bytes);
        let mut pieces = HelloInspector::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            let peek = pieces.push(head);
            prop_assert!(peek == Peek::NeedMore || peek == expected);
            rest = tail;
        }
        prop_assert_eq!(pieces.push(rest), expected.clone());
        prop_assert_eq!(pieces.seen(), whole.seen());
        prop_assert_eq!(pieces.push(b"more"), expected);
    }

    /// Any change of any bytes gives some verdict, and no panic.
    #[test]
    fn a_broken_hello_is_no_panic(
        changes in prop::collection::vec((0..600usize, any::<u8>()), 0..12),
        cut in 0..2000usize,
        extra in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let mut bytes = hello("a.example.org", &["h2"]);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut);
        bytes.extend(extra);
        let mut inspector = HelloInspector::new();
        let peek = inspector.push(&bytes);
        prop_assert!(inspector.seen() <= bytes.len());
        let shape = inspector.shape();
        prop_assert_eq!(shape.is_some(), matches!(peek, Peek::Hello(_)));
        if let Some(shape) = shape {
            prop_assert_eq!((shape.ja3().len(), shape.ja4().len()), (32, 36));
        }
        prop_assert!(peek == Peek::NeedMore || inspector.push(&[]) == peek);
    }

    #[test]
    fn noise_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
        let mut all = if tls { vec![22, 3, 1, 0, 200, 1, 0, 0, 196] } else { Vec::new() };
        all.extend(bytes);
        let mut inspector = HelloInspector::new();
        let _ = inspector.push(&all);
    }
}
