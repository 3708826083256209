use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{HandshakeError, TlsSession};

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct TlsStream<IO> {
    inner: Box<tokio_rustls::TlsStream<IO>>,
    session: Arc<TlsSession>,
}

impl<IO> TlsStream<IO> {
    pub(crate) fn new(inner: tokio_rustls::TlsStream<IO>, session: TlsSession) -> Self {
        Self {
            inner: Box::new(inner),
            session: Arc::new(session),
        }
    }

    /// Who the peer is, and what was agreed.
    #[must_use]
    pub const fn session(&self) -> &Arc<TlsSession> {
        &self.session
    }

    /// The connection underneath.
    #[must_use]
    pub fn get_ref(&self) -> &IO {
        self.inner.get_ref().0
    }

    /// Whether decrypted bytes wait here that the connection underneath knows nothing of.
    #[must_use]
    pub fn wants_nothing(&self) -> bool {
        let (_, state) = self.inner.get_ref();
        !state.wants_write() && state.wants_read()
    }

    /// What an error of a read or write says about the handshake: in TLS 1.3 a server refuses a client's
    /// certificate only after the client has finished.
    #[must_use]
    pub fn late_refusal(&self, error: &io::Error) -> Option<HandshakeError> {
        HandshakeError::late(error, self.session.local.clone())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.inner).poll_shutdown(cx)
    }
}
