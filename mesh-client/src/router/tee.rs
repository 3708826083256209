//! One body that several readers get: the first sets the pace, the others may lag behind, within a bound.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use mesh_core::{Body, Error, ErrorKind};
use smallvec::SmallVec;

/// What a waiting frame counts for beside its bytes, so that many tiny ones are bounded too.
const FRAME_BYTES: u64 = 64;

/// The body that the live request goes on with. It is read at the live request's pace, whoever else wants a
/// copy; one that is dropped before its end fails its copies.
pub(super) struct Tee {
    body: Body,
    copies: SmallVec<[Arc<Copied>; 2]>,
}

/// A copy in the making: what was read of the body and not yet of the copy.
pub(super) struct Copied(Mutex<State>);

#[derive(Default)]
struct State {
    frames: VecDeque<Piece>,
    /// Of `frames`, with what each counts for itself.
    bytes: u64,
    limit: u64,
    end: End,
    waker: Option<Waker>,
}

enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum End {
    #[default]
    Open,
    Complete,
    /// The body broke off.
    Broken,
    /// The copy fell behind by more than its limit.
    Cut,
}

impl Tee {
    pub(super) fn new(body: Body) -> Self {
        Self {
            body,
            copies: SmallVec::new(),
        }
    }

    /// Adds a copy that may be at most `limit` bytes behind.
    pub(super) fn copy(&mut self, limit: u64) -> Arc<Copied> {
        let copy = Arc::new(Copied(Mutex::new(State {
            limit,
            ..State::default()
        })));
        self.copies.push(Arc::clone(&copy));
        copy
    }

    /// A second body, where all of it is in memory and nobody copies it yet.
    pub(super) fn try_clone(&self) -> Option<Body> {
        self.body.try_clone()
    }

    /// The exact length of the body, where it is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// To the type of the seam; without copies nothing is wrapped.
    pub(super) fn into_body(mut self) -> Body {
        if self.copies.is_empty() {
            mem::take(&mut self.body)
        } else {
            Body::new(self)
        }
    }

    fn end(&mut self, end: End) {
        self.copies.drain(..).for_each(|copy| copy.end(end));
    }
}

impl HttpBody for Tee {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                // One that nobody reads any more is not filled.
                self.copies
                    .retain(|copy| Arc::strong_count(copy) > 1 && copy.push(frame));
                if self.body.is_end_stream() {
                    self.end(End::Complete);
                }
            }
            Some(Err(_)) => self.end(End::Broken),
            None => self.end(End::Complete),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.end(End::Broken);
    }
}

impl Copied {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a frame; `false` when it did not fit, and there is nothing more to give.
    fn push(&self, frame: &Frame<Bytes>) -> bool {
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return true,
        };
        let mut state = self.lock();
        if let Piece::Data(data) = &piece {
            state.bytes += data.len() as u64 + FRAME_BYTES;
        }
        if state.bytes <= state.limit.saturating_add(FRAME_BYTES) {
            state.frames.push_back(piece);
        } else {
            state.frames = VecDeque::new();
            state.end = End::Cut;
        }
        let (fits, waker) = (state.end == End::Open, state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        fits
    }

    fn end(&self, end: End) {
        let waker = {
            let mut state = self.lock();
            state.end = end;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nobody reads it any more: what is kept of it goes at once, not with the body's next frame.
    fn close(&self) {
        let mut state = self.lock();
        state.bytes = 0;
        let frames = mem::take(&mut state.frames);
        drop(state);
        drop(frames);
    }

    /// Whether it fell behind too far.
    pub(super) fn was_cut(&self) -> bool {
        self.lock().end == End::Cut
    }

    /// All bytes, if the body is complete and nothing of the copy was read: to be sent again. `None` when it
    /// is not, or when trailers would be lost.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let mut state = self.lock();
        if state.end != End::Complete {
            return None;
        }
        let mut data = Vec::with_capacity(state.frames.len());
        for piece in mem::take(&mut state.frames) {
            match piece {
                Piece::Data(bytes) => data.push(bytes),
                Piece::Trailers(_) => return None,
            }
        }
        match data.as_slice() {
            [one] => Some(one.clone()),
            many => Some(many.concat().into()),
        }
    }
}

/// The reader's end of a copy.
pub(super) struct CopyBody {
    copy: Arc<Copied>,
    /// What is left of the length, where that was known.
    length: Option<u64>,
    on_cut: Box<dyn Fn() + Send>,
}

impl CopyBody {
    /// Of a body of that length; `on_cut` is told when the copy fell behind too far.
    pub(super) fn new(
        copy: Arc<Copied>,
        length: Option<u64>,
        on_cut: impl Fn() + Send + 'static,
    ) -> Self {
        Self {
            copy,
            length,
            on_cut: Box::new(on_cut),
        }
    }
}

impl Drop for CopyBody {
    fn drop(&mut self) {
        if self.copy.was_cut() {
            (self.on_cut)();
        }
        self.copy.close();
    }
}

impl HttpBody for CopyBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut state = self.copy.lock();
        if let Some(piece) = state.frames.pop_front() {
            let frame = match piece {
                Piece::Data(data) => {
                    state.bytes -= data.len() as u64 + FRAME_BYTES;
                    Frame::data(data)
                }
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            };
            drop(state);
            let read = frame.data_ref().map_or(0, Bytes::len) as u64;
            self.length = self.length.map(|length| length.saturating_sub(read));
            return Poll::Ready(Some(Ok(frame)));
        }
        let message = match state.end {
            End::Complete => return Poll::Ready(None),
            End::Open => {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            End::Broken => "the request broke off",
            End::Cut => "the mirror fell behind",
        };
        drop(state);
        let error = Error::new(ErrorKind::LocalReset).with_message(message);
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.copy.lock();
        state.end == End::Complete && state.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::{Context, Poll, Waker},
    };

