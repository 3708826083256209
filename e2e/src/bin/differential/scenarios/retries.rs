//! What is retried, how often, and what is said about it.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

use super::http_options;

/// A route per subject; all of them back off for a moment only.
const ROUTES: &str = r#"
    virtual_hosts:
    - name: counting
      domains: [counting.example]
      include_request_attempt_count: true
      include_attempt_count_in_response: true
      include_is_timeout_retry_header: true
      routes:
      - {match: {prefix: /dead}, route: {cluster: dead, retry_policy: {retry_on: connect-failure, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /try}, route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 2, per_try_timeout: 0.2s, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /}, route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
    - name: inherited
      domains: [inherited.example]
      retry_policy: {retry_on: '5xx', num_retries: 2, retry_back_off: {base_interval: 0.001s}}
      routes:
      - {match: {prefix: /own}, route: {cluster: a, retry_policy: {retry_on: gateway-error, num_retries: 1, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /}, route: {cluster: a}}
    - name: all
      domains: ['*']
      routes:
      - {match: {prefix: /5xx}, route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 3, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /gateway}, route: {cluster: a, retry_policy: {retry_on: gateway-error, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /4xx}, route: {cluster: a, retry_policy: {retry_on: retriable-4xx, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /codes}, route: {cluster: a, retry_policy: {retry_on: retriable-status-codes, retriable_status_codes: [418, 302], retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /untold}, route: {cluster: a, retry_policy: {retry_on: gateway-error, retriable_status_codes: [418], retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /headers}, route: {cluster: a, retry_policy: {retry_on: retriable-headers, retriable_headers: [{name: x-again, present_match: true}, {name: x-state, string_match: {prefix: bad}}], retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /reset}, route: {cluster: a, retry_policy: {retry_on: reset, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /before}, route: {cluster: a, retry_policy: {retry_on: reset-before-request, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /connect}, route: {cluster: a, retry_policy: {retry_on: connect-failure, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /dead}, route: {cluster: dead, retry_policy: {retry_on: connect-failure, num_retries: 2, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /limited}, route: {cluster: a, retry_policy: {retry_on: envoy-ratelimited, retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /grpc}, route: {cluster: a, retry_policy: {retry_on: 'unavailable,cancelled', retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /spaces}, route: {cluster: a, retry_policy: {retry_on: ' reset , nonsense ,5xx ', retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /zero}, route: {cluster: a, retry_policy: {retry_on: '5xx', num_retries: 0}}}
      - {match: {prefix: /default}, route: {cluster: a, retry_policy: {retry_on: '5xx'}}}
      - {match: {prefix: /picky}, route: {cluster: a, retry_policy: {retry_on: '5xx', retriable_request_headers: [{name: x-ok, present_match: true}], retry_back_off: {base_interval: 0.001s}}}}
      - {match: {prefix: /plain}, route: {cluster: a}}
      - {match: {prefix: /owned}, route: {cluster: own, timeout: 5s, retry_policy: {retry_on: retriable-4xx, num_retries: 5, per_try_timeout: 0.1s}}}
"#;

/// What a cluster says itself.
const OWN: &str = "retry_policy: {retry_on: gateway-error, num_retries: 2, retry_back_off: {base_interval: 0.001s}}
    explicit_http_config: {http_protocol_options: {}}";

const INTERNAL: &str = "
    use_remote_address: true
    internal_address_config: {cidr_ranges: [{address_prefix: 0.0.0.0, prefix_len: 0}]}
";

pub(super) fn groups() -> Vec<Group> {
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes: ROUTES,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "internal",
            routes: ROUTES,
            fields: INTERNAL,
            ..Hcm::default()
        })
        .cluster("a", &["a"], "")
        .cluster("dead", &["dead"], "")
        .cluster("own", &["a"], &http_options(OWN));
    vec![group(
        bootstrap,
        [
            ("retries/5xx", five_hundreds),
            ("retries/gateway_error", gateway_error),
            ("retries/retriable_4xx", retriable_4xx),
            ("retries/retriable_status_codes", retriable_status_codes),
            ("retries/retriable_headers", retriable_headers),
            ("retries/reset", reset),
            ("retries/reset_before_request", reset_before_request),
            ("retries/connect_failure", connect_failure),
            ("retries/envoy_ratelimited", envoy_ratelimited),
            ("retries/grpc_statuses", grpc_statuses),
            ("retries/odd_tokens", odd_tokens),
            ("retries/limits", limits),
            ("retries/started_responses_are_final", started_responses),
            (
                "retries/request_headers_of_friends",
                request_headers_of_friends,
            ),
            (
                "retries/request_headers_of_strangers",
                request_headers_of_strangers,
            ),
            ("retries/request_headers_choose", request_headers_choose),
            ("retries/attempt_count", attempt_count),
            ("retries/virtual_host_policy", virtual_host_policy),
            ("retries/cluster_policy", cluster_policy),
            ("retries/bodies_are_replayed", bodies_are_replayed),
            ("retries/continue_ends_them", continue_ends_them),
        ],
    )]
}

const STATS: [&str; 8] = [
    "cluster.a.upstream_rq_total",
    "cluster.a.upstream_rq_retry",
    "cluster.a.upstream_rq_retry_success",
    "cluster.a.upstream_rq_retry_limit_exceeded",
    "cluster.a.upstream_rq_retry_backoff_exponential",
    "cluster.a.upstream_rq_503",
    "cluster.a.retry.upstream_rq_503",
    "cluster.a.retry.upstream_rq_5xx",
];

/// Scripts these statuses for a path, then a final 200, and asks for it.
fn play(run: &mut Run<'_>, ask: Ask, path: &str, statuses: &[u16], expected: u16) -> Result<()> {
    let replies = statuses.iter().map(|status| Reply::status(*status));
    run.up["a"].on(path, replies.chain([Reply::ok("at last")]));
    run.send(ask.expect(expected))?;
    Ok(())
}

fn five_hundreds(run: &mut Run<'_>) -> Result<()> {
    for (statuses, expected) in [
        (&[503][..], 200),
        (&[500, 501, 599], 200),
        (&[503, 404], 404),
        (&[404], 404),
        (&[503, 503, 503, 500], 500),
    ] {
        play(run, get("/5xx"), "/5xx", statuses, expected)?;
    }
    run.up["a"].on("/5xx", [Reply::close(), Reply::ok("after a close")]);
    run.send(get("/5xx").expect(200))?;
    run.counters(&STATS)
}

fn gateway_error(run: &mut Run<'_>) -> Result<()> {
    for (status, expected) in [
        (500, 500),
        (501, 501),
        (502, 200),
        (503, 200),
        (504, 200),
        (505, 505),
    ] {
        play(run, get("/gateway"), "/gateway", &[status], expected)?;
    }
    run.up["a"].on("/gateway", [Reply::close(), Reply::ok("after a close")]);
    run.send(get("/gateway").expect(200))?;
    run.counters(&STATS)
}

fn retriable_4xx(run: &mut Run<'_>) -> Result<()> {
    for (status, expected) in [(409, 200), (408, 408), (429, 429), (400, 400), (503, 503)] {
        play(run, get("/4xx"), "/4xx", &[status], expected)?;
    }
    run.counters(&STATS)
}

fn retriable_status_codes(run: &mut Run<'_>) -> Result<()> {
    for (path, status, expected) in [
        ("/codes", 418, 200),
        ("/codes", 302, 200),
        ("/codes", 503, 503),
        ("/untold", 418, 418),
    ] {
        play(run, get(path), path, &[status], expected)?;
    }
    Ok(())
}

fn retriable_headers(run: &mut Run<'_>) -> Result<()> {
    for (name, value, attempts) in [
        ("x-again", "", 2),
        ("x-state", "bad luck", 2),
        ("x-state", "good", 1),
    ] {
        let first = Reply::ok("first").header(name, value);
        run.up["a"].on("/headers", [first, Reply::ok("second")]);
        run.send(get("/headers").expect(200))?;
        run.note(
            &format!("{name} {value}"),
            format!("meant for {attempts} attempts"),
        );
    }
    Ok(())
}

fn reset(run: &mut Run<'_>) -> Result<()> {
    for (reply, expected) in [
        (Reply::close(), 200),
        (Reply::reset(), 200),
        (Reply::raw("garbage\r\n\r\n").then_close(), 200),
        (Reply::status(503), 503),
    ] {
        run.up["a"].on("/reset", [reply, Reply::ok("again")]);
        run.send(get("/reset").expect(expected))?;
    }
    run.up["a"].on("/reset", [Reply::close()]);
    run.send(get("/reset").expect(503))?;
    run.counters(&STATS)
}

fn reset_before_request(run: &mut Run<'_>) -> Result<()> {
    // The request had been written by the time the connection ended.
    run.up["a"].on("/before", [Reply::close(), Reply::ok("again")]);
    run.send(get("/before").expect(503))?;
    run.counters(&STATS)
}

fn connect_failure(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/dead").expect(503))?;
    run.counters(&[
        "cluster.dead.upstream_rq_retry",
        "cluster.dead.upstream_rq_retry_limit_exceeded",
        "cluster.dead.upstream_rq_retry_success",
        "cluster.dead.upstream_cx_connect_fail",
        "cluster.dead.upstream_rq_total",
        "cluster.dead.upstream_rq_503",
    ])?;
    // A connection that breaks later is not a failure to connect.
    run.up["a"].on("/connect", [Reply::close(), Reply::ok("again")]);
    run.send(get("/connect").expect(503))?;
    Ok(())
}

fn envoy_ratelimited(run: &mut Run<'_>) -> Result<()> {
    let limited = |status| Reply::status(status).header("x-envoy-ratelimited", "true");
    run.up["a"].on("/limited", [limited(429), Reply::ok("x")]);
    run.send(get("/limited").expect(200))?;
    run.up["a"].on("/limited", [Reply::status(429), Reply::ok("x")]);
    run.send(get("/limited").expect(429))?;
    run.up["a"].on("/5xx", [limited(503), Reply::ok("x")]);
    run.send(get("/5xx").expect(503))?;
    Ok(())
}

fn grpc_statuses(run: &mut Run<'_>) -> Result<()> {
    for (code, attempts) in [("14", 2), ("1", 2), ("13", 1), ("0", 1)] {
        let first = Reply::ok("").header("grpc-status", code);
        run.up["a"].on("/grpc", [first, Reply::ok("second")]);
        run.send(get("/grpc").expect(200))?;
        run.note(
            &format!("grpc-status {code}"),
            format!("meant for {attempts} attempts"),
        );
    }
    Ok(())
}

fn odd_tokens(run: &mut Run<'_>) -> Result<()> {
    play(run, get("/spaces"), "/spaces", &[500], 200)?;
    Ok(())
}

fn limits(run: &mut Run<'_>) -> Result<()> {
    for (path, statuses, expected) in [
        ("/zero", &[503][..], 503),
        ("/default", &[503], 200),
        ("/default", &[503, 502], 502),
        ("/plain", &[503], 503),
        ("/picky", &[503], 503),
    ] {
        play(run, get(path), path, statuses, expected)?;
    }
    play(
        run,
        get("/picky").header("x-ok", "1"),
        "/picky",
        &[503],
        200,
    )?;
    run.counters(&STATS)
}

fn started_responses(run: &mut Run<'_>) -> Result<()> {
    let started = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    run.up["a"].on(
        "/5xx",
        [Reply::raw(started).then_close(), Reply::ok("again")],
    );
    run.send(get("/5xx").expect(200).fate())?;
    run.counters(&STATS)
}

fn request_headers_of_friends(run: &mut Run<'_>) -> Result<()> {
    let ask = || {
        get("/plain")
            .on("internal")
            .header("x-envoy-retry-on", "5xx")
    };
    play(run, ask(), "/plain", &[503], 200)?;
    play(run, ask(), "/plain", &[503, 503], 503)?;
    play(
        run,
        ask().header("x-envoy-max-retries", "3"),
        "/plain",
        &[503, 503, 503],
        200,
    )?;
    play(
        run,
        ask().header("x-envoy-max-retries", "junk"),
        "/plain",
        &[503, 503],
        503,
    )?;
    play(
        run,
        ask().header("x-envoy-max-retries", "0"),
        "/plain",
        &[503],
        503,
    )?;
    let alone = get("/plain")
        .on("internal")
        .header("x-envoy-max-retries", "3");
    play(run, alone, "/plain", &[503], 503)?;
    let added = get("/4xx").on("internal").header("x-envoy-retry-on", "5xx");
    play(run, added, "/4xx", &[503], 200)?;
    let fewer = get("/5xx")
        .on("internal")
        .header("x-envoy-max-retries", "1");
    play(run, fewer, "/5xx", &[503, 503], 503)?;
    run.counters(&STATS)
}

fn request_headers_of_strangers(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/plain")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-max-retries", "3");
    play(run, ask, "/plain", &[503], 503)?;
    Ok(())
}

fn request_headers_choose(run: &mut Run<'_>) -> Result<()> {
    let ask = |on: &str| get("/plain").on("internal").header("x-envoy-retry-on", on);
    let codes =
        ask("retriable-status-codes").header("x-envoy-retriable-status-codes", "418, 999,junk");
    play(run, codes, "/plain", &[418], 200)?;
    let names = ask("retriable-headers").header("x-envoy-retriable-header-names", "x-a,X-Again");
    run.up["a"].on(
        "/plain",
        [Reply::ok("1").header("x-again", "1"), Reply::ok("2")],
    );
    run.send(names.expect(200))?;
    let grpc = get("/plain")
        .on("internal")
        .header("x-envoy-retry-grpc-on", "unavailable");
    run.up["a"].on(
        "/plain",
        [Reply::ok("1").header("grpc-status", "14"), Reply::ok("2")],
    );
    run.send(grpc.expect(200))?;
    Ok(())
}

fn attempt_count(run: &mut Run<'_>) -> Result<()> {
    let at = |path: &str| get(path).host("counting.example");
    play(run, at("/"), "/", &[503, 503], 200)?;
    play(
        run,
        at("/").header("x-envoy-attempt-count", "7"),
        "/",
        &[503, 503, 503],
        503,
    )?;
    run.up["a"].on("/try", [Reply::hang(), Reply::status(503), Reply::ok("x")]);
    run.send(at("/try").expect(200))?;
    run.send(at("/dead").expect(503))?;
    Ok(())
}

fn virtual_host_policy(run: &mut Run<'_>) -> Result<()> {
    let at = |path: &str| get(path).host("inherited.example");
    play(run, at("/"), "/", &[500, 500], 200)?;
    play(run, at("/own"), "/own", &[500], 500)?;
    play(run, at("/own"), "/own", &[502, 502], 502)?;
    Ok(())
}

/// It replaces the route's, but for the timeouts of attempts.
fn cluster_policy(run: &mut Run<'_>) -> Result<()> {
    play(run, get("/owned"), "/owned", &[409], 409)?;
    play(run, get("/owned"), "/owned", &[502, 502, 502], 502)?;
    run.up["a"].on(
        "/owned",
        [Reply::hang(), Reply::status(502), Reply::ok("x")],
    );
    run.send(get("/owned").expect(200))?;
    Ok(())
}

fn bodies_are_replayed(run: &mut Run<'_>) -> Result<()> {
    let post = || request("POST", "/5xx");
    play(run, post().body("hello world"), "/5xx", &[503, 503], 200)?;
    play(
        run,
        post().chunked("hello chunks"),
        "/5xx",
        &[503, 503],
        200,
    )?;
    run.up["a"].on("/5xx", [Reply::close(), Reply::ok("again")]);
    run.send(post().body("hello again").expect(200).fate())?;
    run.counters(&[
        "cluster.a.retry_or_shadow_abandoned",
        "cluster.a.upstream_rq_retry",
    ])
}

fn continue_ends_them(run: &mut Run<'_>) -> Result<()> {
    let first = Reply::status(503).first("HTTP/1.1 103 Early Hints\r\n\r\n");
    run.up["a"].on("/5xx", [first, Reply::ok("again")]);
    run.send(get("/5xx"))?;
    let first = Reply::status(503).first("HTTP/1.1 100 Continue\r\n\r\n");
    run.up["a"].on("/5xx", [first, Reply::ok("again")]);
    run.send(request("POST", "/5xx").body("x"))?;
    Ok(())
}
