//! `ProxyProtocolUpstreamTransport`: who is behind a connection, said to upstreams.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{
        ProxyProtocolConfig, ProxyProtocolPassThroughTlVs, TransportSocket,
        proxy_protocol_config::Version, proxy_protocol_pass_through_tl_vs::PassTlVsMatchType,
        transport_socket::ConfigType,
    },
    extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport,
};
use mesh_net::proxy_protocol::ProxyVersion;

use super::context::Context;
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{PassTlvs, UpstreamProxyProtocol},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        fields: &[
            ("config", Enforced),
            ("transport_socket", Enforced),
            ("allow_unspecified_address", Security),
            // A client's connections are its own in any case.
            ("tlv_as_pool_key", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.ProxyProtocolConfig",
        fields: &[
            ("version", Enforced),
            ("pass_through_tlvs", Enforced),
            ("added_tlvs", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.ProxyProtocolPassThroughTLVs",
        fields: &[("match_type", Enforced), ("tlv_type", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.TlvEntry",
        fields: &[
            ("type", Enforced),
            ("value", Enforced),
            ("format_string", Security),
        ],
    },
];

/// What a transport socket says in front of connections, and the socket that it wraps; `None` when it is another
/// one.
pub(super) fn unwrap(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&TransportSocket>,
) -> Option<(Arc<UpstreamProxyProtocol>, Option<TransportSocket>)> {
    let from = transport(cx, from)?;
    let at = at.field("transport_socket");
    let at = at.field("typed_config");
    if from.transport_socket.is_none() {
        let reason = "there is no transport socket that carries the bytes";
        cx.invalid(&at.field("transport_socket"), reason);
    }
    let config = from.config.unwrap_or_default();
    Some((Arc::new(convert(config)), from.transport_socket))
}

fn transport(
    cx: &Context<'_>,
    from: Option<&TransportSocket>,
) -> Option<ProxyProtocolUpstreamTransport> {
    let Some(ConfigType::TypedConfig(any)) = &from?.config_type else {
        return None;
    };
    cx.unpack(any)
}

/// Where nobody looks for a header to say, one that the config asks for must not be left unsaid.
pub(super) fn refuse(cx: &Context<'_>, at: &At<'_>, from: Option<&TransportSocket>) {
    if transport(cx, from).is_some() {
        let reason = "upstream_proxy_protocol is only for the transport_socket of a cluster";
        cx.invalid(&at.field("transport_socket"), reason);
    }
}

fn convert(from: ProxyProtocolConfig) -> UpstreamProxyProtocol {
    UpstreamProxyProtocol {
        version: match from.version() {
            Version::V1 => ProxyVersion::V1,
            Version::V2 => ProxyVersion::V2,
        },
        pass_through: pass_through(from.pass_through_tlvs.as_ref()),
        added: from
            .added_tlvs
            .into_iter()
            .filter_map(|entry| Some((u8::try_from(entry.r#type).ok()?, entry.value.into())))
            .collect(),
    }
}

pub(super) fn pass_through(from: Option<&ProxyProtocolPassThroughTlVs>) -> PassTlvs {
    let Some(from) = from else {
        return PassTlvs::Nothing;
    };
    match from.match_type() {
        PassTlVsMatchType::IncludeAll => PassTlvs::Everything,
        // The protos' own rules have refused what is no byte.
        PassTlVsMatchType::Include => PassTlvs::Only(
            from.tlv_type
                .iter()
                .filter_map(|kind| u8::try_from(*kind).ok())
                .collect(),
        ),
    }
}
