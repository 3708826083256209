use http::{HeaderMap, HeaderValue, header, response::Parts};
use mesh_core::Tunnel;

use super::{EdgeConfig, REQUEST_ID, ServerHeader};

/// Readies a response for the client: hop-by-hop headers end here, `server` and `via` are ours.
///
/// `local` says that this process made the response, `request_id` that the client shall see it.
pub fn prepare_response(
    parts: &mut Parts,
    config: &EdgeConfig,
    local: bool,
    request_id: Option<HeaderValue>,
) {
    // What grants a tunnel says so in these.
    if parts.extensions.get::<Tunnel>().is_none() {
        strip_hop_by_hop(&mut parts.headers);
    }
    match config.server_header {
        ServerHeader::Overwrite => {
            parts
                .headers
                .insert(header::SERVER, config.server_name.clone());
        }
        ServerHeader::AppendIfAbsent => {
            parts
                .headers
                .entry(header::SERVER)
                .or_insert_with(|| config.server_name.clone());
        }
        ServerHeader::PassThrough if local => {
            parts
                .headers
                .entry(header::SERVER)
                .or_insert_with(|| config.server_name.clone());
        }
        ServerHeader::PassThrough => {}
    }
    if let Some(via) = &config.via {
        append_via(&mut parts.headers, via);
    }
    if let Some(id) = request_id {
        parts.headers.insert(REQUEST_ID, id);
    }
}

/// Removes what was meant for the next hop only.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut found = false;
    for name in headers.keys() {
        found |= matches!(
            name.as_str(),
            "connection" | "upgrade" | "transfer-encoding" | "keep-alive" | "proxy-connection"
        );
    }
    if found {
        for name in [
            "connection",
            "upgrade",
            "transfer-encoding",
            "keep-alive",
            "proxy-connection",
        ] {
            headers.remove(name);
        }
    }
}

pub(super) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    let mut hops: Vec<&[u8]> = headers
        .get_all(header::VIA)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    hops.push(via.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&hops.join(&b", "[..])) {
        headers.insert(header::VIA, value);
    }
}
