//! Every case was seen on Envoy 1.40.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, response};
use mesh_core::format::{Captures, Format, RequestView};
use mesh_route::{
    AppendAction, ClusterSpecifier, HeaderAdd, HeaderMutation, HeaderMutations, MUTATIONS_MAX,
    Route, RouteAction, RouteConfiguration, RouteMatch, RouteTable, WeightedCluster,
    WeightedClusters,
};

use crate::support::{
    add, adds, any_host, configured, found, info, on_request, on_response, request, table, values,
};

const OVERWRITE: AppendAction = AppendAction::OverwriteIfExistsOrAdd;

fn to() -> Route<()> {
    Route::new(RouteMatch::prefix("/"), RouteAction::to("c"), ())
}

fn mutated(request: HeaderMutation, headers: &[(&str, &str)]) -> http::request::Parts {
    let mut route = to();
    route.mutations = on_request(request);
    let table = table(vec![route]);
    let mut parts = crate::support::request("/p?q", headers);
    let before = parts.headers.clone();
    let changed = found(&table, &parts).mutate_request(None, &mut parts, &info());
    assert!(changed || before == parts.headers, "a change must be said");
    parts
}

fn response_parts(headers: &[(&str, &str)]) -> response::Parts {
    let mut parts = Response::new(()).into_parts().0;
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        parts
            .headers
            .append(name, HeaderValue::from_str(value).unwrap());
    }
    parts
}

/// One level writes its own name, in every way.
fn level(name: &str) -> HeaderMutations {
    let both = || {
        adds(vec![
            add("x-list", name),
            add("x-last", name).append_action(OVERWRITE),
            add("x-first", name).append_action(AppendAction::AddIfAbsent),
        ])
    };
    HeaderMutations {
        request: both(),
        response: both(),
    }
}

fn four_levels(most_specific_wins: bool) -> RouteTable<()> {
    let mut cluster = WeightedCluster::new("c", 1);
    cluster.mutations = level("cluster");
    let clusters =
        ClusterSpecifier::WeightedClusters(WeightedClusters::new(vec![cluster]).unwrap());
    let mut route = Route::new(RouteMatch::prefix("/"), RouteAction::new(clusters), ());
    route.mutations = level("route");
    let mut host = any_host(vec![route]);
    host.mutations = level("host");
    let mut config = RouteConfiguration::new("rc", vec![host]);
    config.mutations = level("config");
    config.most_specific_header_mutations_wins = most_specific_wins;
    configured(config)
}

#[test]
fn the_least_specific_level_has_the_last_word_unless_told_otherwise_and_the_cluster_never() {
    for (most_specific_wins, order) in [
        (false, ["cluster", "route", "host", "config"]),
        (true, ["cluster", "config", "host", "route"]),
    ] {
        let table = four_levels(most_specific_wins);
        let mut request = request("/", &[]);
        let headers = request.headers.clone();
        let route = found(&table, &request);
        let mesh_route::Action::Route(action) = route.action() else {
            unreachable!()
        };
        let (_, cluster) = action.cluster.pick(&headers, 0).unwrap().weighted.unwrap();
        let mut response = response_parts(&[]);
        route.mutate_request(Some(cluster), &mut request, &info());
        route.mutate_response(
            Some(cluster),
            &mut response,
            &info(),
            mesh_core::clock::now(),
        );
        for headers in [&request.headers, &response.headers] {
            assert_eq!(values(headers, "x-list"), order);
            assert_eq!(values(headers, "x-last"), [order[3]]);
            assert_eq!(values(headers, "x-first"), [order[0]]);
        }
    }
}

#[test]
fn within_a_level_removal_comes_first_and_values_see_what_was_before_the_rest() {
    let mutation = HeaderMutation::new(
        vec![
            add("x-gone", "new"),
            add("x-seen", "%REQ(x-gone)%"),
            add("x-old", "new").append_action(OVERWRITE),
            add("x-copy", "%REQ(x-old)% %REQ(:PATH)%"),
            add("x-twice", "1").append_action(AppendAction::AddIfAbsent),
            add("x-twice", "2").append_action(AppendAction::AddIfAbsent),
        ],
        vec![HeaderName::from_static("x-gone")],
    );
    let parts = mutated(
        mutation.unwrap(),
        &[("x-gone", "a"), ("x-gone", "b"), ("x-old", "old")],
    );
    assert_eq!(values(&parts.headers, "x-gone"), ["new"]);
    assert_eq!(values(&parts.headers, "x-seen"), [""; 0]);
    assert_eq!(values(&parts.headers, "x-old"), ["new"]);
    assert_eq!(values(&parts.headers, "x-copy"), ["old /p?q"]);
    assert_eq!(values(&parts.headers, "x-twice"), ["1", "2"]);
}

#[test]
fn every_append_action_does_what_it_says() {
    use AppendAction::{AddIfAbsent, AppendIfExistsOrAdd, OverwriteIfExists};
    for (action, there, absent) in [
        (AppendIfExistsOrAdd, vec!["old", "new"], vec!["new"]),
        (AddIfAbsent, vec!["old"], vec!["new"]),
        (OVERWRITE, vec!["new"], vec!["new"]),
        (OverwriteIfExists, vec!["new"], vec![]),
    ] {
        let mutation = || adds(vec![add("x-a", "new").append_action(action)]);
        let with = mutated(mutation(), &[("x-a", "old")]);
        assert_eq!(values(&with.headers, "x-a"), there, "{action:?}");
        assert_eq!(
            values(&mutated(mutation(), &[]).headers, "x-a"),
            absent,
            "{action:?}"
        );
    }
}

