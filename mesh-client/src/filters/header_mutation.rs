//! `envoy.filters.http.header_mutation`: headers that are changed at its place in the chain.

use std::sync::Arc;

use http::{Request, Response};
use mesh_config::model::{HeaderMutationConfig, RouteFilterKind};
use mesh_core::{Body, BoxHttpService, RequestInfo, clock};
use mesh_route::{Captured, MessageChanges};
use tower_service::Service as _;

use super::{
    OnLocalReply, Place, RouteSource,
    simple::{self, Answer, Handle},
};

/// The filter's own changes and those of all levels, in the order in which they are made.
type Levels = Vec<Arc<MessageChanges>>;

pub(super) fn over(
    place: &Place<'_>,
    own: &HeaderMutationConfig,
    next: BoxHttpService,
) -> BoxHttpService {
    simple::over(HeaderMutation, source(place, own), next)
}

fn source(place: &Place<'_>, own: &HeaderMutationConfig) -> RouteSource<Levels> {
    let first = Arc::new(vec![Arc::clone(&own.own)]);
    RouteSource::new(place, first, |_, says| match says {
        RouteFilterKind::HeaderMutation(levels) => {
            let mut all: Levels = levels.to_vec();
            if own.most_specific_wins {
                all.reverse();
            }
            all.insert(0, Arc::clone(&own.own));
            Some(Arc::new(all))
        }
        _ => None,
    })
}

pub(super) fn on_local_reply(
    place: &Place<'_>,
    own: &HeaderMutationConfig,
) -> Box<dyn OnLocalReply> {
    Box::new(source(place, own))
}

impl OnLocalReply for RouteSource<Levels> {
    /// Values that quote the request stay empty: it may never have come here.
    fn on_local_reply(&self, info: &RequestInfo, response: &mut Response<Body>) {
        let Some(levels) = self.policy_for(info) else {
            return;
        };
        let (mut parts, body) = std::mem::take(response).into_parts();
        for level in &*levels {
            level.apply_to_response(&mut parts, info, Captured::new(), clock::now());
        }
        *response = Response::from_parts(parts, body);
    }
}

#[derive(Clone)]
struct HeaderMutation;

impl Handle for HeaderMutation {
    type Policy = Levels;

    fn handle(
        &self,
        levels: Arc<Levels>,
        request: Request<Body>,
        next: &mut BoxHttpService,
    ) -> Answer {
        let Some(info) = RequestInfo::of(&request).cloned() else {
            return next.call(request);
        };
        let (mut parts, body) = request.into_parts();
        for level in &*levels {
            level.apply_to_request(&mut parts, &info);
        }
        let captured: Vec<Captured> = levels.iter().map(|level| level.capture(&parts)).collect();
        let answer = next.call(Request::from_parts(parts, body));
        Box::pin(async move {
            let (mut parts, body) = answer.await?.into_parts();
            for (level, captured) in levels.iter().zip(captured) {
                level.apply_to_response(&mut parts, &info, captured, clock::now());
            }
            Ok(Response::from_parts(parts, body))
        })
    }
}
