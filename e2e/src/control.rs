//! Our control plane, on a thread of its own.

use std::{net::SocketAddr, thread::JoinHandle};

use anyhow::{Context, Result};
use mesh_xds::{server::SnapshotCache, transport::XdsService};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_stream::wrappers::TcpListenerStream;

/// A server that ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct Control {
    /// Where it serves.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Control {
    /// Serves `cache` on `address`, which may have port 0.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn start(cache: SnapshotCache, address: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind(address))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let service = XdsService::builder(cache).build();
        let serving = service.serve(TcpListenerStream::new(listener), async {
            // A sender that is gone means the same.
            let _ = stopped.await;
        });
        let thread = std::thread::Builder::new().spawn(move || {
            if let Err(error) = runtime.block_on(serving) {
                eprintln!("the server failed: {error}");
            }
        });
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread.context("starting the server's thread")?),
        })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }
}
