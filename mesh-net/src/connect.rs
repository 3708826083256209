use std::{io, path::Path, sync::Arc, time::Duration};

use mesh_core::{Address, BoxFuture, Endpoint, Error, ErrorKind, Sent};
use tokio::net::{TcpStream, UnixStream};

use crate::Stream;

/// Opens connections to endpoints: the seam below a pool, where TLS takes its place.
pub trait Connect: Send + Sync + 'static {
    /// Connects to `endpoint`. The pool bounds the time, handshake included.
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>>;
}

/// Connects in the clear.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnector;

impl Connect for TcpConnector {
    fn connect(&self, endpoint: Arc<Endpoint>) -> BoxFuture<Result<Stream, Error>> {
        Box::pin(async move { connect(endpoint.address()).await })
    }
}

/// Connects to `address`, without a limit of time: see [`Connect`].
///
/// # Errors
/// [`ErrorKind::ConnectFailure`] with what the system said.
pub async fn connect(address: &Address) -> Result<Stream, Error> {
    let stream = match address {
        Address::Socket(address) => TcpStream::connect(*address).await.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }),
        Address::Unix(path) => unix(path).await,
    };
    stream.map_err(|error| {
        Error::new(ErrorKind::ConnectFailure)
            .with_sent(Sent::Nothing)
            .with_message(connect_error_text(&error))
            .with_source(error)
    })
}

/// `@name` is an abstract one.
async fn unix(path: &Path) -> io::Result<Stream> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let name = path.as_os_str().as_encoded_bytes();
    let stream = match name.strip_prefix(b"@") {
        Some(name) => {
            // A local socket connects or refuses at once.
            let address = net::SocketAddr::from_abstract_name(name)?;
            let stream = net::UnixStream::connect_addr(&address)?;
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)?
        }
        None => UnixStream::connect(path).await?,
    };
    Ok(Stream::Unix(stream))
}

/// As Envoy's `%UPSTREAM_TRANSPORT_FAILURE_REASON%` puts it.
fn connect_error_text(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(code) => {
            let text = io::Error::from_raw_os_error(code).to_string();
            text.split(" (os error")
                .next()
                .unwrap_or_default()
                .to_owned()
        }
        None => error.to_string(),
    };
    format!("delayed connect error: {text}")
}

/// How long connecting may take when nothing is said. Envoy: `Cluster.connect_timeout`.
pub const CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
