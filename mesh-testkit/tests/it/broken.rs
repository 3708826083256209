//! Services that each break one law, on purpose.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use mesh_core::{Body, BoxFuture, Error, ErrorKind, GuardedBody, Permit, Resource, Resources};
use mesh_testkit::UpstreamService;
use tower_service::Service;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    /// Calls the inner service without asking whether it is ready.
    NeverAsks,
    /// Remembers readiness in a bit that clones copy.
    ClonesReadyBit,
    /// Keeps the permit where clones share it.
    ClonesPermit,
    /// Never gives back what a dropped ready service had reserved.
    LeaksReservation,
    /// Never gives back what a dropped future held.
    LeaksFuture,
    /// Never gives back what a dropped body held.
    LeaksBody,
    /// Waits without asking to be woken.
    LosesWaker,
    /// Every error becomes another.
    ChangesErrors,
    /// A wrapped body that forwards frames and nothing else.
    ForgetsHints,
    /// A wrapped body that ends before its trailers.
    DropsTrailers,
    /// Holds the answer back until its body ends.
    Buffers,
}

/// A concurrency limit that reserves in `poll_ready`, with one flaw.
pub(crate) struct Limit {
    inner: UpstreamService,
    flaw: Flaw,
    resources: Arc<Resources>,
    permit: Option<Arc<Permit>>,
    ready: bool,
}

impl Limit {
    pub(crate) fn new(inner: UpstreamService, flaw: Flaw, resources: &Arc<Resources>) -> Self {
        Self {
            inner,
            flaw,
            resources: Arc::clone(resources),
            permit: None,
            ready: false,
        }
    }
}

impl Clone for Limit {
    fn clone(&self) -> Self {
        let mut clone = Self::new(self.inner.clone(), self.flaw, &self.resources);
        if self.flaw == Flaw::ClonesPermit {
            clone.permit = self.permit.clone();
        }
        clone.ready = self.ready && self.flaw == Flaw::ClonesReadyBit;
        clone
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if self.flaw == Flaw::LeaksReservation {
            std::mem::forget(self.permit.take());
        }
    }
}

impl Service<Request<Body>> for Limit {
    type Response = Response<Wrapped>;
    type Error = Error;
    type Future = BoxFuture<Result<Response<Wrapped>, Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.permit.is_none() {
            let permit = self.resources.try_acquire(Resource::Requests);
            self.permit = permit.ok().map(Arc::new);
        }
        if self.flaw == Flaw::NeverAsks || self.ready {
            return Poll::Ready(Ok(()));
        }
        let mut deaf = Context::from_waker(std::task::Waker::noop());
        let cx = if self.flaw == Flaw::LosesWaker {
            &mut deaf
        } else {
            cx
        };
        let ready = Service::<Request<Body>>::poll_ready(&mut self.inner, cx);
        self.ready = matches!(ready, Poll::Ready(Ok(())));
        ready.map_err(|error| self.flaw.error(error))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.ready = false;
        let (flaw, permit) = (self.flaw, self.permit.take());
        let running = self.inner.call(request);
        let mut held = Held { permit, flaw };
        Box::pin(async move {
            let response = running.await.map_err(|error| flaw.error(error));
            let permit = held.permit.take();
            let mut response = response?;
            if flaw == Flaw::Buffers {
                use http_body_util::BodyExt as _;
                let bytes = response.into_body().collect().await?.to_bytes();
                response = Response::new(Body::from(bytes));
            }
            let guard = Held { permit, flaw };
            Ok(response.map(|body| Wrapped {
                body: GuardedBody::new(body, guard),
                flaw,
            }))
        })
    }
}

impl Flaw {
    fn error(self, error: Error) -> Error {
        if self == Self::ChangesErrors {
            Error::new(ErrorKind::Unknown)
        } else {
            error
        }
    }
}

pub(crate) struct Held {
    permit: Option<Arc<Permit>>,
    flaw: Flaw,
}

impl mesh_core::EndGuard for Held {
    fn on_end(&mut self, end: mesh_core::StreamEnd) {
        if self.flaw == Flaw::LeaksBody && end == mesh_core::StreamEnd::Dropped {
            std::mem::forget(self.permit.take());
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.flaw == Flaw::LeaksFuture {
            std::mem::forget(self.permit.take());
        }
    }
}

pub(crate) struct Wrapped {
    body: GuardedBody<Body, Held>,
    flaw: Flaw,
}

impl HttpBody for Wrapped {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        match frame {
            Poll::Ready(Some(Ok(frame)))
                if frame.is_trailers() && self.flaw == Flaw::DropsTrailers =>
            {
                Poll::Ready(None)
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.flaw != Flaw::ForgetsHints && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        if self.flaw == Flaw::ForgetsHints {
            http_body::SizeHint::default()
        } else {
            self.body.size_hint()
        }
    }
}
