//! gRPC: statuses that stand in heads or trailers.

use anyhow::Result;
use e2e::upstream::Reply;

use super::{http_options, http2::HTTP2};
use crate::ask::{Ask, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const LOG: &str = r#"
- name: envoy.access_loggers.stdout
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
    log_format: {text_format_source: {inline_string: "+ %RESPONSE_CODE% %GRPC_STATUS% %GRPC_STATUS(CAMEL_STRING)% %GRPC_STATUS_NUMBER% %RESPONSE_FLAGS% %TRAILER(grpc-message)%\n"}}
"#;

pub(super) fn groups() -> Vec<Group> {
    let routes = "
        virtual_hosts:
        - name: all
          domains: ['test.example']
          routes:
          - {match: {prefix: /t.Empty/}, route: {cluster: empty}}
          - {match: {prefix: /t.Full/}, route: {cluster: full}}
          - {match: {prefix: /t.Dead/}, route: {cluster: dead}}
          - {match: {prefix: /t.Slow/}, route: {cluster: a, timeout: 0.3s}}
          - {match: {prefix: /t.Forbidden/}, direct_response: {status: 403, body: {inline_string: 'not you'}}}
          - {match: {prefix: /t.Moved/}, redirect: {path_redirect: /there}}
          - {match: {prefix: /t.Deadline/}, route: {cluster: a, max_stream_duration: {grpc_timeout_header_max: 0s}}}
          - {match: {prefix: /t.Bounded/}, route: {cluster: a, max_stream_duration: {grpc_timeout_header_max: 0.3s}}}
          - {match: {prefix: /t.Duration/}, route: {cluster: a, timeout: 0s, max_stream_duration: {max_stream_duration: 0.3s}}}
          - {match: {prefix: /t.Retry/}, route: {cluster: a, retry_policy: {retry_on: 'cancelled,deadline-exceeded,internal,resource-exhausted,unavailable', num_retries: 1, retry_back_off: {base_interval: 0.001s}}}}
          - {match: {prefix: /t.Outlier/}, route: {cluster: outlier}}
          - {match: {prefix: /}, route: {cluster: a}}
    ";
    let outlier = "outlier_detection: {consecutive_5xx: 2, enforcing_consecutive_5xx: 100, max_ejection_percent: 100, interval: 3600s}\n";
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            routes,
            logs: LOG,
            ..Hcm::default()
        })
        .cluster("a", &["a"], &http_options(HTTP2))
        .cluster("empty", &[], &http_options(HTTP2))
        .cluster("dead", &["dead"], &http_options(HTTP2))
        .cluster(
            "full",
            &["b"],
            &format!(
                "circuit_breakers: {{thresholds: [{{max_requests: 0, max_pending_requests: 0}}]}}\n{}",
                http_options(HTTP2)
            ),
        )
        .cluster("outlier", &["o"], &format!("{outlier}{}", http_options(HTTP2)));
    vec![group(
        bootstrap,
        [
            ("grpc/calls", calls),
            ("grpc/statuses", statuses),
            ("grpc/local_replies", local_replies),
            ("grpc/http_answers", http_answers),
            ("grpc/deadlines", deadlines),
            ("grpc/retries", retries),
            ("grpc/retry_headers", retry_headers),
            ("grpc/late_statuses_are_not_retried", late_statuses),
            ("grpc/outlier", outlier_detection),
            ("grpc/over_http1", over_http1),
            ("grpc/resets", resets),
        ],
    )]
}

fn call(path: &str) -> Ask {
    head(path).data("\0\0\0\0\u{2}hi")
}

