use std::{fmt, time::Duration};

use bytes::Bytes;
use prost::Message;

/// What a control plane can send. The order is the order of a push that breaks nothing: what is
/// referred to comes before what refers to it.
///
/// Exhaustive on purpose: an unknown type URL is not an error of the peer, it is simply not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    /// RTDS, `envoy.service.runtime.v3.Runtime`.
    Runtime,
    /// SDS, `envoy.extensions.transport_sockets.tls.v3.Secret`.
    Secret,
    /// CDS, `envoy.config.cluster.v3.Cluster`.
    Cluster,
    /// EDS, `envoy.config.endpoint.v3.ClusterLoadAssignment`.
    Endpoints,
    /// ECDS, `envoy.config.core.v3.TypedExtensionConfig`.
    ExtensionConfig,
    /// LDS, `envoy.config.listener.v3.Listener`.
    Listener,
    /// SRDS, `envoy.config.route.v3.ScopedRouteConfiguration`.
    ScopedRoute,
    /// RDS, `envoy.config.route.v3.RouteConfiguration`.
    RouteConfiguration,
    /// VHDS, `envoy.config.route.v3.VirtualHost`.
    VirtualHost,
}

/// Everything the wire needs to know of a type, one row each.
struct Row {
    url: &'static str,
    service: &'static str,
    noun: &'static str,
    short: &'static str,
}

const PREFIX: &str = "type.googleapis.com/";

impl ResourceType {
    /// All types, in the order of a push.
    pub const ALL: [Self; 9] = [
        Self::Runtime,
        Self::Secret,
        Self::Cluster,
        Self::Endpoints,
        Self::ExtensionConfig,
        Self::Listener,
        Self::ScopedRoute,
        Self::RouteConfiguration,
        Self::VirtualHost,
    ];

    const fn row(self) -> Row {
        let (url, service, noun, short) = match self {
            Self::Runtime => (
                "type.googleapis.com/envoy.service.runtime.v3.Runtime",
                "envoy.service.runtime.v3.RuntimeDiscoveryService",
                "Runtime",
                "rtds",
            ),
            Self::Secret => (
                "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                "envoy.service.secret.v3.SecretDiscoveryService",
                "Secrets",
                "sds",
            ),
            Self::Cluster => (
                "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                "envoy.service.cluster.v3.ClusterDiscoveryService",
                "Clusters",
                "cds",
            ),
            Self::Endpoints => (
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                "envoy.service.endpoint.v3.EndpointDiscoveryService",
                "Endpoints",
                "eds",
            ),
            Self::ExtensionConfig => (
                "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
                "ExtensionConfigs",
                "ecds",
            ),
            Self::Listener => (
                "type.googleapis.com/envoy.config.listener.v3.Listener",
                "envoy.service.listener.v3.ListenerDiscoveryService",
                "Listeners",
                "lds",
            ),
            Self::ScopedRoute => (
                "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
                "envoy.service.route.v3.ScopedRoutesDiscoveryService",
                "ScopedRoutes",
                "srds",
            ),
            Self::RouteConfiguration => (
                "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "envoy.service.route.v3.RouteDiscoveryService",
                "Routes",
                "rds",
            ),
            Self::VirtualHost => (
                "type.googleapis.com/envoy.config.route.v3.VirtualHost",
                "envoy.service.route.v3.VirtualHostDiscoveryService",
                "VirtualHosts",
                "vhds",
            ),
        };
        Row {
            url,
            service,
            noun,
            short,
        }
    }

