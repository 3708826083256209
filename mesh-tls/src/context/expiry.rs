use std::{fmt, sync::Arc, time::UNIX_EPOCH};

use rustls::server::{ProducesTickets, StoresServerSessions};

use super::WallClock;

/// So many bytes before a session say when it began.
const BEGAN: usize = size_of::<u64>();

/// When sessions end. The library takes up old ones for as long as it can read them.
#[derive(Clone)]
pub(super) struct Expiry {
    lifetime: u32,
    clock: WallClock,
}

impl Expiry {
    /// A session ends so many seconds after it began.
    pub(super) fn new(lifetime: u32, clock: &WallClock) -> Self {
        Self {
            lifetime,
            clock: Arc::clone(clock),
        }
    }

    /// Tickets that are good until then.
    pub(super) fn tickets(self, inner: Arc<dyn ProducesTickets>) -> Arc<dyn ProducesTickets> {
        Arc::new(Expiring {
            inner,
            expiry: self,
        })
    }

    /// Sessions that are remembered until then.
    pub(super) fn storage(
        self,
        inner: Arc<dyn StoresServerSessions>,
    ) -> Arc<dyn StoresServerSessions> {
        Arc::new(Expiring {
            inner,
            expiry: self,
        })
    }

    fn now(&self) -> Option<u64> {
        let since = (self.clock)().duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    fn stamped(&self, session: &[u8]) -> Option<Vec<u8>> {
        Some([&self.now()?.to_be_bytes()[..], session].concat())
    }

    /// The session, if it has not ended. One that has not begun is as bad: a clock is wrong.
    fn open(&self, stamped: &[u8]) -> Option<Vec<u8>> {
        let (began, session) = stamped.split_at_checked(BEGAN)?;
        let began = u64::from_be_bytes(began.try_into().ok()?);
        let age = self.now()?.checked_sub(began)?;
        (age < u64::from(self.lifetime)).then(|| session.to_vec())
    }
}

/// Something that keeps sessions, and nothing of them that has ended.
struct Expiring<T: ?Sized> {
    inner: Arc<T>,
    expiry: Expiry,
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Expiring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiring")
            .field("inner", &self.inner)
            .field("lifetime", &self.expiry.lifetime)
            .finish_non_exhaustive()
    }
}

impl ProducesTickets for Expiring<dyn ProducesTickets> {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.expiry.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.inner.encrypt(&self.expiry.stamped(plain)?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.expiry.open(&self.inner.decrypt(cipher)?)
    }
}

impl StoresServerSessions for Expiring<dyn StoresServerSessions> {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let stamped = self.expiry.stamped(&value);
        stamped.is_some_and(|value| self.inner.put(key, value))
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.expiry.open(&self.inner.get(key)?)
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.expiry.open(&self.inner.take(key)?)
    }

    fn can_cache(&self) -> bool {
        self.inner.can_cache()
    }
}
