use std::{net::IpAddr, sync::Arc};

use mesh_core::{Rng, clock};

use super::{DnsError, DnsLookupFamily, Refresh, RefreshConfig, Resolver, Update};

mesh_core::stats! {
    /// What Envoy counts about the membership of DNS clusters.
    pub struct DnsStats {
        /// Lookups begun.
        counter update_attempt,
        /// Lookups with an answer.
        counter update_success,
        /// Lookups without one.
        counter update_failure,
        /// Lookups whose answer had no addresses.
        counter update_empty,
        /// Lookups that changed nothing.
        counter update_no_rebuild,
    }
}

/// Looks one name up again and again. Its owner polls it; nothing runs by itself.
#[derive(Debug)]
pub struct DnsWatch {
    resolver: Resolver,
    host: Box<str>,
    family: DnsLookupFamily,
    refresh: Refresh,
    rng: Rng,
    stats: DnsStats,
}

impl DnsWatch {
    /// Watches `host`; the first lookup is due at once. `stats` are registered under `cluster.<name>.`.
    #[must_use]
    pub fn new(
        resolver: Resolver,
        host: &str,
        family: DnsLookupFamily,
        config: RefreshConfig,
        rng: Rng,
        stats: DnsStats,
    ) -> Self {
        Self {
            resolver,
            host: host.into(),
            family,
            refresh: Refresh::new(config, clock::now()),
            rng,
            stats,
        }
    }

    /// Waits until a lookup is due, looks the name up, and says what that changed.
    ///
    /// # Cancel safety
    /// A lookup that is dropped is begun anew by the next call.
    pub async fn next(&mut self) -> Update {
        if let Some(due) = self.refresh.next_deadline() {
            tokio::time::sleep_until(due.into()).await;
            self.refresh.on_start();
        }
        self.stats.update_attempt().inc();
        let result = self.resolver.resolve(&self.host, self.family).await;
        match &result {
            Ok(_) => self.stats.update_success().inc(),
            Err(error) => {
                self.stats.update_failure().inc();
                if matches!(error, DnsError::NotFound | DnsError::NoRecords) {
                    self.stats.update_empty().inc();
                }
            }
        }
        let update = self
            .refresh
            .on_end(clock::now(), result, self.rng.next_u64());
        if update == Update::Unchanged {
            self.stats.update_no_rebuild().inc();
        }
        update
    }

    /// The name.
    #[must_use]
    pub const fn host(&self) -> &str {
        &self.host
    }

    /// The last good addresses.
    #[must_use]
    pub const fn addresses(&self) -> &Arc<[IpAddr]> {
        self.refresh.addresses()
    }

    /// Whether a first lookup has ended, well or not.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.refresh.is_settled()
    }

    /// Why the last lookup failed, if it did.
    #[must_use]
    pub const fn last_error(&self) -> Option<&DnsError> {
        self.refresh.last_error()
    }
}
