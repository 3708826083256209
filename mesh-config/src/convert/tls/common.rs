//! `CommonTlsContext`: what both sides have, the validation aside.

use std::{path::PathBuf, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{
        self as pb, CommonTlsContext, tls_parameters::TlsProtocol,
    },
};
use mesh_tls::{FileSecret, Identity, TlsParams, TlsVersion};

use super::{secret, value};
use crate::{
    convert::context::Context,
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Security},
    },
    model::{AsRead, CertificateSource},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext",
        fields: &[
            ("tls_params", Enforced),
            ("tls_certificates", Enforced),
            ("tls_certificate_sds_secret_configs", Enforced),
            ("tls_certificate_provider_instance", Security),
            ("custom_tls_certificate_selector", Security),
            ("tls_certificate_certificate_provider", Security),
            ("tls_certificate_certificate_provider_instance", Security),
            ("custom_handshaker", Security),
            ("validation_context", Enforced),
            ("validation_context_sds_secret_config", Enforced),
            ("combined_validation_context", Enforced),
            ("validation_context_certificate_provider", Security),
            ("validation_context_certificate_provider_instance", Security),
            ("alpn_protocols", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.TlsParameters",
        fields: &[
            // Below 1.2 nothing is spoken: clients that need it are refused, none is let in.
            ("tls_minimum_protocol_version", Enforced),
            (
                "tls_maximum_protocol_version",
                EnforcedFor(&["TLS_AUTO", "TLSv1_2", "TLSv1_3"]),
            ),
            ("cipher_suites", Enforced),
            ("ecdh_curves", Enforced),
            ("signature_algorithms", Security),
            ("compliance_policies", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.TlsCertificate",
        fields: &[
            ("certificate_chain", Enforced),
            ("private_key", Enforced),
            ("watched_directory", Enforced),
            ("pkcs12", Security),
            ("private_key_provider", Security),
            ("password", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.WatchedDirectory",
        fields: &[("path", Enforced)],
    },
];

/// Versions, ciphers and curves, starting from one side's defaults.
pub(super) fn params(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &CommonTlsContext,
    default: TlsParams,
) -> Option<TlsParams> {
    let Some(from) = &from.tls_params else {
        return Some(default);
    };
    let at = at.field("tls_params");
    let version = |version: TlsProtocol, auto| match version {
        TlsProtocol::TlsAuto => auto,
        TlsProtocol::TlSv13 => TlsVersion::Tls13,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 | TlsProtocol::TlSv12 => TlsVersion::Tls12,
    };
    let min = version(from.tls_minimum_protocol_version(), TlsVersion::Tls12);
    let max = version(from.tls_maximum_protocol_version(), default.max());
    let params = cx.ok(&at, default.versions(min, max))?;
    let params = cx.ok(
        &at.field("cipher_suites"),
        params.cipher_suites(&from.cipher_suites),
    )?;
    cx.ok(
        &at.field("ecdh_curves"),
        params.ecdh_curves(&from.ecdh_curves),
    )
}

/// Whether certificates come from where this proxy cannot get them; the report says so.
pub(super) const fn are_elsewhere(from: &CommonTlsContext) -> bool {
    from.tls_certificate_provider_instance.is_some()
        || from.custom_tls_certificate_selector.is_some()
        || from.custom_handshaker.is_some()
}

pub(super) fn certificates(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &CommonTlsContext,
) -> Option<Vec<CertificateSource>> {
    let list = at.field("tls_certificates");
    let each = from.tls_certificates.iter().enumerate();
    let inline = each.map(|(index, from)| certificate(cx, &list.index(index), from));
    let list = at.field("tls_certificate_sds_secret_configs");
    let each = from.tls_certificate_sds_secret_configs.iter().enumerate();
    let elsewhere = each.map(|(index, from)| secret::certificate(cx, &list.index(index), from));
    // All of them are looked at before anything is given up.
    let each: Vec<_> = inline.chain(elsewhere).collect();
    each.into_iter().collect()
}

pub(super) fn certificate(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::TlsCertificate,
) -> Option<CertificateSource> {
    let (Some(chain), Some(key)) = (&from.certificate_chain, &from.private_key) else {
        // A key elsewhere, or PKCS #12, is in the report.
        if from.pkcs12.is_none() && from.private_key_provider.is_none() {
            cx.invalid(at, "certificate_chain and private_key are both needed");
        }
        return None;
    };
    let chain_bytes = value::data_source(cx, &at.field("certificate_chain"), chain);
    let key_bytes = value::data_source(cx, &at.field("private_key"), key);
    let mut identity = cx.ok(at, Identity::from_pem(&chain_bytes?, &key_bytes?))?;
    if let Some(path) = file(chain) {
        identity = identity.read_from(&path);
    }
    if let Some(path) = file(key) {
        mesh_tls::warn_if_readable_by_others(&path);
    }
    let Some(watched) = &from.watched_directory else {
        return Some(CertificateSource::Fixed(Box::new(identity)));
    };
    let (Some(chain), Some(key)) = (file(chain), file(key)) else {
        let reason = "watched_directory is for a certificate and a key in files";
        cx.invalid(&at.field("watched_directory"), reason);
        return None;
    };
    Some(CertificateSource::Watched {
        files: FileSecret::Identity { chain, key },
        folder: PathBuf::from(&watched.path),
        first: AsRead(Arc::new(identity)),
    })
}

/// The file that a source names, if it names one.
pub(super) fn file(source: &DataSource) -> Option<PathBuf> {
    match &source.specifier {
        Some(Specifier::Filename(path)) => Some(PathBuf::from(path)),
        _ => None,
    }
}
