//! What a change of config does to sockets and connections.

use std::{net::SocketAddr, sync::Arc};

use clap::Parser as _;
use e2e::{
    client::Connection,
    wait::{Deadline, until},
};
use mesh_client::{Mesh, Worker};
use mesh_core::{Address, Rng, stats::Registry};
use mesh_net::TcpConnector;
use mesh_telemetry::LogWriterConfig;

use super::Listeners;
use crate::{
    flags::Flags,
    worker::{self, Handle},
};

/// Listeners on one worker, without a process around them.
struct Rig {
    listeners: Listeners,
    runtime: tokio::runtime::Runtime,
    _worker: Handle,
}

impl Rig {
    fn new(flags: &[&str]) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let entered = runtime.enter();
        let logs = LogWriterConfig::default();
        let connector = Arc::new(TcpConnector);
        let mesh = Mesh::new(Registry::new(), Rng::seeded(1), logs, connector);
        let worker = Worker::new(mesh.clone(), Arc::new(TcpConnector));
        let handle = worker::start(0, Arc::clone(&worker), None).unwrap();
        let flags = Flags::parse_from(["mesh-proxy"].iter().chain(flags));
        let listeners = Listeners::new(mesh, vec![(worker, handle.commands())], &flags);
        drop(entered);
        Self {
            listeners,
            runtime,
            _worker: handle,
        }
    }

    fn apply(&self, listeners: &[String]) -> anyhow::Result<()> {
        let text = format!(
            "static_resources: {{listeners: [{}]}}",
            listeners.join(", ")
        );
        let source = mesh_config::language::Source::text("test", text);
        let config = mesh_config::load(&source, &mesh_config::LoadOptions::default())?;
        self.runtime.block_on(async {
            let plan = self.listeners.plan(&config.listeners, &config.version);
            let plan = plan.whole()?;
            self.listeners.commit(plan).await
        })
    }

    fn address(&self, name: &str) -> SocketAddr {
        let list = self.listeners.list();
        match list.iter().find(|(known, _)| **known == *name) {
            Some((_, addresses)) => match &addresses[0] {
                Address::Socket(address) => *address,
                other => panic!("{other}"),
            },
            None => panic!("no {name}"),
        }
    }
}

/// A chain that answers with `body`.
fn chain(name: &str, matches: &str, body: &str) -> String {
    format!(
        "{{name: {name}, filter_chain_match: {{{matches}}}, filters: [{{name: hcm, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: i, http_filters: [{{name: router, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}], \
         route_config: {{virtual_hosts: [{{name: v, domains: ['*'], routes: [{{match: {{prefix: /}}, \
         direct_response: {{status: 200, body: {{inline_string: {body}}}}}}}]}}]}}}}}}]}}"
    )
}

fn listener(name: &str, port: u16, chains: &[String]) -> String {
    format!(
        "{{name: {name}, address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}, \
         filter_chains: [{}]}}",
        chains.join(", ")
    )
}

/// The body of an answer, and whether the connection is to go.
fn ask(connection: &mut Connection) -> (String, bool) {
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let response = connection.response(false);
    let body = String::from_utf8(response.body.data.clone()).unwrap();
    (body, response.head.lists("connection", "close"))
}

fn open(address: SocketAddr) -> Connection {
    Connection::open(address).unwrap()
}

#[test]
fn a_changed_listener_keeps_its_socket_and_sends_its_old_connections_away() {
    let rig = Rig::new(&[]);
    rig.apply(&[listener("l", 0, &[chain("c", "", "old")])])
        .unwrap();
    let address = rig.address("l");
    let mut before = open(address);
    assert_eq!(ask(&mut before), ("old".to_owned(), false));
    rig.apply(&[listener("l", 0, &[chain("c", "", "new")])])
        .unwrap();
    assert_eq!(rig.address("l"), address);
    assert_eq!(ask(&mut before), ("old".to_owned(), true));
    assert_eq!(ask(&mut open(address)), ("new".to_owned(), false));
    assert_eq!(rig.listeners.draining(), 1);
}

