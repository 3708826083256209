//! Rules on text.

use prost_reflect::Value;
use regex::Regex;

use super::bounds::Bounds;

/// What a text must be like.
#[derive(Debug, Default)]
pub(crate) struct TextRule {
    exactly: Option<String>,
    characters: Bounds<i128>,
    bytes: Bounds<i128>,
    pattern: Option<Regex>,
    prefix: Option<String>,
    suffix: Option<String>,
    contains: Option<String>,
    not_contains: Option<String>,
    among: Vec<String>,
    not_among: Vec<String>,
    form: Option<Form>,
    /// Header rules only: forbid what merely breaks framing, not all that the RFC forbids.
    lenient: bool,
    empty_is_unset: bool,
}

/// A well-known form of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    HeaderName,
    HeaderValue,
    Uri,
    UriReference,
}

impl TextRule {
    /// Takes a rule on text; false when there is none of that name.
    pub(super) fn read(&mut self, name: &str, value: &Value) -> bool {
        let text = || value.as_str().map(str::to_owned);
        let many = || {
            let items = value.as_list().unwrap_or_default().iter();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        match name {
            "const" => self.exactly = text(),
            "len" | "min_len" | "max_len" => return self.characters.read_length(name, value),
            "len_bytes" => return self.bytes.read("const", value),
            "min_bytes" => return self.bytes.read("gte", value),
            "max_bytes" => return self.bytes.read("lte", value),
            "prefix" => self.prefix = text(),
            "suffix" => self.suffix = text(),
            "contains" => self.contains = text(),
            "not_contains" => self.not_contains = text(),
            "in" => self.among = many(),
            "not_in" => self.not_among = many(),
            "strict" => self.lenient = value.as_bool() == Some(false),
            "ignore_empty" => self.empty_is_unset = value.as_bool().unwrap_or_default(),
            "pattern" => {
                self.pattern = value.as_str().and_then(|pattern| Regex::new(pattern).ok());
                return self.pattern.is_some();
            }
            "uri" => self.form = Some(Form::Uri),
            "uri_ref" => self.form = Some(Form::UriReference),
            "well_known_regex" => {
                self.form = match value.as_enum_number() {
                    Some(1) => Some(Form::HeaderName),
                    Some(2) => Some(Form::HeaderValue),
                    _ => return false,
                };
            }
            _ => return false,
        }
        true
    }

    /// What the rule has against a text. The text itself is not repeated: it may be a secret.
    pub(super) fn objection(&self, text: &str) -> Option<String> {
        if self.empty_is_unset && text.is_empty() {
            return None;
        }
        let has = |part: &Option<String>, test: fn(&str, &str) -> bool| {
            part.as_deref().is_none_or(|part| test(text, part))
        };
        let length = self
            .characters
            .objection(text.chars().count() as i128, "characters long");
        let size = || self.bytes.objection(text.len() as i128, "bytes long");
        if let Some(reason) = length.or_else(size) {
            return Some(reason);
        }
        let shown = |part: &Option<String>| format!("{:?}", part.as_deref().unwrap_or_default());
        if !has(&self.exactly, |text, part| text == part) {
            return Some(format!("must be {}", shown(&self.exactly)));
        }
        if !has(&self.prefix, |text, part| text.starts_with(part)) {
            return Some(format!("must start with {}", shown(&self.prefix)));
        }
        if !has(&self.suffix, |text, part| text.ends_with(part)) {
            return Some(format!("must end with {}", shown(&self.suffix)));
        }
        if !has(&self.contains, |text, part| text.contains(part)) {
            return Some(format!("must contain {}", shown(&self.contains)));
        }
        if !has(&self.not_contains, |text, part| !text.contains(part)) {
            return Some(format!("must not contain {}", shown(&self.not_contains)));
        }
        if let Some(pattern) = self
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            return Some(format!("must match the pattern {:?}", pattern.as_str()));
        }
        if !self.among.is_empty() && !self.among.iter().any(|other| other == text) {
            return Some(format!("must be one of {:?}", self.among));
        }
        if self.not_among.iter().any(|other| other == text) {
            return Some(format!("must not be one of {:?}", self.not_among));
        }
        let form = self.form.filter(|form| !form.fits(text, self.lenient))?;
        Some(format!("must be {}", form.words(self.lenient)))
    }
}

impl Form {
    fn fits(self, text: &str, lenient: bool) -> bool {
        match self {
            Self::HeaderName | Self::HeaderValue if lenient => !text.contains(['\0', '\r', '\n']),
            Self::HeaderName => {
                let name = text.strip_prefix(':').unwrap_or(text);
                !name.is_empty() && name.bytes().all(is_token)
            }
            Self::HeaderValue => text.bytes().all(|b| b == b'\t' || (b >= b' ' && b != 0x7f)),
            Self::Uri => http_uri(text).is_some_and(|absolute| absolute),
            Self::UriReference => http_uri(text).is_some(),
        }
    }

    fn words(self, lenient: bool) -> &'static str {
        match self {
            Self::HeaderName | Self::HeaderValue if lenient => "without line ends and zero bytes",
            Self::HeaderName => "a header name",
            Self::HeaderValue => "a header value",
            Self::Uri => "an absolute URI",
            Self::UriReference => "a URI",
        }
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_|~`".contains(&byte)
}

/// Whether a URI is absolute, or nothing when it is no URI: printable ASCII, and a proper scheme
/// before the first colon if that comes before any slash.
fn http_uri(text: &str) -> Option<bool> {
    if !text
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b))
    {
        return None;
    }
    let Some(end) = text.find([':', '/', '?', '#']) else {
        return Some(false);
    };
    if text.as_bytes().get(end) != Some(&b':') {
        return Some(false);
    }
    let mut scheme = text.get(..end)?.bytes();
    let letters = scheme.next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest = scheme.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    (letters && rest).then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(rules: &[(&str, Value)]) -> TextRule {
        let mut rule = TextRule::default();
        for (name, value) in rules {
            assert!(rule.read(name, value), "{name}");
        }
        rule
    }

    #[test]
    fn length_counts_characters_and_bytes_apart() {
        let rule = rule(&[("min_len", Value::U64(2)), ("max_bytes", Value::U64(4))]);
        assert!(rule.objection("é").is_some());
        assert!(rule.objection("éé").is_none());
        assert!(rule.objection("ééa").is_some());
    }

    #[test]
    fn strict_header_names_are_tokens_and_lenient_ones_only_keep_framing() {
        let strict = rule(&[("well_known_regex", Value::EnumNumber(1))]);
        let lenient = rule(&[
            ("well_known_regex", Value::EnumNumber(1)),
            ("strict", Value::Bool(false)),
        ]);
        for (name, strictly, leniently) in [
            ("x-a", true, true),
            (":path", true, true),
            ("a b", false, true),
            ("", false, true),
            ("a\nb", false, false),
        ] {
            assert_eq!(strict.objection(name).is_none(), strictly, "{name:?}");
            assert_eq!(lenient.objection(name).is_none(), leniently, "{name:?}");
        }
    }

    #[test]
    fn a_pattern_that_does_not_compile_is_not_understood() {
        assert!(!TextRule::default().read("pattern", &Value::String("(".into())));
    }

    #[test]
    fn objections_do_not_repeat_the_text() {
        let rule = rule(&[("prefix", Value::String("/".into()))]);
        assert_eq!(
            rule.objection("hunter2").as_deref(),
            Some("must start with \"/\"")
        );
    }
}