    use bytes::Bytes;
    use http_body::{Body as HttpBody, Frame, SizeHint};
    use mesh_core::{Body, Error};

    use super::{CopyBody, FRAME_BYTES, Tee};

    /// Yields its texts, then ends.
    struct Texts(Vec<&'static str>);

    impl HttpBody for Texts {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            let next = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(next.map(|text| Ok(Frame::data(Bytes::from(text)))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.0.iter().map(|text| text.len() as u64).sum())
        }
    }

    /// What the next poll gives: bytes, `-` for nothing yet, `.` at the end, `!` for an error.
    fn next(body: &mut (impl HttpBody<Data = Bytes, Error = Error> + Unpin)) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Pending => "-".to_owned(),
            Poll::Ready(None) => ".".to_owned(),
            Poll::Ready(Some(Err(_))) => "!".to_owned(),
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                String::from_utf8(data.to_vec()).unwrap()
            }
        }
    }

    fn cuts() -> (Arc<AtomicUsize>, impl Fn() + Send + 'static) {
        let cuts = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&cuts);
        (cuts, move || {
            count.fetch_add(1, Ordering::Relaxed);
        })
    }

    #[test]
    fn a_copy_that_nobody_reads_any_more_holds_nothing() {
        let mut tee = Tee::new(Body::new(Texts(vec!["ab", "c"])));
        let copied = tee.copy(100);
        let copy = CopyBody::new(Arc::clone(&copied), None, || {});
        assert_eq!(next(&mut tee), "ab");
        assert_eq!(copied.lock().bytes, 2 + FRAME_BYTES);
        drop(copy);
        let state = copied.lock();
        assert_eq!((state.bytes, state.frames.len()), (0, 0));
    }

    #[test]
    fn a_copy_gets_everything_at_its_own_pace() {
        let mut tee = Tee::new(Body::new(Texts(vec!["ab", "c"])));
        let length = tee.length();
        let mut copy = CopyBody::new(tee.copy(100), length, || ());
        assert_eq!(copy.size_hint().exact(), Some(3));
        assert_eq!(next(&mut copy), "-");
        assert_eq!(
            (next(&mut tee), next(&mut copy)),
            ("ab".into(), "ab".into())
        );
        assert_eq!(copy.size_hint().exact(), Some(1));
        assert_eq!((next(&mut tee), next(&mut tee)), ("c".into(), ".".into()));
        drop(tee);
        assert_eq!((next(&mut copy), next(&mut copy)), ("c".into(), ".".into()));
    }

    #[test]
    fn a_copy_that_falls_behind_is_cut_off_and_the_others_go_on() {
        let mut tee = Tee::new(Body::new(Texts(vec!["abcd", "efgh", "i"])));
        let (count, on_cut) = cuts();
        let mut slow = CopyBody::new(tee.copy(4), None, on_cut);
        let (other, on_cut) = cuts();
        let mut good = CopyBody::new(tee.copy(2 * FRAME_BYTES + 9), None, on_cut);
        for text in ["abcd", "efgh", "i", "."] {
            assert_eq!(next(&mut tee), text, "the live request does not wait");
        }
        assert_eq!(next(&mut slow), "!");
        drop(slow);
        for text in ["abcd", "efgh", "i", "."] {
            assert_eq!(next(&mut good), text);
        }
        drop(good);
        assert_eq!(
            (count.load(Ordering::Relaxed), other.load(Ordering::Relaxed)),
            (1, 0)
        );
    }

    #[test]
    fn a_live_request_that_is_given_up_fails_its_copies() {
        let mut tee = Tee::new(Body::new(Texts(vec!["ab", "c"])));
        let mut copy = CopyBody::new(tee.copy(100), None, || ());
        next(&mut tee);
        drop(tee);
        assert_eq!(
            (next(&mut copy), next(&mut copy)),
            ("ab".into(), "!".into())
        );
    }

    #[test]
    fn only_a_complete_body_can_be_sent_again() {
        let mut tee = Tee::new(Body::new(Texts(vec!["ab", "c"])));
        let (whole, short) = (tee.copy(100), tee.copy(1));
        next(&mut tee);
        assert!(whole.whole().is_none());
        next(&mut tee);
        next(&mut tee);
        assert_eq!(whole.whole().as_deref(), Some(&b"abc"[..]));
        assert!(short.whole().is_none() && short.was_cut());
    }
}
