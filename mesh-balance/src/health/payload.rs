/// What an answer must contain: some pieces, in this order, with anything before, between and after.
///
/// # Envoy
/// `HealthCheck.Payload`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Payload(Vec<Vec<u8>>);

impl Payload {
    /// These pieces; empty ones match anything.
    #[must_use]
    pub const fn new(pieces: Vec<Vec<u8>>) -> Self {
        Self(pieces)
    }

    /// Whether nothing is asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many bytes all pieces have together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Whether `answer` has all pieces.
    #[must_use]
    pub fn matches(&self, answer: &[u8]) -> bool {
        let mut rest = answer;
        self.0.iter().all(|piece| match find(rest, piece) {
            Some(start) => {
                rest = &rest[start + piece.len()..];
                true
            }
            None => false,
        })
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::Payload;

    #[test]
    fn pieces_are_found_in_order_and_do_not_overlap() {
        let payload =
            |pieces: &[&str]| Payload::new(pieces.iter().map(|p| p.as_bytes().to_vec()).collect());
        assert!(payload(&[]).matches(b""));
        assert!(payload(&["b", "d"]).matches(b"abcde"));
        assert!(!payload(&["d", "b"]).matches(b"abcde"));
        assert!(!payload(&["ab", "b"]).matches(b"abc"));
        assert!(payload(&["ab", "b"]).matches(b"abcb"));
        assert!(!payload(&["abc"]).matches(b"ab"));
        assert_eq!(payload(&["ab", "b"]).len(), 3);
    }
}
