use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use mesh_core::{Body, BoxError, ErrorKind};
use tower_service::Service;

use super::{Laws, demand};
use crate::{Gate, Polled, Reply, ScriptedBody, Upstream, UpstreamService, call, ready};

impl<F, S, C> Laws<F>
where
    F: Fn(UpstreamService) -> S,
    S: Service<Request<Body>, Response = Response<C>, Error: Into<BoxError>> + Clone,
    C: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    pub(super) fn dropping_leaks_nothing(&self) -> Result<(), String> {
        self.dropping_services()?;
        self.dropping_futures()?;
        self.dropping_bodies()
    }

    fn at_rest(&self, before: u64, upstream: &Upstream, after: &str) -> Result<(), String> {
        let now = (self.in_use)();
        demand(
            now == before,
            format!("after {after}, {now} in use, not {before}"),
        )?;
        demand(
            upstream.in_flight() == 0 && upstream.open_bodies() == 0,
            format!("after {after}, the inner call or body still lives"),
        )
    }

    fn dropping_services(&self) -> Result<(), String> {
        let before = (self.in_use)();
        let (upstream, mut service) = self.fresh();
        let mut polled = Polled::new(ready(&mut service));
        demand(
            matches!(polled.run(), Poll::Ready(Ok(()))),
            "it is not ready",
        )?;
        drop(polled);
        drop(service);
        self.at_rest(before, &upstream, "dropping a ready service")
    }

    fn dropping_futures(&self) -> Result<(), String> {
        let before = (self.in_use)();
        let (upstream, mut service) = self.fresh();
        let gate = Gate::new();

        let mut polled = Polled::new(ready(&mut service));
        demand(
            matches!(polled.run(), Poll::Ready(Ok(()))),
            "it is not ready",
        )?;
        drop(polled);
        drop(service.call((self.request)()));
        self.at_rest(before, &upstream, "dropping a future that was never polled")?;

        upstream.reply(Reply::status(200).held(&gate));
        let mut running = Polled::new(call(&mut service, (self.request)()));
        demand(
            running.run().is_pending(),
            "a call ends before its inner call",
        )?;
        drop(running);
        self.at_rest(before, &upstream, "dropping a future mid-flight")?;

        upstream.reply(Reply::error(ErrorKind::DownstreamGone));
        let mut running = Polled::new(call(&mut service, (self.request)()));
        demand(
            running.run().is_ready(),
            "a call does not end with its inner call",
        )?;
        drop(running);
        self.at_rest(before, &upstream, "an error")
    }

    fn dropping_bodies(&self) -> Result<(), String> {
        let before = (self.in_use)();
        let two = || ScriptedBody::new().data("one").data("two");
        let (upstream, mut service) = self.fresh();
        // (the body, how many frames are read, what is done)
        let cases = [
            (two(), 0, "dropping a body unread"),
            (two().stall(), 1, "dropping a body mid-stream"),
            (two().silent(), 3, "reading a body to its end"),
            (
                two().fail(ErrorKind::RemoteReset),
                3,
                "the failure of a body",
            ),
            (
                two().trailers([("t", "1")]),
                3,
                "reading a body to its trailers",
            ),
        ];
        for (body, frames, what) in cases {
            upstream.reply(Reply::status(200).body(body));
            let mut running = Polled::new(call(&mut service, (self.request)()));
            let Poll::Ready(Ok(response)) = running.run() else {
                return Err("a streaming answer is held back".to_owned());
            };
            drop(running);
            let mut body = Box::pin(response.into_body());
            for _ in 0..frames {
                let frame = Polled::new(body.frame()).run();
                demand(frame.is_ready(), "a frame that is there is held back")?;
            }
            if frames == 3 {
                // At its end the body gives back what it holds, even while somebody keeps it.
                self.at_rest(before, &upstream, what)?;
            }
            drop(body);
            self.at_rest(before, &upstream, what)?;
        }
        Ok(())
    }
}
