use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use mesh_core::TlsFacts;

use crate::{listen::canonical, relay::Carrier};

/// A connection, whatever carries it.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// Encrypted, on one of the others.
    Tls(Box<mesh_tls::TlsStream<Self>>),
    /// One of the others, whose bytes somebody counts.
    Counted(Box<Counted>),
}

/// How many bytes a connection has carried, without those of its encryption.
#[derive(Debug, Default)]
pub struct ByteCounts {
    received: AtomicU64,
    sent: AtomicU64,
}

impl ByteCounts {
    /// From the peer.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// To the peer.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub struct Counted {
    stream: Stream,
    counts: Arc<ByteCounts>,
}

impl Counted {
    fn sent(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = written {
            // Relaxed: a number by itself.
            self.counts
                .sent
                .fetch_add(written as u64, Ordering::Relaxed);
        }
        written
    }
}

/// A connection that belongs to no runtime, on its way from one to another.
#[derive(Debug)]
pub enum DetachedStream {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl DetachedStream {
    /// Hands the connection to the current runtime.
    ///
    /// # Errors
    /// What the system says; then the connection is closed.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => Stream::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
        })
    }
}

impl Stream {
    /// The same, with its bytes counted in `counts` from now on.
    #[must_use]
    pub fn counted(self, counts: &Arc<ByteCounts>) -> Self {
        Self::Counted(Box::new(Counted {
            stream: self,
            counts: Arc::clone(counts),
        }))
    }