#[test]
fn an_equal_listener_is_left_alone() {
    let rig = Rig::new(&[]);
    let config = [listener("l", 0, &[chain("c", "", "same")])];
    rig.apply(&config).unwrap();
    let mut before = open(rig.address("l"));
    assert_eq!(ask(&mut before), ("same".to_owned(), false));
    rig.apply(&config).unwrap();
    assert_eq!(ask(&mut before), ("same".to_owned(), false));
    assert_eq!(rig.listeners.draining(), 0);
}

#[test]
fn connections_of_a_filter_chain_that_stays_are_left_alone() {
    let rig = Rig::new(&[]);
    let stays = chain("stays", "source_type: SAME_IP_OR_LOOPBACK", "stays");
    let other = |body| chain("other", "source_type: EXTERNAL", body);
    rig.apply(&[listener("l", 0, &[stays.clone(), other("a")])])
        .unwrap();
    let mut before = open(rig.address("l"));
    assert_eq!(ask(&mut before), ("stays".to_owned(), false));
    rig.apply(&[listener("l", 0, &[other("b"), stays])])
        .unwrap();
    assert_eq!(ask(&mut before), ("stays".to_owned(), false));
    assert_eq!(rig.listeners.draining(), 1);
}

#[test]
fn a_renamed_listener_inherits_the_sockets() {
    let rig = Rig::new(&[]);
    rig.apply(&[listener("free", 0, &[chain("c", "", "x")])])
        .unwrap();
    let port = rig.address("free").port();
    rig.apply(&[]).unwrap();
    rig.apply(&[listener("a", port, &[chain("c", "", "of-a")])])
        .unwrap();
    let mut before = open(rig.address("a"));
    assert_eq!(ask(&mut before), ("of-a".to_owned(), false));
    rig.apply(&[listener("b", port, &[chain("c", "", "of-b")])])
        .unwrap();
    assert_eq!(ask(&mut before), ("of-a".to_owned(), true));
    assert_eq!(ask(&mut open(rig.address("b"))), ("of-b".to_owned(), false));
    assert_eq!(rig.listeners.list().len(), 1);
}

#[test]
fn a_removed_listener_closes_its_socket_and_in_time_its_connections() {
    let rig = Rig::new(&["--drain-time-s", "0"]);
    rig.apply(&[listener("l", 0, &[chain("c", "", "x")])])
        .unwrap();
    let address = rig.address("l");
    let mut idle = open(address);
    assert_eq!(ask(&mut idle), ("x".to_owned(), false));
    rig.apply(&[]).unwrap();
    assert!(idle.closes());
    let refused = until(Deadline::default(), || Connection::open(address).err());
    assert!(refused.is_some());
    let gone = until(Deadline::default(), || {
        (rig.listeners.open() == 0 && rig.listeners.draining() == 0).then_some(())
    });
    assert!(gone.is_some());
}

