//! Names for the way a client says hello: JA3 and JA4. Clients that share a TLS library and its settings share
//! one; it identifies programs, proves nothing, and is there for logs and for telling bots apart.
//!
//! # Envoy
//! `enable_ja3_fingerprinting` and `enable_ja4_fingerprinting` of the TLS inspector.

use std::fmt::Write as _;

use md5::{Digest as _, Md5};

use crate::digest::{hex, sha256};

/// Where a ClientHello says what matters here.
pub(crate) const SERVER_NAME: u16 = 0;
pub(crate) const ALPN: u16 = 16;
const GROUPS: u16 = 10;
const POINT_FORMATS: u16 = 11;
const SIGNATURES: u16 = 13;
const VERSIONS: u16 = 43;

/// What JA4 counts up to.
const COUNT_MAX: usize = 99;
/// How many digits of a hash it keeps.
const DIGITS: usize = 12;
/// What stands for the hash of nothing.
const NOTHING: &str = "000000000000";

/// What a ClientHello offers, in the order in which it does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HelloShape {
    pub(crate) version: u16,
    pub(crate) ciphers: Vec<u16>,
    /// Their types.
    pub(crate) extensions: Vec<u16>,
    pub(crate) groups: Vec<u16>,
    pub(crate) point_formats: Vec<u8>,
    pub(crate) signatures: Vec<u16>,
    pub(crate) versions: Vec<u16>,
    /// The first application protocol.
    pub(crate) alpn: Vec<u8>,
}

impl HelloShape {
    /// Takes down an extension. What is malformed in it counts for nothing.
    pub(crate) fn extension(&mut self, kind: u16, body: &[u8]) {
        self.extensions.push(kind);
        let list16 = || body.get(2..).map(shorts).unwrap_or_default();
        match kind {
            GROUPS => self.groups = list16(),
            SIGNATURES => self.signatures = list16(),
            VERSIONS => self.versions = body.get(1..).map(shorts).unwrap_or_default(),
            POINT_FORMATS => self.point_formats = body.get(1..).unwrap_or_default().to_vec(),
            ALPN => {
                let length = body.get(2).map_or(0, |length| usize::from(*length));
                self.alpn = body.get(3..3 + length).unwrap_or_default().to_vec();
            }
            _ => {}
        }
    }

    /// The text that JA3 hashes: version, ciphers, extensions, groups and point formats, in the client's order.
    #[must_use]
    pub fn ja3_text(&self) -> String {
        let mut text = self.version.to_string();
        for list in [&self.ciphers, &self.extensions, &self.groups] {
            let numbers: Vec<_> = meant(list).map(|number| number.to_string()).collect();
            let _ = write!(text, ",{}", numbers.join("-"));
        }
        let formats: Vec<_> = self.point_formats.iter().map(u8::to_string).collect();
        let _ = write!(text, ",{}", formats.join("-"));
        text
    }

    /// JA3: 32 hexadecimal digits.
    #[must_use]
    pub fn ja3(&self) -> String {
        hex(&Md5::digest(self.ja3_text().as_bytes()))
    }

    /// JA4, such as `t13d1516h2_8daaf6152771_e5627efa2ab1`: unlike JA3, it does not change when a client shuffles
    /// its extensions.
    #[must_use]
    pub fn ja4(&self) -> String {
        let versions = meant(&self.versions).max();
        let version = match versions.unwrap_or(self.version) {
            0x0304 => "13",
            0x0303 => "12",
            0x0302 => "11",
            0x0301 => "10",
            0x0300 => "s3",
            0x0002 => "s2",
            _ => "00",
        };
        let named = if self.extensions.contains(&SERVER_NAME) {
            'd'
        } else {
            'i'
        };
        let mut ciphers: Vec<_> = meant(&self.ciphers).collect();
        let mut extensions: Vec<_> = meant(&self.extensions).collect();
        let counts = [ciphers.len(), extensions.len()].map(|count| count.min(COUNT_MAX));
        let alpn = self.alpn_ends();
        ciphers.sort_unstable();
        extensions.sort_unstable();
        extensions.retain(|kind| ![SERVER_NAME, ALPN].contains(kind));
        let mut rest = digits(extensions.iter().copied());
        if !self.signatures.is_empty() {
            rest.push('_');
            rest += &digits(meant(&self.signatures));
        }
        let extensions = if extensions.is_empty() {
            NOTHING.to_owned()
        } else {
            short_hash(&rest)
        };
        let ciphers = if ciphers.is_empty() {
            NOTHING.to_owned()
        } else {
            short_hash(&digits(ciphers.into_iter()))
        };
        let [first, second] = counts;
        format!("t{version}{named}{first:02}{second:02}{alpn}_{ciphers}_{extensions}")
    }

