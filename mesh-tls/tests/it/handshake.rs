//! Handshakes in memory: what both ends agree on, and what each says when they do not.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_tls::{
    ContextError, DownstreamTlsConfig, Rejection, SanKind, SanMatcher, Secret, ServerNames, Stage,
    TICKET_KEY_LEN, TicketKey, TlsAcceptor, TlsParams, TlsStats, TlsVersion, UpstreamTlsConfig,
    ValidationConfig, dev_ca::DevLeaf,
};
use tokio::io::AsyncReadExt as _;

use crate::support::{Pair, ca, clock_at, hours, identity, now, shake, svid, talk, trust};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn only(version: TlsVersion) -> TlsParams {
    TlsParams::downstream().versions(version, version).unwrap()
}

#[tokio::test]
async fn both_ends_know_each_other() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    pair.server = pair
        .server
        .alpn_protocols(&names(&["h2", "http/1.1"]))
        .unwrap();
    pair.client = pair
        .client
        .alpn_protocols(&names(&["http/1.1", "h2"]))
        .unwrap();
    pair.client = pair.client.sni("Localhost").unwrap();
    let (mut server, mut client) = pair.shake().await.both();
    talk(&mut server, &mut client).await;
    let (s, c) = (server.session(), client.session());
    let id = |session: &mesh_tls::TlsSession| {
        let peer = session.peer.as_ref().unwrap();
        assert!(peer.is_validated());
        peer.spiffe_id().unwrap().to_string()
    };
    assert_eq!(id(s), "spiffe://example.org/client");
    assert_eq!(id(c), "spiffe://example.org/server");
    for session in [s, c] {
        assert_eq!(session.version, TlsVersion::Tls13);
        assert_eq!(session.cipher, "TLS_AES_128_GCM_SHA256");
        assert_eq!(session.group, "X25519MLKEM768");
        assert_eq!(
            session.alpn.as_deref(),
            Some(&b"h2"[..]),
            "the server's order counts"
        );
        assert!(!session.resumed);
        assert!(session.local.is_some());
    }
    assert_eq!(s.sni.as_deref(), Some("localhost"));
    assert_eq!(
        s.peer.as_ref().unwrap().certificate(),
        c.local.as_ref().unwrap()
    );
    assert_eq!(s.peer.as_ref().unwrap().chain().len(), 2);
}

/// Versions, keys of both kinds and curves, all with all.
#[tokio::test]
async fn the_matrix() {
    let ours = ca("example.org");
    let rsa = ours
        .issue(svid("spiffe://example.org/rsa").rsa())
        .unwrap()
        .identity()
        .unwrap();
    let ecdsa = identity(&ours, "spiffe://example.org/ecdsa");
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for server in [&rsa, &ecdsa] {
            for client in [&rsa, &ecdsa] {
                for curve in ["X25519MLKEM768", "X25519", "P-256", "P-384"] {
                    let mut pair = Pair::of(&ours);
                    pair.server = pair.server.params(
                        TlsParams::downstream()
                            .ecdh_curves(&names(&["X25519MLKEM768:P-384", "P-256", "X25519"]))
                            .unwrap(),
                    );
                    pair.client = pair
                        .client
                        .params(only(version).ecdh_curves(&names(&[curve])).unwrap());
                    pair.server_identities = vec![server.clone()];
                    pair.client_identity = Some(client.clone());
                    if version == TlsVersion::Tls12 && curve == "X25519MLKEM768" {
                        let refused = pair.try_connector().unwrap_err();
                        assert_eq!(refused, ContextError::NoCurve(version));
                        continue;
                    }
                    let (mut a, mut b) = pair.shake().await.both();
                    talk(&mut a, &mut b).await;
                    assert_eq!(a.session().version, version);
                    assert_eq!(a.session().group, curve);
                    let peer = a.session().peer.as_ref().unwrap();
                    assert_eq!(peer.certificate(), client.leaf());
                }
            }
        }
    }
}

