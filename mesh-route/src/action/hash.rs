use std::{fmt::Write, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, header};
use mesh_core::{
    format::{RequestField, RequestView},
    matcher::RegexRewrite,
};
use smallvec::SmallVec;
use xxhash_rust::xxh64::xxh64;

use crate::{RouteConfigError, inline, matcher};

/// What a request's hash is made of, for balancers that keep requests and endpoints together: ring hash and
/// Maglev.
///
/// # Envoy
/// `route.v3.RouteAction.hash_policy`.
pub type HashPolicies = Arc<[HashPolicy]>;

/// One part of a request's hash.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// Where it comes from.
    pub source: HashSource,
    /// Whether the policies behind it count only while there is no hash yet. Envoy: `terminal`, off.
    pub terminal: bool,
}

/// Where a part of a hash comes from. A request that lacks it goes without that part.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum HashSource {
    /// A request header, which may be a pseudo header; the order of several values does not matter. Envoy: `header`.
    Header {
        /// Which.
        field: RequestField,
        /// What each value is changed to before. `regex_rewrite`, nothing.
        rewrite: Option<RegexRewrite>,
    },
    /// A cookie. Envoy: `cookie`.
    Cookie(SessionCookie),
    /// The client's address, after `x-forwarded-for` was read. Envoy: `connection_properties.source_ip`.
    SourceIp,
    /// The first value of a query parameter, as it was sent. Envoy: `query_parameter`.
    QueryParameter(Box<str>),
}

/// What hashes are made of.
#[derive(Debug, Clone, Copy)]
pub struct HashInput<'a> {
    /// The request.
    pub request: RequestView<'a>,
    /// The client.
    pub client: Option<IpAddr>,
}

/// The hash of a request; `None` when no policy applies. `make` makes up the value of a cookie that the client
/// should have had and has not; without one, such a policy does not apply.
///
/// Parts do not cancel each other out: the hash so far is turned by one bit before the next is added.
#[must_use]
pub fn hash_of(
    policies: &[HashPolicy],
    input: &HashInput<'_>,
    mut make: impl FnMut(&SessionCookie) -> Option<u64>,
) -> Option<u64> {
    let mut hash: Option<u64> = None;
    for policy in policies {
        let part = match &policy.source {
            HashSource::Header { field, rewrite } => {
                of_header(&input.request, field, rewrite.as_ref())
            }
            HashSource::Cookie(cookie) => match cookie.of(input.request.headers) {
                Some(value) => Some(xxh64(value, 0)),
                None if cookie.ttl.is_some() => make(cookie),
                None => None,
            },
            HashSource::SourceIp => input.client.map(of_ip),
            HashSource::QueryParameter(name) => {
                let (_, query) = input.request.path.split_once('?').unwrap_or_default();
                matcher::first_value(query, name).map(|value| xxh64(value.as_bytes(), 0))
            }
        };
        if let Some(part) = part {
            hash = Some(hash.unwrap_or_default().rotate_left(1) ^ part);
        }
        if policy.terminal && hash.is_some() {
            break;
        }
    }
    hash
}

/// The hash of a client's address.
#[must_use]
pub fn of_ip(ip: IpAddr) -> u64 {
    xxh64(Text::of(ip).as_bytes(), 0)
}

/// Short text on the stack.
struct Text(SmallVec<[u8; 64]>);

impl Text {
    fn of(ip: IpAddr) -> Self {
        let mut text = Self(SmallVec::new());
        // Writing here cannot fail.
        let _ = write!(text, "{ip}");
        text
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn of_header(
    request: &RequestView<'_>,
    field: &RequestField,
    rewrite: Option<&RegexRewrite>,
) -> Option<u64> {
    let RequestField::Header(name) = field else {
        return Some(of_values([field.read(request)?].into_iter(), rewrite));
    };
    let values = || {
        let values = request.headers.get_all(name).iter();
        values.map(HeaderValue::as_bytes)
    };
    values().next()?;
    // What Envoy keeps as one entry is one value.
    if inline::is_inline(name) && values().nth(1).is_some() {
        let joined = inline::join(values());
        return Some(of_values([&joined[..]].into_iter(), rewrite));
    }
    Some(of_values(values(), rewrite))
}

/// Each value's hash is the seed of the next.
fn of_values<'a>(values: impl Iterator<Item = &'a [u8]>, rewrite: Option<&RegexRewrite>) -> u64 {
    if let Some(rewrite) = rewrite {
        let mut values: Vec<Vec<u8>> = values.map(|value| rewrite.rewrite(value)).collect();
        values.sort_unstable();
        return values.iter().fold(0, |seed, value| xxh64(value, seed));
    }
    let mut values: SmallVec<[&[u8]; 4]> = values.collect();
    values.sort_unstable();
    values.iter().fold(0, |seed, value| xxh64(value, seed))
}

/// A cookie that keeps a client with its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie {
    name: Box<str>,
    /// A client without the cookie gets one, for so long; zero is for its session. Whole seconds. Without it, such a client has
    /// no hash. Envoy: `ttl`.
    ttl: Option<Duration>,
    /// What stands behind the value in `set-cookie`.
    rest: Box<str>,
}

