use http::{HeaderMap, StatusCode};

use super::{FormatContext, Sink, operator::GrpcStyle, time};
use crate::outcome::GRPC_STATUS;

/// The status of a gRPC exchange: trailers, then headers, then what the HTTP status amounts to.
pub(super) fn grpc_status(content_type: Option<&[u8]>, context: &FormatContext<'_>) -> Option<i64> {
    let kind = content_type?.strip_prefix(b"application/grpc")?;
    if !matches!(kind.first(), None | Some(b'+')) {
        return None;
    }
    context.grpc_status()
}

/// Of an exchange that is gRPC, or is taken for it.
pub(super) fn status_of(context: &FormatContext<'_>) -> Option<i64> {
    let read = |headers: &HeaderMap| {
        let value = headers.get(&GRPC_STATUS)?;
        let code = value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u32>().ok());
        // Present and unreadable is -1, as Envoy's `InvalidCode`.
        Some(code.map_or(-1, i64::from))
    };
    context
        .trailers
        .and_then(read)
        .or_else(|| read(context.response?.1))
        .or_else(|| Some(i64::from(http_to_grpc(context.response?.0))))
}

const fn http_to_grpc(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

const GRPC_NAMES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

pub(super) fn put_grpc_name<S: Sink>(code: i64, style: GrpcStyle, out: &mut S) -> bool {
    let names = usize::try_from(code)
        .ok()
        .and_then(|code| GRPC_NAMES.get(code));
    match names {
        Some((camel, _)) if style == GrpcStyle::Camel => out.trusted(camel),
        Some((_, snake)) => out.trusted(snake),
        None => time::number(out, code),
    }
    true
}
