//! What a TCP proxy does with a connection.

use std::sync::Arc;

use mesh_client::TcpProxy;
use mesh_core::{ConnectionInfo, RequestInfo};
use mesh_net::Stream;
use tokio::sync::watch;

use crate::drain::Phase;

/// Carries the connection until it ends, or its filter chain has to: nothing can be said to its peers, so
/// that it goes on for as long as the drain lasts.
pub(super) async fn serve(
    stream: Stream,
    info: Arc<ConnectionInfo>,
    proxy: &TcpProxy,
    phase: watch::Receiver<Phase>,
) {
    proxy.serve(stream, info, over(phase)).await;
}

/// The same, noting in `info` what becomes of it.
pub(super) async fn serve_as(
    stream: Stream,
    info: &RequestInfo,
    proxy: &TcpProxy,
    phase: watch::Receiver<Phase>,
) {
    proxy.serve_as(stream, info, over(phase)).await;
}

async fn over(mut phase: watch::Receiver<Phase>) {
    if phase.wait_for(|phase| *phase == Phase::Over).await.is_err() {
        // Nobody is left to say so.
        std::future::pending::<()>().await;
    }
}
