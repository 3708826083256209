use std::net::SocketAddr;

use envoy_types::pb::{
    envoy::{
        config::{
            accesslog::v3::{AccessLog, access_log::ConfigType as LogConfigType},
            core::v3::TransportSocket,
            listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
        },
        extensions::{
            access_loggers::file::v3::FileAccessLog,
            filters::{
                http::router::v3::Router,
                network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, Rds,
                    http_connection_manager::{
                        ForwardClientCertDetails, RouteSpecifier, SetCurrentClientCertDetails,
                    },
                    http_filter::ConfigType as HttpConfigType,
                },
            },
        },
    },
    google::protobuf::Any,
};
use mesh_xds::ResourceType;
use prost::{Message, Name};

use super::{
    Built, INBOUND, OUTBOUND, Origin, route,
    wire::{address, ads, any},
};
use crate::mesh::{Mesh, Mtls, Policies, Service};

/// Takes requests to the service and sends them to its application.
pub(super) fn inbound(mesh: &Mesh, service: &Service, socket: SocketAddr) -> Built {
    let mut origin = origin(mesh, service);
    let policies = &service.policies;
    let mut filters = Vec::new();
    let here = |index: usize| {
        format!("filter_chains[0].filters[0].typed_config.http_filters[{index}].typed_config")
    };
    if let Some(placed) = &policies.fault {
        origin.place(here(filters.len()), &placed.path);
        filters.push(filter("envoy.filters.http.fault", &placed.value));
    }
    if let Some(placed) = &policies.rate_limit {
        origin.place(here(filters.len()), &placed.path);
        origin.place(
            format!("{}.token_bucket", here(filters.len())),
            &placed.path,
        );
        let limit = Policies::local_rate_limit(&placed.value);
        filters.push(filter("envoy.filters.http.local_ratelimit", &limit));
    }
    let mut manager = HttpConnectionManager {
        stat_prefix: INBOUND.to_owned(),
        route_specifier: Some(RouteSpecifier::RouteConfig(route::inbound())),
        access_log: access_log(service),
        http_filters: filters,
        ..HttpConnectionManager::default()
    };
    let tls = mesh.mtls.as_ref().map(|mtls| {
        // The application may want to know who calls; what callers themselves say about that is dropped.
        manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet as i32;
        manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
            uri: true,
            ..SetCurrentClientCertDetails::default()
        });
        origin.place("filter_chains[0].transport_socket", &mtls.path);
        downstream_tls(mtls, service)
    });
    listener(INBOUND, socket, manager, tls, origin)
}

/// Takes what the application sends to other services.
pub(super) fn outbound(mesh: &Mesh, service: &Service, socket: SocketAddr) -> Built {
    let manager = HttpConnectionManager {
        stat_prefix: OUTBOUND.to_owned(),
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: OUTBOUND.to_owned(),
        })),
        access_log: access_log(service),
        ..HttpConnectionManager::default()
    };
    listener(OUTBOUND, socket, manager, None, origin(mesh, service))
}

fn origin(mesh: &Mesh, service: &Service) -> Origin {
    let path = service.sidecar.as_ref().map_or("", |sidecar| &sidecar.path);
    Origin::new(&mesh.document, path)
}

fn listener(
    name: &str,
    socket: SocketAddr,
    mut manager: HttpConnectionManager,
    transport_socket: Option<TransportSocket>,
    mut origin: Origin,
) -> Built {
    manager
        .http_filters
        .push(filter("envoy.filters.http.router", &Router::default()));
    let path = origin.find("").0;
    origin.place("address", &format!("{path}.{name}"));
    let chain = FilterChain {
        filters: vec![Filter {
            name: "envoy.filters.network.http_connection_manager".to_owned(),
            config_type: Some(ConfigType::TypedConfig(any(&manager))),
        }],
        transport_socket,
        ..FilterChain::default()
    };
    let listener = Listener {
        name: name.to_owned(),
        address: Some(address(socket)),
        filter_chains: vec![chain],
        ..Listener::default()
    };
    Built::new(ResourceType::Listener, name, &listener, origin)
}

