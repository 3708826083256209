use mesh_tls::xfcc::{ClientCertDetails, Element, ForwardClientCert as Mode, Xfcc, forward, parse};
use proptest::prelude::*;

use crate::support::{Pair, ca};

const ALL: [Mode; 5] = [
    Mode::Sanitize,
    Mode::ForwardOnly,
    Mode::AppendForward,
    Mode::SanitizeSet,
    Mode::AlwaysForwardOnly,
];
const EVERYTHING: ClientCertDetails = ClientCertDetails {
    cert: true,
    chain: true,
    subject: true,
    uri: true,
    dns: true,
};

#[tokio::test]
async fn every_mode_with_and_without_a_certificate() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    let (server, _client) = pair.shake().await.both();
    let session = server.session();
    let none = ClientCertDetails::default();
    let hash = session.peer.as_ref().unwrap().fingerprint();
    let element = format!("By=spiffe://example.org/server;Hash={hash}");
    let with = ALL.map(|mode| forward(mode, none, Some(session)));
    assert_eq!(
        with,
        [
            Xfcc::Remove,
            Xfcc::Keep,
            Xfcc::Append(element.clone()),
            Xfcc::Set(element),
            Xfcc::Keep,
        ]
    );
    let gone = [
        Xfcc::Remove,
        Xfcc::Remove,
        Xfcc::Remove,
        Xfcc::Remove,
        Xfcc::Keep,
    ];
    assert_eq!(ALL.map(|mode| forward(mode, none, None)), gone, "plaintext");
    pair.client_identity = None;
    pair.server = mesh_tls::DownstreamTlsConfig::default();
    let (server, _client) = pair.shake().await.both();
    let session = Some(&**server.session());
    assert_eq!(
        ALL.map(|mode| forward(mode, none, session)),
        gone,
        "no certificate"
    );
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let ours = ca("example.org");
    let (server, _client) = Pair::of(&ours).shake().await.both();
    let session = server.session();
    let Xfcc::Set(text) = forward(Mode::SanitizeSet, EVERYTHING, Some(session)) else {
        panic!("not set");
    };
    let peer = session.peer.as_ref().unwrap();
    let keys: Vec<_> = text
        .split(';')
        .map(|pair| pair.split_once('=').unwrap().0)
        .collect();
    assert_eq!(
        keys,
        ["By", "Hash", "Cert", "Chain", "Subject", "URI", "DNS"]
    );
    assert!(
        text.contains("Cert=\"-----BEGIN%20CERTIFICATE-----%0A"),
        "{text}"
    );
    let chain: String = peer.chain().iter().map(|one| one.to_pem()).collect();
    let expected = Element {
        by: vec!["spiffe://example.org/server".into()],
        hash: peer.fingerprint(),
        cert: peer.certificate().to_pem(),
        chain,
        subject: Some("CN=workload,O=mesh dev-ca".into()),
        uris: vec!["spiffe://example.org/client".into()],
        dns: vec!["localhost".into()],
    };
    assert_eq!(parse(&text), Some(vec![expected.clone()]));
    let two = parse(&format!("By=a;URI=;Subject=\"x=\\\"y\\\",z;\",{text}")).unwrap();
    assert_eq!(two[0].subject.as_deref(), Some("x=\"y\",z;"));
    assert!(two[0].uris.is_empty());
    assert_eq!(two[1], expected);
}

#[test]
fn a_header_that_can_be_read_two_ways_is_refused() {
    for bad in [
        "Subject=\"a",
        "By",
        "By=a;b",
        "By=a,,",
        ";",
        "By=\"a\\\"",
        "",
    ] {
        assert_eq!(parse(bad), None, "{bad}");
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(text in "[A-Za-z=;,\"\\\\%0-9é ]{0,60}") {
        let _ = parse(&text);
    }

    /// A quoted value cannot begin another element or pair.
    #[test]
    fn model_quotes_hold(value in "[a-z=;, \"]{0,20}") {
        let quoted = value.replace('"', "\\\"");
        let elements = parse(&format!("By=a;Subject=\"{quoted}\";DNS=d,By=b")).unwrap();
        prop_assert_eq!(elements.len(), 2);
        prop_assert_eq!(elements[0].subject.as_deref(), Some(&*value));
        prop_assert_eq!(&elements[0].dns, &["d"]);
    }
}
