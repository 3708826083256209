//! Asking over HTTP/1.1.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use mesh_balance::health::{Failure, FailureKind, HealthStats, Passed};
use mesh_config::model::HttpProbe;
use mesh_core::{Body, BoxFuture, ConnectionInfo, Endpoint, Error, RequestInfo, clock};
use mesh_http::h1::{
    HeadLimits,
    client::{Connection, Exchange, Return},
};
use mesh_net::Stream;
use tower_service::Service;

use super::Target;

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");
/// The endpoint wants no requests.
pub(crate) const IMMEDIATE_FAIL: HeaderName =
    HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName =
    HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

/// Asks one endpoint, mostly over one connection.
pub(super) struct HttpProber(Arc<Asking>);

struct Asking {
    probe: HttpProbe,
    target: Target,
    host: HeaderValue,
    stats: HealthStats,
    idle: Idle,
}

type Idle = Arc<Mutex<Option<Connection<Stream>>>>;

/// Keeps the connection for the next check, if it may carry one.
struct Keep {
    idle: Idle,
    reuse: bool,
}

impl Return<Stream> for Keep {
    fn give_back(self, connection: Option<Connection<Stream>>) {
        if let Some(connection) = connection.filter(|_| self.reuse) {
            *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl HttpProber {
    /// `hostname` is the endpoint's own, if it has one.
    pub(super) fn new(
        probe: &HttpProbe,
        target: Target,
        hostname: &str,
        stats: HealthStats,
    ) -> Self {
        let host = if hostname.is_empty() {
            &probe.host
        } else {
            hostname
        };
        Self(Arc::new(Asking {
            // What a header must not hold goes out as no host rather than as another request.
            host: HeaderValue::from_str(host).unwrap_or(HeaderValue::from_static("")),
            probe: probe.clone(),
            target,
            stats,
            idle: Arc::default(),
        }))
    }
}

impl Service<()> for HttpProber {
    type Response = Passed;
    type Error = Failure;
    type Future = BoxFuture<Result<Passed, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let asking = Arc::clone(&self.0);
        Box::pin(async move {
            let answer = asking.ask().await?;
            judge(&asking.probe, &answer, &asking.stats)
        })
    }
}

impl Asking {
    async fn ask(&self) -> Result<Answer, Failure> {
        let answer = async {
            let connection = match self.kept() {
                Some(kept) => kept,
                None => Connection::new(self.target.connect().await?, HeadLimits::default()),
            };
            self.exchange(connection).await
        };
        // What exactly went wrong below HTTP does not matter.
        let answer = answer.await;
        answer.map_err(|_: Error| Failure::new(FailureKind::Network))
    }

    fn kept(&self) -> Option<Connection<Stream>> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = { kept }.take()?;
        (kept.is_idle() && kept.io().is_quiet()).then_some(kept)
    }

    async fn exchange(&self, connection: Connection<Stream>) -> Result<Answer, Error> {
        let keep = Keep {
            idle: Arc::clone(&self.idle),
            reuse: self.target.reuse,
        };
        let body = Body::from(self.probe.send.clone());
        let mut exchange = Exchange::new(connection, keep, &self.request(), body);
        let head = poll_fn(|cx| exchange.poll_head(cx)).await?;
        let (head, ()) = head.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: self.read(exchange.into_body()).await?,
        })
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
            let info = facts(&self.target.endpoint);
            self.probe.headers.apply_to_request(&mut parts, &info);
        }
        Request::from_parts(parts, ())
    }

    /// The answer's body to its end, and what of it is looked at.
    async fn read(&self, mut body: Body) -> Result<Vec<u8>, Error> {
        let most = match self.probe.response_buffer_size {
            _ if self.probe.receive.is_empty() => 0,
            0 => HttpProbe::RESPONSE_BYTES_MAX,
            size => size.min(HttpProbe::RESPONSE_BYTES_MAX),
        } as usize;
        let mut kept = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            if let Ok(data) = frame?.into_data() {
                let room = most - kept.len();
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
        }
        Ok(kept)
    }
}

/// What header templates may quote: the endpoint.
fn facts(endpoint: &Arc<Endpoint>) -> RequestInfo {
    let connection = Arc::new(ConnectionInfo::in_process());
    let info = RequestInfo::new(clock::now(), 0, connection, Arc::from(""));
    info.with(|facts| facts.endpoint = Some(Arc::clone(endpoint)));
    info
}

/// What an answer means: the body counts first, then the status, then the name.
fn judge(probe: &HttpProbe, answer: &Answer, stats: &HealthStats) -> Result<Passed, Failure> {
    let status = answer.status.as_u16();
    let failure = Failure {
        status: Some(status),
        ..Failure::new(FailureKind::Active)
    };
    let excludes = answer.headers.contains_key(IMMEDIATE_FAIL);
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
        let said = answer.headers.get(CHECKED_CLUSTER);
        if !name.matches(said.map_or(b"", HeaderValue::as_bytes)) {
            return Err(failure);
        }
    }
    Ok(Passed {
        degraded: answer.headers.contains_key(DEGRADED),
    })
}

/// Whether an answer to a request says that its endpoint wants no more.
pub(crate) fn fails_at_once<B>(response: &Response<B>) -> bool {
    response.headers().contains_key(IMMEDIATE_FAIL)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method, StatusCode, uri::PathAndQuery};
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
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: map,
            body: body.into(),
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
