//! Headers that a rate limit adds.

use envoy_types::pb::envoy::config::core::v3::HeaderValueOption;
use http::{HeaderMap, HeaderValue};
use mesh_core::format::{self, FormatContext};
use mesh_ratelimit::{HeadersToAdd, RequestView};
use mesh_route::AppendAction;

use crate::{
    convert::{
        context::Context,
        mutation::{self, Addition},
    },
    language::At,
};

pub(super) fn to_add(cx: &Context<'_>, at: &At<'_>, from: &[HeaderValueOption]) -> HeadersToAdd {
    let additions = mutation::additions(cx, at, from);
    if let Some(fixed) = additions.iter().map(fixed).collect::<Option<Vec<_>>>() {
        return HeadersToAdd::fixed(fixed);
    }
    HeadersToAdd::with(move |request: &RequestView<'_>, headers: &mut HeaderMap| {
        for addition in &additions {
            add(addition, request, headers);
        }
    })
}

/// The header, if it is the same for every request and goes behind those that are there.
fn fixed(addition: &Addition) -> Option<(http::HeaderName, HeaderValue)> {
    let text = addition.add.value().as_literal()?;
    let appended = addition.action == AppendAction::AppendIfExistsOrAdd;
    let kept = addition.keep_empty_value || !text.is_empty();
    let value = HeaderValue::from_str(text).ok()?;
    (appended && kept).then(|| (addition.add.name().clone(), value))
}

fn add(addition: &Addition, request: &RequestView<'_>, headers: &mut HeaderMap) {
    let name = addition.add.name();
    let exists = headers.contains_key(name);
    let skip = match addition.action {
        AppendAction::AddIfAbsent => exists,
        AppendAction::OverwriteIfExists => !exists,
        AppendAction::AppendIfExistsOrAdd | AppendAction::OverwriteIfExistsOrAdd => false,
    };
    let mut value = Vec::new();
    match (addition.add.value().as_literal(), request.info()) {
        (Some(text), _) => value.extend_from_slice(text.as_bytes()),
        (None, Some(info)) => {
            let view = format::RequestView::new(request.method, request.uri, request.headers);
            let context = FormatContext::new(info).with_request(view);
            addition.add.value().write(&context, &mut value);
        }
        // Nothing is known about the request.
        (None, None) => return,
    }
    // What cannot be in a header was put there by a peer: leave the header out.
    let Ok(value) = HeaderValue::from_bytes(&value) else {
        return;
    };
    if skip || (value.is_empty() && !addition.keep_empty_value) {
        return;
    }
    match addition.action {
        AppendAction::AppendIfExistsOrAdd | AppendAction::AddIfAbsent => {
            // The map refuses more than it can hold; the header is then left out.
            let _ = headers.try_append(name.clone(), value);
        }
        AppendAction::OverwriteIfExistsOrAdd | AppendAction::OverwriteIfExists => {
            headers.insert(name.clone(), value);
        }
    }
}
