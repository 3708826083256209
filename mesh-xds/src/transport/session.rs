use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use mesh_core::{Timer, clock};
use tonic::{Status, Streaming};

use crate::{
    ResourceType, Variant,
    server::{Connection, Payload, SnapshotCache},
    wire::{Node, Request},
};

/// How many requests are read before a response is written: the rest waits in the connection's window.
const REQUESTS_AT_ONCE_MAX: usize = 64;

/// One client's stream. It has no task and no queue of its own: it works when the connection can take
/// more, and then makes the response that is due at that moment.
pub(super) struct Session {
    requests: Streaming<Request>,
    ended: bool,
    cache: SnapshotCache,
    variant: Variant,
    only: Option<ResourceType>,
    /// Opened by the first request, which says who asks.
    connection: Option<Connection>,
    /// Whether that one may; it is asked once.
    admit: Option<Admit>,
    timer: Timer,
}

/// Whether a node is who it says it is.
pub(super) type Admit = Box<dyn FnOnce(&Node) -> Result<(), Status> + Send>;

impl Session {
    pub(super) const fn new(
        requests: Streaming<Request>,
        cache: SnapshotCache,
        (variant, only): (Variant, Option<ResourceType>),
        admit: Admit,
    ) -> Self {
        Self {
            requests,
            ended: false,
            cache,
            variant,
            only,
            connection: None,
            admit: Some(admit),
            timer: Timer::new(),
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..REQUESTS_AT_ONCE_MAX {
            match Pin::new(&mut self.requests).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    self.ended = true;
                    return Ok(());
                }
                Poll::Ready(Some(Err(status))) => return Err(status),
                Poll::Ready(Some(Ok(request))) => self.on_request(&request)?,
            }
        }
        // There is more: come back after what is due was written.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn on_request(&mut self, request: &Request) -> Result<(), Status> {
        if self.connection.is_none() {
            let node = request.node().cloned().ok_or_else(|| {
                Status::invalid_argument("the first request of a stream must have a node")
            })?;
            if let Some(admit) = self.admit.take() {
                admit(&node)?;
            }
            self.connection = Some(self.cache.connect(node, self.variant, self.only));
        }
        if let Some(connection) = &self.connection {
            connection.on_request(clock::now(), request);
        }
        Ok(())
    }
}

impl Stream for Session {
    type Item = Result<Payload, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Err(status) = this.read(cx) {
                this.connection = None;
                this.ended = true;
                return Poll::Ready(Some(Err(status)));
            }
            if this.ended {
                this.connection = None;
                return Poll::Ready(None);
            }
            let Some(connection) = &mut this.connection else {
                return Poll::Pending;
            };
            let (push, deadline) = connection.poll_push(clock::now(), cx);
            if let Some(push) = push {
                let payload = push.encode(connection.identifier());
                return Poll::Ready(Some(Ok(payload)));
            }
            this.timer.set(deadline);
            if this.timer.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
