use std::{
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{BoxError, Error, ErrorKind};
use smallvec::SmallVec;

use super::request_error;

/// How many frames a replay buffer keeps. A body in more pieces is not kept, as if it were larger than
/// the buffer: the frames' own size is bounded by this.
pub const FRAMES_MAX: usize = 8192;

/// A client's body, and what was read of it, shared by the attempts of one request.
///
/// One attempt at a time pulls new frames from the client; a later one first reads what was kept. Nobody
/// pulls between attempts: the client is held back then.
pub(crate) struct Shared<B>(Mutex<State<B>>);

struct State<B> {
    /// `None` once it ended.
    body: Option<B>,
    end: Option<End>,
    frames: SmallVec<[Bytes; 2]>,
    trailers: Option<HeaderMap>,
    /// Bytes in `frames`.
    kept: u64,
    /// Bytes pulled from the client so far.
    pulled: u64,
    limit: u64,
    keeping: bool,
    overflowed: bool,
    readers: SmallVec<[ReaderState; 2]>,
    next_reader: u32,
    on_end: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Complete,
    Failed(ErrorKind),
}

struct ReaderState {
    id: u32,
    /// Frames read of those that are kept.
    position: usize,
    waker: Option<Waker>,
}

type Wakers = SmallVec<[Waker; 2]>;

impl<B> Shared<B> {
    /// Keeps at most `limit` bytes, or nothing on `None`.
    pub(super) fn new(body: B, limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            body: Some(body),
            end: None,
            frames: SmallVec::new(),
            trailers: None,
            kept: 0,
            pulled: 0,
            limit: limit.unwrap_or(0),
            keeping: limit.is_some(),
            overflowed: false,
            readers: SmallVec::new(),
            next_reader: 0,
            on_end: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader that starts at the first byte.
    pub(super) fn reader(self: &Arc<Self>) -> (Reader<B>, u32) {
        let mut state = self.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.push(ReaderState {
            id,
            position: 0,
            waker: None,
        });
        drop(state);
        let reader = Reader {
            shared: Arc::clone(self),
            cursor: Cursor {
                id,
                read: 0,
                trailers_read: false,
            },
        };
        (reader, id)
    }

    /// Whether a new reader would see everything.
    pub(super) fn can_replay(&self) -> bool {
        self.lock().keeping
    }

    pub(super) fn overflowed(&self) -> bool {
        self.lock().overflowed
    }

    pub(super) fn pulled(&self) -> u64 {
        self.lock().pulled
    }

    /// Whether the client's body failed.
    pub(super) fn failed(&self) -> bool {
        matches!(self.lock().end, Some(End::Failed(_)))
    }

    /// Ready once the client's body ended.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.end.is_some() {
            return Poll::Ready(());
        }
        set_waker(&mut state.on_end, cx);
        Poll::Pending
    }

    /// The attempt of this reader is over: it gets no more, so that it takes nothing from the next one.
    pub(super) fn cut(&self, id: u32) {
        let mut state = self.lock();
        let mut wakers = Wakers::new();
        if let Some(at) = state.readers.iter().position(|reader| reader.id == id) {
            wakers.extend(state.readers.remove(at).waker);
        }
        // The client's body may hold the waker of the one that left.
        state.take_other_wakers(id, &mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// This reader's attempt was answered: there will be no other, and nothing more is kept.
    pub(super) fn settle_on(&self, id: u32) {
        let mut state = self.lock();
        state.keeping = false;
        let mut wakers = Wakers::new();
        state.readers.retain(|reader| {
            let stays = reader.id == id;
            if !stays {
                wakers.extend(reader.waker.take());
            }
            stays
        });
        // What the last reader has read, nobody will read again.
        match state.readers.first_mut() {
            Some(reader) => {
                let read = mem::take(&mut reader.position);
                state.frames.drain(..read);
            }
            None => state.frames = SmallVec::new(),
        }
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<B> State<B> {
    fn reader(&mut self, id: u32) -> Option<&mut ReaderState> {
        self.readers.iter_mut().find(|reader| reader.id == id)
    }

    fn take_other_wakers(&mut self, id: u32, wakers: &mut Wakers) {
        let others = self.readers.iter_mut().filter(|reader| reader.id != id);
        wakers.extend(others.filter_map(|reader| reader.waker.take()));
    }

    fn finish(&mut self, end: End, wakers: &mut Wakers) {
        self.body = None;
        self.end = Some(end);
        wakers.extend(self.on_end.take());
    }

    /// Keeps a frame for later readers, or gives up keeping.
    fn keep(&mut self, data: &Bytes) {
        let kept = self.kept + data.len() as u64;
        if kept > self.limit || self.frames.len() >= FRAMES_MAX {
            self.keeping = false;
            self.overflowed = true;
            self.frames = SmallVec::new();
            self.kept = 0;
        } else if !data.is_empty() {
            self.frames.push(data.clone());
            self.kept = kept;
        }
    }
}

impl<B> State<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<BoxError>,
{
    /// The next frame from the client.
    fn pull(
        &mut self,
        id: u32,
        cx: &mut Context<'_>,
        wakers: &mut Wakers,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(body) = self.body.as_mut() else {
            return Poll::Ready(None);
        };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
            return Poll::Pending;
        };
        let over = body.is_end_stream();
        self.take_other_wakers(id, wakers);
        let frame = match frame {
            None => {
                self.finish(End::Complete, wakers);
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                let error = request_error(error);
                self.finish(End::Failed(error.kind()), wakers);
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        if let Some(data) = frame.data_ref() {
            self.pulled += data.len() as u64;
            if self.keeping {
                self.keep(data);
            }
        } else if self.keeping {
            self.trailers = frame.trailers_ref().cloned();
        }
        if over || frame.is_trailers() {
            self.finish(End::Complete, wakers);
        }
        Poll::Ready(Some(Ok(frame)))
    }
}

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

/// One attempt's view of a [`Shared`] body.
pub(super) struct Reader<B> {
    shared: Arc<Shared<B>>,
    cursor: Cursor,
}

struct Cursor {
    id: u32,
    /// Bytes read.
    read: u64,
    trailers_read: bool,
}

impl<B> Reader<B>
where
    B: HttpBody + Unpin,
    B::Error: Into<BoxError>,
{
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.shared.lock();
        let mut wakers = Wakers::new();
        let frame = self.cursor.next(&mut state, cx, &mut wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
        frame
    }

    pub(super) fn is_end_stream(&self) -> bool {
        let mut state = self.shared.lock();
        let frames = state.frames.len();
        if state
            .reader(self.cursor.id)
            .is_none_or(|r| r.position < frames)
        {
            return false;
        }
        match (state.end, &state.body) {
            (Some(End::Complete), _) => self.cursor.trailers_read || state.trailers.is_none(),
            (None, Some(body)) => body.is_end_stream(),
            _ => false,
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.shared.lock();
        let kept = state.pulled.saturating_sub(self.cursor.read);
        let Some(body) = &state.body else {
            return SizeHint::with_exact(kept);
        };
        let rest = body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(kept));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl Cursor {
    fn next<B>(
        &mut self,
        state: &mut State<B>,
        cx: &mut Context<'_>,
        wakers: &mut Wakers,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>>
    where
        B: HttpBody + Unpin,
        B::Error: Into<BoxError>,
    {
        let keeping = state.keeping;
        let Some(reader) = state.readers.iter_mut().find(|r| r.id == self.id) else {
            let gone = Error::new(ErrorKind::LocalReset).with_message("the attempt was given up");
            return Poll::Ready(Some(Err(gone)));
        };
        if let Some(frame) = state.frames.get_mut(reader.position) {
            reader.position += 1;
            self.read += frame.len() as u64;
            // The last reader needs no copy for anybody else, and the memory goes with it.
            let data = if keeping {
                frame.clone()
            } else {
                mem::take(frame)
            };
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match state.end {
            Some(End::Failed(kind)) => return Poll::Ready(Some(Err(Error::new(kind)))),
            Some(End::Complete) => return Poll::Ready(self.kept_trailers(state)),
            None => {}
        }
        let frame = state.pull(self.id, cx, wakers);
        let position = state.frames.len();
        let reader = state.reader(self.id);
        match (&frame, reader) {
            (Poll::Pending, Some(reader)) => set_waker(&mut reader.waker, cx),
            (Poll::Ready(Some(Ok(frame))), Some(reader)) => {
                reader.position = position;
                self.read += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.trailers_read |= frame.is_trailers();
            }
            _ => {}
        }
        frame
    }

    fn kept_trailers<B>(&mut self, state: &State<B>) -> Option<Result<Frame<Bytes>, Error>> {
        if mem::replace(&mut self.trailers_read, true) {
            return None;
        }
        state.trailers.clone().map(|t| Ok(Frame::trailers(t)))
    }
}

impl<B> Drop for Reader<B> {
    fn drop(&mut self) {
        self.shared.cut(self.cursor.id);
    }
}
