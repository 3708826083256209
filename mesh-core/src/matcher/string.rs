use memchr::memmem;

use super::{InvalidMatcher, SafeRegex};

/// A test on a text.
///
/// # Envoy
/// `type.matcher.v3.StringMatcher`.
#[derive(Debug, Clone, PartialEq)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone, PartialEq)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Regex(SafeRegex),
}

impl StringMatcher {
    /// The whole text; may be empty.
    #[must_use]
    pub fn exact(text: impl Into<Box<str>>) -> Self {
        Self::of(Pattern::Exact(text.into()))
    }

    /// How the text begins.
    ///
    /// # Errors
    /// When `text` is empty, as for the next two.
    pub fn prefix(text: impl Into<Box<str>>) -> Result<Self, InvalidMatcher> {
        Ok(Self::of(Pattern::Prefix(nonempty("prefix", text.into())?)))
    }

    /// How the text ends.
    ///
    /// # Errors
    /// When `text` is empty.
    pub fn suffix(text: impl Into<Box<str>>) -> Result<Self, InvalidMatcher> {
        Ok(Self::of(Pattern::Suffix(nonempty("suffix", text.into())?)))
    }

    /// What is somewhere in the text.
    ///
    /// # Errors
    /// When `text` is empty.
    pub fn contains(text: impl Into<Box<str>>) -> Result<Self, InvalidMatcher> {
        let text = nonempty("contains", text.into())?;
        Ok(Self::of(Pattern::Contains(text)))
    }

    /// A pattern for the whole text.
    #[must_use]
    pub const fn safe_regex(regex: SafeRegex) -> Self {
        Self::of(Pattern::Regex(regex))
    }

    const fn of(pattern: Pattern) -> Self {
        Self {
            pattern,
            ignore_case: false,
        }
    }

    /// Whether ASCII letters match in either case; off by default. Envoy: `ignore_case`.
    ///
    /// # Errors
    /// For a regex, which says `(?i)` itself.
    pub fn ignore_case(mut self, ignore: bool) -> Result<Self, InvalidMatcher> {
        if ignore {
            if let Pattern::Contains(text) = &mut self.pattern {
                *text = text.to_ascii_lowercase().into();
            }
            if matches!(self.pattern, Pattern::Regex(_)) {
                return Err(InvalidMatcher::new(
                    "ignore_case has no effect for safe_regex",
                ));
            }
        }
        self.ignore_case = ignore;
        Ok(self)
    }

    /// Whether `text` passes.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &str| {
            if self.ignore_case {
                a.eq_ignore_ascii_case(b.as_bytes())
            } else {
                a == b.as_bytes()
            }
        };
        match &self.pattern {
            Pattern::Exact(want) => same(text, want),
            Pattern::Prefix(want) => text.get(..want.len()).is_some_and(|head| same(head, want)),
            Pattern::Suffix(want) => {
                let start = text.len().checked_sub(want.len());
                start.is_some_and(|start| same(&text[start..], want))
            }
            Pattern::Contains(want) if self.ignore_case => {
                memmem::find(&text.to_ascii_lowercase(), want.as_bytes()).is_some()
            }
            Pattern::Contains(want) => memmem::find(text, want.as_bytes()).is_some(),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}

fn nonempty(kind: &str, text: Box<str>) -> Result<Box<str>, InvalidMatcher> {
    if text.is_empty() {
        Err(InvalidMatcher::new(format!("{kind} must not be empty")))
    } else {
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SafeRegex;
    use super::StringMatcher;

    #[test]
    fn every_kind_honours_case() {
        let regex = SafeRegex::new("a.c").unwrap();
        for (matcher, yes, no, other_case) in [
            (StringMatcher::exact("Abc"), "Abc", "Abcd", "aBC"),
            (StringMatcher::prefix("Ab").unwrap(), "Abc", "xAb", "ABx"),
            (StringMatcher::suffix("bC").unwrap(), "abC", "bCd", "xBc"),
            (StringMatcher::contains("B").unwrap(), "aBc", "ac", "abc"),
            (
                StringMatcher::safe_regex(regex.clone()),
                "abc",
                "abcd",
                "ABC",
            ),
        ] {
            assert!(matcher.matches(yes.as_bytes()), "{matcher:?}");
            assert!(!matcher.matches(no.as_bytes()), "{matcher:?}");
            assert!(!matcher.matches(b""), "{matcher:?}");
            assert!(!matcher.matches(other_case.as_bytes()), "{matcher:?}");
            if let Ok(ignoring) = matcher.clone().ignore_case(true) {
                assert!(ignoring.matches(other_case.as_bytes()), "{ignoring:?}");
                assert!(!ignoring.matches(no.as_bytes()), "{ignoring:?}");
            } else {
                assert_eq!(matcher, StringMatcher::safe_regex(regex.clone()));
            }
        }
    }

    #[test]
    fn empty_patterns_other_than_exact_are_refused() {
        assert!(StringMatcher::exact("").matches(b""));
        assert!(StringMatcher::prefix("").is_err());
        assert!(StringMatcher::suffix("").is_err());
        assert!(StringMatcher::contains("").is_err());
    }
}
