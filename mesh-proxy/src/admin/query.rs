//! Query strings and form bodies.

use super::Ask;

impl Ask<'_> {
    /// The first value of a query parameter, decoded.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        pairs(self.query).find_map(|(key, value)| (key == name).then_some(value))
    }
}

/// The pairs of a query string or a form, decoded, in order.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key), percent_decode(value))
    })
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = text
            .get(at + 1..at + 3)
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (byte, hex) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                at += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{pairs, percent_decode};

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(percent_decode("a%2eb%zz+c%"), "a.b%zz c%");
        let all: Vec<_> = pairs("a=1&&b&c%3d=x%26y").collect();
        let wanted = [("a", "1"), ("b", ""), ("c=", "x&y")];
        assert_eq!(all, wanted.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
