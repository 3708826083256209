use e2e::{
    client::Connection,
    process::Proxy,
    upstream::{Reply, Upstream},
};
use rustix::process::Signal;

use crate::support::{binary, bootstrap, get, signal};

fn draining(upstream: &Upstream, min: &str, max: &str) -> Proxy {
    let yaml = bootstrap(upstream.address(), "", "");
    let flags = [
        "--concurrency",
        "1",
        "--drain-min-time-s",
        min,
        "--drain-time-s",
        max,
    ];
    Proxy::start_with(&binary(), &yaml, flags).unwrap()
}

#[test]
fn a_running_request_outlives_sigterm_and_the_process_ends_with_it() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/slow", [Reply::ok("late").after("go")]);
    let mut proxy = draining(&upstream, "0", "30");
    let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
    connection.send(&get("/slow"));
    assert!(upstream.wait(|seen| seen.requests == 1));
    signal(&proxy, Signal::TERM);
    e2e::wait::until(e2e::wait::Deadline::default(), || {
        (!proxy.admin().is_ready()).then_some(())
    })
    .unwrap();
    upstream.release("go");
    let response = connection.response(false);
    assert_eq!(
        (response.status, response.body.data.as_slice()),
        (200, &b"late"[..])
    );
    assert!(response.head.lists("connection", "close"));
    assert!(proxy.ended().unwrap().success());
}

#[test]
fn until_the_first_deadline_it_accepts_and_tells_peers_to_go() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 3));
    let mut proxy = draining(&upstream, "1", "30");
    let address = proxy.listener("ingress").unwrap();
    let mut idle = Connection::open(address).unwrap();
    idle.send(&get("/x"));
    assert!(!idle.response(false).head.lists("connection", "close"));
    signal(&proxy, Signal::TERM);
    e2e::wait::until(e2e::wait::Deadline::default(), || {
        (!proxy.admin().is_ready()).then_some(())
    })
    .unwrap();
    let mut fresh = Connection::open(address).unwrap();
    for connection in [&mut idle, &mut fresh] {
        connection.send(&get("/x"));
        let response = connection.response(false);
        assert_eq!(response.status, 200);
        assert!(response.head.lists("connection", "close"));
    }
    assert!(proxy.ended().unwrap().success());
    assert!(Connection::open(address).is_err());
}

#[test]
fn a_second_sigterm_and_the_last_deadline_end_what_is_left() {
    for again in [true, false] {
        let upstream = Upstream::start("a").unwrap();
        upstream.on("/hang", [Reply::hang()]);
        let mut proxy = draining(&upstream, "0", if again { "600" } else { "1" });
        let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        connection.send(&get("/hang"));
        assert!(upstream.wait(|seen| seen.requests == 1));
        signal(&proxy, Signal::TERM);
        if again {
            e2e::wait::until(e2e::wait::Deadline::default(), || {
                (!proxy.admin().is_ready()).then_some(())
            })
            .unwrap();
            signal(&proxy, Signal::TERM);
        }
        assert!(proxy.ended().unwrap().success());
        assert_eq!(connection.response(false).status, 0);
    }
}

#[test]
fn sigint_ends_at_once() {
    let upstream = Upstream::start("a").unwrap();
    let mut proxy = draining(&upstream, "600", "600");
    signal(&proxy, Signal::INT);
    assert!(proxy.ended().unwrap().success());
}

#[test]
fn requests_that_the_kernel_holds_at_the_end_are_answered() {
    const WAITING: usize = 30;
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), WAITING + 1));
    let mut proxy = draining(&upstream, "0", "30");
    let address = proxy.listener("ingress").unwrap();
    let mut kept = Connection::open(address).unwrap();
    kept.send(&get("/x"));
    assert_eq!(kept.response(false).status, 200);
    // While the process stands still, its end and everything else arrive at the same time.
    signal(&proxy, Signal::STOP);
    kept.send(&get("/x"));
    let mut waiting = vec![kept];
    for _ in 1..WAITING {
        let mut connection = Connection::open(address).unwrap();
        connection.send(&get("/x"));
        waiting.push(connection);
    }
    signal(&proxy, Signal::TERM);
    signal(&proxy, Signal::CONT);
    for (number, connection) in waiting.iter_mut().enumerate() {
        assert_eq!(connection.response(false).status, 200, "number {number}");
    }
    assert!(proxy.ended().unwrap().success());
}