#[test]
fn empty_values_are_left_out_unless_kept() {
    let parts = mutated(
        adds(vec![
            add("x-none", "%REQ(x-absent)%"),
            add("x-empty", ""),
            add("x-kept", "%REQ(x-absent)%").keep_empty_value(true),
            add("x-mixed", "a%REQ(x-absent)%b 100%%"),
        ]),
        &[],
    );
    assert_eq!(parts.headers.len(), 2);
    assert_eq!(values(&parts.headers, "x-kept"), [""]);
    assert_eq!(values(&parts.headers, "x-mixed"), ["ab 100%"]);
}

#[test]
fn headers_of_which_envoy_keeps_one_are_joined() {
    let both = || {
        adds(vec![
            add("accept", "b"),
            add("set-cookie", "b"),
            add("vary", "b"),
        ])
    };
    let before = [("accept", "a"), ("set-cookie", "a"), ("vary", "a")];
    let request = mutated(both(), &before);
    assert_eq!(values(&request.headers, "accept"), ["a,b"]);
    assert_eq!(values(&request.headers, "vary"), ["a", "b"]);

    let mut route = to();
    route.mutations = on_response(both());
    let mut response = response_parts(&before);
    let route = found(&table(vec![route]), &crate::support::request("/", &[]));
    route.mutate_response(None, &mut response, &info(), mesh_core::clock::now());
    assert_eq!(values(&response.headers, "vary"), ["a,b"]);
    assert_eq!(values(&response.headers, "set-cookie"), ["a", "b"]);
}

#[test]
fn a_response_header_may_quote_the_request_that_is_gone_at_every_level() {
    let mut captures = Captures::default();
    let level = |name: &str, value: &str| on_response(adds(vec![add(name, value)]));
    let mut cluster = WeightedCluster::new("c", 1);
    cluster.mutations = level("y-cluster", "%REQ(x-1)%");
    let clusters = WeightedClusters::new(vec![cluster]).unwrap();
    let action = RouteAction::new(ClusterSpecifier::WeightedClusters(clusters));
    let mut route = Route::new(RouteMatch::prefix("/"), action, ());
    route.mutations = level(
        "y-route",
        "%REQ(:PATH)% %REQ(x-2)% %RESPONSE_CODE% %DURATION%",
    );
    let mut host = any_host(vec![route]);
    host.mutations = level("y-host", "%REQ(x-3)%");
    let mut config = RouteConfiguration::new("rc", vec![host]);
    config.mutations = level("y-config", "%REQ(x-4)%");
    let table = RouteTable::new(config, &mut captures).unwrap();

    let parts = request(
        "/p?q",
        &[("x-1", "1"), ("x-2", "2"), ("x-3", "3"), ("x-4", "4")],
    );
    let route = found(&table, &parts);
    let mesh_route::Action::Route(action) = route.action() else {
        unreachable!()
    };
    let (_, cluster) = action
        .cluster
        .pick(&parts.headers, 0)
        .unwrap()
        .weighted
        .unwrap();
    let info = info();
    info.with(|facts| facts.captured = captures.capture(&RequestView::of_parts(&parts)));
    let mut response = response_parts(&[]);
    response.status = StatusCode::ACCEPTED;
    let now = info.start + Duration::from_millis(12);
    route.mutate_response(Some(cluster), &mut response, &info, now);
    assert_eq!(values(&response.headers, "y-route"), ["/p?q 2 202 12"]);
    for (name, value) in [("y-cluster", "1"), ("y-host", "3"), ("y-config", "4")] {
        assert_eq!(values(&response.headers, name), [value]);
    }
}

#[test]
fn a_value_that_cannot_be_in_a_header_is_left_out() {
    let mut route = to();
    route.mutations = on_response(adds(vec![add("y", "%ROUTE_NAME%"), add("z", "1")]));
    let route = found(&table(vec![route]), &request("/", &[]));
    let info = info();
    info.with(|facts| facts.route_name = Some("a\nb".into()));
    let mut response = response_parts(&[]);
    route.mutate_response(None, &mut response, &info, info.start);
    assert_eq!(response.headers.len(), 1);
}

#[test]
fn headers_that_are_not_the_configs_to_change_are_refused() {
    let new = |name: &str, value: &str| HeaderAdd::new(name, Format::literal(value));
    for name in [
        ":path",
        ":authority",
        ":status",
        "host",
        "Host",
        "Content-Length",
        "transfer-encoding",
        "a b",
        "",
    ] {
        assert!(new(name, "x").is_err(), "{name:?}");
    }
    assert!(new("x", "a\r\nb").is_err());
    assert!(new("x", &"a".repeat(16_385)).is_err());
    assert!(HeaderMutation::new(vec![], vec![HeaderName::from_static("host")]).is_err());
    let many = |count| HeaderMutation::new(vec![add("x", "1"); count], vec![]);
    assert!(many(MUTATIONS_MAX).is_ok() && many(MUTATIONS_MAX + 1).is_err());
}
