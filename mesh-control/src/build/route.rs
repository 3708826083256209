use envoy_types::pb::{
    envoy::config::route::v3::{
        Route as WireRoute, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
        WeightedCluster, route::Action, route_action::ClusterSpecifier, route_match::PathSpecifier,
        weighted_cluster::ClusterWeight,
    },
    google::protobuf::{BoolValue, Duration},
};
use mesh_xds::ResourceType;

use super::{APP, Built, INBOUND, OUTBOUND, Origin, wire::number};
use crate::mesh::{Mesh, Policies, Route, Service};

/// What an application may call: one virtual host for each service.
pub(super) fn outbound(mesh: &Mesh, called: &[&Service]) -> Built {
    let mut origin = Origin::new(&mesh.document, "services");
    let hosts = called.iter().enumerate();
    let hosts = hosts.map(|(index, service)| {
        let here = format!("virtual_hosts[{index}]");
        origin.place(here.as_str(), &service.path);
        host(service, &here, &mut origin)
    });
    let routes = RouteConfiguration {
        name: OUTBOUND.to_owned(),
        virtual_hosts: hosts.collect(),
        ignore_port_in_host_matching: true,
        // All of them are sent along, though later than routes are checked.
        validate_clusters: Some(BoolValue { value: false }),
        ..RouteConfiguration::default()
    };
    Built::new(ResourceType::RouteConfiguration, OUTBOUND, &routes, origin)
}

fn host(service: &Service, here: &str, origin: &mut Origin) -> VirtualHost {
    let policies = &service.policies;
    let mut routes = Vec::new();
    for (index, route) in service.routes.iter().enumerate() {
        let field = format!("{here}.routes[{index}]");
        origin.place(format!("{field}.route"), &route.path);
        origin.place(format!("{field}.match"), &format!("{}.match", route.path));
        origin.place(field.as_str(), &route.path);
        routes.push(explicit(route, policies, &field, origin));
    }
    let index = routes.len();
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(service.name.clone())),
        ..RouteAction::default()
    };
    let field = format!("{here}.routes[{index}]");
    let action = with_policies(action, policies, &field, origin);
    routes.push(everything(action));
    let mut domains = service.hosts.clone();
    domains.push(service.name.clone());
    VirtualHost {
        name: service.name.clone(),
        domains,
        routes,
        ..VirtualHost::default()
    }
}

fn explicit(route: &Route, policies: &Policies, field: &str, origin: &mut Origin) -> WireRoute {
    let mut action = (*route.action).clone();
    action.cluster_specifier = Some(match route.to.as_slice() {
        [(name, _)] => ClusterSpecifier::Cluster(name.clone()),
        several => {
            let weight = |(name, weight): &(String, u32)| ClusterWeight {
                name: name.clone(),
                weight: number(*weight),
                ..ClusterWeight::default()
            };
            ClusterSpecifier::WeightedClusters(WeightedCluster {
                clusters: several.iter().map(weight).collect(),
                ..WeightedCluster::default()
            })
        }
    });
    WireRoute {
        r#match: Some(route.matches.clone()),
        action: Some(Action::Route(with_policies(
            action, policies, field, origin,
        ))),
        ..WireRoute::default()
    }
}

/// What the route does not say itself is as the service says.
fn with_policies(
    mut action: RouteAction,
    policies: &Policies,
    field: &str,
    origin: &mut Origin,
) -> RouteAction {
    if action.timeout.is_none()
        && let Some(placed) = &policies.timeout
    {
        origin.place(format!("{field}.route.timeout"), &placed.path);
        action.timeout = Some(placed.value);
    }
    if action.retry_policy.is_none()
        && let Some(placed) = &policies.retry_policy
    {
        origin.place(format!("{field}.route.retry_policy"), &placed.path);
        action.retry_policy = Some(placed.value.clone());
    }
    action
}

fn everything(action: RouteAction) -> WireRoute {
    WireRoute {
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        action: Some(Action::Route(action)),
        ..WireRoute::default()
    }
}

/// Whatever comes in goes to the application. How long it may take is for the caller to say.
pub(super) fn inbound() -> RouteConfiguration {
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(APP.to_owned())),
        timeout: Some(Duration::default()),
        ..RouteAction::default()
    };
    RouteConfiguration {
        name: INBOUND.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: APP.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![everything(action)],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(BoolValue { value: false }),
        ..RouteConfiguration::default()
    }
}
