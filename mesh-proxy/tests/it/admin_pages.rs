//! Pages that people and tools lean on, in the shape that Envoy gives them.

use e2e::{client::Connection, process::Proxy, upstream::Upstream};

use crate::support::{bootstrap, direct, get, start};

fn post(proxy: &Proxy, path: &str) -> (u16, String) {
    let response = proxy.admin().post(path).unwrap();
    let body = String::from_utf8(response.body.data).unwrap();
    (response.status, body)
}

fn json(proxy: &Proxy, path: &str) -> serde_json::Value {
    serde_json::from_str(&proxy.admin().text(path).unwrap()).unwrap()
}

fn status(proxy: &Proxy) -> u16 {
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/"));
    connection.response(false).status
}

#[test]
fn the_runtime_is_shown_modified_and_obeyed() {
    let layers = "layered_runtime: {layers: [{name: base, static_layer: {share: 100, a: {b: x}}}, \
        {name: admin, admin_layer: {}}]}";
    let proxy = start(&direct(layers, "0"));
    let runtime = json(&proxy, "/runtime");
    assert_eq!(runtime["layers"], serde_json::json!(["base", "admin"]));
    assert_eq!(runtime["entries"]["a.b"]["final_value"], "x");
    // The layer wins over the route's own 0 %.
    assert_eq!(status(&proxy), 200);
    assert_eq!(post(&proxy, "/runtime_modify?share=0&c=1").0, 200);
    assert_eq!(status(&proxy), 204);
    let shown = &json(&proxy, "/runtime")["entries"]["share"];
    assert_eq!(shown["layer_values"], serde_json::json!(["100", "0"]));
    assert_eq!(
        proxy
            .admin()
            .stat("runtime.admin_overrides_active")
            .unwrap(),
        1
    );
    assert_eq!(proxy.admin().stat("runtime.num_keys").unwrap(), 3);
    assert_eq!(post(&proxy, "/runtime_modify?share=").0, 200);
    assert_eq!(status(&proxy), 200);
    assert_eq!(post(&proxy, "/runtime_modify").0, 400);
}

#[test]
fn a_form_modifies_the_runtime_too() {
    let proxy = start(&direct(
        "layered_runtime: {layers: [{name: admin, admin_layer: {}}]}",
        "0",
    ));
    let mut connection = Connection::open(proxy.admin().address()).unwrap();
    connection.send(
        b"POST /runtime_modify HTTP/1.1\r\nHost: localhost\r\n\
        Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n\r\nshare=100",
    );
    assert_eq!(connection.response(false).status, 200);
    assert_eq!(status(&proxy), 200);
}

#[test]
fn without_an_admin_layer_the_runtime_is_not_modified() {
    let proxy = start(&direct("", "100"));
    let (status, body) = post(&proxy, "/runtime_modify?a=1");
    assert_eq!((status, body.as_str()), (503, "No admin layer specified"));
    assert_eq!(json(&proxy, "/runtime")["layers"], serde_json::json!([]));
}

#[test]
fn people_may_make_health_checks_fail_and_pass_again() {
    let proxy = start(&direct("", "100"));
    assert_eq!(post(&proxy, "/healthcheck/fail").0, 200);
    let ready = proxy.admin().get("/ready").unwrap();
    assert_eq!(
        (ready.status, &ready.body.data[..]),
        (503, &b"DRAINING\n"[..])
    );
    assert_eq!(json(&proxy, "/server_info")["state"], "DRAINING");
    assert_eq!(proxy.admin().stat("server.state").unwrap(), 1);
    assert_eq!(status(&proxy), 200, "it still serves");
    assert_eq!(post(&proxy, "/healthcheck/ok").0, 200);
    assert!(proxy.admin().is_ready());
}

