//! Every case was seen on Envoy 1.40, but for those that cannot be sent, which Envoy sends.

use http::{HeaderValue, request};
use mesh_route::{
    ClusterSpecifier, HostRewrite, InvalidRewrite, PathMatch, PathRewrite, PathSeparatedPrefix,
    RegexRewrite, Route, RouteAction, RouteMatch, SafeRegex, WeightedCluster, WeightedClusters,
    rewrite_host,
};
use proptest::prelude::*;

use crate::support::{found, request, table};

fn rewritten(
    matches: RouteMatch,
    action: RouteAction,
    mut parts: request::Parts,
) -> Result<request::Parts, InvalidRewrite> {
    let table = table(vec![Route::new(matches, action, ())]);
    let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
    let changed = found(&table, &parts).rewrite(None, &mut parts, false)?;
    let unchanged = (&uri, &headers) == (&parts.uri, &parts.headers);
    assert!(changed || unchanged, "a change must be said: {parts:?}");
    Ok(parts)
}

fn path(rewrite: PathRewrite) -> RouteAction {
    let mut action = RouteAction::to("c");
    action.path_rewrite = Some(rewrite);
    action
}

fn prefix(text: &str) -> RouteAction {
    path(PathRewrite::Prefix(text.into()))
}

fn regex(pattern: &str, by: &str) -> RouteAction {
    path(PathRewrite::Regex(RegexRewrite::new(pattern, by).unwrap()))
}

fn host(rewrite: HostRewrite) -> RouteAction {
    let mut action = RouteAction::to("c");
    action.host_rewrite = Some(rewrite);
    action
}

#[test]
fn a_path_rewrite_replaces_what_matched_and_keeps_the_rest() {
    let any = || RouteMatch::prefix("/");
    let separated = PathMatch::PathSeparatedPrefix(PathSeparatedPrefix::new("/foo").unwrap());
    let pattern = PathMatch::SafeRegex(SafeRegex::new("/f.*").unwrap());
    let mut either_case = RouteMatch::prefix("/FOO");
    either_case.case_sensitive = false;
    for (matches, action, uri, expected) in [
        (
            RouteMatch::prefix("/foo"),
            prefix("/"),
            "/foo/bar?q",
            "//bar?q",
        ),
        (
            RouteMatch::prefix("/foo"),
            prefix("/x"),
            "/foo?q=/foo",
            "/x?q=/foo",
        ),
        (
            RouteMatch::prefix("/foo/"),
            prefix("/x"),
            "/foo/bar",
            "/xbar",
        ),
        (RouteMatch::path("/foo"), prefix("/x"), "/foo?q", "/x?q"),
        (RouteMatch::new(pattern), prefix("/x"), "/foo/a?q", "/x?q"),
        (
            RouteMatch::new(separated),
            prefix("/x"),
            "/foo/a?q",
            "/x/a?q",
        ),
        (either_case, prefix("/x"), "/foo/a?q", "/x/a?q"),
        (
            RouteMatch::prefix("/foo"),
            prefix("/x?a=1"),
            "/foo/b?q",
            "/x?a=1/b?q",
        ),
        (any(), regex("o", "0"), "/foo?o", "/f00?o"),
        (any(), regex("zzz", "0"), "/foo?o", "/foo?o"),
    ] {
        let shown = format!("{matches:?} {:?}", action.path_rewrite);
        let parts = rewritten(
            matches,
            action,
            request(uri, &[("x-envoy-original-path", "/zz")]),
        );
        let parts = parts.unwrap();
        assert_eq!(parts.uri, expected, "{shown}");
        assert_eq!(parts.headers["x-envoy-original-path"], uri, "{shown}");
    }
}

#[test]
fn a_path_of_which_nothing_would_be_left_stays() {
    let parts = rewritten(
        RouteMatch::prefix("/"),
        regex("^/.*", ""),
        request("/foo?o", &[]),
    );
    let parts = parts.unwrap();
    assert_eq!(parts.uri, "/foo?o");
    assert!(!parts.headers.contains_key("x-envoy-original-path"));
}

#[test]
fn what_cannot_be_sent_is_refused_and_changes_nothing() {
    for action in [
        prefix("x"),
        prefix("/x#y"),
        regex("^/.*", "x"),
        regex("o", " "),
        regex("o", "\u{1}"),
    ] {
        let table = table(vec![Route::new(RouteMatch::prefix("/foo"), action, ())]);
        let mut parts = request("/foo?q", &[]);
        let error = found(&table, &parts)
            .rewrite(None, &mut parts, false)
            .unwrap_err();
        assert!(matches!(error, InvalidRewrite::Path(_)), "{error}");
        assert_eq!(
            (parts.uri.to_string().as_str(), parts.headers.len()),
            ("/foo?q", 0)
        );
        assert_eq!(mesh_core::Error::from(error).reply().unwrap().status, 500);
    }
}

