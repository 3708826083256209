//! What a route does: rewrites, redirects, direct responses, clusters by weight or header, timeouts.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const REWRITES: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: prefix, match: {prefix: /prefix}, route: {cluster: a, prefix_rewrite: /new}}
      - {name: root, match: {prefix: /root}, route: {cluster: a, prefix_rewrite: /}}
      - {name: path, match: {path: /path}, route: {cluster: a, prefix_rewrite: /whole}}
      - {name: separated, match: {path_separated_prefix: /sep}, route: {cluster: a, prefix_rewrite: /s}}
      - {name: nocase, match: {prefix: /Case, case_sensitive: false}, route: {cluster: a, prefix_rewrite: /c}}
      - {name: matched, match: {safe_regex: {regex: '/m/.*'}}, route: {cluster: a, prefix_rewrite: /all}}
      - {name: regex, match: {prefix: /re}, route: {cluster: a, regex_rewrite: {pattern: {regex: '/([a-z]+)/([0-9]+)'}, substitution: '/\2/\1'}}}
      - {name: every, match: {prefix: /xx}, route: {cluster: a, regex_rewrite: {pattern: {regex: 'x'}, substitution: 'y'}}}
      - {name: host, match: {prefix: /host}, route: {cluster: a, host_rewrite_literal: other.example, append_x_forwarded_host: true}}
      - {name: byheader, match: {prefix: /byheader}, route: {cluster: a, host_rewrite_header: x-new-host}}
      - {name: bypath, match: {prefix: /bypath}, route: {cluster: a, host_rewrite_path_regex: {pattern: {regex: '^/bypath/([a-z]+).*$'}, substitution: '\1.example'}}}
      - {name: both, match: {prefix: /both}, route: {cluster: a, host_rewrite_literal: other.example, prefix_rewrite: /b}}
"#;

const REDIRECTS: &str = r#"
    virtual_hosts:
    - name: tls
      domains: [tls.example]
      require_tls: ALL
      routes: [{match: {prefix: /}, route: {cluster: a}}]
    - name: external
      domains: [external.example]
      require_tls: EXTERNAL_ONLY
      routes: [{match: {prefix: /}, route: {cluster: a}}]
    - name: all
      domains: ['*']
      routes:
      - {name: https, match: {prefix: /https}, redirect: {https_redirect: true}}
      - {name: scheme, match: {prefix: /scheme}, redirect: {scheme_redirect: ftp}}
      - {name: host, match: {prefix: /host}, redirect: {host_redirect: other.example}}
      - {name: port, match: {prefix: /port}, redirect: {port_redirect: 8443, https_redirect: true}}
      - {name: path, match: {prefix: /path}, redirect: {path_redirect: /new}}
      - {name: query, match: {prefix: /query}, redirect: {path_redirect: '/new?own=1'}}
      - {name: prefix, match: {prefix: /prefix}, redirect: {prefix_rewrite: /p}}
      - {name: regex, match: {prefix: /regex}, redirect: {regex_rewrite: {pattern: {regex: '/regex/(.*)'}, substitution: '/r/\1'}}}
      - {name: strip, match: {prefix: /strip}, redirect: {path_redirect: /s, strip_query: true}}
      - {name: found, match: {prefix: /302}, redirect: {path_redirect: /x, response_code: FOUND}}
      - {name: other, match: {prefix: /303}, redirect: {path_redirect: /x, response_code: SEE_OTHER}}
      - {name: temporary, match: {prefix: /307}, redirect: {path_redirect: /x, response_code: TEMPORARY_REDIRECT}}
      - {name: permanent, match: {prefix: /308}, redirect: {path_redirect: /x, response_code: PERMANENT_REDIRECT}}
"#;

const DIRECT: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: text, match: {prefix: /text}, direct_response: {status: 200, body: {inline_string: 'direct\n'}}}
      - {name: teapot, match: {prefix: /teapot}, direct_response: {status: 418}}
      - {name: gone, match: {prefix: /204}, direct_response: {status: 204}}
      - name: typed
        match: {prefix: /typed}
        direct_response: {status: 500, body: {inline_string: '{}'}}
        response_headers_to_add:
        - {header: {key: content-type, value: application/json}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}
      - {name: nothing, match: {prefix: /nothing}, non_forwarding_action: {}}
"#;

