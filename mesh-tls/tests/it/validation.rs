//! Which chains pass.

use std::time::SystemTime;

use mesh_tls::{
    Crl, Identity, InvalidValidation, Rejection, Role, SanKind, SanMatcher, SpiffeBundles,
    SvidError, Trust, TrustBundle, Usage, ValidationConfig, Validator,
    dev_ca::{CA_LIFETIME, DevCa, DevLeaf},
};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::support::{ca, hours, identity, now, svid, trust};

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    let ders = identity.chain().iter().map(|one| one.der().to_vec());
    ders.map(CertificateDer::from).collect()
}

fn verify(config: ValidationConfig, identity: &Identity) -> Result<(), Rejection> {
    verify_at(config, identity, now())
}

fn verify_at(
    config: ValidationConfig,
    identity: &Identity,
    now: SystemTime,
) -> Result<(), Rejection> {
    Validator::new(config).verify(&chain(identity), Usage::Client, None, now)
}

fn leaf(ca: &DevCa, leaf: DevLeaf) -> Identity {
    ca.issue(leaf).unwrap().identity().unwrap()
}

const ID: &str = "spiffe://example.org/a";

#[test]
fn who_is_trusted_decides() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let a = identity(&ours, ID);
    assert_eq!(verify(trust(&ours), &a), Ok(()));
    assert_eq!(verify(ValidationConfig::dangerous_anyone(), &a), Ok(()));
    match verify(trust(&theirs), &a) {
        Err(Rejection::UnknownIssuer { issuer, trusted }) => {
            assert!(issuer.contains("example.org root"), "{issuer}");
            assert!(trusted[0].contains("other.org root"), "{trusted:?}");
        }
        other => panic!("{other:?}"),
    }
    let nobody = Validator::new(trust(&ours)).verify(&[], Usage::Client, None, now());
    assert_eq!(nobody, Err(Rejection::NoCertificate));
}

#[test]
fn a_missing_intermediate_is_named() {
    let ours = ca("example.org");
    let a = identity(&ours, ID);
    let alone = &chain(&a)[..1];
    match Validator::new(trust(&ours)).verify(alone, Usage::Client, None, now()) {
        Err(Rejection::UnknownIssuer { issuer, .. }) => {
            assert!(issuer.contains("example.org intermediate"), "{issuer}");
        }
        other => panic!("{other:?}"),
    }
    // An intermediate is an anchor like any other, and so is a leaf.
    for pem in [ours.intermediate_pem(), a.leaf().to_pem()] {
        let bundle = TrustBundle::from_pem(pem.as_bytes()).unwrap();
        let config = ValidationConfig::new(Trust::Bundle(bundle));
        let result = Validator::new(config).verify(alone, Usage::Client, None, now());
        assert_eq!(result, Ok(()));
    }
}

