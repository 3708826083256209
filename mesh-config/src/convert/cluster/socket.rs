//! `transport_socket_matches`, and the names that requests bring for them.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{
        cluster::v3 as pb,
        core::v3::{Metadata, UpstreamHttpProtocolOptions},
    },
    google::protobuf::Struct,
};
use mesh_core::MetadataValue;

use super::MESSAGE;
use crate::{
    convert::{context::Context, tls, value},
    language::{
        At, MessageSupport,
        Support::{Enforced, Meaningless, Security},
    },
    model::{AutoNames, TransportSocketMatch},
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("transport_socket_matches", Enforced),
            ("transport_socket_matcher", Security),
        ],
    },
    MessageSupport {
        message: "envoy.config.cluster.v3.Cluster.TransportSocketMatch",
        fields: &[
            ("name", Meaningless),
            ("match", Enforced),
            ("transport_socket", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.config.core.v3.UpstreamHttpProtocolOptions",
        fields: &[
            ("auto_sni", Enforced),
            ("auto_san_validation", Enforced),
            ("override_auto_sni_header", Enforced),
        ],
    },
];

/// Where an endpoint says how it wants to be connected to.
const KEY: &str = "envoy.transport_socket_match";

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::Cluster,
) -> Option<Vec<TransportSocketMatch>> {
    let list = at.field("transport_socket_matches");
    let each = from.transport_socket_matches.iter().enumerate();
    // All of them are looked at before anything is given up.
    let each: Vec<_> = each
        .map(|(index, from)| {
            let tls = tls::upstream(cx, &list.index(index), from.transport_socket.as_ref())?;
            let wanted = from.r#match.as_ref().map(value::structure);
            Some(TransportSocketMatch {
                name: from.name.clone(),
                wanted: wanted.unwrap_or(MetadataValue::Null),
                tls,
            })
        })
        .collect();
    each.into_iter().collect()
}

/// What an endpoint and then its locality say; `None` when neither says anything.
pub(super) fn labels(
    endpoint: Option<&Metadata>,
    locality: Option<&Metadata>,
) -> Option<Arc<[MetadataValue]>> {
    let both = [endpoint, locality].into_iter().flatten();
    let fields = both.filter_map(|metadata| metadata.filter_metadata.get(KEY));
    let labels: Vec<_> = fields.map(value::structure).collect();
    (!labels.is_empty()).then(|| labels.into())
}

/// The labels of health checks in place of the endpoint's.
pub(super) fn criteria(from: Option<&Struct>) -> Option<Arc<[MetadataValue]>> {
    from.map(|from| [value::structure(from)].into())
}

/// What a request says about the server's name.
pub(super) fn auto_names(from: Option<&UpstreamHttpProtocolOptions>) -> AutoNames {
    let Some(from) = from else {
        return AutoNames::default();
    };
    AutoNames {
        sni: from.auto_sni,
        san: from.auto_san_validation,
        // The protos' own rules have refused what is no name.
        header: from.override_auto_sni_header.parse().ok(),
    }
}
