use std::{fmt, net::IpAddr};

use mesh_core::matcher::StringMatcher;

use crate::San;

/// Which kind of alternative name a [`SanMatcher`] looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanKind {
    /// Mail addresses.
    Email,
    /// Host names.
    Dns,
    /// URIs, SPIFFE IDs among them.
    Uri,
    /// Addresses, in their usual text form.
    IpAddress,
}

/// A test on the alternative names of a certificate.
///
/// # Envoy
/// `SubjectAltNameMatcher`: a host name with `*.` in front matches one label where the matcher asks for an
/// exact host name; every other test is on the text as it stands.
#[derive(Clone, PartialEq)]
pub struct SanMatcher {
    kind: SanKind,
    matcher: StringMatcher,
    /// The host name asked for, when the test is an exact one.
    exact_dns: Option<Box<str>>,
    text: Box<str>,
}

impl SanMatcher {
    /// Names of `kind` that pass `matcher`; `text` says for people what that is.
    #[must_use]
    pub fn new(kind: SanKind, matcher: StringMatcher, text: impl Into<Box<str>>) -> Self {
        Self {
            kind,
            matcher,
            exact_dns: None,
            text: text.into(),
        }
    }

    /// Exactly this name. Host names are compared without regard to case, and with wildcards.
    #[must_use]
    pub fn exact(kind: SanKind, name: &str) -> Self {
        Self {
            kind,
            matcher: StringMatcher::exact(name),
            exact_dns: (kind == SanKind::Dns).then(|| name.into()),
            text: name.into(),
        }
    }

    /// A URI that begins so, such as `spiffe://cluster.local/ns/shop/`.
    ///
    /// # Errors
    /// When `prefix` is empty: that is no test.
    pub fn uri_prefix(prefix: &str) -> Result<Self, mesh_core::matcher::InvalidMatcher> {
        let matcher = StringMatcher::prefix(prefix)?;
        Ok(Self::new(SanKind::Uri, matcher, format!("{prefix}...")))
    }

    /// Whether `san` passes.
    #[must_use]
    pub fn matches(&self, san: &San) -> bool {
        match (self.kind, san) {
            (SanKind::Dns, San::Dns(name)) => match &self.exact_dns {
                Some(wanted) => dns_name_matches(wanted, name),
                None => self.matcher.matches(name.as_bytes()),
            },
            (SanKind::Uri, San::Uri(text)) | (SanKind::Email, San::Email(text)) => {
                self.matcher.matches(text.as_bytes())
            }
            (SanKind::IpAddress, San::Ip(address)) => {
                self.matcher.matches(text_of(*address).as_bytes())
            }
            _ => false,
        }
    }
}

impl fmt::Display for SanMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            SanKind::Email => "email",
            SanKind::Dns => "DNS",
            SanKind::Uri => "URI",
            SanKind::IpAddress => "IP",
        };
        write!(f, "{kind} {}", self.text)
    }
}

impl fmt::Debug for SanMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SanMatcher({self})")
    }
}

fn text_of(address: IpAddr) -> String {
    address.to_string()
}

/// Whether a certificate for `pattern` is one for `name`. A `*` stands for one whole label at the left, and
/// at least two labels must follow it.
pub(crate) fn dns_name_matches(name: &str, pattern: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return false;
    }
    if name.eq_ignore_ascii_case(pattern) {
        return true;
    }
    let Some(rest) = pattern.strip_prefix("*.") else {
        return false;
    };
    let Some((label, tail)) = name.split_once('.') else {
        return false;
    };
    !label.is_empty() && rest.contains('.') && tail.eq_ignore_ascii_case(rest)
}

#[cfg(test)]
mod tests {
    use super::dns_name_matches;

    #[test]
    fn a_wildcard_is_one_label_at_the_left() {
        for (name, pattern, expected) in [
            ("a.example.com", "a.example.com", true),
            ("A.Example.com", "a.example.COM", true),
            ("a.example.com", "*.example.com", true),
            ("a.example.com.", "*.example.com", true),
            ("example.com", "*.example.com", false),
            ("b.a.example.com", "*.example.com", false),
            (".example.com", "*.example.com", false),
            ("a.example.com", "*.com", false),
            ("example.com", "*.com", false),
            ("a.example.com", "a.*.com", false),
            ("aa.example.com", "a*.example.com", false),
            ("*.example.com", "*.example.com", true),
            ("", "", false),
        ] {
            assert_eq!(
                dns_name_matches(name, pattern),
                expected,
                "{name} {pattern}"
            );
        }
    }
}
