use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, header,
    uri::{Authority, PathAndQuery},
};

use crate::{InvalidRewrite, PathMatch, RegexRewrite, RouteMatch, inline, mutation};

const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// How a path changes; the query stays.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PathRewrite {
    /// What the route's prefix matched becomes this; where the route matches a whole path or a pattern,
    /// all of the path does. `/foo` to `/` makes `//bar` of `/foo/bar`, as in Envoy.
    /// Envoy: `prefix_rewrite`.
    Prefix(Box<str>),
    /// Each match of a pattern is replaced. Envoy: `regex_rewrite`.
    Regex(RegexRewrite),
}

impl PathRewrite {
    /// The new path and query, or `None` when nothing changes because nothing would be left.
    pub(crate) fn apply(&self, matched: &RouteMatch, path_and_query: &str) -> Option<Vec<u8>> {
        let (path, rest) = split_path(path_and_query);
        match self {
            Self::Prefix(prefix) => {
                let kept = &path_and_query[matched.matched_length(path)..];
                Some([prefix.as_bytes(), kept.as_bytes()].concat())
            }
            Self::Regex(rewrite) => {
                let mut new = rewrite.rewrite(path.as_bytes());
                if new.is_empty() {
                    return None;
                }
                new.extend_from_slice(rest.as_bytes());
                Some(new)
            }
        }
    }
}

impl RouteMatch {
    /// How much of `path`, which matches, a prefix rewrite replaces.
    fn matched_length(&self, path: &str) -> usize {
        match &self.path {
            // It matched, so that it is this long, also when case was ignored.
            PathMatch::Prefix(prefix) => prefix.len(),
            PathMatch::PathSeparatedPrefix(prefix) => prefix.as_str().len(),
            PathMatch::Path(_) | PathMatch::SafeRegex(_) | PathMatch::Connect => path.len(),
        }
        .min(path.len())
    }
}

/// How the host changes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HostRewrite {
    /// To this. Envoy: `host_rewrite_literal`.
    Literal(HeaderValue),
    /// To the name that the endpoint was resolved from, once that is picked. Envoy: `auto_host_rewrite`.
    Auto,
    /// To the value of a request header, if it has one. Envoy: `host_rewrite_header`.
    Header(HeaderName),
    /// To what a pattern makes of the path. Envoy: `host_rewrite_path_regex`.
    PathRegex(RegexRewrite),
}

impl HostRewrite {
    /// The new host, if it is known now and there is one.
    pub(crate) fn apply(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, InvalidRewrite> {
        let new = match self {
            Self::Literal(host) => return Ok(Some(host.clone())),
            Self::Auto => return Ok(None),
            Self::Header(name) => match headers.get(name) {
                Some(host) if !host.is_empty() => host.as_bytes().to_vec(),
                _ => return Ok(None),
            },
            Self::PathRegex(rewrite) => rewrite.rewrite(path.as_bytes()),
        };
        // It comes from the client: only what is a host may become one.
        let text = String::from_utf8_lossy(&new).into_owned();
        match Authority::try_from(text.as_str()) {
            Ok(host) if !text.contains('@') => HeaderValue::from_str(host.as_str())
                .map(Some)
                .map_err(|_| InvalidRewrite::Host(text)),
            _ => Err(InvalidRewrite::Host(text)),
        }
    }
}

/// Gives a request another `Host`, and keeps the old one in `x-envoy-original-host` (if `keep_original`)
/// and at the end of `x-forwarded-host` (if `append_forwarded`, and it is not there already).
///
/// For rewrites that are only known when an endpoint was picked; the others happen in
/// [`RouteEntry::rewrite`](crate::RouteEntry::rewrite).
pub fn rewrite_host(
    headers: &mut HeaderMap,
    host: HeaderValue,
    append_forwarded: bool,
    keep_original: bool,
) {
    if let Some(old) = headers.get(header::HOST).cloned() {
        if append_forwarded && !old.is_empty() && last_forwarded(headers) != Some(old.as_bytes()) {
            mutation::append(headers, &FORWARDED_HOST, old.clone(), inline::is_inline);
        }
        if keep_original {
            headers.insert(ORIGINAL_HOST, old);
        }
    }
    headers.insert(header::HOST, host);
}

fn last_forwarded(headers: &HeaderMap) -> Option<&[u8]> {
    let last = headers.get_all(FORWARDED_HOST).iter().next_back()?;
    last.as_bytes()
        .rsplit(|&byte| byte == b',')
        .find(|part| !part.is_empty())
}

/// `uri` with another path and query.
pub(crate) fn rewrite_path(uri: &Uri, new: Vec<u8>) -> Result<Uri, InvalidRewrite> {
    let refused = |new: &[u8]| InvalidRewrite::Path(String::from_utf8_lossy(new).into_owned());
    // A fragment never goes on the wire: the library would cut it off without a word.
    if new.first() != Some(&b'/') || new.contains(&b'#') {
        return Err(refused(&new));
    }
    let path = PathAndQuery::try_from(new.as_slice()).map_err(|_| refused(&new))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).map_err(|_| refused(&new))
}

/// The path, and what follows it: query and fragment.
pub(crate) fn split_path(path_and_query: &str) -> (&str, &str) {
    let end = memchr::memchr2(b'?', b'#', path_and_query.as_bytes());
    path_and_query.split_at(end.unwrap_or(path_and_query.len()))
}
