//! `typed_per_filter_config`: what a filter does differently for some requests.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use envoy_types::pb::{envoy::config::route::v3::FilterConfig, google::protobuf::Any};
use mesh_ratelimit::RateLimitRule;

use crate::{
    convert::{
        context::{Context, type_name},
        filters::{self, Chain, RouteSays},
        listener::Surroundings,
        ratelimit::{RuleSelection, StagedRule},
    },
    language::{At, is_security_type},
    model::{FilterOverride, FilterOverrides, HttpFilter, HttpFilterKind, RouteFilterKind},
};

/// Who overrides.
pub(super) struct Site<'a> {
    pub(super) around: &'a Surroundings<'a>,
    pub(super) chain: &'a Chain,
    /// The path that names the state of this level.
    pub(super) owner: &'a str,
}

/// The overrides that hold at some level, by the filter's name. Levels that have none of their own share
/// those of the level above.
#[derive(Clone, Default)]
pub(super) struct Overrides(Arc<FilterOverrides>);

/// The rate limits of a route and of its virtual host.
pub(super) struct RouteRules<'a> {
    pub(super) route: &'a [StagedRule],
    pub(super) include_virtual_host: bool,
    pub(super) virtual_host: &'a [StagedRule],
}

/// The rules of a route, by the name of the filter that asks for them.
pub(super) type RulesByFilter = BTreeMap<Arc<str>, Arc<[RateLimitRule]>>;

impl Overrides {
    /// These, but for those that a level below has itself.
    pub(super) fn overridden(
        &self,
        cx: &Context<'_>,
        at: &At<'_>,
        from: &HashMap<String, Any>,
        site: &Site<'_>,
    ) -> Self {
        if from.is_empty() || !cx.inherit(at, self.0.len()) {
            return self.clone();
        }
        let mut overrides = (*self.0).clone();
        // In an order of its own, so that complaints come in the same order every time.
        let sorted: BTreeMap<&String, &Any> = from.iter().collect();
        for (name, any) in sorted {
            let at = at.key(name);
            if !site.chain.names.contains(name) {
                // There is no such filter, so that this configures nothing.
                cx.harmless(&at);
                if !is_security_type(type_name(any)) || filters::is_filter(any) {
                    cx.unsupported(&at, type_name(any), Some("there is no filter of that name"));
                }
                continue;
            }
            if let Some(found) = read(cx, &at, name, any, site, overrides.get(name.as_str())) {
                overrides.insert(Arc::from(name.as_str()), found);
            }
        }
        Self(Arc::new(overrides))
    }

    /// As the model has them.
    pub(super) fn to_model(&self) -> Arc<FilterOverrides> {
        Arc::clone(&self.0)
    }

    /// Whether both are the same, not only equal.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
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
            let selection = self.selection(filter)?;
            let selected =
                selection.select(rules.route, rules.include_virtual_host, rules.virtual_host);
            let fits = cx.inherit(at, selected.len());
            (fits && !selected.is_empty()).then(|| (Arc::clone(&filter.name), Arc::from(selected)))
        });
        effective.collect()
    }

    /// Which rules the filter takes from routes at this level.
    fn selection(&self, filter: &HttpFilter) -> Option<RuleSelection> {
        let HttpFilterKind::LocalRateLimit(own) = &filter.kind else {
            return None;
        };
        let found = self.0.get(&filter.name);
        let disabled = found.map_or(filter.disabled, |found| found.disabled);
        let limit = match found.and_then(|found| found.config.as_ref()) {
            Some((_, RouteFilterKind::LocalRateLimit(limit))) => limit,
            _ => own,
        };
        (!disabled).then_some(limit.rules)
    }
}

/// The override of one filter, over that of the level above. What a filter that is not known is told is in
/// the report, by its type.
fn read(
    cx: &Context<'_>,
    at: &At<'_>,
    name: &str,
    any: &Any,
    site: &Site<'_>,
    above: Option<&FilterOverride>,
) -> Option<FilterOverride> {
    let inherited = || above.and_then(|above| above.config.clone());
    let told = |at: &At<'_>, any| {
        let config = match config(cx, at, any, name, site, above)? {
            RouteSays::Disabled => return Some((true, inherited())),
            RouteSays::Config(kind) => (super::owner(site.owner, "filter", name), kind),
        };
        Some((false, Some(config)))
    };
    let (disabled, config) = match cx.unpack::<FilterConfig>(any) {
        None => told(at, any)?,
        Some(wrapper) => {
            let at_config = at.field("config");
            if wrapper.is_optional {
                cx.harmless(&at_config);
            }
            match &wrapper.config {
                _ if wrapper.disabled => {
                    // Nobody looks at the config then.
                    cx.ignored(&at_config);
                    (true, inherited())
                }
                None => {
                    cx.invalid(at, "the config of the filter is missing");
                    return None;
                }
                // Switches on a filter that is disabled, and says no more.
                Some(inner) if inner.type_url.is_empty() => (false, inherited()),
                Some(inner) => told(&at_config, inner)?,
            }
        }
    };
    Some(FilterOverride { disabled, config })
}

fn config(
    cx: &Context<'_>,
    at: &At<'_>,
    any: &Any,
    name: &str,
    site: &Site<'_>,
    above: Option<&FilterOverride>,
) -> Option<RouteSays> {
    let above = above.and_then(|above| above.config.as_ref());
    let above = above.map(|(_, kind)| kind);
    let Some(says) = filters::route(cx, at, any, site.around, above) else {
        if filters::is_filter(any) || !is_security_type(type_name(any)) {
            let reason = format!(
                "{} is not what a route may say to an HTTP filter",
                type_name(any)
            );
            cx.invalid(at, reason);
        }
        return None;
    };
    let says = says?;
    if let RouteSays::Config(kind) = &says
        && !site.chain.listens(name, kind)
    {
        cx.unsupported(
            at,
            type_name(any),
            Some("the filter of that name is another one"),
        );
    }
    Some(says)
}
