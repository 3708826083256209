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
            Some((_, Address::Socket(address))) => *address,
            other => panic!("{other:?}"),
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
