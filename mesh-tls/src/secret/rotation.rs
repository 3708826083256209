//! Which of several identities is served, as secrets come and go: pure, with `now` as an argument.
//!
//! ```text
//!   identity comes ──> held (newest first, at most HELD_MAX)
//!   trust comes ─────> the one it is held against
//!   time passes ─────> some begin, some end
//!                         │
//!                         v
//!   serving = the newest that is in its time and whose chain reaches the trust;
//!             else what is served now, while it is in its time;
//!             else, with a word of warning, what is served now although it ended
//! ```
//!
//! So a secret that is broken, expired, not yet valid or of an unknown issuer never replaces a good one, yet
//! gets its turn by itself when its time comes, or when the bundle that it needs arrives after it.

use std::time::SystemTime;

use crate::{SecretError, Validity};

/// So many identities are held; the oldest that is not served goes first.
pub const HELD_MAX: usize = 4;

/// An identity, as rotation sees it.
pub trait Held: Clone {
    /// What its chain has to reach.
    type Trust: Clone;

    /// When it may be used.
    fn validity(&self) -> Validity;

    /// Who it is, for errors.
    fn subject(&self) -> String;

    /// Whether its chain reaches `trust` at `now`.
    ///
    /// # Errors
    /// Why not.
    fn reaches(&self, trust: &Self::Trust, now: SystemTime) -> Result<(), String>;

    /// Whether `trust` itself is of use at `now`.
    ///
    /// # Errors
    /// Why not.
    fn check_trust(trust: &Self::Trust, now: SystemTime) -> Result<(), SecretError>;
}

/// Whether an identity has to reach the trust before it is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainPolicy {
    /// It has to: both come from one authority, as with SPIFFE.
    MustReachTrust,
    /// It need not: a server's own certificate and what it asks of its clients are two things.
    Free,
}

/// What an event did.
#[derive(Debug, Default)]
pub struct Change {
    /// Another identity is served from now on.
    pub identity: bool,
    /// Other anchors are trusted from now on.
    pub trust: bool,
    /// What came is not served now, and why. It may still get its turn.
    pub refused: Option<SecretError>,
}

/// How good the served identity is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is none.
    Nothing,
    /// It is in its time, and reaches the trust if it has to.
    Good,
    /// It is in its time, but its chain does not reach the trust any more.
    Untrusted,
    /// Its time is over, or has not come, and there is no better one.
    LastResort,
}

#[derive(Debug, Clone)]
struct Entry<I> {
    sequence: u64,
    identity: I,
}

/// The state machine.
#[derive(Debug, Clone)]
pub struct Rotation<I: Held> {
    policy: ChainPolicy,
    /// Newest first.
    held: Vec<Entry<I>>,
    serving: Option<u64>,
    standing: Standing,
    trust: Option<(u64, I::Trust)>,
}

impl<I: Held> Rotation<I> {
    /// Nothing is known yet.
    #[must_use]
    pub const fn new(policy: ChainPolicy) -> Self {
        Self {
            policy,
            held: Vec::new(),
            serving: None,
            standing: Standing::Nothing,
            trust: None,
        }
    }

    /// An identity came. `sequence` numbers what its source sends: what is late does not replace what is
    /// newer, but is kept for the case that the newer one ends first.
    pub fn on_identity(&mut self, now: SystemTime, sequence: u64, identity: I) -> Change {
        if self.held.iter().any(|entry| entry.sequence == sequence) {
            return Change::default();
        }
        let at = self.held.partition_point(|entry| entry.sequence > sequence);
        self.held.insert(at, Entry { sequence, identity });
        let identity = self.choose(now);
        let refused = if self.serving == Some(sequence) || at > 0 {
            None
        } else {
            self.fault(&self.held[at], now)
        };
        self.forget(now);
        Change {
            identity,
            trust: false,
            refused,
        }
    }

    /// Anchors came; late ones are passed over.
    pub fn on_trust(&mut self, now: SystemTime, sequence: u64, trust: I::Trust) -> Change {
        if self
            .trust
            .as_ref()
            .is_some_and(|(newest, _)| *newest >= sequence)
        {
            return Change::default();
        }
        let fault = I::check_trust(&trust, now).err();
        if fault.is_some() && self.trust.is_some() {
            return Change {
                refused: fault,
                ..Change::default()
            };
        }
        self.trust = Some((sequence, trust));
        Change {
            identity: self.choose(now),
            trust: true,
            refused: fault,
        }
    }

