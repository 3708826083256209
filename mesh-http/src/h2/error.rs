//! What an HTTP/2 error means for the request it happened to.

use h2::Reason;
use mesh_core::{Error, ErrorKind, Sent};

/// A stream to an upstream failed.
pub(crate) fn upstream(error: h2::Error, sent: Sent) -> Error {
    let (kind, sent) = if error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM) {
        (ErrorKind::RemoteRefused, Sent::Nothing)
    } else if error.is_go_away() && error.is_remote() {
        // Only streams above the last one that the peer says it looked at are told so.
        (ErrorKind::RemoteRefused, Sent::Nothing)
    } else if error.is_library() {
        (ErrorKind::UpstreamProtocol, sent)
    } else if error.is_reset() && error.reason() == Some(Reason::PROTOCOL_ERROR) {
        // One of the two got it wrong; Envoy does not say which.
        (ErrorKind::UpstreamProtocol, sent)
    } else if error.is_reset() {
        (ErrorKind::RemoteReset, sent)
    } else if error.is_io() {
        (ErrorKind::ConnectionTermination, sent)
    } else {
        (ErrorKind::LocalReset, sent)
    };
    Error::new(kind).with_sent(sent).with_source(error)
}

/// A stream from a client failed.
pub(crate) fn downstream(error: h2::Error) -> Error {
    let kind = if error.is_library() {
        ErrorKind::DownstreamProtocol
    } else if error.is_reset() {
        ErrorKind::DownstreamReset
    } else {
        ErrorKind::DownstreamGone
    };
    Error::new(kind).with_source(error)
}
