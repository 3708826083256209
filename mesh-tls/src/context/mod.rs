//! What a side of a handshake offers and asks for.

mod cache;
mod client;
mod downstream;
mod expiry;
mod names;
mod params;
mod resolver;
mod server;
mod tickets;
mod upstream;

pub(crate) use cache::ContextCache;
pub(crate) use client::ClientContext;
pub use downstream::DownstreamTlsConfig;
pub(crate) use names::{group_name, suite_name};
pub use params::{ContextError, TlsParams, TlsVersion};
pub(crate) use resolver::take_chosen;
pub(crate) use server::ServerContext;
pub use tickets::{TICKET_KEY_LEN, TICKET_KEYS_MAX, TicketKey};
pub use upstream::UpstreamTlsConfig;
pub(crate) use upstream::server_name;

use rustls::pki_types::UnixTime;

/// The wall clock, as tests may set it.
pub type WallClock = std::sync::Arc<dyn Fn() -> std::time::SystemTime + Send + Sync>;

/// The library asks for the time through this.
pub(crate) struct Clock(pub(crate) WallClock);

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl rustls::time_provider::TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = (self.0)().duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}
