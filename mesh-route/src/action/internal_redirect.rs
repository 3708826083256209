use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderName, Method, StatusCode, Uri, header, request, response};

/// Follows redirects of an upstream in place of the client: the request starts again with the target that the
/// answer names, and finds its route anew.
///
/// What happened to a request before is in its [`RedirectHistory`].
///
/// # Envoy
/// `route.v3.InternalRedirectPolicy`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InternalRedirectPolicy {
    /// How many redirects of one request are followed, those of other routes counted in; 1 by default.
    pub max_internal_redirects: u32,
    /// The statuses that are followed, of 301, 302, 303, 307 and 308; 302 by default.
    pub redirect_response_codes: Vec<StatusCode>,
    /// Each may refuse the target.
    pub predicates: Vec<RedirectPredicate>,
    /// Whether the target may have another scheme than the request; off by default.
    pub allow_cross_scheme_redirect: bool,
    /// These headers of the answer replace those of the request; one that the answer lacks is removed.
    pub response_headers_to_copy: Vec<HeaderName>,
}

/// Which targets are accepted.
///
/// # Envoy
/// `envoy.internal_redirect_predicates`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedirectPredicate {
    /// Only routes of these names. Envoy: `allow_listed_routes`.
    AllowListedRoutes(BTreeSet<Arc<str>>),
    /// A route never sends a request twice to the same route. Envoy: `previous_routes`.
    PreviousRoutes,
    /// Never from `http` to `https`. Envoy: `safe_cross_scheme`.
    SafeCrossScheme,
}

/// Why a redirect is passed on to the client. Envoy: the stats `passthrough_internal_redirect_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectRefusal {
    /// The answer names no target, or none that is an absolute URL.
    BadLocation,
    /// The target has another scheme, or neither http nor https.
    UnsafeScheme,
    /// `max_internal_redirects` were followed already.
    TooMany,
    /// No route matches the target.
    NoRoute,
    /// A predicate refused it.
    Predicate,
}

/// The redirects that one request has been through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RedirectHistory {
    followed: u32,
    /// From route to route; bounded by the redirects that are followed.
    taken: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Default for InternalRedirectPolicy {
    fn default() -> Self {
        Self {
            max_internal_redirects: 1,
            redirect_response_codes: vec![StatusCode::FOUND],
            predicates: Vec::new(),
            allow_cross_scheme_redirect: false,
            response_headers_to_copy: Vec::new(),
        }
    }
}

/// A redirect that may be followed, if its target finds a route.
#[derive(Debug)]
pub struct RedirectTarget {
    /// The head to start again with.
    pub parts: request::Parts,
    /// Whether the body is left out: after a 303, which makes a GET of anything but a HEAD.
    pub drops_body: bool,
    was_https: bool,
    is_https: bool,
}

impl InternalRedirectPolicy {
    /// Whether an answer of that status is looked at.
    #[must_use]
    pub fn concerns(&self, status: StatusCode) -> bool {
        self.redirect_response_codes.contains(&status)
    }

    /// Makes the head of the next request from the last one's and the answer to it. `scheme` is the last
    /// one's.
    ///
    /// # Errors
    /// When the answer has no target that can be followed.
    pub fn target(
        &self,
        last: &request::Parts,
        scheme: &str,
        answer: &response::Parts,
        history: &RedirectHistory,
    ) -> Result<RedirectTarget, RedirectRefusal> {
        let location = answer.headers.get(header::LOCATION);
        let location = location.and_then(|location| location.to_str().ok());
        let target = absolute(location.unwrap_or_default())?;
        let (was_https, is_https) = (scheme == "https", target.https);
        if was_https != is_https && !self.allow_cross_scheme_redirect {
            return Err(RedirectRefusal::UnsafeScheme);
        }
        if history.followed >= self.max_internal_redirects {
            return Err(RedirectRefusal::TooMany);
        }
        let original = original_url(last, scheme);
        let mut parts = last.clone();
        self.copy_headers(&mut parts, answer);
        parts.uri = target.path;
        parts.headers.insert(header::HOST, target.host);
        let drops_body = answer.status == StatusCode::SEE_OTHER
            && !matches!(parts.method, Method::GET | Method::HEAD);
        if drops_body {
            parts.method = Method::GET;
            parts.headers.remove(header::CONTENT_LENGTH);
            parts.headers.remove(header::TRANSFER_ENCODING);
        }
        if let Ok(original) = original.parse() {
            parts.headers.insert(ORIGINAL_URL, original);
        }
        Ok(RedirectTarget {
            parts,
            drops_body,
            was_https,
            is_https,
        })
    }

