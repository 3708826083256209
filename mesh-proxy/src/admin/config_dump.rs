use serde_json::json;

use super::{Ask, Page};

pub(super) fn page(ask: &Ask<'_>) -> Page {
    let config = &ask.process.config;
    let bootstrap = &*config.dump;
    let section = |name: &str| {
        bootstrap
            .pointer(&format!("/static_resources/{name}"))
            .cloned()
    };
    let wrap = |key: &'static str, list: Option<serde_json::Value>| {
        let items = list.and_then(|l| l.as_array().cloned()).unwrap_or_default();
        items
            .into_iter()
            .map(|item| json!({key: item}))
            .collect::<Vec<_>>()
    };
    Page::json(&json!({"configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
            "bootstrap": bootstrap,
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "version_info": &*config.version,
            "static_clusters": wrap("cluster", section("clusters")),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "version_info": &*config.version,
            "static_listeners": wrap("listener", section("listeners")),
        },
    ]}))
}
