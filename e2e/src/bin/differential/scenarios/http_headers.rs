//! Headers that the connection manager adds, rewrites or removes.

use anyhow::Result;
use e2e::upstream::Reply;

use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const INTERNAL: &str = "
    use_remote_address: true
    internal_address_config:
      cidr_ranges:
      - {address_prefix: 0.0.0.0, prefix_len: 0}
";

pub(super) fn groups() -> Vec<Group> {
    let with = |name: &'static str, fields: &'static str| Hcm {
        name,
        fields,
        ..Hcm::default()
    };
    let bootstrap = Bootstrap::default()
        .listener(&with("main", ""))
        .listener(&with("edge", "use_remote_address: true"))
        .listener(&with("internal", INTERNAL))
        .listener(&with("hops", "use_remote_address: true\nxff_num_trusted_hops: 1"))
        .listener(&with("noappend", "use_remote_address: true\nskip_xff_append: true"))
        .listener(&with("inner", "
            use_remote_address: false
            xff_num_trusted_hops: 1
            internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]}
        "))
        .listener(&with("ids", "use_remote_address: true\npreserve_external_request_id: true\nalways_set_request_id_in_response: true"))
        .listener(&with("noid", "generate_request_id: false"))
        .listener(&with("absent", "server_header_transformation: APPEND_IF_ABSENT\nserver_name: ours"))
        .listener(&with("pass", "server_header_transformation: PASS_THROUGH"))
        .listener(&with("named", "server_name: ours\nvia: one"))
        .listener(&with("agent", "add_user_agent: true"))
        .listener(&Hcm {
            name: "quiet",
            router: "suppress_envoy_headers: true",
            ..Hcm::default()
        })
        .listener(&with("ports", "strip_any_host_port: true"))
        .listener(&with("dots", "strip_trailing_host_dot: true"))
        .top("node: {id: node-1, cluster: nodes}")
        .cluster("a", &["a"], "");
    vec![group(
        bootstrap,
        [
            ("http/hop_by_hop_headers", hop_by_hop_headers),
            (
                "http/hop_by_hop_response_headers",
                hop_by_hop_response_headers,
            ),
            ("http/server_header", server_header),
            ("http/date_header", date_header),
            ("http/via_header", via_header),
            ("http/x_forwarded_for", x_forwarded_for),
            ("http/x_forwarded_proto", x_forwarded_proto),
            ("http/x_request_id", x_request_id),
            ("http/x_request_id_of_clients", x_request_id_of_clients),
            (
                "http/x_envoy_headers_of_strangers",
                x_envoy_headers_of_strangers,
            ),
            (
                "http/x_envoy_headers_of_friends",
                x_envoy_headers_of_friends,
            ),
            ("http/x_envoy_response_headers", x_envoy_response_headers),
            ("http/suppressed_envoy_headers", suppressed_envoy_headers),
            ("http/user_agent", user_agent),
            ("http/host_is_stripped", host_is_stripped),
            ("http/header_order", header_order),
            ("http/repeated_headers", repeated_headers),
        ],
    )]
}