const CLUSTERS: &str = r#"
    validate_clusters: false
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - name: weighted
        match: {prefix: /weighted}
        route:
          weighted_clusters:
            header_name: x-pick
            clusters:
            - {name: a, weight: 1}
            - name: b
              weight: 3
              request_headers_to_add: [{header: {key: x-weighted, value: b}}]
              request_headers_to_remove: [x-gone]
              response_headers_to_add: [{header: {key: x-from, value: b}}]
      - {name: zero, match: {prefix: /zero}, route: {weighted_clusters: {clusters: [{name: a, weight: 0}, {name: b, weight: 1}]}}}
      - {name: byheader, match: {prefix: /byheader}, route: {cluster_header: x-cluster}}
      - {name: unknown, match: {prefix: /unknown}, route: {cluster: nowhere}}
      - {name: unknown404, match: {prefix: /u404}, route: {cluster: nowhere, cluster_not_found_response_code: NOT_FOUND}}
      - {name: unknown500, match: {prefix: /u500}, route: {cluster: nowhere, cluster_not_found_response_code: INTERNAL_SERVER_ERROR}}
      - {name: high, match: {prefix: /high}, route: {cluster: a, priority: HIGH}}
"#;

const TIMEOUTS: &str = r#"
    virtual_hosts:
    - name: all
      domains: ['*']
      routes:
      - {name: short, match: {prefix: /short}, route: {cluster: a, timeout: 0.2s}}
      - {name: never, match: {prefix: /never}, route: {cluster: a, timeout: 0s}}
      - {name: idle, match: {prefix: /idle}, route: {cluster: a, idle_timeout: 0.2s}}
      - {name: duration, match: {prefix: /duration}, route: {cluster: a, max_stream_duration: {max_stream_duration: 0.2s}}}
      - {name: plain, match: {prefix: /}, route: {cluster: a}}
"#;

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, routes: &'static str| Hcm {
        name,
        routes,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&with("rewrites", REWRITES))
        .listener(&with("redirects", REDIRECTS))
        .listener(&with("direct", DIRECT))
        .listener(&with("clusters", CLUSTERS))
        .listener(&with("timeouts", TIMEOUTS))
        .cluster("a", &["a"], "")
        .cluster("b", &["b"], "");
    vec![group(
        bootstrap,
        [
            ("routing/path_rewrites", path_rewrites),
            ("routing/host_rewrites", host_rewrites),
            ("routing/redirects", redirects),
            ("routing/redirects_to_tls", redirects_to_tls),
            ("routing/direct_responses", direct_responses),
            ("routing/weighted_clusters", weighted_clusters),
            ("routing/weighted_clusters_spread", weighted_clusters_spread),
            ("routing/cluster_header", cluster_header),
            ("routing/unknown_clusters", unknown_clusters),
            ("routing/route_timeout", route_timeout),
            (
                "routing/route_timeout_after_headers",
                route_timeout_after_headers,
            ),
            (
                "routing/route_timeout_waits_for_the_request",
                route_timeout_waits,
            ),
            ("routing/route_idle_timeout", route_idle_timeout),
            (
                "routing/route_max_stream_duration",
                route_max_stream_duration,
            ),
        ],
    )]
}

fn path_rewrites(run: &mut Run<'_>) -> Result<()> {
    for path in [
        "/prefix",
        "/prefix/a?b=c",
        "/prefixed",
        "/root",
        "/root/a",
        "/rooted",
        "/path",
        "/path?x=1",
        "/sep",
        "/sep/a/b",
        "/cASE/x",
        "/m/anything?q",
        "/re/12/tail?q=/re/1",
        "/re/nothing",
        "/xx/xax?x=x",
        "/both/1",
    ] {
        run.send(get(path).on("rewrites").expect(200))?;
    }
    Ok(())
}

fn host_rewrites(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/host").on("rewrites").expect(200))?;
    run.send(
        get("/host")
            .header("x-forwarded-host", "first.example")
            .on("rewrites")
            .expect(200),
    )?;
    run.send(
        get("/byheader")
            .header("x-new-host", "new.example")
            .on("rewrites")
            .expect(200),
    )?;
    run.send(get("/byheader").on("rewrites").expect(200))?;
    run.send(get("/bypath/abc/d?e").on("rewrites").expect(200))?;
    run.send(get("/bypath/123").on("rewrites").expect(200))?;
    Ok(())
}

fn redirects(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [
        ("/https/a?b=c", 301),
        ("/scheme", 301),
        ("/host/a", 301),
        ("/port", 301),
        ("/path?keep=1", 301),
        ("/query?gone=1", 301),
        ("/prefix/a?b", 301),
        ("/regex/a/b?c", 301),
        ("/strip?gone=1", 301),
        ("/302", 302),
        ("/303", 303),
        ("/307", 307),
        ("/308", 308),
    ] {
        run.send(get(path).on("redirects").expect(status).fate())?;
    }
    for host in ["a.example:80", "a.example:8080", "a.example:443"] {
        run.send(get("/https").host(host).on("redirects").expect(301))?;
    }
    run.send(
        request("POST", "/302")
            .body("hello")
            .on("redirects")
            .expect(302)
            .fate(),
    )?;
    run.counters(&[
        "http.redirects.rq_redirect",
        "http.redirects.downstream_rq_3xx",
    ])
}