#[test]
fn every_listed_page_exists_and_those_that_change_something_are_buttons() {
    let proxy = start(&direct("", "100"));
    let help = proxy.admin().text("/help").unwrap();
    let page = proxy.admin().get("/").unwrap();
    assert_eq!(
        page.head.field("content-type"),
        Some("text/html; charset=UTF-8")
    );
    let html = String::from_utf8(page.body.data).unwrap();
    let mut pages = 0;
    for line in help.lines().filter(|line| line.starts_with("  /")) {
        let (path, what) = line.trim().split_once(": ").unwrap();
        assert!(
            html.contains(&what.replace('&', "&amp;")),
            "{path} is not on the page"
        );
        let changes = path.ends_with(" (POST)");
        let path = path.trim_end_matches(" (POST)");
        let status = proxy.admin().get(path).unwrap().status;
        assert_eq!(status, if changes { 405 } else { 200 }, "{path}");
        let button = format!("action='{}' method='post'", path.trim_start_matches('/'));
        assert_eq!(html.contains(&button), changes, "{path}");
        pages += 1;
    }
    assert!(pages > 20);
    assert_eq!(post(&proxy, "/cpuprofiler").0, 501);
    assert_eq!(post(&proxy, "/reopen_logs").0, 200);
}

#[test]
fn a_config_dump_may_be_cut_down() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", ""));
    let names = |dump: &serde_json::Value| -> Vec<String> {
        let configs = dump["configs"].as_array().unwrap().iter();
        let name = |c: &serde_json::Value| {
            let name = c["@type"].as_str().unwrap();
            name.rsplit("v3.").next().unwrap().to_owned()
        };
        configs.map(name).collect()
    };
    let all = [
        "BootstrapConfigDump",
        "ClustersConfigDump",
        "ListenersConfigDump",
        "ScopedRoutesConfigDump",
        "RoutesConfigDump",
        "SecretsConfigDump",
    ];
    assert_eq!(names(&json(&proxy, "/config_dump")), all);
    let with = json(&proxy, "/config_dump?include_eds");
    assert_eq!(names(&with)[2], "EndpointsConfigDump");
    let one = json(
        &proxy,
        "/config_dump?resource=static_clusters&mask=cluster.name",
    );
    let wanted = serde_json::json!({"configs": [{
        "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
        "cluster": {"name": "upstream", "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster"},
    }]});
    assert_eq!(one, wanted);
    let none = json(
        &proxy,
        "/config_dump?resource=static_clusters&name_regex=nobody",
    );
    assert_eq!(none, serde_json::json!({}));
    let ask = |query: &str| {
        let path = format!("/config_dump?{query}");
        proxy.admin().get(&path).unwrap().status
    };
    assert_eq!(ask("resource=nothing"), 404);
    assert_eq!(ask("resource=bootstrap"), 400);
    assert_eq!(ask("mask=nothing.here"), 400);
    assert_eq!(ask("name_regex=("), 400);
    assert_eq!(ask("resource=dynamic_listeners"), 200);
}

#[test]
fn clusters_as_json_say_what_envoys_do() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", "outlier_detection: {}"));
    assert_eq!(status(&proxy), 200);
    let clusters = json(&proxy, "/clusters?format=json");
    let cluster = &clusters["cluster_statuses"][0];
    assert_eq!(
        cluster["circuit_breakers"]["thresholds"][0]["max_retries"],
        3
    );
    assert_eq!(
        cluster["circuit_breakers"]["thresholds"][1]["priority"],
        "HIGH"
    );
    let host = &cluster["host_statuses"][0];
    assert_eq!(
        host["health_status"],
        serde_json::json!({"eds_health_status": "HEALTHY"})
    );
    assert_eq!(host["locality"], serde_json::json!({}));
    let stats = host["stats"].as_array().unwrap();
    let stat = |name: &str| stats.iter().find(|stat| stat["name"] == name).unwrap();
    assert_eq!(stat("rq_total")["value"], "1");
    assert_eq!(stat("rq_pending_active")["type"], "GAUGE");
    assert_eq!(stats.len(), 9);
    let filtered = json(&proxy, "/clusters?format=json&filter=nobody");
    assert_eq!(filtered["cluster_statuses"], serde_json::json!([]));
    assert_eq!(proxy.admin().get("/clusters?filter=(").unwrap().status, 400);
}

#[test]
fn listeners_that_only_announce_their_end_stay_open() {
    let proxy = start(&direct("", "100"));
    assert_eq!(post(&proxy, "/drain_listeners?inboundonly").0, 200);
    assert!(proxy.admin().is_ready(), "no listener is inbound");
    assert_eq!(post(&proxy, "/drain_listeners?graceful&skip_exit").0, 200);
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/"));
    let response = connection.response(false);
    assert_eq!(response.head.field("connection"), Some("close"));
    assert_eq!(status(&proxy), 200, "it still accepts");
}
