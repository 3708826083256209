//! The protocol of upstream connections: `HttpProtocolOptions`, and the older fields of the cluster.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::{cluster::v3 as pb, core::v3 as core},
    extensions::upstreams::http::v3::{
        HttpProtocolOptions,
        http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
    },
};
use mesh_http::pool::{PoolConfig, UpstreamProtocol};
use mesh_retry::RetryConfig;
use mesh_route::{HashPolicies, MirrorPolicy};

use super::{MESSAGE, socket};
use crate::{
    convert::{context::Context, hash, http2, manager, mirror, retry, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless},
    },
    model::AutoNames,
};

/// The key under which Envoy looks for them.
const KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("typed_extension_protocol_options", Enforced),
            ("max_requests_per_connection", Enforced),
            ("common_http_protocol_options", Enforced),
            ("http_protocol_options", Enforced),
            ("http2_protocol_options", Enforced),
            ("upstream_http_protocol_options", Enforced),
        ],
    },
    MessageSupport {
        message: KEY,
        fields: &[
            ("common_http_protocol_options", Enforced),
            ("explicit_http_config", Enforced),
            ("use_downstream_protocol_config", Enforced),
            ("auto_config", Enforced),
            ("http_filters", Enforced),
            ("retry_policy", Enforced),
            ("request_mirror_policies", Enforced),
            ("upstream_http_protocol_options", Enforced),
            ("hash_policy", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.ExplicitHttpConfig",
        fields: &[
            ("http_protocol_options", Enforced),
            ("http2_protocol_options", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.UseDownstreamHttpConfig",
        fields: &[
            ("http_protocol_options", Enforced),
            ("http2_protocol_options", Enforced),
            // No client speaks it here.
            ("http3_protocol_options", Meaningless),
        ],
    },
    // What every cluster ends with.
    MessageSupport {
        message: "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        fields: &[],
    },
];

/// What a cluster says about its connections and about retries.
pub(super) struct Protocol {
    pub(super) pool: PoolConfig,
    pub(super) retry: Option<Arc<RetryConfig>>,
    pub(super) mirrors: Arc<[MirrorPolicy]>,
    pub(super) hash: Option<HashPolicies>,
    pub(super) auto_names: AutoNames,
}

pub(super) fn convert(cx: &Context<'_>, at: &At<'_>, from: &pb::Cluster) -> Protocol {
    let mut protocol = Protocol {
        pool: PoolConfig::default(),
        retry: None,
        mirrors: Arc::from([]),
        hash: None,
        auto_names: AutoNames::default(),
    };
    // The older fields count only without the typed options, as in Envoy.
    let typed = at.field("typed_extension_protocol_options");
    let others = from.typed_extension_protocol_options.iter();
    for (key, any) in others.filter(|(key, _)| *key != KEY) {
        if cx.unpack::<HttpProtocolOptions>(any).is_some() {
            cx.invalid(
                &typed.key(key),
                format!("nobody would find it: the key must be {KEY}"),
            );
        }
    }
    if let Some(any) = from.typed_extension_protocol_options.get(KEY) {
        let at = typed.key(KEY);
        if let Some(options) = cx.unpack::<HttpProtocolOptions>(any) {
            apply(cx, &at, &options, &mut protocol);
        } else {
            cx.invalid(&at, format!("must be a {KEY}"));
        }
        return protocol;
    }
    if let Some(options) = &from.http2_protocol_options {
        protocol.pool.protocol = UpstreamProtocol::Http2;
        let at = at.field("http2_protocol_options");
        protocol.pool.http2 = http2::convert(cx, &at, Some(options));
    }
    protocol.auto_names = socket::auto_names(from.upstream_http_protocol_options.as_ref());
    protocol.pool.max_requests_per_connection = manager::nonzero(from.max_requests_per_connection);
    if let Some(options) = &from.common_http_protocol_options {
        let at = at.field("common_http_protocol_options");
        common(cx, &at, options, &mut protocol.pool);
    }
    protocol
}

fn refuse(cx: &Context<'_>, at: &At<'_>, what: &str) {
    cx.invalid(at, format!("{what} to upstreams is not supported"));
}

fn apply(cx: &Context<'_>, at: &At<'_>, from: &HttpProtocolOptions, protocol: &mut Protocol) {
    protocol.auto_names = socket::auto_names(from.upstream_http_protocol_options.as_ref());
    if let Some(options) = &from.common_http_protocol_options {
        let at = at.field("common_http_protocol_options");
        common(cx, &at, options, &mut protocol.pool);
    }
    match &from.upstream_protocol_options {
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => {
            let at = at.field("explicit_http_config");
            match &explicit.protocol_config {
                Some(ProtocolConfig::Http2ProtocolOptions(options)) => {
                    protocol.pool.protocol = UpstreamProtocol::Http2;
                    let at = at.field("http2_protocol_options");
                    protocol.pool.http2 = http2::convert(cx, &at, Some(options));
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    refuse(cx, &at.field("http3_protocol_options"), "HTTP/3");
                }
                // The codec towards upstreams has nothing to choose: it passes trailers on as they come.
                Some(ProtocolConfig::HttpProtocolOptions(_)) | None => {}
            }
        }
        Some(UpstreamProtocolOptions::AutoConfig(_)) => {
            refuse(
                cx,
                &at.field("auto_config"),
                "choosing the protocol by ALPN",
            );
        }
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(options)) => {
            protocol.pool.protocol = UpstreamProtocol::Downstream;
            let at = at.field("use_downstream_protocol_config");
            let at = at.field("http2_protocol_options");
            let options = options.http2_protocol_options.as_ref();
            protocol.pool.http2 = http2::convert(cx, &at, options);
        }
        None => {}
    }
    // Whether their clusters exist is seen when they are used, as in Envoy.
    let mirrors = at.field("request_mirror_policies");
    protocol.mirrors = mirror::convert(cx, &mirrors, &from.request_mirror_policies, |_, _| ());
    if !from.hash_policy.is_empty() {
        let at = at.field("hash_policy");
        protocol.hash = Some(hash::convert(cx, &at, &from.hash_policy));
    }
    let policy = from.retry_policy.as_ref();
    protocol.retry = policy.map(|policy| {
        let builder = retry::convert(cx, &at.field("retry_policy"), policy);
        Arc::new(builder.build())
    });
}

fn common(cx: &Context<'_>, at: &At<'_>, from: &core::HttpProtocolOptions, pool: &mut PoolConfig) {
    let idle = from.idle_timeout.as_ref();
    pool.idle_timeout = value::timeout(cx, &at.field("idle_timeout"), idle, pool.idle_timeout);
    let longest = from.max_connection_duration.as_ref();
    let longest_at = at.field("max_connection_duration");
    pool.max_connection_duration = value::timeout(cx, &longest_at, longest, None);
    let count = manager::count_limit(cx, &at.field("max_headers_count"), from.max_headers_count);
    pool.limits.count = count.unwrap_or(pool.limits.count);
    if let Some(kb) = value::number(from.max_response_headers_kb) {
        pool.limits.bytes = kb as usize * 1024;
    }
    if let Some(requests) = manager::nonzero(from.max_requests_per_connection) {
        pool.max_requests_per_connection = Some(requests);
    }
    if from.max_stream_duration.is_some() {
        let field = "envoy.config.core.v3.HttpProtocolOptions.max_stream_duration";
        cx.unsupported(&at.field("max_stream_duration"), field, None);
    }
    // Envoy honours it for responses too.
    if from.headers_with_underscores_action != 0 {
        let field = "envoy.config.core.v3.HttpProtocolOptions.headers_with_underscores_action";
        cx.unsupported(&at.field("headers_with_underscores_action"), field, None);
    }
}
