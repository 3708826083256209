//! `SdsSecretConfig` and `Secret`: secrets that have names.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    self as pb, SdsSecretConfig, secret::Type,
};
use mesh_tls::ValidationDefaults;

use super::{common, validation as context};
use crate::{
    convert::{context::Context, source},
    dynamic::Kind,
    language::{
        At, MessageSupport,
        Support::{Enforced, Security},
    },
    model::{CertificateSource, Secret, ValidationSource},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig",
        fields: &[("name", Enforced), ("sds_config", Enforced)],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.CombinedCertificateValidationContext",
        fields: &[
            ("default_validation_context", Enforced),
            ("validation_context_sds_secret_config", Enforced),
            ("validation_context_certificate_provider", Security),
            ("validation_context_certificate_provider_instance", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.Secret",
        fields: &[
            ("name", Enforced),
            ("tls_certificate", Enforced),
            ("validation_context", Enforced),
        ],
    },
];

/// A certificate that has a name: one of the bootstrap's, or one that is to come.
pub(super) fn certificate(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &SdsSecretConfig,
) -> Option<CertificateSource> {
    if from.sds_config.is_some() {
        let origin = source::convert(cx, &at.field("sds_config"), from.sds_config.as_ref())?;
        cx.need(Kind::Secret, &from.name, origin);
        return Some(CertificateSource::Sds(Arc::from(from.name.as_str())));
    }
    match cx
        .static_secret(&from.name)
        .and_then(|secret| secret.r#type)
    {
        Some(Type::TlsCertificate(from)) => common::certificate(cx, at, &from),
        found => {
            unusable(cx, at, &from.name, found.is_some());
            None
        }
    }
}

/// What is asked of peers, likewise, with what is asked besides.
pub(super) fn validation(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &SdsSecretConfig,
    defaults: ValidationDefaults,
) -> Option<ValidationSource> {
    if from.sds_config.is_some() {
        let origin = source::convert(cx, &at.field("sds_config"), from.sds_config.as_ref())?;
        cx.need(Kind::Secret, &from.name, origin);
        return Some(ValidationSource::Sds {
            name: Arc::from(from.name.as_str()),
            defaults: Box::new(defaults),
        });
    }
    match cx
        .static_secret(&from.name)
        .and_then(|secret| secret.r#type)
    {
        Some(Type::ValidationContext(from)) => {
            let ValidationSource::Fixed(own) = context::validation(cx, at, &from)? else {
                cx.invalid(
                    at,
                    "a secret of the bootstrap that is watched is not supported",
                );
                return None;
            };
            let merged = cx.ok(at, defaults.merge(*own))?;
            Some(ValidationSource::Fixed(Box::new(merged)))
        }
        found => {
            unusable(cx, at, &from.name, found.is_some());
            None
        }
    }
}

fn unusable(cx: &Context<'_>, at: &At<'_>, name: &str, found: bool) {
    let reason = match found {
        true => format!("the secret {name:?} is of another kind"),
        false => format!("there is no static secret {name:?}, and no sds_config"),
    };
    cx.invalid(&at.field("name"), reason);
}

/// A secret that came.
pub(in crate::convert) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Secret,
) -> Option<Secret> {
    let watched = |at: &At<'_>| {
        let reason = "is not supported in a secret: the control plane sends it again";
        cx.invalid(&at.field("watched_directory"), reason);
        None
    };
    match &from.r#type {
        Some(Type::TlsCertificate(from)) => {
            let at = at.field("tls_certificate");
            match common::certificate(cx, &at, from)? {
                CertificateSource::Fixed(identity) => Some(Secret::Certificate(identity)),
                _ => watched(&at),
            }
        }
        Some(Type::ValidationContext(from)) => {
            let at = at.field("validation_context");
            match context::validation(cx, &at, from)? {
                ValidationSource::Fixed(config) => Some(Secret::Validation(config)),
                _ => watched(&at),
            }
        }
        _ => {
            cx.invalid(
                at,
                "only certificates and validation contexts are supported",
            );
            None
        }
    }
}
