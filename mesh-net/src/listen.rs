use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    task::{Context, Poll},
};

use mesh_core::Address;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::Stream;

/// How many connections the kernel queues for a worker that has not accepted them yet. Envoy:
/// `Listener.tcp_backlog_size`, which defaults to the system's largest.
const BACKLOG_MAX: i32 = 4096;

/// One accepting socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Why nothing could be accepted.
#[derive(Debug)]
pub enum AcceptError {
    /// The process or the system is out of file descriptors or memory: pause, do not spin.
    Exhausted(io::Error),
    /// This one connection failed before it was accepted.
    Connection(io::Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exhausted(error) => write!(f, "cannot accept for want of resources: {error}"),
            Self::Connection(error) => {
                write!(f, "a connection failed before it was accepted: {error}")
            }
        }
    }
}

impl std::error::Error for AcceptError {}

/// Opens `sockets` accepting sockets on one address, so that each worker has its own queue.
///
/// All of them carry `SO_REUSEPORT`; with port 0 the kernel chooses the port for the first and the others
/// follow. A Unix socket exists once; a stale file at its path is replaced. The sockets are standard ones,
/// not yet bound to a runtime: see [`Listener::from_std`].
///
/// # Errors
/// What the system says, with the address in front.
pub fn bind(address: &Address, sockets: usize) -> io::Result<Vec<BoundSocket>> {
    match address {
        Address::Socket(address) => bind_tcp(*address, sockets).map_err(|e| named(address, &e)),
        Address::Unix(path) => bind_unix(path.clone())
            .map(|s| vec![s])
            .map_err(|e| named(&path.display(), &e)),
    }
}

fn named(address: &dyn fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

fn bind_tcp(mut address: SocketAddr, sockets: usize) -> io::Result<Vec<BoundSocket>> {
    let mut bound = Vec::with_capacity(sockets);
    for _ in 0..sockets.max(1) {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG_MAX)?;
        let listener: std::net::TcpListener = socket.into();
        address = listener.local_addr()?;
        bound.push(BoundSocket::Tcp(listener));
    }
    Ok(bound)
}

fn bind_unix(path: PathBuf) -> io::Result<BoundSocket> {
    // A file that nobody answers at is left over from a process that was killed.
    if path.exists() && std::os::unix::net::UnixStream::connect(&path).is_err() {
        std::fs::remove_file(&path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(BoundSocket::Unix(listener))
}

/// An accepting socket that no runtime has taken yet.
#[derive(Debug)]
pub enum BoundSocket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl BoundSocket {
    /// Where it listens: the real port when port 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Address::Socket),
            Self::Unix(listener) => Ok(Address::Unix(
                listener
                    .local_addr()?
                    .as_pathname()
                    .unwrap_or_else(|| std::path::Path::new(""))
                    .into(),
            )),
        }
    }
}

impl BoundSocket {
    /// Another handle to the same socket and its queue.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

impl Listener {
    /// Hands the socket to the current runtime.
    ///
    /// # Errors
    /// What the system says.
    pub fn from_std(socket: BoundSocket) -> io::Result<Self> {
        Ok(match socket {
            BoundSocket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            BoundSocket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    /// Accepts the next connection.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// See [`AcceptError`]; the listener is good in either case.
    pub async fn accept(&self) -> Result<(Stream, Option<SocketAddr>), AcceptError> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`Listener::accept`], polled.
    pub fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(Stream, Option<SocketAddr>), AcceptError>> {
        let accepted = match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                // Failing to set the option costs latency, not correctness.
                let _ = stream.set_nodelay(true);
                (Stream::Tcp(stream), Some(peer))
            }),
            Self::Unix(listener) => listener
                .poll_accept(cx)
                .map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        };
        accepted.map_err(|error| {
            match error
                .raw_os_error()
                .map(rustix::io::Errno::from_raw_os_error)
            {
                Some(
                    rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOBUFS
                    | rustix::io::Errno::NOMEM,
                ) => AcceptError::Exhausted(error),
                _ => AcceptError::Connection(error),
            }
        })
    }
}
