//! Regular expressions in RE2's dialect.

mod dialect;

use std::{fmt, ops::Range};

use ::regex::bytes::{Regex, RegexBuilder};

use super::InvalidMatcher;

/// The longest pattern that is compiled; a longer one is a config error.
pub const PATTERN_MAX: usize = 4096;
/// The largest compiled program, in bytes; a pattern that needs more is a config error.
pub const PROGRAM_MAX: usize = 1 << 20;
/// How much memory one thread may cache while it matches one pattern; matching slows down beyond it.
pub const CACHE_MAX: usize = 1 << 18;

/// A pattern that must match the whole text.
///
/// Patterns are read as RE2 reads them, whatever Rust's `regex` would make of them: `\d` is ASCII, `[a&&b]`
/// is a set of three characters, `a{,2}` is literal. What cannot be said in both is refused.
///
/// # Envoy
/// `type.matcher.v3.RegexMatcher`.
#[derive(Clone)]
pub struct SafeRegex {
    pattern: Box<str>,
    regex: Regex,
    prefix: Box<str>,
}

impl SafeRegex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// When RE2 would refuse it, or when it is empty, too long or too large.
    pub fn new(pattern: &str) -> Result<Self, InvalidMatcher> {
        let translated = translate(pattern)?;
        Ok(Self {
            pattern: pattern.into(),
            regex: compile(pattern, &format!(r"\A(?:{translated})\z"))?,
            prefix: dialect::literal_prefix(pattern).into(),
        })
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }

    /// The pattern as configured.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// What every match begins with.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Debug for SafeRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SafeRegex({:?})", self.pattern)
    }
}

impl PartialEq for SafeRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

/// A search and replacement: every match of a pattern becomes a text with `\1` to `\9` for its groups.
///
/// # Envoy
/// `type.matcher.v3.RegexMatchAndSubstitute`.
#[derive(Clone)]
pub struct RegexRewrite {
    pattern: Box<str>,
    regex: Regex,
    parts: Box<[Part]>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(Box<str>),
    Group(usize),
}

impl RegexRewrite {
    /// Compiles `pattern` and `substitution`.
    ///
    /// # Errors
    /// When RE2 would refuse the pattern, or when the substitution names a group that it does not have.
    pub fn new(pattern: &str, substitution: &str) -> Result<Self, InvalidMatcher> {
        let regex = compile(pattern, &translate(pattern)?)?;
        let parts = substitution_parts(substitution)?;
        let groups = regex.captures_len() - 1;
        for part in &parts {
            if let Part::Group(group) = part
                && *group > groups
            {
                return Err(InvalidMatcher::new(format!(
                    "substitution {substitution:?} asks for group {group}, but the pattern has {groups}"
                )));
            }
        }
        Ok(Self {
            pattern: pattern.into(),
            regex,
            parts: parts.into(),
        })
    }

    /// `text` with every match replaced.
    #[must_use]
    pub fn rewrite(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut last = 0;
        for captures in self.regex.captures_iter(text) {
            let range = captures.get(0).map_or(0..0, |all| all.range());
            out.extend_from_slice(&text[last..range.start]);
            last = range.end;
            for part in &self.parts {
                match part {
                    Part::Literal(literal) => out.extend_from_slice(literal.as_bytes()),
                    Part::Group(group) => {
                        let range: Range<usize> =
                            captures.get(*group).map_or(0..0, |group| group.range());
                        out.extend_from_slice(&text[range]);
                    }
                }
            }
        }
        out.extend_from_slice(&text[last..]);
        out
    }
}

impl fmt::Debug for RegexRewrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegexRewrite({:?} -> {:?})", self.pattern, self.parts)
    }
}

impl PartialEq for RegexRewrite {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.parts == other.parts
    }
}

fn substitution_parts(text: &str) -> Result<Vec<Part>, InvalidMatcher> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, if c == '\\' { chars.next() } else { None }) {
            ('\\', Some('\\')) => literal.push('\\'),
            ('\\', Some(digit @ '0'..='9')) => {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal).into()));
                }
                parts.push(Part::Group(usize::from(digit as u8 - b'0')));
            }
            ('\\', _) => {
                return Err(InvalidMatcher::new(format!(
                    "substitution {text:?}: a backslash must be followed by a digit or a backslash"
                )));
            }
            _ => literal.push(c),
        }
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.into()));
    }
    Ok(parts)
}

fn translate(pattern: &str) -> Result<String, InvalidMatcher> {
    if pattern.is_empty() {
        return Err(InvalidMatcher::new("regex must not be empty"));
    }
    if pattern.len() > PATTERN_MAX {
        return Err(InvalidMatcher::new(format!(
            "regex of {} bytes is longer than {PATTERN_MAX}",
            pattern.len()
        )));
    }
    dialect::translate(pattern)
        .map_err(|reason| InvalidMatcher::new(format!("regex {pattern:?}: {reason}")))
}

fn compile(pattern: &str, translated: &str) -> Result<Regex, InvalidMatcher> {
    RegexBuilder::new(translated)
        .size_limit(PROGRAM_MAX)
        .dfa_size_limit(CACHE_MAX)
        .build()
        .map_err(|error| {
            // The library's syntax errors draw the pattern over several lines; the last one says why.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default();
            let reason = reason.strip_prefix("error: ").unwrap_or(reason);
            InvalidMatcher::new(format!("regex {pattern:?}: {reason}"))
        })
}

#[cfg(test)]
mod tests {
    use super::{RegexRewrite, SafeRegex};

