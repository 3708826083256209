//! Asking over HTTP.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response, header};
use mesh_balance::health::{Failure, FailureKind, HealthStats, Passed};
use mesh_config::model::HttpProbe;
use mesh_core::{Body, ConnectionInfo, Endpoint, RequestInfo, clock};

use super::{
    Ask,
    way::{Answer, Way},
};

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
/// The endpoint wants no requests.
const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName =
    HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// Asks one endpoint.
pub(super) struct HttpAsking {
    probe: HttpProbe,
    way: Way,
    host: HeaderValue,
    stats: HealthStats,
}

/// The endpoint's own name, if it has one. What a header must not hold goes out as no host rather than as
/// another request.
pub(super) fn host_value(hostname: &str, default: &str) -> HeaderValue {
    let host = if hostname.is_empty() {
        default
    } else {
        hostname
    };
    HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static(""))
}

impl Ask for HttpAsking {
    async fn ask(&self) -> Result<Passed, Failure> {
        let body = Body::from(self.probe.send.clone());
        let answer = self.way.ask(self.request(), body, self.most()).await;
        // What exactly went wrong below HTTP does not matter.
        let answer = answer.map_err(|_| Failure::new(FailureKind::Network))?;
        judge(&self.probe, &answer, &self.stats)
    }
}

impl HttpAsking {
    /// `hostname` is the endpoint's own, if it has one.
    pub(super) fn new(probe: &HttpProbe, way: Way, hostname: &str, stats: HealthStats) -> Self {
        Self {
            host: host_value(hostname, &probe.host),
            probe: probe.clone(),
            way,
            stats,
        }
    }

    /// How many bytes of the answer are looked at.
    fn most(&self) -> usize {
        let most = match self.probe.response_buffer_size {
            _ if self.probe.receive.is_empty() => 0,
            0 => HttpProbe::RESPONSE_BYTES_MAX,
            size => size.min(HttpProbe::RESPONSE_BYTES_MAX),
        };
        most as usize
    }

    fn request(&self) -> Request<()> {
        let request = Request::builder()
            .method(self.probe.method.clone())
            .uri(self.probe.path.clone());
        let (mut parts, ()) = request.body(()).unwrap_or_default().into_parts();
        parts.headers.insert(header::HOST, self.host.clone());
        let agent = HeaderValue::from_static("Envoy/HC");
        parts.headers.insert(header::USER_AGENT, agent);
        if !self.probe.headers.is_empty() {
            let info = facts(&self.way.target().endpoint);
            self.probe.headers.apply_to_request(&mut parts, &info);
        }
        Request::from_parts(parts, ())
    }
}

/// What header templates may quote: the endpoint.
pub(super) fn facts(endpoint: &Arc<Endpoint>) -> RequestInfo {
    let connection = Arc::new(ConnectionInfo::in_process());
    let info = RequestInfo::new(clock::now(), 0, connection, Arc::from(""));
    info.with(|facts| facts.endpoint = Some(Arc::clone(endpoint)));
    info
}

/// What an answer means: the body counts first, then the status, then the name.
fn judge(probe: &HttpProbe, answer: &Answer, stats: &HealthStats) -> Result<Passed, Failure> {
    let status = answer.head.status().as_u16();
    let failure = Failure {
        status: Some(status),
        ..Failure::new(FailureKind::Active)
    };
    let excludes = answer.head.headers().contains_key(IMMEDIATE_FAIL);
    if !probe.receive.matches(&answer.body) {
        return Err(Failure {
            excludes,
            ..failure
        });
    }
    let within = |ranges: &[std::ops::Range<u16>]| ranges.iter().any(|r| r.contains(&status));
    if !within(&probe.expected) {
        return Err(Failure {
            excludes,
            retriable: within(&probe.retriable),
            ..failure
        });
    }
    if let Some(name) = &probe.service_name {
        stats.verify_cluster().inc();
        let said = answer.head.headers().get(CHECKED_CLUSTER);
        if !name.matches(said.map_or(b"", HeaderValue::as_bytes)) {
            return Err(failure);
        }
    }
    Ok(Passed {
        degraded: answer.head.headers().contains_key(DEGRADED),
    })
}

