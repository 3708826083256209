use std::collections::HashMap;

use foldhash::fast::RandomState;
use smallvec::SmallVec;

use crate::RouteConfigError;

type Map = HashMap<Box<[u8]>, usize, RandomState>;

/// Which virtual host a host belongs to: exact, then the longest `*suffix`, then the longest `prefix*`,
/// then `*`.
#[derive(Debug, Default)]
pub(super) struct Domains {
    exact: Map,
    /// By the length of what is not the wildcard, longest first.
    suffixes: Vec<(usize, Map)>,
    prefixes: Vec<(usize, Map)>,
    any: Option<usize>,
}

impl Domains {
    pub(super) fn insert(&mut self, domain: &str, host: usize) -> Result<(), RouteConfigError> {
        let lower = domain.to_ascii_lowercase();
        let duplicate = if lower == "*" {
            self.any.replace(host).is_some()
        } else {
            let (map, key) = match (lower.strip_prefix('*'), lower.strip_suffix('*')) {
                (None, None) => (&mut self.exact, lower.as_str()),
                (Some(suffix), _) => (by_length(&mut self.suffixes, suffix.len()), suffix),
                (None, Some(prefix)) => (by_length(&mut self.prefixes, prefix.len()), prefix),
            };
            if key.is_empty() || key.contains('*') {
                return Err(RouteConfigError::new(format!(
                    "domain {domain:?} must be a host with at most one wildcard, at either end"
                )));
            }
            map.insert(key.as_bytes().into(), host).is_some()
        };
        if duplicate {
            return Err(RouteConfigError::new(format!(
                "domain {domain:?} appears more than once"
            )));
        }
        Ok(())
    }

    pub(super) fn find(&self, host: &[u8], ignore_port: bool) -> Option<usize> {
        // Names are short: this stays on the stack.
        let mut lower: SmallVec<[u8; 256]> = SmallVec::from_slice(host);
        lower.make_ascii_lowercase();
        let host = if ignore_port {
            without_port(&lower)
        } else {
            &lower
        };
        if let Some(&found) = self.exact.get(host) {
            return Some(found);
        }
        let suffix = self.suffixes.iter().find_map(|(length, map)| {
            // The wildcard stands for at least one character.
            let start = host.len().checked_sub(*length).filter(|&start| start > 0)?;
            map.get(&host[start..])
        });
        let prefix = || {
            self.prefixes.iter().find_map(|(length, map)| {
                (host.len() > *length).then(|| map.get(&host[..*length]))?
            })
        };
        suffix.or_else(prefix).copied().or(self.any)
    }
}

fn by_length(maps: &mut Vec<(usize, Map)>, length: usize) -> &mut Map {
    let place = maps.partition_point(|(known, _)| *known > length);
    if maps.get(place).is_none_or(|(known, _)| *known != length) {
        maps.insert(place, (length, Map::default()));
    }
    &mut maps[place].1
}

/// `[::1]:80` without `:80`; the colons of a bare IPv6 address are left alone.
fn without_port(host: &[u8]) -> &[u8] {
    let Some(colon) = host.iter().rposition(|&byte| byte == b':') else {
        return host;
    };
    let (bare, port) = (&host[..colon], &host[colon + 1..]);
    let digits = !port.is_empty() && port.iter().all(u8::is_ascii_digit);
    let whole = !bare.contains(&b':') || bare.ends_with(b"]");
    if digits && whole { bare } else { host }
}

#[cfg(test)]
mod tests {
    use super::Domains;

    fn domains(list: &[&str]) -> Domains {
        let mut domains = Domains::default();
        for (i, domain) in list.iter().enumerate() {
            domains.insert(domain, i).unwrap();
        }
        domains
    }

    #[test]
    fn exact_beats_suffix_beats_prefix_beats_any() {
        let domains = domains(&[
            "*",
            "foo.*",
            "foo.bar.*",
            "*.com",
            "*.foo.com",
            "*-x.foo.com",
            "a.foo.com",
            "[::1]:80",
            "B.Com",
        ]);
        for (host, expected) in [
            ("a.foo.com", 6),
            ("A.FOO.com", 6),
            ("b.foo.com", 4),
            ("b-x.foo.com", 5),
            ("-x.foo.com", 4),
            ("foo.com", 3),
            (".foo.com", 3),
            (".com", 0),
            ("foo.org", 1),
            ("foo.", 0),
            ("foo.bar.org", 2),
            ("foo.bar.com", 3),
            ("b.com", 8),
            ("a.foo.com:80", 0),
            ("[::1]:80", 7),
            ("", 0),
        ] {
            assert_eq!(
                domains.find(host.as_bytes(), false),
                Some(expected),
                "{host}"
            );
        }
    }

    #[test]
    fn the_port_is_part_of_the_host_unless_ignored() {
        let domains = domains(&["a.com", "*.b.com", "[::1]", "::1"]);
        for (host, with, without) in [
            ("a.com:80", None, Some(0)),
            ("a.com:", None, None),
            ("a.com:x", None, None),
            ("x.b.com:80", None, Some(1)),
            ("[::1]:80", None, Some(2)),
            ("::1", Some(3), Some(3)),
        ] {
            assert_eq!(domains.find(host.as_bytes(), false), with, "{host}");
            assert_eq!(domains.find(host.as_bytes(), true), without, "{host}");
        }
    }

    #[test]
    fn domains_that_make_no_sense_are_refused() {
        let mut domains = domains(&["a.com", "*"]);
        for domain in ["A.com", "*", "", "a*b", "*a*", "**"] {
            assert!(domains.insert(domain, 9).is_err(), "{domain}");
        }
    }
}
