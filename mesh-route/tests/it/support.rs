use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, request};
use mesh_core::{
    ConnectionInfo, RequestInfo, clock,
    format::{Captures, Format, RequestView},
};
use mesh_route::{
    Found, HeaderAdd, HeaderMutation, HeaderMutations, Route, RouteConfiguration, RouteEntry,
    RouteTable, VirtualHost,
};

pub(crate) type Entry = Arc<RouteEntry<()>>;

/// A table with one virtual host for every host.
pub(crate) fn table(routes: Vec<Route<()>>) -> RouteTable<()> {
    configured(RouteConfiguration::new("rc", vec![any_host(routes)]))
}

pub(crate) fn any_host(routes: Vec<Route<()>>) -> VirtualHost<()> {
    VirtualHost::new("vh", vec!["*".to_owned()], routes)
}

pub(crate) fn configured(config: RouteConfiguration<()>) -> RouteTable<()> {
    RouteTable::new(config, &mut Captures::default()).unwrap()
}

pub(crate) fn request(uri: &str, headers: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

/// The route of a request that must have one.
pub(crate) fn found(table: &RouteTable<()>, parts: &request::Parts) -> Entry {
    match table.find(&RequestView::of_parts(parts), 0).unwrap() {
        Found::Route(route) => Arc::clone(route),
        Found::TlsRequired(_) => panic!("TLS required"),
    }
}

pub(crate) fn info() -> RequestInfo {
    let connection = Arc::new(ConnectionInfo::in_process());
    RequestInfo::new(clock::now(), 0, connection, Arc::from("1"))
}

pub(crate) fn add(name: &str, value: &str) -> HeaderAdd {
    HeaderAdd::new(name, Format::parse(value).unwrap()).unwrap()
}

pub(crate) fn adds(add: Vec<HeaderAdd>) -> HeaderMutation {
    HeaderMutation::new(add, vec![]).unwrap()
}

pub(crate) fn on_request(request: HeaderMutation) -> HeaderMutations {
    HeaderMutations {
        request,
        response: HeaderMutation::default(),
    }
}

pub(crate) fn on_response(response: HeaderMutation) -> HeaderMutations {
    HeaderMutations {
        request: HeaderMutation::default(),
        response,
    }
}

pub(crate) fn values(headers: &http::HeaderMap, name: &str) -> Vec<String> {
    let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
    let values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}
