//! Commands for people: `dev-ca` and `tls probe`, with the bootstrap that README shows.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Output,
};

use e2e::{
    client::Connection,
    process::Proxy,
    upstream::DeadPort,
    wait::{Deadline, until},
};

use crate::support::{get, run, start, stderr};

const BOOTSTRAP: &str = include_str!("../../../examples/mtls.yaml");

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("mesh-proxy-cmd-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn dev_ca(folder: &Path, arguments: &[&str]) -> String {
    let folder = folder.to_str().unwrap();
    let output = run(&[&["dev-ca", folder], arguments].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

/// The example, with certificates of `pki` and ports of the kernel's choice; its cluster is at `cart`.
fn example(pki: &Path, cart: u16) -> Proxy {
    let text = BOOTSTRAP
        .replace("pki/", &format!("{}/", pki.display()))
        .replace("port_value: 10000", "port_value: 0")
        .replace("port_value: 9901", "port_value: 0")
        .replacen("port_value: 10443", "port_value: 0", 1)
        .replace("port_value: 10443", &format!("port_value: {cart}"));
    start(&text)
}

fn probe(address: SocketAddr, arguments: &[&str]) -> Output {
    let address = address.to_string();
    run(&[&["tls", "probe", &address], arguments].concat())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_dev_ca_is_made_once_and_renews_what_it_signed() {
    let pki = folder("dev-ca");
    let said = dev_ca(&pki, &["cart", "spiffe://example.org/ns/a/sa/shop"]);
    assert!(said.contains("new CA of example.org"), "{said}");
    let file = |name: &str| read(&pki.join(name));
    let (bundle, leaf) = (file("bundle.pem"), file("cart/svid.pem"));
    let again = dev_ca(&pki, &["cart"]);
    assert!(again.contains("renewed under the same CA"), "{again}");
    assert_eq!(file("bundle.pem"), bundle);
    assert_ne!(file("cart/svid.pem"), leaf);
    let issuer = |chain: &str| chain.rsplit("-----BEGIN").next().unwrap().to_owned();
    assert_eq!(issuer(&file("cart/svid.pem")), issuer(&leaf));
    dev_ca(&pki, &["cart", "--rotate-issuer"]);
    assert_eq!(file("bundle.pem"), bundle);
    assert_ne!(issuer(&file("cart/svid.pem")), issuer(&leaf));
    for key in [
        "cart/key.pem",
        "shop/key.pem",
        "ca/root-key.pem",
        "ca/intermediate-key.pem",
    ] {
        let mode = fs::metadata(pki.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
        let secret = file(key).lines().nth(1).unwrap().to_owned();
        assert!(!said.contains(&secret) && !again.contains(&secret));
    }
    for (workload, reason) in [
        ("spiffe://other.org/a", "not of the CA's trust domain"),
        ("a b", "its path has ' '"),
        ("ca", "no name of its own"),
    ] {
        let output = run(&["dev-ca", pki.to_str().unwrap(), workload]);
        assert!(!output.status.success());
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
    fs::remove_dir_all(pki).unwrap();
}

#[test]
fn mtls_as_readme_shows_it() {
    let pki = folder("readme");
    dev_ca(&pki, &["cart", "shop"]);
    let server = example(&pki, 1);
    let cart = server.listener("cart").unwrap();
    let client = example(&pki, cart.port());
    let mut connection = Connection::open(client.listener("shop").unwrap()).unwrap();
    connection.send(&get("/"));
    let response = connection.response(false);
    assert_eq!(response.status, 200);
    assert_eq!(
        response.head.field("x-client"),
        Some("spiffe://example.org/shop")
    );
    let (ca, svid) = (pki.join("bundle.pem"), pki.join("shop"));
    let ours = [
        "--ca",
        ca.to_str().unwrap(),
        "--svid",
        svid.to_str().unwrap(),
    ];
    let first = probe(cart, &ours);
    assert!(first.status.success(), "{}", stderr(&first));
    let said = stdout(&first);
    for part in [
        "TLSv1.3",
        "verified by",
        "    URI spiffe://example.org/cart\n",
        "our certificate was not refused",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // What is renewed is served without a restart.
    dev_ca(&pki, &["cart", "shop"]);
    let serial = |said: &str| {
        said.split("serial ")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap()
            .to_owned()
    };
    let renewed = until(Deadline::default(), || {
        let output = probe(cart, &ours);
        let said = stdout(&output);
        (output.status.success() && serial(&said) != serial(&stdout(&first))).then_some(())
    });
    assert!(renewed.is_some());
    assert!(!server.stderr().all().concat().contains("WARN"));
    fs::remove_dir_all(pki).unwrap();
}

#[test]
fn a_probe_says_what_is_wrong_and_on_whose_side() {
    let pki = folder("probe");
    dev_ca(&pki, &["cart", "shop", "thief"]);
    let theirs = folder("probe-theirs");
    dev_ca(&theirs, &["shop"]);
    let server = example(&pki, 1);
    let cart = server.listener("cart").unwrap();
    let ca = pki.join("bundle.pem").display().to_string();
    let other_ca = theirs.join("bundle.pem").display().to_string();
    let svid = |folder: &Path, name: &str| folder.join(name).display().to_string();
    let (shop, thief) = (svid(&pki, "shop"), svid(&pki, "thief"));
    let stranger = svid(&theirs, "shop");
    for (arguments, parts) in [
        // Nobody, somebody else, somebody of another CA: the server's part.
        (
            vec!["--ca", &ca],
            ["refused by the peer", "certificate required"],
        ),
        (
            vec!["--ca", &ca, "--svid", &thief],
            [
                "refused by the peer",
                "our certificate: spiffe://example.org/thief",
            ],
        ),
        (
            vec!["--ca", &ca, "--svid", &stranger, "--version", "1.2"],
            [
                "refused by the peer",
                "does not trust the issuer of our certificate",
            ],
        ),
        // Somebody who is not trusted, or not who we mean: ours.
        (
            vec!["--ca", &other_ca, "--svid", &shop],
            ["verifying the peer's certificate", "is not trusted"],
        ),
        (
            vec![
                "--ca",
                &ca,
                "--svid",
                &shop,
                "--uri",
                "spiffe://example.org/other",
            ],
            [
                "expected: URI spiffe://example.org/other",
                "presented: URI spiffe://example.org/cart",
            ],
        ),
    ] {
        let output = probe(cart, &arguments);
        assert!(!output.status.success(), "{}", stdout(&output));
        let said = stderr(&output);
        for part in parts {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(said.contains("look at: "), "{said}");
    }
    // No TLS there, nobody there, no address at all.
    let plain = server.listener("shop").unwrap();
    let said = stderr(&probe(plain, &[]));
    assert!(said.contains("stage: protocol"), "{said}");
    let dead = DeadPort::refusing().unwrap();
    let said = stderr(&probe(dead.address(), &[]));
    assert!(said.contains("no connection to 127.0.0.1:"), "{said}");
    let said = stderr(&run(&["tls", "probe", "localhost"]));
    assert!(said.contains("is not HOST:PORT"), "{said}");
    for folder in [pki, theirs] {
        fs::remove_dir_all(folder).unwrap();
    }
}