/// Whether an answer to a request says that its endpoint wants no more.
pub(crate) fn fails_at_once<B>(response: &Response<B>) -> bool {
    response.headers().contains_key(IMMEDIATE_FAIL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method, Response, uri::PathAndQuery};
    use mesh_balance::health::{Failure, FailureKind, HealthStats, Passed, Payload};
    use mesh_config::model::HttpProbe;
    use mesh_route::{HeaderMutation, StringMatcher};

    use super::{Answer, judge};

    fn probe() -> HttpProbe {
        HttpProbe {
            method: Method::GET,
            path: PathAndQuery::from_static("/"),
            host: Arc::from("h"),
            headers: HeaderMutation::default(),
            send: Vec::new(),
            receive: Payload::default(),
            response_buffer_size: 1024,
            expected: vec![200..201, 300..302],
            retriable: vec![500..502, 502..504],
            service_name: None,
            http2: false,
        }
    }

    fn judged(
        probe: &HttpProbe,
        status: u16,
        headers: &[&'static str],
        body: &str,
    ) -> Result<Passed, Failure> {
        let mut map = HeaderMap::new();
        for name in headers {
            let (name, value) = name.split_once(": ").unwrap_or((name, ""));
            map.insert(name, value.parse().unwrap());
        }
        let mut head = Response::builder().status(status).body(()).unwrap();
        *head.headers_mut() = map;
        let answer = Answer {
            head,
            body: body.into(),
            trailers: None,
        };
        judge(probe, &answer, &HealthStats::detached())
    }

    const fn failure(status: u16, retriable: bool, excludes: bool) -> Result<Passed, Failure> {
        Err(Failure {
            kind: FailureKind::Active,
            retriable,
            excludes,
            status: Some(status),
        })
    }

    const WELL: Result<Passed, Failure> = Ok(Passed { degraded: false });

    #[test]
    fn statuses_decide() {
        let probe = probe();
        assert_eq!(judged(&probe, 200, &[], ""), WELL);
        assert_eq!(judged(&probe, 301, &[], ""), WELL);
        assert_eq!(judged(&probe, 201, &[], ""), failure(201, false, false));
        assert_eq!(judged(&probe, 503, &[], ""), failure(503, true, false));
        assert_eq!(judged(&probe, 504, &[], ""), failure(504, false, false));
    }

    #[test]
    fn headers_say_more() {
        let probe = probe();
        let degraded = Ok(Passed { degraded: true });
        assert_eq!(judged(&probe, 200, &["x-envoy-degraded"], ""), degraded);
        let out = &["x-envoy-immediate-health-check-fail: true"];
        assert_eq!(judged(&probe, 404, out, ""), failure(404, false, true));
        // One that is well is not excluded, whatever it says.
        assert_eq!(judged(&probe, 200, out, ""), WELL);
    }

    #[test]
    fn the_body_counts_before_the_status() {
        let mut probe = probe();
        probe.receive = Payload::new(vec![b"ok".to_vec()]);
        assert_eq!(judged(&probe, 200, &[], "it is ok"), WELL);
        assert_eq!(judged(&probe, 503, &[], "no"), failure(503, false, false));
        assert_eq!(judged(&probe, 503, &[], "ok"), failure(503, true, false));
    }

    #[test]
    fn the_cluster_that_was_checked_must_be_the_right_one() {
        let mut probe = probe();
        probe.service_name = Some(StringMatcher::prefix("users").unwrap());
        let name = &["x-envoy-upstream-healthchecked-cluster: users-2"];
        assert_eq!(judged(&probe, 200, name, ""), WELL);
        assert_eq!(judged(&probe, 200, &[], ""), failure(200, false, false));
    }
}
