use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use mesh_core::{Body, BoxError, ErrorKind};
use tower_service::Service;

use super::{Laws, demand};
use crate::{Reply, ScriptedBody, UpstreamService, call};

/// What a reader of a body can notice.
#[derive(Debug, Default, PartialEq)]
struct Observed {
    /// Before each frame and at the end: whether it says that it is over, and how long it says it is.
    hints: Vec<(bool, u64, Option<u64>)>,
    data: Vec<Bytes>,
    trailers: Vec<HeaderMap>,
    failed: bool,
}

/// More frames than any script has: a body that never ends is noticed.
const FRAMES_MAX: usize = 32;

async fn observe<C: HttpBody<Data = Bytes>>(body: C) -> Observed {
    let mut body = Box::pin(body);
    let mut observed = Observed::default();
    for _ in 0..FRAMES_MAX {
        let hint = body.size_hint();
        observed
            .hints
            .push((body.is_end_stream(), hint.lower(), hint.upper()));
        match body.frame().await {
            None => break,
            Some(Err(_)) => {
                observed.failed = true;
                break;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => observed.data.push(data),
                Err(frame) => observed.trailers.extend(frame.into_trailers().ok()),
            },
        }
    }
    observed
}

type Script = (&'static str, fn() -> ScriptedBody);

fn scripts() -> [Script; 7] {
    [
        ("an empty body", ScriptedBody::new),
        ("an empty body that does not say so", || {
            ScriptedBody::new().silent()
        }),
        ("a body of known length", || {
            ScriptedBody::new().data("one").data("three")
        }),
        ("a body of unknown length", || {
            ScriptedBody::new().data("one").data("three").silent()
        }),
        ("a body with trailers", || {
            ScriptedBody::new()
                .data("one")
                .trailers([("grpc-status", "0"), ("t", "1")])
        }),
        ("trailers alone", || {
            ScriptedBody::new().trailers([("grpc-status", "14")])
        }),
        ("a body that fails", || {
            ScriptedBody::new().data("one").fail(ErrorKind::RemoteReset)
        }),
    ]
}

impl<F, S, C> Laws<F>
where
    F: Fn(UpstreamService) -> S,
    S: Service<Request<Body>, Response = Response<C>, Error: Into<BoxError>> + Clone,
    C: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    pub(super) async fn bodies_are_forwarded(&self) -> Result<(), String> {
        let (upstream, mut service) = self.fresh();
        for (what, script) in scripts() {
            upstream.reply(Reply::status(200).body(script()));
            let Ok(response) = call(&mut service, (self.request)()).await else {
                return Err(format!("{what} turns into an error"));
            };
            let (seen, meant) = (
                observe(response.into_body()).await,
                observe(Body::new(script())).await,
            );
            demand(
                seen == meant,
                format!("{what} changes: {seen:?}, not {meant:?}"),
            )?;
        }
        Ok(())
    }
}
