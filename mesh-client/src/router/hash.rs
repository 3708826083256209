//! The hash of a request, for clusters whose balancer goes by it.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, header};
use mesh_core::{RequestInfo, format::RequestView};
use mesh_route::{HashInput, SessionCookie, hash_of};
use smallvec::SmallVec;

use super::Forwarding;

/// The cookies that were made up for a request; nearly always one at most.
pub(super) type SessionCookies = SmallVec<[HeaderValue; 1]>;

impl Forwarding {
    /// The request's hash by the policies of its cluster, or else of its route; `None` where nobody looks at it, or
    /// no policy applies. A cookie that it makes up is in the answer.
    pub(super) fn hash(&self, request: &RequestView<'_>, info: &RequestInfo) -> Option<u64> {
        let cluster = &self.worker_cluster()?.cluster;
        cluster.tables.as_ref()?;
        let own = cluster.config.hash.as_ref();
        let policies = own.or_else(|| Some(&self.route_action()?.hash))?;
        if policies.is_empty() {
            return None;
        }
        let input = HashInput {
            request: *request,
            client: info.with(|facts| facts.remote).map(|address| address.ip()),
        };
        let mut made = SessionCookies::new();
        let hash = hash_of(policies, &input, |cookie| {
            let text = |address: Option<SocketAddr>| {
                address.map_or_else(String::new, |address| address.to_string())
            };
            let client = &info.connection;
            let value = SessionCookie::made_for(&text(client.peer), &text(client.local));
            made.extend(cookie.set_to(value));
            Some(SessionCookie::hash(value))
        });
        // Another attempt makes the same.
        if !made.is_empty() {
            self.cookies.get_or_init(|| made);
        }
        hash
    }

    /// Gives an answer from upstream the cookies that were made up.
    pub(super) fn set_cookies(&self, headers: &mut HeaderMap) {
        for cookie in self.cookies.get().into_iter().flatten() {
            headers.append(header::SET_COOKIE, cookie.clone());
        }
    }
}
