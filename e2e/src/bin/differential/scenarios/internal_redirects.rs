//! Redirects of upstreams that the proxy follows itself.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const ROUTES: &str = r#"
    virtual_hosts:
    - name: other
      domains: [other.example]
      routes:
      - {name: other, match: {prefix: /there}, route: {cluster: b}}
    - name: all
      domains: ['*']
      routes:
      - {name: there, match: {prefix: /there}, route: {cluster: b}}
      - {name: direct, match: {prefix: /direct}, direct_response: {status: 200, body: {inline_string: direct}}}
      - {name: one, match: {prefix: /one}, route: {cluster: a, internal_redirect_policy: {}}}
      - {name: two, match: {prefix: /two}, route: {cluster: a, internal_redirect_policy: {max_internal_redirects: 2}}}
      - {name: codes, match: {prefix: /codes}, route: {cluster: a, internal_redirect_policy: {redirect_response_codes: [301, 303, 307, 308]}}}
      - {name: copied, match: {prefix: /copied}, route: {cluster: a, internal_redirect_policy: {response_headers_to_copy: [x-token, x-old]}}}
      - name: rewritten
        match: {prefix: /rewritten}
        request_headers_to_add: [{header: {key: x-added, value: route}}]
        response_headers_to_add: [{header: {key: x-passed, value: 'yes'}}]
        route: {cluster: a, prefix_rewrite: /new, host_rewrite_literal: live.example, internal_redirect_policy: {}}
      - {name: small, match: {prefix: /small}, request_body_buffer_limit: 3, route: {cluster: a, internal_redirect_policy: {}}}
      - name: listed
        match: {prefix: /listed}
        route:
          cluster: a
          internal_redirect_policy:
            predicates:
            - name: envoy.internal_redirect_predicates.allow_listed_routes
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig
                allowed_route_names: [there]
      - name: previous
        match: {prefix: /previous}
        route:
          cluster: a
          internal_redirect_policy:
            max_internal_redirects: 5
            predicates:
            - name: envoy.internal_redirect_predicates.previous_routes
              typed_config: {"@type": type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig}
      - {name: cross, match: {prefix: /cross}, route: {cluster: a, internal_redirect_policy: {allow_cross_scheme_redirect: true}}}
      - name: safe
        match: {prefix: /safe}
        route:
          cluster: a
          internal_redirect_policy:
            allow_cross_scheme_redirect: true
            predicates:
            - name: envoy.internal_redirect_predicates.safe_cross_scheme
              typed_config: {"@type": type.googleapis.com/envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig}
      - {name: plain, match: {prefix: /plain}, route: {cluster: a}}
      - name: retried
        match: {prefix: /retried}
        route: {cluster: a, internal_redirect_policy: {}, retry_policy: {retry_on: 5xx, num_retries: 1, retry_back_off: {base_interval: 0.001s}}}
"#;

pub(super) fn groups() -> Vec<Group> {
    let hcm = Hcm {
        routes: ROUTES,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&hcm)
        .cluster("a", &["a"], "")
        .cluster("b", &["b"], "");
    vec![group(
        bootstrap,
        [
            ("redirect/followed", followed),
            ("redirect/off", off),
            ("redirect/bodies", bodies),
            ("redirect/codes", codes),
            ("redirect/limits", limits),
            ("redirect/bad_locations", bad_locations),
            ("redirect/headers", headers),
            ("redirect/predicates", predicates),
            ("redirect/schemes", schemes),
            ("redirect/retries", retries),
        ],
    )]
}

/// An answer that sends on to `location`.
fn sends_on(status: u16, location: &str) -> Reply {
    Reply::raw(format!(
        "HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\nx-token: fresh\r\ncontent-length: 0\r\n\r\n"
    ))
}

const THERE: &str = "http://other.example/there?x=1#part";

const COUNTERS: [&str; 14] = [
    "cluster.a.upstream_internal_redirect_succeeded_total",
    "cluster.a.upstream_internal_redirect_failed_total",
    "cluster.a.upstream_rq_302",
    "cluster.a.upstream_rq_total",
    "cluster.b.upstream_rq_200",
    "http.main.downstream_rq_total",
    "http.main.downstream_rq_2xx",
    "http.main.downstream_rq_3xx",
    "http.main.rq_total",
    "http.main.passthrough_internal_redirect_bad_location",
    "http.main.passthrough_internal_redirect_unsafe_scheme",
    "http.main.passthrough_internal_redirect_too_many_redirects",
    "http.main.passthrough_internal_redirect_no_route",
    "http.main.passthrough_internal_redirect_predicate",
];