#[test]
fn a_refused_plan_says_which_listener_and_changes_nothing() {
    let rig = Rig::new(&[]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    rig.apply(&[listener("l", 0, &[chain("c", "", "old")])])
        .unwrap();
    let next = [
        listener("l", 0, &[chain("c", "", "new")]),
        listener("second", port, &[chain("c", "", "x")]),
    ];
    let error = format!("{:#}", rig.apply(&next).unwrap_err());
    assert!(
        error.starts_with(&format!(
            "listener \"second\": cannot listen on 127.0.0.1:{port}: "
        )),
        "{error}"
    );
    assert_eq!(ask(&mut open(rig.address("l"))), ("old".to_owned(), false));
}

fn with_more(name: &str, address: &str, more: &str, body: &str) -> String {
    format!(
        "{{name: {name}, address: {address}, filter_chains: [{}]{more}}}",
        chain("c", "", body)
    )
}

fn at(port: u16) -> String {
    format!("{{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}")
}

#[test]
fn each_address_of_a_listener_stays_as_long_as_it_is_asked_for() {
    let rig = Rig::new(&[]);
    let more = |ports: &[u16]| {
        let addresses = ports
            .iter()
            .map(|port| format!("{{address: {}}}", at(*port)));
        let addresses: Vec<String> = addresses.collect();
        format!(", additional_addresses: [{}]", addresses.join(", "))
    };
    let all = |name: &str| -> Vec<SocketAddr> {
        let list = rig.listeners.list();
        let (_, all) = list
            .into_iter()
            .find(|(known, _)| **known == *name)
            .unwrap();
        let ip = |address| match address {
            Address::Socket(address) => address,
            other => panic!("{other}"),
        };
        all.into_iter().map(ip).collect()
    };
    rig.apply(&[with_more("l", &at(0), &more(&[0, 0]), "old")])
        .unwrap();
    let before = all("l");
    assert_eq!(before.len(), 3);
    for address in &before {
        assert_eq!(ask(&mut open(*address)), ("old".to_owned(), false));
    }
    // The second goes, and the others are whose they were.
    rig.apply(&[with_more("l", &at(0), &more(&[0]), "new")])
        .unwrap();
    assert_eq!(all("l"), before[..2]);
    for address in &before[..2] {
        assert_eq!(ask(&mut open(*address)), ("new".to_owned(), false));
    }
    let refused = until(Deadline::default(), || Connection::open(before[2]).err());
    assert!(refused.is_some());
    // One of them goes to another listener, which is new beside it.
    let ports = [before[0].port(), before[1].port()];
    rig.apply(&[
        with_more("l", &at(0), "", "first"),
        with_more("m", &at(ports[1]), "", "second"),
    ])
    .unwrap();
    assert_eq!(ask(&mut open(before[0])), ("first".to_owned(), false));
    assert_eq!(all("l"), before[..1]);
    let second = until(Deadline::default(), || {
        let (body, _) = ask(&mut open(before[1]));
        (body == "second").then_some(())
    });
    assert!(second.is_some());
}

#[test]
fn a_unix_socket_gets_other_options_where_it_is() {
    use std::os::unix::fs::PermissionsExt as _;
    let rig = Rig::new(&[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let pipe = |mode: u32| format!("{{pipe: {{path: {}, mode: {mode}}}}}", path.display());
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    rig.apply(&[with_more("u", &pipe(0o600), "", "x")]).unwrap();
    assert_eq!(mode(), 0o600);
    let mut before = std::os::unix::net::UnixStream::connect(&path).unwrap();
    rig.apply(&[with_more("u", &pipe(0o640), ", tcp_backlog_size: 7", "z")])
        .unwrap();
    assert_eq!(mode(), 0o640);
    let answer = |stream: &mut std::os::unix::net::UnixStream| {
        use std::io::{Read as _, Write as _};
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.chars().last()
    };
    assert_eq!(answer(&mut before), Some('x'));
    let mut after = std::os::unix::net::UnixStream::connect(&path).unwrap();
    assert_eq!(answer(&mut after), Some('z'));
}

#[test]
fn a_client_whose_connection_is_old_is_told_to_go_with_its_next_answer() {
    let rig = Rig::new(&[]);
    let age = "stat_prefix: i, drain_timeout: 600s, common_http_protocol_options: {max_connection_duration: 0.05s},";
    let old = chain("c", "", "x").replace("stat_prefix: i,", age);
    rig.apply(&[listener("l", 0, &[old])]).unwrap();
    let mut connection = open(rig.address("l"));
    let told = until(Deadline::default(), || {
        let (body, last) = ask(&mut connection);
        assert_eq!(body, "x");
        last.then_some(())
    });
    assert!(told.is_some());
    assert!(connection.closes());
}