impl SessionCookie {
    /// The cookie `name`, which is made up if there is a `ttl`, for `path` (if not empty) and with `attributes`.
    ///
    /// # Errors
    /// When it cannot be sent as a header.
    pub fn new<'a>(
        name: &str,
        ttl: Option<Duration>,
        path: &str,
        attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, RouteConfigError> {
        let mut rest = String::new();
        let mut add = |name: &str, value: &str| {
            let is = if value.is_empty() { "" } else { "=" };
            rest.extend(["; ", name, is, value]);
        };
        if let Some(seconds) = ttl.map(|ttl| ttl.as_secs()).filter(|seconds| *seconds > 0) {
            add("Max-Age", &seconds.to_string());
        }
        if !path.is_empty() {
            add("Path", path);
        }
        for (name, value) in attributes {
            add(name, value);
        }
        add("HttpOnly", "");
        let cookie = Self {
            name: name.into(),
            ttl,
            rest: rest.into(),
        };
        if name.is_empty() || cookie.set_to(0).is_none() {
            return Err(RouteConfigError::new(format!(
                "the cookie {name:?} could not be sent as a header"
            )));
        }
        Ok(cookie)
    }

    /// Its value in a request, without quotes; one that is empty is none.
    fn of<'a>(&self, headers: &'a HeaderMap) -> Option<&'a [u8]> {
        let pairs = headers.get_all(header::COOKIE).iter();
        let pairs = pairs.flat_map(|value| value.as_bytes().split(|byte| *byte == b';'));
        let value = pairs.filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..at], &pair[at + 1..]);
            let start = name.iter().position(|byte| *byte != b' ')?;
            (&name[start..] == self.name.as_bytes()).then_some(value)
        });
        let value = value.into_iter().next()?;
        let quoted = value
            .strip_prefix(b"\"")
            .and_then(|v| v.strip_suffix(b"\""));
        Some(quoted.unwrap_or(value)).filter(|value| !value.is_empty())
    }

    /// The value that a client gets who comes over this connection: the same for all of its requests, so that
    /// those that race agree.
    #[must_use]
    pub fn made_for(client: &str, local: &str) -> u64 {
        xxh64(&[client.as_bytes(), local.as_bytes()].concat(), 0)
    }

    /// The hash of a request that has been given `value`.
    #[must_use]
    pub fn hash(value: u64) -> u64 {
        let mut text = Text(SmallVec::new());
        let _ = write!(text, "{value:016x}");
        xxh64(text.as_bytes(), 0)
    }

    /// What the answer says in `set-cookie`.
    #[must_use]
    pub fn set_to(&self, value: u64) -> Option<HeaderValue> {
        let text = format!("{}=\"{value:016x}\"{}", self.name, self.rest);
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use mesh_core::{
        format::{RequestField, RequestView},
        matcher::RegexRewrite,
    };
    use xxhash_rust::xxh64::xxh64;

    use super::{HashInput, HashPolicy, HashSource, SessionCookie, hash_of};

    fn header(name: &str) -> HashSource {
        let field = RequestField::from_name(name).unwrap();
        HashSource::Header {
            field,
            rewrite: None,
        }
    }

    fn cookie(ttl: Option<Duration>) -> HashSource {
        HashSource::Cookie(SessionCookie::new("c", ttl, "/p", [("SameSite", "Lax")]).unwrap())
    }

    fn hash(sources: &[(HashSource, bool)], uri: &str, lines: &[(&str, &str)]) -> Option<u64> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        let policy = |(source, terminal): &(HashSource, bool)| HashPolicy {
            source: source.clone(),
            terminal: *terminal,
        };
        let policies: Vec<HashPolicy> = sources.iter().map(policy).collect();
        let input = HashInput {
            request: RequestView::of(&request),
            client: Some([10, 0, 0, 1].into()),
        };
        hash_of(&policies, &input, |_| Some(7))
    }

    fn text(text: &str) -> u64 {
        xxh64(text.as_bytes(), 0)
    }

    #[test]
    fn each_source_is_hashed_as_text() {
        let one = |source: HashSource, uri: &str, lines: &[(&str, &str)]| {
            hash(&[(source, false)], uri, lines)
        };
        let query = HashSource::QueryParameter("q".into());
        for (source, uri, lines, wanted) in [
            (header("x-a"), "/", &[("x-a", "1")][..], Some(text("1"))),
            (header(":path"), "/p?q", &[], Some(text("/p?q"))),
            (header("x-a"), "/", &[("x-b", "1")], None),
            (HashSource::SourceIp, "/", &[], Some(text("10.0.0.1"))),
            (query.clone(), "/?Q=2&q=3&q=4", &[], Some(text("3"))),
            (query.clone(), "/?q", &[], Some(text(""))),
            (query, "/q=3", &[], None),
            (
                cookie(None),
                "/",
                &[("cookie", "a=1;  c=2; c=3")],
                Some(text("2")),
            ),
            (cookie(None), "/", &[("cookie", "c=\"2\"")], Some(text("2"))),
            (cookie(None), "/", &[("cookie", "c=")], None),
            (
                cookie(Some(Duration::ZERO)),
                "/",
                &[("cookie", "cc=1")],
                Some(7),
            ),
        ] {
            assert_eq!(
                one(source.clone(), uri, lines),
                wanted,
                "{source:?} {uri} {lines:?}"
            );
        }
    }

    #[test]
    fn the_order_of_values_does_not_matter_and_that_of_policies_does() {
        let two = |lines: &[(&str, &str)]| hash(&[(header("x-a"), false)], "/", lines);
        let chained = xxh64(b"2", text("1"));
        assert_eq!(two(&[("x-a", "2"), ("x-a", "1")]), Some(chained));
        assert_eq!(two(&[("x-a", "1"), ("x-a", "2")]), Some(chained));
        // One entry with commas, as far as Envoy is concerned.
        let joined = hash(
            &[(header("via"), false)],
            "/",
            &[("via", "2"), ("via", "1")],
        );
        assert_eq!(joined, Some(text("2,1")));

        let lines = [("x-a", "1"), ("x-b", "2")];
        let both = |terminal| {
            hash(
                &[(header("x-a"), terminal), (header("x-b"), false)],
                "/",
                &lines,
            )
        };
        assert_eq!(both(false), Some(text("1").rotate_left(1) ^ text("2")));
        assert_eq!(both(true), Some(text("1")));
        let missing = [(header("x-c"), true), (header("x-b"), false)];
        assert_eq!(hash(&missing, "/", &lines), Some(text("2")));
        // The same part twice does not cancel out.
        let twice = [(header("x-a"), false), (header("x-a"), false)];
        assert_ne!(hash(&twice, "/", &lines), Some(0));
    }

    #[test]
    fn a_value_may_be_rewritten_before() {
        let source = HashSource::Header {
            field: RequestField::from_name("x-a").unwrap(),
            rewrite: Some(RegexRewrite::new("^user-(.*)$", r"\1").unwrap()),
        };
        let hash = hash(&[(source, false)], "/", &[("x-a", "user-7")]);
        assert_eq!(hash, Some(text("7")));
    }

    #[test]
    fn a_cookie_is_set_as_envoy_sets_it() {
        let set = |ttl, path, attributes: &[(&str, &str)]| {
            let cookie = SessionCookie::new("c", ttl, path, attributes.iter().copied()).unwrap();
            cookie.set_to(0xab).unwrap().to_str().unwrap().to_owned()
        };
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(
            set(hour, "/p", &[("SameSite", "Lax"), ("Secure", "")]),
            "c=\"00000000000000ab\"; Max-Age=3600; Path=/p; SameSite=Lax; Secure; HttpOnly"
        );
        assert_eq!(
            set(Some(Duration::ZERO), "", &[]),
            "c=\"00000000000000ab\"; HttpOnly"
        );
        assert!(SessionCookie::new("c\n", hour, "", []).is_err());
        assert!(SessionCookie::new("", hour, "", []).is_err());
        assert_eq!(SessionCookie::hash(0xab), text("00000000000000ab"));
        assert_eq!(SessionCookie::made_for("a", "b"), text("ab"));
    }
}
