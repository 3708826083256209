//! The end of an accepting socket, at which nobody who was let in is thrown out.
//!
//! Closing a socket resets what the kernel has queued for it, so that is taken first; but whoever connects
//! between the last look and the close would be reset all the same. So the kernel is told before to let
//! nobody else in: over TCP, who knocks is not heard, tries again a second later, and then finds another socket
//! of the same address or is refused.

use std::{io, net::Shutdown, net::SocketAddr};

use socket2::{SockFilter, SockRef, Socket};
use tokio::net::{TcpStream, UnixStream};

use crate::{Listener, Stream, listen::canonical};

/// Drops what asks for a new connection: SYN without ACK, in the flags at byte 13 of the TCP header.
const NO_SYN: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // load the byte
    SockFilter::new(0x54, 0, 0, 0x12),     // keep SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02),     // only SYN?
    SockFilter::new(0x06, 0, 0, 0),        // then nothing of it,
    SockFilter::new(0x06, 0, 0, u32::MAX), // else all
];

/// A connection that was queued when its socket closed, and where it came from.
type Queued = (Stream, Option<SocketAddr>);

impl Listener {
    /// Lets nobody else in. What is queued stays so.
    ///
    /// # Errors
    /// What the system says; then those who come between the last look and the close are reset.
    pub fn refuse(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => SockRef::from(listener).attach_filter(&NO_SYN),
            Self::Unix(listener) => SockRef::from(listener).shutdown(Shutdown::Read),
        }
    }

    /// Closes the socket, and hands out what the kernel had queued until then.
    ///
    /// # Errors
    /// When the socket cannot be had back from the runtime.
    pub fn close(self) -> io::Result<Vec<Queued>> {
        let mut queued = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let socket = Socket::from(listener.into_std()?);
                while let Ok((stream, peer)) = socket.accept() {
                    // Failing to set the option costs latency, not correctness.
                    let _ = stream.set_tcp_nodelay(true);
                    stream.set_nonblocking(true)?;
                    let stream = TcpStream::from_std(stream.into())?;
                    queued.push((Stream::Tcp(stream), peer.as_socket().map(canonical)));
                }
            }
            Self::Unix(listener) => {
                let socket = Socket::from(listener.into_std()?);
                while let Ok((stream, _)) = socket.accept() {
                    stream.set_nonblocking(true)?;
                    let stream = UnixStream::from_std(stream.into())?;
                    queued.push((Stream::Unix(stream), None));
                }
            }
        }
        Ok(queued)
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use mesh_core::Address;
    use tokio::net::{TcpSocket, UnixStream};

    use crate::{BindOptions, Listener, bind};

    fn listen(address: &Address) -> (Listener, Address) {
        let socket = bind(address, 1, &BindOptions::default()).unwrap().remove(0);
        let local = socket.local_address().unwrap();
        (Listener::from_std(socket).unwrap(), local)
    }

    async fn connect(address: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.connect(address).await
    }

    #[tokio::test]
    async fn what_is_queued_is_handed_out_and_nobody_else_is_let_in() {
        let any = Address::Socket(([127, 0, 0, 1], 0).into());
        let (listener, local) = listen(&any);
        let Address::Socket(address) = local else {
            panic!("{local}");
        };
        let before = connect(address).await.unwrap();
        listener.refuse().unwrap();
        let after = connect(address);
        // Its first knock is not heard; the next one, a second later, finds a closed door.
        let unheard = Duration::from_millis(100);
        let mut after = std::pin::pin!(after);
        assert!(tokio::time::timeout(unheard, &mut after).await.is_err());
        let queued = listener.close().unwrap();
        assert_eq!(queued.len(), 1);
        assert_eq!(queued[0].1, Some(before.local_addr().unwrap()));
        let refused = after.await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_unix_socket_refuses_at_once() {
        let name = format!("@mesh-closing-{}", std::process::id());
        let (listener, _) = listen(&Address::Unix(name.into()));
        let address = format!("\0mesh-closing-{}", std::process::id());
        let before = UnixStream::connect(&address).await.unwrap();
        listener.refuse().unwrap();
        let refused = UnixStream::connect(&address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert_eq!(listener.close().unwrap().len(), 1);
        drop(before);
    }
}