#[tokio::test]
async fn ciphers_of_tls12_are_chosen_by_config() {
    let ours = ca("example.org");
    for cipher in [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ] {
        let mut pair = Pair::of(&ours);
        pair.client = UpstreamTlsConfig::default();
        let params = TlsParams::downstream()
            .cipher_suites(&names(&[cipher]))
            .unwrap();
        pair.server = pair.server.params(params);
        let (server, _client) = pair.shake().await.both();
        assert_eq!(server.session().cipher, cipher);
        assert_eq!(
            server.session().version,
            TlsVersion::Tls12,
            "Envoy's clients stay at 1.2"
        );
    }
    let groups = names(&["[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]"]);
    assert!(TlsParams::downstream().cipher_suites(&groups).is_ok());
    for bad in [
        "AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "nonsense",
        "[ECDHE-RSA-AES128-GCM-SHA256|x]",
    ] {
        let error = TlsParams::downstream()
            .cipher_suites(&names(&[bad]))
            .unwrap_err();
        assert!(error.to_string().contains("is not offered"), "{error}");
    }
    assert!(
        TlsParams::downstream()
            .ecdh_curves(&names(&["P-521"]))
            .is_err()
    );
    assert!(
        TlsParams::downstream()
            .versions(TlsVersion::Tls13, TlsVersion::Tls12)
            .is_err()
    );
}

#[tokio::test]
async fn no_shared_cipher_is_a_failed_negotiation() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    let offer = |cipher: &str| {
        only(TlsVersion::Tls12)
            .cipher_suites(&names(&[cipher]))
            .unwrap()
    };
    pair.server = pair.server.params(offer("ECDHE-ECDSA-AES128-GCM-SHA256"));
    pair.client = pair.client.params(offer("ECDHE-ECDSA-AES256-GCM-SHA384"));
    let shaken = pair.shake().await;
    let refused = shaken.client.as_ref().expect_err("no cipher");
    assert_eq!(refused.stage(), Stage::RefusedByPeer);
    assert_eq!(
        refused.reason(),
        "TLS_error:|268436496:SSL routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE:TLS_error_end"
    );
    let error = shaken.refused();
    assert_eq!(error.stage(), Stage::Negotiation);
    assert!(
        error.reason().contains("NO_SHARED_CIPHER"),
        "{}",
        error.reason()
    );
}

#[tokio::test]
async fn a_client_without_certificate() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    pair.client_identity = None;
    let acceptor = pair.acceptor();
    let error = shake(&acceptor, &pair.connector()).await.refused();
    assert_eq!(error.rejection(), Some(&Rejection::NoCertificate));
    assert_eq!(
        error.reason(),
        "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:TLS_error_end"
    );
    assert_eq!(acceptor.stats().ssl().fail_verify_no_cert().value(), 1);
    assert_eq!(acceptor.stats().ssl().connection_error().value(), 0);
    // It may stay without, if nobody asks.
    pair.server = DownstreamTlsConfig::default();
    let acceptor = pair.acceptor();
    let (server, _client) = shake(&acceptor, &pair.connector()).await.both();
    assert!(server.session().peer.is_none());
    assert_eq!(acceptor.stats().ssl().no_certificate().value(), 1);
    assert_eq!(acceptor.stats().ssl().handshake().value(), 1);
}

