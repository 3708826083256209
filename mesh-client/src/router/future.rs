use std::{
    borrow::Cow,
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderName, Request, Response};
use mesh_core::{Body, Error, ErrorKind, Origin, RequestInfo, Resource, clock, number_value};
use mesh_http::reply;
use mesh_retry::DeadlineBody;
use pin_project::pin_project;
use tower_service::Service;

use super::{Forwarding, Stack, redirect::Redirectable};

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

type StackFuture = <Stack as Service<Request<Body>>>::Future;

/// A request in the router.
#[pin_project]
pub(crate) struct RouterFuture {
    #[pin]
    state: State,
}

#[pin_project(project = StateProject)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large variant is the usual one"
)]
enum State {
    Done(Option<Result<Response<Body>, Error>>),
    Forwarded {
        #[pin]
        stack: StackFuture,
        info: Arc<RequestInfo>,
        redirectable: Option<Box<Redirectable>>,
    },
}

impl RouterFuture {
    pub(super) fn refused(error: Error) -> Self {
        Self {
            state: State::Done(Some(Err(error))),
        }
    }

    pub(super) fn answered(response: Response<Body>) -> Self {
        Self {
            state: State::Done(Some(Ok(response))),
        }
    }

    pub(super) fn forwarded(
        stack: StackFuture,
        info: Arc<RequestInfo>,
        redirectable: Option<Box<Redirectable>>,
    ) -> Self {
        Self {
            state: State::Forwarded {
                stack,
                info,
                redirectable,
            },
        }
    }
}

impl Future for RouterFuture {
    type Output = Result<Response<Body>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProject::Done(result) => Poll::Ready(
                result
                    .take()
                    .unwrap_or_else(|| Err(ErrorKind::LocalReset.into())),
            ),
            StateProject::Forwarded {
                stack,
                info,
                redirectable,
            } => {
                let result = ready!(stack.poll(cx));
                let mut result = result.map(|response| response.map(DeadlineBody::into_body));
                // Nothing is forwarded without a route.
                let Some(forwarding) = info.route::<Forwarding>() else {
                    return Poll::Ready(result);
                };
                if let (Ok(response), Some(redirectable)) = (&mut result, redirectable.take()) {
                    let taken = std::mem::take(response);
                    match redirectable.judge(taken, info, forwarding) {
                        ControlFlow::Break(followed) => return Poll::Ready(Ok(followed)),
                        ControlFlow::Continue(passed) => *response = passed,
                    }
                }
                Poll::Ready(settle(result, info, forwarding))
            }
        }
    }
}

/// Counts the outcome, and gives an answer its headers.
fn settle(
    result: Result<Response<Body>, Error>,
    info: &RequestInfo,
    forwarding: &Forwarding,
) -> Result<Response<Body>, Error> {
    let stats = forwarding.worker_cluster().map(|c| &c.cluster.state.stats);
    let internal = forwarding.is_internal();
    match result {
        Ok(mut response) => {
            let received = info.with(|facts| {
                facts.details.get_or_insert(Cow::Borrowed("via_upstream"));
                facts.request_received
            });
            if let Some(stats) = stats {
                stats.count(response.status().as_u16(), internal);
                let start = received.unwrap_or(info.start);
                let millis = u64::try_from((clock::now() - start).as_millis()).unwrap_or(u64::MAX);
                stats.router.upstream_rq_time().record(millis);
                if received.is_some() && !forwarding.suppress_envoy_headers {
                    response
                        .headers_mut()
                        .insert(SERVICE_TIME, number_value(millis));
                }
            }
            forwarding.set_cookies(response.headers_mut());
            Ok(forwarding.finish(response, info))
        }
        Err(error) => {
            // What the client did wrong is not the cluster's.
            if let Some(stats) = stats.filter(|_| error.origin() != Origin::Downstream) {
                match error.kind() {
                    ErrorKind::RequestTimeout => stats.router.upstream_rq_timeout().inc(),
                    ErrorKind::NoHealthyUpstream => stats.router.upstream_cx_none_healthy().inc(),
                    // It never got as far as its endpoint.
                    ErrorKind::Overflow(Resource::Pending) => {
                        info.with(|facts| facts.endpoint = None)
                    }
                    _ => {}
                }
                stats.count(reply::status(&error).as_u16(), internal);
            }
            Err(error)
        }
    }
}