#[test]
fn a_host_rewrite_keeps_the_old_host_in_a_header() {
    let literal = HostRewrite::Literal(HeaderValue::from_static("new"));
    let from_path = RegexRewrite::new("^/(.+)/.+$", r"\1").unwrap();
    for (rewrite, uri, header, expected) in [
        (literal, "/", "", Some("new")),
        (
            HostRewrite::Literal(HeaderValue::from_static("old:1")),
            "/",
            "",
            Some("old:1"),
        ),
        (
            HostRewrite::Header("x-h".parse().unwrap()),
            "/",
            "new",
            Some("new"),
        ),
        (HostRewrite::Header("x-h".parse().unwrap()), "/", "", None),
        (HostRewrite::PathRegex(from_path), "/ho/x?q", "", Some("ho")),
        (HostRewrite::Auto, "/", "", None),
    ] {
        let shown = format!("{rewrite:?}");
        let mut action = host(rewrite);
        action.append_x_forwarded_host = true;
        let parts = request(
            uri,
            &[
                ("host", "old:1"),
                ("x-h", header),
                ("x-forwarded-host", "a"),
            ],
        );
        let parts = rewritten(RouteMatch::prefix("/"), action, parts).unwrap();
        assert_eq!(
            parts.headers["host"],
            expected.unwrap_or("old:1"),
            "{shown}"
        );
        let original = expected.map(|_| HeaderValue::from_static("old:1"));
        assert_eq!(
            parts.headers.get("x-envoy-original-host"),
            original.as_ref(),
            "{shown}"
        );
        let forwarded = if expected.is_some() { "a,old:1" } else { "a" };
        assert_eq!(parts.headers["x-forwarded-host"], forwarded, "{shown}");
    }
}

#[test]
fn a_client_cannot_make_a_host_that_is_none() {
    for value in ["a b", "a/b", "a?b", "u@h", "a#", "a:b:c"] {
        let action = host(HostRewrite::Header("x-h".parse().unwrap()));
        let parts = request("/", &[("host", "old"), ("x-h", value)]);
        let error = rewritten(RouteMatch::prefix("/"), action, parts).unwrap_err();
        assert_eq!(error, InvalidRewrite::Host(value.to_owned()));
    }
}

#[test]
fn the_route_rewrites_the_host_that_its_weighted_cluster_has_set() {
    let mut cluster = WeightedCluster::new("c", 1);
    cluster.host_rewrite_literal = Some(HeaderValue::from_static("wc"));
    let clusters = WeightedClusters::new(vec![cluster]).unwrap();
    for (rewrite, expected, original) in [
        (None, "wc", None),
        (
            Some(HostRewrite::Literal(HeaderValue::from_static("r"))),
            "r",
            Some("wc"),
        ),
        (Some(HostRewrite::Auto), "wc", None),
    ] {
        let mut action = RouteAction::new(ClusterSpecifier::WeightedClusters(clusters.clone()));
        let automatic = rewrite == Some(HostRewrite::Auto);
        action.host_rewrite = rewrite;
        let cluster = action.cluster.clone();
        let table = table(vec![Route::new(RouteMatch::prefix("/"), action, ())]);
        let mut parts = request("/", &[("host", "old")]);
        let headers = parts.headers.clone();
        let (_, picked) = cluster.pick(&headers, 0).unwrap().weighted.unwrap();
        let route = found(&table, &parts);
        route.rewrite(Some(picked), &mut parts, false).unwrap();
        assert_eq!(parts.headers["host"], expected);
        let original = original.map(HeaderValue::from_static);
        assert_eq!(
            parts.headers.get("x-envoy-original-host"),
            original.as_ref()
        );
        assert_eq!(route.rewrites_host_to_endpoint(), automatic);
    }
}

#[test]
fn envoy_headers_can_be_suppressed() {
    let mut action = prefix("/x");
    action.host_rewrite = Some(HostRewrite::Literal(HeaderValue::from_static("new")));
    let table = table(vec![Route::new(RouteMatch::prefix("/"), action, ())]);
    let mut parts = request("/", &[("host", "old")]);
    found(&table, &parts)
        .rewrite(None, &mut parts, true)
        .unwrap();
    assert_eq!((parts.uri.path(), parts.headers.len()), ("/x", 1));
}

#[test]
fn a_forwarded_host_is_not_appended_twice() {
    for (before, after) in [
        ("", "old"),
        ("old", "old"),
        ("a,old", "a,old"),
        ("old,a", "old,a,old"),
    ] {
        let mut headers = request("/", &[("host", "old")]).headers;
        if !before.is_empty() {
            headers.insert("x-forwarded-host", HeaderValue::from_static(before));
        }
        rewrite_host(&mut headers, HeaderValue::from_static("new"), true, false);
        assert_eq!(headers["x-forwarded-host"], after);
        assert!(!headers.contains_key("x-envoy-original-host"));
    }
}

proptest! {
    #[test]
    fn a_rewrite_gives_a_path_that_can_be_sent_or_an_error(
        path in "/[a-z/%;.?&=]{0,20}",
        by in "[a-z/ #?%\u{0}é]{0,10}",
    ) {
        for action in [prefix(&by), regex("[a-m]", &by)] {
            if let Ok(parts) = rewritten(RouteMatch::prefix("/"), action, request(&path, &[])) {
                let new = parts.uri.path_and_query().unwrap().as_str();
                prop_assert!(new.starts_with('/'));
                let forbidden = new.contains(['#', ' ', '\u{0}']);
                prop_assert!(!forbidden);
            }
        }
    }
}