    /// Whether a request of the route `from` may go on to the route `to`, both by name; then the history says
    /// that it did.
    ///
    /// # Errors
    /// When a predicate refuses.
    pub fn accept(
        &self,
        target: &RedirectTarget,
        from: &Arc<str>,
        to: &Arc<str>,
        history: &RedirectHistory,
    ) -> Result<RedirectHistory, RedirectRefusal> {
        let mut next = history.clone();
        let fresh = next.taken.insert((Arc::clone(from), Arc::clone(to)));
        let accepts = |predicate: &RedirectPredicate| match predicate {
            RedirectPredicate::AllowListedRoutes(names) => names.contains(to),
            RedirectPredicate::PreviousRoutes => fresh,
            RedirectPredicate::SafeCrossScheme => target.was_https || !target.is_https,
        };
        if !self.predicates.iter().all(accepts) {
            return Err(RedirectRefusal::Predicate);
        }
        next.followed += 1;
        Ok(next)
    }

    fn copy_headers(&self, parts: &mut request::Parts, answer: &response::Parts) {
        for name in &self.response_headers_to_copy {
            parts.headers.remove(name);
            for value in answer.headers.get_all(name) {
                parts.headers.append(name, value.clone());
            }
        }
    }
}

const ORIGINAL_URL: HeaderName = HeaderName::from_static("x-envoy-original-url");

fn original_url(last: &request::Parts, scheme: &str) -> String {
    let host = last.headers.get(header::HOST);
    let host = host.and_then(|host| host.to_str().ok()).unwrap_or_default();
    let path = last.uri.path_and_query().map_or("/", |path| path.as_str());
    format!("{scheme}://{host}{path}")
}

struct Absolute {
    https: bool,
    host: header::HeaderValue,
    path: Uri,
}

