//! `envoy.filters.http.health_check`: whether this process wants traffic, and whether what is behind it
//! could serve it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use mesh_config::model::{HealthCheckConfig, HealthCheckMode};
use mesh_core::{Body, BoxHttpService, RequestInfo, ResponseFlag, clock, format::RequestView};
use tower_service::Service as _;

use super::{
    Place, RouteSource,
    simple::{self, Answer, Handle},
};
use crate::{Mesh, router::Local};

const IMMEDIATE_FAIL: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");
const CHECKED_CLUSTER: HeaderName =
    HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

pub(super) fn over(
    place: &Place<'_>,
    own: &Arc<HealthCheckConfig>,
    next: BoxHttpService,
) -> BoxHttpService {
    let source = RouteSource::new(place, Arc::clone(own), |_, _| None);
    let filter = HealthCheck {
        mesh: place.worker.mesh.clone(),
        remembered: Arc::default(),
    };
    simple::over(filter, source, next)
}

#[derive(Clone)]
struct HealthCheck {
    mesh: Mesh,
    /// What the upstream last answered, and when: one for each worker.
    remembered: Arc<Mutex<Option<(Instant, StatusCode)>>>,
}

impl Handle for HealthCheck {
    type Policy = HealthCheckConfig;

    fn handle(
        &self,
        config: Arc<HealthCheckConfig>,
        request: Request<Body>,
        next: &mut BoxHttpService,
    ) -> Answer {
        let view = RequestView::of(&request);
        let is_check = config
            .headers
            .iter()
            .all(|header| header.matches_request(&view));
        let failing = self.mesh.server_health().is_failing();
        if !is_check {
            let answer = next.call(request);
            if !failing {
                return answer;
            }
            // Whoever checks by watching ordinary answers learns it too.
            return Box::pin(async move {
                let mut response = answer.await?;
                let yes = HeaderValue::from_static("true");
                response.headers_mut().insert(IMMEDIATE_FAIL, yes);
                Ok(response)
            });
        }
        let info = RequestInfo::of(&request).cloned();
        if let Some(info) = &info {
            info.with(|facts| facts.health_check = true);
        }
        let verdict = if failing {
            Some((StatusCode::SERVICE_UNAVAILABLE, "health_check_failed"))
        } else {
            self.verdict(&config.mode)
        };
        let Some((status, details)) = verdict else {
            return self.pass(&config, next.call(request));
        };
        if let Some(info) = info {
            info.set_details(details);
            if !status.is_success() {
                info.flag(ResponseFlag::FailedLocalHealthCheck);
            }
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response.extensions_mut().insert(Local);
        mark(&config, &mut response);
        Box::pin(std::future::ready(Ok(response)))
    }
}

/// Says which service was checked.
fn mark(config: &HealthCheckConfig, response: &mut Response<Body>) {
    let cluster = config.node_cluster.as_deref().unwrap_or_default();
    if let Ok(cluster) = HeaderValue::from_str(cluster) {
        response.headers_mut().insert(CHECKED_CLUSTER, cluster);
    }
}

impl HealthCheck {
    /// What is answered here; `None`: the upstream is asked.
    fn verdict(&self, mode: &HealthCheckMode) -> Option<(StatusCode, &'static str)> {
        match mode {
            HealthCheckMode::PassThrough { cache_time } => {
                let status = self.recall((*cache_time)?)?;
                Some((status, "health_check_cached"))
            }
            HealthCheckMode::Answer {
                cluster_min_healthy_percentages,
            } => {
                let clusters = self.mesh.clusters();
                let mut details = "health_check_ok";
                for (name, least) in cluster_min_healthy_percentages {
                    details = "health_check_ok_cluster_healthy";
                    let unavailable = |details| Some((StatusCode::SERVICE_UNAVAILABLE, details));
                    let Some(cluster) = clusters.by_name.get(name) else {
                        return unavailable("health_check_failed_no_cluster_found");
                    };
                    let (total, usable) = cluster.membership();
                    // Envoy counts whole percents.
                    let least = least.get().floor();
                    if total == 0 && least > 0.0 {
                        return unavailable("health_check_failed_cluster_empty");
                    }
                    if 100.0 * (usable as f64) < (total as f64) * least {
                        return unavailable("health_check_failed_cluster_unhealthy");
                    }
                }
                Some((StatusCode::OK, details))
            }
        }
    }

    fn recall(&self, cache_time: Duration) -> Option<StatusCode> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (at, status) = (*remembered)?;
        (clock::now().saturating_duration_since(at) < cache_time).then_some(status)
    }

    fn pass(&self, config: &Arc<HealthCheckConfig>, answer: Answer) -> Answer {
        let (config, remembered) = (Arc::clone(config), Arc::clone(&self.remembered));
        Box::pin(async move {
            let mut response = answer.await?;
            if let HealthCheckMode::PassThrough {
                cache_time: Some(_),
            } = config.mode
            {
                let mut remembered = remembered.lock().unwrap_or_else(PoisonError::into_inner);
                *remembered = Some((clock::now(), response.status()));
            }
            mark(&config, &mut response);
            Ok(response)
        })
    }
}