fn head(path: &str) -> Ask {
    request("POST", path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

fn calls(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/t.T/", [Reply::grpc("hello", "0")]);
    run.send_http2(call("/t.T/Unary").expect(200))?;
    run.send_http2(call("/t.T/Unary").header("grpc-timeout", "1S"))?;
    run.counters(&["cluster.a.upstream_rq_2xx", "http.main.downstream_rq_2xx"])
}

fn statuses(run: &mut Run<'_>) -> Result<()> {
    for status in ["0", "1", "5", "13", "14", "16", "17", "x", "-1"] {
        run.up["a"].on(
            "/t.T/Early",
            [Reply::grpc_error(status, "why not %E2%82%AC")],
        );
        run.up["a"].on("/t.T/Late", [Reply::grpc("part", status)]);
        run.send_http2(call("/t.T/Early").expect(200))?;
        run.send_http2(call("/t.T/Late").expect(200))?;
    }
    run.counters(&[
        "cluster.a.upstream_rq_2xx",
        "cluster.a.upstream_rq_5xx",
        "http.main.downstream_rq_5xx",
    ])
}

fn local_replies(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/t.Slow/", [Reply::hang()]);
    // How much of a message has arrived by the time of such an answer is chance: there is none.
    for service in ["Empty", "Full", "Dead", "Slow", "Forbidden", "Moved"] {
        run.send_http2(head(&format!("/t.{service}/M")))?;
    }
    run.send_http2(head("/t.T/M").host("elsewhere.example"))?;
    run.counters(&[
        "cluster.empty.upstream_cx_none_healthy",
        "http.main.downstream_rq_2xx",
        "http.main.downstream_rq_5xx",
    ])
}

/// Answers of somebody who speaks no gRPC.
fn http_answers(run: &mut Run<'_>) -> Result<()> {
    for status in [200, 400, 401, 404, 429, 500, 502, 503, 504] {
        run.up["a"].on("/t.T/", [Reply::status(status).body("no grpc")]);
        run.send_http2(call("/t.T/M"))?;
    }
    Ok(())
}

fn deadlines(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/", [Reply::hang()]);
    run.send_http2(call("/t.Deadline/M").header("grpc-timeout", "300m"))?;
    run.send_http2(call("/t.Bounded/M").header("grpc-timeout", "1H"))?;
    run.send_http2(call("/t.Bounded/M").header("grpc-timeout", "100m"))?;
    run.send_http2(call("/t.Duration/M"))?;
    run.up["a"].on(
        "/",
        [Reply::ok("part")
            .header("content-type", "application/grpc")
            .then_hang()],
    );
    run.send_http2(call("/t.Duration/M"))?;
    run.counters(&[
        "cluster.a.upstream_rq_timeout",
        "http.main.downstream_rq_max_duration_reached",
        "http.main.downstream_rq_timeout",
    ])
}

fn retries(run: &mut Run<'_>) -> Result<()> {
    for status in ["1", "2", "4", "7", "8", "13", "14"] {
        run.up["a"].on(
            "/t.Retry/",
            [
                Reply::grpc_error(status, "again"),
                Reply::grpc("hello", "0"),
            ],
        );
        run.send_http2(call("/t.Retry/M").expect(200))?;
    }
    run.up["a"].on("/t.Retry/", [Reply::grpc_error("14", "again")]);
    run.send_http2(call("/t.Retry/M").expect(200))?;
    run.counters(&[
        "cluster.a.upstream_rq_retry",
        "cluster.a.upstream_rq_retry_success",
        "cluster.a.upstream_rq_retry_limit_exceeded",
    ])
}

fn retry_headers(run: &mut Run<'_>) -> Result<()> {
    let ask = |on: &str| {
        call("/t.T/M")
            .header("x-envoy-retry-grpc-on", on)
            .header("x-envoy-max-retries", "2")
    };
    for on in ["unavailable", "cancelled", "nonsense, unavailable", ""] {
        run.up["a"].on(
            "/t.T/",
            [
                Reply::grpc_error("14", "again"),
                Reply::grpc_error("14", "again"),
                Reply::grpc("hello", "0"),
            ],
        );
        run.send_http2(ask(on).expect(200))?;
    }
    Ok(())
}

fn late_statuses(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on(
        "/t.Retry/",
        [Reply::grpc("part", "14"), Reply::grpc("hello", "0")],
    );
    run.send_http2(call("/t.Retry/M").expect(200))?;
    Ok(())
}

fn outlier_detection(run: &mut Run<'_>) -> Result<()> {
    run.up["o"].on("/", [Reply::grpc_error("7", "not you")]);
    run.send_http2(call("/t.Outlier/M"))?;
    run.send_http2(call("/t.Outlier/M"))?;
    run.health("outlier")?;
    run.up["o"].on("/", [Reply::grpc_error("14", "away")]);
    run.send_http2(call("/t.Outlier/M"))?;
    run.send_http2(call("/t.Outlier/M"))?;
    run.health("outlier")?;
    run.send_http2(call("/t.Outlier/M"))?;
    run.gauges(&["cluster.outlier.outlier_detection.ejections_active"])
}

fn over_http1(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/t.T/", [Reply::grpc("hello", "0")]);
    let call = |path: &str| {
        request("POST", path)
            .header("Content-Type", "application/grpc")
            .header("TE", "trailers")
            .body("\0\0\0\0\u{2}hi")
    };
    run.send(call("/t.T/M").expect(200))?;
    run.send(call("/t.Empty/M").expect(200))?;
    run.send(call("/t.Forbidden/M").expect(200))?;
    Ok(())
}

fn resets(run: &mut Run<'_>) -> Result<()> {
    for reason in [2, 7, 8] {
        run.up["a"].on("/t.T/", [Reply::reset_stream(reason)]);
        run.send_http2(call("/t.T/M"))?;
    }
    run.up["a"].on("/t.T/", [Reply::close()]);
    run.send_http2(call("/t.T/M"))?;
    Ok(())
}
