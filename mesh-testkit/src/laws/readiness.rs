use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{Body, BoxError, Error};
use tower_service::Service;

use super::{Laws, demand};
use crate::{Gate, Polled, Reply, UpstreamService, call, ready};

impl<F, S, C> Laws<F>
where
    F: Fn(UpstreamService) -> S,
    S: Service<Request<Body>, Response = Response<C>, Error: Into<BoxError>> + Clone,
    C: HttpBody<Data = Bytes, Error: Into<BoxError>>,
{
    pub(super) async fn calls_only_after_ready(&self) -> Result<(), String> {
        let (upstream, mut service) = self.fresh();
        for turn in 1..=3 {
            let result = call(&mut service, (self.request)()).await;
            demand(result.is_ok(), "a plain request fails")?;
            demand(
                upstream.unready_calls() == 0,
                format!("call {turn} reached an inner service that was not ready"),
            )?;
        }
        demand(upstream.count() == 3, "not every request arrived")
    }

    /// Polled ready twice and cloned when ready, each call still needs its own readiness.
    pub(super) fn clones_carry_nothing(&self) -> Result<(), String> {
        let at_rest = (self.in_use)();
        let (upstream, mut service) = self.fresh();
        let gate = Gate::new();
        upstream.script([
            Reply::status(200).held(&gate),
            Reply::status(200).held(&gate),
        ]);

        // How much one call holds.
        let mut first = Polled::new(call(&mut service, (self.request)()));
        demand(
            first.run().is_pending(),
            "a call ends before its inner call",
        )?;
        let one_call = (self.in_use)().wrapping_sub(at_rest);
        drop(first);

        let mut polled = Polled::new(ready(&mut service));
        demand(polled.run().is_ready(), "not ready although the inner is")?;
        drop(polled);
        let reserved = (self.in_use)();
        let mut clone = service.clone();
        demand(
            (self.in_use)() == reserved,
            "cloning a ready service changes what is in use",
        )?;
        let mut second = Polled::new(call(&mut clone, (self.request)()));
        demand(
            second.run().is_pending(),
            "a clone's call ends before its inner call",
        )?;
        demand(
            (self.in_use)() == reserved.wrapping_add(one_call),
            "a clone spends what its original has reserved",
        )?;
        drop(second);
        drop(clone);
        demand(
            (self.in_use)() == reserved,
            "dropping a clone changes what its original holds",
        )?;
        demand(
            upstream.unready_calls() == 0,
            "a clone calls as if it were ready",
        )?;
        drop(service);
        demand((self.in_use)() == at_rest, "something stays in use")
    }

    pub(super) fn pending_wakes(&self) -> Result<(), String> {
        self.readiness_wakes()?;
        let (upstream, mut service) = self.fresh();
        let gate = Gate::new();
        upstream.reply(Reply::status(200).held(&gate));
        let mut running = Polled::new(call(&mut service, (self.request)()));
        demand(
            running.run().is_pending(),
            "a call ends before its inner call",
        )?;
        gate.open();
        demand(
            running.is_woken(),
            "the inner future is ready and nobody is woken",
        )?;
        demand(
            matches!(running.run(), Poll::Ready(Ok(_))),
            "a call does not end although its inner call did",
        )
    }

    /// An inner service that is not ready holds up `poll_ready` or the future, and wakes it.
    fn readiness_wakes(&self) -> Result<(), String> {
        let (upstream, mut service) = self.fresh();
        upstream.set_ready(false);
        let mut running = Polled::new(call(&mut service, (self.request)()));
        demand(
            running.run().is_pending() && upstream.count() == 0,
            "a call goes through although the inner service is not ready",
        )?;
        upstream.set_ready(true);
        demand(
            running.is_woken(),
            "the inner service is ready and nobody is woken",
        )?;
        demand(
            matches!(running.run(), Poll::Ready(Ok(_))),
            "a call does not end although the inner service is ready",
        )?;
        demand(
            upstream.unready_calls() == 0,
            "after waiting, the inner service is called without readiness",
        )
    }

    pub(super) async fn errors_pass(&self) -> Result<(), String> {
        let (upstream, mut service) = self.fresh();
        upstream.reply(Reply::error(self.error));
        self.is_the_error(call(&mut service, (self.request)()).await.err(), "call")?;
        let (upstream, mut service) = self.fresh();
        upstream.fail_ready(Some(self.error));
        self.is_the_error(
            call(&mut service, (self.request)()).await.err(),
            "poll_ready",
        )
    }

    fn is_the_error(&self, error: Option<S::Error>, from: &str) -> Result<(), String> {
        match error.map(|error| Error::from_boxed(error.into())) {
            None => Err(format!("an error of the inner {from} is lost")),
            Some(error) if error.kind() != self.error => Err(format!(
                "an error of the inner {from} turns from {:?} into {:?}",
                self.error,
                error.kind()
            )),
            Some(_) => Ok(()),
        }
    }
}