/// An absolute URL of http or https, without user information; a fragment is cut off.
fn absolute(location: &str) -> Result<Absolute, RedirectRefusal> {
    let bad = RedirectRefusal::BadLocation;
    let location = location.split('#').next().unwrap_or_default();
    let uri: Uri = location.parse().map_err(|_| bad)?;
    let host = uri.authority().ok_or(bad)?.as_str();
    if host.contains('@') || host.starts_with(':') {
        return Err(bad);
    }
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) => return Err(RedirectRefusal::UnsafeScheme),
        None => return Err(bad),
    };
    let host = host.parse().map_err(|_| bad)?;
    let path = match uri.path_and_query() {
        Some(path) => Uri::from(path.clone()),
        None => Uri::from_static("/"),
    };
    Ok(Absolute { https, host, path })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use http::{HeaderName, Request, Response, StatusCode, request, response};

    use super::{InternalRedirectPolicy, RedirectHistory, RedirectPredicate, RedirectRefusal};

    fn last() -> request::Parts {
        let request = Request::post("/old?q")
            .header("host", "a.test")
            .header("x-copy", "mine");
        request
            .header("content-length", "3")
            .body(())
            .unwrap()
            .into_parts()
            .0
    }

    fn answer(status: u16, location: &str) -> response::Parts {
        let answer = Response::builder()
            .status(status)
            .header("location", location);
        answer.body(()).unwrap().into_parts().0
    }

    fn none() -> RedirectHistory {
        RedirectHistory::default()
    }

    #[test]
    fn the_next_request_is_the_last_with_another_target() {
        let policy = InternalRedirectPolicy::default();
        let target = policy.target(
            &last(),
            "http",
            &answer(302, "http://b.test:81/new?x#y"),
            &none(),
        );
        let target = target.unwrap();
        assert_eq!(
            (target.parts.method.as_str(), target.drops_body),
            ("POST", false)
        );
        assert_eq!(target.parts.uri, "/new?x");
        assert_eq!(target.parts.headers["host"], "b.test:81");
        assert_eq!(
            target.parts.headers["x-envoy-original-url"],
            "http://a.test/old?q"
        );
    }

    #[test]
    fn see_other_makes_a_get_without_a_body() {
        let policy = InternalRedirectPolicy::default();
        let target = policy
            .target(&last(), "http", &answer(303, "http://b.test"), &none())
            .unwrap();
        assert!(target.drops_body);
        assert_eq!(
            (target.parts.method.as_str(), target.parts.uri.path()),
            ("GET", "/")
        );
        assert!(!target.parts.headers.contains_key("content-length"));
    }

    #[test]
    fn targets_that_cannot_be_followed_are_named() {
        let policy = InternalRedirectPolicy::default();
        let refused = |location| {
            policy
                .target(&last(), "http", &answer(302, location), &none())
                .unwrap_err()
        };
        for bad in [
            "",
            "/relative",
            "http://u@a.test/",
            "//a.test/x",
            "http://:80/",
        ] {
            assert_eq!(refused(bad), RedirectRefusal::BadLocation, "{bad}");
        }
        for other in ["https://b.test/", "ftp://b.test/"] {
            assert_eq!(refused(other), RedirectRefusal::UnsafeScheme, "{other}");
        }
    }

    #[test]
    fn redirects_are_counted_from_route_to_route() {
        let policy = InternalRedirectPolicy {
            max_internal_redirects: 2,
            ..Default::default()
        };
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let there = answer(302, "http://b.test/");
        let mut history = none();
        for _ in 0..2 {
            let target = policy.target(&last(), "http", &there, &history).unwrap();
            history = policy.accept(&target, &a, &b, &history).unwrap();
        }
        let more = policy.target(&last(), "http", &there, &history);
        assert_eq!(more.unwrap_err(), RedirectRefusal::TooMany);
    }

    #[test]
    fn predicates_look_at_the_route_and_at_the_way_there() {
        let accept = |predicate, scheme: &str, location, history: &RedirectHistory| {
            let policy = InternalRedirectPolicy {
                predicates: vec![predicate],
                allow_cross_scheme_redirect: true,
                max_internal_redirects: 9,
                ..Default::default()
            };
            let target = policy
                .target(&last(), scheme, &answer(302, location), history)
                .unwrap();
            policy.accept(&target, &"a".into(), &"b".into(), history)
        };
        let listed =
            |name: &str| RedirectPredicate::AllowListedRoutes(BTreeSet::from([name.into()]));
        let (http, https) = ("http://b.test/", "https://b.test/");
        assert!(accept(listed("b"), "http", http, &none()).is_ok());
        assert_eq!(
            accept(listed("c"), "http", http, &none()),
            Err(RedirectRefusal::Predicate)
        );
        let once = accept(RedirectPredicate::PreviousRoutes, "http", http, &none()).unwrap();
        let twice = accept(RedirectPredicate::PreviousRoutes, "http", http, &once);
        assert_eq!(twice, Err(RedirectRefusal::Predicate));
        for (from, to, good) in [
            ("http", http, true),
            ("https", http, true),
            ("https", https, true),
            ("http", https, false),
        ] {
            let accepted = accept(RedirectPredicate::SafeCrossScheme, from, to, &none());
            assert_eq!(accepted.is_ok(), good, "{from} to {to}");
        }
    }

    #[test]
    fn headers_of_the_answer_replace_those_of_the_request() {
        let policy = InternalRedirectPolicy {
            response_headers_to_copy: vec![
                HeaderName::from_static("x-copy"),
                HeaderName::from_static("x-new"),
            ],
            ..Default::default()
        };
        let mut with = answer(302, "http://b.test/");
        with.headers.append("x-new", "1".parse().unwrap());
        with.headers.append("x-new", "2".parse().unwrap());
        let target = policy.target(&last(), "http", &with, &none()).unwrap();
        assert!(
            !target.parts.headers.contains_key("x-copy"),
            "the answer has none"
        );
        assert_eq!(target.parts.headers.get_all("x-new").iter().count(), 2);
        assert!(!policy.concerns(StatusCode::MOVED_PERMANENTLY));
    }
}