fn followed(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/one", [sends_on(302, THERE)]);
    run.send(get("/one?old").expect(200).fate())?;
    run.send(request("HEAD", "/one").expect(200).fate())?;
    run.up["a"].on("/one", [sends_on(302, "http://a.example/direct")]);
    run.send(get("/one").expect(200).fate())?;
    run.counters(&COUNTERS)
}

fn off(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/plain", [sends_on(302, THERE)]);
    run.send(get("/plain").expect(302).fate())?;
    run.counters(&COUNTERS)
}

fn bodies(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/one", [sends_on(302, THERE)]);
    run.up["a"].on("/small", [sends_on(302, THERE)]);
    run.send(request("POST", "/one").body("hello").expect(200).fate())?;
    run.send(request("POST", "/one").chunked("hello").expect(200).fate())?;
    run.send(request("POST", "/small").body("abc").expect(200).fate())?;
    run.send(request("POST", "/small").body("abcd").expect(302).fate())?;
    run.counters(&COUNTERS)
}

fn codes(run: &mut Run<'_>) -> Result<()> {
    for (status, got) in [(301, 200), (302, 302), (303, 200), (307, 200), (308, 200)] {
        run.up["a"].on("/codes", [sends_on(status, THERE)]);
        run.send(get("/codes").expect(got))?;
        run.send(request("POST", "/codes").body("hello").expect(got))?;
    }
    run.counters(&COUNTERS)
}

fn limits(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/one", [sends_on(302, "http://a.example/one/more")]);
    run.send(get("/one").expect(302))?;
    let two = [
        sends_on(302, "http://a.example/two/1"),
        sends_on(302, THERE),
    ];
    run.up["a"].on("/two", two);
    run.send(get("/two").expect(200))?;
    run.up["a"].on("/two", [sends_on(302, "http://a.example/two/1")]);
    run.send(get("/two").expect(302))?;
    run.counters(&COUNTERS)
}

fn bad_locations(run: &mut Run<'_>) -> Result<()> {
    for location in [
        "",
        "/there",
        "there",
        "//other.example/there",
        "ftp://other.example/there",
        "http:///there",
        "http://other.example/nowhere",
        "http://other.example",
    ] {
        run.up["a"].on("/one", [sends_on(302, location)]);
        run.send(get("/one").expect(302))?;
    }
    let none = "HTTP/1.1 302 Elsewhere\r\ncontent-length: 0\r\n\r\n";
    run.up["a"].on("/one", [Reply::raw(none)]);
    run.send(get("/one").expect(302))?;
    run.counters(&COUNTERS)
}

fn headers(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/copied", [sends_on(302, THERE)]);
    run.up["a"].on("/new", [sends_on(302, THERE)]);
    let ask = get("/copied")
        .header("x-token", "stale")
        .header("x-old", "1");
    run.send(ask.expect(200))?;
    run.send(get("/rewritten/x").expect(200))?;
    run.up["a"].on("/new", [sends_on(302, "/there")]);
    run.send(get("/rewritten/x").expect(302))?;
    Ok(())
}

fn predicates(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/listed", [sends_on(302, "http://a.example/there")]);
    run.send(get("/listed").expect(200))?;
    run.up["a"].on("/listed", [sends_on(302, THERE)]);
    run.send(get("/listed").expect(302))?;
    let again = "http://a.example/previous/again";
    run.up["a"].on("/previous", [sends_on(302, again), sends_on(302, again)]);
    run.send(get("/previous").expect(302))?;
    run.counters(&COUNTERS)
}

fn schemes(run: &mut Run<'_>) -> Result<()> {
    let secure = "https://other.example/there";
    for (path, location, from, status) in [
        ("/one", secure, "http", 302),
        ("/cross", secure, "http", 200),
        ("/safe", secure, "http", 302),
        ("/safe", THERE, "http", 200),
        ("/one", secure, "https", 302),
    ] {
        run.up["a"].on(path, [sends_on(302, location)]);
        let ask = get(path).header("x-forwarded-proto", from);
        run.send(ask.expect(status))?;
    }
    run.counters(&COUNTERS)
}

fn retries(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/retried", [Reply::status(503), sends_on(302, THERE)]);
    run.send(get("/retried").expect(200))?;
    run.counters(&COUNTERS)
}
