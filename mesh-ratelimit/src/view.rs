use std::sync::Arc;

use http::{Extensions, HeaderMap, Method, Request, Uri};
use mesh_core::RequestInfo;

/// What a plugged-in rule may look at: a request without its body.
#[derive(Debug, Clone, Copy)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// Everything else that travels with the request.
    pub extensions: &'a Extensions,
}

impl<'a> RequestView<'a> {
    /// Looks at `request`.
    #[must_use]
    pub fn new<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            extensions: request.extensions(),
        }
    }

    /// What is known about the request, if some layer above put it there.
    #[must_use]
    pub fn info(&self) -> Option<&'a Arc<RequestInfo>> {
        self.extensions.get()
    }
}
