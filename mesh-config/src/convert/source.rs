//! `ConfigSource`: where resources come from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use envoy_types::pb::envoy::config::{
    bootstrap::v3::Bootstrap,
    core::v3::{
        self as pb, ApiConfigSource, api_config_source::ApiType,
        config_source::ConfigSourceSpecifier as Specifier, grpc_service::TargetSpecifier,
    },
};

use super::{context::Context, value};
use crate::{
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::{ControlServer, Dynamic, FileConfig, Origin, Source, StreamConfig},
};

pub(super) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: "envoy.config.bootstrap.v3.Bootstrap.DynamicResources",
        fields: &[
            ("lds_config", Enforced),
            ("cds_config", Enforced),
            ("ads_config", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.ConfigSource",
        fields: &[
            ("ads", Enforced),
            ("self", Enforced),
            ("api_config_source", Enforced),
            ("path_config_source", Enforced),
            ("path", Enforced),
            ("initial_fetch_timeout", Enforced),
            // There is only one.
            ("resource_api_version", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.AggregatedConfigSource",
        fields: &[],
    },
    MessageSupport {
        message: "envoy.config.core.v3.SelfConfigSource",
        fields: &[("transport_api_version", Meaningless)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.PathConfigSource",
        fields: &[("path", Enforced), ("watched_directory", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.ApiConfigSource",
        fields: &[
            ("api_type", Enforced),
            ("grpc_services", Enforced),
            ("set_node_on_first_message_only", Enforced),
            ("rate_limit_settings", Enforced),
            ("transport_api_version", Meaningless),
            // Of REST, which is refused.
            ("cluster_names", Meaningless),
            ("refresh_delay", Meaningless),
            ("request_timeout", Meaningless),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.RetryPolicy",
        fields: &[("retry_back_off", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.BackoffStrategy",
        fields: &[("base_interval", Enforced), ("max_interval", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.RateLimitSettings",
        fields: &[("max_tokens", Enforced), ("fill_rate", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.GrpcService",
        fields: &[("envoy_grpc", Enforced)],
    },
    MessageSupport {
        message: "envoy.config.core.v3.GrpcService.EnvoyGrpc",
        fields: &[
            ("cluster_name", Enforced),
            ("authority", Enforced),
            ("retry_policy", Enforced),
            // Messages of any size are read that a config may have.
            ("max_receive_message_length", Meaningless),
        ],
    },
];

/// How long somebody waits when the config does not say.
const INITIAL_FETCH_TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// Envoy: `rate_limit_settings`, where it says nothing more; the second per 1,000 s.
const RATE_LIMIT_DEFAULT: (u32, u32) = (100, 10_000);

/// `dynamic_resources`.
pub(super) fn dynamic(cx: &Context<'_>, from: &Bootstrap) -> Dynamic {
    let Some(dynamic) = &from.dynamic_resources else {
        return Dynamic::default();
    };
    let root = At::root();
    let at = root.field("dynamic_resources");
    let of = |field, from: &Option<pb::ConfigSource>| {
        let from = from.as_ref()?;
        convert(cx, &at.field(field), Some(from))
    };
    let ads = dynamic.ads_config.as_ref();
    Dynamic {
        ads: ads.and_then(|from| stream(cx, &at.field("ads_config"), from)),
        listeners: of("lds_config", &dynamic.lds_config),
        clusters: of("cds_config", &dynamic.cds_config),
        runtime: Vec::new(),
    }
}

/// Where the resource comes from that `at` stands for.
pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&pb::ConfigSource>,
) -> Option<Origin> {
    let missing = || {
        cx.invalid(at, "it does not say where the config comes from");
        None
    };
    let Some(from) = from else {
        return missing();
    };
    let source = match &from.config_source_specifier {
        Some(Specifier::Ads(_) | Specifier::Self_(_)) => {
            if !cx.has_ads() {
                cx.invalid(at, "needs dynamic_resources.ads_config, which is not there");
                return None;
            }
            Source::Ads
        }
        Some(Specifier::ApiConfigSource(from)) => {
            Source::Stream(stream(cx, &at.field("api_config_source"), from)?)
        }
        Some(Specifier::PathConfigSource(from)) => Source::File(Arc::new(FileConfig {
            path: PathBuf::from(&from.path),
            watched_directory: from
                .watched_directory
                .as_ref()
                .map(|directory| PathBuf::from(&directory.path)),
        })),
        Some(Specifier::Path(path)) => Source::File(Arc::new(FileConfig {
            path: PathBuf::from(path),
            watched_directory: None,
        })),
        None => return missing(),
    };
    let timeout_at = at.field("initial_fetch_timeout");
    Some(Origin {
        source,
        initial_fetch_timeout: value::timeout(
            cx,
            &timeout_at,
            from.initial_fetch_timeout.as_ref(),
            Some(INITIAL_FETCH_TIMEOUT_DEFAULT),
        ),
    })
}

pub(super) fn stream(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &ApiConfigSource,
) -> Option<Arc<StreamConfig>> {
    let delta = match ApiType::try_from(from.api_type) {
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => false,
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => true,
        _ => {
            cx.invalid(&at.field("api_type"), "only gRPC is supported");
            return None;
        }
    };
    let list = at.field("grpc_services");
    if from.grpc_services.is_empty() {
        cx.invalid(&list, "there is no server");
    }
    let services = from.grpc_services.iter().enumerate();
    let servers = services.map(|(index, service)| {
        let at = list.index(index);
        let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &service.target_specifier else {
            cx.invalid(&at, "only envoy_grpc is supported");
            return None;
        };
        if !cx.is_static_cluster(&envoy.cluster_name) {
            let reason = format!("there is no static cluster {:?}", envoy.cluster_name);
            cx.invalid(&at, reason);
            return None;
        }
        Some(ControlServer {
            cluster: Arc::from(envoy.cluster_name.as_str()),
            authority: value::nonempty(&envoy.authority).map(Arc::from),
        })
    });
    let servers: Vec<ControlServer> = servers.collect::<Option<_>>()?;
    let limit = from.rate_limit_settings.as_ref().map(|limit| {
        let (tokens, rate) = RATE_LIMIT_DEFAULT;
        let rate_given = limit.fill_rate.as_ref();
        let rate_given = rate_given.map(|rate| (rate.value * 1000.0).round() as u32);
        (
            value::number(limit.max_tokens).unwrap_or(tokens),
            rate_given.unwrap_or(rate),
        )
    });
    let backoff = backoff(cx, &list.index(0), from.grpc_services.first());
    (!servers.is_empty()).then(|| {
        Arc::new(StreamConfig {
            delta,
            servers,
            set_node_on_first_message_only: from.set_node_on_first_message_only,
            rate_limit: limit,
            backoff,
        })
    })
}

fn backoff(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&pb::GrpcService>,
) -> Option<(Duration, Duration)> {
    let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &from?.target_specifier else {
        return None;
    };
    let from = envoy.retry_policy.as_ref()?.retry_back_off.as_ref()?;
    let at = at.field("envoy_grpc");
    let at = at.field("retry_policy");
    let at = at.field("retry_back_off");
    let base = value::duration(cx, &at.field("base_interval"), from.base_interval.as_ref())?;
    let max = value::duration(cx, &at.field("max_interval"), from.max_interval.as_ref());
    let max = max.unwrap_or_else(|| base.saturating_mul(10));
    if base.is_zero() || max < base {
        cx.invalid(&at, "max_interval must not be less than base_interval");
        return None;
    }
    Some((base, max))
}
