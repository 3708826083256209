//! Endpoints that are checked.

use e2e::{
    client::Connection,
    process::Proxy,
    upstream::{DeadPort, Reply, Upstream},
    wait::{Deadline, until},
};

use crate::support::{bootstrap, get, start};

const CHECK: &str = "common_lb_config: {healthy_panic_threshold: {value: 0}}
    health_checks:
    - timeout: 2s
      interval: 0.02s
      no_traffic_interval: 0.02s
      unhealthy_threshold: 2
      healthy_threshold: 2
      http_health_check: {path: /hc}";

fn status(proxy: &Proxy) -> u16 {
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/x"));
    connection.response(false).status
}

fn await_stat(proxy: &Proxy, name: &str, enough: impl Fn(i64) -> bool) {
    let name = format!("cluster.upstream.{name}");
    let reached = until(Deadline::default(), || {
        enough(proxy.admin().stat(&name).ok()?).then_some(())
    });
    assert!(
        reached.is_some(),
        "{name} is {:?}",
        proxy.admin().stat(&name)
    );
}

fn await_status(proxy: &Proxy, wanted: u16) {
    let reached = until(Deadline::default(), || {
        (status(proxy) == wanted).then_some(())
    });
    assert!(reached.is_some(), "it never answers {wanted}");
}

#[test]
fn an_upstream_that_falls_ill_gets_no_requests_until_it_is_well_again() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", CHECK));
    assert_eq!(status(&proxy), 200);
    upstream.on("/hc", [Reply::status(503)]);
    await_stat(&proxy, "health_check.healthy", |healthy| healthy == 0);
    assert_eq!(status(&proxy), 503);
    let text = proxy.admin().text("/clusters").unwrap();
    assert!(text.contains("health_flags::/failed_active_hc\n"), "{text}");
    let json = proxy.admin().text("/clusters?format=json").unwrap();
    assert!(
        json.contains("\"failed_active_health_check\": true"),
        "{json}"
    );
    upstream.on("/hc", [Reply::ok("")]);
    await_status(&proxy, 200);
}

#[test]
fn one_that_flaps_stays_out() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", CHECK));
    // Never two good answers in a row.
    let flapping = std::iter::repeat_n([Reply::status(500), Reply::ok("")], 500).flatten();
    upstream.on("/hc", flapping);
    await_stat(&proxy, "health_check.failure", |failures| failures >= 2);
    for _ in 0..3 {
        let checks = proxy.admin().stat("cluster.upstream.health_check.success");
        let checks = checks.unwrap();
        assert_eq!(status(&proxy), 503);
        await_stat(&proxy, "health_check.success", |now| now >= checks + 2);
        assert_eq!(
            proxy
                .admin()
                .stat("cluster.upstream.membership_healthy")
                .unwrap(),
            0
        );
    }
}

#[test]
fn an_upstream_that_dies_is_noticed_without_a_request() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", CHECK));
    drop(upstream);
    await_stat(&proxy, "health_check.healthy", |healthy| healthy == 0);
    assert_eq!(status(&proxy), 503);
    let connections = proxy.admin().stat("cluster.upstream.upstream_cx_total");
    assert_eq!(connections.unwrap(), 0, "nobody was sent there");
}

#[test]
fn a_dead_upstream_takes_requests_in_panic_only() {
    let dead = DeadPort::refusing().unwrap();
    let panicking = CHECK.replace("value: 0", "value: 50");
    let proxy = start(&bootstrap(dead.address(), "", &panicking));
    assert_eq!(status(&proxy), 503);
    for (stat, value) in [("lb_healthy_panic", 1), ("upstream_cx_connect_fail", 1)] {
        let name = format!("cluster.upstream.{stat}");
        assert_eq!(proxy.admin().stat(&name).unwrap(), value, "{stat}");
    }
}
