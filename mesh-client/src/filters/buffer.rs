//! `envoy.filters.http.buffer`: a request goes on when all of it is here, and not if it is too large.

use std::{
    future::{poll_fn, ready},
    pin::Pin,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use mesh_config::model::{BufferConfig, RouteFilterKind};
use mesh_core::{Body, BoxHttpService, Error, ErrorKind};
use tower_service::Service as _;

use super::{
    Place, RouteSource, is_tunnel,
    simple::{self, Answer, Handle, call_later},
};

pub(super) fn over(place: &Place<'_>, own: BufferConfig, next: BoxHttpService) -> BoxHttpService {
    let source = RouteSource::new(place, Arc::new(own), |_, says| match says {
        RouteFilterKind::Buffer(buffer) => Some(Arc::new(*buffer)),
        _ => None,
    });
    simple::over(Buffer, source, next)
}

#[derive(Clone)]
struct Buffer;

impl Handle for Buffer {
    type Policy = BufferConfig;

    fn handle(
        &self,
        policy: Arc<BufferConfig>,
        request: Request<Body>,
        next: &mut BoxHttpService,
    ) -> Answer {
        let max = usize::try_from(policy.max_request_bytes.get()).unwrap_or(usize::MAX);
        if let Some(bytes) = request.body().as_full() {
            if bytes.len() > max {
                return Box::pin(async { Err(ErrorKind::TooLarge.into()) });
            }
            return next.call(request);
        }
        if is_tunnel(&request) {
            return next.call(request);
        }
        let next = next.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let (bytes, trailers) = collect(body, max).await?;
            let length = HeaderValue::from(bytes.len());
            parts
                .headers
                .entry(header::CONTENT_LENGTH)
                .or_insert(length);
            let body = match trailers {
                None => Body::from(bytes),
                Some(trailers) => {
                    let bytes = Full::new(bytes).map_err(|never| match never {});
                    Body::new(bytes.with_trailers(ready(Some(Ok(trailers)))))
                }
            };
            call_later(next, Request::from_parts(parts, body)).await
        })
    }
}

/// All of a body, unless it is longer than `max`.
async fn collect(mut body: Body, max: usize) -> Result<(Bytes, Option<HeaderMap>), Error> {
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame?.into_data() {
            Ok(data) if data.len() > max - bytes.len() => return Err(ErrorKind::TooLarge.into()),
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((bytes.freeze(), trailers))
}
