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
        context::{Context, type_name},
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

/// The overrides of `local_ratelimit` filters that hold at some level, by the filter's name. Levels that
/// have none of their own share those of the level above.
#[derive(Clone, Default)]
pub(super) struct Limits {
    limits: Arc<BTreeMap<Arc<str>, RateLimitOverride>>,
    /// Which rules an override asks for; `None` if it asks for none.
    rules: Arc<BTreeMap<Arc<str>, Option<RuleSelection>>>,
}

/// One override, and the rules that it asks for.
type Override = (RateLimitOverride, Option<RuleSelection>);

/// The rate limits of a route and of its virtual host.
pub(super) struct RouteRules<'a> {
    pub(super) route: &'a [StagedRule],
    pub(super) include_virtual_host: bool,
    pub(super) virtual_host: &'a [StagedRule],
}

/// The rules of a route, by the name of the filter that asks for them.
pub(super) type RulesByFilter = BTreeMap<Arc<str>, Arc<[RateLimitRule]>>;

impl Limits {
    /// These, but for those that a level below has itself.
    pub(super) fn overridden(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HashMap<String, Any>,
        site: &Site<'_>,
    ) -> Self {
        if from.is_empty() || !cx.inherit(at, self.limits.len()) {
            return self.clone();
        }
        let (mut limits, mut rules) = ((*self.limits).clone(), (*self.rules).clone());
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
            if let Some((limit, selection)) = read(cx, &at, name, any, site) {
                let name: Arc<str> = Arc::from(name.as_str());
                limits.insert(Arc::clone(&name), limit);
                rules.insert(name, selection);
            }
        }
        Self {
            limits: Arc::new(limits),
            rules: Arc::new(rules),
        }
    }

    /// As the model has them.
    pub(super) fn to_model(&self) -> Arc<BTreeMap<Arc<str>, RateLimitOverride>> {
        Arc::clone(&self.limits)
    }

    /// Whether both are the same, not only equal.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rules, &other.rules)
    }

    /// The rules of a route for each `local_ratelimit` filter that asks for them.
    pub(super) fn rules(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        chain: &Chain,
        rules: &RouteRules<'_>,
    ) -> RulesByFilter {
        let effective = chain.filters.iter().filter_map(|filter| {
            let selection = match self.rules.get(&filter.name) {
                Some(own) => (*own)?,
                None => *chain.rules.get(&filter.name)?,
            };
            let selected =
                selection.select(rules.route, rules.include_virtual_host, rules.virtual_host);
            let fits = cx.inherit(at, selected.len());
            (fits && !selected.is_empty()).then(|| (Arc::clone(&filter.name), Arc::from(selected)))
        });
        effective.collect()
    }
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
        return Some(((owner, Arc::new(LocalRateLimitConfig::default())), None));
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
    Some(((owner, Arc::new(limit.config)), Some(limit.rules)))
}
