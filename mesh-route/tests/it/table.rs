use mesh_core::{
    Error, ErrorKind,
    format::{Captures, RequestView},
};
use mesh_route::{
    Action, ClusterSpecifier, DirectResponse, Found, NoRoute, RequireTls, Route, RouteAction,
    RouteConfiguration, RouteMatch, RouteTable, VirtualHost, WeightedCluster, WeightedClusters,
};

use crate::support::{any_host, configured, found, request, table};

fn to(path: &str) -> Route<()> {
    Route::new(RouteMatch::prefix(path), RouteAction::to("c"), ()).named(path)
}

fn one(host: &str, routes: Vec<Route<()>>) -> VirtualHost<()> {
    VirtualHost::new(host, vec![host.to_owned()], routes)
}

#[test]
fn the_first_matching_route_wins_however_specific_a_later_one_is() {
    let table = table(vec![to("/a"), to("/abc"), to("/")]);
    assert_eq!(found(&table, &request("/abc", &[])).name().as_ref(), "/a");
    assert_eq!(found(&table, &request("/b", &[])).name().as_ref(), "/");
}

#[test]
fn a_path_and_a_prefix_that_are_spelled_alike_keep_their_order() {
    let whole = || Route::new(RouteMatch::path("/a"), RouteAction::to("c"), ());
    for (routes, exact, longer) in [
        (vec![whole(), to("/a"), to("/")], 0, 1),
        (vec![to("/a"), whole(), to("/")], 0, 0),
        (vec![to("/ab"), whole(), to("/")], 1, 0),
    ] {
        let table = table(routes);
        assert_eq!(found(&table, &request("/a", &[])).position(), exact);
        assert_eq!(found(&table, &request("/ab", &[])).position(), longer);
    }
}

#[test]
fn paths_are_compared_without_query_and_fragment() {
    let whole = |path: &str| Route::new(RouteMatch::path(path), RouteAction::to("c"), ());
    let table = table(vec![whole("/a?b"), whole("/a"), to("/a?b")]);
    assert_eq!(found(&table, &request("/a?b", &[])).position(), 1);
}

#[test]
fn path_parameters_are_ignored_only_when_asked() {
    let route = || vec![Route::new(RouteMatch::path("/a"), RouteAction::to("c"), ())];
    let mut config = RouteConfiguration::new("rc", vec![any_host(route())]);
    config.ignore_path_parameters_in_path_matching = true;
    let ignoring = configured(config);
    let parts = request("/a;v=1?x", &[]);
    assert_eq!(found(&ignoring, &parts).position(), 0);
    let none = table(route())
        .find(&RequestView::of_parts(&parts), 0)
        .unwrap_err();
    assert_eq!(none, NoRoute::Route);
}

#[test]
fn nothing_that_matches_is_a_404_with_envoys_details() {
    let table = configured(RouteConfiguration::new(
        "rc",
        vec![one("a", vec![to("/x")])],
    ));
    for (host, expected) in [("b", NoRoute::VirtualHost), ("a", NoRoute::Route)] {
        let parts = request("/", &[("host", host)]);
        let none = table.find(&RequestView::of_parts(&parts), 0).unwrap_err();
        assert_eq!(none, expected);
        let error = Error::from(none);
        assert_eq!(error.kind(), ErrorKind::NoRoute);
        let reply = error.reply().unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.details.as_ref()),
            (404, "route_not_found")
        );
    }
}

#[test]
fn a_header_may_take_the_place_of_the_host() {
    let mut config = RouteConfiguration::new("rc", vec![one("a", vec![to("/")])]);
    config.vhost_header = Some("x-vhost".parse().unwrap());
    let table = configured(config);
    let by_header = request("/", &[("host", "b"), ("x-vhost", "A")]);
    assert_eq!(
        found(&table, &by_header).virtual_host().name().as_ref(),
        "a"
    );
    let without = request("/", &[("host", "a")]);
    let none = table.find(&RequestView::of_parts(&without), 0).unwrap_err();
    assert_eq!(none, NoRoute::VirtualHost);
}

