use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
};

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use mesh_core::{Body, Error, ErrorKind};
use mesh_testkit::{Gate, ScriptedBody};

use super::{FRAMES_MAX, ReplayBody, Source, Wanted};

const LIMIT: Wanted = Wanted {
    replay_limit: Some(16),
    end: false,
};

type Scripted = ReplayBody<ScriptedBody>;

async fn text(body: Scripted) -> String {
    let bytes = body.collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn next(body: &mut Scripted) -> Result<String, ErrorKind> {
    match body.frame().await {
        None => Ok("end".to_owned()),
        Some(Err(error)) => Err(error.kind()),
        Some(Ok(frame)) => Ok(match frame.into_data() {
            Ok(data) => String::from_utf8(data.to_vec()).unwrap(),
            Err(frame) => format!("{:?}", frame.into_trailers().unwrap()),
        }),
    }
}

fn poll(body: &mut Scripted, cx: &mut Context<'_>) -> bool {
    Pin::new(body).poll_frame(cx).is_ready()
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn replays_data_and_trailers() {
    let body = ScriptedBody::new()
        .data("ab")
        .data("cd")
        .trailers([("x-sum", "1")]);
    let (source, first, _) = Source::new(body, LIMIT);
    let collected = first.collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
    let collected = source.body().0.collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "1");
    assert_eq!(collected.to_bytes(), "abcd");
}

#[tokio::test]
async fn a_second_attempt_reads_what_was_kept_and_goes_on_with_the_stream() {
    let gate = Gate::new();
    let body = ScriptedBody::new().data("ab").wait(&gate).data("cd");
    let (source, mut first, reader) = Source::new(body, LIMIT);
    assert_eq!(next(&mut first).await, Ok("ab".to_owned()));
    source.cut(reader);
    assert_eq!(next(&mut first).await, Err(ErrorKind::LocalReset));

    let (mut second, _) = source.body();
    assert_eq!(next(&mut second).await, Ok("ab".to_owned()));
    assert!(!second.is_end_stream());
    gate.open();
    assert_eq!(next(&mut second).await, Ok("cd".to_owned()));
    assert!(second.is_end_stream());
    assert_eq!(text(source.body().0).await, "abcd");
}

#[tokio::test]
async fn more_than_the_limit_is_passed_on_and_no_longer_kept() {
    let body = ScriptedBody::new()
        .data("0123456789")
        .data("0123456789")
        .silent();
    let (source, mut first, _) = Source::new(body, LIMIT);
    assert_eq!(next(&mut first).await, Ok("0123456789".to_owned()));
    assert!(source.can_replay() && !source.overflowed());
    assert_eq!(next(&mut first).await, Ok("0123456789".to_owned()));
    assert!(!source.can_replay() && source.overflowed());
    assert_eq!(next(&mut first).await, Ok("end".to_owned()));
}

#[tokio::test]
async fn exactly_the_limit_is_kept() {
    let body = ScriptedBody::new().data("01234567").data("01234567");
    let (source, first, _) = Source::new(body, LIMIT);
    assert_eq!(text(first).await.len(), 16);
    assert!(source.can_replay());
}

#[test]
fn a_body_known_to_be_too_long_is_not_kept_at_all() {
    let body = ScriptedBody::new().data("01234567012345678");
    let (source, first, _) = Source::new(body, LIMIT);
    assert!(matches!(source, Source::Gone));
    assert_eq!(first.size_hint().exact(), Some(17));
}

#[tokio::test]
async fn a_limit_of_zero_keeps_only_empty_bodies() {
    let zero = Wanted {
        replay_limit: Some(0),
        end: false,
    };
    assert!(Source::new(ScriptedBody::new(), zero).0.can_replay());
    assert!(!Source::new(Body::from("a"), zero).0.can_replay());
    let (source, first, _) = Source::new(ScriptedBody::new().data("a").silent(), zero);
    assert_eq!(text(first).await, "a");
    assert!(!source.can_replay());
}

#[test]
fn empty_and_in_memory_bodies_need_no_shared_state() {
    let (source, first, _) = Source::new(Body::empty(), LIMIT);
    assert!(matches!(source, Source::Empty) && first.is_end_stream());
    let bytes = Bytes::from_static(b"hello");
    let (source, first, _) = Source::new(Body::from(bytes.clone()), LIMIT);
    let Source::Full(kept) = &source else {
        panic!("should be in memory")
    };
    assert_eq!(kept.as_ptr(), bytes.as_ptr());
    let back = first.into_body();
    assert_eq!(back.as_full().unwrap().as_ptr(), bytes.as_ptr());
}

#[tokio::test]
async fn length_and_end_are_known_as_far_as_the_client_tells() {
    let (source, mut first, _) = Source::new(Full::new(Bytes::from("hello")), LIMIT);
    assert_eq!(first.size_hint().exact(), Some(5));
    first.frame().await.unwrap().unwrap();
    assert!(first.is_end_stream());
    assert_eq!(first.size_hint().exact(), Some(0));
    let (second, _) = source.body();
    assert_eq!(second.size_hint().exact(), Some(5));
    assert!(!second.is_end_stream());
}

#[tokio::test]
async fn length_stays_right_after_an_overflow() {
    let body = ScriptedBody::new()
        .data("0123456789")
        .data("0123456789")
        .data("01");
    let wanted = Wanted {
        replay_limit: Some(16),
        end: true,
    };
    let (_, mut first, _) = Source::new(body, wanted);
    for left in [22, 12, 2, 0] {
        assert_eq!(first.size_hint().exact(), Some(left));
        let _ = next(&mut first).await;
    }
}

#[tokio::test]
async fn a_failure_of_the_client_is_remembered() {
    let body = ScriptedBody::new()
        .data("a")
        .fail(ErrorKind::DownstreamGone);
    let (source, mut first, _) = Source::new(body, LIMIT);
    next(&mut first).await.unwrap();
    assert!(!source.failed());
    assert_eq!(next(&mut first).await, Err(ErrorKind::DownstreamGone));
    assert!(source.failed());
    let (mut second, _) = source.body();
    assert_eq!(next(&mut second).await, Ok("a".to_owned()));
    assert_eq!(next(&mut second).await, Err(ErrorKind::DownstreamGone));
}

#[tokio::test]
async fn a_foreign_error_of_the_client_is_not_blamed_on_the_upstream() {
    let failing = http_body_util::StreamBody::new(futures_util::stream::iter([Err::<
        http_body::Frame<Bytes>,
        _,
    >(
        std::io::Error::from(std::io::ErrorKind::ConnectionReset),
    )]));
    let error: Error = ReplayBody::once(failing).collect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DownstreamGone);
}

