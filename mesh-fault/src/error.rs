use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use mesh_core::{Error, ErrorKind, LocalReply, Sent};

use crate::{FaultAbort, state::AbortWith};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The failure of one request, with the answer that Envoy would give.
pub(crate) fn abort(config: &FaultAbort, with: AbortWith, request: &HeaderMap) -> Error {
    let mut reply = LocalReply::new(with.status, "", "fault_filter_abort");
    reply.body = config.response_body.clone();
    if let Some(code) = with.grpc.filter(|_| is_grpc(request)) {
        reply.headers.insert(GRPC_STATUS, HeaderValue::from(code));
    }
    Error::new(ErrorKind::FaultInjected)
        .with_sent(Sent::Nothing)
        .with_reply(reply)
}

fn is_grpc(request: &HeaderMap) -> bool {
    let content_type = request.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.is_some_and(|value| {
        value
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}
