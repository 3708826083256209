//! The syntax of `host[:port]`.

/// Whether `text` is one host, with or without a port: a name, an IPv4 address or a bracketed IPv6
/// address. User information, lists, spaces, slashes, empty hosts and empty ports are not.
#[must_use]
pub fn valid(text: &[u8]) -> bool {
    let (host, port) = match text.first() {
        Some(b'[') => match text.iter().position(|&b| b == b']') {
            Some(end) => (&text[..=end], &text[end + 1..]),
            None => return false,
        },
        Some(_) => text.split_at(text.iter().position(|&b| b == b':').unwrap_or(text.len())),
        None => return false,
    };
    let host_ok = match host {
        [] => false,
        [b'[', inner @ .., b']'] => {
            std::str::from_utf8(inner).is_ok_and(|s| s.parse::<std::net::Ipv6Addr>().is_ok())
        }
        name => name.iter().all(|b| {
            b.is_ascii_alphanumeric()
                || matches!(
                    b,
                    b'-' | b'.'
                        | b'_'
                        | b'~'
                        | b'%'
                        | b'!'
                        | b'$'
                        | b'&'
                        | b'\''
                        | b'('
                        | b')'
                        | b'*'
                        | b'+'
                        | b';'
                        | b'='
                )
        }),
    };
    let port_ok = match port {
        [] => true,
        [b':', digits @ ..] => {
            !digits.is_empty()
                && digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|s| s.parse::<u16>().is_ok())
        }
        _ => false,
    };
    host_ok && port_ok
}

#[cfg(test)]
mod tests {
    #[test]
    fn accepts_hosts_and_nothing_else() {
        for good in [
            "a",
            "a.b-c_d:80",
            "10.0.0.1",
            "[::1]:8080",
            "[::1]",
            "xn--e1a.test",
        ] {
            assert!(super::valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "a:",
            "a:b",
            "a:99999",
            "user@host",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a,b",
            "[::1",
            "[::g]",
            "[::1]x",
            "a\\b",
            "a\"b",
            "a:80:80",
            "\u{e4}",
        ] {
            assert!(!super::valid(bad.as_bytes()), "{bad}");
        }
    }
}
