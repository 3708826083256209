//! The rest of a request whose answer has begun.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::AbortHandle,
};

use super::{Exchange, Return, TunnelState};

/// An exchange whose request is sent by a task of its own.
pub(super) struct Uploading<IO, R> {
    exchange: Arc<Mutex<Exchange<IO, R>>>,
    task: AbortHandle,
}

impl<IO, R> Uploading<IO, R> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Exchange<IO, R>> {
        lock(&self.exchange)
    }
}

fn lock<IO, R>(exchange: &Mutex<Exchange<IO, R>>) -> MutexGuard<'_, Exchange<IO, R>> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<IO, R> Uploading<IO, R>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    R: Return<IO> + Send + 'static,
{
    pub(super) fn spawn(exchange: Exchange<IO, R>) -> Self {
        let exchange = Arc::new(Mutex::new(exchange));
        let sender = Arc::clone(&exchange);
        let task = tokio::spawn(poll_fn(move |cx| lock(&sender).poll_upload(cx)));
        Self {
            exchange,
            task: task.abort_handle(),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin, R: Return<IO>> Exchange<IO, R> {
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Err(error) = self.poll_send(cx) {
            self.upload_error = Some(error);
            self.connection = None;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
            return Poll::Ready(());
        }
        if self.connection.is_some() && !self.is_upload_over() {
            return Poll::Pending;
        }
        if self.tunnel == TunnelState::Granted {
            ready!(self.poll_half_close(cx));
        }
        Poll::Ready(())
    }

    /// The client will send no more, and the upstream hears of it. The tunnel lasts until that closes too.
    fn poll_half_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(connection) = &mut self.connection {
            // A stream that cannot be closed is closed already.
            let _ = ready!(Pin::new(&mut connection.io).poll_shutdown(cx));
        }
        if self.decoder.is_done() {
            self.end_tunnel();
        }
        Poll::Ready(())
    }

    /// Both ends have closed.
    pub(super) fn end_tunnel(&mut self) {
        self.connection = None;
        if let Some(lease) = self.lease.take() {
            lease.give_back(None);
        }
    }
}

impl<IO, R> Drop for Uploading<IO, R> {
    fn drop(&mut self) {
        let mut exchange = self.lock();
        // An upstream that has closed its side may still read what the client has to say.
        if exchange.tunnel == TunnelState::Granted && exchange.decoder.is_done() {
            return;
        }
        self.task.abort();
        // Closed outside the lock: a closing connection locks its pool.
        let connection = exchange.connection.take();
        drop(exchange);
        drop(connection);
    }
}
