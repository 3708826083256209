//! One form for a path.

use super::EscapedSlashes;

/// What normalising a path came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Normalized {
    /// It was in normal form already.
    Unchanged,
    /// Go on with this one.
    Changed(String),
    /// Send the client to this one.
    Redirect(String),
    /// It cannot be trusted.
    Rejected,
}

/// Normalises the path of `target` (path and query); the query stays.
#[must_use]
pub fn normalize(
    target: &str,
    normalize_path: bool,
    merge_slashes: bool,
    escaped_slashes: EscapedSlashes,
) -> Normalized {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut path = std::borrow::Cow::Borrowed(path);
    let mut redirect = false;
    if escaped_slashes != EscapedSlashes::KeepUnchanged
        && let Some(plain) = unescape_slashes(&path)
    {
        match escaped_slashes {
            EscapedSlashes::RejectRequest => return Normalized::Rejected,
            EscapedSlashes::UnescapeAndRedirect => redirect = true,
            _ => {}
        }
        path = plain.into();
    }
    if normalize_path {
        match canonical(&path) {
            Some(canonical) => path = canonical.into(),
            None => return Normalized::Rejected,
        }
    }
    if merge_slashes && path.contains("//") {
        let mut merged = String::with_capacity(path.len());
        for c in path.chars() {
            if c != '/' || !merged.ends_with('/') {
                merged.push(c);
            }
        }
        path = merged.into();
    }
    if target.starts_with(&*path) && target.len() == path.len() + query.len() {
        Normalized::Unchanged
    } else if redirect {
        // More than one slash in front would make it the name of another host, and browsers take a backslash
        // for a slash.
        let path = path.trim_start_matches(['/', '\\']);
        Normalized::Redirect(format!("/{path}{query}"))
    } else {
        Normalized::Changed(format!("{path}{query}"))
    }
}

fn unescape_slashes(path: &str) -> Option<String> {
    let found = path
        .as_bytes()
        .windows(3)
        .any(|w| is_escape(w, b'2', b'f') || is_escape(w, b'5', b'c'));
    found.then(|| {
        let plain = path.replace("%2F", "/").replace("%2f", "/");
        plain.replace("%5C", "\\").replace("%5c", "\\")
    })
}

fn is_escape(w: &[u8], high: u8, low: u8) -> bool {
    w[0] == b'%' && w[1] == high && w[2].eq_ignore_ascii_case(&low)
}

/// RFC 3986: dot segments resolved, escapes of unreserved characters decoded; a backslash is a slash, as
/// browsers read it. `None` when an escape hides a NUL.
fn canonical(path: &str) -> Option<String> {
    let decoded = decode_unreserved(path)?;
    let mut out: Vec<&str> = Vec::new();
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." if last => out.push(""),
            "." => {}
            ".." => {
                out.pop();
                if last {
                    out.push("");
                }
            }
            _ => out.push(segment),
        }
    }
    Some(format!("/{}", out.join("/")))
}

fn decode_unreserved(path: &str) -> Option<String> {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => out.push('/'),
            '%' => {
                let Some(byte) = escaped(rest) else {
                    // Not an escape: it stays, as it does in Envoy.
                    out.push('%');
                    continue;
                };
                if byte == 0 {
                    return None;
                }
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(byte as char);
                } else {
                    out.push('%');
                    out.push_str(&rest[..2]);
                }
                rest = &rest[2..];
            }
            c => out.push(c),
        }
    }
    Some(out)
}

/// The byte that two hexadecimal digits stand for.
fn escaped(rest: &str) -> Option<u8> {
    let digits = rest
        .get(..2)
        .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{EscapedSlashes, Normalized, normalize};

    fn normal(target: &str) -> Normalized {
        normalize(target, true, false, EscapedSlashes::KeepUnchanged)
    }

    #[test]
    fn resolves_dots_and_needless_escapes_but_not_the_query() {
        for (from, to) in [
            ("/a/../b?x=/../y", "/b?x=/../y"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../etc", "/etc"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a\\b", "/a/b"),
            ("/%61%2Fb", "/a%2Fb"),
        ] {
            assert_eq!(normal(from), Normalized::Changed(to.to_owned()), "{from}");
        }
        for same in [
            "/",
            "/a//b",
            "/a%20b",
            "/a?b#",
            "/.a/..b/c.",
            "/a%",
            "/a%2",
            "/a%zz",
            "/%+1",
        ] {
            assert_eq!(normal(same), Normalized::Unchanged, "{same}");
        }
        assert_eq!(normal("/a%00b"), Normalized::Rejected);
    }

    #[test]
    fn slashes_are_merged_and_unescaped_as_told() {
        let merged = normalize("/a//b///c?q=//", false, true, EscapedSlashes::KeepUnchanged);
        assert_eq!(merged, Normalized::Changed("/a/b/c?q=//".into()));
        let act = |action| normalize("/a%2Fb%5cc", false, false, action);
        assert_eq!(act(EscapedSlashes::KeepUnchanged), Normalized::Unchanged);
        assert_eq!(act(EscapedSlashes::RejectRequest), Normalized::Rejected);
        assert_eq!(
            act(EscapedSlashes::UnescapeAndForward),
            Normalized::Changed("/a/b\\c".into())
        );
        assert_eq!(
            act(EscapedSlashes::UnescapeAndRedirect),
            Normalized::Redirect("/a/b\\c".into())
        );
    }

    #[test]
    fn a_redirect_never_leads_to_another_host() {
        for target in [
            "/%2Fevil.com",
            "/%2f%2f/evil.com",
            "/%5Cevil.com",
            "/%5c%2F\\evil.com",
            "//%2Fevil.com",
        ] {
            let action = EscapedSlashes::UnescapeAndRedirect;
            let to = Normalized::Redirect("/evil.com".into());
            assert_eq!(normalize(target, false, false, action), to, "{target}");
        }
    }

    proptest! {
        #[test]
        fn normal_forms_stay_and_never_climb(path in "/[a.%2eE/\\\\f5cC]{0,24}") {
            if let Normalized::Changed(once) = normal(&path) {
                prop_assert_ne!(normal(&once), Normalized::Rejected);
                prop_assert!(!once.split('/').any(|s| s == ".." || s == "."));
                prop_assert!(once.starts_with('/'));
            }
        }

        #[test]
        fn redirects_stay_on_their_host(path in "/(%2[fF]|%5[cC]|[/\\\\a.]){0,8}", normal: bool, merge: bool) {
            let action = EscapedSlashes::UnescapeAndRedirect;
            if let Normalized::Redirect(to) = normalize(&path, normal, merge, action) {
                prop_assert!(to.starts_with('/'));
                prop_assert!(!to[1..].starts_with(['/', '\\']), "{}", to);
            }
        }
    }
}
