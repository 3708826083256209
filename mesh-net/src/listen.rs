use std::{
    ffi::OsStr,
    fmt, io,
    net::SocketAddr,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::Path,
    task::{Context, Poll},
};

use mesh_core::Address;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    Stream,
    option::{self, SocketOption, SocketState},
};

/// How accepting sockets are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindOptions {
    /// How many connections the kernel queues for a worker that has not accepted them yet; the system has a
    /// limit of its own (`net.core.somaxconn`). Envoy: `Listener.tcp_backlog_size`, 4096.
    pub backlog: u32,
    /// An IPv6 socket takes IPv4 connections too. Envoy: `SocketAddress.ipv4_compat`.
    pub ipv4_compat: bool,
    /// The address need not be one of this machine's yet. Envoy: `Listener.freebind`.
    pub freebind: bool,
    /// Connections to other addresses are accepted, as `iptables` hands them over; needs privileges. Envoy:
    /// `Listener.transparent`.
    pub transparent: bool,
    /// The permissions of a Unix socket's file; the process's own when absent. Envoy: `Pipe.mode`.
    pub mode: Option<u32>,
    /// Set on the sockets, in order. Envoy: `Listener.socket_options`, `tcp_fast_open_queue_length`,
    /// `tcp_keepalive`.
    pub options: Vec<SocketOption>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self {
            backlog: 4096,
            ipv4_compat: false,
            freebind: false,
            transparent: false,
            mode: None,
            options: Vec::new(),
        }
    }
}

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
pub fn bind(
    address: &Address,
    sockets: usize,
    options: &BindOptions,
) -> io::Result<Vec<BoundSocket>> {
    match address {
        Address::Socket(address) => {
            bind_tcp(*address, sockets, options).map_err(|e| named(address, &e))
        }
        Address::Unix(path) => bind_unix(path, options)
            .map(|s| vec![s])
            .map_err(|e| named(&path.display(), &e)),
    }
}

fn named(address: &dyn fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

fn bind_tcp(
    mut address: SocketAddr,
    sockets: usize,
    options: &BindOptions,
) -> io::Result<Vec<BoundSocket>> {
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
        if address.is_ipv6() {
            socket.set_only_v6(!options.ipv4_compat)?;
        }
        claim(&socket, address, options)?;
        let set = |state| option::apply(&socket, &options.options, state, Some(address.is_ipv6()));
        set(SocketState::Prebind)?;
        socket.bind(&address.into())?;
        set(SocketState::Bound)?;
        socket.listen(backlog(options))?;
        set(SocketState::Listening)?;
        let listener: std::net::TcpListener = socket.into();
        address = listener.local_addr()?;
        bound.push(BoundSocket::Tcp(listener));
    }
    Ok(bound)
}

/// Lets the socket have addresses that are not this machine's.
fn claim(socket: &Socket, address: SocketAddr, options: &BindOptions) -> io::Result<()> {
    let v4 = address.is_ipv4();
    match (options.freebind, v4) {
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
        (false, _) => {}
    }
    match (options.transparent, v4) {
        (true, true) => socket.set_ip_transparent_v4(true),
        (true, false) => socket.set_ip_transparent_v6(true),
        (false, _) => Ok(()),
    }
}

fn backlog(options: &BindOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn bind_unix(path: &Path, options: &BindOptions) -> io::Result<BoundSocket> {
    let name = path.as_os_str().as_encoded_bytes();
    let address = match name.strip_prefix(b"@") {
        Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()))?,
        None => {
            // A file that nobody answers at is left over from a process that was killed.
            if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
                std::fs::remove_file(path)?;
            }
            SockAddr::unix(path)?
        }
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let set = |state| option::apply(&socket, &options.options, state, None);
    set(SocketState::Prebind)?;
    socket.bind(&address)?;
    set(SocketState::Bound)?;
    permit(path, options)?;
    socket.listen(backlog(options))?;
    set(SocketState::Listening)?;
    Ok(BoundSocket::Unix(socket.into()))
}

/// Gives a Unix socket's file its permissions.
fn permit(path: &Path, options: &BindOptions) -> io::Result<()> {
    let is_file = !path.as_os_str().as_encoded_bytes().starts_with(b"@");
    match options.mode.filter(|_| is_file) {
        Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
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
            Self::Unix(listener) => {
                use std::os::linux::net::SocketAddrExt as _;
                let local = listener.local_addr()?;
                let name = local.as_abstract_name().map(String::from_utf8_lossy);
                let path = local.as_pathname().map(Path::to_owned);
                let path = path.or_else(|| Some(format!("@{}", name?).into()));
                Ok(Address::Unix(path.unwrap_or_default()))
            }
        }
    }
}

impl BoundSocket {
    /// Gives a Unix socket other options where it is: there is no second one of the same name. A mode that
    /// is no longer asked for stays, and so does the value of an option.
    ///
    /// # Errors
    /// What the system says; what came before the option that failed is set.
    pub fn change(&self, options: &BindOptions) -> io::Result<()> {
        let Self::Unix(listener) = self else {
            return Ok(());
        };
        let states = [
            SocketState::Prebind,
            SocketState::Bound,
            SocketState::Listening,
        ];
        states
            .into_iter()
            .try_for_each(|state| option::apply(listener, &options.options, state, None))?;
        rustix::net::listen(listener, backlog(options))?;
        match self.local_address()? {
            Address::Unix(path) => permit(&path, options),
            Address::Socket(_) => Ok(()),
        }
    }

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

/// An IPv4 address as such, also where an IPv6 socket tells it.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
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
                (Stream::Tcp(stream), Some(canonical(peer)))
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