fn redirects_to_tls(run: &mut Run<'_>) -> Result<()> {
    for host in ["tls.example", "external.example"] {
        run.send(get("/a?b").host(host).on("redirects").expect(301))?;
        let ask = get("/a?b").host(host).header("x-forwarded-proto", "https");
        run.send(ask.on("redirects").expect(200))?;
    }
    run.counters(&["http.redirects.rq_redirect"])
}

fn direct_responses(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [
        ("/text", 200),
        ("/teapot", 418),
        ("/204", 204),
        ("/typed", 500),
        ("/nothing", 503),
    ] {
        run.send(get(path).on("direct").expect(status).fate())?;
    }
    run.send(request("HEAD", "/text").on("direct").expect(200).fate())?;
    run.send(
        request("POST", "/text")
            .body("hello")
            .on("direct")
            .expect(200)
            .fate(),
    )?;
    run.counters(&[
        "http.direct.rq_direct_response",
        "http.direct.downstream_rq_5xx",
    ])
}

fn weighted_clusters(run: &mut Run<'_>) -> Result<()> {
    for pick in ["0", "1", "3", "4", "7", "18446744073709551615"] {
        let ask = get("/weighted")
            .header("x-pick", pick)
            .header("x-gone", "1");
        run.send(ask.on("clusters").expect(200))?;
    }
    run.send(get("/zero").on("clusters").expect(200))?;
    Ok(())
}

fn weighted_clusters_spread(run: &mut Run<'_>) -> Result<()> {
    const REQUESTS: usize = 400;
    for _ in 0..REQUESTS {
        run.quietly(&get("/weighted").on("clusters"))?;
    }
    let spread = run.spread(&["a", "b"])?;
    // A quarter, give or take more than five standard deviations.
    let near = spread[0].abs_diff(REQUESTS / 4) < 50 && spread.iter().sum::<usize>() == REQUESTS;
    run.note("a gets about a quarter", near.to_string());
    Ok(())
}

fn cluster_header(run: &mut Run<'_>) -> Result<()> {
    for (cluster, status) in [("a", 200), ("b", 200), ("nowhere", 503), ("", 503)] {
        let ask = get("/byheader").header("x-cluster", cluster);
        run.send(ask.on("clusters").expect(status))?;
    }
    run.send(get("/byheader").on("clusters").expect(503))?;
    run.counters(&["http.clusters.no_cluster"])
}

fn unknown_clusters(run: &mut Run<'_>) -> Result<()> {
    for (path, status) in [("/unknown", 503), ("/u404", 404), ("/u500", 500)] {
        run.send(get(path).on("clusters").expect(status).fate())?;
    }
    run.counters(&["http.clusters.no_cluster"])
}

fn route_timeout(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/short", [Reply::hang()]);
    run.send(get("/short").on("timeouts").expect(504).fate())?;
    run.send(
        request("POST", "/short")
            .body("hello")
            .on("timeouts")
            .expect(504)
            .fate(),
    )?;
    run.counters(&[
        "cluster.a.upstream_rq_timeout",
        "cluster.a.upstream_rq_504",
        "cluster.a.upstream_rq_5xx",
        "cluster.a.upstream_rq_tx_reset",
    ])
}

fn route_timeout_after_headers(run: &mut Run<'_>) -> Result<()> {
    let started = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    run.up["a"].on("/short", [Reply::raw(started).then_hang()]);
    run.send(get("/short").on("timeouts").expect(200).fate())?;
    run.counters(&["cluster.a.upstream_rq_timeout"])
}

fn route_timeout_waits(run: &mut Run<'_>) -> Result<()> {
    // The clock starts once the request is complete, so half a request never times out.
    let mut connection = run.open("timeouts")?;
    connection.send(b"POST /short HTTP/1.1\r\nHost: test.example\r\nContent-Length: 4\r\n\r\nab");
    run.await_requests("a", 1)?;
    connection.set_deadline(std::time::Duration::from_millis(600));
    let early = connection.head();
    run.note("answer to half a request", format!("{early:?}"));
    connection.set_deadline(e2e::wait::WAIT_MAX);
    connection.send(b"cd");
    let response = connection.response(false);
    run.note("status", response.status.to_string());
    let step = run.step("a slow request");
    run.settle(&step)
}

fn route_idle_timeout(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/idle", [Reply::hang()]);
    run.send(get("/idle").on("timeouts").expect(504).fate())?;
    run.counters(&["http.timeouts.downstream_rq_idle_timeout"])
}

fn route_max_stream_duration(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/duration", [Reply::hang(), Reply::ok("x")]);
    run.send(get("/duration").on("timeouts").expect(504).fate())?;
    run.send(get("/duration").on("timeouts").expect(200).fate())?;
    run.send(get("/never").on("timeouts").expect(200))?;
    let started = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    run.up["a"].on("/duration/started", [Reply::raw(started).then_hang()]);
    run.send(get("/duration/started").on("timeouts").expect(200).fate())?;
    run.counters(&["http.timeouts.downstream_rq_max_duration_reached"])
}