#[test]
fn time_ends_leaves_issuers_and_anchors() {
    let mut ours = ca("example.org");
    ours.rotate_intermediate(now(), now() + hours(48)).unwrap();
    let a = leaf(&ours, svid(ID).valid(now() - hours(1), now() + hours(24)));
    let role = |time: SystemTime| match verify_at(trust(&ours), &a, time) {
        Err(Rejection::Expired { role, .. } | Rejection::NotYetValid { role, .. }) => Some(role),
        Ok(()) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(role(now() + hours(24)), None, "the last second is good");
    assert_eq!(role(now() + hours(25)), Some(Role::Leaf));
    assert_eq!(role(now() - hours(2)), Some(Role::Leaf));
    let long = leaf(
        &ours,
        svid(ID).valid(now() - hours(1), now() + CA_LIFETIME * 2),
    );
    let late = verify_at(trust(&ours), &long, now() + hours(49));
    assert!(
        matches!(
            late,
            Err(Rejection::Expired {
                role: Role::Issuer,
                ..
            })
        ),
        "{late:?}"
    );
    ours.rotate_intermediate(now(), now() + CA_LIFETIME * 2)
        .unwrap();
    let long = leaf(
        &ours,
        svid(ID).valid(now() - hours(1), now() + CA_LIFETIME * 2),
    );
    let late = verify_at(trust(&ours), &long, now() + CA_LIFETIME + hours(1));
    assert!(
        matches!(
            late,
            Err(Rejection::Expired {
                role: Role::Anchor,
                ..
            })
        ),
        "{late:?}"
    );
    let forgiven = trust(&ours).dangerous_allow_expired_certificate(true);
    assert_eq!(
        verify_at(forgiven.clone(), &long, now() + CA_LIFETIME + hours(1)),
        Ok(())
    );
    let stranger = identity(&ca("other.org"), "spiffe://other.org/a");
    assert!(verify_at(forgiven, &stranger, now() + CA_LIFETIME * 3).is_err());
}

#[test]
fn names_and_pins() {
    let ours = ca("example.org");
    let a = identity(&ours, ID);
    let named = |kind, name: &str| {
        verify(
            trust(&ours)
                .with_sans(vec![SanMatcher::exact(kind, name)])
                .unwrap(),
            &a,
        )
    };
    assert_eq!(named(SanKind::Uri, ID), Ok(()));
    assert_eq!(named(SanKind::Dns, "LOCALHOST"), Ok(()));
    match named(SanKind::Uri, "spiffe://example.org/b") {
        Err(Rejection::San {
            expected,
            presented,
            by_name: false,
        }) => {
            assert_eq!(expected, ["URI spiffe://example.org/b"]);
            assert_eq!(presented, ["URI spiffe://example.org/a", "DNS localhost"]);
        }
        other => panic!("{other:?}"),
    }
    // One of several is enough.
    let either = vec![
        SanMatcher::exact(SanKind::Uri, "spiffe://example.org/b"),
        SanMatcher::exact(SanKind::Dns, "localhost"),
    ];
    assert_eq!(verify(trust(&ours).with_sans(either).unwrap(), &a), Ok(()));
    let hash: String = a
        .leaf()
        .sha256()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    let zero = "00".repeat(32);
    let spki = data_encoding::BASE64.encode(a.leaf().spki_sha256());
    let hashes = |list: &[&String]| list.iter().map(|text| (*text).clone()).collect::<Vec<_>>();
    let anyone = ValidationConfig::dangerous_anyone;
    assert!(anyone().is_dangerous());
    let pinned = anyone()
        .with_certificate_hashes(&hashes(&[&zero, &hash]))
        .unwrap();
    assert!(!pinned.is_dangerous());
    assert_eq!(verify(pinned, &a), Ok(()));
    let wrong = anyone().with_certificate_hashes(&hashes(&[&zero])).unwrap();
    assert!(matches!(
        verify(wrong.clone(), &a),
        Err(Rejection::Pin { .. })
    ));
    // The other list makes up for it.
    let other = wrong.with_spki_hashes(&hashes(&[&spki])).unwrap();
    assert_eq!(verify(other, &a), Ok(()));
    assert!(
        anyone()
            .with_certificate_hashes(&["zz".to_owned()])
            .is_err()
    );
    assert!(anyone().with_spki_hashes(&["AAAA".to_owned()]).is_err());
    let sans = vec![SanMatcher::exact(SanKind::Uri, ID)];
    let refused = anyone().with_sans(sans);
    assert_eq!(refused, Err(InvalidValidation::SansWithoutTrust));
}

#[test]
fn a_client_may_ask_for_the_name_it_sent() {
    let ours = ca("example.org");
    let a = leaf(&ours, DevLeaf::new(now()).dns("*.example.org"));
    let verify = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let config = trust(&ours).match_server_name(true);
        Validator::new(config).verify(&chain(&a), Usage::Server, Some(&name), now())
    };
    assert_eq!(verify("a.example.org"), Ok(()));
    assert!(matches!(verify("example.org"), Err(Rejection::San { .. })));
    assert!(matches!(
        verify("a.b.example.org"),
        Err(Rejection::San { .. })
    ));
    // An address is never sent: nothing could be what was meant.
    assert!(matches!(verify("10.0.0.1"), Err(Rejection::San { .. })));
}