fn hop_by_hop_headers(run: &mut Run<'_>) -> Result<()> {
    let ask = get("/1")
        .header("Connection", "keep-alive, x-nominated, te")
        .header("x-nominated", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers");
    run.send(ask.expect(200).fate())?;
    for te in [
        "trailers",
        "gzip",
        "gzip, trailers",
        "trailers;q=0.5",
        "deflate;q=1, TRAILERS",
    ] {
        run.send(get("/te").header("TE", te).expect(200))?;
    }
    let ask = get("/auth")
        .header("Proxy-Authorization", "basic x")
        .header("Proxy-Authenticate", "basic")
        .header("Trailer", "x-end")
        .header("Referer", "not a url");
    run.send(ask.expect(200))?;
    run.send(
        get("/ref")
            .header("Referer", "http://a.example/b")
            .expect(200),
    )?;
    Ok(())
}

fn hop_by_hop_response_headers(run: &mut Run<'_>) -> Result<()> {
    let reply = Reply::ok("x")
        .header("Connection", "keep-alive, x-nominated")
        .header("x-nominated", "1")
        .header("Keep-Alive", "timeout=5")
        .header("Proxy-Connection", "keep-alive")
        .header("Upgrade", "h2c")
        .header("Proxy-Authenticate", "basic");
    run.up["a"].on("/1", [reply]);
    run.send(get("/1").expect(200).fate())?;
    Ok(())
}

fn server_header(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/own", [Reply::ok("x").header("Server", "upstream/1")]);
    for listener in ["main", "absent", "pass", "named"] {
        run.send(get("/own").on(listener).expect(200))?;
        run.send(get("/none").on(listener).expect(200))?;
    }
    Ok(())
}

fn date_header(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/dated", [Reply::ok("x").header("Date", "yesterday")]);
    run.send(get("/dated").expect(200))?;
    Ok(())
}

fn via_header(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/via", [Reply::ok("x").header("Via", "1.1 up")]);
    run.send(
        get("/via")
            .header("Via", "1.1 client")
            .on("named")
            .expect(200),
    )?;
    run.send(get("/none").on("named").expect(200))?;
    Ok(())
}

fn x_forwarded_for(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "edge", "hops", "noappend", "inner", "internal"] {
        for value in [
            "",
            "1.2.3.4",
            "1.2.3.4, 5.6.7.8",
            "10.0.0.1",
            "10.0.0.1, 10.0.0.2",
            "junk",
            "junk, 10.0.0.1",
            "10.0.0.1, junk",
            "10.0.0.1:80",
            "[fd00::1]:80",
            "fd00::1",
            "unknown",
        ] {
            let mut ask = get("/xff")
                .on(listener)
                .header("x-envoy-external-address", "9.9.9.9");
            if !value.is_empty() {
                ask = ask.header("X-Forwarded-For", value);
            }
            run.send(ask.expect(200))?;
        }
    }
    Ok(())
}

fn x_forwarded_proto(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "edge", "hops"] {
        for value in ["http", "https", "HTTPS", "ftp", ""] {
            let ask = get("/xfp").on(listener).header("X-Forwarded-Proto", value);
            // An empty scheme matches no route, unless the connection's own replaces it.
            let lost = value.is_empty() && listener != "edge";
            run.send(ask.expect(if lost { 404 } else { 200 }))?;
        }
    }
    Ok(())
}

const ID: &str = "01234567-89ab-4def-8123-456789abcdef";

fn x_request_id(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "ids", "noid"] {
        run.send(get("/id").on(listener).expect(200))?;
    }
    Ok(())
}

fn x_request_id_of_clients(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "edge", "ids", "noid", "internal"] {
        for id in [ID, "my-own-id", ""] {
            run.send(
                get("/id")
                    .on(listener)
                    .header("X-Request-Id", id)
                    .expect(200),
            )?;
        }
    }
    run.up["a"].on(
        "/forced",
        [Reply::ok("x").header("x-request-id", "from-upstream")],
    );
    run.send(get("/forced").on("ids").expect(200))?;
    Ok(())
}

fn with_envoy_headers(mut ask: Ask) -> Ask {
    for name in [
        "x-envoy-retry-on",
        "x-envoy-retry-grpc-on",
        "x-envoy-max-retries",
        "x-envoy-retriable-status-codes",
        "x-envoy-retriable-header-names",
        "x-envoy-upstream-alt-stat-name",
        "x-envoy-upstream-rq-timeout-ms",
        "x-envoy-upstream-rq-per-try-timeout-ms",
        "x-envoy-upstream-rq-timeout-alt-response",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-force-trace",
        "x-envoy-ip-tags",
        "x-envoy-original-url",
        "x-envoy-hedge-on-per-try-timeout",
        "x-envoy-internal",
        "x-envoy-decorator-operation",
        "x-envoy-downstream-service-cluster",
        "x-envoy-downstream-service-node",
        "x-envoy-original-path",
        "x-envoy-original-host",
        "x-envoy-upstream-stream-duration-ms",
        "x-envoy-attempt-count",
        "x-envoy-is-timeout-retry",
        "x-envoy-unknown",
    ] {
        let value = if name.ends_with("-ms") { "7000" } else { "1" };
        ask = ask.header(name, value);
    }
    ask
}

