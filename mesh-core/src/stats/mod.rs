//! Counters, gauges and histograms that cost a few nanoseconds and are found by name only when exported.
//!
//! A component declares its stats as one list with [`stats!`](crate::stats!) and registers the list once, under a
//! [`Scope`]. The list's cells lie side by side, once for each worker ("stripe"), so that workers never
//! fight over a cache line and a cluster's eighty stats cost hundreds of bytes, not thousands.
//! Nothing on the data path looks up a name. When the owner of a list goes, its stats go.
//!
//! ```
//! mesh_core::stats! {
//!     /// What the example counts.
//!     pub struct ExampleStats {
//!         /// Requests seen.
//!         counter requests,
//!         /// Requests running.
//!         gauge active,
//!         /// Milliseconds per request.
//!         histogram time,
//!     }
//! }
//! let registry = mesh_core::stats::Registry::new();
//! let stats = ExampleStats::register(&registry.scope("example."));
//! stats.requests().inc();
//! stats.time().record(12);
//! let names: Vec<String> = registry.snapshot().into_iter().map(|stat| stat.name).collect();
//! assert_eq!(names, ["example.active", "example.requests", "example.time"]);
//! ```

mod group;
mod histogram;
mod registry;
mod status;

pub use group::{Counter, Gauge, Group, Histogram, Kind, StatDef};
pub use histogram::{Distribution, HistogramSnapshot, bucket_width};
pub use registry::{ComputedGuard, Registry, Scope, Stat, Value};
pub use status::StatusCounters;

use std::{
    cell::Cell,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// At most so many stripes; further workers share.
pub const STRIPES_MAX: usize = 64;

static STRIPES: AtomicUsize = AtomicUsize::new(1);

/// Which stripes have a thread of their own.
static TAKEN: [AtomicBool; STRIPES_MAX] = [const { AtomicBool::new(false) }; STRIPES_MAX];

thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(SHARED) };
    /// Gives the stripe back when the thread ends.
    static OWNED: Cell<Option<Owned>> = const { Cell::new(None) };
}

/// The stripe of all threads that have none of their own.
const SHARED: usize = 0;

/// A stripe that only this thread counts in.
struct Owned(usize);

impl Drop for Owned {
    fn drop(&mut self) {
        STRIPE.set(SHARED);
        // Whoever takes it over goes on from what this thread has counted.
        TAKEN[self.0].store(false, Ordering::Release);
    }
}

/// How many threads count often, and one for all others: call it once, before any list is registered. The
/// default is 1: correct, and somewhat slower with many threads.
pub fn set_stripes(stripes: usize) {
    STRIPES.store(stripes.clamp(1, STRIPES_MAX), Ordering::Relaxed);
}

/// Gives this thread the stripe of that number (from 1) for as long as it lives. If another thread has it, or
/// there is none, it goes on counting in the one that is shared.
pub fn set_thread_stripe(stripe: usize) {
    OWNED.set(None);
    let free = stripe != SHARED
        && TAKEN
            .get(stripe)
            .is_some_and(|taken| !taken.swap(true, Ordering::Acquire));
    if free {
        OWNED.set(Some(Owned(stripe)));
        STRIPE.set(stripe);
    }
}

/// How many stripes lists that are registered now have.
#[must_use]
pub fn stripes() -> usize {
    STRIPES.load(Ordering::Relaxed)
}

/// The stripe that this thread counts in; may exceed [`stripes`], when threads share the first.
#[must_use]
pub fn thread_stripe() -> usize {
    STRIPE.get()
}

/// Adds `n` to a cell of this thread's stripe.
fn add(cell: &AtomicU64, stripe: usize, n: u64) {
    if stripe == SHARED {
        cell.fetch_add(n, Ordering::Relaxed);
    } else {
        // Nobody else writes here, and a locked addition costs twenty plain ones.
        let sum = cell.load(Ordering::Relaxed).wrapping_add(n);
        cell.store(sum, Ordering::Relaxed);
    }
}

/// Declares a component's list of stats: a struct with one method per stat.
///
/// `register` puts the list under a scope; `detached` counts without being exported.
#[macro_export]
macro_rules! stats {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$doc:meta])* $kind:ident $stat:ident,)*
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $name(::std::sync::Arc<$crate::stats::Group>);

        impl $name {
            fn defs() -> &'static [$crate::stats::StatDef] {
                // A static, not a const: its address identifies the list.
                static DEFS: &[$crate::stats::StatDef] = &[
                    $($crate::stats::StatDef {
                        name: stringify!($stat),
                        kind: $crate::stats!(@kind $kind),
                    },)*
                ];
                DEFS
            }

            /// Registers the list under `scope`; the same scope gives the same cells again.
            #[must_use]
            $vis fn register(scope: &$crate::stats::Scope) -> Self {
                Self(scope.group(Self::defs()))
            }

            /// Counts without being exported.
            #[must_use]
            #[allow(dead_code)]
            $vis fn detached() -> Self {
                Self::register(&$crate::stats::Scope::detached())
            }

            $crate::stats!(@methods ($vis) 0usize; $($(#[$doc])* $kind $stat,)*);
        }
    };
    (@kind counter) => { $crate::stats::Kind::Counter };
    (@kind gauge) => { $crate::stats::Kind::Gauge };
    (@kind histogram) => { $crate::stats::Kind::Histogram };
    (@methods ($vis:vis) $index:expr;) => {};
    (@methods ($vis:vis) $index:expr; $(#[$doc:meta])* counter $stat:ident, $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        #[allow(dead_code)]
        $vis fn $stat(&self) -> $crate::stats::Counter<'_> { self.0.counter($index) }
        $crate::stats!(@methods ($vis) $index + 1; $($rest)*);
    };
    (@methods ($vis:vis) $index:expr; $(#[$doc:meta])* gauge $stat:ident, $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        #[allow(dead_code)]
        $vis fn $stat(&self) -> $crate::stats::Gauge<'_> { self.0.gauge($index) }
        $crate::stats!(@methods ($vis) $index + 1; $($rest)*);
    };
    (@methods ($vis:vis) $index:expr; $(#[$doc:meta])* histogram $stat:ident, $($rest:tt)*) => {
        $(#[$doc])*
        #[must_use]
        #[allow(dead_code)]
        $vis fn $stat(&self) -> $crate::stats::Histogram<'_> { self.0.histogram($index) }
        $crate::stats!(@methods ($vis) $index + 1; $($rest)*);
    };
}
