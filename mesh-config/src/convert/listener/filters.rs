//! `listener_filters`: who looks at a connection before a filter chain is chosen.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::{
        core::v3::proxy_protocol_config::Version,
        listener::v3::{self as pb, listener_filter::ConfigType},
    },
    extensions::filters::listener::{
        original_dst::v3::OriginalDst, proxy_protocol::v3::ProxyProtocol,
        tls_inspector::v3::TlsInspector,
    },
};
use mesh_net::proxy_protocol::ProxyVersion;

use crate::{
    convert::{
        context::{Context, type_name},
        proxy_protocol, value,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
        is_security_type,
    },
    model::{ListenerFilter, ProxyProtocolConfig, TlsInspectorConfig},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.listener.v3.ListenerFilter",
        fields: &[
            ("name", Meaningless),
            ("typed_config", Enforced),
            ("config_discovery", Security),
            ("filter_disabled", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        fields: &[
            ("allow_requests_without_proxy_protocol", Enforced),
            ("disallowed_versions", Enforced),
            ("stat_prefix", Enforced),
            ("pass_through_tlvs", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        fields: &[
            ("enable_ja3_fingerprinting", Enforced),
            ("enable_ja4_fingerprinting", Enforced),
            ("initial_read_buffer_size", Enforced),
            ("close_connection_on_client_hello_parsing_errors", Enforced),
            ("max_client_hello_size", Enforced),
        ],
    },
];

/// The filters that are known; others are in the report, by their type, as what security depends on.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &[pb::ListenerFilter],
) -> Vec<ListenerFilter> {
    let list = at.field("listener_filters");
    let filters = from.iter().enumerate();
    filters
        .filter_map(|(index, filter)| one(cx, &list.index(index), filter))
        .collect()
}

fn one(cx: &Context<'_>, at: &At<'_>, from: &pb::ListenerFilter) -> Option<ListenerFilter> {
    let Some(ConfigType::TypedConfig(any)) = &from.config_type else {
        if from.config_type.is_none() {
            cx.invalid(at, "typed_config is missing");
        }
        return None;
    };
    if let Some(from) = cx.unpack::<ProxyProtocol>(any) {
        let versions = from.disallowed_versions();
        return Some(ListenerFilter::ProxyProtocol(ProxyProtocolConfig {
            allow_requests_without_proxy_protocol: from.allow_requests_without_proxy_protocol,
            disallowed_versions: versions
                .map(|version| match version {
                    Version::V1 => ProxyVersion::V1,
                    Version::V2 => ProxyVersion::V2,
                })
                .collect(),
            stat_prefix: Arc::from(from.stat_prefix.as_str()),
            pass_through: proxy_protocol::pass_through(from.pass_through_tlvs.as_ref()),
        }));
    }
    if cx.unpack::<OriginalDst>(any).is_some() {
        return Some(ListenerFilter::OriginalDst);
    }
    if let Some(from) = cx.unpack::<TlsInspector>(any) {
        return Some(ListenerFilter::TlsInspector(tls_inspector(&from)));
    }
    let name = type_name(any);
    if !is_security_type(name) {
        let reason = format!("{name} is not the config of a listener filter");
        cx.invalid(&at.field("typed_config"), reason);
    }
    None
}

fn tls_inspector(from: &TlsInspector) -> TlsInspectorConfig {
    let default = TlsInspectorConfig::default();
    let size = |size: Option<u32>| size.and_then(|size| usize::try_from(size).ok());
    let max = size(value::number(from.max_client_hello_size));
    let client_hello_max = max.unwrap_or(default.client_hello_max);
    let first = size(value::number(from.initial_read_buffer_size));
    TlsInspectorConfig {
        first_look: first.unwrap_or(default.first_look).min(client_hello_max),
        close_on_parsing_errors: from.close_connection_on_client_hello_parsing_errors,
        client_hello_max,
        ja3: from.enable_ja3_fingerprinting.is_some_and(|on| on.value),
        ja4: from.enable_ja4_fingerprinting.is_some_and(|on| on.value),
    }
}
