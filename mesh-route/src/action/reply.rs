use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use mesh_core::{LocalReply, format::RequestView};

use super::redirect::here;
use crate::RouteConfigError;

/// The largest body of a direct response when the configuration sets no other limit. Envoy:
/// `max_direct_response_body_size_bytes`.
pub const BODY_MAX_DEFAULT: usize = 4096;

/// An answer that the proxy gives itself, `text/plain` if it has a body.
///
/// # Envoy
/// `route.v3.DirectResponseAction`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectResponse {
    status: StatusCode,
    body: Bytes,
}

impl DirectResponse {
    /// Answers with `status` and `body`, of at most `body_max` bytes.
    ///
    /// # Errors
    /// When the status is not between 200 and 599, or the body is too large.
    pub fn new(
        status: u32,
        body: impl Into<Bytes>,
        body_max: usize,
    ) -> Result<Self, RouteConfigError> {
        let valid = u16::try_from(status)
            .ok()
            .filter(|status| (200..600).contains(status));
        let status = valid
            .and_then(|status| StatusCode::from_u16(status).ok())
            .ok_or_else(|| {
                RouteConfigError::new(format!("status {status} is not between 200 and 599"))
            })?;
        let body = body.into();
        if body.len() > body_max {
            return Err(RouteConfigError::new(format!(
                "direct response body is {} bytes, more than the {body_max} allowed",
                body.len()
            )));
        }
        Ok(Self { status, body })
    }

    pub(crate) fn reply(&self, request: &RequestView<'_>) -> LocalReply {
        let mut reply = LocalReply::new(self.status, "", "direct_response");
        reply.body = self.body.clone();
        if !self.body.is_empty() {
            let text = HeaderValue::from_static("text/plain");
            reply.headers.insert(header::CONTENT_TYPE, text);
        }
        // Envoy says where the thing is that was created, or found: at the place that was asked for.
        if self.status == StatusCode::CREATED || self.status.is_redirection() {
            let location = here(request);
            if let Ok(location) = HeaderValue::from_str(&location) {
                reply.headers.insert(header::LOCATION, location);
            }
        }
        reply
    }
}
