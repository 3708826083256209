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

use super::{Connection, Exchange, Return, TunnelState};

/// An exchange whose request is sent by a task of its own.
pub(super) struct Uploading<IO, R> {
    exchange: Arc<Mutex<Exchange<IO, R>>>,
    task: AbortHandle,
}

/// A connection that has ended, and what the pool lent with it.
#[derive(Debug)]
pub(super) struct Over<IO, R> {
    connection: Option<Connection<IO>>,
    lease: Option<R>,
}

impl<IO, R> Uploading<IO, R> {
    pub(super) fn lock(&self) -> MutexGuard<'_, Exchange<IO, R>> {
        lock(&self.exchange)
    }
}

impl<IO, R: Return<IO>> Uploading<IO, R> {
    /// Does `work` with the exchange. A connection that ends by it is closed outside the lock: it locks its
    /// pool, and wakes whoever waits there.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Exchange<IO, R>) -> T) -> T {
        with(&self.exchange, work)
    }
}

fn with<IO, R: Return<IO>, T>(
    exchange: &Mutex<Exchange<IO, R>>,
    work: impl FnOnce(&mut Exchange<IO, R>) -> T,
) -> T {
    let (done, over) = {
        let mut exchange = lock(exchange);
        let done = work(&mut exchange);
        (done, exchange.over.take())
    };
    if let Some(over) = over {
        over.settle();
    }
    done
}

impl<IO, R: Return<IO>> Over<IO, R> {
    fn settle(self) {
        drop(self.connection);
        if let Some(lease) = self.lease {
            lease.give_back(None);
        }
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
        let task = tokio::spawn(poll_fn(move |cx| {
            with(&sender, |exchange| exchange.poll_upload(cx))
        }));
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
            self.over = Some(Over {
                connection: self.connection.take(),
                lease: None,
            });
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
        self.over = Some(Over {
            connection: self.connection.take(),
            lease: self.lease.take(),
        });
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
