use http::{HeaderName, HeaderValue, header, request};
use mesh_core::{
    RequestInfo, RuntimeFraction,
    format::{FormatContext, RequestView},
};
use std::sync::Arc;

use crate::{HeaderMutation, inline, mutation};

/// Sends a copy of each request, or of a share of them, to another cluster, and forgets about it.
///
/// # Envoy
/// `route.v3.RouteAction.RequestMirrorPolicy`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct MirrorPolicy {
    /// Where the copies go.
    pub cluster: MirrorCluster,
    /// The share of requests that is copied; all when absent. The request's own random number draws, so that
    /// several policies draw alike.
    pub runtime_fraction: Option<RuntimeFraction>,
    /// The host that copies carry.
    pub host: MirrorHost,
    /// Done to the headers of copies, one after the other. Envoy: `request_headers_mutations`.
    pub mutations: Vec<HeaderMutation>,
}

/// The cluster of the copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorCluster {
    /// Always this one. Envoy: `cluster`.
    Named(Arc<str>),
    /// The one that a request header names; without it there is no copy. Envoy: `cluster_header`.
    Header(HeaderName),
}

/// What becomes of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum MirrorHost {
    /// `-shadow` is appended to its name, in front of a port: whoever reads the mirror's logs sees what it is.
    #[default]
    Suffixed,
    /// It stays. Envoy: `disable_shadow_host_suffix_append`.
    Unchanged,
    /// It becomes this. Envoy: `host_rewrite_literal`.
    Literal(HeaderValue),
}

impl MirrorPolicy {
    /// Copies every request to `cluster`.
    #[must_use]
    pub const fn new(cluster: MirrorCluster) -> Self {
        Self {
            cluster,
            runtime_fraction: None,
            host: MirrorHost::Suffixed,
            mutations: Vec::new(),
        }
    }

    /// The cluster that gets a copy of this request, if there is to be one.
    #[must_use]
    pub fn target<'a>(&'a self, request: &'a request::Parts, random: u64) -> Option<&'a str> {
        let drawn = |share: &RuntimeFraction| share.includes(random);
        if !self.runtime_fraction.as_ref().is_none_or(drawn) {
            return None;
        }
        match &self.cluster {
            MirrorCluster::Named(name) => Some(name),
            MirrorCluster::Header(name) => {
                let name = request.headers.get(name)?.to_str().ok()?;
                (!name.is_empty()).then_some(name)
            }
        }
    }

    /// Makes the head of the copy out of a copy of the head.
    pub fn prepare(&self, copy: &mut request::Parts, info: &RequestInfo) {
        match &self.host {
            MirrorHost::Unchanged => {}
            MirrorHost::Literal(host) => {
                copy.headers.insert(header::HOST, host.clone());
            }
            MirrorHost::Suffixed => {
                let host = copy.headers.get(header::HOST);
                if let Some(host) = host.and_then(|host| shadow_host(host.as_bytes())) {
                    copy.headers.insert(header::HOST, host);
                }
            }
        }
        for mutation in &self.mutations {
            mutation.remove_from(&mut copy.headers);
            let values = info.with(|facts| {
                let context = FormatContext::new(info).with_request(RequestView::of_parts(copy));
                mutation.evaluate(&copy.headers, &context, facts)
            });
            mutation::apply(values, &mut copy.headers, inline::is_inline);
        }
    }
}

/// `a.test:80` becomes `a.test-shadow:80`. A bracketed address has no name to append to, and stays.
fn shadow_host(host: &[u8]) -> Option<HeaderValue> {
    if host.first() == Some(&b'[') {
        return None;
    }
    let port = host.iter().position(|&byte| byte == b':');
    let (name, port) = host.split_at(port.unwrap_or(host.len()));
    HeaderValue::from_bytes(&[name, b"-shadow", port].concat()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderName, HeaderValue, Request, header, request};
    use mesh_core::{
        ConnectionInfo, FractionalPercent, RequestInfo, RuntimeFraction, clock, format::Format,
    };

    use super::{MirrorCluster, MirrorHost, MirrorPolicy};
    use crate::{HeaderAdd, HeaderMutation};

    fn parts(host: &str) -> request::Parts {
        let request = Request::get("/").header("host", host).body(());
        request.unwrap().into_parts().0
    }

    fn info() -> RequestInfo {
        let connection = Arc::new(ConnectionInfo::in_process());
        RequestInfo::new(clock::now(), 0, connection, Arc::from("1"))
    }

    fn to(name: &str) -> MirrorPolicy {
        MirrorPolicy::new(MirrorCluster::Named(name.into()))
    }

    #[test]
    fn the_host_tells_copies_apart() {
        for (host, shadow) in [
            ("a.test", "a.test-shadow"),
            ("a.test:80", "a.test-shadow:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let mut copy = parts(host);
            to("b").prepare(&mut copy, &info());
            assert_eq!(copy.headers[header::HOST], shadow);
        }
        let mut policy = to("b");
        let mut copy = parts("a.test");
        policy.host = MirrorHost::Unchanged;
        policy.prepare(&mut copy, &info());
        assert_eq!(copy.headers[header::HOST], "a.test");
        policy.host = MirrorHost::Literal(HeaderValue::from_static("other"));
        policy.prepare(&mut copy, &info());
        assert_eq!(copy.headers[header::HOST], "other");
    }

    #[test]
    fn only_the_share_that_is_asked_for_is_copied() {
        let mut policy = to("b");
        let request = parts("a");
        assert_eq!(policy.target(&request, 99), Some("b"));
        policy.runtime_fraction = Some(RuntimeFraction::fixed(FractionalPercent::percent(30)));
        let copied = (0..100).filter(|&n| policy.target(&request, n).is_some());
        assert_eq!(copied.count(), 30);
    }

    #[test]
    fn a_header_may_name_the_cluster_and_without_it_there_is_no_copy() {
        let name = HeaderName::from_static("x-mirror");
        let policy = MirrorPolicy::new(MirrorCluster::Header(name.clone()));
        let mut request = parts("a");
        assert_eq!(policy.target(&request, 0), None);
        request.headers.insert(&name, HeaderValue::from_static(""));
        assert_eq!(policy.target(&request, 0), None);
        request.headers.insert(&name, HeaderValue::from_static("b"));
        assert_eq!(policy.target(&request, 0), Some("b"));
    }

    #[test]
    fn mutations_see_what_the_one_before_has_done() {
        let add = |value| {
            let add = HeaderAdd::new("x-a", Format::parse(value).unwrap()).unwrap();
            HeaderMutation::new(vec![add], vec![]).unwrap()
        };
        let remove = HeaderMutation::new(vec![], vec![HeaderName::from_static("x-gone")]);
        let mut policy = to("b");
        policy.mutations = vec![add("1"), add("%REQ(x-a)%2"), remove.unwrap()];
        let mut copy = parts("a");
        copy.headers.insert("x-gone", HeaderValue::from_static("1"));
        policy.prepare(&mut copy, &info());
        let values: Vec<_> = copy.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "12"]);
        assert!(!copy.headers.contains_key("x-gone"));
    }
}
