//! What a TCP proxy does with a connection.

use std::sync::Arc;

use mesh_client::TcpProxy;
use mesh_core::ConnectionInfo;
use mesh_net::Stream;
use tokio::sync::watch;

use crate::drain::Phase;

/// Carries the connection until it ends, or its filter chain has to: nothing can be said to its peers, so
/// that it goes on for as long as the drain lasts.
pub(super) async fn serve(
    stream: Stream,
    info: Arc<ConnectionInfo>,
    proxy: &TcpProxy,
    mut phase: watch::Receiver<Phase>,
) {
    let over = async {
        if phase.wait_for(|phase| *phase == Phase::Over).await.is_err() {
            // Nobody is left to say so.
            std::future::pending::<()>().await;
        }
    };
    proxy.serve(stream, info, over).await;
}
