//! `CertificateValidationContext`: who a peer may be.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use envoy_types::pb::envoy::{
    config::core::v3::TypedExtensionConfig,
    extensions::transport_sockets::tls::v3::{
        self as pb, CommonTlsContext, certificate_validation_context::TrustChainVerification,
        common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};
use mesh_tls::{
    Crl, FileSecret, SanKind, SanMatcher, SpiffeBundles, Trust, TrustBundle, TrustDomain,
    ValidationConfig, ValidationDefaults,
};

use super::{common::file, secret, value};
use crate::{
    convert::{
        context::{Context, type_name},
        matcher,
    },
    language::{
        At, MessageSupport,
        Support::{Enforced, EnforcedFor, Security},
        is_security_type,
    },
    model::{AsRead, ValidationSource},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext",
        fields: &[
            ("trusted_ca", Enforced),
            ("watched_directory", Enforced),
            ("verify_certificate_spki", Enforced),
            ("verify_certificate_hash", Enforced),
            ("match_typed_subject_alt_names", Enforced),
            ("crl", Enforced),
            ("allow_expired_certificate", Enforced),
            ("trust_chain_verification", Enforced),
            ("only_verify_leaf_cert_crl", Enforced),
            ("max_verify_depth", Enforced),
            ("ca_certificate_provider_instance", Security),
            ("system_root_certs", Security),
            ("match_subject_alt_names", Security),
            ("require_signed_certificate_timestamp", Security),
            ("custom_validator_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        fields: &[("trust_domains", Enforced), ("trust_bundles", Security)],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig.TrustDomain",
        fields: &[
            ("name", Enforced),
            ("trust_bundle", Enforced),
            ("workload_trust_domain", Security),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher",
        fields: &[
            (
                "san_type",
                EnforcedFor(&["EMAIL", "DNS", "URI", "IP_ADDRESS"]),
            ),
            ("matcher", Enforced),
        ],
    },
];

/// What is asked of peers; nothing when the config asks nothing, or asks it in a way that the report has.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &CommonTlsContext,
) -> Option<Option<ValidationSource>> {
    use ValidationContextType::{
        CombinedValidationContext, ValidationContext, ValidationContextSdsSecretConfig,
    };
    match &from.validation_context_type {
        Some(ValidationContext(from)) => {
            validation(cx, &at.field("validation_context"), from).map(Some)
        }
        Some(ValidationContextSdsSecretConfig(from)) => {
            let at = at.field("validation_context_sds_secret_config");
            let nothing = pb::CertificateValidationContext::default();
            let defaults = defaults(cx, &at, &nothing)?;
            secret::validation(cx, &at, from, defaults).map(Some)
        }
        Some(CombinedValidationContext(from)) => {
            let at = at.field("combined_validation_context");
            let nothing = pb::CertificateValidationContext::default();
            let own = from.default_validation_context.as_ref();
            let own_at = at.field("default_validation_context");
            let defaults = defaults(cx, &own_at, own.unwrap_or(&nothing))?;
            let at = at.field("validation_context_sds_secret_config");
            // Without one, where the rest comes from is in the report.
            let from = from.validation_context_sds_secret_config.as_ref()?;
            secret::validation(cx, &at, from, defaults).map(Some)
        }
        _ => Some(None),
    }
}

/// What counts together with a secret that is to come: names and lists too, for which it has the anchors.
fn defaults(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::CertificateValidationContext,
) -> Option<ValidationDefaults> {
    let mut rest = from.clone();
    let names = std::mem::take(&mut rest.match_typed_subject_alt_names);
    let crl = rest.crl.take();
    let ValidationSource::Fixed(base) = validation(cx, at, &rest)? else {
        let reason = "is not supported beside a secret from a control plane";
        cx.invalid(&at.field("watched_directory"), reason);
        return None;
    };
    let list = at.field("match_typed_subject_alt_names");
    let sans = names.iter().enumerate();
    let sans: Option<Vec<_>> = sans
        .map(|(index, from)| san(cx, &list.index(index), from))
        .collect();
    let crls = match &crl {
        None => Vec::new(),
        Some(source) => {
            let at = at.field("crl");
            let pem = value::data_source(cx, &at, source)?;
            cx.ok(&at, Crl::from_pem(&pem))?
        }
    };
    Some(ValidationDefaults::new(*base, sans?, crls))
}

pub(super) fn validation(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::CertificateValidationContext,
) -> Option<ValidationSource> {
    let bundle = match &from.trusted_ca {
        None => None,
        Some(source) => {
            let at = at.field("trusted_ca");
            let pem = value::data_source(cx, &at, source)?;
            let bundle = cx.ok(&at, TrustBundle::from_pem(&pem))?;
            Some(match file(source) {
                Some(path) => bundle.read_from(&path),
                None => bundle,
            })
        }
    };
    let trust = match &from.custom_validator_config {
        // As in Envoy, it takes the place of the trusted CA.
        Some(custom) => spiffe(cx, &at.field("custom_validator_config"), custom)?,
        None => bundle.map_or(Trust::DangerousAnyone, Trust::Bundle),
    };
    let config = ValidationConfig::new(trust);
    let list = at.field("match_typed_subject_alt_names");
    let sans = from.match_typed_subject_alt_names.iter().enumerate();
    let sans: Option<Vec<_>> = sans
        .map(|(index, from)| san(cx, &list.index(index), from))
        .collect();
    let config = cx.ok(&list, config.with_sans(sans?))?;
    let hashes_at = at.field("verify_certificate_hash");
    let hashes = config.with_certificate_hashes(&from.verify_certificate_hash);
    let keys_at = at.field("verify_certificate_spki");
    let keys = cx
        .ok(&hashes_at, hashes)?
        .with_spki_hashes(&from.verify_certificate_spki);
    let mut config = cx
        .ok(&keys_at, keys)?
        .only_verify_leaf_cert_crl(from.only_verify_leaf_cert_crl)
        .dangerous_allow_expired_certificate(from.allow_expired_certificate)
        .dangerous_accept_untrusted(
            from.trust_chain_verification() == TrustChainVerification::AcceptUntrusted,
        );
    if let Some(depth) = value::number(from.max_verify_depth) {
        config = config.max_verify_depth(usize::try_from(depth).unwrap_or(usize::MAX));
    }
    if let Some(source) = &from.crl {
        let at = at.field("crl");
        let pem = value::data_source(cx, &at, source)?;
        let lists = cx.ok(&at, Crl::from_pem(&pem))?;
        config = cx.ok(&at, config.with_crls(lists))?;
    }
    let Some(watched) = &from.watched_directory else {
        return Some(ValidationSource::Fixed(Box::new(config)));
    };
    let trusted_ca = from.trusted_ca.as_ref().and_then(file);
    let crl = from.crl.as_ref().map(file);
    let (Some(trusted_ca), false) = (trusted_ca, matches!(crl, Some(None))) else {
        let reason = "watched_directory is for a trusted CA and a CRL in files";
        cx.invalid(&at.field("watched_directory"), reason);
        return None;
    };
    if from.custom_validator_config.is_some() {
        // The file's anchors would take the place of what the validator trusts.
        let reason = "is not supported beside custom_validator_config";
        cx.invalid(&at.field("watched_directory"), reason);
        return None;
    }
    // What the files hold is no part of the config: it changes without a push.
    let base = cx.ok(at, config.clone().with_crls(Vec::new()))?;
    Some(ValidationSource::Watched {
        files: FileSecret::Validation {
            trusted_ca,
            crl: crl.flatten(),
            base: Box::new(base.with_trust(Trust::DangerousAnyone)),
        },
        folder: PathBuf::from(&watched.path),
        first: AsRead(Arc::new(config)),
    })
}

/// A bundle for each trust domain. Other validators are in the report, by their type.
fn spiffe(cx: &Context<'_>, at: &At<'_>, from: &TypedExtensionConfig) -> Option<Trust> {
    let at = at.field("typed_config");
    let any = from.typed_config.as_ref()?;
    let Some(from) = cx.unpack::<pb::SpiffeCertValidatorConfig>(any) else {
        if !is_security_type(type_name(any)) {
            let reason = format!(
                "{} is not the config of a certificate validator",
                type_name(any)
            );
            cx.invalid(&at, reason);
        }
        return None;
    };
    let list = at.field("trust_domains");
    let mut bundles = BTreeMap::new();
    for (index, from) in from.trust_domains.iter().enumerate() {
        let at = list.index(index);
        let domain = cx.ok(&at.field("name"), TrustDomain::new(&from.name))?;
        let at_bundle = at.field("trust_bundle");
        let Some(source) = &from.trust_bundle else {
            cx.invalid(&at_bundle, "is missing");
            return None;
        };
        let pem = value::data_source(cx, &at_bundle, source)?;
        let mut bundle = cx.ok(&at_bundle, TrustBundle::from_pem(&pem))?;
        if let Some(path) = file(source) {
            bundle = bundle.read_from(&path);
        }
        if bundles.insert(domain.clone(), bundle).is_some() {
            let reason = format!("there are several bundles of the trust domain {domain}");
            cx.invalid(&at, reason);
        }
    }
    Some(Trust::Spiffe(SpiffeBundles::new(bundles)))
}

fn san(cx: &Context<'_>, at: &At<'_>, from: &pb::SubjectAltNameMatcher) -> Option<SanMatcher> {
    let kind = match from.san_type() {
        SanType::Email => SanKind::Email,
        SanType::Dns => SanKind::Dns,
        SanType::Uri => SanKind::Uri,
        SanType::IpAddress => SanKind::IpAddress,
        // Both are refused or reported when the config is read.
        SanType::Unspecified | SanType::OtherName => return None,
    };
    let at = at.field("matcher");
    let from = from.matcher.as_ref()?;
    match &from.match_pattern {
        Some(MatchPattern::Exact(name)) if !from.ignore_case => Some(SanMatcher::exact(kind, name)),
        _ => {
            let matcher = matcher::string(cx, &at, from)?;
            Some(SanMatcher::new(kind, matcher, describe(from)))
        }
    }
}

/// The test for people.
fn describe(from: &StringMatcher) -> String {
    match &from.match_pattern {
        Some(MatchPattern::Exact(text)) => text.clone(),
        Some(MatchPattern::Prefix(text)) => format!("{text}..."),
        Some(MatchPattern::Suffix(text)) => format!("...{text}"),
        Some(MatchPattern::Contains(text)) => format!("...{text}..."),
        Some(MatchPattern::SafeRegex(regex)) => format!("/{}/", regex.regex),
        _ => "another test".to_owned(),
    }
}
