//! The matcher against a naive one that keeps every combination and narrows them down.

use std::net::{IpAddr, SocketAddr};

use mesh_core::{Cidr, ConnectionInfo};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{ChainConflict, ChainMatch, ChainMatcher, ServerName, SourceType};

/// One combination of values; `None` is for all.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    chain: usize,
    port: Option<u16>,
    destination: Option<Cidr>,
    name: Option<String>,
    transport: Option<String>,
    application: Option<String>,
    direct: Option<Cidr>,
    source_type: SourceType,
    source: Option<Cidr>,
    source_port: Option<u16>,
}

fn all<T: Clone>(values: &[T]) -> Vec<Option<T>> {
    if values.is_empty() {
        vec![None]
    } else {
        values.iter().cloned().map(Some).collect()
    }
}

fn rows(chain: usize, from: &ChainMatch) -> Vec<Row> {
    let names: Vec<String> = from
        .server_names
        .iter()
        .map(|n| n.key.to_string())
        .collect();
    let mut rows = Vec::new();
    for destination in all(&from.destinations) {
        for name in all(&names) {
            for application in all(&from.application_protocols) {
                for direct in all(&from.direct_sources) {
                    for source in all(&from.sources) {
                        for source_port in all(&from.source_ports) {
                            rows.push(Row {
                                chain,
                                port: from.destination_port,
                                destination,
                                name: name.clone(),
                                transport: from.transport_protocol.as_deref().map(str::to_owned),
                                application: application.as_deref().map(str::to_owned),
                                direct,
                                source_type: from.source_type,
                                source,
                                source_port,
                            });
                        }
                    }
                }
            }
        }
    }
    rows
}

/// Keeps the rows whose value ranks highest; a rank of `None` does not fit at all.
fn narrow(rows: &mut Vec<Row>, rank: impl Fn(&Row) -> Option<usize>) {
    let best = rows.iter().filter_map(&rank).max();
    rows.retain(|row| best.is_some() && rank(row) == best);
}

fn length(range: Option<Cidr>, address: IpAddr) -> Option<usize> {
    match range {
        None => Some(0),
        Some(range) => range
            .contains(address)
            .then(|| usize::from(range.prefix()) + 1),
    }
}

fn equal<T: PartialEq>(wanted: Option<&T>, value: &T) -> Option<usize> {
    match wanted {
        None => Some(0),
        Some(wanted) => (wanted == value).then_some(1),
    }
}

fn naive(mut rows: Vec<Row>, connection: &ConnectionInfo) -> Option<usize> {
    let any: SocketAddr = ([255, 255, 255, 255], 0).into();
    let local = connection.local.unwrap_or(any);
    let peer = connection.peer.unwrap_or(any);
    let direct = connection.direct_peer.unwrap_or(any);
    let name = connection.server_name.as_deref().unwrap_or("");
    let transport = connection.transport_protocol.unwrap_or("raw_buffer");
    narrow(&mut rows, |row| equal(row.port.as_ref(), &local.port()));
    narrow(&mut rows, |row| length(row.destination, local.ip()));
    narrow(&mut rows, |row| match row.name.as_deref() {
        None => Some(0),
        Some(wanted) if wanted == name => Some(usize::MAX),
        Some(parent) => {
            (parent.starts_with('.') && name.len() > parent.len() && name.ends_with(parent))
                .then_some(parent.len())
        }
    });
    narrow(&mut rows, |row| {
        equal(row.transport.as_ref(), &transport.to_owned())
    });
    narrow(&mut rows, |row| match &row.application {
        None => Some(0),
        Some(wanted) => {
            let offered = connection.application_protocols.iter();
            offered
                .rev()
                .position(|protocol| **protocol == **wanted)
                .map(|n| n + 1)
        }
    });
    narrow(&mut rows, |row| length(row.direct, direct.ip()));
    let near = connection.peer.is_none()
        || ["127.0.0.1", "::1"].contains(&&*peer.ip().to_string())
        || connection.local.is_some() && local.ip() == peer.ip();
    narrow(&mut rows, |row| match row.source_type {
        SourceType::Any => Some(0),
        SourceType::SameIpOrLoopback => near.then_some(1),
        SourceType::External => (!near).then_some(1),
    });
    narrow(&mut rows, |row| length(row.source, peer.ip()));
    narrow(&mut rows, |row| {
        equal(row.source_port.as_ref(), &peer.port())
    });
    rows.first().map(|row| row.chain)
}

fn cidr() -> impl Strategy<Value = Cidr> {
    let ranges = [
        ("10.0.0.0", 8),
        ("10.1.0.0", 16),
        ("10.1.2.3", 32),
        ("0.0.0.0", 0),
        ("127.0.0.0", 8),
        ("::", 0),
        ("fd00::", 8),
        ("fd00::1", 128),
    ];
    select(ranges.to_vec())
        .prop_map(|(network, prefix)| Cidr::new(network.parse().unwrap(), prefix).unwrap())
}

fn name() -> impl Strategy<Value = &'static str> {
    select(vec!["a.b.example", "b.example", "example", "x.a.b.example"])
}

