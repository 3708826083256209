//! Every case was seen on Envoy 1.40.

use http::StatusCode;
use mesh_core::format::RequestView;
use mesh_route::{
    DirectResponse, PathMatch, PathRedirect, PathRewrite, PathSeparatedPrefix, RedirectAction,
    RegexRewrite, Route, RouteMatch, SafeRegex, SchemeRedirect,
};

use crate::support::{found, request, table};

fn location(
    matches: RouteMatch,
    redirect: RedirectAction,
    uri: &str,
    headers: &[(&str, &str)],
) -> String {
    let table = table(vec![Route::new(matches, redirect, ())]);
    let parts = request(uri, headers);
    let reply = found(&table, &parts)
        .local_reply(&RequestView::of_parts(&parts))
        .unwrap();
    assert_eq!(
        (reply.status, reply.body.len(), reply.details.as_ref()),
        (StatusCode::MOVED_PERMANENTLY, 0, "direct_response")
    );
    reply.headers["location"].to_str().unwrap().to_owned()
}

fn default() -> RedirectAction {
    RedirectAction::default()
}

fn https() -> RedirectAction {
    default().scheme(SchemeRedirect::Https).unwrap()
}

fn scheme(scheme: &str) -> RedirectAction {
    default().scheme(SchemeRedirect::To(scheme.into())).unwrap()
}

fn path(path: &str) -> RedirectAction {
    default().path(PathRedirect::To(path.into())).unwrap()
}

fn prefix(prefix: &str) -> RedirectAction {
    let rewrite = PathRewrite::Prefix(prefix.into());
    default().path(PathRedirect::Rewrite(rewrite)).unwrap()
}

#[test]
fn scheme_host_and_port_follow_envoys_rules() {
    let tls = ("x-forwarded-proto", "https");
    for (redirect, uri, headers, expected) in [
        (https(), "/a?b", vec![("host", "h")], "https://h/a?b"),
        (https(), "/a", vec![("host", "h:80")], "https://h/a"),
        (https(), "/a", vec![("host", "h:8080")], "https://h:8080/a"),
        (https(), "/a", vec![("host", "h"), tls], "https://h/a"),
        (https(), "/a", vec![("host", "[::1]:80")], "https://[::1]/a"),
        (https(), "/a", vec![("host", "[::1]")], "https://[::1]/a"),
        (
            scheme("http"),
            "/a",
            vec![("host", "h:443"), tls],
            "http://h/a",
        ),
        (
            https(),
            "/a",
            vec![("host", "h:443"), tls],
            "https://h:443/a",
        ),
        (
            default().port(99).unwrap(),
            "/a",
            vec![("host", "::1")],
            "http://::1:99/a",
        ),
        (scheme("ftp"), "/a", vec![("host", "h:80")], "ftp://h/a"),
        (
            default().host("new.com").unwrap(),
            "/a?b",
            vec![("host", "h:80")],
            "http://new.com/a?b",
        ),
        (
            default().host("nn").unwrap(),
            "/a",
            vec![("host", "h:80"), tls],
            "https://nn/a",
        ),
        (
            default().port(99).unwrap(),
            "/a",
            vec![("host", "h:80")],
            "http://h:99/a",
        ),
        (
            default().port(99).unwrap().host("n:1").unwrap(),
            "/a",
            vec![("host", "h")],
            "http://n:1:99/a",
        ),
    ] {
        let shown = format!("{redirect:?}");
        assert_eq!(
            location(RouteMatch::prefix("/"), redirect, uri, &headers),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn paths_and_queries_follow_envoys_rules() {
    let any = || RouteMatch::prefix("/");
    let regex = RegexRewrite::new("^/([a-z]+)", r"/n/\1").unwrap();
    let regex = default()
        .path(PathRedirect::Rewrite(PathRewrite::Regex(regex)))
        .unwrap();
    let separated = PathMatch::PathSeparatedPrefix(PathSeparatedPrefix::new("/a").unwrap());
    let pattern = PathMatch::SafeRegex(SafeRegex::new("/a.*").unwrap());
    for (matches, redirect, uri, expected) in [
        (any(), path("/n"), "/a?b", "/n?b"),
        (any(), path("/n?q"), "/a?b", "/n?q"),
        (any(), path("/n?q").strip_query(true), "/a?b", "/n?q"),
        (any(), path("/n").strip_query(true), "/a?b", "/n"),
        (any(), path("n"), "/a", "/n"),
        (any(), path(""), "/a", "/a"),
        (any(), path("/n#f"), "/a?b", "/n#f?b"),
        (any(), default().strip_query(true), "/a?b", "/a"),
        (RouteMatch::prefix("/a"), prefix("/n"), "/abc?b", "/nbc?b"),
        (RouteMatch::path("/a"), prefix("/n"), "/a?b", "/n?b"),
        (any(), prefix("/n"), "/abc?b", "/nabc?b"),
        (
            RouteMatch::prefix("/a"),
            prefix("/n").strip_query(true),
            "/abc?b",
            "/nbc",
        ),
        (any(), regex, "/abc?b", "/n/abc?b"),
        (RouteMatch::new(pattern), prefix("/n"), "/abc?b", "/n?b"),
        (RouteMatch::new(separated), prefix("/n"), "/a/c?b", "/n/c?b"),
    ] {
        let shown = format!("{matches:?} {redirect:?}");
        let expected = format!("http://h{expected}");
        assert_eq!(
            location(matches, redirect, uri, &[("host", "h")]),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn only_redirecting_codes_and_printable_texts_are_taken() {
    let code = |code| default().response_code(StatusCode::from_u16(code).unwrap());
    assert!(
        [301, 302, 303, 307, 308]
            .into_iter()
            .all(|number| code(number).is_ok())
    );
    assert!(code(300).is_err() && code(200).is_err());
    assert!(default().host("a\nb").is_err());
    assert!(default().path(PathRedirect::To("/\u{0}".into())).is_err());
    assert!(default().scheme(SchemeRedirect::To("a\r".into())).is_err());
    assert!(default().port(65_536).is_err());
}

#[test]
fn a_direct_response_that_created_something_says_where() {
    let direct = DirectResponse::new(201, "", 0).unwrap();
    let table = table(vec![Route::new(RouteMatch::prefix("/"), direct, ())]);
    let parts = request("/p?q", &[("host", "a:80")]);
    let reply = found(&table, &parts)
        .local_reply(&RequestView::of_parts(&parts))
        .unwrap();
    assert_eq!(reply.headers["location"], "http://a:80/p?q");
    assert!(!reply.headers.contains_key("content-type"));
}
