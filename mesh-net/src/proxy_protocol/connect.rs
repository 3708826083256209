use std::{io, sync::Arc};

use mesh_core::{BoxFuture, Endpoint, Error, ErrorKind, Sent};
use tokio::io::AsyncWriteExt as _;

use super::{ProxyHeader, ProxyVersion};
use crate::{Connect, Stream};

/// Connects, and says who is behind the connection before anything else.
///
/// Such a connection is one client's: nobody else may use it.
///
/// # Envoy
/// `envoy.transport_sockets.upstream_proxy_protocol`.
#[derive(Clone)]
pub struct ProxyConnector {
    inner: Arc<dyn Connect>,
    version: ProxyVersion,
    header: Option<Arc<ProxyHeader>>,
}

impl ProxyConnector {
    /// Without a `header`, connections are our own: as in Envoy, version 2 says so, and version 1 names both
    /// ends of the socket.
    #[must_use]
    pub fn new(
        inner: Arc<dyn Connect>,
        version: ProxyVersion,
        header: Option<ProxyHeader>,
    ) -> Self {
        Self {
            inner,
            version,
            header: header.map(Arc::new),
        }
    }
}

impl Connect for ProxyConnector {
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        let connecting = self.inner.connect(endpoint);
        let Self {
            version, header, ..
        } = self.clone();
        Box::pin(async move {
            let mut stream = connecting.await?;
            let bytes = match header {
                Some(header) => header.encode(version),
                None => own(&stream, version).encode(version),
            };
            match stream.write_all(&bytes).await {
                Ok(()) => Ok(stream),
                Err(error) => Err(failed(error)),
            }
        })
    }
}

fn own(stream: &Stream, version: ProxyVersion) -> ProxyHeader {
    let ends = stream.local_addr().zip(stream.peer_addr());
    match (version, ends) {
        (ProxyVersion::V1, Some((local, peer))) => ProxyHeader::new(local, peer),
        _ => ProxyHeader::local(),
    }
}

fn failed(error: io::Error) -> Error {
    Error::new(ErrorKind::ConnectFailure)
        .with_sent(Sent::Nothing)
        .with_message(format!("writing the PROXY protocol header: {error}"))
        .with_source(error)
}
