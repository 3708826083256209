use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri, Version, request::Parts};
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
    headers: HeaderMap,
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
    pub(crate) fn new(head: &Parts) -> Self {
        let extensions = match (head.extensions.len(), head.extensions.get()) {
            (0, _) => SavedExtensions::None,
            (1, Some(info)) => SavedExtensions::Info(Arc::clone(info)),
            _ => SavedExtensions::All(head.extensions.clone()),
        };
        Self {
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            headers: head.headers.clone(),
            extensions,
        }
    }

    pub(crate) fn request<B>(&self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        match &self.extensions {
            SavedExtensions::None => {}
            SavedExtensions::Info(info) => RequestInfo::attach(info, &mut request),
            SavedExtensions::All(all) => *request.extensions_mut() = all.clone(),
        }
        request
    }
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
