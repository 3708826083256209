//! Tunnels: WebSocket and CONNECT, in both protocols.

use anyhow::Result;
use e2e::upstream::Reply;

use super::http_options;
use crate::ask::{Ask, get, request};
use crate::config::{Bootstrap, Hcm};
use crate::run::Run;
use crate::suite::{Group, group};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-up: 1\r\n\r\n";

pub(super) fn groups() -> Vec<Group> {
    let routes = "
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {match: {connect_matcher: {}}, route: {cluster: b, upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}
          - {match: {prefix: /never}, route: {cluster: b, upgrade_configs: [{upgrade_type: websocket, enabled: false}]}}
          - {match: {prefix: /other}, route: {cluster: b, upgrade_configs: [{upgrade_type: other}]}}
          - {match: {prefix: /two}, route: {cluster: a}}
          - {match: {prefix: /}, route: {cluster: b}}
    ";
    let passed = "
        virtual_hosts:
        - name: all
          domains: ['*']
          routes:
          - {match: {connect_matcher: {}}, route: {cluster: a, upgrade_configs: [{upgrade_type: CONNECT}]}}
    ";
    let passed_one = passed.replace("cluster: a", "cluster: b");
    let websocket = "upgrade_configs: [{upgrade_type: websocket}]\nhttp2_protocol_options: {allow_connect: true}";
    let connect = "http2_protocol_options: {allow_connect: true}";
    let bootstrap = Bootstrap::default()
        .listener(&Hcm {
            fields: websocket,
            routes,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "closed",
            routes,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "passed",
            fields: connect,
            routes: passed,
            ..Hcm::default()
        })
        .listener(&Hcm {
            name: "passedone",
            fields: connect,
            routes: &passed_one,
            ..Hcm::default()
        })
        .cluster(
            "a",
            &["a"],
            &http_options("explicit_http_config: {http2_protocol_options: {allow_connect: true}}"),
        )
        .cluster("b", &["b"], "");
    vec![group(
        bootstrap,
        [
            ("upgrade/accepted", accepted),
            ("upgrade/refused_by_the_upstream", refused_by_the_upstream),
            ("upgrade/not_allowed", not_allowed),
            ("upgrade/routes_decide", routes_decide),
            ("upgrade/to_http2", to_http2),
            ("upgrade/from_http2", from_http2),
            ("upgrade/http2_both_ways", http2_both_ways),
            ("upgrade/connect_ends_here", connect_ends_here),
            ("upgrade/connect_is_passed_on", connect_is_passed_on),
            ("upgrade/connect_over_http2", connect_over_http2),
            ("upgrade/stats", stats),
        ],
    )]
}

fn websocket(path: &str) -> Ask {
    get(path)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
}

fn extended(path: &str, protocol: &str) -> Ask {
    request("CONNECT", path)
        .header(":protocol", protocol)
        .header("sec-websocket-version", "13")
        .open()
}

/// Through a tunnel over HTTP/1.1: the head of the grant, and what comes back.
fn through(run: &mut Run<'_>, ask: Ask) -> Result<()> {
    let step = run.step(&ask.label);
    let mut connection = run.open(&ask.listener)?;
    connection.send(&ask.bytes());
    match connection.head() {
        Ok(head) => {
            run.note(&format!("{step}.line"), &*head.start);
            let mut fields = head.fields.clone();
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case("date"));
            fields.sort();
            for (name, value) in fields {
                run.note(&format!("{step}.header.{name}"), value);
            }
        }
        Err(end) => run.note(&format!("{step}.line"), format!("none: {end:?}")),
    }
    connection.send(b"there and back");
    let back = connection.bytes(14);
    run.note(&format!("{step}.back"), String::from_utf8_lossy(&back));
    drop(connection);
    run.await_gauge(&format!("http.{}.downstream_cx_active", ask.listener), 0)?;
    run.settle(&step)
}

/// The same over HTTP/2; the client gives the tunnel up in the end.
fn through_http2(run: &mut Run<'_>, ask: &Ask) -> Result<()> {
    let step = run.step(&format!("{} in HTTP/2", ask.label));
    let mut client = run.open_http2(&ask.listener, &[])?;
    client.settings();
    let stream = client.send(&ask.http2());
    let status = client.status(stream);
    run.note(&format!("{step}.status"), format!("{status:?}"));
    if status.is_some_and(|status| status < 300) {
        client.writer().data(stream, b"there and back", false);
        let back = client.body(stream, 14).map(String::from_utf8_lossy);
        let back = back.map(std::borrow::Cow::into_owned);
        run.note(&format!("{step}.back"), format!("{back:?}"));
    }
    client.writer().reset(stream, 8);
    run.await_gauge(&format!("http.{}.downstream_rq_active", ask.listener), 0)?;
    run.settle(&step)
}

fn accepted(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/ws", [Reply::raw(SWITCHED).then_echo()]);
    through(run, websocket("/ws"))
}

