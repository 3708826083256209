//! Changes to a message, one after the other: what a filter does, rather than a route.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, header, request, response};
use mesh_core::{
    Facts, RequestInfo,
    format::{Captures, FormatContext, RequestView},
};
use smallvec::SmallVec;

use crate::{
    HeaderAdd, HeaderMutation, MUTATIONS_MAX, RouteConfigError, StringMatcher, inline, mutation,
};

/// What one level of a filter does to requests and to responses.
#[derive(Debug, Clone, Default)]
pub struct MessageChanges {
    request: HeaderChanges,
    response: HeaderChanges,
    /// What `response` quotes of the request, which is gone by then.
    captures: Captures,
}

/// What was kept of a request for [`MessageChanges::apply_to_response`].
pub type Captured = SmallVec<[Option<HeaderValue>; 8]>;

impl MessageChanges {
    /// Envoy: `request_mutations`, `response_mutations`.
    #[must_use]
    pub fn new(request: HeaderChanges, mut response: HeaderChanges) -> Self {
        let mut captures = Captures::default();
        for change in &mut response.0 {
            match change {
                HeaderChange::Level(level) => level.bind(&mut captures),
                HeaderChange::RemoveMatching(_) => {}
            }
        }
        Self {
            request,
            response,
            captures,
        }
    }

    /// Changes a request.
    pub fn apply_to_request(&self, parts: &mut request::Parts, info: &RequestInfo) {
        self.request.apply_to_request(parts, info);
    }

    /// Keeps what the response's changes will quote: nothing, for most.
    #[must_use]
    pub fn capture(&self, parts: &request::Parts) -> Captured {
        if self.captures.fields().is_empty() {
            return Captured::new();
        }
        self.captures.capture(&RequestView::of_parts(parts))
    }

    /// Changes a response; `now` is the end of `%DURATION%`.
    pub fn apply_to_response(
        &self,
        parts: &mut response::Parts,
        info: &RequestInfo,
        mut captured: Captured,
        now: Instant,
    ) {
        if self.response.0.is_empty() {
            return;
        }
        info.with(|facts| {
            // What the log has captured stays as it is.
            std::mem::swap(&mut facts.captured, &mut captured);
            self.response.apply_to_response(parts, info, facts, now);
            std::mem::swap(&mut facts.captured, &mut captured);
        });
    }
}

/// Changes in the order in which they are made: each sees what those before it have done, where the
/// levels of a route first remove and then add.
///
/// # Envoy
/// A list of `config.common.mutation_rules.v3.HeaderMutation`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeaderChanges(Vec<HeaderChange>);

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderChange {
    /// Removes one header, or adds one.
    Level(HeaderMutation),
    /// Removes every header whose name passes.
    RemoveMatching(StringMatcher),
}

impl HeaderChange {
    /// Adds a header as `add` says.
    ///
    /// # Errors
    /// Never for a header that can be added at all.
    pub fn add(add: HeaderAdd) -> Result<Self, RouteConfigError> {
        Ok(Self::Level(HeaderMutation::new(vec![add], Vec::new())?))
    }

    /// Removes a header.
    ///
    /// # Errors
    /// When it is `Host`.
    pub fn remove(name: HeaderName) -> Result<Self, RouteConfigError> {
        Ok(Self::Level(HeaderMutation::new(Vec::new(), vec![name])?))
    }
}

impl HeaderChanges {
    /// These changes, in this order.
    ///
    /// # Errors
    /// When there are more than [`MUTATIONS_MAX`].
    pub fn new(changes: Vec<HeaderChange>) -> Result<Self, RouteConfigError> {
        if changes.len() > MUTATIONS_MAX {
            return Err(RouteConfigError::new(format!(
                "more than {MUTATIONS_MAX} header mutations"
            )));
        }
        Ok(Self(changes))
    }

    fn apply_to_request(&self, parts: &mut request::Parts, info: &RequestInfo) {
        if self.0.is_empty() {
            return;
        }
        info.with(|facts| {
            for change in &self.0 {
                match change {
                    HeaderChange::Level(level) => level.apply_to_request_with(parts, info, facts),
                    HeaderChange::RemoveMatching(names) => remove(names, &mut parts.headers),
                }
            }
        });
    }

    fn apply_to_response(
        &self,
        parts: &mut response::Parts,
        info: &RequestInfo,
        facts: &Facts,
        now: Instant,
    ) {
        for change in &self.0 {
            match change {
                HeaderChange::Level(level) => {
                    level.remove_from(&mut parts.headers);
                    let context = FormatContext::new(info).with_end(now);
                    let context = context.with_response(parts.status, &parts.headers);
                    let values = level.evaluate(&parts.headers, &context, facts);
                    mutation::apply(values, &mut parts.headers, inline::is_inline_response);
                }
                HeaderChange::RemoveMatching(names) => remove(names, &mut parts.headers),
            }
        }
    }
}

fn remove(names: &StringMatcher, headers: &mut HeaderMap) {
    let matching = headers
        .keys()
        .filter(|name| names.matches(name.as_str().as_bytes()));
    let matching: Vec<HeaderName> = matching
        .filter(|name| *name != header::HOST)
        .cloned()
        .collect();
    for name in matching {
        headers.remove(name);
    }
}