#[test]
fn a_host_that_requires_tls_sends_plain_requests_to_https() {
    let mut host = any_host(vec![to("/x")]);
    host.require_tls = RequireTls::ExternalOnly;
    let table = configured(RouteConfiguration::new("rc", vec![host]));
    let plain = request("/y?z", &[("host", "a:80")]);
    let view = RequestView::of_parts(&plain);
    let Ok(Found::TlsRequired(host)) = table.find(&view, 0) else {
        panic!("a plain request was let through");
    };
    let reply = host.tls_redirect(&view);
    assert_eq!(reply.status, 301);
    assert_eq!(reply.headers["location"], "https://a:80/y?z");
    for (name, value) in [("x-forwarded-proto", "https"), ("x-envoy-internal", "true")] {
        let parts = request("/x", &[("host", "a"), (name, value)]);
        assert_eq!(found(&table, &parts).position(), 0);
    }
}

#[test]
fn a_direct_response_says_what_it_was_told() {
    let answer = DirectResponse::new(503, "down", 4096).unwrap();
    let table = table(vec![Route::new(RouteMatch::prefix("/"), answer, ())]);
    let parts = request("/", &[]);
    let reply = found(&table, &parts)
        .local_reply(&RequestView::of_parts(&parts))
        .unwrap();
    assert_eq!(
        (reply.status.as_u16(), reply.body.as_ref()),
        (503, b"down".as_slice())
    );
    assert_eq!(reply.headers["content-type"], "text/plain");
    assert!(DirectResponse::new(199, "", 9).is_err());
    assert!(DirectResponse::new(600, "", 9).is_err());
    assert!(DirectResponse::new(200, "ten bytes!", 9).is_err());
}

#[test]
fn names_and_domains_must_be_unique_and_there_must_be_some() {
    for (hosts, reason) in [
        (
            vec![one("a", vec![]), one("a", vec![])],
            "virtual host \"a\": name is not unique",
        ),
        (
            vec![
                one("a", vec![]),
                VirtualHost::new("b", vec!["A".to_owned()], vec![]),
            ],
            "virtual host \"b\": domain \"A\" appears more than once",
        ),
        (
            vec![VirtualHost::new("b", vec![], vec![])],
            "virtual host \"b\": domains must not be empty",
        ),
    ] {
        let config = RouteConfiguration::<()>::new("rc", hosts);
        let error = RouteTable::new(config, &mut Captures::default()).unwrap_err();
        assert_eq!(error.to_string(), reason);
    }
}

#[test]
fn every_named_cluster_can_be_checked() {
    let weighted = vec![WeightedCluster::new("a", 1), WeightedCluster::new("b", 1)];
    let weighted = ClusterSpecifier::WeightedClusters(WeightedClusters::new(weighted).unwrap());
    let table = table(vec![
        to("/"),
        Route::new(RouteMatch::prefix("/w"), RouteAction::new(weighted), ()),
        Route::new(RouteMatch::prefix("/n"), Action::NonForwarding, ()),
    ]);
    let clusters: Vec<(&str, usize)> = table
        .clusters()
        .map(|(name, route)| (name, route.position()))
        .collect();
    assert_eq!(clusters, [("c", 0), ("a", 1), ("b", 1)]);
}

#[test]
fn a_route_can_be_kept_among_the_facts_of_its_request() {
    let mut info = crate::support::info();
    let route = found(&table(vec![to("/")]), &request("/", &[]));
    info.set_route(route.clone());
    let kept = info.route::<mesh_route::RouteEntry<()>>().unwrap();
    assert!(std::ptr::eq(kept, &*route));
}

/// Wall clock is noisy: the bound only tells an index from a walk, which takes 30 times as long.
#[test]
fn five_thousand_routes_cost_little_more_than_five() {
    let build = |count: usize| {
        table(
            (0..count)
                .map(|i| to(&format!("/service-{i}/v1/")))
                .collect(),
        )
    };
    let (few, many) = (build(5), build(5000));
    let time = |table: &RouteTable<()>, uri: &str| {
        let parts = request(uri, &[("host", "h")]);
        let view = RequestView::of_parts(&parts);
        let began = mesh_core::clock::now();
        for _ in 0..2000 {
            assert!(table.find(&view, 0).is_ok());
        }
        began.elapsed() / 2000
    };
    let (few, many) = (
        time(&few, "/service-4/v1/x"),
        time(&many, "/service-4999/v1/x"),
    );
    println!("{few:?} with 5 routes, {many:?} with 5000");
    assert!(
        many < few * 10 + std::time::Duration::from_micros(20),
        "{few:?} {many:?}"
    );
}