    /// Takes the connection from its runtime, before anything was read.
    ///
    /// # Errors
    /// What the system says, and where it is encrypted; then it is closed.
    pub fn detach(self) -> io::Result<DetachedStream> {
        match self {
            Self::Tcp(stream) => stream.into_std().map(DetachedStream::Tcp),
            Self::Unix(stream) => stream.into_std().map(DetachedStream::Unix),
            Self::Tls(_) | Self::Counted(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Our end, when it is an IP socket.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok().map(canonical),
            Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().local_addr(),
            Self::Counted(counted) => counted.stream.local_addr(),
        }
    }

    /// The other end, when it is an IP socket.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(canonical),
            Self::Unix(_) => None,
            Self::Tls(stream) => stream.get_ref().peer_addr(),
            Self::Counted(counted) => counted.stream.peer_addr(),
        }
    }

    /// What the handshake brought, when it is encrypted.
    #[must_use]
    pub fn tls_facts(&self) -> Option<Arc<dyn TlsFacts>> {
        match self {
            Self::Tls(stream) => Some(Arc::clone(stream.session()) as Arc<dyn TlsFacts>),
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Counted(counted) => counted.stream.tls_facts(),
        }
    }

    /// Waits until the peer has closed or reset the connection, whether or not what it sent before was read.
    ///
    /// # Cancel safety
    /// Reads nothing.
    pub async fn gone(&self) {
        let hung_up = |ready: tokio::io::Ready| ready.is_write_closed() || ready.is_error();
        let interest = Interest::ERROR;
        let ready = match self.bare() {
            Bare::Tcp(stream) => stream.ready(interest).await,
            Bare::Unix(stream) => stream.ready(interest).await,
        };
        match ready {
            Ok(ready) if !hung_up(ready) => std::future::pending().await,
            _ => {}
        }
    }

    /// What carries it, below any encryption.
    fn bare(&self) -> Bare<'_> {
        match self {
            Self::Tcp(stream) => Bare::Tcp(stream),
            Self::Unix(stream) => Bare::Unix(stream),
            Self::Tls(stream) => stream.get_ref().bare(),
            Self::Counted(counted) => counted.stream.bare(),
        }
    }

    /// Looks at what has arrived on the socket without taking it: waits until there are more than `known` bytes, and says how
    /// many of them are at the start of `bytes`. `None` when no more will come, or `bytes` is full.
    ///
    /// # Cancel safety
    /// Reads nothing.
    ///
    /// # Errors
    /// What the system says.
    pub async fn peek_beyond(&self, known: usize, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        if known >= bytes.len() {
            return Ok(None);
        }
        loop {
            let ready = match self.bare() {
                Bare::Tcp(stream) => stream.ready(Interest::READABLE).await?,
                Bare::Unix(stream) => stream.ready(Interest::READABLE).await?,
            };
            let mut look = || {
                let seen = self.peek(bytes)?;
                if seen > known || seen == 0 || ready.is_read_closed() {
                    return Ok(seen);
                }
                // Nothing new: the reactor is to wake us when there is.
                Err(io::ErrorKind::WouldBlock.into())
            };
            let seen = match self.bare() {
                Bare::Tcp(stream) => stream.try_io(Interest::READABLE, &mut look),
                Bare::Unix(stream) => stream.try_io(Interest::READABLE, &mut look),
            };
            match seen {
                Ok(seen) => return Ok(Some(seen).filter(|seen| *seen > known)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn peek(&self, bytes: &mut [u8]) -> io::Result<usize> {
        use rustix::net::{RecvFlags, recv};
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (seen, _) = match self.bare() {
            Bare::Tcp(stream) => recv(stream, bytes, flags)?,
            Bare::Unix(stream) => recv(stream, bytes, flags)?,
        };
        Ok(seen)
    }

    /// Where the client meant to go before the kernel redirected the connection to us, if it did.
    #[must_use]
    pub fn original_destination(&self) -> Option<SocketAddr> {
        let Bare::Tcp(stream) = self.bare() else {
            return None;
        };
        let socket = socket2::SockRef::from(stream);
        let local = stream.local_addr().ok()?;
        let v4 = local.ip().to_canonical().is_ipv4();
        let meant = if v4 {
            socket.original_dst_v4()
        } else {
            socket.original_dst_v6()
        };
        meant.ok()?.as_socket()
    }

    /// Closing will reset the connection, so that the peer takes nothing for an orderly end. A Unix socket
    /// knows no such end.
    pub fn reset_on_close(&self) {
        match self {
            // A socket that refuses has been reset by its peer already.
            Self::Tcp(stream) => drop(stream.set_zero_linger()),
            Self::Unix(_) => {}
            Self::Tls(stream) => stream.get_ref().reset_on_close(),
            Self::Counted(counted) => counted.stream.reset_on_close(),
        }
    }

    /// Asks the kernel, not the reactor, whether an idle connection is still open and silent.
    ///
    /// The reactor learns of a FIN only at its next turn; a request that must not be sent twice is worth
    /// the system call.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        use rustix::net::{RecvFlags, recv};
        let mut byte = [0u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let result = match self {
            Self::Tcp(stream) => recv(stream, &mut byte, flags),
            Self::Unix(stream) => recv(stream, &mut byte, flags),
            // Whatever is on its way, a session ticket even, is taken for an end: a new connection costs less
            // than a request that is sent twice.
            Self::Tls(stream) => return stream.wants_nothing() && stream.get_ref().is_quiet(),
            Self::Counted(counted) => return counted.stream.is_quiet(),
        };
        matches!(result, Err(rustix::io::Errno::AGAIN))
    }
}

/// A socket.
enum Bare<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
            Stream::Counted(counted) => {
                let $stream = &mut counted.stream;
                $call
            }
        }
    };
}

impl Carrier for Stream {
    fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Unix(_) | Self::Tls(_) | Self::Counted(_) => None,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Counted(counted) = self.as_mut().get_mut() {
            let before = buf.filled().len();
            let polled = Pin::new(&mut counted.stream).poll_read(cx, buf);
            let received = (buf.filled().len() - before) as u64;
            // Relaxed: a number by itself.
            counted
                .counts
                .received
                .fetch_add(received, Ordering::Relaxed);
            return polled;
        }
        each!(self, stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Self::Counted(counted) = self.as_mut().get_mut() {
            let written = Pin::new(&mut counted.stream).poll_write(cx, buf);
            return counted.sent(written);
        }
        each!(self, stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Self::Counted(counted) = self.as_mut().get_mut() {
            let written = Pin::new(&mut counted.stream).poll_write_vectored(cx, bufs);
            return counted.sent(written);
        }
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