fn chain_match() -> impl Strategy<Value = ChainMatch> {
    let server_name = (name(), any::<bool>()).prop_map(|(name, below)| {
        let text = if below {
            format!("*.{name}")
        } else {
            name.to_owned()
        };
        ServerName::new(&text).unwrap()
    });
    let text = |values: [&'static str; 2]| select(values.to_vec()).prop_map(Box::<str>::from);
    (
        option::of(select(vec![80u16, 443])),
        vec(cidr(), 0..3),
        vec(server_name, 0..3),
        option::of(text(["tls", "raw_buffer"])),
        vec(text(["h2", "http/1.1"]), 0..2),
        vec(cidr(), 0..2),
        select(vec![
            SourceType::Any,
            SourceType::SameIpOrLoopback,
            SourceType::External,
        ]),
        vec(cidr(), 0..3),
        vec(select(vec![7u16, 8]), 0..2),
    )
        .prop_map(
            |(port, destinations, names, transport, applications, direct, kind, sources, ports)| {
                ChainMatch {
                    destination_port: port,
                    destinations,
                    server_names: names,
                    transport_protocol: transport,
                    application_protocols: applications,
                    direct_sources: direct,
                    source_type: kind,
                    sources,
                    source_ports: ports,
                }
            },
        )
}

fn address() -> impl Strategy<Value = Option<SocketAddr>> {
    let ips = [
        "10.1.2.3",
        "10.1.9.9",
        "10.9.9.9",
        "192.0.2.1",
        "127.0.0.9",
        "127.0.0.1",
        "::1",
        "fd00::1",
        "fd00::2",
    ];
    let ports = vec![7u16, 8, 80, 443, 1];
    option::weighted(
        0.9,
        (select(ips.to_vec()), select(ports))
            .prop_map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port)),
    )
}

fn connection() -> impl Strategy<Value = ConnectionInfo> {
    (
        address(),
        address(),
        address(),
        option::of(name()),
        option::of(select(vec!["tls", "raw_buffer"])),
        vec(select(vec!["h2", "http/1.1", "spdy"]), 0..3),
    )
        .prop_map(|(local, peer, direct, name, transport, protocols)| {
            let mut connection = ConnectionInfo::new(1, local, peer);
            connection.direct_peer = direct;
            connection.server_name = name.map(Into::into);
            connection.transport_protocol = transport;
            connection.application_protocols = protocols.into_iter().map(Into::into).collect();
            connection
        })
}

proptest! {
    #[test]
    fn model_takes_the_most_specific_value_of_one_property_after_the_other(
        chains in vec(chain_match(), 1..8),
        connections in vec(connection(), 1..16),
    ) {
        let mut matcher = ChainMatcher::new();
        let mut known: Vec<Row> = Vec::new();
        for (number, chain) in chains.iter().enumerate() {
            let new = rows(number, chain);
            let same = |a: &Row, b: &Row| Row { chain: b.chain, ..a.clone() } == *b;
            let overlaps = new.iter().any(|row| known.iter().any(|other| same(row, other)));
            let mut next = matcher.clone();
            let added = next.add(number, chain);
            prop_assert_eq!(added.is_err(), overlaps, "{:?}", added);
            if !overlaps {
                matcher = next;
                known.extend(new);
            }
        }
        for connection in &connections {
            prop_assert_eq!(
                matcher.find(connection),
                naive(known.clone(), connection),
                "{:?} in {:?}", connection, known
            );
        }
    }
}

#[test]
fn there_is_no_way_back_from_a_more_specific_branch() {
    let mut matcher = ChainMatcher::new();
    let port = ChainMatch {
        destination_port: Some(80),
        source_ports: vec![7],
        ..ChainMatch::default()
    };
    matcher.add(0, &port).unwrap();
    matcher.add(1, &ChainMatch::default()).unwrap();
    let from = |port: u16| {
        let local = SocketAddr::from(([192, 0, 2, 1], 80));
        ConnectionInfo::new(
            1,
            Some(local),
            Some(SocketAddr::from(([10, 0, 0, 1], port))),
        )
    };
    assert_eq!(matcher.find(&from(7)), Some(0));
    assert_eq!(matcher.find(&from(8)), None);
}

#[test]
fn too_many_combinations_are_refused() {
    let ports = |n: u16| (0..n).collect::<Vec<u16>>();
    let sources = (0..=255u8).map(|n| Cidr::new([10, 0, 0, n].into(), 32).unwrap());
    let chain = ChainMatch {
        sources: sources.collect(),
        source_ports: ports(5000),
        ..ChainMatch::default()
    };
    assert_eq!(
        ChainMatcher::new().add(0, &chain),
        Err(ChainConflict::TooMany)
    );
}

#[test]
fn wildcards_are_whole_labels() {
    for wrong in ["*", "*.", "a*", "*a.example", "a.*.example", ""] {
        assert!(ServerName::new(wrong).is_err(), "{wrong:?}");
    }
    assert_eq!(
        ServerName::new("*.Example").unwrap(),
        ServerName::new("*.example").unwrap()
    );
}
