//! `typed_per_filter_config`: what a filter does differently for some requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use envoy_types::pb::{
    envoy::{
        config::route::v3::FilterConfig,
        extensions::filters::http::local_ratelimit::v3::LocalRateLimit,
    },
    google::protobuf::Any,
};
use mesh_ratelimit::{LocalRateLimitConfig, RateLimitRule};

use crate::{
    convert::{
        context::Context,
        filters::Chain,
        listener::Surroundings,
        ratelimit::{self, RuleSelection, StagedRule},
    },
    language::{At, is_security_type},
    model::RateLimitOverride,
};

/// Who overrides.
pub(super) struct Site<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) chain: &'a Chain,
    /// The path that names the state of this level.
    pub(super) owner: &'a str,
}

/// The overrides of `local_ratelimit` filters that hold at some level, by the filter's name.
#[derive(Clone, Default)]
pub(super) struct Limits(BTreeMap<Arc<str>, Override>);

#[derive(Clone)]
struct Override {
    limit: RateLimitOverride,
    rules: Option<RuleSelection>,
}

/// The rate limits of a route and of its virtual host.
pub(super) struct RouteRules<'a> {
    pub(super) route: &'a [StagedRule],
    pub(super) include_virtual_host: bool,
    pub(super) virtual_host: &'a [StagedRule],
}

impl Limits {
    /// These, but for those that a level below has itself.
    pub(super) fn overridden(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HashMap<String, Any>,
        site: &Site<'_>,
    ) -> Self {
        let mut limits = self.clone();
        // In an order of its own, so that complaints come in the same order every time.
        let sorted: BTreeMap<&String, &Any> = from.iter().collect();
        for (name, any) in sorted {
            let at = at.key(name);
            if !site.chain.names.contains(name) {
                // There is no such filter, so that this configures nothing.
                cx.harmless(&at);
                if !is_security_type(type_name(any)) || cx.unpack::<LocalRateLimit>(any).is_some() {
                    cx.unsupported(&at, type_name(any), Some("there is no filter of that name"));
                }
                continue;
            }
            if let Some(found) = read(cx, &at, name, any, site) {
                limits.0.insert(Arc::from(name.as_str()), found);
            }
        }
        limits
    }

    /// As the model has them.
    pub(super) fn to_model(&self) -> BTreeMap<Arc<str>, RateLimitOverride> {
        let limits = self.0.iter();
        limits
            .map(|(name, found)| (Arc::clone(name), found.limit.clone()))
            .collect()
    }

    /// The rules of a route for each `local_ratelimit` filter that asks for them.
    pub(super) fn rules(
        &self,
        chain: &Chain,
        rules: &RouteRules<'_>,
    ) -> BTreeMap<Arc<str>, Arc<[RateLimitRule]>> {
        let effective = chain.filters.iter().filter_map(|filter| {
            let selection = match self.0.get(&filter.name) {
                Some(found) => found.rules?,
                None => *chain.rules.get(&filter.name)?,
            };
            let selected =
                selection.select(rules.route, rules.include_virtual_host, rules.virtual_host);
            (!selected.is_empty()).then(|| (Arc::clone(&filter.name), Arc::from(selected)))
        });
        effective.collect()
    }
}

fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The override of a `local_ratelimit` filter; those of other filters are in the report, by their types.
fn read(cx: &Context<'_>, at: &At<'_>, name: &str, any: &Any, site: &Site<'_>) -> Option<Override> {
    let owner = super::owner(site.owner, "filter", name);
    let Some(wrapper) = cx.unpack::<FilterConfig>(any) else {
        return local_rate_limit(cx, at, any, owner, site);
    };
    let at_config = at.field("config");
    if wrapper.disabled {
        // Nobody looks at the config then.
        cx.ignored(&at_config);
        let limit = (owner, Arc::new(LocalRateLimitConfig::default()));
        return Some(Override { limit, rules: None });
    }
    if wrapper.is_optional {
        cx.harmless(&at_config);
    }
    let Some(inner) = &wrapper.config else {
        cx.invalid(at, "the config of the filter is missing");
        return None;
    };
    local_rate_limit(cx, &at_config, inner, owner, site)
}

fn local_rate_limit(
    cx: &Context<'_>,
    at: &At<'_>,
    any: &Any,
    owner: Arc<str>,
    site: &Site<'_>,
) -> Option<Override> {
    let Some(from) = cx.unpack::<LocalRateLimit>(any) else {
        if !is_security_type(type_name(any)) {
            let reason = format!("{} is not the config of an HTTP filter", type_name(any));
            cx.invalid(at, reason);
        }
        return None;
    };
    if from.token_bucket.is_none() {
        cx.invalid(at, "token_bucket is missing: a config of its own needs one");
        return None;
    }
    let limit = ratelimit::convert(cx, at, &from, &site.around.node.cluster)?;
    Some(Override {
        limit: (owner, Arc::new(limit.config)),
        rules: Some(limit.rules),
    })
}