/// In TLS 1.3 a client has finished before the server looks at its certificate.
#[tokio::test]
async fn a_client_learns_late_that_it_is_refused() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let mut pair = Pair::of(&ours);
    pair.client_identity = Some(identity(&theirs, "spiffe://other.org/a"));
    let shaken = pair.shake().await;
    let mut client = shaken.client.expect("TLS 1.3");
    let error = client.read_u8().await.unwrap_err();
    let late = client.late_refusal(&error).expect("an alert");
    assert_eq!(late.stage(), Stage::RefusedByPeer);
    assert!(
        late.reason().contains("TLSV1_ALERT_UNKNOWN_CA"),
        "{}",
        late.reason()
    );
    let text = late.to_string();
    for part in [
        "refused by the peer",
        "unknown ca",
        "our certificate",
        "other.org intermediate",
        "does not trust the issuer",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn a_refusal_says_who_was_expected_and_who_came() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    let sans = vec![SanMatcher::exact(
        SanKind::Uri,
        "spiffe://example.org/other",
    )];
    pair.of_clients = Some(trust(&ours).with_sans(sans).unwrap());
    let acceptor = pair.acceptor();
    let error = shake(&acceptor, &pair.connector()).await.refused();
    assert_eq!(error.stage(), Stage::PeerCertificate);
    assert_eq!(error.expected(), ["URI spiffe://example.org/other"]);
    assert_eq!(
        error.presented(),
        ["URI spiffe://example.org/client", "DNS localhost"]
    );
    assert_eq!(error.chain().len(), 2);
    assert_eq!(acceptor.stats().ssl().fail_verify_san().value(), 1);
    assert!(
        error.reason().starts_with(
            "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
        ),
        "{}",
        error.reason()
    );
    let text = error.to_string();
    for part in [
        "TLS handshake with a client failed",
        "expected URI spiffe://example.org/other",
        "presented URI spiffe://example.org/client",
        "chain \"CN=workload",
        "GMT to ",
        "match_typed_subject_alt_names",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\n'));
}

#[tokio::test]
async fn each_reason_has_its_alert_and_its_stat() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let id = "spiffe://example.org/client";
    let old = svid(id).valid(now() - hours(9), now() - hours(1));
    let young = svid(id).valid(now() + hours(1), now() + hours(9));
    for (client, alert, part) in [
        (
            ours.issue(old).unwrap(),
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "expired at",
        ),
        (
            ours.issue(young).unwrap(),
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "not valid before",
        ),
        (
            theirs.issue(svid(id)).unwrap(),
            "TLSV1_ALERT_UNKNOWN_CA",
            "is not trusted",
        ),
    ] {
        for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
            let mut pair = Pair::of(&ours);
            pair.server = pair.server.params(TlsParams::downstream());
            pair.client = pair.client.params(only(version));
            pair.client_identity = Some(client.identity().unwrap());
            let acceptor = pair.acceptor();
            let shaken = shake(&acceptor, &pair.connector()).await;
            let seen = match shaken.client {
                Err(error) => error.reason(),
                Ok(mut client) => {
                    let error = client.read_u8().await.unwrap_err();
                    client.late_refusal(&error).unwrap().reason()
                }
            };
            assert!(seen.contains(alert), "{seen}");
            let error = shaken.server.unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(acceptor.stats().ssl().fail_verify_error().value(), 1);
        }
    }
}

#[tokio::test]
async fn plaintext_and_silence_are_told_apart() {
    use tokio::io::AsyncWriteExt as _;
    let ours = ca("example.org");
    let acceptor = Pair::of(&ours).acceptor();
    let (a, mut b) = tokio::io::duplex(1 << 16);
    b.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let error = acceptor.accept(a).await.unwrap_err();
    assert_eq!(error.stage(), Stage::Protocol);
    assert_eq!(
        error.reason(),
        "TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER:TLS_error_end"
    );
    assert_eq!(acceptor.stats().ssl().connection_error().value(), 1);
    let (a, b) = tokio::io::duplex(1 << 16);
    drop(b);
    let error = acceptor.accept(a).await.unwrap_err();
    assert_eq!(error.stage(), Stage::Connection);
    assert!(
        error.to_string().contains("closed the connection"),
        "{error}"
    );
    assert_eq!(
        acceptor.stats().ssl().connection_error().value(),
        1,
        "as in Envoy"
    );
}