    /// Time passed.
    pub fn on_time(&mut self, now: SystemTime) -> Change {
        let identity = self.choose(now);
        self.forget(now);
        Change {
            identity,
            ..Change::default()
        }
    }

    /// What came last, served or not.
    #[must_use]
    pub fn newest(&self) -> Option<&I> {
        self.held.first().map(|entry| &entry.identity)
    }

    /// What is served.
    #[must_use]
    pub fn serving(&self) -> Option<&I> {
        let serving = self.serving?;
        let entry = self.held.iter().find(|entry| entry.sequence == serving);
        entry.map(|entry| &entry.identity)
    }

    /// How good that is, as of the last event.
    #[must_use]
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// What is trusted.
    #[must_use]
    pub fn trust(&self) -> Option<&I::Trust> {
        self.trust.as_ref().map(|(_, trust)| trust)
    }

    /// When [`on_time`](Self::on_time) has something to do, if ever.
    #[must_use]
    pub fn next_deadline(&self, now: SystemTime) -> Option<SystemTime> {
        let times = self.held.iter().flat_map(|entry| {
            let validity = entry.identity.validity();
            // An identity is good up to and at its end.
            let after = validity.not_after + std::time::Duration::from_secs(1);
            [validity.not_before, after]
        });
        times.filter(|time| *time > now).min()
    }

    /// Decides anew; whether the decision changed.
    fn choose(&mut self, now: SystemTime) -> bool {
        let before = self.serving;
        let in_time = |entry: &Entry<I>| entry.identity.validity().contains(now);
        let served = || {
            self.held
                .iter()
                .find(|entry| Some(entry.sequence) == before)
        };
        let ready = self
            .held
            .iter()
            .find(|entry| in_time(entry) && self.reaches(entry, now));
        let (chosen, standing) = if let Some(entry) = ready {
            (Some(entry), Standing::Good)
        } else if let Some(entry) = served().filter(|entry| in_time(entry)) {
            (Some(entry), Standing::Untrusted)
        } else if let Some(entry) = served() {
            (Some(entry), Standing::LastResort)
        } else if self.policy == ChainPolicy::Free && !self.held.is_empty() {
            // Nothing was ever served: an ended certificate tells peers more than a closed door.
            (self.held.first(), Standing::LastResort)
        } else {
            (None, Standing::Nothing)
        };
        self.serving = chosen.map(|entry| entry.sequence);
        self.standing = standing;
        self.serving != before
    }

    fn reaches(&self, entry: &Entry<I>, now: SystemTime) -> bool {
        match (self.policy, &self.trust) {
            (ChainPolicy::Free, _) => true,
            (ChainPolicy::MustReachTrust, None) => false,
            (ChainPolicy::MustReachTrust, Some((_, trust))) => {
                entry.identity.reaches(trust, now).is_ok()
            }
        }
    }

    /// Why an entry is not served.
    fn fault(&self, entry: &Entry<I>, now: SystemTime) -> Option<SecretError> {
        let validity = entry.identity.validity();
        let subject = entry.identity.subject();
        if now > validity.not_after {
            return Some(SecretError::Expired {
                subject,
                not_after: validity.not_after,
            });
        }
        if now < validity.not_before {
            return Some(SecretError::NotYetValid {
                subject,
                not_before: validity.not_before,
            });
        }
        let reason = match self.trust() {
            None => "there is none yet".to_owned(),
            Some(trust) => entry.identity.reaches(trust, now).err()?,
        };
        (self.policy == ChainPolicy::MustReachTrust)
            .then_some(SecretError::Chain { subject, reason })
    }

    /// Drops what ended, and the oldest of too many; never what is served.
    fn forget(&mut self, now: SystemTime) {
        let serving = self.serving;
        self.held.retain(|entry| {
            Some(entry.sequence) == serving || entry.identity.validity().not_after >= now
        });
        while self.held.len() > HELD_MAX {
            let oldest = self
                .held
                .iter()
                .rposition(|entry| Some(entry.sequence) != serving);
            match oldest {
                Some(index) => drop(self.held.remove(index)),
                None => break,
            }
        }
    }
}