fn refused_by_the_upstream(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/ws", [Reply::status(403).body("no")]);
    run.send(websocket("/ws").expect(403).fate())?;
    run.up["b"].on("/ws", [Reply::ok("no upgrade")]);
    run.send(websocket("/ws").expect(200).fate())?;
    run.up["a"].on("/two", [Reply::status(403).body("no").early()]);
    run.send(websocket("/two").expect(403).fate())?;
    run.up["b"].on("/ws", [Reply::close()]);
    run.send(websocket("/ws").expect(503).fate())?;
    Ok(())
}

fn not_allowed(run: &mut Run<'_>) -> Result<()> {
    run.send(websocket("/ws").on("closed").expect(403).fate())?;
    run.send(
        get("/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", "other")
            .expect(403)
            .fate(),
    )?;
    run.send(get("/ws").header("Upgrade", "websocket").fate())?;
    run.send(
        get("/ws")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", "h2c")
            .header("HTTP2-Settings", "AAMAAABk")
            .fate(),
    )?;
    run.counters(&[
        "http.closed.downstream_rq_ws_on_non_ws_route",
        "http.main.downstream_rq_ws_on_non_ws_route",
    ])
}

fn routes_decide(run: &mut Run<'_>) -> Result<()> {
    run.send(websocket("/never").expect(403).fate())?;
    run.up["b"].on(
        "/other",
        [Reply::raw(SWITCHED.replace("websocket", "other")).then_echo()],
    );
    through(
        run,
        get("/other")
            .header("Connection", "Upgrade")
            .header("Upgrade", "other"),
    )?;
    run.up["b"].on("/other", [Reply::raw(SWITCHED).then_echo()]);
    through(run, websocket("/other"))
}

fn to_http2(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/two", [Reply::status(200).header("x-up", "1").then_echo()]);
    through(run, websocket("/two"))
}

fn from_http2(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/ws", [Reply::raw(SWITCHED).then_echo()]);
    through_http2(run, &extended("/ws", "websocket"))?;
    run.up["b"].on("/ws", [Reply::status(403).body("no")]);
    through_http2(run, &extended("/ws", "websocket"))?;
    through_http2(run, &extended("/ws", "other"))?;
    through_http2(run, &extended("/never", "websocket"))
}

fn http2_both_ways(run: &mut Run<'_>) -> Result<()> {
    run.up["a"].on("/two", [Reply::status(200).then_echo()]);
    through_http2(run, &extended("/two", "websocket"))
}

fn connect(listener: &str) -> Ask {
    let head = "CONNECT test.example:443 HTTP/1.1\r\nHost: test.example:443\r\n\r\n";
    crate::ask::raw(head).on(listener)
}

/// The upstream gets what is in the tunnel alone.
fn connect_ends_here(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/inside", [Reply::ok("inside")]);
    let step = run.step("a request inside a tunnel");
    let mut connection = run.open("main")?;
    connection.send(&connect("main").bytes());
    let head = connection.head().map(|head| head.start);
    run.note(&format!("{step}.line"), format!("{head:?}"));
    connection.send(b"GET /inside HTTP/1.1\r\nHost: in.example\r\nConnection: close\r\n\r\n");
    let inside = connection.response(false);
    run.note(&format!("{step}.inside"), inside.status.to_string());
    drop(connection);
    run.await_gauge("http.main.downstream_cx_active", 0)?;
    run.settle(&step)
}

fn connect_is_passed_on(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("", [Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_echo()]);
    through(run, connect("passedone"))?;
    run.up["b"].on("", [Reply::status(403).body("no")]);
    run.send(connect("passedone"))?;
    run.up["a"].on("", [Reply::status(200).then_echo()]);
    through(run, connect("passed"))
}

fn connect_over_http2(run: &mut Run<'_>) -> Result<()> {
    let ask = |listener: &str| {
        request("CONNECT", "")
            .host("test.example:443")
            .open()
            .on(listener)
    };
    run.up["a"].on("", [Reply::status(200).then_echo()]);
    through_http2(run, &ask("passed"))?;
    run.up["b"].on("", [Reply::raw("HTTP/1.1 200 OK\r\n\r\n").then_echo()]);
    through_http2(run, &ask("passedone"))
}

fn stats(run: &mut Run<'_>) -> Result<()> {
    run.up["b"].on("/ws", [Reply::raw(SWITCHED).then_echo()]);
    let mut connection = run.open("main")?;
    connection.send(&websocket("/ws").bytes());
    let _ = connection.head();
    run.gauges(&[
        "http.main.downstream_cx_upgrades_active",
        "cluster.b.upstream_rq_active",
    ])?;
    drop(connection);
    run.await_gauge("http.main.downstream_cx_upgrades_active", 0)?;
    run.counters(&[
        "http.main.downstream_cx_upgrades_total",
        "cluster.b.upstream_rq_total",
    ])
}
