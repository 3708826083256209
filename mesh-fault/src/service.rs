use std::{
    num::NonZeroU64,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use mesh_core::{
    BoxError, Decision, Error, Mode, PolicySource, Reason, RequestInfo, ResponseFlag, Rng,
};
use tower_service::Service;

use crate::{
    FaultBody, FaultConfig, FaultStats, Faults, ResponseFuture,
    active::ActiveFault,
    error,
    future::{AbortLater, Disturbance},
    state,
};

/// Disturbs requests; see the [crate's page](crate).
///
/// It is as ready as the service inside. A request that waits gives back what it had reserved there, and
/// waits for readiness again when its time has come.
#[derive(Debug, Clone)]
pub struct Fault<S, P> {
    pub(crate) inner: S,
    pub(crate) source: P,
    pub(crate) rng: Rng,
    pub(crate) stats: FaultStats,
}

impl<S, P, B, C> Service<Request<B>> for Fault<S, P>
where
    S: Service<Request<B>, Response = Response<C>, Error: Into<BoxError>> + Clone,
    P: PolicySource<Request<B>, FaultConfig>,
    C: HttpBody<Data = Bytes>,
{
    type Response = Response<FaultBody<C>>;
    type Error = Error;
    type Future = ResponseFuture<S, B, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner
            .poll_ready(cx)
            .map_err(|error| Error::from_boxed(error.into()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let config = self.source.policy(&request);
        let Some(config) = config.filter(|config| config.applies_to(&request)) else {
            return ResponseFuture::pass(self.inner.call(request), Disturbance::none());
        };
        let mut faults = state::decide(&config, request.headers(), || self.rng.next_u64());
        if config.mode == Mode::Shadow && !faults.is_none() {
            self.stats.shadow_mode().inc();
            trace(&request, &faults, true);
            faults = Faults::default();
        }
        let active = self.claim(&config, &mut faults);
        if faults.is_none() {
            return ResponseFuture::pass(self.inner.call(request), Disturbance::none());
        }
        trace(&request, &faults, false);
        let disturbance = self.disturb(&request, active, faults.limit_kbps);
        let abort = config.abort.as_ref().zip(faults.abort);
        let abort = abort.map(|(abort, with)| AbortLater {
            error: error::abort(abort, with, request.headers()),
            stats: self.stats.clone(),
            info: RequestInfo::of(&request).cloned(),
        });
        let Some(delay) = faults.delay else {
            return match abort {
                Some(abort) => ResponseFuture::abort(abort.now()),
                None => ResponseFuture::pass(self.inner.call(request), disturbance),
            };
        };
        self.stats.delays_injected().inc();
        if let Some(info) = RequestInfo::of(&request) {
            info.flag(ResponseFlag::DelayInjected);
        }
        // The service that is ready goes, and with it what it has reserved.
        self.inner = self.inner.clone();
        ResponseFuture::delay(delay, self.inner.clone(), request, abort, disturbance)
    }
}

impl<S, P> Fault<S, P> {
    /// Takes one place among the active faults for all that the request shall meet; faults that find none
    /// do not happen.
    fn claim(&self, config: &FaultConfig, faults: &mut Faults) -> Option<ActiveFault> {
        let mut active = None;
        let mut claim = || {
            if active.is_none() {
                active = ActiveFault::claim(&self.stats, config.max_active_faults);
            }
            active.is_some()
        };
        faults.limit_kbps = faults.limit_kbps.filter(|_| claim());
        faults.delay = faults.delay.filter(|_| claim());
        faults.abort = faults.abort.filter(|_| claim());
        active
    }

    fn disturb<B>(
        &self,
        request: &Request<B>,
        active: Option<ActiveFault>,
        limit_kbps: Option<NonZeroU64>,
    ) -> Disturbance {
        if limit_kbps.is_some() {
            self.stats.response_rl_injected().inc();
        }
        Disturbance {
            active,
            limit_kbps,
            // What follows a tunnel's answer is no body.
            connect: *request.method() == Method::CONNECT,
        }
    }
}

fn trace<B>(request: &Request<B>, faults: &Faults, shadow: bool) {
    let Some(info): Option<&Arc<RequestInfo>> = RequestInfo::of(request) else {
        return;
    };
    let decide = |reason, number| {
        info.decide(Decision::new("fault", reason, number, 0).shadowed(shadow));
    };
    if let Some(limit) = faults.limit_kbps {
        decide(Reason::BandwidthLimited, limit.get());
    }
    if let Some(delay) = faults.delay {
        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        decide(Reason::DelayInjected, millis);
    }
    if let Some(abort) = faults.abort {
        let code = abort.grpc.unwrap_or_else(|| abort.status.as_u16().into());
        decide(Reason::AbortInjected, code.into());
    }
}