#[tokio::test]
async fn a_server_with_several_certificates() {
    let ours = ca("example.org");
    let make = |leaf: DevLeaf| ours.issue(leaf).unwrap().identity().unwrap();
    let of = |name: &str| DevLeaf::new(now()).dns(name);
    let identities = vec![
        make(of("first.org")),
        make(of("*.b.org")),
        make(of("a.b.org").rsa()),
        make(of("a.b.org")),
    ];
    let mut pair = Pair::of(&ours);
    pair.server_identities = identities.clone();
    pair.server = pair.server.params(TlsParams::downstream());
    let ecdsa_only = only(TlsVersion::Tls12)
        .cipher_suites(&names(&["ECDHE-ECDSA-AES128-GCM-SHA256"]))
        .unwrap();
    for (sni, params, expected) in [
        (Some("first.org"), TlsParams::modern(), 0),
        (Some("c.b.org"), TlsParams::modern(), 1),
        (Some("a.b.org"), TlsParams::modern(), 2),
        (Some("a.b.org"), ecdsa_only, 3),
        (Some("unknown.org"), TlsParams::modern(), 0),
        (None, TlsParams::modern(), 0),
    ] {
        pair.client = UpstreamTlsConfig::default().params(params);
        if let Some(name) = sni {
            pair.client = pair.client.sni(name).unwrap();
        }
        let (server, client) = pair.shake().await.both();
        let expected = identities[expected].leaf();
        assert_eq!(
            client.session().peer.as_ref().unwrap().certificate(),
            expected,
            "{sni:?}"
        );
        assert_eq!(
            server.session().local.as_ref().unwrap(),
            expected,
            "{sni:?}"
        );
    }
    pair.server = pair.server.require_sni(true);
    pair.client = UpstreamTlsConfig::default().params(TlsParams::modern());
    let error = pair.shake().await.refused();
    assert_eq!(error.stage(), Stage::Negotiation, "{error}");
}

#[tokio::test]
async fn sessions_are_taken_up_again() {
    let ours = ca("example.org");
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        for (tickets, memory, sessions, resumes) in [
            (true, true, 1, true),
            (true, false, 1, true),
            (true, true, 0, false),
            (false, true, 1, version == TlsVersion::Tls12),
            (false, false, 1, false),
        ] {
            let mut pair = Pair::of(&ours);
            pair.server = pair
                .server
                .params(TlsParams::downstream())
                .disable_stateless_session_resumption(!tickets)
                .disable_stateful_session_resumption(!memory);
            pair.client = pair.client.params(only(version)).max_session_keys(sessions);
            let (acceptor, connector) = (pair.acceptor(), pair.connector());
            for round in 0..2 {
                let (mut a, mut b) = shake(&acceptor, &connector).await.both();
                talk(&mut a, &mut b).await;
                let expected = resumes && round > 0;
                let case = format!("{version} {tickets} {memory} {sessions} {round}");
                assert_eq!(a.session().resumed, expected, "{case}");
                assert_eq!(b.session().resumed, expected, "{case}");
                let peer = a.session().peer.as_ref().expect("the first handshake's");
                assert_eq!(peer.principal(), "spiffe://example.org/client");
            }
            let reused = acceptor.stats().ssl().session_reused().value();
            assert_eq!(reused, u64::from(resumes));
        }
    }
}

#[tokio::test]
async fn a_session_is_not_taken_up_after_its_timeout() {
    let ours = ca("example.org");
    let key = TicketKey::new(&[7; TICKET_KEY_LEN]).unwrap();
    for (version, tickets, keys) in [
        (TlsVersion::Tls13, true, vec![key.clone()]),
        (TlsVersion::Tls13, true, vec![]),
        (TlsVersion::Tls12, true, vec![key]),
        (TlsVersion::Tls12, true, vec![]),
        (TlsVersion::Tls12, false, vec![]),
    ] {
        let case = format!("{version} {tickets} {}", keys.len());
        let mut pair = Pair::of(&ours);
        pair.server = pair
            .server
            .params(TlsParams::downstream())
            .session_ticket_keys(keys)
            .unwrap()
            .disable_stateless_session_resumption(!tickets)
            .disable_stateful_session_resumption(tickets)
            .session_timeout(Duration::from_secs(60));
        pair.client = pair.client.params(only(version));
        let seconds = Arc::<AtomicU64>::default();
        let clock = {
            let seconds = Arc::clone(&seconds);
            Arc::new(move || now() + Duration::from_secs(seconds.load(Ordering::Relaxed)))
        };
        let (acceptor, connector) = (pair.acceptor().with_clock(clock), pair.connector());
        for (at, expected) in [(0, false), (59, true), (119, false)] {
            seconds.store(at, Ordering::Relaxed);
            let (mut a, mut b) = shake(&acceptor, &connector).await.both();
            talk(&mut a, &mut b).await;
            assert_eq!(a.session().resumed, expected, "{case} {at}");
        }
    }
}

