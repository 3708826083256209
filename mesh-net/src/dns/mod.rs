//! Keeping the endpoints of named clusters fresh.
//!
//! [`Resolver`] asks for a name's addresses, once and without a cache. [`Refresh`] decides when to ask
//! again and what an answer changes: a state machine without clock, socket or randomness. [`DnsWatch`]
//! joins the two for one name of a `STRICT_DNS` or `LOGICAL_DNS` cluster.
//!
//! A name that stops resolving keeps its last good addresses: an upstream that works is worth more than
//! a name server that does not.
//!
//! # With defaults
//!
//! ```no_run
//! # async fn example() {
//! use mesh_core::{Rng, stats::Scope};
//! use mesh_net::dns::{DnsLookupFamily, DnsStats, DnsWatch, RefreshConfig, Resolver, ResolverConfig, Update};
//!
//! let resolver = Resolver::new(&ResolverConfig::default()).unwrap();
//! let mut watch = DnsWatch::new(
//!     resolver,
//!     "books.example",
//!     DnsLookupFamily::Auto,
//!     RefreshConfig::default(),
//!     Rng::from_entropy(),
//!     DnsStats::register(&Scope::detached()),
//! );
//! loop {
//!     if watch.next().await == Update::Changed {
//!         println!("now at {:?}", watch.addresses());
//!     }
//! }
//! # }
//! ```
//!
//! # Customised
//!
//! A name server of one's own, asked again when the records expire:
//!
//! ```
//! use std::time::Duration;
//! use mesh_net::dns::{FailureRefreshRate, RefreshConfig, Resolver, ResolverConfig};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # let _guard = runtime.enter();
//! let resolver = Resolver::new(&ResolverConfig {
//!     resolvers: vec!["127.0.0.53:5353".parse().unwrap()],
//!     query_timeout: Duration::from_secs(1),
//!     ..ResolverConfig::default()
//! })?;
//! let refresh = RefreshConfig {
//!     respect_dns_ttl: true,
//!     dns_failure_refresh_rate: Some(FailureRefreshRate::new(Duration::from_secs(1), None)?),
//!     ..RefreshConfig::default()
//! };
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Envoy
//! `Cluster.type` `STRICT_DNS` and `LOGICAL_DNS`, and `CaresDnsResolverConfig`. Envoy takes an answer
//! without addresses for success and lets the last endpoints go; this keeps them.

mod error;
mod refresh;
mod resolver;
#[cfg(test)]
mod tests;
mod watch;

pub use error::DnsError;
pub use refresh::{
    DnsDiscovery, FailureRefreshRate, LOOKUP_INTERVAL_MIN, Refresh, RefreshConfig, TTL_MAX, Update,
};
pub use resolver::{
    ADDRESSES_MAX, Answer, DnsLookupFamily, InvalidResolver, RESOLVERS_MAX, Resolver,
    ResolverConfig,
};
pub use watch::{DnsStats, DnsWatch};
