//! What the tests share: resources, and a time that is no clock's.

use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_xds::{
    Rejection, ResourceType, Subscriber, SubscriberConfig, Variant,
    server::Entry,
    wire::{Any, DeltaDiscoveryResponse, DiscoveryResponse, Request, Resource, Response},
};
use prost::Message;

/// Any resource of ours: a name where all types have it, and something to tell versions apart.
#[derive(Clone, PartialEq, Message)]
struct Simple {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2047")]
    content: String,
}

pub(crate) fn body(name: &str, content: &str) -> Bytes {
    let (name, content) = (name.to_owned(), content.to_owned());
    Simple { name, content }.encode_to_vec().into()
}

pub(crate) fn content(body: &Bytes) -> String {
    Simple::decode(body.clone()).unwrap().content
}

pub(crate) fn entry(name: &str, content: &str) -> Entry {
    Entry::new(name, body(name, content))
}

pub(crate) fn node(id: &str) -> Node {
    Node {
        id: id.to_owned(),
        cluster: "tests".to_owned(),
        ..Node::default()
    }
}

pub(crate) fn subscriber(variant: Variant) -> Subscriber {
    Subscriber::new(SubscriberConfig::new(node("test"), variant))
}

/// Takes all but what says of itself that it is bad.
pub(crate) fn accept(_: ResourceType, _: &str, body: &Bytes) -> Result<(), Rejection> {
    match content(body) {
        text if text.starts_with("bad") => Err(Rejection::at("content", format!("it is {text}"))),
        _ => Ok(()),
    }
}

/// A beginning of time.
#[expect(clippy::disallowed_methods, reason = "any instant will do")]
pub(crate) fn epoch() -> Instant {
    Instant::now()
}

pub(crate) const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn any(ty: ResourceType, body: Bytes) -> Any {
    Any {
        type_url: ty.type_url().to_owned(),
        value: body,
    }
}

/// A state-of-the-world response.
pub(crate) fn world(
    ty: ResourceType,
    version: &str,
    nonce: &str,
    resources: &[(&str, &str)],
) -> Response {
    let resource = |(name, content): &(&str, &str)| any(ty, body(name, content));
    Response::Sotw(DiscoveryResponse {
        version_info: version.to_owned(),
        resources: resources.iter().map(resource).collect(),
        type_url: ty.type_url().to_owned(),
        nonce: nonce.to_owned(),
        control_plane: None,
    })
}

/// A delta response; each resource is `(name, version, content)`.
pub(crate) fn delta(
    ty: ResourceType,
    nonce: &str,
    resources: &[(&str, &str, &str)],
    removed: &[&str],
) -> Response {
    let resource = |(name, version, content): &(&str, &str, &str)| Resource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        resource: Some(any(ty, body(name, content))),
        ..Resource::default()
    };
    Response::Delta(DeltaDiscoveryResponse {
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|name| (*name).to_owned()).collect(),
        type_url: ty.type_url().to_owned(),
        nonce: nonce.to_owned(),
        ..DeltaDiscoveryResponse::default()
    })
}

/// All requests that are due.
pub(crate) fn requests(now: Instant, subscriber: &mut Subscriber) -> Vec<Request> {
    std::iter::from_fn(|| subscriber.poll_request(now)).collect()
}

/// What the tests look at in a request: type, names, version, nonce, error.
pub(crate) fn sotw(request: &Request) -> (ResourceType, Vec<&str>, &str, &str, Option<&str>) {
    let Request::Sotw(request) = request else {
        panic!("{request:?}");
    };
    (
        ResourceType::from_type_url(&request.type_url).unwrap(),
        request.resource_names.iter().map(String::as_str).collect(),
        &request.version_info,
        &request.response_nonce,
        request.error_detail.as_ref().map(|e| e.message.as_str()),
    )
}