#[test]
fn a_purpose_that_is_given_is_kept() {
    let ours = ca("example.org");
    let server_only = svid(ID).purposes(vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let a = leaf(&ours, server_only);
    assert_eq!(verify(trust(&ours), &a), Err(Rejection::Purpose("client")));
    let as_server = Validator::new(trust(&ours)).verify(&chain(&a), Usage::Server, None, now());
    assert_eq!(as_server, Ok(()));
    let any = leaf(&ours, svid(ID).purposes(Vec::new()));
    assert_eq!(verify(trust(&ours), &any), Ok(()));
    let ca_bit = leaf(&ours, svid(ID).with_ca_bit());
    assert_eq!(verify(trust(&ours), &ca_bit), Err(Rejection::CaAsLeaf));
}

#[test]
fn the_depth_is_bounded() {
    let ours = ca("example.org");
    let a = identity(&ours, ID);
    assert_eq!(verify(trust(&ours).max_verify_depth(1), &a), Ok(()));
    assert_eq!(
        verify(trust(&ours).max_verify_depth(0), &a),
        Err(Rejection::Depth(0))
    );
}

#[test]
fn revoked_certificates_are_refused() {
    let ours = ca("example.org");
    let (bad, good) = (ours.issue(svid(ID)).unwrap(), identity(&ours, ID));
    let lists = ours
        .crls_pem(&[&bad], now() - hours(1), now() + hours(24))
        .unwrap();
    let lists = Crl::from_pem(lists.as_bytes()).unwrap();
    let bad = bad.identity().unwrap();
    let with = |lists: &[Crl]| trust(&ours).with_crls(lists.to_vec()).unwrap();
    assert_eq!(verify(with(&lists), &bad), Err(Rejection::Revoked));
    assert_eq!(verify(with(&lists), &good), Ok(()));
    let late = verify_at(
        with(&lists),
        &leaf(&ours, svid(ID).valid(now(), now() + hours(99))),
        now() + hours(25),
    );
    assert!(
        matches!(late, Err(Rejection::CrlExpired { .. })),
        "{late:?}"
    );
    // Every CA has to have a list, unless only the leaf's counts.
    assert_eq!(
        verify(with(&lists[..1]), &good),
        Err(Rejection::UnknownRevocation)
    );
    let only_leaf = |lists: &[Crl]| with(lists).only_verify_leaf_cert_crl(true);
    assert_eq!(verify(only_leaf(&lists[..1]), &good), Ok(()));
    assert_eq!(
        verify(only_leaf(&lists[..1]), &bad),
        Err(Rejection::Revoked)
    );
    assert!(
        ValidationConfig::dangerous_anyone()
            .with_crls(lists)
            .is_err()
    );
}

#[test]
fn every_trust_domain_has_its_own_bundle() {
    let (ours, theirs) = (ca("example.org"), ca("other.org"));
    let bundles = |cas: &[&DevCa]| {
        let each = cas
            .iter()
            .map(|ca| (ca.domain().clone(), ca.bundle().unwrap()));
        ValidationConfig::new(Trust::Spiffe(SpiffeBundles::new(each)))
    };
    let a = identity(&ours, ID);
    let b = identity(&theirs, "spiffe://other.org/b");
    assert_eq!(verify(bundles(&[&ours]), &a), Ok(()));
    assert_eq!(verify(bundles(&[&ours, &theirs]), &b), Ok(()));
    match verify(bundles(&[&ours]), &b) {
        Err(Rejection::TrustDomain { presented, known }) => {
            assert_eq!(presented.as_str(), "other.org");
            assert_eq!(known.len(), 1);
        }
        other => panic!("{other:?}"),
    }
    // Who is trusted for one domain must not speak for another.
    let liar = identity(&theirs, ID);
    let verdict = verify(bundles(&[&ours, &theirs]), &liar);
    assert!(
        matches!(verdict, Err(Rejection::UnknownIssuer { .. })),
        "{verdict:?}"
    );
    let two = leaf(&ours, svid(ID).uri("spiffe://example.org/b"));
    let verdict = verify(bundles(&[&ours]), &two);
    assert_eq!(verdict, Err(Rejection::Svid(SvidError::ManyUris(2))));
    // Only URIs are looked at.
    let by_host = vec![SanMatcher::exact(SanKind::Dns, "localhost")];
    let verdict = verify(bundles(&[&ours]).with_sans(by_host).unwrap(), &a);
    assert!(matches!(verdict, Err(Rejection::San { .. })), "{verdict:?}");
}

#[test]
fn every_rejection_tells_what_to_do() {
    let ours = ca("example.org");
    let stranger = identity(&ca("other.org"), "spiffe://other.org/a");
    let why = verify(trust(&ours), &stranger).unwrap_err();
    assert!(why.advice().contains("trusted_ca"), "{why}");
}