    /// The first and the last letter of the first application protocol.
    fn alpn_ends(&self) -> String {
        let (Some(first), Some(last)) = (self.alpn.first(), self.alpn.last()) else {
            return "00".to_owned();
        };
        if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
            return [*first, *last].map(char::from).iter().collect();
        }
        // Of what is no text, the digits.
        let digits = hex(&self.alpn);
        let ends = [digits.chars().next(), digits.chars().next_back()];
        ends.into_iter().flatten().collect()
    }
}

/// Without GREASE (RFC 8701): numbers that clients send at random, so that servers learn to ignore them.
fn meant(numbers: &[u16]) -> impl Iterator<Item = u16> + '_ {
    let grease = |number: u16| number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff;
    numbers.iter().copied().filter(move |n| !grease(*n))
}

fn shorts(bytes: &[u8]) -> Vec<u16> {
    let pairs = bytes.chunks_exact(2);
    pairs
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

fn digits(numbers: impl Iterator<Item = u16>) -> String {
    let all: Vec<_> = numbers.map(|number| format!("{number:04x}")).collect();
    all.join(",")
}

fn short_hash(text: &str) -> String {
    let mut digits = hex(&sha256(text.as_bytes()));
    digits.truncate(DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use super::HelloShape;

    /// The example of JA3's authors.
    #[test]
    fn ja3_is_what_its_authors_say() {
        let shape = HelloShape {
            version: 769,
            ciphers: vec![
                47, 53, 5, 10, 49161, 49162, 49171, 49172, 50, 56, 19, 4, 0x0a0a,
            ],
            extensions: vec![0x1a1a, 0, 10, 11],
            groups: vec![0xfafa, 23, 24, 25],
            point_formats: vec![0],
            ..HelloShape::default()
        };
        assert_eq!(
            shape.ja3_text(),
            "769,47-53-5-10-49161-49162-49171-49172-50-56-19-4,0-10-11,23-24-25,0"
        );
        assert_eq!(shape.ja3(), "ada70206e40642a3e4461f35503241d5");
        let nothing = HelloShape {
            version: 769,
            ciphers: vec![4, 5, 10, 9, 100, 98, 3, 6, 19, 18, 99],
            ..HelloShape::default()
        };
        assert_eq!(nothing.ja3(), "de350869b8c85de67a350c8d186f11e6");
    }

    /// The example of JA4's authors.
    #[test]
    fn ja4_is_what_its_authors_say() {
        let mut shape = HelloShape {
            version: 0x0303,
            ciphers: vec![
                0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            ..HelloShape::default()
        };
        for kind in [
            0x001b, 0x0000, 0x0033, 0x4469, 0x0017, 0x002d, 0x0005, 0x0023, 0x0012, 0xff01, 0x000b,
            0x000a, 0x0015, 0x3a3a,
        ] {
            shape.extension(kind, &[]);
        }
        shape.extension(0x0010, b"\0\x0c\x02h2\x08http/1.1");
        shape.extension(0x002b, b"\x06\x7a\x7a\x03\x04\x03\x03");
        let signatures = b"\0\x10\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05\x05\x01\x08\x06\x06\x01";
        shape.extension(0x000d, signatures);
        assert_eq!(shape.ja4(), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn what_is_not_said_is_said_so() {
        let empty = HelloShape::default();
        assert_eq!(empty.ja4(), "t00i000000_000000000000_000000000000");
        assert_eq!(empty.ja3_text(), "0,,,,");
        let mut odd = HelloShape::default();
        odd.extension(16, b"\0\x03\x02\xab\xcd");
        assert!(odd.ja4().starts_with("t00i0001ad_"), "{}", odd.ja4());
        // Lengths that lie are no reason to fall.
        for body in [&b""[..], b"\0", b"\0\x03\xff"] {
            for kind in [10, 11, 13, 16, 43] {
                odd.extension(kind, body);
            }
        }
        assert!(odd.ja4().starts_with("t00i00"));
    }
}
