//! The syntax of SPIFFE IDs, sentence by sentence of the standard.

use mesh_tls::{SPIFFE_ID_MAX, SpiffeId, SpiffeIdError as E, TRUST_DOMAIN_MAX, TrustDomain};
use proptest::prelude::*;

#[test]
fn what_the_standard_allows_is_an_id() {
    for (text, domain, path) in [
        ("spiffe://example.org", "example.org", ""),
        ("spiffe://example.org/a", "example.org", "/a"),
        (
            "spiffe://cluster.local/ns/shop/sa/cart",
            "cluster.local",
            "/ns/shop/sa/cart",
        ),
        ("spiffe://a", "a", ""),
        ("spiffe://9.-_", "9.-_", ""),
        (
            "spiffe://under_score/Path-1_2.3",
            "under_score",
            "/Path-1_2.3",
        ),
        ("spiffe://domain/...", "domain", "/..."),
        ("spiffe://domain/.a/..b/c..", "domain", "/.a/..b/c.."),
        ("spiffe://1.2.3.4/service", "1.2.3.4", "/service"),
    ] {
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(id.as_str(), text);
        assert_eq!(id.trust_domain().as_str(), domain, "{text}");
        assert_eq!(id.path(), path, "{text}");
    }
}

#[test]
fn what_the_standard_forbids_is_refused_with_its_reason() {
    for (text, reason) in [
        ("", E::Empty),
        ("http://example.org/a", E::Scheme),
        ("SPIFFE://example.org/a", E::Scheme),
        ("spiffe:/example.org/a", E::Scheme),
        ("spiffe:example.org", E::Scheme),
        ("example.org/a", E::Scheme),
        (" spiffe://example.org", E::Scheme),
        ("spiffe://", E::NoTrustDomain),
        ("spiffe:///a", E::NoTrustDomain),
        ("spiffe://Example.org/a", E::TrustDomainCharacter('E')),
        ("spiffe://example.org:8080/a", E::TrustDomainCharacter(':')),
        ("spiffe://user@example.org/a", E::TrustDomainCharacter('@')),
        (
            "spiffe://user:pass@example.org",
            E::TrustDomainCharacter(':'),
        ),
        ("spiffe://ex%61mple.org/a", E::TrustDomainCharacter('%')),
        ("spiffe://example.org?a=b", E::TrustDomainCharacter('?')),
        ("spiffe://example.org#a", E::TrustDomainCharacter('#')),
        ("spiffe://exämple.org", E::TrustDomainCharacter('ä')),
        ("spiffe://[::1]/a", E::TrustDomainCharacter('[')),
        ("spiffe://example org/a", E::TrustDomainCharacter(' ')),
        ("spiffe://example.org/a?b", E::PathCharacter('?')),
        ("spiffe://example.org/a#b", E::PathCharacter('#')),
        ("spiffe://example.org/a%20b", E::PathCharacter('%')),
        ("spiffe://example.org/ä", E::PathCharacter('ä')),
        ("spiffe://example.org/a:b", E::PathCharacter(':')),
        ("spiffe://example.org/a b", E::PathCharacter(' ')),
        ("spiffe://example.org/", E::TrailingSlash),
        ("spiffe://example.org/a/", E::TrailingSlash),
        ("spiffe://example.org//", E::TrailingSlash),
        ("spiffe://example.org//a", E::EmptySegment),
        ("spiffe://example.org/a//b", E::EmptySegment),
        ("spiffe://example.org/./a", E::DotSegment),
        ("spiffe://example.org/a/../b", E::DotSegment),
        ("spiffe://example.org/..", E::DotSegment),
        ("spiffe://example.org/a/.", E::DotSegment),
    ] {
        assert_eq!(SpiffeId::new(text), Err(reason), "{text:?}");
    }
}

#[test]
fn lengths_are_bounded() {
    let domain = "a".repeat(TRUST_DOMAIN_MAX);
    assert!(TrustDomain::new(&domain).is_ok());
    assert_eq!(
        TrustDomain::new(&(domain + "a")),
        Err(E::TrustDomainTooLong)
    );
    let head = "spiffe://a/";
    let longest = format!("{head}{}", "b".repeat(SPIFFE_ID_MAX - head.len()));
    assert!(SpiffeId::new(&longest).is_ok());
    assert_eq!(SpiffeId::new(&(longest + "b")), Err(E::TooLong));
}

proptest! {
    /// A grammar that is written another way agrees.
    #[test]
    fn model_a_regex_agrees(text in "(spiffe://)?[a-zA-Z0-9./_%:-]{0,12}") {
        let grammar = regex_lite(&text);
        prop_assert_eq!(SpiffeId::new(&text).is_ok(), grammar, "{}", text);
    }

    #[test]
    fn nothing_makes_it_panic(text in ".{0,64}") {
        let _ = SpiffeId::new(&text);
    }
}

/// The grammar by splitting, not by scanning.
fn regex_lite(text: &str) -> bool {
    let mut parts = text.splitn(4, '/');
    let (Some("spiffe:"), Some(""), Some(domain)) = (parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let domain_fits = !domain.is_empty()
        && domain
            .bytes()
            .all(|b| b"abcdefghijklmnopqrstuvwxyz0123456789.-_".contains(&b));
    let path_fits = parts.next().is_none_or(|path| {
        path.split('/').all(|segment| {
            !["", ".", ".."].contains(&segment)
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
        })
    });
    domain_fits && path_fits
}