fn x_envoy_headers_of_strangers(run: &mut Run<'_>) -> Result<()> {
    for listener in ["main", "edge"] {
        run.send(with_envoy_headers(get("/x")).on(listener).expect(200))?;
    }
    Ok(())
}

fn x_envoy_headers_of_friends(run: &mut Run<'_>) -> Result<()> {
    run.send(with_envoy_headers(get("/x")).on("internal").expect(200))?;
    for (name, value) in [
        ("x-envoy-upstream-rq-timeout-ms", "2000"),
        ("x-envoy-upstream-rq-timeout-ms", "junk"),
        ("x-envoy-upstream-rq-timeout-ms", "0"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "3000"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "30000"),
    ] {
        run.send(get("/t").on("internal").header(name, value).expect(200))?;
    }
    Ok(())
}

fn x_envoy_response_headers(run: &mut Run<'_>) -> Result<()> {
    let reply = Reply::ok("x")
        .header("x-envoy-upstream-service-time", "77777")
        .header("x-envoy-overloaded", "true")
        .header("x-envoy-attempt-count", "9")
        .header("x-envoy-upstream-canary", "true")
        .header("x-envoy-immediate-health-check-fail", "1")
        .header("x-envoy-decorator-operation", "op");
    run.up["a"].on("/", [reply]);
    run.send(get("/resp").expect(200))?;
    Ok(())
}

fn suppressed_envoy_headers(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/1").on("quiet").expect(200))?;
    let reply = Reply::ok("x").header("x-envoy-upstream-service-time", "5");
    run.up["a"].on("/own", [reply]);
    run.send(get("/own").on("quiet").expect(200))?;
    Ok(())
}

fn user_agent(run: &mut Run<'_>) -> Result<()> {
    run.send(get("/1").on("agent").expect(200))?;
    run.send(
        get("/2")
            .on("agent")
            .header("User-Agent", "curl/8")
            .expect(200),
    )?;
    Ok(())
}

fn host_is_stripped(run: &mut Run<'_>) -> Result<()> {
    for (listener, host) in [
        ("ports", "a.example:80"),
        ("ports", "a.example:12345"),
        ("ports", "[::1]:80"),
        ("ports", "a.example"),
        ("dots", "a.example."),
        ("dots", "a.example.:80"),
        ("dots", "a.example.."),
    ] {
        run.send(get("/h").on(listener).host(host).expect(200))?;
    }
    Ok(())
}

fn header_order(run: &mut Run<'_>) -> Result<()> {
    let reply = Reply::ok("x")
        .header("x-2", "b")
        .header("X-1", "a")
        .header("set-cookie", "c");
    run.up["a"].on("/", [reply]);
    let ask = get("/order")
        .header("x-b", "1")
        .header("x-a", "2")
        .header("accept", "*/*");
    run.send(ask.expect(200).ordered())?;
    Ok(())
}

fn repeated_headers(run: &mut Run<'_>) -> Result<()> {
    let reply = Reply::ok("x")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("x-r", "1")
        .header("X-R", "2")
        .header("cache-control", "no-cache")
        .header("cache-control", "no-store");
    run.up["a"].on("/", [reply]);
    let ask = request("GET", "/repeat")
        .header("x-r", "1")
        .header("x-r", "2");
    run.send(ask.expect(200))?;
    Ok(())
}
