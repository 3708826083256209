//! Asking with `grpc.health.v1.Health/Check`.

use std::time::Duration;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, uri::PathAndQuery,
};
use mesh_balance::health::{Failure, FailureKind, Passed};
use mesh_config::model::GrpcProbe;
use mesh_core::Body;

use super::{
    Ask,
    http::{facts, host_value},
    way::{Answer, Way},
};

const PATH: PathAndQuery = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;
/// Longer answers than this say something else.
const ANSWER_BYTES_MAX: usize = 4096;
/// A frame's head: whether it is compressed, and its length.
const FRAME_HEAD: usize = 5;

/// Asks one endpoint.
pub(super) struct GrpcAsking {
    probe: GrpcProbe,
    way: Way,
    authority: HeaderValue,
    timeout: HeaderValue,
}

/// A timeout has at most eight digits.
const TIMEOUT_MILLIS_MAX: u128 = 99_999_999;

impl Ask for GrpcAsking {
    async fn ask(&self) -> Result<Passed, Failure> {
        let message = Body::from(request_frame(&self.probe.service_name));
        let answer = self.way.ask(self.request(), message, ANSWER_BYTES_MAX);
        match answer.await {
            Ok(answer) if is_serving(&answer) => Ok(Passed::default()),
            Ok(_) => Err(Failure::new(FailureKind::Active)),
            Err(_) => Err(Failure::new(FailureKind::Network)),
        }
    }
}

impl GrpcAsking {
    /// `hostname` is the endpoint's own, if it has one; `timeout` is told to the endpoint.
    pub(super) fn new(probe: &GrpcProbe, way: Way, hostname: &str, timeout: Duration) -> Self {
        let millis = timeout.as_millis().min(TIMEOUT_MILLIS_MAX);
        Self {
            authority: host_value(hostname, &probe.authority),
            // Digits and a letter are a header value.
            timeout: HeaderValue::from_str(&format!("{millis}m"))
                .unwrap_or(HeaderValue::from_static("0m")),
            probe: probe.clone(),
            way,
        }
    }

    fn request(&self) -> Request<()> {
        let (mut parts, ()) = Request::new(()).into_parts();
        (parts.method, parts.uri) = (Method::POST, PATH.into());
        let headers = &mut parts.headers;
        headers.insert(header::HOST, self.authority.clone());
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        let agent = HeaderValue::from_static("Envoy/HC");
        headers.insert(header::USER_AGENT, agent);
        if !self.probe.headers.is_empty() {
            let info = facts(&self.way.target().endpoint);
            self.probe.headers.apply_to_request(&mut parts, &info);
        }
        parts.headers.insert(TIMEOUT, self.timeout.clone());
        Request::from_parts(parts, ())
    }
}

/// `HealthCheckRequest { service }` in a frame: field 1, a string.
fn request_frame(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.push((length as u8 & 0x7f) | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&(message.len() as u32).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

/// Whether everything about an answer says so.
fn is_serving(answer: &Answer) -> bool {
    let content = answer.head.headers().get(header::CONTENT_TYPE);
    let content = content.map_or(&b""[..], HeaderValue::as_bytes);
    let is_grpc = content == b"application/grpc" || content.starts_with(b"application/grpc+");
    let ok = |trailers: &HeaderMap| {
        let status = trailers.get(STATUS);
        status.is_some_and(|status| status.as_bytes() == b"0")
    };
    answer.head.status() == StatusCode::OK
        && is_grpc
        && answer.trailers.as_ref().is_some_and(ok)
        && status_of(&answer.body) == Some(SERVING)
}

/// The status in the one message of `frames`; empty messages do not count, as in Envoy.
fn status_of(mut frames: &[u8]) -> Option<u64> {
    let mut status = None;
    while !frames.is_empty() {
        let (head, rest) = frames.split_at_checked(FRAME_HEAD)?;
        let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
        let (message, rest) = rest.split_at_checked(length)?;
        frames = rest;
        if message.is_empty() {
            continue;
        }
        // Compressed, or one too many.
        if head[0] != 0 || status.is_some() {
            return None;
        }
        status = Some(first_field(message)?);
    }
    status
}

/// The last value of field 1, a varint, and 0 without any; `None` when this is no message.
fn first_field(mut message: &[u8]) -> Option<u64> {
    let mut value = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let read = varint(&mut message)?;
                if tag >> 3 == 1 {
                    value = read;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(value)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Response};

    use super::{Answer, is_serving, request_frame, status_of};

    #[test]
    fn requests_are_framed_messages() {
        assert_eq!(request_frame(""), [0, 0, 0, 0, 0]);
        assert_eq!(request_frame("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request_frame(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 308);
    }

    #[test]
    fn the_status_is_found_among_whatever_else_there_is() {
        assert_eq!(status_of(&[]), None);
        assert_eq!(status_of(&[0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status_of(&[0, 0, 0, 0, 2, 8, 2]), Some(2));
        // Unknown fields: a string, a fixed64, a fixed32.
        let unknown = [
            0, 0, 0, 0, 19, 0x12, 1, b'x', 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 8, 1,
        ];
        assert_eq!(status_of(&unknown), Some(1));
        // An empty message before is no answer; two answers are one too many.
        assert_eq!(status_of(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 8, 1]), Some(1));
        assert_eq!(status_of(&[0, 0, 0, 0, 2, 8, 1, 0, 0, 0, 0, 2, 8, 1]), None);
        // Compressed, cut short, no message.
        assert_eq!(status_of(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(status_of(&[0, 0, 0, 0, 3, 8, 1]), None);
        assert_eq!(status_of(&[0, 0, 0, 0, 1, 8]), None);
        assert_eq!(status_of(&[0, 0, 0, 0, 1, 7]), None);
    }

    fn answer(status: u16, content: &str, grpc: Option<&str>) -> Answer {
        let head = Response::builder().status(status);
        let trailers = grpc.map(|status| {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", status.parse().unwrap());
            trailers
        });
        Answer {
            head: head.header("content-type", content).body(()).unwrap(),
            body: vec![0, 0, 0, 0, 2, 8, 1],
            trailers,
        }
    }

    #[test]
    fn everything_must_say_so() {
        let serving = |status, content, grpc| is_serving(&answer(status, content, grpc));
        assert!(serving(200, "application/grpc", Some("0")));
        assert!(serving(200, "application/grpc+proto", Some("0")));
        assert!(!serving(200, "application/grpc-web", Some("0")));
        assert!(!serving(503, "application/grpc", Some("0")));
        assert!(!serving(200, "application/grpc", Some("5")));
        assert!(!serving(200, "application/grpc", None));
    }
}
