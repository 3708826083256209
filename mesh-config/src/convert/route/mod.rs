//! `RouteConfiguration` and what is in it.

mod action;
mod host;
mod internal_redirect;
mod matches;
mod overrides;
mod reply;
mod weighted;

use std::{collections::HashSet, sync::Arc};

use envoy_types::pb::envoy::{
    config::route::v3 as pb, extensions::filters::network::http_connection_manager::v3::Rds,
};
use mesh_core::format::Captures;
use mesh_route::{BODY_MAX_DEFAULT, MirrorPolicy, RouteConfiguration, RouteTable};

use super::{
    context::Context, filters::Chain, listener::Surroundings, mirror, mutation, source, value,
};
use crate::{
    dynamic::Kind,
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::RoutePolicies,
};

pub(super) use action::SUPPORT as ACTION_SUPPORT;
pub(super) use host::SUPPORT as HOST_SUPPORT;
pub(super) use internal_redirect::SUPPORT as INTERNAL_REDIRECT_SUPPORT;
pub(super) use matches::SUPPORT as MATCH_SUPPORT;
pub(super) use reply::SUPPORT as REPLY_SUPPORT;

pub(super) const SUPPORT: &[MessageSupport] = &[MessageSupport {
    message: "envoy.config.route.v3.RouteConfiguration",
    fields: &[
        ("name", Enforced),
        ("virtual_hosts", Enforced),
        ("internal_only_headers", Enforced),
        ("response_headers_to_add", Enforced),
        ("response_headers_to_remove", Enforced),
        ("request_headers_to_add", Enforced),
        ("request_headers_to_remove", Enforced),
        ("most_specific_header_mutations_wins", Enforced),
        ("validate_clusters", Enforced),
        ("max_direct_response_body_size_bytes", Enforced),
        ("ignore_port_in_host_matching", Enforced),
        ("vhost_header", Enforced),
        ("ignore_path_parameters_in_path_matching", Enforced),
        ("typed_per_filter_config", Enforced),
        ("request_mirror_policies", Enforced),
        ("metadata", Meaningless),
    ],
}];

/// What every level below the route configuration needs to know.
struct Scope<'a> {
    around: &'a Surroundings<'a>,
    chain: &'a Chain,
    /// The path that names the state which belongs to the configuration.
    owner: String,
    /// `max_direct_response_body_size_bytes`.
    body_max: usize,
    /// Whether a cluster that a route names must exist.
    validate_clusters: bool,
    /// The overrides of the configuration itself.
    overrides: overrides::Overrides,
    /// Its mirrors.
    mirrors: Arc<[MirrorPolicy]>,
}

impl Scope<'_> {
    /// Complains about a cluster that does not exist.
    fn check_cluster(&self, cx: &Context<'_>, at: &At<'_>, name: &str) {
        if self.validate_clusters && !self.around.clusters.contains(name) {
            cx.invalid(at, format!("there is no cluster named {name:?}"));
        }
    }

    /// The mirrors of one level; those of the level above when it has none.
    fn mirrors(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        policies: &[pb::route_action::RequestMirrorPolicy],
        above: &Arc<[MirrorPolicy]>,
    ) -> Arc<[MirrorPolicy]> {
        if policies.is_empty() {
            return Arc::clone(above);
        }
        let at = at.field("request_mirror_policies");
        mirror::convert(cx, &at, policies, |at, name| {
            self.check_cluster(cx, at, name)
        })
    }
}

/// The route configuration that `rds` names, which has to come: until then there are no routes, which
/// answers 404.
pub(super) fn from_elsewhere(
    cx: &Context<'_>,
    at: &At<'_>,
    rds: &Rds,
) -> Option<pb::RouteConfiguration> {
    let name = &rds.route_config_name;
    let origin = source::convert(cx, &at.field("config_source"), rds.config_source.as_ref())?;
    cx.need(Kind::Routes, name, origin);
    let mut none = pb::RouteConfiguration::default();
    come_from_elsewhere(&mut none, name);
    Some(none)
}

/// Routes that came by that name may name clusters that are not there yet; they answer 503 until they are.
pub(super) fn come_from_elsewhere(routes: &mut pb::RouteConfiguration, name: &str) {
    name.clone_into(&mut routes.name);
    let no = envoy_types::pb::google::protobuf::BoolValue { value: false };
    routes.validate_clusters.get_or_insert(no);
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::RouteConfiguration,
    around: &Surroundings<'_>,
    chain: &Chain,
    captures: &mut Captures,
) -> Option<RouteTable<RoutePolicies>> {
    let owner = format!("{}/route_config/{}", around.owner, from.name);
    let per_filter = at.field("typed_per_filter_config");
    let overrides = overrides::Overrides::default();
    let mut scope = Scope {
        mirrors: Arc::from([]),
        overrides: overrides.overridden(
            cx,
            &per_filter,
            &from.typed_per_filter_config,
            &overrides::Site {
                around,
                chain,
                owner: &owner,
            },
        ),
        around,
        chain,
        owner,
        body_max: value::number(from.max_direct_response_body_size_bytes)
            .map_or(BODY_MAX_DEFAULT, |bytes| bytes as usize),
        validate_clusters: value::flag(from.validate_clusters, true),
    };
    scope.mirrors = scope.mirrors(cx, at, &from.request_mirror_policies, &scope.mirrors);
    let list = at.field("virtual_hosts");
    let unique = no_duplicates(cx, &list, &from.virtual_hosts);
    let hosts = from.virtual_hosts.iter().enumerate();
    let hosts: Vec<_> = hosts
        .map(|(index, from)| host::convert(cx, &list.index(index), from, &scope))
        .collect();
    let mut config = RouteConfiguration::new(from.name.as_str(), hosts);
    config.mutations = mutation::convert(cx, at, &mutation::lists!(from));
    config.most_specific_header_mutations_wins = from.most_specific_header_mutations_wins;
    config.ignore_port_in_host_matching = from.ignore_port_in_host_matching;
    config.ignore_path_parameters_in_path_matching = from.ignore_path_parameters_in_path_matching;
    config.vhost_header = value::nonempty(&from.vhost_header)
        .and_then(|name| value::header_name(cx, &at.field("vhost_header"), name));
    if !unique {
        return None;
    }
    cx.ok(&list, RouteTable::new(config, captures))
}

/// Whether every name and every domain appears once; complains where one appears again.
fn no_duplicates(cx: &Context<'_>, at: &At<'_>, hosts: &[pb::VirtualHost]) -> bool {
    let (mut names, mut domains) = (HashSet::new(), HashSet::new());
    let mut unique = true;
    for (index, host) in hosts.iter().enumerate() {
        let at = at.index(index);
        if !names.insert(host.name.as_str()) {
            let reason = format!("there is another virtual host named {:?}", host.name);
            cx.invalid(&at.field("name"), reason);
            unique = false;
        }
        let list = at.field("domains");
        for (index, domain) in host.domains.iter().enumerate() {
            if !domains.insert(domain.to_ascii_lowercase()) {
                let reason = format!("the domain {domain:?} appears more than once");
                cx.invalid(&list.index(index), reason);
                unique = false;
            }
        }
    }
    unique
}

/// A name in an owner's path.
fn owner(parent: &str, kind: &str, name: impl std::fmt::Display) -> Arc<str> {
    format!("{parent}/{kind}/{name}").into()
}