    fn matches(pattern: &str, text: &str) -> bool {
        SafeRegex::new(pattern).unwrap().is_match(text.as_bytes())
    }

    #[test]
    fn the_whole_text_must_match() {
        assert!(matches("/a/[0-9]+", "/a/12"));
        assert!(!matches("/a/[0-9]+", "/a/12/"));
        assert!(!matches("a|b", "ab"));
        assert!(!matches("a", "a\n"));
    }

    #[test]
    fn patterns_mean_what_re2_means() {
        for (pattern, yes, no) in [
            (r"\d+", "12", "١٢"),
            (r"\w", "_", "é"),
            (r"[\d.]+", "1.2", "a"),
            (r"[^\d]", "é", "1"),
            (r"[\W]", "-", "a"),
            (r"\s", "\t", "\u{b}"),
            (r"[a&&b]", "&", "c"),
            (r"[a[b]", "[", "]"),
            (r"[]a]", "]", "["),
            (r"[^]a]", "b", "]"),
            (r"[a~~b]", "~", "c"),
            (r"[[:alpha:]x]", "Q", "é"),
            (r"[[:^alpha:]]", "1", "a"),
            (r"a{,2}", "a{,2}", "aa"),
            (r"a{x}", "a{x}", "a"),
            (r"a}{", "a}{", "a"),
            (r"a{2}", "aa", "a"),
            (r"a{1,}", "aaa", ""),
            (r"\<a\>", "<a>", "a"),
            (r"\_\-\/\.", "_-/.", "_-/x"),
            (r"\Qa.b\E+", "a.bb", "axb"),
            (r"\x41\x{42}\101", "ABA", "ab"),
            (r"(?i)straße", "STRASSE", "x"),
            (r"(?i)k", "\u{212a}", "x"),
            (r"(?s).", "\n", ""),
            (r".", "é", "\n"),
            (r"\bx\b.*", "x é", "é x"),
            (r"(?P<n>a)(?<m>b)(?:c)", "abc", "ab"),
            (r"(?U)a+", "aa", ""),
            (r"^/a$", "/a", "/ab"),
            (r"\A/a\z", "/a", "/ab"),
        ] {
            // Simple case folding does not know that ß is SS, neither here nor there.
            let yes = if yes == "STRASSE" { "STRAßE" } else { yes };
            assert!(matches(pattern, yes), "{pattern} should match {yes:?}");
            assert!(!matches(pattern, no), "{pattern} should not match {no:?}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for pattern in [
            "",
            "a**",
            "a*+",
            "a*??",
            "a{2}{3}",
            "(?=a)",
            "(?!a)",
            "(?x)a",
            "(?u)a",
            "(?-u)a",
            "(?R)a",
            "a{1001}",
            "a{2,1}",
            "[a--b]",
            "[z-a]",
            "[\\b]",
            "[a-\\d]",
            r"\1",
            r"(a)\1",
            r"\C",
            r"\u0041",
            r"\Z",
            "(",
            ")",
            "[",
            "a\\",
            "*a",
            "(*)",
            "|*",
            r"\b{start}",
            "(?",
            "(?P=n)",
            r"\k<n>",
        ] {
            assert!(
                SafeRegex::new(pattern).is_err(),
                "{pattern} should be refused"
            );
        }
    }

    #[test]
    fn a_pattern_that_needs_too_much_is_refused() {
        assert!(SafeRegex::new(&"a".repeat(super::PATTERN_MAX + 1)).is_err());
        assert!(SafeRegex::new("((a{1000}){1000}){1000}").is_err());
        let error = SafeRegex::new("a(").unwrap_err().to_string();
        assert!(error.starts_with("regex \"a(\": "), "{error}");
    }

    #[test]
    fn every_match_begins_with_the_literal_prefix() {
        for (pattern, prefix) in [
            ("/api/v1/.*", "/api/v1/"),
            ("^/api.*", "/api"),
            ("/api?", "/ap"),
            ("/ab{0}", "/a"),
            ("/a|/b", ""),
            ("(?i)/a", ""),
            (r"/a\.b", "/a"),
            ("/é*", "/"),
            ("/é", "/é"),
            ("^*a", ""),
        ] {
            let regex = SafeRegex::new(pattern).unwrap();
            assert_eq!(regex.literal_prefix(), prefix, "{pattern}");
        }
    }

    #[test]
    fn a_rewrite_replaces_every_match() {
        let rewrite = |pattern: &str, by: &str, text: &str| {
            let out = RegexRewrite::new(pattern, by)
                .unwrap()
                .rewrite(text.as_bytes());
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            rewrite(
                "^/service/([^/]+)(/.*)$",
                r"\2/instance/\1",
                "/service/foo/v1/api"
            ),
            "/v1/api/instance/foo"
        );
        assert_eq!(
            rewrite("one", "two", "/xxx/one/yyy/one/zzz"),
            "/xxx/two/yyy/two/zzz"
        );
        assert_eq!(
            rewrite("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz"),
            "/xxx/two/yyy/one/zzz"
        );
        assert_eq!(
            rewrite("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb"),
            "/aaa/yyy/bbb"
        );
        assert_eq!(rewrite("b*", "-", "abc"), "-a-c-");
        assert_eq!(rewrite("(a)|b", r"[\1\0\\]", "ab"), r"[aa\][b\]");
        assert!(RegexRewrite::new("(a)", r"\2").is_err());
        assert!(RegexRewrite::new("(a)", r"\x").is_err());
        assert!(RegexRewrite::new("(a)", "\\").is_err());
    }
}
