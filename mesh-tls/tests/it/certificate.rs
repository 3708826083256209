use std::{net::IpAddr, process::Command};

use mesh_tls::{
    Certificate, Identity, San, SvidError, Trust, Usage, ValidationConfig, Validator, check_svid,
    dev_ca::{DevCa, DevLeaf},
};
use rcgen::KeyUsagePurpose;

use crate::support::{ca, hours, now, svid};

#[test]
fn a_certificate_tells_all_that_is_asked() {
    let ca = ca("example.org");
    let leaf = svid("spiffe://example.org/a")
        .ip(IpAddr::from([10, 0, 0, 1]))
        .email("a@b.c");
    let issued = ca.issue(leaf).unwrap();
    let identity = issued.identity().unwrap();
    let leaf = identity.leaf();
    assert_eq!(
        leaf.sans(),
        [
            San::Uri("spiffe://example.org/a".into()),
            San::Dns("localhost".into()),
            San::Email("a@b.c".into()),
            San::Ip(IpAddr::from([10, 0, 0, 1])),
        ]
    );
    assert_eq!(leaf.subject(), "CN=workload,O=mesh dev-ca");
    assert!(
        leaf.issuer().starts_with("CN=example.org intermediate "),
        "{}",
        leaf.issuer()
    );
    assert!(leaf.validity().contains(now()));
    assert!(!leaf.is_ca());
    assert_eq!(leaf.serial().len(), 32);
    let again = Certificate::from_pem(leaf.to_pem().as_bytes()).unwrap();
    assert_eq!(*again[0], **leaf);
    assert_eq!(identity.chain().len(), 2);
}

