use e2e::{
    client::Connection,
    upstream::{Reply, Upstream},
    wait::{Deadline, until},
};

use crate::support::{bootstrap, get, start};

#[test]
fn out_of_file_descriptors_it_pauses_and_recovers() {
    let upstream = Upstream::start("a").unwrap();
    upstream.on("/x", std::iter::repeat_n(Reply::ok("x"), 2));
    let proxy = start(&bootstrap(upstream.address(), "", ""));
    let id = rustix::process::Pid::from_raw(i32::try_from(proxy.id()).unwrap());
    let limit = rustix::process::Rlimit {
        current: Some(40),
        maximum: Some(40),
    };
    rustix::process::prlimit(id, rustix::process::Resource::Nofile, limit).unwrap();
    let address = proxy.listener("ingress").unwrap();
    let held: Vec<_> = (0..80)
        .map(|_| Connection::open(address).unwrap())
        .collect();
    let admin = proxy.admin();
    let name = format!(
        "listener.127.0.0.1_{}.downstream_cx_overflow",
        address.port()
    );
    drop(held);
    // The admin needs a descriptor too: it answers once the others have gone.
    let paused = until(Deadline::default(), || {
        admin.stat(&name).ok().filter(|paused| *paused > 0)
    });
    assert!(
        paused.is_some_and(|paused| paused < 100),
        "{paused:?}: it must pause, and not spin"
    );
    let mut connection = Connection::open(address).unwrap();
    connection.send(&get("/x"));
    assert_eq!(connection.response(false).status, 200);
}

#[test]
fn heads_that_are_too_large_never_reach_the_upstream() {
    let upstream = Upstream::start("a").unwrap();
    let proxy = start(&bootstrap(upstream.address(), "", ""));
    for head in [
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
            "x".repeat(70_000)
        ),
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(200)
        ),
    ] {
        let mut connection = Connection::open(proxy.listener("ingress").unwrap()).unwrap();
        connection.send(head.as_bytes());
        assert_eq!(connection.response(false).status, 431);
        assert!(connection.closes());
    }
    assert_eq!(upstream.seen().requests, 0);
}
