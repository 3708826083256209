//! The threads of an upstream: one accepts, one per connection plays the script.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use super::reply::{Action, Then};
use super::{Recorded, Reply, Shared, State, http2};
use crate::wait::Deadline;
use crate::wire::{Body, Framing, Head, Wire};

/// How long an upstream waits for its peer before it gives a connection up: longer than any test.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(120);

pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>, name: &str) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        let Ok(handle) = stream.try_clone() else {
            continue;
        };
        let number = shared.update(|state| {
            let number = state.connections;
            state.connections += 1;
            state.seen.accepted += 1;
            state.seen.open += 1;
            state.open.insert(number, handle);
            (!state.stopped).then_some(number)
        });
        let Some(number) = number else {
            return;
        };
        let served = Served {
            wire: Wire::new(stream),
            shared: Arc::clone(shared),
            name: name.to_owned(),
            number,
        };
        std::thread::spawn(move || served.run());
    }
}

/// One connection.
pub(super) struct Served {
    pub(super) wire: Wire,
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) number: usize,
}

/// Whether the connection goes on.
#[derive(PartialEq)]
enum Fate {
    Keep,
    End,
}

impl Served {
    fn run(mut self) {
        let (shared, number) = (Arc::clone(&self.shared), self.number);
        let mut position = 0;
        while let Ok(head) = self.wire.head(Deadline::after(IDLE_MAX)) {
            if head.start == http2::PREFACE_LINE && position == 0 {
                http2::serve(self);
                break;
            }
            let actions = self.record(&head, position);
            let fate = self.play(actions, &head, position);
            shared.update(|state| state.done_with(number, position));
            if fate == Fate::End {
                break;
            }
            position += 1;
        }
        shared.update(|state| {
            if state.open.remove(&number).is_some() {
                state.seen.open -= 1;
            }
        });
        // Dropping the last handle closes, or resets where the script asked for that.
    }

    /// Notes the request and looks up what to do about it.
    fn record(&self, head: &Head, position: usize) -> Vec<Action> {
        self.shared.update(|state| {
            state.seen.requests += 1;
            state.requests.push(Recorded {
                connection: self.number,
                position,
                head: head.clone(),
                body: Body::default(),
                complete: false,
                reset: None,
            });
            let reply = state.reply(head).unwrap_or_else(|| Reply::ok(&self.name));
            reply.into_actions()
        })
    }

    fn play(&mut self, actions: Vec<Action>, head: &Head, position: usize) -> Fate {
        let mut unread = head.framing() != Framing::Absent;
        for action in actions {
            match action {
                Action::ReadBody => {
                    unread = false;
                    if !self.read_body(head, position) {
                        return Fate::End;
                    }
                }
                Action::Await(word) => self.shared.await_word(&word),
                Action::Send(bytes) => {
                    if self.wire.write_all(&bytes).is_err() {
                        return Fate::End;
                    }
                }
                Action::Last(then) => {
                    self.end(then, unread);
                    return Fate::End;
                }
            }
        }
        if unread && !self.read_body(head, position) {
            return Fate::End;
        }
        Fate::Keep
    }

    fn end(&mut self, then: Then, unread: bool) {
        match then {
            Then::Close | Then::ResetStream(_) | Then::GoAway(..) => {}
            Then::Reset => {
                let socket = socket2::SockRef::from(self.wire.stream());
                let _ = socket.set_linger(Some(Duration::ZERO));
            }
            // Reading would open the peer's window; only its close is of interest.
            Then::Hang if unread => self.shared.await_word("never"),
            Then::Hang => {
                let _ = self.wire.to_end(Deadline::after(IDLE_MAX));
            }
            Then::Echo => {
                while let Ok(piece) = self.wire.some(Deadline::after(IDLE_MAX)) {
                    if self.wire.write_all(&piece).is_err() {
                        break;
                    }
                }
            }
        }
    }

    /// Reads the rest of the request; `false` when it never came.
    fn read_body(&mut self, head: &Head, position: usize) -> bool {
        let body = self.wire.body(head.framing(), Deadline::after(IDLE_MAX));
        let whole = body.end.is_none();
        self.shared.update(|state| {
            let mine = state
                .requests
                .iter_mut()
                .find(|r| r.connection == self.number && r.position == position);
            if let Some(request) = mine {
                request.complete = whole;
                request.body = body;
            }
        });
        whole
    }
}

impl Shared {
    pub(super) fn await_word(&self, word: &str) {
        let epoch = self.lock().epoch;
        let _ = self.wait(Deadline::after(IDLE_MAX), |state| {
            let over = state.epoch != epoch || state.stopped;
            (over || state.released.contains(word)).then_some(())
        });
    }
}

impl State {
    pub(super) fn reply(&mut self, head: &Head) -> Option<Reply> {
        let path = head.start.split(' ').nth(1).unwrap_or_default();
        let rule = self.rules.iter_mut().find(|r| path.starts_with(&r.path))?;
        let turn = rule.used.min(rule.replies.len().checked_sub(1)?);
        rule.used += 1;
        Some(rule.replies[turn].clone())
    }
}