/// Two replicas share a ticket key, then one gets another trust.
#[tokio::test]
async fn a_session_ends_with_its_trust_and_with_its_certificate() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let mut pair = Pair::of(&ours);
    let key = TicketKey::new(&[7; TICKET_KEY_LEN]).unwrap();
    pair.server = pair.server.session_ticket_keys(vec![key]).unwrap();
    pair.server = pair
        .server
        .session_timeout(Duration::from_secs(7 * 24 * 3600));
    let connector = pair.connector();
    let first = |acceptor: TlsAcceptor| {
        let connector = connector.clone();
        async move {
            let (mut a, mut b) = shake(&acceptor, &connector).await.both();
            talk(&mut a, &mut b).await;
            a.session().resumed
        }
    };
    assert!(!first(pair.acceptor()).await);
    assert!(first(pair.acceptor()).await, "another replica takes it up");
    let late = pair.acceptor().with_clock(clock_at(now() + hours(30)));
    let error = shake(&late, &connector).await.refused();
    assert!(
        matches!(error.rejection(), Some(Rejection::Expired { .. })),
        "{error}"
    );
    pair.of_clients = Some(trust(&theirs));
    let error = shake(&pair.acceptor(), &connector).await.refused();
    assert!(
        matches!(error.rejection(), Some(Rejection::UnknownIssuer { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn without_trust_anyone_passes_and_nobody_is_validated() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let mut pair = Pair::of(&ours);
    pair.of_clients = None;
    pair.of_servers = ValidationConfig::dangerous_anyone();
    pair.client_identity = Some(identity(&theirs, "spiffe://other.org/a"));
    let (server, client) = pair.shake().await.both();
    assert!(!server.session().peer.as_ref().unwrap().is_validated());
    assert!(!client.session().peer.as_ref().unwrap().is_validated());
    pair.of_clients = Some(trust(&ours).dangerous_accept_untrusted(true));
    let (server, _client) = pair.shake().await.both();
    assert!(!server.session().peer.as_ref().unwrap().is_validated());
    pair.client_identity = Some(identity(&ours, "spiffe://example.org/a"));
    let (server, _client) = pair.shake().await.both();
    assert!(server.session().peer.as_ref().unwrap().is_validated());
}

#[tokio::test]
async fn handshakes_wait_for_no_secret() {
    let ours = ca("example.org");
    let keeper = mesh_tls::SecretKeeper::new(
        "late",
        mesh_tls::rotation::ChainPolicy::Free,
        mesh_tls::KeeperStats::detached(),
    );
    let acceptor = TlsAcceptor::new(
        DownstreamTlsConfig::default(),
        vec![keeper.identity()],
        None,
        TlsStats::detached(),
    )
    .unwrap();
    assert!(!acceptor.is_ready());
    let error = shake(&acceptor, &Pair::of(&ours).connector())
        .await
        .refused();
    assert_eq!(error.stage(), Stage::Secrets);
    assert_eq!(error.reason(), "TLS error: Secret is not supplied by SDS");
    let none = TlsAcceptor::new(
        DownstreamTlsConfig::default(),
        Vec::new(),
        None,
        TlsStats::detached(),
    );
    assert!(none.is_err());
    drop(Secret::fixed(1));
}

/// Somebody else's TLS agrees on version, protocol and chain.
#[tokio::test]
async fn openssl_agrees() {
    use std::process::{Command, Stdio};
    let folder = crate::certificate::tempdir();
    let real = std::time::SystemTime::now();
    let ours = mesh_tls::dev_ca::DevCa::new("example.org".parse().unwrap(), real).unwrap();
    let client = "spiffe://example.org/client".parse().unwrap();
    ours.write(&folder, &[client], real, hours(1)).unwrap();
    let mut pair = Pair::of(&ours);
    pair.time = real;
    let leaf =
        DevLeaf::svid(&"spiffe://example.org/server".parse().unwrap(), real).dns("localhost");
    pair.server_identities = vec![ours.issue(leaf).unwrap().identity().unwrap()];
    pair.server = pair
        .server
        .params(TlsParams::downstream())
        .alpn_protocols(&names(&["h2"]))
        .unwrap();
    let acceptor = pair.acceptor();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for (flag, version) in [
        ("-tls1_2", TlsVersion::Tls12),
        ("-tls1_3", TlsVersion::Tls13),
    ] {
        let folder = folder.clone();
        let run = tokio::task::spawn_blocking(move || {
            Command::new("openssl")
                .args([
                    "s_client",
                    "-brief",
                    "-verify_return_error",
                    "-alpn",
                    "h2",
                    flag,
                ])
                .args(["-servername", "localhost", "-verify_hostname", "localhost"])
                .arg("-connect")
                .arg(address.to_string())
                .arg("-CAfile")
                .arg(folder.join("bundle.pem"))
                .arg("-cert")
                .arg(folder.join("client/svid.pem"))
                .arg("-cert_chain")
                .arg(folder.join("client/svid.pem"))
                .arg("-key")
                .arg(folder.join("client/key.pem"))
                .stdin(Stdio::null())
                .output()
                .expect("openssl runs")
        });
        let (socket, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(socket).await.unwrap();
        let session = stream.session().clone();
        drop(stream);
        let output = run.await.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            text.contains(&format!("Protocol version: {version}")),
            "{text}"
        );
        assert!(text.contains("Verification: OK"), "{text}");
        assert_eq!(session.version, version);
        assert_eq!(session.alpn.as_deref(), Some(&b"h2"[..]));
        let peer = session.peer.as_ref().unwrap();
        assert_eq!(peer.principal(), "spiffe://example.org/client");
        assert!(peer.is_validated());
    }
    std::fs::remove_dir_all(folder).unwrap();
}

/// What comes with a request: a name to ask for, and one that the certificate must have.
#[tokio::test]
async fn a_named_connector_asks_for_the_name_and_verifies_it() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    let leaf = svid("spiffe://example.org/server")
        .dns("*.example.org")
        .ip([10, 0, 0, 1].into());
    pair.server_identities = vec![ours.issue(leaf).unwrap().identity().unwrap()];
    let (acceptor, connector) = (pair.acceptor(), pair.connector());
    for (host, sni, good) in [
        ("a.example.org:80", Some("a.example.org"), true),
        ("b.example.org", Some("b.example.org"), true),
        ("localhost", Some("localhost"), true),
        ("10.0.0.1:80", None, true),
        ("a.b.example.org", Some("a.b.example.org"), false),
        ("10.0.0.2", None, false),
        ("[::1]", None, false),
        ("", None, false),
    ] {
        // Each twice: a session is not taken up under another name.
        for _ in 0..2 {
            let names = ServerNames::of_host_header(host, true, true);
            let shaken = shake(&acceptor, &connector.named(&names)).await;
            match shaken.client {
                Ok(client) if good => assert_eq!(client.session().sni.as_deref(), sni, "{host}"),
                Err(error) if !good => {
                    assert!(
                        matches!(error.rejection(), Some(Rejection::San { .. })),
                        "{error}"
                    );
                }
                other => panic!("{host}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_name_that_was_not_sent_cannot_be_in_the_certificate() {
    let ours = ca("example.org");
    let mut pair = Pair::of(&ours);
    pair.of_servers = trust(&ours).match_server_name(true);
    let error = pair.shake().await.client.unwrap_err();
    assert!(error.to_string().contains("none was sent"), "{error}");
    pair.client = pair.client.sni("localhost").unwrap();
    pair.shake().await.both();
}
