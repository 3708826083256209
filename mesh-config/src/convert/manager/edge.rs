//! Headers, paths and addresses.

use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::{
        core::v3::{self as core, http_protocol_options::HeadersWithUnderscoresAction},
        route::v3::RouteConfiguration,
    },
    extensions::filters::network::http_connection_manager::v3::{
        self as pb,
        http_connection_manager::{
            ForwardClientCertDetails, InternalAddressConfig, PathWithEscapedSlashesAction,
            ServerHeaderTransformation, StripPortMode,
        },
    },
};
use mesh_core::{Cidr, ClientCertDetails, ForwardClientCert};
use mesh_http::hygiene::{EdgeConfig, EscapedSlashes, ServerHeader, Underscores};

use super::MESSAGE;
use crate::{
    convert::{context::Context, value},
    language::{At, MessageSupport, Support::Enforced},
    model::Node,
};

pub(in crate::convert) const SUPPORT: &[MessageSupport] = &[
    MessageSupport {
        message: MESSAGE,
        fields: &[
            ("use_remote_address", Enforced),
            ("xff_num_trusted_hops", Enforced),
            ("skip_xff_append", Enforced),
            ("internal_address_config", Enforced),
            ("generate_request_id", Enforced),
            ("preserve_external_request_id", Enforced),
            ("always_set_request_id_in_response", Enforced),
            ("add_user_agent", Enforced),
            ("server_name", Enforced),
            ("server_header_transformation", Enforced),
            ("via", Enforced),
            ("normalize_path", Enforced),
            ("merge_slashes", Enforced),
            ("path_with_escaped_slashes_action", Enforced),
            ("strip_matching_host_port", Enforced),
            ("strip_any_host_port", Enforced),
            ("strip_trailing_host_dot", Enforced),
            ("forward_client_cert_details", Enforced),
            ("set_current_client_cert_details", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.SetCurrentClientCertDetails",
        fields: &[
            ("subject", Enforced),
            ("cert", Enforced),
            ("chain", Enforced),
            ("dns", Enforced),
            ("uri", Enforced),
        ],
    },
    MessageSupport {
        message: "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager.InternalAddressConfig",
        fields: &[("cidr_ranges", Enforced)],
    },
];

pub(super) fn convert(
    cx: &Context<'_>,
    at: &At<'_>,
    from: &pb::HttpConnectionManager,
    node: &Node,
    routes: &RouteConfiguration,
) -> EdgeConfig {
    let default = EdgeConfig::default();
    let header = |field, text: &str| {
        let text = value::nonempty(text)?;
        value::header_value(cx, &at.field(field), text)
    };
    let strip_any = matches!(
        from.strip_port_mode,
        Some(StripPortMode::StripAnyHostPort(true))
    );
    if strip_any && from.strip_matching_host_port {
        cx.invalid(
            &at.field("strip_any_host_port"),
            "only one of strip_matching_host_port and strip_any_host_port can be set",
        );
    }
    let detection = &from.original_ip_detection_extensions;
    if value::flag(from.use_remote_address, false) && !detection.is_empty() {
        cx.invalid(
            &at.field("original_ip_detection_extensions"),
            "cannot be used together with use_remote_address",
        );
    }
    EdgeConfig {
        use_remote_address: value::flag(from.use_remote_address, false),
        xff_num_trusted_hops: from.xff_num_trusted_hops,
        skip_xff_append: from.skip_xff_append,
        internal_addresses: internal_addresses(cx, at, from.internal_address_config.as_ref()),
        generate_request_id: value::flag(from.generate_request_id, true),
        preserve_external_request_id: from.preserve_external_request_id,
        always_set_request_id_in_response: from.always_set_request_id_in_response,
        add_user_agent: value::flag(from.add_user_agent, false),
        node_cluster: node.cluster.clone(),
        node_id: node.id.clone(),
        server_name: header("server_name", &from.server_name).unwrap_or(default.server_name),
        server_header: match from.server_header_transformation() {
            ServerHeaderTransformation::Overwrite => ServerHeader::Overwrite,
            ServerHeaderTransformation::AppendIfAbsent => ServerHeader::AppendIfAbsent,
            ServerHeaderTransformation::PassThrough => ServerHeader::PassThrough,
        },
        via: header("via", &from.via),
        normalize_path: value::flag(from.normalize_path, false),
        merge_slashes: from.merge_slashes,
        escaped_slashes: match from.path_with_escaped_slashes_action() {
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged => EscapedSlashes::KeepUnchanged,
            PathWithEscapedSlashesAction::RejectRequest => EscapedSlashes::RejectRequest,
            PathWithEscapedSlashesAction::UnescapeAndRedirect => {
                EscapedSlashes::UnescapeAndRedirect
            }
            PathWithEscapedSlashesAction::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
        },
        strip_matching_host_port: from.strip_matching_host_port,
        strip_any_host_port: strip_any,
        strip_trailing_host_dot: from.strip_trailing_host_dot,
        underscores: from
            .common_http_protocol_options
            .as_ref()
            .map_or(Underscores::Allow, underscores),
        internal_only_headers: internal_only_headers(cx, &at.field("route_config"), routes),
        forward_client_cert: match from.forward_client_cert_details() {
            ForwardClientCertDetails::Sanitize => ForwardClientCert::Sanitize,
            ForwardClientCertDetails::ForwardOnly => ForwardClientCert::ForwardOnly,
            ForwardClientCertDetails::AppendForward => ForwardClientCert::AppendForward,
            ForwardClientCertDetails::SanitizeSet => ForwardClientCert::SanitizeSet,
            ForwardClientCertDetails::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
        },
        client_cert_details: from.set_current_client_cert_details.as_ref().map_or_else(
            ClientCertDetails::default,
            |from| ClientCertDetails {
                subject: value::flag(from.subject, false),
                cert: from.cert,
                chain: from.chain,
                dns: from.dns,
                uri: from.uri,
            },
        ),
        ..default
    }
}

fn underscores(from: &core::HttpProtocolOptions) -> Underscores {
    match from.headers_with_underscores_action() {
        HeadersWithUnderscoresAction::Allow => Underscores::Allow,
        HeadersWithUnderscoresAction::RejectRequest => Underscores::RejectRequest,
        HeadersWithUnderscoresAction::DropHeader => Underscores::DropHeader,
    }
}

fn internal_addresses(
    cx: &Context<'_>,
    at: &At<'_>,
    from: Option<&InternalAddressConfig>,
) -> Vec<Cidr> {
    let at = at.field("internal_address_config");
    let list = at.field("cidr_ranges");
    let ranges = from.map_or(&[][..], |from| &from.cidr_ranges);
    let ranges = ranges.iter().enumerate();
    ranges
        .filter_map(|(index, range)| value::cidr(cx, &list.index(index), range))
        .collect()
}

/// The part of it that stands in the routes.
pub(super) fn internal_only_headers(
    cx: &Context<'_>,
    at: &At<'_>,
    routes: &RouteConfiguration,
) -> Arc<[http::HeaderName]> {
    let list = at.field("internal_only_headers");
    let names = routes.internal_only_headers.iter().enumerate();
    names
        .filter_map(|(index, name)| value::header_name(cx, &list.index(index), name))
        .collect()
}
