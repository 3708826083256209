//! Whether one resource can be used.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{Address, SocketAddress, address, socket_address::PortSpecifier},
            endpoint::v3::ClusterLoadAssignment,
            listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
            route::v3::RouteConfiguration,
        },
        extensions::{
            filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_connection_manager::RouteSpecifier,
                    http_filter,
                },
            },
            transport_sockets::tls::v3::Secret,
        },
        service::runtime::v3::Runtime,
    },
    google::protobuf::{Any, BoolValue},
};
use prost::{Message, Name, bytes::Bytes};

use super::{
    Assembly, Checked, Kind, Needs, Refusal,
    needs::clusters_of,
    part::{self, Part, RoutesPart},
};
use crate::{
    convert::resource::Converted,
    language::{ConfigError, Loaded, UnsupportedReport},
};

impl Assembly {
    /// Whether a resource of these bytes can be used, and what it needs. Nothing changes.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self, kind: Kind, name: &str, body: &Bytes) -> Result<Checked, Refusal> {
        let loaded = Loaded::resource("the resource", kind.full_name(), body, self.language());
        let loaded = loaded.map_err(|error| refusal(&error, ""))?;
        let (part, needs) = match kind {
            Kind::Cluster => self.check_cluster(&loaded, body)?,
            Kind::Endpoints => self.check_endpoints(&loaded, body)?,
            Kind::Listener => self.check_listener(&loaded, body)?,
            Kind::Routes => self.check_routes(&loaded, body)?,
            Kind::Secret => self.check_secret(&loaded, body)?,
            Kind::Runtime => self.check_runtime(&loaded, body)?,
        };
        Ok(Checked {
            kind,
            name: name.to_owned(),
            needs: Arc::new(needs),
            part,
            hash: part::hash((kind, name, body)),
            is_own: false,
        })
    }

    fn check_cluster(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let from: Cluster = decode(body)?;
        let converted = self.frame().cluster(loaded, &from);
        let converted = self.honoured(converted, "")?;
        let cluster = converted.value.ok_or_else(unusable)?;
        let needs = cluster.needs.clone();
        Ok((Part::Cluster(Arc::new(cluster)), needs))
    }

    fn check_endpoints(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let from: ClusterLoadAssignment = decode(body)?;
        let converted = self.frame().assignment(loaded, &from);
        let converted = self.honoured(converted, "")?;
        Ok((Part::Endpoints(Arc::new(converted.value)), Needs::new()))
    }

    fn check_listener(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let from: Listener = decode(body)?;
        let converted = self.frame().listener(loaded, &from);
        let converted = self.honoured(converted, "")?;
        let mut first = converted.value.ok_or_else(unusable)?;
        part::fingerprint(&mut first, body);
        let needs = first.needs.clone();
        Ok((Part::Listener(Arc::new(first)), needs))
    }

    fn check_secret(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let from: Secret = decode(body)?;
        let converted = self.frame().secret(loaded, &from);
        let converted = self.honoured(converted, "")?;
        let secret = converted.value.ok_or_else(unusable)?;
        Ok((Part::Secret(Arc::new(secret)), Needs::new()))
    }

    fn check_runtime(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let from: Runtime = decode(body)?;
        let converted = self.frame().runtime(loaded, &from);
        let converted = self.honoured(converted, "")?;
        Ok((Part::Runtime(Arc::new(converted.value)), Needs::new()))
    }

    /// Routes alone say nothing: they are looked at in a listener that has nothing else.
    fn check_routes(&self, loaded: &Loaded, body: &Bytes) -> Outcome {
        let routes: RouteConfiguration = decode(body)?;
        let clusters = clusters_of(&routes);
        let needs = clusters
            .into_iter()
            .map(|name| ((Kind::Cluster, name), None));
        let needs = needs.collect();
        let listener = listener_for(routes);
        let converted = self.frame().routes(loaded, &listener);
        let converted = self.honoured(converted, ROUTES_PATH)?;
        let part = RoutesPart {
            // Its own, so that it does not keep all alive that it came with.
            body: Bytes::copy_from_slice(body),
            files: converted.value,
        };
        Ok((Part::Routes(Arc::new(part)), needs))
    }

    /// What is not enforced is refused when security depends on it, or nothing may be missing.
    fn honoured<T>(
        &self,
        converted: Result<Converted<T>, ConfigError>,
        prefix: &str,
    ) -> Result<Converted<T>, Refusal> {
        let converted = converted.map_err(|error| refusal(&error, prefix))?;
        let UnsupportedReport { entries, .. } = &converted.report;
        let mut missing = entries.iter();
        match missing.find(|entry| entry.security || self.is_strict()) {
            None => Ok(converted),
            Some(entry) => {
                let reason = format!("{} is not enforced", entry.field);
                Err(Refusal::new(inside(&entry.path, prefix), reason))
            }
        }
    }
}

type Outcome = Result<(Part, Needs), Refusal>;

/// The conversion has said why; this is what is left to say if it has not.
fn unusable() -> Refusal {
    Refusal::new("", "it cannot be used")
}

fn decode<M: Message + Default>(body: &Bytes) -> Result<M, Refusal> {
    M::decode(body.clone())
        .map_err(|error| Refusal::new("", format!("it cannot be decoded: {error}")))
}

fn refusal(error: &ConfigError, prefix: &str) -> Refusal {
    match error.problems().first() {
        Some(problem) => Refusal::new(inside(&problem.path, prefix), &problem.reason),
        None => Refusal::new("", error),
    }
}

/// A path without what stands before the resource in it.
fn inside<'a>(path: &'a str, prefix: &str) -> &'a str {
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    rest.trim_start_matches('.')
}

/// Where the routes stand in [`listener_for`].
const ROUTES_PATH: &str = "filter_chains[0].filters[0].typed_config.route_config";

/// A listener that has nothing but these routes.
fn listener_for(mut routes: RouteConfiguration) -> Listener {
    routes
        .validate_clusters
        .get_or_insert(BoolValue { value: false });
    let router = HttpFilter {
        name: "router".to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(
            any(&Router::default()),
        )),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: "routes".to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
        http_filters: vec![router],
        ..HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "routes".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&manager))),
    };
    let socket = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    Listener {
        name: "routes".to_owned(),
        address: Some(Address {
            address: Some(address::Address::SocketAddress(socket)),
        }),
        filter_chains: vec![FilterChain {
            filters: vec![filter],
            ..FilterChain::default()
        }],
        ..Listener::default()
    }
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}