    /// The type URL, with its `type.googleapis.com/`.
    #[must_use]
    pub const fn type_url(self) -> &'static str {
        self.row().url
    }

    /// The type of `url`. What stands before the last `/` is ignored, as in Envoy.
    #[must_use]
    pub fn from_type_url(url: &str) -> Option<Self> {
        let name = url.rsplit('/').next()?;
        Self::ALL
            .into_iter()
            .find(|ty| ty.type_url()[PREFIX.len()..] == *name)
    }

    /// What people call the discovery of this type: `cds`, `eds`, …
    #[must_use]
    pub const fn short(self) -> &'static str {
        self.row().short
    }

    /// The path of the type's own gRPC stream, for those who do not aggregate.
    #[must_use]
    pub fn path(self, variant: Variant) -> String {
        let Row { service, noun, .. } = self.row();
        match variant {
            Variant::StateOfTheWorld => format!("/{service}/Stream{noun}"),
            Variant::Delta => format!("/{service}/Delta{noun}"),
        }
    }

    /// Whether a state-of-the-world response names everything there is, so that what is missing in it is
    /// gone. True for LDS and CDS only; for all others a response brings news of what it names.
    #[must_use]
    pub const fn is_full_state(self) -> bool {
        matches!(self, Self::Listener | Self::Cluster)
    }

    /// Whether traffic goes to this: a push waits until it is acknowledged before it goes on to what sends
    /// traffic. Endpoints do not wait for clusters: Envoy acknowledges clusters once they are warm, and for
    /// that it needs their endpoints.
    pub(crate) const fn takes_traffic(self) -> bool {
        matches!(self, Self::Cluster | Self::Endpoints)
    }

    /// Whether this sends traffic to clusters.
    pub(crate) const fn sends_traffic(self) -> bool {
        matches!(self, Self::Listener | Self::RouteConfiguration)
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short())
    }
}

/// How updates are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Each response of a full-state type holds everything (`GRPC`, `AGGREGATED_GRPC`).
    StateOfTheWorld,
    /// Each response holds what changed (`DELTA_GRPC`, `AGGREGATED_DELTA_GRPC`).
    Delta,
}

impl Variant {
    /// The path of the aggregated stream.
    #[must_use]
    pub const fn aggregated_path(self) -> &'static str {
        match self {
            Self::StateOfTheWorld => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
            }
            Self::Delta => {
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            }
        }
    }
}

/// The name that subscribes to everything.
pub(crate) const WILDCARD: &str = "*";

/// A resource as it travels: its protobuf, undecoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its name in its type.
    pub name: String,
    /// Its own version; with state-of-the-world, that of the response.
    pub version: String,
    /// The serialised message, without the `Any` around it.
    pub body: Bytes,
    /// How long it is good for unless it is renewed.
    pub ttl: Option<Duration>,
}

/// The name inside a serialised resource. All types that travel bare keep it in field 1.
///
/// # Errors
/// When the bytes are no protobuf, or hold no name.
pub fn name_of(body: &Bytes) -> Result<String, String> {
    #[derive(Clone, PartialEq, Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    match Named::decode(body.clone()) {
        Ok(named) if named.name.is_empty() => Err("the resource has no name".to_owned()),
        Ok(named) => Ok(named.name),
        Err(error) => Err(format!("the resource cannot be decoded: {error}")),
    }
}

/// A version for these bytes that is the same in every process: the hash of them.
#[must_use]
pub fn version_of(body: &[u8]) -> String {
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(body))
}

/// The number that Envoy shows for a version, in the gauge `version`: its xxHash64.
#[must_use]
pub fn version_hash(version: &str) -> u64 {
    xxhash_rust::xxh64::xxh64(version.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::{ResourceType, Variant};

    #[test]
    fn type_urls_are_found_whatever_host_they_name() {
        for ty in ResourceType::ALL {
            assert_eq!(ResourceType::from_type_url(ty.type_url()), Some(ty));
        }
        assert_eq!(
            ResourceType::from_type_url("foo.bar/envoy.config.cluster.v3.Cluster"),
            Some(ResourceType::Cluster)
        );
        assert_eq!(ResourceType::from_type_url("Cluster"), None);
    }

    #[test]
    fn own_streams_have_the_paths_of_the_services() {
        assert_eq!(
            ResourceType::Secret.path(Variant::Delta),
            "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
        );
        assert_eq!(
            ResourceType::Cluster.path(Variant::StateOfTheWorld),
            "/envoy.service.cluster.v3.ClusterDiscoveryService/StreamClusters"
        );
    }
}
