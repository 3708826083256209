//! `upgrade_configs`: which tunnels a connection manager or a route allows.

use std::collections::HashSet;

use envoy_types::pb::{
    envoy::{
        config::route::v3::route_action as route,
        extensions::filters::network::http_connection_manager::v3::http_connection_manager as manager,
    },
    google::protobuf::BoolValue,
};

use super::{context::Context, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Security},
    },
    model::{UpgradeRule, UpgradeRules},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.UpgradeConfig",
        fields: &[
            ("upgrade_type", Enforced),
            ("enabled", Enforced),
            // Other filters than the usual ones might be what keeps something out.
            ("filters", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.UpgradeConfig",
        fields: &[
            ("upgrade_type", Enforced),
            ("enabled", Enforced),
            ("connect_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.route.v3.RouteAction.UpgradeConfig.ConnectConfig",
        fields: &[],
    },
];

/// Those of a connection manager.
pub(super) fn of_manager(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[manager::UpgradeConfig],
) -> UpgradeRules {
    let rules = from
        .iter()
        .map(|from| rule(&from.upgrade_type, from.enabled, false));
    checked(cx, at, rules.collect())
}

/// Those of a route.
pub(super) fn of_route(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[route::UpgradeConfig],
) -> UpgradeRules {
    for (index, from) in from.iter().enumerate() {
        if from.connect_config.is_some() && !from.upgrade_type.eq_ignore_ascii_case("CONNECT") {
            let at = at.index(index);
            cx.invalid(
                &at.field("connect_config"),
                "only an upgrade_type of CONNECT can have it",
            );
        }
    }
    let rules = from.iter().map(|from| {
        let terminates = from.connect_config.is_some();
        rule(&from.upgrade_type, from.enabled, terminates)
    });
    checked(cx, at, rules.collect())
}

fn rule(name: &str, enabled: Option<BoolValue>, terminates: bool) -> UpgradeRule {
    UpgradeRule {
        upgrade_type: name.to_ascii_lowercase().into(),
        enabled: value::flag(enabled, true),
        terminates,
    }
}

fn checked(cx: &Context<'_>, at: &At<'_>, rules: UpgradeRules) -> UpgradeRules {
    let mut seen = HashSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if !seen.insert(&rule.upgrade_type) {
            let reason = format!("there is another upgrade_type {:?}", rule.upgrade_type);
            cx.invalid(&at.index(index).field("upgrade_type"), reason);
        }
    }
    rules
}