fn filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(HttpConfigType::TypedConfig(any(config))),
        ..HttpFilter::default()
    }
}

fn access_log(service: &Service) -> Vec<AccessLog> {
    let path = service
        .sidecar
        .as_ref()
        .and_then(|sidecar| sidecar.access_log.as_ref());
    let log = path.map(|path| {
        let file = FileAccessLog {
            path: path.clone(),
            ..FileAccessLog::default()
        };
        AccessLog {
            name: "envoy.access_loggers.file".to_owned(),
            config_type: Some(LogConfigType::TypedConfig(any(&file))),
            ..AccessLog::default()
        }
    });
    log.into_iter().collect()
}

fn downstream_tls(mtls: &Mtls, service: &Service) -> TransportSocket {
    use envoy_types::pb::{
        envoy::extensions::transport_sockets::tls::v3::DownstreamTlsContext,
        google::protobuf::BoolValue,
    };
    // Everybody of the trust domain may call; who exactly, the application sees in its own logs.
    let peers = format!("spiffe://{}/", mtls.trust_domain);
    let context = DownstreamTlsContext {
        common_tls_context: Some(tls::context(mtls, &service.name, &peers, false)),
        require_client_certificate: Some(BoolValue { value: true }),
        ..DownstreamTlsContext::default()
    };
    tls::socket(any(&context))
}

/// What both sides of a connection have in common.
pub(super) mod tls {
    use super::{Any, Mtls, TransportSocket};
    use envoy_types::pb::envoy::{
        config::core::v3::{
            DataSource, WatchedDirectory, data_source::Specifier, transport_socket::ConfigType,
        },
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
            common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType,
        },
        r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
    };

    /// `own` is the service that presents the certificate. `peer` is the identity of the other, or how it begins.
    pub(in crate::build) fn context(
        mtls: &Mtls,
        own: &str,
        peer: &str,
        exact: bool,
    ) -> CommonTlsContext {
        let pattern = if exact {
            MatchPattern::Exact(peer.to_owned())
        } else {
            MatchPattern::Prefix(peer.to_owned())
        };
        let san = SubjectAltNameMatcher {
            san_type: SanType::Uri as i32,
            matcher: Some(StringMatcher {
                match_pattern: Some(pattern),
                ..StringMatcher::default()
            }),
            ..SubjectAltNameMatcher::default()
        };
        let file = |path: &str| {
            Some(DataSource {
                specifier: Some(Specifier::Filename(path.replace("{service}", own))),
                ..DataSource::default()
            })
        };
        // Certificates are renewed in place; without this a sidecar would read them once.
        let folder = |path: &str| {
            let path = path.replace("{service}", own);
            let path = match path.rsplit_once('/') {
                Some(("", _)) => "/",
                Some((folder, _)) => folder,
                None => ".",
            };
            Some(WatchedDirectory {
                path: path.to_owned(),
                ..WatchedDirectory::default()
            })
        };
        let certificate = TlsCertificate {
            certificate_chain: file(&mtls.certificate_chain),
            private_key: file(&mtls.private_key),
            watched_directory: folder(&mtls.certificate_chain),
            ..TlsCertificate::default()
        };
        let validation = CertificateValidationContext {
            trusted_ca: file(&mtls.trusted_ca),
            watched_directory: folder(&mtls.trusted_ca),
            match_typed_subject_alt_names: vec![san],
            ..CertificateValidationContext::default()
        };
        CommonTlsContext {
            tls_certificates: vec![certificate],
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..CommonTlsContext::default()
        }
    }

    pub(in crate::build) fn socket(config: Any) -> TransportSocket {
        TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(ConfigType::TypedConfig(config)),
        }
    }
}