/// What OpenSSL prints is what Envoy prints.
#[test]
fn names_are_written_as_openssl_writes_them() {
    let folder = tempdir();
    for subject in [
        "/C=DE/ST=Some-State/L=A, B/O=Acme + Söhne; GmbH/OU=\"q\" <x>/CN=#1 a b",
        "/DC=org/DC=example/UID=u1/serialNumber=7/emailAddress=a@b.c/CN= lead",
        "/CN=a\\\\b/title=T/GN=G/SN=S/street=Main 1",
        "/1.2.3.4=odd/CN=x",
        "/CN=trail /O=x",
    ] {
        let (key, pem) = (folder.join("k"), folder.join("c"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-utf8",
            ])
            .args(["-multivalue-rdn", "-days", "1", "-subj", subject])
            .args([
                "-keyout".as_ref(),
                key.as_os_str(),
                "-out".as_ref(),
                pem.as_os_str(),
            ])
            .output()
            .expect("openssl runs");
        assert!(
            made.status.success(),
            "{subject}: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let printed = Command::new("openssl")
            .args(["x509", "-noout", "-subject", "-nameopt", "RFC2253"])
            .args(["-in".as_ref(), pem.as_os_str()])
            .output()
            .unwrap();
        let printed = String::from_utf8(printed.stdout).unwrap();
        let expected = printed
            .trim_end_matches('\n')
            .strip_prefix("subject=")
            .unwrap();
        let ours = Certificate::from_pem(&std::fs::read(&pem).unwrap()).unwrap();
        assert_eq!(ours[0].subject(), expected, "{subject}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

pub(crate) fn tempdir() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("mesh-tls-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn the_rules_of_svids_one_by_one() {
    let ca = ca("example.org");
    let check = |leaf: DevLeaf| {
        let identity = ca.issue(leaf).unwrap().identity().unwrap();
        check_svid(identity.leaf())
    };
    let good = || svid("spiffe://example.org/a");
    assert_eq!(check(good()).unwrap().as_str(), "spiffe://example.org/a");
    assert!(check(good().purposes(Vec::new())).is_ok());
    assert_eq!(check(DevLeaf::new(now()).dns("a")), Err(SvidError::NoUri));
    let two = check(good().uri("spiffe://example.org/b"));
    assert_eq!(two, Err(SvidError::ManyUris(2)));
    assert!(matches!(
        check(DevLeaf::new(now()).uri("https://a/b")),
        Err(SvidError::Id { .. })
    ));
    assert!(matches!(
        check(svid("spiffe://example.org")),
        Err(SvidError::NoPath(_))
    ));
    assert_eq!(check(good().with_ca_bit()), Err(SvidError::Ca));
    assert_eq!(
        check(good().key_usages(Vec::new())),
        Err(SvidError::NoKeyUsage)
    );
    let usages = |usages: &[KeyUsagePurpose]| check(good().key_usages(usages.to_vec()));
    let sign = KeyUsagePurpose::DigitalSignature;
    assert_eq!(
        usages(&[sign, KeyUsagePurpose::KeyCertSign]),
        Err(SvidError::CaKeyUsage)
    );
    assert_eq!(
        usages(&[sign, KeyUsagePurpose::CrlSign]),
        Err(SvidError::CaKeyUsage)
    );
    let other = usages(&[KeyUsagePurpose::KeyEncipherment]);
    assert_eq!(other, Err(SvidError::NoDigitalSignature));
}

#[test]
fn broken_secrets_say_what_is_broken() {
    let ca = ca("example.org");
    let issued = ca.issue(svid("spiffe://example.org/a")).unwrap();
    let other = ca.issue(svid("spiffe://example.org/b")).unwrap();
    let (chain, key) = (issued.chain_pem(), issued.key_pem());
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let cut = &key[..key.len() - 40];
    for (chain, key, expected) in [
        (
            chain,
            other.key_pem(),
            "does not belong to the certificate \"CN=workload,O=mesh dev-ca\"",
        ),
        ("", key, "no certificate"),
        (key, key, "no certificate"),
        (chain, "", "no private key"),
        (chain, chain, "no private key"),
        (chain, encrypted, "encrypted"),
        (chain, cut, "broken PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            key,
            "not X.509",
        ),
        (
            chain,
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "cannot be used",
        ),
    ] {
        let error = Identity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error} / {expected}");
    }
}

#[test]
fn der_as_the_workload_api_sends_it() {
    let ca = ca("example.org");
    let issued = ca.issue(svid("spiffe://example.org/a")).unwrap();
    let identity = issued.identity().unwrap();
    let ders: Vec<u8> = identity
        .chain()
        .iter()
        .flat_map(|one| one.der().to_vec())
        .collect();
    let key = rcgen::KeyPair::from_pem(issued.key_pem())
        .unwrap()
        .serialize_der();
    assert_eq!(Identity::from_der(&ders, &key).unwrap(), identity);
    for at in 0..ders.len() {
        assert!(
            Identity::from_der(&ders[..at], &key).is_err() || at == identity.leaf().der().len()
        );
    }
}

#[test]
fn a_dev_ca_that_was_saved_goes_on_under_the_same_root() {
    let folder = tempdir();
    assert!(DevCa::open(&folder).unwrap().is_none());
    let before = ca("example.org");
    before.save(&folder).unwrap();
    let mut after = DevCa::open(&folder).unwrap().unwrap();
    assert_eq!(after.domain(), before.domain());
    assert_eq!(after.bundle_pem(), before.bundle_pem());
    let validator = Validator::new(ValidationConfig::new(Trust::Bundle(
        before.bundle().unwrap(),
    )));
    for round in 0..2 {
        let issued = after.issue(svid("spiffe://example.org/a")).unwrap();
        let chain = issued.identity().unwrap();
        let chain: Vec<_> = chain
            .chain()
            .iter()
            .map(|one| one.der().to_vec().into())
            .collect();
        let verified = validator.verify(&chain, Usage::Server, None, now());
        assert_eq!(verified, Ok(()), "round {round}");
        after.rotate_intermediate(now(), now() + hours(1)).unwrap();
    }
    std::fs::remove_dir_all(folder).unwrap();
}
