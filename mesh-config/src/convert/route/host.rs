//! `VirtualHost` and `Route`.

use std::{cell::RefCell, sync::Arc};

use envoy_types::pb::envoy::config::route::v3 as pb;
use mesh_retry::{DeadlineConfig, RetryConfig, RetryConfigBuilder};
use mesh_route::{Action, MirrorPolicy, RequireTls, Route, VirtualHost};

use super::{
    Scope, action, matches,
    overrides::{Overrides, RouteRules, RulesByFilter, Site},
    owner, reply,
};
use crate::{
    convert::{
        context::Context,
        mutation,
        ratelimit::{self, StagedRule},
        retry, upgrade, value,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::RoutePolicies,
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.route.v3.VirtualHost",
        fields: &[
            ("name", Enforced),
            ("domains", Enforced),
            ("routes", Enforced),
            ("require_tls", Enforced),
            ("rate_limits", Enforced),
            ("request_headers_to_add", Enforced),
            ("request_headers_to_remove", Enforced),
            ("response_headers_to_add", Enforced),
            ("response_headers_to_remove", Enforced),
            ("typed_per_filter_config", Enforced),
            ("include_request_attempt_count", Enforced),
            ("include_attempt_count_in_response", Enforced),
            ("include_is_timeout_retry_header", Enforced),
            ("retry_policy", Enforced),
            ("hedge_policy", Enforced),
            ("per_request_buffer_limit_bytes", Enforced),
            ("request_body_buffer_limit", Enforced),
            ("request_mirror_policies", Enforced),
            ("metadata", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.Route",
        fields: &[
            ("name", Enforced),
            ("match", Enforced),
            ("route", Enforced),
            ("redirect", Enforced),
            ("direct_response", Enforced),
            ("filter_action", Enforced),
            ("non_forwarding_action", Enforced),
            ("typed_per_filter_config", Enforced),
            ("request_headers_to_add", Enforced),
            ("request_headers_to_remove", Enforced),
            ("response_headers_to_add", Enforced),
            ("response_headers_to_remove", Enforced),
            ("per_request_buffer_limit_bytes", Enforced),
            ("request_body_buffer_limit", Enforced),
            ("metadata", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.FilterConfig",
        fields: &[
            ("config", Enforced),
            ("disabled", Enforced),
            ("is_optional", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.NonForwardingAction",
        fields: &[],
    },
];

/// What the routes of a virtual host share.
struct HostScope<'a> {
    scope: &'a Scope<'a>,
    owner: Arc<str>,
    overrides: Overrides,
    rules: Vec<StagedRule>,
    from: &'a pb::VirtualHost,
    /// The policy of the virtual host, or one without conditions.
    retry: RetryConfigBuilder,
    /// The same with everything else, for all routes that say nothing themselves.
    retry_shared: Arc<RetryConfig>,
    /// What the last route has that says something.
    retry_last: RefCell<Arc<RetryConfig>>,
    /// The rate limit rules of such routes.
    rules_shared: Arc<RulesByFilter>,
    /// The mirrors of such routes.
    mirrors: Arc<[MirrorPolicy]>,
}

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::VirtualHost,
    scope: &Scope<'_>,
) -> VirtualHost<RoutePolicies> {
    let host = HostScope::new(cx, at, from, scope);
    let list = at.field("routes");
    let routes = from.routes.iter().enumerate();
    let routes =
        routes.filter_map(|(index, from)| route(cx, &list.index(index), from, index, &host));
    let routes = routes.collect();
    let mut converted = VirtualHost::new(from.name.as_str(), from.domains.clone(), routes);
    converted.require_tls = match from.require_tls() {
        pb::virtual_host::TlsRequirementType::None => RequireTls::None,
        pb::virtual_host::TlsRequirementType::ExternalOnly => RequireTls::ExternalOnly,
        pb::virtual_host::TlsRequirementType::All => RequireTls::All,
    };
    converted.mutations = mutation::convert(cx, at, &mutation::lists!(from));
    converted.include_request_attempt_count = from.include_request_attempt_count;
    converted.include_attempt_count_in_response = from.include_attempt_count_in_response;
    converted
}

impl<'a> HostScope<'a> {
    fn new(cx: &Context<'_>, at: &At<'_>, from: &'a pb::VirtualHost, scope: &'a Scope<'a>) -> Self {
        let owner = owner(&scope.owner, "vhost", &from.name);
        let per_filter = at.field("typed_per_filter_config");
        let site = Site {
            around: scope.around,
            chain: scope.chain,
            owner: &owner,
        };
        let overrides =
            scope
                .overrides
                .overridden(cx, &per_filter, &from.typed_per_filter_config, &site);
        let policy = from.retry_policy.as_ref();
        let retry = policy
            .map_or_else(RetryConfig::builder, |policy| {
                retry::convert(cx, &at.field("retry_policy"), policy)
            })
            .include_request_attempt_count(from.include_request_attempt_count)
            .include_is_timeout_retry_header(from.include_is_timeout_retry_header);
        let node_cluster = &scope.around.node.cluster;
        let shared = finish_retry(retry.clone(), scope, from, &pb::Route::default(), None);
        let shared = Arc::new(shared);
        let at_rules = at.field("rate_limits");
        let rules = ratelimit::rules(cx, &at_rules, &from.rate_limits, node_cluster);
        let of_host = RouteRules {
            route: &[],
            include_virtual_host: false,
            virtual_host: &rules,
        };
        let rules_shared = overrides.rules(cx, &at_rules, scope.chain, &of_host);
        Self {
            rules,
            rules_shared: Arc::new(rules_shared),
            mirrors: scope.mirrors(cx, at, &from.request_mirror_policies, &scope.mirrors),
            retry_last: RefCell::new(Arc::clone(&shared)),
            retry_shared: shared,
            scope,
            owner,
            overrides,
            from,
            retry,
        }
    }

    /// The route's policy, or the virtual host's: one or the other, never a mixture.
    fn retry(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        route: &pb::Route,
        action: &pb::RouteAction,
    ) -> Arc<RetryConfig> {
        let untouched = action.retry_policy.is_none()
            && action.hedge_policy.is_none()
            && route.request_body_buffer_limit.is_none()
            && route.per_request_buffer_limit_bytes.is_none();
        if untouched {
            return Arc::clone(&self.retry_shared);
        }
        // Most routes of a virtual host say the same.
        let last = &mut *self.retry_last.borrow_mut();
        let own = action.retry_policy.as_ref().map(|policy| {
            retry::convert(cx, &at.field("retry_policy"), policy)
                .include_request_attempt_count(self.from.include_request_attempt_count)
                .include_is_timeout_retry_header(self.from.include_is_timeout_retry_header)
        });
        let builder = own.unwrap_or_else(|| self.retry.clone());
        let hedge = action.hedge_policy.as_ref();
        let config = finish_retry(builder, self.scope, self.from, route, hedge);
        if **last != config {
            *last = Arc::new(config);
        }
        Arc::clone(last)
    }
}

/// Adds what stands beside the policy: hedging, and how much of a body is kept.
fn finish_retry(
    builder: RetryConfigBuilder,
    scope: &Scope<'_>,
    host: &pb::VirtualHost,
    route: &pb::Route,
    hedge: Option<&pb::HedgePolicy>,
) -> RetryConfig {
    let new = route
        .request_body_buffer_limit
        .or(host.request_body_buffer_limit);
    let old = route
        .per_request_buffer_limit_bytes
        .or(host.per_request_buffer_limit_bytes);
    let limit = new
        .map(|limit| limit.value)
        .or_else(|| value::number(old).map(u64::from))
        .unwrap_or(scope.around.buffer_limit);
    let hedge = hedge.or(host.hedge_policy.as_ref());
    builder
        .hedge_on_per_try_timeout(hedge.is_some_and(|hedge| hedge.hedge_on_per_try_timeout))
        .request_body_buffer_limit(limit)
        .build()
}

fn route(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Route,
    index: usize,
    host: &HostScope<'_>,
) -> Option<Route<RoutePolicies>> {
    use pb::route::Action as Kind;
    let scope = host.scope;
    let matches = matches::convert(cx, &at.field("match"), from.r#match.as_ref()?);
    let owner = owner(&host.owner, "route", index);
    let site = Site {
        around: scope.around,
        chain: scope.chain,
        owner: &owner,
    };
    let per_filter = at.field("typed_per_filter_config");
    let overrides =
        host.overrides
            .overridden(cx, &per_filter, &from.typed_per_filter_config, &site);
    let mut policies = RoutePolicies {
        filters: overrides.to_model(),
        metadata: value::metadata(from.metadata.as_ref()),
        ..RoutePolicies::default()
    };
    let mut rules = RouteRules {
        route: &[],
        include_virtual_host: false,
        virtual_host: &host.rules,
    };
    let own_rules;
    let action: Action = match from.action.as_ref()? {
        Kind::Route(action) => {
            let at = at.field("route");
            policies.retry = Some(host.retry(cx, &at, from, action));
            let upgrades = at.field("upgrade_configs");
            policies.upgrades = upgrade::of_route(cx, &upgrades, &action.upgrade_configs);
            let at_rules = at.field("rate_limits");
            let node_cluster = &scope.around.node.cluster;
            own_rules = ratelimit::rules(cx, &at_rules, &action.rate_limits, node_cluster);
            rules.route = &own_rules;
            rules.include_virtual_host = value::flag(action.include_vh_rate_limits, false);
            policies.weighted_filters =
                action::weighted_filters(cx, &at, action, &overrides, &site);
            let action = action::convert(cx, &at, action, scope, &host.mirrors)?;
            policies.deadline = Some(Arc::new(DeadlineConfig::new(action.timeout)));
            action.into()
        }
        Kind::Redirect(redirect) => reply::redirect(cx, &at.field("redirect"), redirect)?.into(),
        Kind::DirectResponse(response) => {
            let at = at.field("direct_response");
            reply::direct_response(cx, &at, response, scope.body_max)?.into()
        }
        Kind::NonForwardingAction(_) => Action::NonForwarding,
        Kind::FilterAction(_) => {
            cx.invalid(
                &at.field("filter_action"),
                "actions of filters are not supported",
            );
            return None;
        }
    };
    let untouched =
        rules.route.is_empty() && !rules.include_virtual_host && overrides.is(&host.overrides);
    policies.rate_limit_rules = if untouched {
        Arc::clone(&host.rules_shared)
    } else {
        Arc::new(overrides.rules(cx, at, scope.chain, &rules))
    };
    let mut route = Route::new(matches?, action, policies).named(from.name.as_str());
    route.mutations = mutation::convert(cx, at, &mutation::lists!(from));
    Some(route)
}