#[test]
fn the_end_wakes_whoever_waits_for_it() {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let wanted = Wanted {
        replay_limit: None,
        end: true,
    };
    let (source, mut first, _) = Source::new(ScriptedBody::new().data("a").silent(), wanted);
    let mut idle = Context::from_waker(Waker::noop());
    assert!(source.poll_ended(&cx).is_pending());
    assert!(poll(&mut first, &mut idle));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    assert!(poll(&mut first, &mut idle));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert!(source.poll_ended(&cx).is_ready());
    assert!(!source.can_replay());
    let _ = &mut cx;
}

#[test]
fn a_reader_that_waits_is_woken_when_another_took_the_frame_or_left() {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut other = Context::from_waker(Waker::noop());
    let gate = Gate::new();
    let body = ScriptedBody::new().wait(&gate).data("a").stall();
    let (source, mut first, _) = Source::new(body, LIMIT);
    let (mut second, _) = source.body();
    assert!(!poll(&mut first, &mut cx));
    // The client's body now holds only the second reader's waker.
    assert!(!poll(&mut second, &mut other));
    gate.open();
    let before = wakes.0.load(Ordering::Relaxed);
    assert!(poll(&mut second, &mut other));
    assert_eq!(wakes.0.load(Ordering::Relaxed), before + 1);
    assert!(poll(&mut first, &mut cx));

    assert!(!poll(&mut first, &mut cx));
    assert!(!poll(&mut second, &mut other));
    drop(second);
    assert_eq!(wakes.0.load(Ordering::Relaxed), before + 2);
}

#[tokio::test]
async fn once_an_attempt_is_answered_it_streams_on_and_nothing_is_kept() {
    let gate = Gate::new();
    let body = ScriptedBody::new()
        .data("ab")
        .data("cd")
        .wait(&gate)
        .data("ef")
        .trailers([("x-sum", "1")])
        .silent();
    let (source, mut first, reader) = Source::new(body, LIMIT);
    next(&mut first).await.unwrap();
    next(&mut first).await.unwrap();
    source.cut(reader);
    let (mut second, reader) = source.body();
    assert_eq!(next(&mut second).await, Ok("ab".to_owned()));
    source.settle_on(reader);
    assert!(!source.can_replay() && !source.overflowed());
    assert_eq!(next(&mut second).await, Ok("cd".to_owned()));
    gate.open();
    assert_eq!(next(&mut second).await, Ok("ef".to_owned()));
    assert_eq!(next(&mut second).await, Ok("{\"x-sum\": \"1\"}".to_owned()));
    assert_eq!(next(&mut second).await, Ok("end".to_owned()));
    assert!(second.is_end_stream());
}

#[tokio::test]
async fn a_body_in_too_many_pieces_is_not_kept() {
    for (pieces, kept) in [(FRAMES_MAX, true), (FRAMES_MAX + 1, false)] {
        let body = (0..pieces).fold(ScriptedBody::new(), |body, _| body.data("x"));
        let wanted = Wanted {
            replay_limit: Some(1 << 20),
            end: false,
        };
        let (source, first, _) = Source::new(body, wanted);
        assert_eq!(text(first).await.len(), pieces);
        assert_eq!(source.can_replay(), kept);
        assert_eq!(source.overflowed(), !kept);
    }
}
