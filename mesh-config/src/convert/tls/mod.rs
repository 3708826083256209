//! `DownstreamTlsContext` and `UpstreamTlsContext`: the transport sockets that encrypt.

mod common;
mod secret;
mod validation;

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{TransportSocket, transport_socket::ConfigType},
    extensions::transport_sockets::tls::v3::{
        self as pb, CommonTlsContext, downstream_tls_context::SessionTicketKeysType,
    },
};
use mesh_tls::{DownstreamTlsConfig, TicketKey, UpstreamTlsConfig, ValidationConfig};

use super::{context::Context, proxy_protocol, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Security},
    },
    model::{DownstreamTls, UpstreamTls, ValidationSource},
};

pub(super) use common::SUPPORT as COMMON_SUPPORT;
pub(super) use secret::{SUPPORT as SECRET_SUPPORT, convert as secret};
pub(super) use validation::SUPPORT as VALIDATION_SUPPORT;

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        fields: &[
            ("common_tls_context", Enforced),
            ("require_client_certificate", Enforced),
            ("require_sni", Enforced),
            ("session_ticket_keys", Enforced),
            ("session_ticket_keys_sds_secret_config", Security),
            ("disable_stateless_session_resumption", Enforced),
            ("disable_stateful_session_resumption", Enforced),
            ("session_timeout", Enforced),
            // There are no staples: nothing is said to clients that Envoy would not leave out too.
            ("ocsp_staple_policy", EnforcedFor(&["LENIENT_STAPLING"])),
            ("prefer_client_ciphers", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.TlsSessionTicketKeys",
        fields: &[("keys", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        fields: &[
            ("common_tls_context", Enforced),
            ("sni", Enforced),
            ("auto_host_sni", Enforced),
            ("auto_sni_san_validation", Enforced),
            ("max_session_keys", Enforced),
            ("enforce_rsa_key_usage", Enforced),
        ],
    },
];

/// What a transport socket holds, if it is of type `T`. Every other type but plain bytes is in the report, as
/// what security depends on.
fn context<T: prost::Message + prost::Name + Default>(
    cx: &Context<'_>,
    from: Option<&TransportSocket>,
) -> Option<T> {
    let Some(ConfigType::TypedConfig(any)) = &from?.config_type else {
        return None;
    };
    cx.unpack(any)
}

/// The transport socket of a filter chain: plain bytes, TLS, or nothing that could run.
pub(super) fn downstream(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&TransportSocket>,
) -> Option<Option<Arc<DownstreamTls>>> {
    let Some(from) = context::<pb::DownstreamTlsContext>(cx, from) else {
        return Some(None);
    };
    let at = at.field("transport_socket");
    let at = at.field("typed_config");
    let common_at = at.field("common_tls_context");
    let nothing = CommonTlsContext::default();
    let common = from.common_tls_context.as_ref().unwrap_or(&nothing);
    let certificates = common::certificates(cx, &common_at, common);
    let validation = validation::convert(cx, &common_at, common);
    let params = common::params(cx, &common_at, common, mesh_tls::TlsParams::downstream());
    let on = |flag: Option<envoy_types::pb::google::protobuf::BoolValue>| {
        flag.is_some_and(|flag| flag.value)
    };
    let mut config = DownstreamTlsConfig::default()
        .require_client_certificate(on(from.require_client_certificate))
        .require_sni(on(from.require_sni))
        .disable_stateful_session_resumption(from.disable_stateful_session_resumption)
        .prefer_client_ciphers(from.prefer_client_ciphers)
        .params(params?);
    let timeout_at = at.field("session_timeout");
    if let Some(timeout) = value::duration(cx, &timeout_at, from.session_timeout.as_ref()) {
        config = config.session_timeout(timeout);
    }
    let alpn_at = common_at.field("alpn_protocols");
    config = cx.ok(&alpn_at, config.alpn_protocols(&common.alpn_protocols))?;
    match &from.session_ticket_keys_type {
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(off)) => {
            config = config.disable_stateless_session_resumption(*off);
        }
        Some(SessionTicketKeysType::SessionTicketKeys(keys)) => {
            let at = at.field("session_ticket_keys");
            let keys = ticket_keys(cx, &at.field("keys"), keys)?;
            config = cx.ok(&at, config.session_ticket_keys(keys))?;
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) | None => {}
    }
    let certificates = certificates?;
    if certificates.is_empty() {
        // Where they would come from otherwise is in the report.
        if !common::are_elsewhere(common) {
            let reason = "no TLS certificates found for server context";
            cx.invalid(&common_at, reason);
        }
        return None;
    }
    cx.ok(&at, config.check())?;
    Some(Some(Arc::new(DownstreamTls {
        config,
        certificates,
        validation: validation?,
    })))
}

fn ticket_keys(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::TlsSessionTicketKeys,
) -> Option<Vec<TicketKey>> {
    let keys = from.keys.iter().enumerate();
    keys.map(|(index, source)| {
        let at = at.index(index);
        let bytes = value::data_source(cx, &at, source)?;
        cx.ok(&at, TicketKey::new(&bytes))
    })
    .collect()
}

/// The transport socket of a cluster, likewise.
pub(super) fn upstream(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&TransportSocket>,
) -> Option<Option<Arc<UpstreamTls>>> {
    proxy_protocol::refuse(cx, at, from);
    let Some(from) = context::<pb::UpstreamTlsContext>(cx, from) else {
        return Some(None);
    };
    let at = at.field("transport_socket");
    let at = at.field("typed_config");
    let common_at = at.field("common_tls_context");
    let nothing = CommonTlsContext::default();
    let common = from.common_tls_context.as_ref().unwrap_or(&nothing);
    let certificates = common::certificates(cx, &common_at, common);
    let validation = validation::convert(cx, &common_at, common);
    let params = common::params(cx, &common_at, common, mesh_tls::TlsParams::upstream());
    let mut config = UpstreamTlsConfig::default().params(params?);
    if let Some(sessions) = value::number(from.max_session_keys) {
        config = config.max_session_keys(usize::try_from(sessions).unwrap_or(usize::MAX));
    }
    if let Some(sni) = value::nonempty(&from.sni) {
        config = cx.ok(&at.field("sni"), config.sni(sni))?;
    }
    let alpn_at = common_at.field("alpn_protocols");
    config = cx.ok(&alpn_at, config.alpn_protocols(&common.alpn_protocols))?;
    let certificates = certificates?;
    if certificates.len() > 1 {
        let reason = "multiple TLS certificates are not supported for client contexts";
        cx.invalid(&common_at.field("tls_certificates"), reason);
    }
    // Without a validation, nothing is verified: Envoy's default.
    let validation = validation?
        .unwrap_or_else(|| ValidationSource::Fixed(Box::new(ValidationConfig::dangerous_anyone())));
    let rsa = from.enforce_rsa_key_usage.is_some_and(|flag| flag.value);
    let validation = validation.map(|config| {
        config
            .match_server_name(from.auto_sni_san_validation)
            .enforce_rsa_key_usage(rsa)
    });
    // What comes from elsewhere is looked at when it comes.
    let comes = matches!(validation, ValidationSource::Sds { .. });
    let dangerous = !comes
        && validation
            .config()
            .is_none_or(ValidationConfig::is_dangerous);
    if from.auto_sni_san_validation && dangerous {
        let reason = "'auto_sni_san_validation' was configured without a trusted CA";
        cx.invalid(&at.field("auto_sni_san_validation"), reason);
    }
    cx.ok(&at, config.check())?;
    Some(Some(Arc::new(UpstreamTls {
        config,
        certificate: certificates.into_iter().next(),
        validation,
        auto_host_sni: from.auto_host_sni,
    })))
}
