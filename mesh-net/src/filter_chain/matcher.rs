use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mesh_core::ConnectionInfo;

use super::{
    ChainMatch, ServerName,
    level::{Exact, Prefixes},
};

/// How many combinations of values the matches of one listener may have, all together; more is an error.
pub const COMBINATIONS_MAX: usize = 1 << 20;

type SourcePorts = Exact<u16, Option<usize>>;
type SourceTypes = [Option<Box<Prefixes<SourcePorts>>>; 3];
type DirectSources = Prefixes<SourceTypes>;
type ApplicationProtocols = Exact<Box<str>, DirectSources>;
type TransportProtocols = Exact<Box<str>, ApplicationProtocols>;
type ServerNames = Exact<Box<str>, TransportProtocols>;
type Destinations = Prefixes<ServerNames>;

/// Finds the filter chain of a connection; see the module.
#[derive(Debug, Clone, Default)]
pub struct ChainMatcher {
    ports: Exact<u16, Destinations>,
    combinations: usize,
}

/// Why several matches cannot stand side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainConflict {
    /// Both would take the same connections.
    #[error("takes connections that filter_chains[{0}] takes")]
    Overlap(usize),
    /// More than [`COMBINATIONS_MAX`].
    #[error("the filter chains match more than {COMBINATIONS_MAX} combinations of values")]
    TooMany,
}

impl ChainMatcher {
    /// A listener without filter chains.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the chain of that number.
    ///
    /// # Errors
    /// When another chain takes some of the same connections; then part of this one may have been added.
    pub fn add(&mut self, number: usize, chain: &ChainMatch) -> Result<(), ChainConflict> {
        self.combinations = self.combinations.saturating_add(combinations(chain));
        if self.combinations > COMBINATIONS_MAX {
            return Err(ChainConflict::TooMany);
        }
        let destinations = self.ports.entry(chain.destination_port.as_ref());
        for destination in each(&chain.destinations) {
            let names = destinations.entry(destination);
            for name in each(&chain.server_names) {
                let transports = names.entry(name.map(|ServerName { key }| key));
                let applications = transports.entry(chain.transport_protocol.as_ref());
                for application in each(&chain.application_protocols) {
                    let direct = applications.entry(application);
                    add_sources(direct, number, chain)?;
                }
            }
        }
        Ok(())
    }

    /// The number of the chain that takes the connection.
    #[must_use]
    pub fn find(&self, connection: &ConnectionInfo) -> Option<usize> {
        let local = connection.local.map(|local| (local.ip(), local.port()));
        let destinations = match local {
            Some((_, port)) => self.ports.find(&port),
            None => self.ports.any(),
        };
        let names = destinations?.find(ip(local.map(|(ip, _)| ip)))?;
        let transports = by_name(names, connection.server_name.as_deref().unwrap_or(""))?;
        let transport = connection.transport_protocol.unwrap_or("raw_buffer");
        let applications = transports.find(transport)?;
        let offered = connection.application_protocols.iter();
        let direct = offered
            .filter_map(|protocol| applications.named(protocol))
            .next()
            .or_else(|| applications.any())?;
        let types = direct.find(ip(connection.direct_peer.map(|peer| peer.ip())))?;
        let sources = by_type(types, connection)?;
        let ports = sources.find(ip(connection.peer.map(|peer| peer.ip())))?;
        *ports.find(&connection.peer.map_or(0, |peer| peer.port()))?
    }
}

/// Each value, or the one that stands for all.
fn each<T>(values: &[T]) -> impl Iterator<Item = Option<&T>> {
    let all = values.is_empty().then_some(None);
    values.iter().map(Some).chain(all)
}

fn combinations(chain: &ChainMatch) -> usize {
    [
        chain.destinations.len(),
        chain.server_names.len(),
        chain.application_protocols.len(),
        chain.direct_sources.len(),
        chain.sources.len(),
        chain.source_ports.len(),
    ]
    .into_iter()
    .fold(1, |product, n| product.saturating_mul(n.max(1)))
}

fn add_sources(
    direct: &mut DirectSources,
    number: usize,
    chain: &ChainMatch,
) -> Result<(), ChainConflict> {
    for range in each(&chain.direct_sources) {
        let types = direct.entry(range);
        let sources = types[chain.source_type as usize].get_or_insert_default();
        for range in each(&chain.sources) {
            let ports = sources.entry(range);
            for port in each(&chain.source_ports) {
                match ports.entry(port) {
                    Some(other) if *other != number => return Err(ChainConflict::Overlap(*other)),
                    free => *free = Some(number),
                }
            }
        }
    }
    Ok(())
}

/// A connection without addresses counts as Envoy's stand-in for one.
fn ip(address: Option<IpAddr>) -> IpAddr {
    address.unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST))
}

/// The name itself, then all names below its parents, the nearest first.
fn by_name<'a>(names: &'a ServerNames, name: &str) -> Option<&'a TransportProtocols> {
    if name.is_empty() {
        return names.any();
    }
    let parents = name.match_indices('.').filter(|(at, _)| *at > 0);
    names
        .named(name)
        .or_else(|| {
            parents
                .filter_map(|(at, _)| names.named(&name[at..]))
                .next()
        })
        .or_else(|| names.any())
}

fn by_type<'a>(
    types: &'a SourceTypes,
    connection: &ConnectionInfo,
) -> Option<&'a Prefixes<SourcePorts>> {
    let [any, local, external] = types;
    let own = if is_local(connection) {
        local
    } else {
        external
    };
    own.as_deref().or(any.as_deref())
}

fn is_local(connection: &ConnectionInfo) -> bool {
    let Some(peer) = connection.peer else {
        return true;
    };
    // As Envoy has it, the other addresses of 127.0.0.0/8 are not the loopback.
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let same = |local: SocketAddr| local.ip() == peer.ip();
    loopback.contains(&peer.ip()) || connection.local.is_some_and(same)
}
