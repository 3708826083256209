//! SAN matchers.

use std::net::IpAddr;

use mesh_core::matcher::{SafeRegex, StringMatcher};
use mesh_tls::{San, SanKind, SanMatcher};
use proptest::prelude::*;

fn dns(name: &str) -> San {
    San::Dns(name.to_owned())
}

fn uri(name: &str) -> San {
    San::Uri(name.to_owned())
}

#[test]
fn every_kind_with_every_test() {
    let text = |matcher| SanMatcher::new(SanKind::Uri, matcher, "x");
    let regex = SafeRegex::new("spiffe://[^/]+/ns/(a|b)/.*").unwrap();
    for (matcher, yes, no) in [
        (
            SanMatcher::exact(SanKind::Uri, "spiffe://a/b"),
            "spiffe://a/b",
            "spiffe://a/B",
        ),
        (
            SanMatcher::uri_prefix("spiffe://a/").unwrap(),
            "spiffe://a/b",
            "spiffe://ab/b",
        ),
        (
            text(StringMatcher::suffix("/cart").unwrap()),
            "spiffe://a/cart",
            "spiffe://a/cart2",
        ),
        (
            text(StringMatcher::contains("/ns/").unwrap()),
            "spiffe://a/ns/b",
            "spiffe://a/b",
        ),
        (
            text(StringMatcher::safe_regex(regex)),
            "spiffe://x/ns/a/c",
            "spiffe://x/ns/c/c",
        ),
        (
            text(
                StringMatcher::exact("SPIFFE://a/b")
                    .ignore_case(true)
                    .unwrap(),
            ),
            "spiffe://A/B",
            "spiffe://a/c",
        ),
    ] {
        assert!(matcher.matches(&uri(yes)), "{matcher} {yes}");
        assert!(!matcher.matches(&uri(no)), "{matcher} {no}");
        assert!(!matcher.matches(&dns(yes)), "another kind");
        assert!(
            !matcher.matches(&San::Email(yes.to_owned())),
            "another kind"
        );
    }
    let ip = SanMatcher::exact(SanKind::IpAddress, "2001:db8::1");
    assert!(ip.matches(&San::Ip("2001:db8:0::1".parse().unwrap())));
    assert!(!ip.matches(&San::Ip(IpAddr::from([1, 2, 3, 4]))));
    assert!(!ip.matches(&dns("2001:db8::1")));
    let email = SanMatcher::exact(SanKind::Email, "a@b.c");
    assert!(email.matches(&San::Email("a@b.c".to_owned())));
}

#[test]
fn only_an_exact_host_name_knows_wildcards() {
    let wild = dns("*.example.com");
    assert!(SanMatcher::exact(SanKind::Dns, "a.example.com").matches(&wild));
    assert!(!SanMatcher::exact(SanKind::Dns, "a.b.example.com").matches(&wild));
    let prefix = StringMatcher::prefix("a.").unwrap();
    assert!(!SanMatcher::new(SanKind::Dns, prefix, "x").matches(&wild));
    let star = StringMatcher::prefix("*.").unwrap();
    assert!(SanMatcher::new(SanKind::Dns, star, "x").matches(&wild));
}

proptest! {
    /// The name of a certificate is the attacker's: whatever it says, only what was asked for passes.
    #[test]
    fn model_an_exact_host_name(
        wanted in "[a-c]{1,2}(\\.[a-c]{1,2}){0,3}",
        pattern in "(\\*\\.)?[a-cA-C*]{1,2}(\\.[a-c]{1,2}){0,3}",
    ) {
        let matches = SanMatcher::exact(SanKind::Dns, &wanted).matches(&dns(&pattern));
        let wanted: Vec<_> = wanted.split('.').map(str::to_owned).collect();
        let lower = pattern.to_ascii_lowercase();
        let labels: Vec<_> = lower.split('.').collect();
        let wild = labels[0] == "*" && labels.len() > 2 && wanted.len() == labels.len()
            && wanted[1..].iter().zip(&labels[1..]).all(|(a, b)| a == b);
        let same = wanted.len() == labels.len() && wanted.iter().zip(&labels).all(|(a, b)| a == b);
        prop_assert_eq!(matches, wild || same, "{:?} {}", wanted, pattern);
    }
}
