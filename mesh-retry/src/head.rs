use std::sync::Arc;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use mesh_core::{Attempt, RequestInfo};

use crate::{
    RetryConfig,
    headers::{ATTEMPT_COUNT, IS_TIMEOUT_RETRY},
};

/// What a further attempt's request is made from.
#[derive(Debug)]
pub(crate) struct SavedHead {
    method: Method,
    uri: Uri,
    version: Version,
    headers: SavedHeaders,
    extensions: SavedExtensions,
}

/// Copying extensions costs an allocation each and two for their map. The usual case is the request's
/// info alone, which costs none.
#[derive(Debug)]
enum SavedExtensions {
    None,
    Info(Arc<RequestInfo>),
    All(Extensions),
}

impl SavedHead {
    pub(crate) fn new<B>(request: &Request<B>) -> Self {
        let all = request.extensions();
        let extensions = match (all.len(), all.get()) {
            (0, _) => SavedExtensions::None,
            (1, Some(info)) => SavedExtensions::Info(Arc::clone(info)),
            _ => SavedExtensions::All(all.clone()),
        };
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: SavedHeaders::new(request.headers()),
            extensions,
        }
    }

    pub(crate) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.restore();
        match &self.extensions {
            SavedExtensions::None => {}
            SavedExtensions::Info(info) => RequestInfo::attach(info, &mut request),
            SavedExtensions::All(all) => *request.extensions_mut() = all.clone(),
        }
        request
    }
}

/// Headers, copied into one piece of memory.
///
/// A copy of a `HeaderMap` costs an allocation for each name that is not well known, and counts references
/// for each value; all that for a copy which most requests never need. This is one allocation, and the
/// price is paid when a repetition puts the map together again.
///
/// Each header is: a byte of flags, the lengths of name and value in four bytes each, the name, the value.
#[derive(Debug)]
struct SavedHeaders {
    bytes: Vec<u8>,
    count: usize,
}

const SENSITIVE: u8 = 1;
const LENGTH: usize = size_of::<u32>();
const PREFIX: usize = 1 + 2 * LENGTH;
/// Room for a header of usual size; more is made when it does not do.
const USUAL: usize = 80;

impl SavedHeaders {
    fn new(headers: &HeaderMap) -> Self {
        let mut bytes = Vec::with_capacity(headers.len() * USUAL);
        for (name, value) in headers {
            let (name, sensitive) = (name.as_str().as_bytes(), value.is_sensitive());
            let value = value.as_bytes();
            let mut prefix = [0; PREFIX];
            prefix[0] = if sensitive { SENSITIVE } else { 0 };
            // Longer ones cannot come through a connection.
            let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_ne_bytes();
            prefix[1..=LENGTH].copy_from_slice(&length(name.len()));
            prefix[1 + LENGTH..].copy_from_slice(&length(value.len()));
            bytes.reserve(PREFIX + name.len() + value.len());
            bytes.extend_from_slice(&prefix);
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(value);
        }
        Self {
            bytes,
            count: headers.len(),
        }
    }

    fn restore(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(self.count);
        let mut rest = Bytes::copy_from_slice(&self.bytes);
        while let Some((name, value)) = take_header(&mut rest) {
            headers.append(name, value);
        }
        headers
    }
}

/// The next header; what was written from a valid one is valid.
fn take_header(rest: &mut Bytes) -> Option<(HeaderName, HeaderValue)> {
    if rest.len() < PREFIX {
        return None;
    }
    let prefix = rest.split_to(PREFIX);
    let length = |at: usize| -> Option<usize> {
        let bytes = prefix.get(at..at + LENGTH)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let (name, value) = (length(1)?, length(1 + LENGTH)?);
    let name = HeaderName::from_bytes(&rest.split_to(name)).ok()?;
    let mut value = HeaderValue::from_maybe_shared(rest.split_to(value)).ok()?;
    value.set_sensitive(prefix[0] & SENSITIVE != 0);
    Some((name, value))
}

/// What an attempt's request says about itself, from attempt 1 on. `timeout_retry` is `None` on the first.
pub(crate) fn mark<B>(
    request: &mut Request<B>,
    config: &RetryConfig,
    attempt: u32,
    timeout_retry: Option<bool>,
) {
    if config.include_request_attempt_count {
        request
            .headers_mut()
            .insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
    }
    if let Some(timeout) = timeout_retry.filter(|_| config.include_is_timeout_retry_header) {
        let value = if timeout { "true" } else { "false" };
        request
            .headers_mut()
            .insert(IS_TIMEOUT_RETRY, HeaderValue::from_static(value));
    }
}

/// An attempt's own marker, for the transport to report on.
pub(crate) fn attach_attempt<B>(request: &mut Request<B>, timed: bool) -> Option<Attempt> {
    timed.then(|| {
        let attempt = Attempt::new();
        request.extensions_mut().insert(attempt.clone());
        attempt
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::SavedHeaders;

    #[test]
    fn saved_headers_come_back_as_they_were() {
        let mut headers = HeaderMap::new();
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("x-many", HeaderValue::from_static("1"));
        headers.append("x-many", HeaderValue::from_static(""));
        headers.append("x-bytes", HeaderValue::from_bytes(b"\xff\x80\t").unwrap());
        let mut secret = HeaderValue::from_static("secret");
        secret.set_sensitive(true);
        headers.append("authorization", secret);
        let back = SavedHeaders::new(&headers).restore();
        assert_eq!(back, headers);
        let many: Vec<_> = back.get_all("x-many").iter().collect();
        assert_eq!(many, ["1", ""]);
        assert!(back["authorization"].is_sensitive());
        assert!(!back["accept"].is_sensitive());
        assert_eq!(SavedHeaders::new(&HeaderMap::new()).restore().len(), 0);
    }
}
